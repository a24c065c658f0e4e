//! What was done to a log is told by the log itself: nobody else can say it, and a damaged word hides no other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use runledger_events::{Metadata, Position, StreamName};
use runledger_store::{AppendError, Erase, EventLog, ExpectedVersion, NewEvent, SealKey, new_event_from_exported};
use support::{Place, append_one, assert_verifies, json, prompt};

fn place() -> Place {
    let place = Place::new();
    let log = place.log();
    for number in 1..=4 {
        append_one(&log, "session/a", prompt(&format!("e{number}"), "words"));
    }
    place
}

/// What somebody would like the log to say: that everything was erased, or that its head was signed.
fn forged(kind: &str, log_id: &str) -> NewEvent {
    let data = format!(r#"{{"log_id":"{log_id}","reason":"","by":"","events":9,"ranges":[[1,900]],"position":1}}"#);
    json(&format!(r#"{{"id":"forged","kind":"{kind}","data":{data}}}"#), Metadata::default())
}

fn streams() -> [(StreamName, &'static str); 3] {
    [
        (StreamName::redactions(), "ledger.redacted"),
        (StreamName::arrivals(), "ledger.redacted"),
        (StreamName::seals(), "ledger.sealed"),
    ]
}

#[test]
fn nobody_else_says_what_was_done_to_this_log() {
    let place = place();
    let log = place.log();
    for (stream, kind) in streams() {
        let nothing = json(&format!(r#"{{"kind":"{kind}","data":{{}}}}"#), Metadata::default());
        for event in [forged(kind, log.log_id().as_str()), nothing] {
            let result = log.append(&stream, ExpectedVersion::Any, vec![event]);
            assert!(matches!(result, Err(AppendError::OfLedger { .. })), "{stream}: {result:?}");
        }
    }
    assert_eq!(place.reader().head().unwrap().position, Position(4));
}

#[test]
fn what_was_done_to_another_log_is_taken_and_says_nothing_of_this_one() {
    let place = place();
    let log = place.log();
    for (stream, kind) in streams() {
        log.append(&stream, ExpectedVersion::Any, vec![forged(kind, "0199f000-0000-7000-8000-000000000009")]).unwrap();
    }
    assert_verifies(&place.reader());
    assert_eq!(place.reader().seals().unwrap(), []);
    place.sqlite().execute("UPDATE runtime_events SET content = NULL, salt = NULL WHERE position = 2", []).unwrap();
    let findings = place.reader().verify(|_| {}).unwrap().findings;
    assert_eq!(findings.iter().map(|found| found.position).collect::<Vec<_>>(), [Some(Position(2))]);
}

#[test]
fn its_own_words_are_known_when_they_come_again() {
    let place = place();
    let log = place.log();
    log.redact(&Erase::Events(vec![Position(2)]), "why", "who").unwrap();
    log.seal(&SealKey::new().unwrap()).unwrap();
    let mut lines = Vec::new();
    let take = |line: &str| -> Result<(), runledger_store::ReadError> {
        lines.push(line.to_owned());
        Ok(())
    };
    place.reader().export(None, true, take).unwrap();
    for line in &lines {
        let (stream, _, event) = new_event_from_exported(line).unwrap();
        assert!(log.append(&stream, ExpectedVersion::Any, vec![event]).unwrap()[0].is_duplicate, "{line}");
    }
    let copy = Place::new();
    let log = copy.log();
    for line in &lines {
        let (stream, _, event) = new_event_from_exported(line).unwrap();
        log.append(&stream, ExpectedVersion::Any, vec![event]).unwrap();
    }
    assert_verifies(&copy.reader());
}

#[test]
fn a_range_that_reaches_beyond_its_own_event_is_not_believed() {
    // Given: words of another log, whose name this one is given then.
    let place = Place::new();
    let other = "0199f000-0000-7000-8000-000000000009";
    place
        .log()
        .append(&StreamName::redactions(), ExpectedVersion::Any, vec![forged("ledger.redacted", other)])
        .unwrap();
    append_one(&place.log(), "session/a", prompt("e1", "words"));
    let sqlite = place.sqlite();
    sqlite.execute_batch("DROP TRIGGER ledger_never_changed").unwrap();
    sqlite.execute("UPDATE ledger SET log_id = ?1", [other]).unwrap();
    // When
    sqlite.execute("UPDATE runtime_events SET content = NULL, salt = NULL WHERE position = 2", []).unwrap();
    // Then
    assert_eq!(untold(&place), [2]);
}

/// Where content is gone without a word.
fn untold(place: &Place) -> Vec<u64> {
    let findings = place.verify().findings;
    let untold = findings.iter().filter(|found| found.detail.contains("no event of this log tells"));
    untold.filter_map(|found| found.position).map(|position| position.0).collect()
}

#[test]
fn a_damaged_row_of_its_words_hides_none_of_the_others() {
    let place = place();
    let log = place.log();
    for position in 1..=3 {
        log.redact(&Erase::Events(vec![Position(position)]), "why", "who").unwrap();
        log.seal(&SealKey::new().unwrap()).unwrap();
    }
    drop(log);
    // Events 5, 7 and 9 tell of the erasures, 6, 8 and 10 are the seals.
    for (column, value) in [("event_id", "''"), ("session_key", "999"), ("facts", "x'00'"), ("content", "x'00'")] {
        let damaged = Place::new();
        place.sqlite().pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(())).unwrap();
        std::fs::copy(place.path(), damaged.path()).unwrap();
        let sqlite = damaged.sqlite();
        sqlite.pragma_update(None, "foreign_keys", false).unwrap();
        sqlite.execute_batch("DROP TRIGGER runtime_events_only_erased").unwrap();
        sqlite
            .execute_batch(&format!("UPDATE runtime_events SET {column} = {value} WHERE position IN (7, 8)"))
            .unwrap();
        let reader = damaged.reader();
        let seals = reader.seals().unwrap();
        assert_eq!(seals.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true], "{column}");
        let report = reader.verify(|_| {}).unwrap();
        assert_eq!(untold(&damaged), [2], "{column}");
        assert!(report.findings.iter().any(|found| found.position == Some(Position(7))), "{column}: {report:#?}");
    }
}
