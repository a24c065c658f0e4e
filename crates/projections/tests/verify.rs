//! Verifying: a row that was edited, deleted or added by hand is named, with its table, its key and its columns.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use runledger_events::{Position, RunStatus};
use runledger_projections::{ProjectionError, Projections, Verified};
use runledger_testkit::TempLedger;
use support::{NAMES, Story, assert_verifies, caught_up, dump, dump_of_table, sqlite, tell};

/// Two runs of two iterations each, of two sessions; the generations are 1, 2 and 3.
fn two_runs() -> (TempLedger, Projections) {
    let ledger = TempLedger::new();
    let mut story = Story::default();
    tell(&*ledger.log, &story.whole_run("r1", "s1", 2, RunStatus::Completed));
    tell(&*ledger.log, &story.whole_run("r2", "s2", 2, RunStatus::Failed));
    let projections = caught_up(&ledger.path);
    (ledger, projections)
}

fn verify(projections: &mut Projections, name: &str) -> Verified {
    projections.verify(name, &mut |_| {}).unwrap()
}

/// The differences, as one line each.
fn told(verified: &Verified) -> Vec<String> {
    verified.differences.iter().map(|row| format!("{} | {} | {}", row.table, row.key, row.detail)).collect()
}

#[test]
fn whole_models_have_no_differences() {
    let (ledger, mut projections) = two_runs();
    assert_verifies(&mut projections);
    let head = ledger.log.reader().unwrap().head().unwrap().position;
    for (name, rows) in [("workflow_runs", 2), ("workflow_iterations", 4), ("sessions", 4)] {
        let verified = verify(&mut projections, name);
        assert_eq!((verified.position, verified.rows, verified.different), (head, rows, 0), "{name}");
    }
}

#[test]
fn an_edited_row_is_named_with_its_columns() {
    let (ledger, mut projections) = two_runs();
    sqlite(&ledger.path)
        .execute_batch(
            "UPDATE workflow_runs_1 SET status = 'completed', tokens_input = 1 WHERE run_id = 'r2';
             UPDATE workflow_iterations_2 SET tracker = '{}' WHERE run_id = 'r1' AND iteration = 2;
             UPDATE sessions_3 SET events = events + 1 WHERE session_id = 's1';
             UPDATE adapter_sessions_3 SET run_id = NULL WHERE session_id = 's2';",
        )
        .unwrap();
    let runs = verify(&mut projections, "workflow_runs");
    assert_eq!(told(&runs), ["workflow_runs | run_id r2 | status, tokens_input differ from the log"]);
    assert_eq!((runs.different, runs.rows), (1, 2));
    let iterations = verify(&mut projections, "workflow_iterations");
    assert_eq!(told(&iterations), ["workflow_iterations | run_id r1, iteration 2 | tracker differ from the log"]);
    let sessions = verify(&mut projections, "sessions");
    assert_eq!(
        told(&sessions),
        [
            "sessions | session_id s1 | events differ from the log",
            "adapter_sessions | session_id s2, adapter_session_id adapter-r2 | run_id differ from the log",
        ]
    );
}

#[test]
fn a_deleted_row_is_named() {
    let (ledger, mut projections) = two_runs();
    sqlite(&ledger.path)
        .execute_batch(
            "DELETE FROM workflow_runs_1 WHERE run_id = 'r1';
             DELETE FROM workflow_iterations_2 WHERE iteration = 1;
             DELETE FROM adapter_sessions_3;",
        )
        .unwrap();
    let runs = verify(&mut projections, "workflow_runs");
    assert_eq!(told(&runs), ["workflow_runs | run_id r1 | the row is missing"]);
    assert_eq!((runs.different, runs.rows), (1, 1));
    let iterations = verify(&mut projections, "workflow_iterations");
    assert_eq!(
        told(&iterations),
        [
            "workflow_iterations | run_id r1, iteration 1 | the row is missing",
            "workflow_iterations | run_id r2, iteration 1 | the row is missing",
        ]
    );
    assert_eq!(verify(&mut projections, "sessions").different, 2);
}

#[test]
fn an_added_row_is_named_wherever_its_key_stands() {
    // Given rows before, between and after those that are there
    let (ledger, mut projections) = two_runs();
    for key in ["", "r1x", "ü"] {
        sqlite(&ledger.path)
            .execute(
                "INSERT INTO workflow_iterations_2 (run_id, iteration, attempt, continuation, started_at,
                     start_position, start_event_id) VALUES (?1, 1, 1, '{}', 0, 0, 'x')",
                [key],
            )
            .unwrap();
    }
    let verified = verify(&mut projections, "workflow_iterations");
    let expected = ["", "r1x", "ü"]
        .map(|key| format!("workflow_iterations | run_id {key}, iteration 1 | the log tells of no such row"));
    assert_eq!(told(&verified), expected);
    assert_eq!((verified.different, verified.rows), (3, 7));
}

