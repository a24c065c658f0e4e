//! The past of a session: what a fold of its events up to a position answers is what the read models answered when the log
//! ended there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed};
use runledger_events::{AdapterSessionId, Metadata, Position, RunStatus, SessionId, StreamName};
use runledger_projections::{
    AsOf, FeedEvent, FeedFilter, FeedPage, ParkedStream, ProjectionError, Projections, Queries, RequestFilter,
    RunFilter, RunMatch, run_at,
};
use runledger_store::LogReader;
use runledger_testkit::{TempLedger, shared};
use serde_json::{Value, json};
use support::{NAMES, Random, Story, Told, caught_up, queries, sqlite_of_log, start, tell};

const ALL: usize = usize::MAX / 2;

fn session_id(text: &str) -> SessionId {
    SessionId::new(text).unwrap()
}

fn of_session(session: &SessionId) -> FeedFilter {
    FeedFilter { session: Some(session.clone()), ..FeedFilter::default() }
}

/// All pages of so many entries, forwards or backwards, in the order of the feed.
fn pages(queries: &Queries, filter: &FeedFilter, limit: usize, is_backward: bool) -> Vec<FeedEvent> {
    let mut all = Vec::new();
    let mut page = if is_backward { FeedPage::Last } else { FeedPage::First };
    loop {
        let mut events = queries.feed(filter, &page, limit).unwrap();
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return all;
        };
        page = if is_backward { FeedPage::Before(first.cursor()) } else { FeedPage::After(last.cursor()) };
        if is_backward {
            events.extend(all);
            all = events;
        } else {
            all.extend(events);
        }
    }
}

/// Everything that can be asked of a session; without the numbers of the feed's entries, which JSON leaves out.
fn answers(queries: &Queries, session: &SessionId) -> Value {
    let filter = of_session(session);
    let feed = queries.feed(&filter, &FeedPage::First, ALL).unwrap();
    let of_runs = RunFilter { session: Some(session.clone()), ..RunFilter::default() };
    let runs = queries.runs(&of_runs).unwrap();
    let whole = runs.iter().map(|run| {
        let RunMatch::One(one, iterations) = queries.run(run.id.as_str()).unwrap() else { panic!("no {}", run.id) };
        let of_run = FeedFilter { run: Some(run.id.clone()), ..filter.clone() };
        let asked = RequestFilter { run: Some(run.id.clone()), session: Some(session.clone()), ..Default::default() };
        json!({"run": one, "iterations": iterations, "feed": queries.feed(&of_run, &FeedPage::Last, 5).unwrap(),
            "requests": queries.permission_requests(&asked).unwrap()})
    });
    let found = ["secret", "pear", "bash", "iteration", "quince"].map(|text| {
        let filter = FeedFilter { search: Some(text.to_owned()), ..filter.clone() };
        queries.feed(&filter, &FeedPage::First, ALL).unwrap()
    });
    let requests =
        queries.permission_requests(&RequestFilter { session: Some(session.clone()), ..Default::default() }).unwrap();
    // A name may fit what was asked in other sessions too.
    let named = |name: &str| {
        let mut found = queries.requests_named(name).unwrap();
        found.retain(|asked| asked.session_id.as_ref() == Some(session));
        found
    };
    let told = queries.session(session).unwrap();
    let adapters = told.iter().flat_map(|session| &session.adapter_sessions);
    let feed_of = queries.session_feed(session).unwrap();
    let plan: Vec<&str> = feed_of.plan.iter().map(|item| item.get()).collect();
    json!({
        "tree": queries.run_tree(&of_runs).unwrap(),
        "lineage": runs.iter().map(|run| queries.lineage(run).unwrap()).collect::<Vec<_>>(),
        "runs": runs,
        "whole": whole.collect::<Vec<_>>(),
        "forwards": pages(queries, &filter, 7, false),
        "backwards": pages(queries, &filter, 7, true),
        "retellings": feed.iter().map(|event| queries.retellings(event).unwrap()).collect::<Vec<_>>(),
        "feed": feed,
        "found": found,
        "requests": requests,
        "contexts": requests.iter().map(|asked| queries.context(asked.position).unwrap()).collect::<Vec<_>>(),
        "named": requests.iter().map(|asked| named(asked.request_id.as_str())).collect::<Vec<_>>(),
        "homes": adapters.map(|adapter| queries.session_of_adapter(&adapter.id).unwrap()).collect::<Vec<_>>(),
        "session": told,
        "agent_runs": feed_of.runs,
        "actors": feed_of.actors,
        "plan": plan,
    })
}

