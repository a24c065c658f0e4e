//! Live projection: each event counts once whoever projects, and a checkpoint that does not fit builds the model anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::path::Path;
use std::sync::Barrier;

use runledger_events::{KindFacts, Position, RunStatus, Tokens, WorkflowIteration};
use runledger_projections::{ProjectionError, Projections, Queries, RunFilter, projections_path};
use runledger_store::OpenError;
use runledger_testkit::TempLedger;
use support::{
    NAMES, Story, assert_no_leftovers, assert_verifies, caught_up, dump, dump_of_table, files, fresh_dump,
    generation_tables, iteration_end, open, queries, registered_with, sqlite, sqlite_of_log, tell, version_of,
};

fn mixed_ledger(events: usize, seed: u64) -> TempLedger {
    let ledger = TempLedger::new();
    for part in Story::default().mixed(events, 8, seed).chunks(500) {
        tell(&*ledger.log, part);
    }
    ledger
}

fn generations(projections: &Projections) -> [i64; NAMES.len()] {
    NAMES.map(|name| projections.checkpoint(name).unwrap().unwrap().generation)
}

#[test]
fn each_event_counts_once_however_many_project() {
    // Given
    let ledger = TempLedger::new();
    let told = Story::default().mixed(1500, 8, 4);
    let begin = Barrier::new(5);
    // When four project what a fifth appends, the file's very making included
    std::thread::scope(|scope| {
        let (ledger, begin, told) = (&ledger, &begin, &told);
        for _ in 0..4 {
            scope.spawn(move || {
                begin.wait();
                let mut projections = open(&ledger.path);
                while projections.catch_up().unwrap().0 < told.len() as u64 {}
            });
        }
        scope.spawn(move || {
            begin.wait();
            for part in told.chunks(11) {
                tell(&*ledger.log, part);
            }
        });
    });
    // Then
    let events: u64 = queries(&ledger.path).sessions().unwrap().iter().map(|session| session.events).sum();
    assert_eq!(events, told.len() as u64);
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
    assert_verifies(&mut open(&ledger.path));
}

