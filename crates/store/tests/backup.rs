//! A backup is the log of one moment, whole or not there, however much is appended while it is made.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use runledger_events::Position;
use runledger_store::{BackupError, LogReader, SqliteLog};
use support::{Place, all, append_one, assert_verifies, prompt};

/// Text that does not compress to much less.
fn noise(number: u64, bytes: usize) -> String {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes / 16).map(|_| format!("{:016x}", next())).collect()
}

/// More than two steps of copying.
fn large() -> (Place, SqliteLog) {
    let place = Place::new();
    let log = place.log();
    for number in 0..70 {
        append_one(&log, "session/a", prompt(&format!("e{number}"), &noise(number, 1 << 20)));
    }
    (place, log)
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_is_the_log_of_one_moment_whatever_is_appended_meanwhile() {
    // Given
    let (place, log) = large();
    let reader = place.reader();
    let before = all(&reader);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy.db");

    // When
    let (mut steps, mut last) = (0, (0, 0));
    let copied = reader
        .backup(&to, |done, all| {
            append_one(&log, "session/b", prompt(&format!("meanwhile-{steps}"), "text"));
            (steps, last) = (steps + 1, (done, all));
        })
        .unwrap();

    // Then
    assert!(steps > 2 && last.0 == last.1, "{steps} steps, {last:?}");
    assert_eq!(names_in(folder.path()), ["copy.db"]);
    let metadata = std::fs::metadata(&to).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (copied.bytes, 0o600));
    let copy = LogReader::open(&to).unwrap();
    assert_eq!(copied.head.position, Position(70));
    assert_eq!((copy.head().unwrap(), copy.log_id()), (copied.head, reader.log_id()));
    assert!(all(&copy) == before);
    assert_verifies(&copy);
    assert_eq!(names_in(folder.path()), ["copy.db"], "it is read as one file");
    assert_verifies(&reader);
    assert_eq!(reader.head().unwrap().position.0, 70 + steps);
}

#[test]
fn a_backup_is_a_ledger_that_goes_on() {
    let place = Place::new();
    append_one(&place.log(), "session/a", prompt("e1", "one"));
    let to = place.folder().join("copy.db");
    place.reader().backup(&to, |_, _| {}).unwrap();
    let log = SqliteLog::open(&to).unwrap();
    assert_eq!(append_one(&log, "session/a", prompt("e2", "two")).stream_version.0, 2);
    assert_verifies(&LogReader::open(&to).unwrap());
    assert_eq!(place.reader().head().unwrap().position, Position(1));
}

#[test]
fn an_empty_log_is_copied_too() {
    let place = Place::new();
    drop(place.log());
    let to = place.folder().join("copy.db");
    let copied = place.reader().backup(&to, |_, _| {}).unwrap();
    assert_eq!(copied.head.position, Position::START);
    assert_verifies(&LogReader::open(&to).unwrap());
}

#[test]
fn what_is_there_already_is_never_written_over_and_what_fails_leaves_nothing() {
    // Given
    let place = Place::new();
    append_one(&place.log(), "session/a", prompt("e1", "one"));
    let reader = place.reader();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("taken"), "mine").unwrap();
    std::fs::write(at("begun.part"), "another's").unwrap();
    std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
    let before = names_in(folder.path());

    // When
    let fails = |name: &str| reader.backup(at(name), |_, _| {}).unwrap_err();

    // Then
    assert!(matches!(fails("taken"), BackupError::Exists { .. }));
    assert!(matches!(fails("link"), BackupError::Exists { .. }));
    assert!(matches!(fails("begun"), BackupError::Begun { .. }));
    assert!(matches!(fails("no/folder"), BackupError::File { .. }));
    assert!(matches!(fails("taken/below"), BackupError::File { .. }));
    assert_eq!(names_in(folder.path()), before);
    assert_eq!(std::fs::read(at("taken")).unwrap(), b"mine");
    assert_eq!(std::fs::read(at("begun.part")).unwrap(), b"another's");
    let itself = reader.backup(place.path(), |_, _| {}).unwrap_err();
    assert!(matches!(itself, BackupError::Exists { .. }));
    assert_verifies(&reader);
}

#[test]
fn who_gives_up_meanwhile_leaves_nothing() {
    let (place, _log) = large();
    let reader = place.reader();
    let folder = tempfile::tempdir().unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        reader.backup(folder.path().join("copy.db"), |_, _| std::panic::resume_unwind(Box::new(())))
    }));
    assert!(result.is_err());
    assert!(names_in(folder.path()).is_empty());
}
