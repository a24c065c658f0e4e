//! An event that cannot be read parks its stream in the read models that need it; the others go on, and nothing is skipped
//! in silence.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use runledger_events::{Codec, Metadata, Position, StreamName};
use runledger_projections::{ParkedStream, ProjectionError};
use runledger_store::{EventFilter, Read};
use runledger_testkit::TempLedger;
use support::{NAMES, Told, assert_verifies, dump, fresh_dump, open, queries, sqlite_of_log, tell};

fn prompt(session: &str, number: u64) -> Told {
    let json = format!(
        r#"{{"id":"e{number}","timestamp":{number},"kind":"user.prompt","sessionId":"a{session}","data":{{"prompt":"word{number}"}}}}"#
    );
    let metadata = Metadata { session_id: Some(session.parse().unwrap()), ..Metadata::default() };
    Told { stream: StreamName::new(format!("session/{session}")).unwrap(), metadata, json }
}

/// Ten events of two sessions that take turns, one of which has this column changed; gives what stood there.
fn damaged(column: &str, position: i64, bytes: &[u8]) -> (TempLedger, Vec<u8>) {
    let ledger = TempLedger::new();
    tell(
        &*ledger.log,
        &(1..=10).map(|number| prompt(if number % 2 == 0 { "even" } else { "odd" }, number)).collect::<Vec<_>>(),
    );
    let before = put(&ledger, column, position, bytes);
    (ledger, before)
}

fn put(ledger: &TempLedger, column: &str, position: i64, bytes: &[u8]) -> Vec<u8> {
    let sqlite = sqlite_of_log(&ledger.path);
    let before = sqlite
        .query_row(&format!("SELECT {column} FROM runtime_events WHERE position = ?1"), [position], |row| row.get(0))
        .unwrap();
    sqlite.execute_batch("DROP TRIGGER IF EXISTS runtime_events_only_erased").unwrap();
    sqlite.execute(&format!("UPDATE runtime_events SET {column} = ?1 WHERE position = ?2"), (bytes, position)).unwrap();
    before
}

fn parked(ledger: &TempLedger) -> Vec<(String, String, Position)> {
    let parked = queries(&ledger.path).parked().unwrap();
    parked
        .into_iter()
        .map(|ParkedStream { projection, stream, position, .. }| (projection, stream.to_string(), position))
        .collect()
}

/// A payload of a codec version that nobody knows yet.
const OF_TOMORROW: &[u8] = &[99, 0, 0, 0, 1, 2, 3];

#[test]
fn a_flipped_bit_that_leaves_another_text_parks_the_stream_too() {
    let (ledger, stored) = damaged("content", 5, OF_TOMORROW);
    let codec = Codec::default();
    let whole = codec.decode_content(&stored).unwrap();
    let mut altered = 0;
    for bit in 0..stored.len() * 8 {
        let mut flipped = stored.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if codec.decode_content(&flipped).is_ok_and(|text| text != whole) {
            altered += 1;
            put(&ledger, "content", 5, &flipped);
            let read = ledger.log.reader().unwrap().read_readable(
                &EventFilter::default(),
                Position(4),
                Position(5),
                1,
                Read::All,
            );
            assert_eq!(read.unwrap().unreadable.len(), 1, "bit {bit}");
        }
    }
    assert!(altered > 10, "{altered}");
    open(&ledger.path).catch_up().unwrap();
    assert!(parked(&ledger).iter().any(|(_, stream, position)| stream == "session/odd" && *position == Position(5)));
    // Once it is what it was, it is applied, in order.
    put(&ledger, "content", 5, &stored);
    open(&ledger.path).catch_up().unwrap();
    assert_eq!(parked(&ledger), []);
    assert_verifies(&mut open(&ledger.path));
}

