//! Appending: conditions, atomicity, identity, many writers, and a naive model to compare with.

use std::collections::HashSet;
use std::sync::Arc;

use crate::support::{Place, all, append_one, assert_dense, assert_verifies, id, json, prompt, prompt_with, stream};
use proptest::prelude::*;
use runledger_events::{Content, Metadata, Position, StreamVersion, TimestampMs};
use runledger_store::{AppendError, ExpectedVersion, NewEvent, StreamAppend, WrongExpectedVersion};

fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(StreamVersion(version))
}

#[test]
fn positions_and_versions_count_up_without_gaps() {
    // Given
    let place = Place::new();
    let log = place.shared();
    // When
    let mut receipts = Vec::new();
    for (index, name) in ["session/a", "run/r", "session/a", "session/b", "run/r", "session/a"].iter().enumerate() {
        receipts.push(append_one(&*log, name, prompt(&format!("e{index}"), "x")));
    }
    // Then
    let places: Vec<(u64, u64)> = receipts.iter().map(|r| (r.position.0, r.stream_version.0)).collect();
    assert_eq!(places, [(1, 1), (2, 1), (3, 2), (4, 1), (5, 2), (6, 3)]);
    assert!(receipts.iter().all(|receipt| !receipt.is_duplicate));
    let events = all(&place.reader());
    assert_dense(&events);
    for (event, receipt) in events.iter().zip(&receipts) {
        assert_eq!(
            (&event.id, event.position, event.recorded_at),
            (&receipt.event_id, receipt.position, receipt.recorded_at)
        );
    }
    assert_eq!(place.reader().streams().unwrap(), 3);
}

#[test]
fn events_of_one_append_stand_in_the_order_given() {
    let place = Place::new();
    let log = place.shared();
    let events = (1..=5).map(|n| prompt(&format!("e{n}"), &n.to_string())).collect();
    let receipts = log.append(&stream("session/a"), ExpectedVersion::NoStream, events).unwrap();
    let ids: Vec<&str> = receipts.iter().map(|receipt| receipt.event_id.as_str()).collect();
    assert_eq!(ids, ["e1", "e2", "e3", "e4", "e5"]);
    assert_eq!(receipts.last().unwrap().position, Position(5));
}