#[test]
fn of_many_differences_twenty_are_told_and_all_are_counted() {
    let (ledger, mut projections) = two_runs();
    sqlite(&ledger.path)
        .execute_batch(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 50)
             INSERT INTO sessions_3 (session_id, first_at, last_at, events, runs, first_position, last_position)
             SELECT 'added-' || n, 0, 0, 1, 0, 1, 1 FROM n",
        )
        .unwrap();
    let verified = verify(&mut projections, "sessions");
    assert_eq!((verified.different, verified.differences.len(), verified.rows), (50, 20, 54));
}

#[test]
fn verifying_changes_nothing_and_compares_at_the_models_own_position() {
    // Given models that lag behind the log
    let (ledger, mut projections) = two_runs();
    let reached = ledger.log.reader().unwrap().head().unwrap().position;
    tell(&*ledger.log, &Story::default().whole_run("r3", "s3", 1, RunStatus::Completed));
    let all = || (dump(&ledger.path), dump_of_table(&sqlite(&ledger.path), "checkpoints"));
    let before = all();
    // When
    let mut seen = Vec::new();
    let verified = projections.verify("sessions", &mut |position| seen.push(position)).unwrap();
    // Then
    assert_eq!((verified.position, verified.different), (reached, 0));
    assert_eq!(seen.last(), Some(&reached));
    assert_eq!(all(), before);
}

#[test]
fn a_checkpoint_that_does_not_fit_the_log_is_named() {
    for edit in ["position = position + 1", "chain = zeroblob(32)", "log_id = 'x'"] {
        let (ledger, mut projections) = two_runs();
        let sql = format!("UPDATE checkpoints SET {edit} WHERE projection = 'sessions'");
        sqlite(&ledger.path).execute(&sql, []).unwrap();
        let verified = verify(&mut projections, "sessions");
        assert_eq!(verified.different, 1);
        assert_eq!(
            (verified.differences[0].table, &verified.differences[0].key[..]),
            ("checkpoints", "projection sessions")
        );
    }
}

#[test]
fn a_model_that_is_not_there_is_not_verified() {
    let ledger = TempLedger::new();
    let mut projections = support::open(&ledger.path);
    let error = projections.verify("sessions", &mut |_| {}).unwrap_err();
    assert!(matches!(error, ProjectionError::NotBuilt { projection: "sessions", .. }), "{error}");
    let error = projections.verify("feed", &mut |_| {}).unwrap_err();
    assert!(matches!(error, ProjectionError::Unknown { .. }), "{error}");
    // An empty log's models are there once they were built.
    projections.catch_up().unwrap();
    assert_eq!(verify(&mut projections, "sessions").position, Position::START);
}

#[test]
fn verifying_keeps_nobody_from_projecting() {
    // Given
    let (ledger, mut projections) = two_runs();
    let mut story = Story::default();
    for name in NAMES {
        // When another process appends and projects in the midst of it
        let mut reached = Position::START;
        projections
            .verify(name, &mut |_| {
                let position = tell(&*ledger.log, &[story.harness("late", None, None, 5)]);
                let mut live = support::open(&ledger.path);
                live.catch_up().unwrap();
                reached = live.checkpoint(name).unwrap().unwrap().position;
                assert_eq!(reached, position);
            })
            .unwrap();
        // Then it has come further, without waiting for the end.
        assert_eq!(projections.checkpoint(name).unwrap().unwrap().position, reached);
        assert!(reached > Position::START);
    }
}

#[test]
fn verifying_while_the_model_is_rebuilt_and_projected_finds_nothing() {
    // Given
    let ledger = TempLedger::new();
    let told = Story::default().mixed(1500, 6, 20);
    tell(&*ledger.log, &told[..500]);
    drop(caught_up(&ledger.path));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // When
        scope.spawn(|| {
            let mut projections = support::open(&ledger.path);
            for part in told[500..].chunks(50) {
                tell(&*ledger.log, part);
                projections.catch_up().unwrap();
                projections.rebuild("sessions", &mut |_| {}).unwrap();
            }
            is_over.store(true, std::sync::atomic::Ordering::Release);
        });
        // Then
        let mut projections = support::open(&ledger.path);
        while !is_over.load(std::sync::atomic::Ordering::Acquire) {
            assert_verifies(&mut projections);
        }
    });
}
