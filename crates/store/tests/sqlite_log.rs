//! What the log in SQLite does beside what every log does: who is shut out, what reading leaves as it is, who listens.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::time::Duration;

use runledger_events::Position;
use runledger_store::{AppendError, EventLog, ExpectedVersion, OpenOptions, SqliteLog, StorageError};
use support::{Place, all, append_one, assert_verifies, prompt, stream};

#[test]
fn a_writer_that_is_shut_out_says_so_and_can_try_again() {
    // Given another process that holds the write lock
    let place = Place::new();
    let options = OpenOptions { busy_timeout: Duration::from_millis(30), ..OpenOptions::default() };
    let log = SqliteLog::open_with(place.path(), &options).unwrap();
    let other = place.sqlite();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // When
    let error = log.append(&stream("session/a"), ExpectedVersion::Any, vec![prompt("e1", "x")]).unwrap_err();
    // Then
    assert!(matches!(error, AppendError::Storage(StorageError::Busy { .. })), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(append_one(&log, "session/a", prompt("e1", "x")).position, Position(1));
}

#[test]
fn reading_leaves_the_file_as_it_is() {
    let place = Place::new();
    for number in 0..3 {
        append_one(&place.log(), "session/a", prompt(&format!("e{number}"), "x"));
    }
    let before = std::fs::read(place.path()).unwrap();
    let reader = place.reader();
    all(&reader);
    assert_verifies(&reader);
    drop(reader);
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
}

#[test]
fn every_commit_is_told_to_those_who_listen() {
    let place = Place::new();
    let log = place.log();
    let commits = log.commits();
    append_one(&log, "session/a", prompt("e1", "x"));
    // The answer may come before the word of it, but the word comes.
    commits.recv_timeout(Duration::from_secs(60)).unwrap();
}