#[test]
fn a_stream_is_left_out_from_an_unreadable_event_on_and_others_go_on() {
    let (ledger, _) = damaged("facts", 5, OF_TOMORROW);
    let mut projections = open(&ledger.path);
    assert_eq!(projections.catch_up().unwrap(), Position(10));
    let dumped = dump(&ledger.path);
    for (number, is_there) in (1..=10).map(|number| (number, number % 2 == 0 || number < 5)) {
        assert_eq!(
            dumped.contains(&format!("word{number} ")) || dumped.contains(&format!("word{number}\"")),
            is_there,
            "{number}"
        );
    }
    // Every read model that takes prompts says so, with the position and the cause.
    let told = queries(&ledger.path).parked().unwrap();
    assert_eq!(
        told.iter().map(|parked| parked.projection.as_str()).collect::<Vec<_>>(),
        ["feed_events", "feed_search", "permission_requests", "sessions"]
    );
    assert!(told.iter().all(|parked| parked.stream.as_str() == "session/odd" && parked.position == Position(5)));
    assert!(told[0].cause.contains("99"), "{}", told[0].cause);
    // What comes later is left out too, and a fresh fold agrees.
    tell(&*ledger.log, &[prompt("odd", 11), prompt("even", 12)]);
    projections.catch_up().unwrap();
    assert_eq!(parked(&ledger).len(), 4);
    assert_verifies(&mut projections);
    let session = |id: &str| queries(&ledger.path).session(&id.parse().unwrap()).unwrap().unwrap().events;
    assert_eq!((session("odd"), session("even")), (2, 6));
}

#[test]
fn content_parks_in_those_read_models_alone_that_need_it() {
    let (ledger, _) = damaged("content", 4, &[2, 1, 1, 0, 1, 2, 3, 4, 5, 6]);
    let mut projections = open(&ledger.path);
    projections.catch_up().unwrap();
    let expected = ["feed_events", "feed_search"].map(|name| (name.to_owned(), "session/even".to_owned(), Position(4)));
    assert_eq!(parked(&ledger), expected);
    let session = queries(&ledger.path).session(&"even".parse().unwrap()).unwrap().unwrap();
    assert_eq!(session.events, 5);
    assert_verifies(&mut projections);
}

#[test]
fn a_rebuild_stops_at_it_unless_it_is_told_to_park() {
    let (ledger, _) = damaged("facts", 5, OF_TOMORROW);
    let mut projections = open(&ledger.path);
    projections.catch_up().unwrap();
    let before = dump(&ledger.path);
    let error = projections.rebuild_together(&NAMES, &mut |_| {}).unwrap_err();
    let ProjectionError::Unreadable { position, ref stream, .. } = error else { panic!("{error}") };
    assert_eq!((position, stream.as_str()), (Position(5), "session/odd"));
    assert!(error.to_string().contains("`rebuild-projections --park`"), "{error}");
    assert_eq!(dump(&ledger.path), before);
    // A read model that does not need the event is built all the same.
    projections.rebuild("workflow_runs", &mut |_| {}).unwrap();
    let rebuilt = projections.rebuild_readable(&NAMES, &mut |_| {}).unwrap();
    assert!(rebuilt.iter().all(|rebuilt| rebuilt.changed == Some(0)), "{rebuilt:?}");
    assert_eq!(parked(&ledger).len(), 4);
    assert_verifies(&mut projections);
}

#[test]
fn what_can_be_read_by_now_is_taken_up_in_order() {
    let (ledger, facts) = damaged("facts", 5, OF_TOMORROW);
    let mut projections = open(&ledger.path);
    projections.catch_up().unwrap();
    assert_eq!(parked(&ledger).len(), 4);
    // As a program that reads that version would find it.
    put(&ledger, "facts", 5, &facts);
    tell(&*ledger.log, &[prompt("odd", 11)]);
    let mut upgraded = open(&ledger.path);
    upgraded.catch_up().unwrap();
    assert_eq!(parked(&ledger), []);
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
    assert_verifies(&mut upgraded);
}

#[test]
fn an_event_that_becomes_unreadable_after_it_was_folded_is_told_by_a_comparison_with_the_log() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &(1..=4).map(|number| prompt("s", number)).collect::<Vec<_>>());
    let mut projections = open(&ledger.path);
    projections.catch_up().unwrap();
    put(&ledger, "facts", 2, OF_TOMORROW);
    tell(&*ledger.log, &[prompt("s", 5)]);
    projections.catch_up().unwrap();
    // The rows have what was folded; the log no longer says so.
    assert_eq!(parked(&ledger), []);
    assert!(projections.verify("sessions", &mut |_| {}).unwrap().different > 0);
}
