//! Reading: by stream, session, run and kind, within limits, and how far an answer reaches.

use crate::support::{Place, all, append_one, assert_verifies, belonging, id, json, prompt, prompt_with, stream};
use proptest::prelude::*;
use runledger_events::{
    Content, EventKind, Facts, KindFacts, Metadata, Position, RecordedEvent, StreamVersion, chain_seed,
};
use runledger_store::{Batch, EventFilter, ExpectedVersion, LogReader, NewEvent, Read};

const KINDS: [&str; 4] = ["user.prompt", "tool.pre", "session.end", "x.unknown"];

/// Event number `n` of the sample: its stream, session and run, and its kind, in a mixed order.
fn sample(n: usize) -> (&'static str, Metadata, &'static str) {
    let (stream, session, run) = match n % 5 {
        0 | 3 => ("session/a", Some("a"), None),
        1 => ("session/b", Some("b"), None),
        2 => ("run/r", Some("a"), Some("r")),
        _ => ("session/a", Some("a"), Some("r")),
    };
    (stream, belonging(session, run), KINDS[n * 7 % 4])
}

fn place_with(events: usize) -> Place {
    let place = Place::new();
    let log = place.shared();
    for n in 1..=events {
        let (stream, metadata, kind) = sample(n);
        append_one(&*log, stream, json(&format!(r#"{{"id":"e{n}","kind":"{kind}","n":{n}}}"#), metadata));
    }
    place
}

fn numbers(events: &[RecordedEvent]) -> Vec<usize> {
    events.iter().map(|event| event.position.0 as usize).collect()
}

fn read(reader: &LogReader, filter: &EventFilter, after: u64, up_to: u64, limit: usize) -> Batch {
    reader.read(filter, Position(after), Position(up_to), limit, Read::Facts).unwrap()
}

#[test]
fn an_event_comes_back_as_it_was_appended() {
    // Given
    let place = Place::new();
    let log = place.shared();
    let text = r#"{"kind":"session.end", "b":1e400,"a":"\ud83d","id":"e1","data":{"reason":"logout"},"timestamp":7}"#;
    let metadata = Metadata {
        causation_id: Some(id("cause")),
        correlation_id: Some(String::new()),
        ..belonging(Some("a"), Some("r"))
    };
    let receipt = append_one(&*log, "request/1", json(text, metadata.clone()));
    // When
    let events = all(&place.reader());
    // Then
    let facts = Facts { data: KindFacts::SessionEnd { reason: Some("logout".to_owned()) }, ..Facts::default() };
    assert_eq!(
        events,
        [RecordedEvent {
            position: Position(1),
            stream: stream("request/1"),
            stream_version: StreamVersion(1),
            id: id("e1"),
            kind: EventKind::SessionEnd,
            occurred_at: runledger_events::TimestampMs(7),
            recorded_at: receipt.recorded_at,
            metadata,
            facts,
            content: Content::Json(text.to_owned()),
        }]
    );
}

#[test]
fn facts_alone_are_read_without_content() {
    let place = place_with(3);
    place.sqlite().execute("UPDATE runtime_events SET content = NULL, salt = NULL WHERE position = 2", []).unwrap();
    let reader = place.reader();
    let facts = reader.read(&EventFilter::default(), Position::START, Position(3), 10, Read::Facts).unwrap();
    assert!(facts.events.iter().all(|event| event.content == Content::NotRead));
    let everything = reader.read(&EventFilter::default(), Position::START, Position(3), 10, Read::All).unwrap();
    assert_eq!(everything.events[1].content, Content::Erased);
    assert_eq!(everything.events[0].content.json(), Some(r#"{"id":"e1","kind":"x.unknown","n":1}"#));
    for (facts, everything) in facts.events.iter().zip(&everything.events) {
        assert_eq!((&facts.facts, &facts.id), (&everything.facts, &everything.id));
    }
}

#[test]
fn the_content_of_some_kinds_is_read_with_the_facts_of_all() {
    let place = place_with(12);
    place.sqlite().execute("UPDATE runtime_events SET content = NULL, salt = NULL WHERE position = 2", []).unwrap();
    let reader = place.reader();
    let filter = EventFilter::default();
    let everything = reader.read(&filter, Position::START, Position(12), 20, Read::All).unwrap().events;
    let odd = EventKind::parse("it's odd");
    for wanted in [vec![], vec![odd.clone()], vec![everything[1].kind.clone(), odd], EventKind::KNOWN.to_vec()] {
        let read = Read::ContentOf(&wanted);
        let of_some = reader.read(&filter, Position::START, Position(12), 20, read).unwrap().events;
        assert_eq!(of_some.len(), everything.len());
        for (event, whole) in of_some.into_iter().zip(&everything) {
            let content = if wanted.contains(&event.kind) { whole.content.clone() } else { Content::NotRead };
            assert_eq!(event, RecordedEvent { content, ..whole.clone() });
        }
    }
}

#[test]
fn each_filter_takes_what_it_names_and_all_of_them_what_all_name() {
    // Given
    const EVENTS: usize = 40;
    let place = place_with(EVENTS);
    let reader = place.reader();
    let kinds = |names: &[&str]| Some(names.iter().map(|name| EventKind::parse(name)).collect::<Vec<_>>());
    let streams = [None, Some("session/a"), Some("session/b"), Some("run/r"), Some("session/none")];
    let sessions = [None, Some("a"), Some("b"), Some("none")];
    let runs = [None, Some("r"), Some("none")];
    let kind_lists =
        [None, kinds(&["tool.pre"]), kinds(&["x.unknown", "user.prompt"]), kinds(&["workflow.start"]), kinds(&[])];
    for stream_name in streams {
        for session in sessions {
            for run in runs {
                for kinds in &kind_lists {
                    let filter = EventFilter {
                        stream: stream_name.map(stream),
                        session: session.map(|session| session.parse().unwrap()),
                        run: run.map(|run| run.parse().unwrap()),
                        kinds: kinds.clone(),
                    };
                    // When
                    let batch = read(&reader, &filter, 0, EVENTS as u64, EVENTS);
                    // Then
                    let expected: Vec<usize> = (1..=EVENTS)
                        .filter(|n| {
                            let (its_stream, metadata, kind) = sample(*n);
                            stream_name.is_none_or(|name| name == its_stream)
                                && session
                                    .is_none_or(|id| metadata.session_id.as_ref().is_some_and(|its| its.as_str() == id))
                                && run.is_none_or(|id| metadata.run_id.as_ref().is_some_and(|its| its.as_str() == id))
                                && kinds.as_ref().is_none_or(|kinds| kinds.contains(&EventKind::parse(kind)))
                        })
                        .collect();
                    assert_eq!(numbers(&batch.events), expected, "{filter:?}");
                    assert_eq!(batch.scanned_to, Position(EVENTS as u64));
                }
            }
        }
    }
}

#[test]
fn workflow_kinds_are_found_by_themselves_and_among_others() {
    let place = Place::new();
    let log = place.shared();
    append_one(&*log, "run/r", prompt("e1", "x"));
    append_one(
        &*log,
        "run/r",
        json(r#"{"kind":"workflow.end","data":{"status":"failed","iteration":0}}"#, Metadata::default()),
    );
    append_one(&*log, "run/r", json(r#"{"kind":"workflow.other"}"#, Metadata::default()));
    let of = |kinds: &[EventKind]| {
        numbers(
            &read(&place.reader(), &EventFilter { kinds: Some(kinds.to_vec()), ..EventFilter::default() }, 0, 3, 9)
                .events,
        )
    };
    assert_eq!(of(&[EventKind::WorkflowEnd]), [2]);
    assert_eq!(of(&[EventKind::WorkflowEnd, EventKind::WorkflowStart]), [2]);
    assert_eq!(of(&[EventKind::WorkflowEnd, EventKind::UserPrompt]), [1, 2]);
    assert_eq!(of(&[EventKind::parse("workflow.other")]), [3]);
}

#[test]
fn runs_and_permissions_are_found_by_their_index_and_as_without_it() {
    // Given a log with all kinds, among them those of an index
    let place = Place::new();
    let log = place.shared();
    let known = EventKind::KNOWN.iter().filter(|kind| !kind.as_str().contains('.') || kind.as_str().contains("perm"));
    let kinds: Vec<&str> = known.map(EventKind::as_str).chain(["x.other", "permission.other"]).collect();
    for (n, kind) in kinds.iter().enumerate() {
        let text = format!(r#"{{"id":"e{n}","kind":"{kind}","eventId":"e0","data":{{"eventId":"e0"}}}}"#);
        append_one(&*log, "session/a", json(&text, belonging(Some("a"), Some("r"))));
    }
    let reader = place.reader();
    let read_kinds = |wanted: &[&str]| {
        let kinds = Some(wanted.iter().map(|kind| EventKind::parse(kind)).collect());
        numbers(&read(&reader, &EventFilter { kinds, ..EventFilter::default() }, 0, 999, 999).events)
    };
    // When, then
    for wanted in [
        vec!["decision"],
        vec!["decision", "permission.request"],
        vec!["permission.denied", "permission.request", "workflow.end"],
        vec!["decision", "setup"],
        vec!["permission.other", "decision"],
    ] {
        let expected: Vec<usize> = (1..=kinds.len()).filter(|n| wanted.contains(&kinds[n - 1])).collect();
        assert_eq!(read_kinds(&wanted), expected, "{wanted:?}");
    }
    let plan: String = place
        .sqlite()
        .query_row(
            "EXPLAIN QUERY PLAN SELECT position FROM runtime_events WHERE position > 0 AND position <= 9
             AND kind IN ('decision', 'workflow.end') AND (kind GLOB 'workflow.*' OR kind = 'decision'
             OR kind GLOB 'relay.*' OR kind GLOB 'timer.*' OR kind GLOB 'permission.*') ORDER BY position",
            [],
            |row| row.get(3),
        )
        .unwrap();
    assert!(plan.contains("runtime_events_of_runs_and_permissions"), "{plan}");
}

#[test]
fn the_run_of_a_harness_session_is_the_one_that_used_it_last() {
    // Given
    let place = Place::new();
    let log = place.shared();
    let named = |adapter: &str| Metadata { adapter_session_id: adapter.parse().ok(), ..Metadata::default() };
    let session = |n: u32, adapter: &str| {
        json(
            &format!(
                r#"{{"id":"s{n}-{adapter}","kind":"workflow.iteration","data":{{"phase":"session","iteration":{n},"adapter_session_id":"{adapter}"}}}}"#
            ),
            named(adapter),
        )
    };
    append_one(&*log, "run/r1", session(1, "a"));
    append_one(&*log, "run/r1", session(1, "b"));
    append_one(&*log, "run/r2", session(1, "a"));
    append_one(&*log, "run/r1", prompt_with("p", "x", named("a")));
    append_one(&*log, "session/a", session(2, "a"));
    append_one(&*log, "session/a", session(2, "c"));
    // When, then
    let reader = place.reader();
    let run = |adapter: &str| {
        let found = reader.run_of_adapter_session(&adapter.parse().unwrap()).unwrap();
        found.map(|run| run.to_string())
    };
    assert_eq!(run("a").as_deref(), Some("r2"), "words about a run in a session's stream do not count");
    assert_eq!(run("b").as_deref(), Some("r1"));
    assert_eq!((run("c"), run("none")), (None, None));
    let plan: String = place
        .sqlite()
        .query_row(
            "EXPLAIN QUERY PLAN SELECT position, stream_key FROM runtime_events WHERE adapter_session_id = 'a'
             AND kind GLOB 'workflow.*' AND adapter_session_id IS NOT NULL ORDER BY position DESC",
            [],
            |row| row.get(3),
        )
        .unwrap();
    assert!(plan.contains("runtime_events_of_workflows_by_adapter_session (adapter_session_id=?)"), "{plan}");
}

#[test]
fn a_stream_is_read_backwards_from_its_end_or_from_before_a_version() {
    let place = place_with(20);
    let reader = place.reader();
    let back = |name: &str, before: Option<u64>, limit: usize| {
        numbers(&reader.read_stream_back(&stream(name), before.map(StreamVersion), limit, Read::Facts).unwrap())
    };
    // Given its order forwards: 3, 4, 5, 8, 9, 10, 13, 14, 15, 18, 19, 20
    assert_eq!(back("session/a", None, 3), [20, 19, 18]);
    assert_eq!(back("session/a", Some(10), 2), [15, 14], "those of version 10 and later are left out");
    assert_eq!(back("session/a", Some(3), 99), [4, 3]);
    assert_eq!(back("session/a", Some(1), 99), [0; 0]);
    assert_eq!(back("session/a", None, 99).len(), 12);
    assert_eq!((back("session/none", None, 9), back("session/a", None, 0)), (vec![], vec![]));
    let whole = reader.read_stream_back(&stream("session/b"), None, 1, Read::All).unwrap();
    assert!(whole[0].content.json().unwrap().contains(r#""n":16"#));
}

#[test]
fn an_answer_begins_behind_a_position_and_ends_with_another() {
    let place = place_with(10);
    let reader = place.reader();
    let everything = EventFilter::default();
    assert_eq!(numbers(&read(&reader, &everything, 3, 6, 99).events), [4, 5, 6]);
    assert_eq!(read(&reader, &everything, 3, 6, 99).scanned_to, Position(6));
    assert_eq!(numbers(&read(&reader, &everything, 6, 6, 99).events), [0; 0]);
    assert_eq!(numbers(&read(&reader, &everything, 10, 10, 99).events), [0; 0]);
    assert_eq!(numbers(&read(&reader, &everything, 8, u64::MAX, 99).events), [9, 10]);
}

#[test]
fn a_limited_answer_reaches_to_its_last_event_and_a_whole_one_to_its_end() {
    let place = place_with(20);
    let reader = place.reader();
    let b = EventFilter { stream: Some(stream("session/b")), ..EventFilter::default() };
    // Events 1, 6, 11 and 16 are in session/b.
    let cut = read(&reader, &b, 0, 20, 2);
    assert_eq!((numbers(&cut.events), cut.scanned_to), (vec![1, 6], Position(6)));
    let rest = read(&reader, &b, 6, 20, 9);
    assert_eq!((numbers(&rest.events), rest.scanned_to), (vec![11, 16], Position(20)));
    // As many as the limit may be all there are; one more look tells.
    let full = read(&reader, &b, 6, 20, 2);
    assert_eq!(full.scanned_to, Position(16));
    let none = read(&reader, &b, 16, 20, 2);
    assert_eq!((numbers(&none.events), none.scanned_to), (vec![], Position(20)));
}

#[test]
fn an_answer_never_reaches_beyond_the_head() {
    // Given an answer up to a position that is not there yet
    let place = place_with(5);
    let reader = place.reader();
    let batch = read(&reader, &EventFilter::default(), 0, 1000, 99);
    // When the log grows
    append_one(&*place.shared(), "session/a", prompt("more", "x"));
    // Then reading on behind what was searched finds what came.
    let next = read(&reader, &EventFilter::default(), batch.scanned_to.0, 1000, 99);
    assert_eq!(numbers(&next.events), [6], "the first answer claimed to reach to {}", batch.scanned_to);
}

#[test]
fn large_contents_are_handed_out_in_several_answers() {
    // Given six events of 3 MB, and one of 12 MB
    let place = Place::new();
    let log = place.shared();
    let sizes = [3, 3, 3, 3, 12, 3, 3];
    for (n, size) in sizes.iter().enumerate() {
        let large = "x".repeat(size << 20);
        append_one(&*log, "session/a", prompt(&format!("e{n}"), &large));
    }
    let reader = place.reader();
    // When
    let (mut after, mut answers) = (Position::START, Vec::new());
    while after < Position(7) {
        let batch = reader.read(&EventFilter::default(), after, Position(7), 1000, Read::All).unwrap();
        assert!(batch.scanned_to > after, "an answer gets on");
        after = batch.scanned_to;
        answers.push(numbers(&batch.events));
    }
    // Then each answer ends with the event that fills 8 MB.
    assert_eq!(answers, [vec![1, 2, 3], vec![4, 5], vec![6, 7]]);
    // Facts alone are one answer, and a whole stream is read across all of them.
    assert_eq!(read(&reader, &EventFilter::default(), 0, 7, 1000).events.len(), 7);
    let whole = reader.read_stream(&stream("session/a"), StreamVersion::EMPTY, Read::All).unwrap();
    let lengths: Vec<usize> = whole.iter().map(|event| event.content.json().unwrap().len() >> 20).collect();
    assert_eq!(lengths, sizes);
    assert_verifies(&reader);
}

#[test]
fn a_stream_is_read_from_a_version_on() {
    let place = place_with(20);
    let reader = place.reader();
    let a = |after: u64| numbers(&reader.read_stream(&stream("session/a"), StreamVersion(after), Read::Facts).unwrap());
    let whole = a(0);
    assert_eq!(whole, [3, 4, 5, 8, 9, 10, 13, 14, 15, 18, 19, 20]);
    for after in 0..=12 {
        assert_eq!(a(after), whole[after as usize..]);
    }
    assert_eq!(a(13), [0; 0]);
    assert_eq!(a(u64::MAX >> 1), [0; 0]);
    assert_eq!(reader.stream_version(&stream("session/a")).unwrap(), StreamVersion(12));
    assert_eq!(reader.stream_version(&stream("session/none")).unwrap(), StreamVersion::EMPTY);
    assert!(reader.read_stream(&stream("session/none"), StreamVersion::EMPTY, Read::All).unwrap().is_empty());
}

#[test]
fn the_head_and_the_chain_are_told_for_each_position() {
    let place = Place::new();
    let log = place.shared();
    let reader = place.reader();
    let head = reader.head().unwrap();
    assert_eq!((head.position, head.chain), (Position::START, chain_seed(log.log_id())));
    append_one(&*log, "session/a", prompt("e1", "x"));
    append_one(&*log, "session/a", prompt("e2", "x"));
    let head = reader.head().unwrap();
    assert_eq!(head.position, Position(2));
    assert_eq!(reader.chain_at(Position(2)).unwrap(), Some(head.chain));
    assert_eq!(reader.chain_at(Position::START).unwrap(), Some(chain_seed(log.log_id())));
    assert_eq!(reader.chain_at(Position(3)).unwrap(), None);
    assert_ne!(reader.chain_at(Position(1)).unwrap(), Some(head.chain));
    assert_eq!(reader.log_id(), log.log_id());
}

#[test]
fn an_event_is_found_by_its_id_in_all_streams_or_in_one_session() {
    let place = Place::new();
    let log = place.shared();
    append_one(&*log, "session/a", prompt_with("req-1", "x", belonging(Some("a"), None)));
    append_one(&*log, "session/b", prompt_with("req-1", "y", belonging(Some("b"), None)));
    append_one(&*log, "run/r", prompt_with("w-1", "z", belonging(Some("a"), Some("r"))));
    let reader = place.reader();
    assert_eq!(numbers(&reader.find(&id("req-1"), None).unwrap()), [1, 2]);
    assert_eq!(numbers(&reader.find(&id("req-1"), Some(&"b".parse().unwrap())).unwrap()), [2]);
    assert_eq!(numbers(&reader.find(&id("w-1"), None).unwrap()), [3]);
    assert!(reader.find(&id("w-1"), Some(&"a".parse().unwrap())).unwrap().is_empty(), "it is in a stream of its own");
    assert!(reader.find(&id("none"), None).unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_in_pieces_of_any_size_gives_what_reading_at_once_gives(
        picks in prop::collection::vec((0..3_usize, 0..4_usize), 0..40),
        limit in 1..7_usize,
        kinds in prop::option::of(prop::collection::vec(prop::sample::select(&KINDS[..]), 0..3)),
        session in prop::option::of(prop::sample::select(&["a", "b"][..])),
    ) {
        let place = Place::new();
        let log = place.shared();
        let events: Vec<NewEvent> = picks
            .iter()
            .map(|(session, kind)| {
                json(&format!(r#"{{"kind":"{}"}}"#, KINDS[*kind]), belonging([None, Some("a"), Some("b")][*session], None))
            })
            .collect();
        log.append(&stream("request/1"), ExpectedVersion::Any, events).unwrap();
        let reader = place.reader();
        let filter = EventFilter {
            kinds: kinds.as_ref().map(|kinds| kinds.iter().map(|kind| EventKind::parse(kind)).collect()),
            session: session.map(|session| session.parse().unwrap()),
            ..EventFilter::default()
        };
        let head = reader.head().unwrap().position;
        let (mut pieces, mut after) = (Vec::new(), Position::START);
        while after < head {
            let batch = reader.read(&filter, after, head, limit, Read::Facts).unwrap();
            prop_assert!(batch.events.len() <= limit);
            prop_assert!(batch.scanned_to > after && batch.scanned_to <= head);
            after = batch.scanned_to;
            pieces.extend(batch.events);
        }
        let at_once = reader.read(&filter, Position::START, head, usize::MAX, Read::Facts).unwrap().events;
        let expected: Vec<usize> = (1..)
            .zip(&picks)
            .filter(|(_, (its, kind))| {
                session.is_none_or(|session| [None, Some("a"), Some("b")][*its] == Some(session))
                    && kinds.as_ref().is_none_or(|kinds| kinds.contains(&KINDS[*kind]))
            })
            .map(|(n, _)| n)
            .collect();
        prop_assert_eq!(numbers(&pieces), expected);
        prop_assert_eq!(pieces, at_once);
    }
}
