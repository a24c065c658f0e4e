//! Spools: their events come back in order and once, whatever a file or a taker ends at; and the write-ahead log that
//! short-lived writers leave stays short.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use runledger_events::{RuntimeEvent, SessionId};
use runledger_store::{OpenOptions, SPOOL_BYTES_MAX, Spool, SpoolRecord, SqliteLog, Taken, take_in};
use support::{Place, all, append_one, assert_verifies, prompt};

const PATIENCE: Duration = Duration::from_secs(10);

fn record(number: u64, text: &str) -> SpoolRecord {
    let json = format!(r#"{{"id":"e{number}","kind":"user.prompt","data":{{"prompt":"{number} {text}"}}}}"#);
    SpoolRecord {
        arrived_at_ns: number,
        session_id: SessionId::new("s").unwrap(),
        run_id: None,
        event: RuntimeEvent::from_json(&json).unwrap(),
    }
}

fn spool(place: &Place, name: &str) -> Spool {
    Spool::at(place.folder().join(name))
}

fn files(spool: &Spool) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(spool.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.to_str().unwrap().ends_with("lock"));
    files.sort();
    files
}

/// The ids in the log, in order.
fn ids(place: &Place) -> Vec<String> {
    all(&place.reader()).iter().map(|event| event.id.to_string()).collect()
}

fn names(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("e{number}")).collect()
}

#[test]
fn a_long_spool_is_several_files_and_comes_back_in_order() {
    let place = Place::new();
    let spool = spool(&place, "spool");
    let text = "x".repeat(10_000);
    for number in 0..330 {
        spool.append(&record(number, &text), PATIENCE).unwrap();
    }
    assert!(files(&spool).len() > 3, "{:?}", files(&spool));
    let log = place.log();
    // The time is up at once: each call takes a batch, and what is left keeps its order.
    let mut calls = 0;
    loop {
        calls += 1;
        let taken = take_in(&log, std::slice::from_ref(&spool), PATIENCE, Some(Instant::now()), &|| true).unwrap();
        assert!(taken.events > 0);
        if !taken.is_left {
            break;
        }
    }
    assert!(calls > 2, "{calls}");
    assert!(spool.is_empty().unwrap() && files(&spool).is_empty());
    assert_eq!(ids(&place), names(0..330));
    assert_verifies(&place.reader());
}

#[test]
fn what_is_not_sound_is_not_taken_in() {
    let place = Place::new();
    let spool = spool(&place, "spool");
    spool.append(&record(1, ""), PATIENCE).unwrap();
    let before = std::fs::read(spool.folder().join("entries")).unwrap();
    let log = place.log();
    let taken = take_in(&log, std::slice::from_ref(&spool), PATIENCE, None, &|| false).unwrap();
    assert_eq!(taken, Taken { events: 0, rejected: 0, is_left: true });
    assert_eq!(std::fs::read(spool.folder().join("entries")).unwrap(), before);
    assert!(ids(&place).is_empty());
}

#[test]
fn several_spools_come_back_by_time_and_each_in_its_own_order() {
    let place = Place::new();
    let (one, other) = (spool(&place, "one"), spool(&place, "other"));
    for (spool, number) in [(&one, 1), (&other, 2), (&one, 5), (&one, 3), (&other, 4), (&other, 6)] {
        spool.append(&record(number, ""), PATIENCE).unwrap();
    }
    let taken = take_in(&place.log(), &[one, other], PATIENCE, None, &|| true).unwrap();
    assert_eq!(taken, Taken { events: 6, rejected: 0, is_left: false });
    assert_eq!(ids(&place), names([1, 2, 4, 5, 3, 6]));
}

#[test]
fn a_file_longer_than_a_whole_spool_is_named_and_not_read() {
    let place = Place::new();
    let spool = spool(&place, "spool");
    spool.append(&record(1, ""), PATIENCE).unwrap();
    let entries = spool.folder().join("entries");
    std::fs::File::options().write(true).open(&entries).unwrap().set_len(SPOOL_BYTES_MAX + 1).unwrap();
    let error = take_in(&place.log(), std::slice::from_ref(&spool), PATIENCE, None, &|| true).unwrap_err();
    let named = format!("00000001 has {} bytes, and a whole spool {SPOOL_BYTES_MAX} at the most", SPOOL_BYTES_MAX + 1);
    assert!(error.to_string().contains(&named), "{error}");
    assert_eq!(files(&spool).len(), 1, "it is still there");
}

#[test]
fn an_event_whose_id_another_one_has_is_put_aside_and_keeps_nobody_out() {
    let place = Place::new();
    let spool = spool(&place, "spool");
    let log = place.log();
    append_one(&log, "session/s", prompt("e2", "another"));
    for number in 1..4 {
        spool.append(&record(number, ""), PATIENCE).unwrap();
    }
    let taken = take_in(&log, std::slice::from_ref(&spool), PATIENCE, None, &|| true).unwrap();
    assert_eq!(taken, Taken { events: 2, rejected: 1, is_left: false });
    assert_eq!(ids(&place), names([2, 1, 3]));
    assert!(std::fs::read_to_string(spool.folder().join("rejected")).unwrap().contains("another event with the id e2"));
}

#[test]
fn writers_that_come_one_after_the_other_leave_a_short_write_ahead_log() {
    let place = Place::new();
    let options = OpenOptions { wal_pages: 50, ..OpenOptions::default() };
    let mut wal = place.path().into_os_string();
    wal.push("-wal");
    for number in 0..100 {
        let log = SqliteLog::open_with(place.path(), &options).unwrap();
        append_one(&log, "session/s", prompt(&format!("e{number}"), "x"));
        drop(log);
        // As many pages, and those of one event.
        assert!(std::fs::metadata(&wal).unwrap().len() < 70 * 4120, "after {number}");
    }
    assert_eq!(ids(&place).len(), 100);
    assert_verifies(&place.reader());
}