/// Compares the past with what was answered then.
fn assert_was(ledger: &TempLedger, session: &SessionId, position: Position, then: &Value) {
    let now = AsOf::fold(&ledger.log.reader().unwrap(), session, position).unwrap();
    match now {
        None => assert_eq!(then["session"], Value::Null, "{session} had begun at {position}"),
        Some(as_of) => {
            assert_eq!((as_of.session(), as_of.position()), (session, position));
            let now = answers(as_of.queries(), session);
            for (question, then) in then.as_object().unwrap() {
                assert_eq!(&now[question], then, "{question} of {session} at {position}");
            }
        }
    }
}

/// Compares what one goes on to, from wherever the last look was, with a fold from the beginning.
fn assert_goes_on(reader: &LogReader, session: &SessionId, positions: impl Iterator<Item = Position>) {
    let mut past: Option<AsOf> = None;
    for position in positions {
        let whole = AsOf::fold(reader, session, position).unwrap();
        past = match past {
            None => whole.clone(),
            Some(past) => past.forward(reader, position).unwrap(),
        };
        assert_eq!(past.is_some(), whole.is_some());
        if let (Some(past), Some(whole)) = (&past, &whole) {
            assert_eq!((past.position(), past.events()), (whole.position(), whole.events()));
            let (past, whole) = (past.queries(), whole.queries());
            assert_eq!(answers(past, session), answers(whole, session), "{session} at {position}");
            assert_eq!(
                (past.parked().unwrap(), past.status().unwrap()),
                (whole.parked().unwrap(), whole.status().unwrap())
            );
        }
    }
}

/// Tells a ledger all this and notes what is answered at the positions that `looks` takes; then folds each of them.
fn assert_past_is_what_was_answered(ledger: &TempLedger, told: &[Told], looks: impl Fn(Position) -> bool) {
    let mut projections = caught_up(&ledger.path);
    let queries = queries(&ledger.path);
    let mut sessions: Vec<SessionId> = told.iter().filter_map(|told| told.metadata.session_id.clone()).collect();
    sessions.sort();
    sessions.dedup();
    let mut then: BTreeMap<Position, Vec<Value>> = BTreeMap::new();
    for one in told {
        let position = tell(&*ledger.log, std::slice::from_ref(one));
        if looks(position) {
            projections.catch_up().unwrap();
            then.insert(position, sessions.iter().map(|session| answers(&queries, session)).collect());
        }
    }
    projections.catch_up().unwrap();
    let head = ledger.log.reader().unwrap().head().unwrap().position;
    then.insert(head, sessions.iter().map(|session| answers(&queries, session)).collect());
    for (position, answered) in then {
        for (session, then) in sessions.iter().zip(&answered) {
            assert_was(ledger, session, position, then);
        }
    }
}

