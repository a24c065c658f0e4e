//! The VFS itself: what it writes down, and that calls fail when they are told to.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};

use runledger_faultfs::{Change, Fault, Image, Operation, Random, Watch};
use rusqlite::{Connection, ErrorCode};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    (folder, path)
}

/// A database with one table, in WAL mode, that syncs at each commit.
fn connection(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS t (a)")
        .unwrap();
    connection
}

fn insert(connection: &Connection, bytes: usize) -> Result<(), ErrorCode> {
    let result = connection.execute("INSERT INTO t VALUES (zeroblob(?1))", [bytes]);
    result.map(|_| ()).map_err(|error| error.sqlite_error_code().unwrap())
}

fn count(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

#[test]
fn the_journal_read_as_synced_gives_the_files_as_they_are() {
    let (_folder, path) = place();
    let watch = Watch::new(&path).unwrap();
    let connection = connection(&path);
    (0..20).for_each(|n| insert(&connection, n * 1000).unwrap());
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    insert(&connection, 10).unwrap();

    let mut journal = watch.journal();
    for suffix in ["", "-wal"] {
        journal.push(runledger_faultfs::Entry { suffix: suffix.into(), change: Change::Synced });
    }
    let image = Image::after(&journal, &mut Random::new(1));
    for suffix in ["", "-wal"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        assert_eq!(image.file(suffix).unwrap(), std::fs::read(file).unwrap(), "{suffix}");
    }
    let has = |wanted: &dyn Fn(&Change) -> bool| journal.iter().any(|entry| wanted(&entry.change));
    assert!(has(&|change| matches!(change, Change::Truncated(0))));
    assert!(has(&|change| matches!(change, Change::Deleted { .. })), "of the journal with which it was made");
}

#[test]
fn a_file_that_was_there_before_is_in_the_journal_with_its_bytes_and_another_one_is_not() {
    let (folder, path) = place();
    drop(connection(&path));
    let bytes = std::fs::read(&path).unwrap();
    let watch = Watch::new(&path).unwrap();
    drop(connection(&folder.path().join("b.db")));
    assert!(watch.is_empty());
    let _connection = connection(&path);
    assert_eq!(watch.journal()[0].change, Change::Found(bytes));
}

#[test]
fn the_nth_call_fails_once_or_until_it_is_healed() {
    let (_folder, path) = place();
    let watch = Watch::new(&path).unwrap();
    let connection = connection(&path);
    for (lasts, expected) in [(false, [true, false, true]), (true, [true, false, false])] {
        watch.fail(Fault { operation: Operation::Sync, nth: 2, lasts });
        assert_eq!([1, 2, 3].map(|_| insert(&connection, 10).is_ok()), expected);
        assert_eq!(watch.hits(), if lasts { 2 } else { 1 });
        watch.heal();
        insert(&connection, 10).unwrap();
    }
    assert_eq!(count(&connection), 5);
    for operation in [Operation::Write, Operation::Sync] {
        watch.fail(Fault { operation, nth: 1, lasts: true });
        assert_eq!(insert(&connection, 10), Err(ErrorCode::SystemIoFailure), "{operation:?}");
        watch.heal();
    }
    assert_eq!(count(&connection), 5);
}

#[test]
fn a_disk_fills_up_and_has_room_again() {
    let (_folder, path) = place();
    let watch = Watch::new(&path).unwrap();
    let connection = connection(&path);
    watch.fill_up(50_000);
    insert(&connection, 10_000).unwrap();
    assert_eq!(insert(&connection, 100_000), Err(ErrorCode::DiskFull));
    assert_eq!(watch.hits(), 1);
    watch.heal();
    insert(&connection, 100_000).unwrap();
    assert_eq!(count(&connection), 2);
}