#[test]
fn many_that_open_and_build_a_new_file_at_once_all_succeed() {
    let ledger = mixed_ledger(300, 5);
    for _ in 0..5 {
        // Given
        files(&ledger.path).iter().for_each(|file| drop(std::fs::remove_file(file)));
        let begin = Barrier::new(8);
        // When
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begin.wait();
                    caught_up(&ledger.path);
                    assert!(!queries(&ledger.path).runs(&RunFilter::default()).unwrap().is_empty());
                });
            }
        });
        // Then
        assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
        assert_no_leftovers(&ledger.path);
        // One of them built each model, the others found it.
        assert_eq!(generations(&open(&ledger.path)), [1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn a_checkpoint_moves_to_where_was_scanned_even_where_nothing_fits() {
    // Given
    let ledger = TempLedger::new();
    let mut projections = caught_up(&ledger.path);
    let mut story = Story::default();
    // When no event is of a run
    for n in 1..=3 {
        tell(&*ledger.log, &[story.harness("s", None, None, 5)]);
        assert_eq!(projections.catch_up().unwrap(), Position(n));
        // Then
        let head = projections.reader().head().unwrap();
        for name in NAMES {
            let checkpoint = projections.checkpoint(name).unwrap().unwrap();
            assert_eq!((checkpoint.position, checkpoint.chain), (head.position, head.chain), "{name}");
            assert_eq!(&checkpoint.log_id, projections.reader().log_id());
        }
    }
}

#[test]
fn catching_up_with_nothing_writes_nothing() {
    let ledger = mixed_ledger(50, 6);
    let mut projections = caught_up(&ledger.path);
    let watching = sqlite(&ledger.path);
    let version = || watching.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).unwrap();
    let before = version();
    projections.catch_up().unwrap();
    caught_up(&ledger.path);
    assert_eq!(version(), before);
}

#[test]
fn a_model_that_lags_behind_the_others_catches_up_alone() {
    // Given a model that was built before the others
    let ledger = mixed_ledger(100, 7);
    let mut projections = open(&ledger.path);
    projections.rebuild("sessions", &mut |_| {}).unwrap();
    tell(&*ledger.log, &[Story::default().harness("late", None, None, 5)]);
    projections.rebuild("workflow_runs", &mut |_| {}).unwrap();
    // When
    projections.catch_up().unwrap();
    // Then
    assert_eq!(generations(&projections)[..3], [2, 3, 1]);
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
}

#[test]
fn a_checkpoint_that_does_not_fit_the_log_builds_the_model_anew() {
    for edit in [
        "log_id = '0199f000-0000-7000-8000-000000000009'",
        "position = position + 1",
        "position = 9223372036854775807",
        "position = position - 1",
        "position = 0",
        "chain = zeroblob(32)",
        "chain = randomblob(length(chain))",
        "version = 0",
    ] {
        for name in NAMES {
            // Given
            let ledger = mixed_ledger(150, 8);
            let mut projections = caught_up(&ledger.path);
            let (whole, before) = (dump(&ledger.path), generations(&projections));
            let sql = format!("UPDATE checkpoints SET {edit} WHERE projection = '{name}'");
            sqlite(&ledger.path).execute(&sql, []).unwrap();
            // When
            assert_eq!(projections.catch_up().unwrap(), Position(150), "{edit}");
            // Then
            assert_eq!(dump(&ledger.path), whole, "{edit}");
            let moved: Vec<bool> = before.iter().zip(generations(&projections)).map(|(a, b)| *a != b).collect();
            assert_eq!(moved, NAMES.map(|other| other == name), "{edit}");
            assert_verifies(&mut projections);
            assert_no_leftovers(&ledger.path);
        }
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_builds_the_model_anew() {
    for edit in ["chain = x'00'", "position = -1", "version = -1", "log_id = ''"] {
        // Given
        let ledger = mixed_ledger(150, 8);
        let mut projections = caught_up(&ledger.path);
        let whole = dump(&ledger.path);
        let sql = format!("UPDATE checkpoints SET {edit} WHERE projection = 'workflow_runs'");
        sqlite(&ledger.path).execute(&sql, []).unwrap();
        // When
        projections.catch_up().unwrap_or_else(|error| panic!("{edit}: {error}"));
        // Then
        assert_eq!(dump(&ledger.path), whole, "{edit}");
        assert_no_leftovers(&ledger.path);
    }
}

#[test]
fn a_checkpoint_that_is_gone_builds_the_model_anew() {
    let ledger = mixed_ledger(150, 8);
    let mut projections = caught_up(&ledger.path);
    let whole = dump(&ledger.path);
    sqlite(&ledger.path).execute("DELETE FROM checkpoints", []).unwrap();
    projections.catch_up().unwrap();
    assert_eq!(dump(&ledger.path), whole);
    assert_no_leftovers(&ledger.path);
}

/// Puts a copy of one ledger's log in another's place; the projections' file stays.
fn replace_log(ledger: &Path, by: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.db");
    sqlite_of_log(by).execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", ledger.display()));
    }
    std::fs::copy(copy, ledger).unwrap();
}

#[test]
fn a_log_that_was_replaced_by_another_builds_every_model_anew() {
    for other_events in [0, 10, 150, 400] {
        // Given
        let (ledger, other) = (mixed_ledger(150, 8), mixed_ledger(other_events, 9));
        let mut projections = caught_up(&ledger.path);
        let before = generations(&projections);
        drop(projections);
        let TempLedger { folder, path, log, .. } = ledger;
        drop(log);
        replace_log(&path, &other.path);
        // When
        let queries = queries(&path);
        let head = Position(other_events as u64);
        assert!(queries.wait_for(head.next(), std::time::Duration::ZERO).is_err());
        projections = caught_up(&path);
        // Then
        queries.wait_for(head, std::time::Duration::ZERO).unwrap();
        assert_eq!(dump(&path), fresh_dump(&path));
        assert!(before.iter().zip(generations(&projections)).all(|(before, after)| *before < after));
        assert_verifies(&mut projections);
        assert_no_leftovers(&path);
        drop(folder);
    }
}

#[test]
fn a_log_that_was_taken_back_to_a_copy_and_went_on_otherwise_builds_every_model_anew() {
    for more in [0, 20, 100] {
        // Given a copy of the log from the time when it had 100 events, which then went on in its own way
        let ledger = mixed_ledger(100, 8);
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("ledger.db");
        sqlite_of_log(&ledger.path).execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        let mut story = Story::default();
        drop(story.mixed(100, 8, 8));
        tell(&*ledger.log, &story.mixed(50, 8, 10));
        drop(caught_up(&ledger.path));
        let log = runledger_store::SqliteLog::open(&copy).unwrap();
        tell(&log, &story.mixed(more, 8, 11));
        let TempLedger { folder: _folder, path, log, .. } = ledger;
        drop(log);
        replace_log(&path, &copy);
        // When
        assert_eq!(caught_up(&path).catch_up().unwrap(), Position(100 + more as u64));
        // Then
        assert_eq!(dump(&path), fresh_dump(&path), "{more} more");
        assert_no_leftovers(&path);
    }
}

#[test]
fn a_model_of_an_older_version_is_built_anew() {
    // Given
    let ledger = mixed_ledger(200, 12);
    let before = generations(&caught_up(&ledger.path));
    let whole = dump(&ledger.path);
    // When
    let version = version_of("workflow_runs") + 1;
    let mut newer = Projections::open_with(&ledger.path, registered_with("workflow_runs", version)).unwrap();
    newer.catch_up().unwrap();
    // Then
    let after = generations(&newer);
    assert!(before[0] < after[0] && before[1..] == after[1..], "{before:?} {after:?}");
    assert_eq!(newer.checkpoint("workflow_runs").unwrap().unwrap().version, version);
    assert_eq!(dump(&ledger.path), whole);
    assert_no_leftovers(&ledger.path);
    // And it is built once.
    newer.catch_up().unwrap();
    assert_eq!(generations(&newer), after);
}

#[test]
fn an_older_program_refuses_a_newer_model_and_changes_nothing() {
    for name in NAMES {
        // Given a model of a newer program, with what a crash of it left, and events to apply
        let ledger = mixed_ledger(200, 13);
        let reading = {
            drop(caught_up(&ledger.path));
            queries(&ledger.path)
        };
        let version = version_of(name);
        Projections::open_with(&ledger.path, registered_with(name, version + 1)).unwrap().catch_up().unwrap();
        sqlite(&ledger.path)
            .execute_batch(
                "INSERT INTO rebuilds (projection, position, chain) VALUES ('sessions', 7, zeroblob(32));
                 CREATE TABLE sessions_99 (session_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;",
            )
            .unwrap();
        tell(&*ledger.log, &[Story::default().harness("late", None, None, 5)]);
        let all = || {
            let connection = sqlite(&ledger.path);
            let own = ["checkpoints", "rebuilds"].map(|table| dump_of_table(&connection, table));
            (dump(&ledger.path), own, generation_tables(&ledger.path))
        };
        let before = all();
        let refuses = |result: Result<(), ProjectionError>| match result {
            Err(ProjectionError::NewerProjection { projection, found, ours }) => {
                assert_eq!((projection.as_str(), found, ours), (name, version + 1, version));
            }
            other => panic!("{name}: {other:?}"),
        };
        // When
        let mut older = open(&ledger.path);
        refuses(older.catch_up().map(|_| ()));
        assert_eq!(all(), before, "{name}");
        refuses(older.rebuild_run(&"run-1".parse().unwrap(), &[name]).map(|_| ()));
        assert_eq!(all(), before, "{name}");
        refuses(Queries::open(&ledger.path).map(|_| ()));
        refuses(older.rebuild(name, &mut |_| {}).map(|_| ()));
        // Then
        assert_eq!(all(), before, "{name}");
        drop(reading);
    }
}

#[test]
fn a_newer_file_is_refused_and_not_touched() {
    // Given
    let ledger = mixed_ledger(50, 14);
    drop(caught_up(&ledger.path));
    let connection = sqlite(&ledger.path);
    connection.execute_batch("PRAGMA user_version = 3; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let path = projections_path(&ledger.path);
    let before = std::fs::read(&path).unwrap();
    // When and then
    for result in [Projections::open(&ledger.path).map(|_| ()), Queries::open(&ledger.path).map(|_| ())] {
        assert!(matches!(result, Err(ProjectionError::NewerFile { found: 3, newest: 2, .. })), "{result:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[test]
fn a_file_of_something_else_is_refused_and_not_touched() {
    // Given a database with tables of its own, one with an application id alone, and one with a version alone
    for sql in ["CREATE TABLE t (a)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"] {
        let ledger = mixed_ledger(10, 14);
        let path = projections_path(&ledger.path);
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = std::fs::read(&path).unwrap();
        // When and then
        for result in [Projections::open(&ledger.path).map(|_| ()), Queries::open(&ledger.path).map(|_| ())] {
            assert!(matches!(result, Err(ProjectionError::ForeignFile { .. })), "{sql}: {result:?}");
            assert_eq!(std::fs::read(&path).unwrap(), before, "{sql}");
        }
    }
    // Given what is no database at all
    let ledger = mixed_ledger(10, 14);
    let path = projections_path(&ledger.path);
    std::fs::write(&path, "words and more words, and no database at all\n".repeat(100)).unwrap();
    let before = std::fs::read(&path).unwrap();
    for result in [Projections::open(&ledger.path).map(|_| ()), Queries::open(&ledger.path).map(|_| ())] {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("ledger.db.projections"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[test]
fn without_a_ledger_no_file_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger.db");
    for result in [Projections::open(&ledger).map(|_| ()), Queries::open(&ledger).map(|_| ())] {
        assert!(matches!(result, Err(ProjectionError::Open(OpenError::Missing { .. }))), "{result:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
#[cfg(unix)]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let ledger = mixed_ledger(10, 14);
    let _projections = caught_up(&ledger.path);
    for path in files(&ledger.path) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}

#[test]
fn token_figures_too_large_for_a_column_do_not_stop_the_models() {
    // Given an event of a harness, twice, whose figures are the largest that are read
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let data = format!(r#"{{"delta":{{"input":{0},"output":{0},"cacheRead":{0}}}}}"#, i64::MAX);
    for _ in 0..2 {
        tell(&*ledger.log, &[story.told_of_harness("s", Some("a"), None, "usage.update", &data)]);
    }
    tell(&*ledger.log, &story.whole_run("r", "s", 1, RunStatus::Completed));
    // When and then
    let mut projections = open(&ledger.path);
    projections.catch_up().unwrap();
    assert_eq!(queries(&ledger.path).sessions().unwrap()[0].events, 9);
}

#[test]
fn an_iteration_with_figures_too_large_for_a_column_does_not_stop_the_models() {
    // Given
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let mut told = story.whole_run("r", "s", 0, RunStatus::Completed);
    let end = told.split_off(2);
    let KindFacts::WorkflowIteration(WorkflowIteration::End(mut facts)) = iteration_end(1, 0, Some("a")) else {
        panic!("no end");
    };
    facts.tokens = Tokens { input: Some(u64::MAX), ..Tokens::default() };
    told.push(story.workflow_in("r", "s", &support::iteration_start(1, runledger_events::Continuation::Fresh)));
    told.push(story.workflow_in("r", "s", &KindFacts::WorkflowIteration(WorkflowIteration::End(facts))));
    told.extend(end);
    tell(&*ledger.log, &told);
    // When and then
    let mut projections = open(&ledger.path);
    projections.catch_up().unwrap();
    assert_eq!(queries(&ledger.path).runs(&RunFilter::default()).unwrap()[0].status, RunStatus::Completed);
}