/// What a harness tells of messages, calls and plans.
fn harness(story: &mut Story, random: &mut Random, session: &str, run: Option<&str>) -> Told {
    let (call, item) = (random.below(4), random.below(2));
    let tool = format!(r#""tool_name":"Bash","tool_use_id":"t{call}","tool_input":{{"command":"eat pear"}}"#);
    let (kind, data) = match random.below(9) {
        0 => ("message.delta", format!(r#"{{"item_id":"m{item}","delta":"a qui"}}"#)),
        1 => ("message.complete", format!(r#"{{"item_id":"m{item}","delta":"nce"}}"#)),
        2 => ("tool.post", format!(r#"{{{tool},"tool_response":"fine"}}"#)),
        3 => ("tool.failure", format!(r#"{{{tool},"error":"broken"}}"#)),
        4 => ("stop.request", r#"{"last_assistant_message":"Done with the pear"}"#.to_owned()),
        5 => ("plan.delta", format!(r#"{{"plan":[{{"step":"Peel pear {call}","status":"pending"}}]}}"#)),
        6 => ("permission.request", format!(r#"{{{tool},"prompt_id":"p"}}"#)),
        7 => ("subagent.start", format!(r#"{{"agent_id":"sub{item}","agent_type":"t"}}"#)),
        _ => ("user.prompt", format!(r#"{{"prompt":"Find pear {call}","prompt_id":"p"}}"#)),
    };
    let adapter = format!("a{}", random.below(2));
    let mut told = story.told_of_harness(session, Some(&adapter), run, kind, &data);
    // As several sources tell it, of which some tell the same facts.
    let source = ["", "hook:", "stream:", "transcript:"][random.below(4) as usize];
    told.json = told.json.replacen(r#"{"id":""#, &format!(r#"{{"id":"{source}"#), 1);
    told
}

/// A question put through the ledger, what is decided on it, or that it needs no answer.
fn question(random: &mut Random, log: &str, session: &str, number: u64) -> Told {
    let id = format!("{session}-q{}", random.below(6));
    let at = 1_761_000_000_000 + number;
    let (kind, data) = match random.below(5) {
        0..=1 => (
            "relay.request",
            json!({"request_id": id, "log_id": log, "event_id": format!("e{}", random.below(40)),
                "question": "permission", "tool_name": "Bash", "tool_use_id": "t1", "fingerprint": "f",
                "pattern": "Bash(eat)", "mode": "wait", "due_at": at + 100, "on_timeout": "deny",
                "tool_input": {"command": "eat pear"}, "cwd": "/work"}),
        ),
        2 => ("relay.withdrawn", json!({"request_id": id, "reason": "over"})),
        _ => {
            let kind = ["permission_allow", "permission_deny"][random.below(2) as usize];
            let decision = json!({"type": "json", "source": "user", "by": "dev@host", "scope": "once",
                "intent": {"kind": kind, "reason": "because"}});
            ("decision", json!({"eventId": id, "request_id": id, "decision": decision}))
        }
    };
    let json = json!({"id": format!("x{number}"), "timestamp": at, "kind": kind, "data": data}).to_string();
    let metadata = Metadata { session_id: Some(session_id(session)), ..Metadata::default() };
    Told { stream: StreamName::new(format!("request/{id}")).unwrap(), metadata, json }
}

/// Events of three sessions with runs of two, as one program tells them: what belongs together is of one session.
fn apart(log: &str, count: usize, seed: u64) -> Vec<Told> {
    let (mut story, mut random) = (Story::default(), Random(seed ^ 0xa50f));
    let mut told = Vec::new();
    for number in 0..count as u64 {
        let session = format!("s{}", random.below(3));
        told.push(match random.below(5) {
            0 => {
                let run = format!("run-{}", random.below(4));
                let is_of_session = Story::session_of(&run) == session;
                harness(&mut story, &mut random, &session, is_of_session.then_some(run.as_str()))
            }
            1 => question(&mut random, log, &session, number),
            _ => story.mixed(1, 4, random.below(u64::MAX)).remove(0),
        });
    }
    told.into_iter().map(of_its_session_alone).collect()
}

/// Names adapter sessions after the ledger session; what a harness tells within a run of another session is of no run.
fn of_its_session_alone(mut told: Told) -> Told {
    let session = told.metadata.session_id.clone().unwrap();
    for name in ["a0", "a1", "a2", "a3", "stray"] {
        told.json = told.json.replace(&format!("\"{name}\""), &format!("\"{session}-{name}\""));
    }
    told.metadata.adapter_session_id =
        told.metadata.adapter_session_id.map(|id| AdapterSessionId::new(format!("{session}-{id}")).unwrap());
    told.metadata.run_id = told.metadata.run_id.filter(|run| Story::session_of(run.as_str()) == session.as_str());
    told
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(11),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_session_as_of_a_position_is_what_the_read_models_answered_when_the_log_ended_there(seed in any::<u64>()) {
        let ledger = TempLedger::new();
        let told = apart(ledger.log.log_id().as_str(), 160, seed);
        let mut random = Random(seed);
        let looks: Vec<u64> = (0..12).map(|_| 1 + random.below(told.len() as u64)).collect();
        assert_past_is_what_was_answered(&ledger, &told, |position| looks.contains(&position.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(12),
        ..ProptestConfig::default()
    })]

    #[test]
    fn going_on_from_a_past_gives_what_a_fold_from_the_beginning_gives(
        seed in any::<u64>(),
        is_damaged in any::<bool>(),
        steps in prop::collection::vec(0_u64..25, 12),
    ) {
        let ledger = TempLedger::new();
        let told = apart(ledger.log.log_id().as_str(), 160, seed);
        tell(&*ledger.log, &told);
        if is_damaged {
            for position in [40, 90, 91] {
                put(&ledger, "facts", position, OF_TOMORROW);
            }
        }
        let reader = ledger.log.reader().unwrap();
        for session in ["s0", "s1", "s2"].map(session_id) {
            let positions = steps.iter().scan(0, |at, step| {
                *at += step;
                Some(Position(*at))
            });
            assert_goes_on(&reader, &session, positions);
        }
    }
}

#[test]
fn a_past_goes_on_event_by_event() {
    let ledger = TempLedger::new();
    let told = apart(ledger.log.log_id().as_str(), 60, 7);
    tell(&*ledger.log, &told);
    let reader = ledger.log.reader().unwrap();
    assert_goes_on(&reader, &session_id("s1"), (1..=told.len() as u64).map(Position));
}

#[test]
fn a_past_does_not_go_back_nor_over_an_erasure_nor_on_in_another_log() {
    // Given
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let mut prompt = || story.harness("s", Some("a"), None, 5);
    tell(&*ledger.log, &[prompt(), prompt(), prompt()]);
    let other = TempLedger::new();
    tell(&*other.log, &[prompt(), prompt(), prompt()]);
    let (reader, session) = (ledger.log.reader().unwrap(), session_id("s"));
    let past = AsOf::fold(&reader, &session, Position(2)).unwrap().unwrap();
    // When, then
    assert!(past.forward(&reader, Position(1)).unwrap().is_none());
    assert!(past.forward(&other.log.reader().unwrap(), Position(3)).unwrap().is_none());
    assert_eq!(past.forward(&reader, Position(3)).unwrap().unwrap().position(), Position(3));
    let erase = runledger_store::Erase::Sessions(vec![session.clone()]);
    ledger.log.redact(&erase, "asked for", "dev@host").unwrap();
    assert!(
        past.forward(&reader, Position(3)).unwrap().is_none() && past.forward(&reader, Position(2)).unwrap().is_none()
    );
    let anew = AsOf::fold(&reader, &session, Position(2)).unwrap().unwrap();
    assert_eq!((past.erased(), anew.erased()), (None, reader.last_redaction().unwrap()));
    assert!(anew.forward(&reader, Position(3)).unwrap().is_some());
}

#[test]
fn at_every_position_the_past_is_what_was_answered_then() {
    let ledger = TempLedger::new();
    let told = apart(ledger.log.log_id().as_str(), 60, 7);
    assert_past_is_what_was_answered(&ledger, &told, |_| true);
}

#[test]
fn what_is_compared_has_something_of_everything() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &apart(ledger.log.log_id().as_str(), 160, 7));
    drop(caught_up(&ledger.path));
    let answered = ["s0", "s1", "s2"].map(|session| answers(&queries(&ledger.path), &session_id(session)));
    for (question, _) in answered[0].as_object().unwrap() {
        assert!(answered.iter().any(|answers| !answers[question].as_array().is_some_and(Vec::is_empty)), "{question}");
    }
    let text = json!(answered).to_string();
    for word in [r#""retry":{"#, r#""status":"allowed""#, r#""status":"pending""#, r#""status":"withdrawn""#] {
        assert!(text.contains(word), "{word}");
    }
    let some = |question: &'static str| answered.iter().flat_map(move |answers| answers[question].as_array().unwrap());
    assert!(some("retellings").any(|positions| !positions.as_array().unwrap().is_empty()));
    assert!(
        some("found").all(|found| found.is_array()) && some("found").any(|found| !found.as_array().unwrap().is_empty())
    );
}

#[test]
fn every_feed_case_of_the_reference_has_the_past_that_it_had() {
    let Some(folder) = shared("conformance/feed") else {
        return;
    };
    let index: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(folder.join("index.json")).unwrap()).unwrap();
    for (number, case) in (1..).zip(&index) {
        let name = case["name"].as_str().unwrap();
        let input = std::fs::read_to_string(folder.join(format!("{name}.input.jsonl"))).unwrap();
        let is_event = |line: &&str| {
            let value: Value = serde_json::from_str(&runledger_events::readable(line)).unwrap();
            value.get("transcript").is_none() && (value.get("kind").is_some() || value.get("eventId").is_some())
        };
        // Given the case, and another session beside it
        let (mut told, mut story) = (Vec::new(), Story::default());
        for line in input.split('\n').filter(|line| !line.is_empty()).filter(is_event) {
            let metadata = Metadata { session_id: Some(session_id(name)), ..Metadata::default() };
            let stream = StreamName::session(&session_id(name));
            told.push(Told { stream, metadata, json: line.to_owned() });
            told.push(story.told_of_harness("beside", Some("beside"), None, "user.prompt", r#"{"prompt":"secret"}"#));
        }
        let ledger = TempLedger::new();
        let mut random = Random(number);
        let looks: Vec<u64> = (0..3).map(|_| 1 + random.below(told.len() as u64)).collect();
        assert_past_is_what_was_answered(&ledger, &told, |position| looks.contains(&position.0));
    }
}

#[test]
fn the_past_of_a_session_has_the_runs_that_their_own_streams_tell_of() {
    let ledger = TempLedger::new();
    let told = apart(ledger.log.log_id().as_str(), 120, 3);
    tell(&*ledger.log, &told);
    let reader = ledger.log.reader().unwrap();
    for position in (1..=told.len() as u64).step_by(7).map(Position) {
        for session in ["s0", "s1"].map(session_id) {
            let Some(as_of) = AsOf::fold(&reader, &session, position).unwrap() else {
                continue;
            };
            for run in as_of.queries().runs(&RunFilter::default()).unwrap() {
                let RunMatch::One(run, iterations) = as_of.queries().run(run.id.as_str()).unwrap() else { panic!() };
                assert_eq!(run_at(&reader, &run.id, position).unwrap(), Some((*run, iterations)));
            }
        }
    }
}

#[test]
fn before_its_first_event_a_session_is_not_there_and_beyond_the_head_it_is_what_it_is() {
    // Given
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let told = ["other", "s", "s"].map(|session| story.harness(session, Some(session), None, 5));
    tell(&*ledger.log, &told);
    drop(caught_up(&ledger.path));
    let reader = ledger.log.reader().unwrap();
    let fold = |session: &str, position| AsOf::fold(&reader, &session_id(session), Position(position)).unwrap();
    // When, then
    assert!(fold("s", 0).is_none() && fold("s", 1).is_none() && fold("nobody", 3).is_none());
    let beyond = fold("s", u64::MAX).unwrap();
    assert_eq!(beyond.position(), Position(3));
    assert_eq!(answers(beyond.queries(), &session_id("s")), answers(&queries(&ledger.path), &session_id("s")));
    // Nothing of others is in it, and each read model says where it stands
    assert_eq!(beyond.queries().sessions().unwrap().len(), 1);
    let status = beyond.queries().status().unwrap();
    assert_eq!(status.len(), NAMES.len());
    assert!(status.iter().all(|status| status.position == Some(Position(3))));
    // It comes no further, however long one would wait
    let hour = Duration::from_secs(3600);
    beyond.queries().wait_for(Position(3), hour).unwrap();
    let error = beyond.queries().wait_for(Position(4), hour).unwrap_err();
    assert!(matches!(error, ProjectionError::TimedOut { reached: Position(3), .. }), "{error}");
}

/// A payload of a codec version that nobody knows yet.
const OF_TOMORROW: &[u8] = &[99, 0, 0, 0, 1, 2, 3];

fn put(ledger: &TempLedger, column: &str, position: i64, value: impl rusqlite::ToSql) {
    let sqlite = sqlite_of_log(&ledger.path);
    sqlite.execute_batch("DROP TRIGGER IF EXISTS runtime_events_only_erased").unwrap();
    sqlite.execute(&format!("UPDATE runtime_events SET {column} = ?1 WHERE position = ?2"), (value, position)).unwrap();
}

#[test]
fn an_event_that_cannot_be_read_parks_its_stream_as_in_the_read_models_of_the_ledger() {
    for (column, bytes) in [("facts", OF_TOMORROW), ("content", &[2, 1, 1, 0, 1, 2, 3, 4, 5, 6])] {
        // Given
        let ledger = TempLedger::new();
        let mut story = Story::default();
        let session = session_id("s0");
        let mut told = story.whole_run("run-0", "s0", 1, RunStatus::Completed);
        told.extend((0..6).map(|_| story.harness("s0", Some("a"), Some("run-0"), 5)));
        let head = tell(&*ledger.log, &told);
        let damaged = Position(head.0 - 3);
        put(&ledger, column, i64::try_from(damaged.0).unwrap(), bytes);
        drop(caught_up(&ledger.path));
        // When
        let reader = ledger.log.reader().unwrap();
        let as_of = AsOf::fold(&reader, &session, head).unwrap().unwrap();
        // Then
        let told: Vec<ParkedStream> = as_of.queries().parked().unwrap();
        assert_eq!(told, queries(&ledger.path).parked().unwrap());
        assert!(told.iter().any(|parked| parked.projection == "feed_events" && parked.position == damaged), "{told:?}");
        assert_eq!(answers(as_of.queries(), &session), answers(&queries(&ledger.path), &session), "{column}");
        assert_goes_on(&reader, &session, (1..=head.0).map(Position));
        // And before it everything can be read
        let before = AsOf::fold(&reader, &session, Position(damaged.0 - 1)).unwrap().unwrap();
        assert_eq!(before.queries().parked().unwrap(), []);
    }
}

#[test]
fn a_session_of_which_nothing_can_be_read_is_there_and_says_so() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &[Story::default().harness("s", Some("a"), None, 5)]);
    put(&ledger, "facts", 1, OF_TOMORROW);
    let as_of = AsOf::fold(&ledger.log.reader().unwrap(), &session_id("s"), Position(1)).unwrap().unwrap();
    assert_eq!(as_of.queries().session(&session_id("s")).unwrap(), None);
    assert_eq!(as_of.queries().parked().unwrap()[0].position, Position(1));
}

#[test]
fn a_row_that_is_damaged_beyond_its_payloads_is_an_error_that_names_its_position() {
    let ledger = TempLedger::new();
    let mut story = Story::default();
    tell(&*ledger.log, &[1, 2, 3].map(|_| story.harness("s", Some("a"), None, 5)));
    put(&ledger, "event_id", 2, "");
    let reader = ledger.log.reader().unwrap();
    let error = AsOf::fold(&reader, &session_id("s"), Position(3)).unwrap_err();
    assert!(matches!(error, ProjectionError::Read(_)) && error.to_string().contains("position 2"), "{error}");
    assert!(AsOf::fold(&reader, &session_id("s"), Position(1)).unwrap().is_some());
}

#[test]
fn what_was_erased_is_gone_from_the_past_too() {
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let position = tell(&*ledger.log, &[5, 5].map(|choice| story.harness("s", Some("a"), None, choice)));
    let found = || {
        let as_of = AsOf::fold(&ledger.log.reader().unwrap(), &session_id("s"), position).unwrap().unwrap();
        let filter = FeedFilter { search: Some("secret".to_owned()), ..FeedFilter::default() };
        as_of.queries().feed(&filter, &FeedPage::First, ALL).unwrap().len()
    };
    assert_eq!(found(), 2);
    let session = runledger_store::Erase::Sessions(vec![session_id("s")]);
    ledger.log.redact(&session, "asked for", "dev@host").unwrap();
    assert_eq!(found(), 0);
}

#[test]
fn what_another_session_tells_is_not_known_in_the_past_of_this_one() {
    // Given a run of the session `s0`, whose harness has hooks that know neither the run nor its session
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let (s0, own) = (session_id("s0"), session_id("own"));
    let mut told = story.whole_run("run-0", "s0", 1, RunStatus::Completed);
    told.truncate(4);
    let call = r#"{"tool_name":"Bash","tool_use_id":"t1","tool_input":{}}"#;
    let adapter = Some("adapter-run-0");
    told.push(story.told_of_harness("own", adapter, None, "permission.request", call));
    told.push(story.told_of_harness("s0", adapter, None, "permission.request", call));
    told.push(story.told_of_harness("own", adapter, None, "tool.post", call));
    let head = tell(&*ledger.log, &told);
    let mut projections = Projections::open(&ledger.path).unwrap();
    projections.catch_up().unwrap();
    let now = queries(&ledger.path);
    let asked = |queries: &Queries, session: &SessionId| {
        let filter = RequestFilter { session: Some(session.clone()), ..RequestFilter::default() };
        queries.permission_requests(&filter).unwrap().remove(0)
    };
    let has_workflow = |queries: &Queries, session: &SessionId| {
        let feed = queries.feed(&of_session(session), &FeedPage::First, ALL).unwrap();
        feed.iter().any(|event| event.kind == "permission.request" && event.workflow.is_some())
    };
    // When
    let past = |session| AsOf::fold(projections.reader(), session, head).unwrap().unwrap();
    let (past_of_s0, past_of_own) = (past(&s0), past(&own));
    // Then the ledger's read models know of the run in the hooks' session, its past alone does not
    assert!(has_workflow(&now, &own) && asked(&now, &own).run_id.is_some());
    assert!(!has_workflow(past_of_own.queries(), &own) && asked(past_of_own.queries(), &own).run_id.is_none());
    assert!(has_workflow(&now, &s0) && has_workflow(past_of_s0.queries(), &s0));
    // And a request of one session is settled there by what the other tells of the call, in its past it is not
    assert!(asked(&now, &s0).status.is_some());
    assert!(asked(past_of_s0.queries(), &s0).status.is_none());
}

#[test]
fn the_past_of_a_session_has_no_runs_of_others_and_nothing_that_names_no_session() {
    // Given a run with a child in another session, and in its stream a request to pause that names no session
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let mut told = story.whole_run("parent", "s", 1, RunStatus::Completed);
    told.truncate(3);
    told.push(story.workflow_in("child", "other", &start("child", "other", 8)));
    let pause = Told { metadata: Metadata::default(), ..story.decision_of_run("parent", 1) };
    told.push(pause);
    let head = tell(&*ledger.log, &told);
    drop(caught_up(&ledger.path));
    let now = queries(&ledger.path);
    // When
    let past = AsOf::fold(&ledger.log.reader().unwrap(), &session_id("s"), head).unwrap().unwrap();
    // Then
    let of = |queries: &Queries| {
        let RunMatch::One(run, _) = queries.run("parent").unwrap() else { panic!() };
        (queries.children(&run.id).unwrap().len(), run.paused)
    };
    assert_eq!((of(&now), of(past.queries())), ((1, true), (0, false)));
}
