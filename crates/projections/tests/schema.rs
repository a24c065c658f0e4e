//! The schema of the projections' file after each step: its migrations, the first build, a rebuild.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use runledger_projections::Projections;
use runledger_testkit::TempLedger;
use rusqlite::Connection;
use support::{NAMES, Story, caught_up, dump, open, sqlite, tell};

/// Tables, indexes and views as they were made, and the numbers in the file's header.
fn schema_of(connection: &Connection) -> String {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let mut text = format!("user_version {}\napplication_id {}\n", pragma("user_version"), pragma("application_id"));
    let mut statement = connection.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let column = |index| row.get::<_, Option<String>>(index).unwrap();
        write!(text, "\n-- {} {}\n", column(0).unwrap(), column(1).unwrap()).unwrap();
        writeln!(text, "{}", column(2).as_deref().unwrap_or("(made by SQLite)")).unwrap();
    }
    text
}

/// The numbered migrations, in order; the read models' own tables stand beside them, without a number.
fn migrations() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/projections");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(|first: char| first.is_ascii_digit()));
    paths.sort();
    paths
}

#[test]
fn the_schema_after_each_step_is_as_it_was_shipped() {
    // Given
    let connection = Connection::open_in_memory().unwrap();
    let mut last = String::new();
    for (number, path) in (1..).zip(migrations()) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(name.starts_with(&format!("{number:04}_")), "{name} is not number {number}");
        // When
        connection.execute_batch(&std::fs::read_to_string(&path).unwrap()).unwrap();
        connection.pragma_update(None, "user_version", number).unwrap();
        // Then
        last = schema_of(&connection);
        insta::assert_snapshot!(format!("schema_after_{name}"), last);
    }
    // And a new file has the schema of the last step, before anything is built.
    let ledger = TempLedger::new();
    drop(open(&ledger.path));
    assert_eq!(schema_of(&sqlite(&ledger.path)), last);
}

#[test]
fn the_schema_after_the_first_build_and_after_a_rebuild_is_as_it_was_shipped() {
    // Given
    let ledger = TempLedger::new();
    tell(&*ledger.log, &Story::default().mixed(50, 3, 27));
    // When it is built, then the first generation of each model is the one to read.
    let mut projections = caught_up(&ledger.path);
    insta::assert_snapshot!("schema_after_first_build", schema_of(&sqlite(&ledger.path)));
    let rows = dump(&ledger.path);
    // When each is built again, then the next generations are, and the rows are carried over.
    for name in NAMES {
        projections.rebuild(name, &mut |_| {}).unwrap();
    }
    insta::assert_snapshot!("schema_after_rebuild", schema_of(&sqlite(&ledger.path)));
    assert_eq!(dump(&ledger.path), rows);
}

#[test]
fn rows_are_carried_over_when_the_file_is_opened_again() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &Story::default().mixed(50, 3, 27));
    let schema = |projections: Projections| {
        drop(projections);
        (schema_of(&sqlite(&ledger.path)), dump(&ledger.path))
    };
    let before = schema(caught_up(&ledger.path));
    assert_eq!(schema(open(&ledger.path)), before);
    assert_eq!(schema(caught_up(&ledger.path)), before);
}

#[test]
fn a_generation_number_is_never_used_twice() {
    let ledger = TempLedger::new();
    let mut projections = caught_up(&ledger.path);
    let mut last = i64::try_from(NAMES.len()).unwrap();
    for _ in 0..3 {
        for name in NAMES {
            projections.rebuild(name, &mut |_| {}).unwrap();
            let generation = projections.checkpoint(name).unwrap().unwrap().generation;
            assert_eq!(generation, last + 1);
            last = generation;
        }
    }
}