#[test]
fn an_event_keeps_its_own_id_and_time_and_gets_those_that_it_lacks() {
    let place = Place::new();
    let log = place.shared();
    let own =
        append_one(&*log, "session/a", json(r#"{"id":"req-1","timestamp":5,"kind":"setup"}"#, Metadata::default()));
    let given = append_one(&*log, "session/a", json(r#"{"kind":"setup"}"#, Metadata::default()));
    let events = all(&place.reader());
    assert_eq!((own.event_id.as_str(), events[0].occurred_at), ("req-1", TimestampMs(5)));
    assert_eq!(given.event_id.as_str().len(), 36, "a UUID");
    assert_eq!(&given.event_id.as_str()[14..15], "7", "of version 7");
    assert_eq!(events[1].occurred_at, events[1].recorded_at);
    assert_eq!(events[1].recorded_at, given.recorded_at);
}

#[test]
fn the_adapter_session_is_the_events_own_unless_the_metadata_names_one() {
    let place = Place::new();
    let log = place.shared();
    let text = r#"{"kind":"setup","sessionId":"own"}"#;
    let named = Metadata { adapter_session_id: Some("named".parse().unwrap()), ..Metadata::default() };
    append_one(&*log, "session/a", json(text, Metadata::default()));
    append_one(&*log, "session/a", json(text, named));
    let ids: Vec<String> = all(&place.reader())
        .iter()
        .map(|event| event.metadata.adapter_session_id.clone().unwrap().to_string())
        .collect();
    assert_eq!(ids, ["own", "named"]);
}

#[test]
fn each_expected_version_holds_for_the_streams_it_names() {
    let table = [
        (ExpectedVersion::Any, 0, true),
        (ExpectedVersion::Any, 2, true),
        (ExpectedVersion::NoStream, 0, true),
        (ExpectedVersion::NoStream, 2, false),
        (ExpectedVersion::StreamExists, 0, false),
        (ExpectedVersion::StreamExists, 2, true),
        (exact(0), 0, true),
        (exact(0), 2, false),
        (exact(1), 2, false),
        (exact(2), 2, true),
        (exact(3), 2, false),
        (exact(2), 0, false),
    ];
    for (expected, events, holds) in table {
        // Given
        let place = Place::new();
        let log = place.shared();
        for n in 0..events {
            append_one(&*log, "session/a", prompt(&format!("e{n}"), "x"));
        }
        // When
        let result = log.append(&stream("session/a"), expected, vec![prompt("new", "x")]);
        // Then
        let there = all(&place.reader()).len() as u64;
        if holds {
            assert_eq!(result.unwrap()[0].stream_version, StreamVersion(events + 1), "{expected} on {events}");
            assert_eq!(there, events + 1);
        } else {
            let Err(AppendError::WrongExpectedVersion(conflict)) = result else {
                panic!("{expected} on {events}: {result:?}");
            };
            let actual = StreamVersion(events);
            assert_eq!(conflict, WrongExpectedVersion { stream: stream("session/a"), expected, actual });
            assert_eq!(there, events);
        }
    }
}

#[test]
fn append_with_stale_version_writes_nothing_not_even_a_streams_name() {
    // Given
    let place = Place::new();
    let log = place.shared();
    append_one(&*log, "session/a", prompt("e1", "x"));
    let rows = |table: &str| -> i64 {
        place.sqlite().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    let before = (rows("streams"), rows("runtime_events"), place.reader().head().unwrap());
    // When
    let metadata = crate::support::belonging(Some("elsewhere"), Some("r9"));
    let events = vec![prompt_with("e2", "x", metadata.clone()), prompt_with("e3", "x", metadata)];
    let error = log.append(&stream("run/new"), exact(4), events).unwrap_err();
    // Then
    assert_eq!(
        error.to_string(),
        "stream run/new: expected version 4, but it has 0 events; read again and decide again"
    );
    assert_eq!((rows("streams"), rows("runtime_events"), place.reader().head().unwrap()), before);
    assert_verifies(&place.reader());
}

#[test]
fn several_streams_are_appended_to_together_or_not_at_all() {
    // Given
    let place = Place::new();
    let log = place.shared();
    append_one(&*log, "session/b", prompt("b1", "x"));
    let to = |name: &str, expected, ids: &[&str]| StreamAppend {
        stream: stream(name),
        expected,
        events: ids.iter().map(|id| prompt(id, "x")).collect(),
    };
    // When the last of three conflicts
    let a = to("session/a", ExpectedVersion::NoStream, &["a1", "a2"]);
    let b = to("session/b", exact(1), &["b2"]);
    let stale = to("run/r", ExpectedVersion::StreamExists, &["r1"]);
    let result = log.append_all(vec![a.clone(), b.clone(), stale]);
    // Then nothing was written
    assert!(matches!(result, Err(AppendError::WrongExpectedVersion(conflict)) if conflict.stream == stream("run/r")));
    assert_eq!(all(&place.reader()).len(), 1);
    // When all hold, then the receipts come in the order given
    let again = to("session/a", exact(2), &["a3"]);
    let receipts = log.append_all(vec![a, b, again]).unwrap();
    let places: Vec<(&str, u64, u64)> =
        receipts.iter().map(|r| (r.event_id.as_str(), r.position.0, r.stream_version.0)).collect();
    assert_eq!(places, [("a1", 2, 1), ("a2", 3, 2), ("b2", 4, 2), ("a3", 5, 3)]);
    assert_verifies(&place.reader());
}

#[test]
fn an_append_of_no_events_checks_its_condition_and_writes_nothing() {
    let place = Place::new();
    let log = place.shared();
    assert_eq!(log.append(&stream("session/a"), ExpectedVersion::NoStream, vec![]).unwrap(), []);
    let conflict = log.append(&stream("session/a"), ExpectedVersion::StreamExists, vec![]);
    assert!(matches!(conflict, Err(AppendError::WrongExpectedVersion(_))));
    assert_eq!(log.append_all(vec![]).unwrap(), []);
    assert_eq!(place.reader().head().unwrap().position, Position::START);
}

#[test]
fn the_same_event_again_is_answered_with_its_first_receipt() {
    // Given
    let place = Place::new();
    let log = place.shared();
    let first = append_one(&*log, "session/a", prompt("e1", "x"));
    append_one(&*log, "session/a", prompt("e2", "y"));
    // When
    for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream, exact(0), exact(7), ExpectedVersion::StreamExists]
    {
        let again = log.append(&stream("session/a"), expected, vec![prompt("e1", "x")]).unwrap().remove(0);
        // Then
        assert!(again.is_duplicate, "{expected}");
        assert_eq!(
            (again.position, again.stream_version, again.recorded_at),
            (first.position, first.stream_version, first.recorded_at)
        );
    }
    assert_eq!(all(&place.reader()).len(), 2);
}

#[test]
fn other_content_under_a_taken_id_is_refused_and_writes_nothing() {
    let place = Place::new();
    let log = place.shared();
    append_one(&*log, "session/a", prompt("e1", "x"));
    let other_kind = json(
        r#"{"id":"e1","timestamp":1761000000000,"kind":"session.end","data":{"prompt":"x"}}"#,
        Metadata::default(),
    );
    for events in [vec![prompt("e1", "z")], vec![other_kind], vec![prompt("e2", "y"), prompt("e1", "z")]] {
        let error = log.append(&stream("session/a"), ExpectedVersion::Any, events).unwrap_err();
        let AppendError::IdTaken { stream: name, id: taken, position } = error else {
            panic!("{error}");
        };
        assert_eq!((name, taken, position), (stream("session/a"), id("e1"), Position(1)));
    }
    assert_eq!(all(&place.reader()).len(), 1);
}

#[test]
fn an_id_is_taken_in_its_own_stream_alone() {
    let place = Place::new();
    let log = place.shared();
    append_one(&*log, "session/a", prompt("e1", "x"));
    let receipt = append_one(&*log, "session/b", prompt("e1", "other"));
    assert_eq!((receipt.position, receipt.is_duplicate), (Position(2), false));
    let found = place.reader().find(&id("e1"), None).unwrap();
    assert_eq!(found.len(), 2);
    let found = place.reader().find(&id("e1"), Some(&"b".parse().unwrap())).unwrap();
    assert_eq!(found.iter().map(|event| event.position).collect::<Vec<_>>(), [Position(2)]);
}

#[test]
fn a_repeated_id_within_one_append_counts_once_or_is_refused() {
    let place = Place::new();
    let log = place.shared();
    let twice = vec![prompt("e1", "x"), prompt("e2", "y"), prompt("e1", "x")];
    let receipts = log.append(&stream("session/a"), ExpectedVersion::NoStream, twice).unwrap();
    assert_eq!(
        receipts.iter().map(|r| (r.position.0, r.is_duplicate)).collect::<Vec<_>>(),
        [(1, false), (2, false), (1, true)]
    );
    let other = vec![prompt("e3", "x"), prompt("e3", "z")];
    assert!(matches!(
        log.append(&stream("session/a"), ExpectedVersion::Any, other),
        Err(AppendError::IdTaken { position: Position(3), .. })
    ));
    assert_eq!(all(&place.reader()).len(), 2);
}

#[test]
fn a_partly_known_append_adds_the_rest_unless_it_names_a_version() {
    let place = Place::new();
    let log = place.shared();
    append_one(&*log, "session/a", prompt("e1", "x"));
    let both = || vec![prompt("e1", "x"), prompt("e2", "y")];
    for expected in [ExpectedVersion::NoStream, exact(0), exact(1)] {
        let result = log.append(&stream("session/a"), expected, both());
        assert!(matches!(result, Err(AppendError::WrongExpectedVersion(_))), "{expected}: {result:?}");
    }
    let receipts = log.append(&stream("session/a"), ExpectedVersion::StreamExists, both()).unwrap();
    assert_eq!(receipts.iter().map(|r| (r.position.0, r.is_duplicate)).collect::<Vec<_>>(), [(1, true), (2, false)]);
}

#[test]
fn an_erased_event_is_known_again_by_its_facts() {
    // Given
    let place = Place::new();
    let log = place.shared();
    let end = |reason: &str, more: &str| {
        json(
            &format!(r#"{{"id":"e1","kind":"session.end","data":{{"reason":"{reason}"}},"x":"{more}"}}"#),
            Metadata::default(),
        )
    };
    append_one(&*log, "session/a", end("logout", "secret"));
    place.sqlite().execute("UPDATE runtime_events SET content = NULL, salt = NULL", []).unwrap();
    // When, then
    assert!(append_one(&*log, "session/a", end("logout", "secret")).is_duplicate);
    let other = log.append(&stream("session/a"), ExpectedVersion::Any, vec![end("clear", "secret")]);
    assert!(matches!(other, Err(AppendError::IdTaken { .. })));
    let other = log.append(&stream("session/a"), ExpectedVersion::Any, vec![prompt("e1", "x")]);
    assert!(matches!(other, Err(AppendError::IdTaken { .. })));
    assert_eq!(all(&place.reader())[0].content, Content::Erased);
}

#[test]
fn many_threads_share_one_log_and_each_gets_its_own_answer() {
    // Given
    const THREADS: u64 = 8;
    const APPENDS: u64 = 60;
    let place = Place::new();
    let log = Arc::new(place.shared());
    // When
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                let own = format!("run/r{thread}");
                let mut receipts = Vec::new();
                for n in 0..APPENDS {
                    let to_own = vec![prompt(&format!("own-{thread}-{n}"), "x")];
                    receipts.extend(log.append(&stream(&own), exact(n), to_own).unwrap());
                    // A conflict harms nobody who shares its transaction.
                    let stale = log.append(&stream(&own), exact(n), vec![prompt("stale", "x")]);
                    let Err(AppendError::WrongExpectedVersion(conflict)) = stale else { panic!("{stale:?}") };
                    assert_eq!((conflict.expected, conflict.actual), (exact(n), StreamVersion(n + 1)));
                    receipts.push(append_one(&**log, "session/shared", prompt(&format!("{thread}-{n}"), "x")));
                }
                receipts
            })
        })
        .collect();
    let receipts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    // Then
    let events = all(&place.reader());
    assert_dense(&events);
    assert_eq!(events.len() as u64, THREADS * APPENDS * 2);
    for own in &receipts {
        assert!(own.is_sorted_by(|a, b| a.position < b.position), "a thread's appends stand in its order");
        for receipt in own {
            assert_eq!(events[receipt.position.0 as usize - 1].id, receipt.event_id);
        }
    }
    let distinct: HashSet<Position> = receipts.iter().flatten().map(|receipt| receipt.position).collect();
    assert_eq!(distinct.len(), events.len());
    assert_verifies(&place.reader());
}

#[test]
fn two_handles_on_one_file_take_turns_and_neither_overwrites_the_other() {
    // Given two writers, as two processes would have them
    const APPENDS: u64 = 80;
    let place = Place::new();
    let logs = [place.shared(), place.shared()];
    assert_eq!(logs[0].log_id(), logs[1].log_id());
    // When both append to one stream by the version that they believe it has
    let conflicts: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = logs
            .iter()
            .enumerate()
            .map(|(writer, log)| {
                scope.spawn(move || {
                    let (mut version, mut conflicts) = (0, 0);
                    for n in 0..APPENDS {
                        loop {
                            let event = prompt(&format!("{writer}-{n}"), "x");
                            match log.append(&stream("run/r"), exact(version), vec![event]) {
                                Ok(receipts) => break version = receipts[0].stream_version.0,
                                Err(AppendError::WrongExpectedVersion(conflict)) => {
                                    assert!(conflict.actual.0 > version, "a conflict tells of something newer");
                                    version = conflict.actual.0;
                                    conflicts += 1;
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                    conflicts
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // Then
    let events = all(&place.reader());
    assert_eq!(events.len() as u64, 2 * APPENDS, "after {conflicts} conflicts");
    assert_dense(&events);
    for writer in 0..2 {
        let own: Vec<_> = events.iter().filter(|event| event.id.as_str().starts_with(&format!("{writer}-"))).collect();
        assert!(own.iter().enumerate().all(|(n, event)| event.id.as_str() == format!("{writer}-{n}")));
    }
    assert_verifies(&place.reader());
}

#[test]
fn handles_that_alternate_see_each_others_events() {
    let place = Place::new();
    let (a, b) = (place.shared(), place.shared());
    for n in 0..10 {
        let log = if n % 2 == 0 { &a } else { &b };
        let receipts = log.append(&stream("run/r"), exact(n), vec![prompt(&format!("e{n}"), "x")]).unwrap();
        assert_eq!(receipts[0].position.0, n + 1);
    }
    assert!(append_one(&*a, "run/r", prompt("e9", "x")).is_duplicate, "appended by the other");
    assert_verifies(&place.reader());
}

#[test]
fn a_closed_log_goes_on_where_it_ended() {
    let place = Place::new();
    let log_id = {
        let log = place.shared();
        append_one(&*log, "session/a", prompt("e1", "x"));
        log.log_id().clone()
    };
    let log = place.shared();
    assert_eq!(log.log_id(), &log_id);
    let receipt = append_one(&*log, "session/a", prompt("e2", "x"));
    assert_eq!((receipt.position, receipt.stream_version), (Position(2), StreamVersion(2)));
    assert_verifies(&place.reader());
}

/// An event of the model: its id, where it has one, and its content.
type Given = (Option<&'static str>, &'static str);
/// An append of the model: to this stream, under this condition, these events.
type Step = (&'static str, ExpectedVersion, Vec<Given>);

/// A row of the model: its stream, its id where it was given one, its content.
#[derive(Debug, Clone, PartialEq)]
struct ModelRow {
    stream: &'static str,
    id: Option<&'static str>,
    content: &'static str,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    /// Position, version, whether it was there before.
    Receipts(Vec<(u64, u64, bool)>),
    Wrong(&'static str, ExpectedVersion, u64),
    Taken(&'static str, &'static str),
}

/// The naive model: a list of all events.
#[derive(Debug, Clone, Default)]
struct Model(Vec<ModelRow>);

impl Model {
    fn version(&self, stream: &str) -> u64 {
        self.0.iter().filter(|row| row.stream == stream).count() as u64
    }

    /// Position and version of the row at this index.
    fn place(&self, index: usize) -> (u64, u64) {
        let stream = self.0[index].stream;
        (index as u64 + 1, self.0[..=index].iter().filter(|row| row.stream == stream).count() as u64)
    }

    /// Where this event is already; an error where another one has its id.
    fn known(&self, stream: &'static str, (id, content): Given) -> Result<Option<(u64, u64, bool)>, Outcome> {
        let Some(id) = id else {
            return Ok(None);
        };
        match self.0.iter().position(|row| row.stream == stream && row.id == Some(id)) {
            None => Ok(None),
            Some(index) if self.0[index].content == content => {
                let (position, version) = self.place(index);
                Ok(Some((position, version, true)))
            }
            Some(_) => Err(Outcome::Taken(stream, id)),
        }
    }

    fn append_all(&mut self, steps: &[Step]) -> Outcome {
        let before = self.clone();
        let mut receipts = Vec::new();
        for step in steps {
            if let Err(outcome) = self.append(step, &mut receipts) {
                *self = before;
                return outcome;
            }
        }
        Outcome::Receipts(receipts)
    }

    fn append(
        &mut self,
        (stream, expected, events): &Step,
        receipts: &mut Vec<(u64, u64, bool)>,
    ) -> Result<(), Outcome> {
        let known: Vec<_> = events.iter().map(|event| self.known(stream, *event)).collect::<Result<_, _>>()?;
        let count = known.iter().flatten().count();
        if count > 0 && count == events.len() {
            receipts.extend(known.into_iter().flatten());
            return Ok(());
        }
        let version = self.version(stream);
        let is_exact = matches!(expected, ExpectedVersion::NoStream | ExpectedVersion::Exact(_));
        if !expected.holds(StreamVersion(version)) || (count > 0 && is_exact) {
            return Err(Outcome::Wrong(stream, *expected, version));
        }
        for &(id, content) in events {
            receipts.push(match self.known(stream, (id, content))? {
                Some(receipt) => receipt,
                None => {
                    self.0.push(ModelRow { stream, id, content });
                    let (position, version) = self.place(self.0.len() - 1);
                    (position, version, false)
                }
            });
        }
        Ok(())
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let stream = prop::sample::select(&["session/a", "session/b", "run/r"][..]);
    let expected = prop_oneof![
        4 => Just(ExpectedVersion::Any),
        1 => Just(ExpectedVersion::NoStream),
        1 => Just(ExpectedVersion::StreamExists),
        3 => (0..8_u64).prop_map(exact),
    ];
    let id = prop::option::weighted(0.8, prop::sample::select(&["1", "2", "3", "4", "5", "6", "7", "8"][..]));
    let content = prop::sample::select(&["x", "x", "x", "y"][..]);
    (stream, expected, prop::collection::vec((id, content), 0..4))
}

fn real(step: &Step) -> StreamAppend {
    let event = |&(id, content): &Given| -> NewEvent {
        let id = id.map_or(String::new(), |id| format!(r#""id":"{id}","#));
        json(&format!(r#"{{{id}"kind":"user.prompt","data":{{"prompt":"{content}"}}}}"#), Metadata::default())
    };
    StreamAppend { stream: stream(step.0), expected: step.1, events: step.2.iter().map(event).collect() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_matches_a_naive_model(
        requests in prop::collection::vec(prop::collection::vec(any_step(), 1..3), 1..25),
        reopened_at in 0..25_usize,
    ) {
        let place = Place::new();
        let mut logs = [place.shared(), place.shared()];
        let mut model = Model::default();
        for (index, steps) in requests.iter().enumerate() {
            if index == reopened_at {
                logs[0] = place.shared();
            }
            let expected = model.append_all(steps);
            let actual = match logs[index % 2].append_all(steps.iter().map(real).collect()) {
                Ok(receipts) => Outcome::Receipts(
                    receipts.iter().map(|r| (r.position.0, r.stream_version.0, r.is_duplicate)).collect(),
                ),
                Err(AppendError::WrongExpectedVersion(conflict)) => {
                    let name = steps.iter().find(|step| stream(step.0) == conflict.stream).unwrap().0;
                    Outcome::Wrong(name, conflict.expected, conflict.actual.0)
                }
                Err(AppendError::IdTaken { stream: name, id, .. }) => {
                    let step = steps.iter().find(|step| stream(step.0) == name).unwrap();
                    let given = steps.iter().flat_map(|step| &step.2).find(|given| given.0 == Some(id.as_str())).unwrap();
                    Outcome::Taken(step.0, given.0.unwrap())
                }
                Err(error) => panic!("{error}"),
            };
            prop_assert_eq!(actual, expected, "request {} of {:?}", index, requests);
        }
        let events = all(&place.reader());
        assert_dense(&events);
        prop_assert_eq!(events.len(), model.0.len());
        for (event, row) in events.iter().zip(&model.0) {
            prop_assert_eq!(event.stream.as_str(), row.stream);
            prop_assert!(row.id.is_none_or(|id| id == event.id.as_str()));
            let text = format!(r#""prompt":"{}""#, row.content);
            prop_assert!(event.content.json().unwrap().contains(&text));
        }
        assert_verifies(&place.reader());
    }
}
