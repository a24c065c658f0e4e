//! Rebuilding: the same rows from the log alone, whatever stood there, whatever goes on meanwhile, wherever it stops.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use runledger_events::{Position, RunStatus};
use runledger_projections::{
    Fold, Kinds, Projection, ProjectionError, Projections, Queries, RunFilter, RunMatch, Table, Target, registered,
};
use runledger_testkit::TempLedger;
use support::{
    NAMES, Story, assert_no_leftovers, assert_verifies, caught_up, dump, dump_of_table, files, fresh_dump,
    generation_tables, open, queries, registered_with, run_id, sqlite, tables, tell, version_of,
};

/// Longer than any machine needs: a test that waits it out has failed.
const LONG: Duration = Duration::from_secs(60);

/// A ledger with a mixed log, projected as it grew.
fn projected(events: usize) -> (TempLedger, Projections) {
    let ledger = TempLedger::new();
    let mut projections = open(&ledger.path);
    for part in Story::default().mixed(events, 12, 1).chunks(97) {
        tell(&*ledger.log, part);
        projections.catch_up().unwrap();
    }
    (ledger, projections)
}

fn rebuild_all(projections: &mut Projections) {
    for name in NAMES {
        projections.rebuild(name, &mut |_| {}).unwrap();
    }
}

#[test]
fn rebuild_equals_live_projection() {
    // Given
    let (ledger, mut projections) = projected(900);
    let live = dump(&ledger.path);
    for name in NAMES {
        // When
        let rebuilt = projections.rebuild(name, &mut |_| {}).unwrap();
        // Then
        assert_eq!(rebuilt.projection, name);
        assert_eq!(rebuilt.changed, Some(0), "{name}");
        assert!(rebuilt.rows > 0 && rebuilt.events > 0, "{rebuilt:?}");
        assert_eq!(dump(&ledger.path), live, "{name}");
    }
    assert_eq!(fresh_dump(&ledger.path), live);
    assert_no_leftovers(&ledger.path);
}

#[test]
fn rebuild_of_an_empty_log_gives_empty_models() {
    let ledger = TempLedger::new();
    let mut projections = open(&ledger.path);
    // When it is built for the first time, and then again
    for _ in 0..2 {
        for name in NAMES {
            let rebuilt = projections.rebuild(name, &mut |_| {}).unwrap();
            assert_eq!((rebuilt.events, rebuilt.rows, rebuilt.changed), (0, 0, Some(0)));
        }
    }
    // Then
    assert!(queries(&ledger.path).runs(&RunFilter::default()).unwrap().is_empty());
    assert!(queries(&ledger.path).sessions().unwrap().is_empty());
    queries(&ledger.path).wait_for(Position::START, Duration::ZERO).unwrap();
    assert_verifies(&mut projections);
    assert_no_leftovers(&ledger.path);
    // And what comes is projected.
    let position = tell(&*ledger.log, &Story::default().whole_run("r", "s", 1, RunStatus::Completed));
    assert_eq!(projections.catch_up().unwrap(), position);
    assert_eq!(queries(&ledger.path).runs(&RunFilter::default()).unwrap().len(), 1);
}

#[test]
fn the_first_build_counts_every_row_as_changed() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &Story::default().whole_run("r", "s", 3, RunStatus::Completed));
    let mut projections = open(&ledger.path);
    let changed = NAMES.map(|name| projections.rebuild(name, &mut |_| {}).unwrap().changed);
    // A run, three iterations, a session and its adapter session.
    assert_eq!(changed[..3], [Some(1), Some(3), Some(2)]);
}

#[test]
fn rebuild_of_one_model_leaves_the_others_alone() {
    // Given
    let (ledger, mut projections) = projected(300);
    let whole = dump(&ledger.path);
    let connection = sqlite(&ledger.path);
    let generation = |name| projections.checkpoint(name).unwrap().unwrap().generation;
    let [runs, _, sessions, ..] = NAMES.map(generation);
    connection.execute(&format!("UPDATE workflow_runs_{runs} SET harness = 'damaged'"), []).unwrap();
    connection.execute(&format!("UPDATE sessions_{sessions} SET events = 0"), []).unwrap();
    let damaged_sessions = dump_of_table(&connection, "sessions");
    // When
    projections.rebuild("workflow_runs", &mut |_| {}).unwrap();
    // Then
    let now = dump(&ledger.path);
    assert!(!now.contains("damaged"));
    assert!(now.contains(&damaged_sessions));
    assert_eq!(projections.checkpoint("sessions").unwrap().unwrap().generation, sessions);
    assert_ne!(now, whole);
    projections.rebuild("sessions", &mut |_| {}).unwrap();
    assert_eq!(dump(&ledger.path), whole);
}

#[test]
fn rebuild_of_a_model_that_is_not_there_says_which_are() {
    let (_ledger, mut projections) = projected(10);
    let error = projections.rebuild("feed", &mut |_| {}).unwrap_err();
    assert!(matches!(&error, ProjectionError::Unknown { name, .. } if name == "feed"), "{error}");
    assert!(NAMES.iter().all(|name| error.to_string().contains(name)), "{error}");
}

#[test]
fn rebuild_of_one_run_mends_its_rows_and_no_others() {
    // Given
    let ledger = TempLedger::new();
    let mut story = Story::default();
    for run in ["a", "b", "c"] {
        tell(&*ledger.log, &story.whole_run(run, "s", 3, RunStatus::Blocked));
    }
    let mut projections = caught_up(&ledger.path);
    let whole = dump(&ledger.path);
    let [runs, iterations, ..] = NAMES.map(|name| projections.checkpoint(name).unwrap().unwrap().generation);
    sqlite(&ledger.path)
        .execute_batch(&format!(
            "UPDATE workflow_runs_{runs} SET status = 'completed', iteration = 9 WHERE run_id IN ('a', 'b');
             DELETE FROM workflow_iterations_{iterations} WHERE run_id = 'a' AND iteration = 2;
             UPDATE workflow_iterations_{iterations} SET error = 'x' WHERE iteration = 3;
             INSERT INTO workflow_iterations_{iterations} (run_id, iteration, attempt, continuation, started_at,
                 start_position, start_event_id) VALUES ('a', 7, 1, '{{}}', 0, 0, 'x');"
        ))
        .unwrap();
    let checkpoints = dump_of_table(&sqlite(&ledger.path), "checkpoints");
    // When
    let rebuilt = projections.rebuild_run(&run_id("a"), &NAMES).unwrap();
    // Then those of rows that are of runs were rebuilt,
    let told: Vec<_> = rebuilt.iter().map(|rebuilt| (&rebuilt.projection[..], rebuilt.rows, rebuilt.changed)).collect();
    assert_eq!(told, [("workflow_runs", 1, Some(1)), ("workflow_iterations", 3, Some(3))]);
    // the rows of the run are what they were, and the damage of the others stays,
    let differing: Vec<String> = {
        let now = dump(&ledger.path);
        let lines = now.lines().zip(whole.lines()).filter(|(now, whole)| now != whole);
        lines.map(|(now, _)| now.split(" attempt").next().unwrap().to_owned()).collect()
    };
    assert_eq!(differing.len(), 3, "{differing:?}");
    assert!(differing[0].starts_with(r#" run_id="b""#), "{differing:?}");
    assert_eq!(differing[1..], [r#" run_id="b" iteration=Integer(3)"#, r#" run_id="c" iteration=Integer(3)"#]);
    // and nothing else moved.
    assert_eq!(dump_of_table(&sqlite(&ledger.path), "checkpoints"), checkpoints);
    for run in ["b", "c"] {
        projections.rebuild_run(&run_id(run), &NAMES).unwrap();
    }
    assert_eq!(dump(&ledger.path), whole);
    assert_no_leftovers(&ledger.path);
}

#[test]
fn rebuild_of_a_run_that_is_not_there_changes_nothing() {
    let (ledger, mut projections) = projected(100);
    let before = dump(&ledger.path);
    let error = projections.rebuild_run(&run_id("nobody"), &NAMES).unwrap_err();
    assert!(matches!(&error, ProjectionError::NoRun { run } if run.as_str() == "nobody"), "{error}");
    assert_eq!(dump(&ledger.path), before);
}

#[test]
fn rebuild_of_one_run_removes_a_row_that_the_log_does_not_tell_of_only_with_its_run() {
    // Given a row of a run that nobody started
    let (ledger, mut projections) = projected(100);
    let generation = projections.checkpoint("workflow_runs").unwrap().unwrap().generation;
    let whole = dump(&ledger.path);
    sqlite(&ledger.path)
        .execute_batch(&format!(
            "INSERT INTO workflow_runs_{generation}
             SELECT 'ghost', session_id, workflow_name, harness, status, state, iteration, iteration_is_open,
                 max_iterations, started_at, ended_at, stop_reason, tracker_path, tokens_input, tokens_output,
                 tokens_cache_read, tokens_cache_write, tokens_total, tokens_context_size, tokens_context_window_size,
                 adapter_session_ids, parent_run_id, forked_at, attempt, deadline_at, owner, forked_from, retries,
                 waiting_for, is_paused, more, first_position, last_position
             FROM workflow_runs_{generation} LIMIT 1"
        ))
        .unwrap();
    // When and then: the log has no such run, so only a whole rebuild removes it.
    assert!(projections.rebuild_run(&run_id("ghost"), &NAMES).is_err());
    assert_eq!(projections.rebuild("workflow_runs", &mut |_| {}).unwrap().changed, Some(1));
    assert_eq!(dump(&ledger.path), whole);
}

#[test]
fn rebuild_of_one_run_mends_a_row_that_cannot_be_read_while_its_next_event_waits() {
    // Given a row that nobody can fold further
    let ledger = TempLedger::new();
    let told = Story::default().whole_run("a", "s", 2, RunStatus::Completed);
    let (begun, rest) = told.split_at(4);
    tell(&*ledger.log, begun);
    let mut projections = caught_up(&ledger.path);
    let generation = projections.checkpoint("workflow_runs").unwrap().unwrap().generation;
    sqlite(&ledger.path).execute(&format!("UPDATE workflow_runs_{generation} SET status = 'nonsense'"), []).unwrap();
    tell(&*ledger.log, rest);
    // When
    let rebuilt = projections.rebuild_run(&run_id("a"), &NAMES);
    // Then
    rebuilt.unwrap();
    projections.catch_up().unwrap();
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
}

#[test]
fn rebuild_mends_rows_that_cannot_be_read_while_events_wait() {
    // Given
    let (ledger, mut projections) = projected(300);
    let [runs, iterations, sessions, ..] = NAMES.map(|name| projections.checkpoint(name).unwrap().unwrap().generation);
    sqlite(&ledger.path)
        .execute_batch(&format!(
            "UPDATE workflow_runs_{runs} SET status = 'nonsense', adapter_session_ids = 'no json';
             UPDATE workflow_iterations_{iterations} SET continuation = 'no json';
             UPDATE sessions_{sessions} SET events = -1;"
        ))
        .unwrap();
    let mut story = Story::default();
    drop(story.mixed(900, 12, 1));
    for session in ["s0", "s1", "s2"] {
        tell(&*ledger.log, &[story.harness(session, Some("a1"), None, 5)]);
    }
    for run in 0..12 {
        tell(&*ledger.log, &[story.next_of_run(&format!("run-{run}"), 9)]);
    }
    // When the next events cannot be applied
    assert!(projections.catch_up().is_err());
    // Then a rebuild helps.
    rebuild_all(&mut projections);
    projections.catch_up().unwrap();
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
    assert_no_leftovers(&ledger.path);
}

/// What a hooked projection does when it is asked for its name.
type Hook = Box<dyn Fn() + Send + Sync>;

/// A read model that does something in the moment before it is rebuilt for a run, once.
struct Hooked {
    inner: Box<dyn Projection>,
    is_armed: Arc<AtomicBool>,
    arms: bool,
    hook: Option<Hook>,
}

impl Projection for Hooked {
    fn name(&self) -> &'static str {
        if let Some(hook) = &self.hook
            && self.is_armed.swap(false, Ordering::AcqRel)
        {
            hook();
        }
        self.inner.name()
    }

    fn version(&self) -> u32 {
        self.inner.version()
    }

    fn kinds(&self) -> Kinds {
        self.inner.kinds()
    }

    fn tables(&self) -> &'static [Table] {
        self.inner.tables()
    }

    fn schema(&self) -> &'static str {
        self.inner.schema()
    }

    fn fold(&self) -> Box<dyn Fold> {
        self.inner.fold()
    }

    fn reset_run(&self, target: &Target<'_>, run_id: &str) -> Result<bool, ProjectionError> {
        if self.arms {
            self.is_armed.store(true, Ordering::Release);
        }
        self.inner.reset_run(target, run_id)
    }
}

#[test]
fn rebuild_of_one_run_keeps_what_another_process_appended_and_projected_meanwhile() {
    // Given a run that goes on, and is projected by another process, between the two models of its rebuild
    let ledger = TempLedger::new();
    let told = Story::default().whole_run("a", "s", 2, RunStatus::Completed);
    let (begun, rest) = told.split_at(4);
    tell(&*ledger.log, begun);
    drop(caught_up(&ledger.path));
    let is_armed = Arc::new(AtomicBool::new(false));
    let (log, path, rest) = (ledger.log.clone(), ledger.path.clone(), rest.to_vec());
    let mut hook: Option<Hook> = Some(Box::new(move || {
        tell(&*log, &rest);
        caught_up(&path);
    }));
    let hooked: Vec<Box<dyn Projection>> = registered()
        .into_iter()
        .map(|inner| {
            let (arms, is_second) = (inner.name() == "workflow_runs", inner.name() == "workflow_iterations");
            let hook = if is_second { hook.take() } else { None };
            Box::new(Hooked { inner, is_armed: is_armed.clone(), arms, hook }) as Box<dyn Projection>
        })
        .collect();
    let mut projections = Projections::open_with(&ledger.path, hooked).unwrap();
    // When
    projections.rebuild_run(&run_id("a"), &["workflow_runs", "workflow_iterations"]).unwrap();
    // Then nothing of it is lost.
    projections.catch_up().unwrap();
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
}

#[test]
fn a_removed_file_is_built_again_row_for_row() {
    let (main_alone, all) = (1, 3);
    for count in [main_alone, all] {
        // Given
        let (ledger, projections) = projected(500);
        let whole = dump(&ledger.path);
        drop(projections);
        let files = files(&ledger.path);
        for file in &files[..count] {
            let _ = std::fs::remove_file(file);
        }
        assert!(matches!(Queries::open(&ledger.path), Err(ProjectionError::NotBuilt { .. })));
        // When
        let mut projections = open(&ledger.path);
        rebuild_all(&mut projections);
        // Then
        assert_eq!(dump(&ledger.path), whole, "{count} files removed");
        assert_verifies(&mut projections);
        assert_no_leftovers(&ledger.path);
    }
}

#[test]
fn a_removed_file_whose_log_of_writes_is_left_is_built_again_by_catching_up() {
    // Given a main file that has gone, and -wal and -shm that are left without their process
    let (ledger, projections) = projected(500);
    let whole = dump(&ledger.path);
    let [main, wal, shm] = files(&ledger.path);
    let kept: Vec<(_, Vec<u8>)> =
        [wal, shm].into_iter().filter_map(|path| std::fs::read(&path).ok().map(|bytes| (path, bytes))).collect();
    assert_eq!(kept.len(), 2);
    drop(projections);
    std::fs::remove_file(main).unwrap();
    for (path, bytes) in kept {
        std::fs::write(path, bytes).unwrap();
    }
    // When and then
    drop(caught_up(&ledger.path));
    assert_eq!(dump(&ledger.path), whole);
}

#[test]
fn changed_counts_the_rows_that_were_damaged() {
    // Given
    let (ledger, mut projections) = projected(600);
    let whole = dump(&ledger.path);
    let [runs, iterations, sessions, ..] = NAMES.map(|name| projections.checkpoint(name).unwrap().unwrap().generation);
    sqlite(&ledger.path)
        .execute_batch(&format!(
            "UPDATE workflow_runs_{runs} SET iteration = iteration + 1, harness = 'x'
                 WHERE run_id IN ('run-1', 'run-2');
             DELETE FROM workflow_runs_{runs} WHERE run_id = 'run-3';
             DELETE FROM workflow_iterations_{iterations} WHERE run_id = 'run-1' AND iteration = 1;
             INSERT INTO workflow_iterations_{iterations} (run_id, iteration, attempt, continuation, started_at,
                 start_position, start_event_id) VALUES ('ghost', 1, 1, '{{}}', 0, 0, 'x');
             UPDATE sessions_{sessions} SET tokens_input = 1 WHERE session_id = 's0';
             UPDATE adapter_sessions_{sessions} SET model = 'x' WHERE adapter_session_id = 'a1';"
        ))
        .unwrap();
    let adapters: u64 = sqlite(&ledger.path)
        .query_row("SELECT count(*) FROM adapter_sessions WHERE model = 'x'", [], |row| row.get(0))
        .unwrap();
    // When
    let changed = NAMES.map(|name| projections.rebuild(name, &mut |_| {}).unwrap().changed.unwrap());
    // Then
    assert_eq!(changed, [3, 2, 1 + adapters, 0, 0, 0]);
    assert_eq!(dump(&ledger.path), whole);
}

#[test]
fn what_a_crashed_rebuild_left_is_removed_by_the_next() {
    // Given the leftovers of three, of which one has more rows than are removed at once
    let (ledger, mut projections) = projected(300);
    let whole = dump(&ledger.path);
    let connection = sqlite(&ledger.path);
    for name in ["workflow_runs", "sessions", "feed_search"] {
        connection
            .execute("INSERT INTO rebuilds (projection, position, chain) VALUES (?1, 7, zeroblob(32))", [name])
            .unwrap();
        let generation = connection.last_insert_rowid();
        let path = format!("{}/../../migrations/projections/{name}.sql", env!("CARGO_MANIFEST_DIR"));
        let schema = std::fs::read_to_string(path).unwrap().replace("{generation}", &generation.to_string());
        let tables: String = schema.split_inclusive(";\n").filter(|sql| !sql.contains("CREATE VIEW")).collect();
        connection.execute_batch(&tables).unwrap();
        if name == "sessions" {
            connection
                .execute_batch(&format!(
                    "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000)
                     INSERT INTO sessions_{generation} (session_id, first_at, last_at, events, runs, first_position,
                         last_position) SELECT 'left-' || n, 0, 0, 1, 0, 1, 1 FROM n"
                ))
                .unwrap();
        }
    }
    assert_eq!(generation_tables(&ledger.path).len(), tables().len() + 5);
    // Then readers see nothing of them,
    assert_eq!(dump(&ledger.path), whole);
    // When
    projections.rebuild("workflow_iterations", &mut |_| {}).unwrap();
    // Then they are gone.
    assert_no_leftovers(&ledger.path);
    assert_eq!(dump(&ledger.path), whole);
}

#[test]
fn a_rebuild_that_ends_between_any_two_steps_leaves_the_old_model() {
    // Given a log of several batches, and rows that a rebuild would change
    let (ledger, mut projections) = projected(5000);
    let generation = projections.checkpoint("sessions").unwrap().unwrap().generation;
    sqlite(&ledger.path).execute(&format!("UPDATE sessions_{generation} SET runs = 77"), []).unwrap();
    let damaged = dump(&ledger.path);
    let mut steps = 0;
    loop {
        // When it ends at its step number `steps`
        let mut seen = 0;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            projections.rebuild("sessions", &mut |_| {
                if seen == steps {
                    // As a panic, but without a word on the terminal.
                    resume_unwind(Box::new("crash"));
                }
                seen += 1;
            })
        }));
        if ended.is_ok() {
            break;
        }
        // Then the old model is there, and goes on in another process.
        assert_eq!(dump(&ledger.path), damaged, "step {steps}");
        assert_eq!(generation_tables(&ledger.path).len(), tables().len() + 2, "step {steps}");
        open(&ledger.path).catch_up().unwrap();
        steps += 1;
    }
    assert!(steps >= 4, "only {steps} steps");
    // And one that comes to its end leaves the new one, and nothing else.
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
    assert_no_leftovers(&ledger.path);
}

#[test]
fn progress_tells_of_the_whole_way() {
    let (ledger, mut projections) = projected(3000);
    let head = ledger.log.reader().unwrap().head().unwrap().position;
    for name in NAMES {
        let mut seen = Vec::new();
        projections
            .rebuild(name, &mut |progress| {
                assert_eq!((progress.projection, progress.head), (name, head));
                seen.push(progress.position);
            })
            .unwrap();
        assert_eq!((seen.first(), seen.last()), (Some(&Position::START), Some(&head)));
        assert!(seen.is_sorted(), "{seen:?}");
    }
}

#[test]
fn two_rebuilds_at_once_both_succeed() {
    // Given
    let (ledger, mut projections) = projected(1500);
    let whole = dump(&ledger.path);
    let before = NAMES.map(|name| projections.checkpoint(name).unwrap().unwrap().generation);
    // When
    std::thread::scope(|scope| {
        for shift in 0..2 {
            let path = &ledger.path;
            scope.spawn(move || {
                let mut projections = open(path);
                for round in 0..6 {
                    let name = NAMES[(round * (shift + 1)) % NAMES.len()];
                    let rebuilt = projections.rebuild(name, &mut |_| {}).unwrap();
                    assert_eq!(rebuilt.changed, Some(0));
                }
            });
        }
    });
    // Then
    assert_eq!(dump(&ledger.path), whole);
    assert_verifies(&mut projections);
    assert_no_leftovers(&ledger.path);
    let after = NAMES.map(|name| projections.checkpoint(name).unwrap().unwrap().generation);
    assert!(before.iter().zip(after).all(|(before, after)| *before < after));
}

#[test]
fn a_rebuild_beside_a_writer_and_a_live_projector_loses_nothing() {
    // Given
    let (ledger, mut projections) = projected(1200);
    let is_over = AtomicBool::new(false);
    let acknowledged = AtomicUsize::new(0);
    let mut story = Story::default();
    let past = story.mixed(1200, 12, 1).len();
    let coming = story.mixed(1500, 12, 2);
    assert_eq!(ledger.log.reader().unwrap().head().unwrap().position.0, past as u64);
    std::thread::scope(|scope| {
        let (ledger, is_over, acknowledged) = (&ledger, &is_over, &acknowledged);
        // When one writes,
        scope.spawn(move || {
            for part in coming.chunks(5) {
                let position = tell(&*ledger.log, part);
                acknowledged.store(usize::try_from(position.0).unwrap(), Ordering::Release);
            }
            is_over.store(true, Ordering::Release);
        });
        // another projects,
        scope.spawn(move || {
            let mut live = open(&ledger.path);
            while !is_over.load(Ordering::Acquire) {
                live.catch_up().unwrap();
            }
            live.catch_up().unwrap();
        });
        // and one waits for what was acknowledged, and finds what it waited for,
        scope.spawn(move || {
            let queries = queries(&ledger.path);
            let mut events = 0;
            while !is_over.load(Ordering::Acquire) {
                let position = acknowledged.load(Ordering::Acquire) as u64;
                queries.wait_for(Position(position), LONG).unwrap();
                let now: u64 = queries.sessions().unwrap().iter().map(|session| session.events).sum();
                assert!(now >= position && now >= events, "{now} events, waited for {position}, had {events}");
                events = now;
            }
        });
        // while the models are rebuilt one after the other:
        while !is_over.load(Ordering::Acquire) {
            for name in NAMES {
                let rebuilt = projections.rebuild(name, &mut |_| {}).unwrap();
                // Where the old model moves on all the while, nobody can compare it.
                assert!(matches!(rebuilt.changed, None | Some(0)), "{rebuilt:?}");
            }
        }
    });
    // Then
    projections.catch_up().unwrap();
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
    assert_verifies(&mut projections);
    assert_no_leftovers(&ledger.path);
}

#[test]
fn a_reader_never_sees_an_error_or_a_smaller_model_while_it_is_rebuilt() {
    // Given
    let (ledger, mut projections) = projected(1200);
    let run_of = |queries: &Queries| match queries.run("run-1").unwrap() {
        RunMatch::One(run, iterations) => (run.id, iterations.len()),
        RunMatch::Several(ids) => (ids[0].clone(), ids.len()),
        RunMatch::None => panic!("no run"),
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (path, is_over) = (&ledger.path, &is_over);
        for opens_anew in [false, true] {
            scope.spawn(move || {
                let mut reading = queries(path);
                let expected = (reading.runs(&RunFilter::default()).unwrap(), reading.sessions().unwrap());
                let run = run_of(&reading);
                assert!(!expected.0.is_empty() && !expected.1.is_empty());
                while !is_over.load(Ordering::Acquire) {
                    if opens_anew {
                        reading = queries(path);
                    }
                    assert_eq!(reading.runs(&RunFilter::default()).unwrap(), expected.0);
                    assert_eq!(reading.sessions().unwrap(), expected.1);
                    assert_eq!(run_of(&reading), run);
                    assert_eq!(reading.status().unwrap().len(), NAMES.len());
                }
            });
        }
        // When
        for _ in 0..10 {
            rebuild_all(&mut projections);
        }
        is_over.store(true, Ordering::Release);
    });
    assert_no_leftovers(&ledger.path);
}

#[test]
fn a_position_once_reached_stays_reached_over_a_rebuild_of_the_same_version() {
    reached_stays_reached(version_of("sessions"));
}

#[test]
fn a_position_once_reached_stays_reached_over_a_rebuild_of_a_new_version() {
    reached_stays_reached(version_of("sessions") + 1);
}

/// While a program of `version` rebuilds, at the end of its filling, another one of today's appends and projects more.
fn reached_stays_reached(version: u32) {
    for more in [1, 255, 256, 257, 700] {
        // Given
        let (ledger, live) = projected(300);
        let mut live = Some(live);
        let mut newer = Projections::open_with(&ledger.path, registered_with("sessions", version)).unwrap();
        let mut story = Story::default();
        drop(story.mixed(300, 12, 1));
        let mut more_events = Some(story.mixed(more, 12, 3));
        let mut reached = Position::START;
        // When
        newer
            .rebuild("sessions", &mut |progress| {
                if progress.position == progress.head
                    && let (Some(events), Some(mut live)) = (more_events.take(), live.take())
                {
                    tell(&*ledger.log, &events);
                    reached = live.catch_up().unwrap();
                }
            })
            .unwrap();
        // Then
        let now = newer.checkpoint("sessions").unwrap().unwrap();
        assert_eq!((now.version, now.position), (version, reached), "{more} more events");
        newer.catch_up().unwrap();
        assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
    }
}

/// Linux file systems take any bytes as a name.
#[cfg(target_os = "linux")]
#[test]
fn a_ledger_whose_path_is_not_utf_8_is_rebuilt_too() {
    use std::os::unix::ffi::OsStrExt;

    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    std::fs::create_dir(&odd).unwrap();
    let path = odd.join("ledger.db");
    let (ledger, _) = projected(100);
    std::fs::copy(&ledger.path, &path).unwrap();
    let mut wal = ledger.path.clone().into_os_string();
    wal.push("-wal");
    std::fs::copy(wal, odd.join("ledger.db-wal")).unwrap();
    let mut projections = open(&path);
    projections.catch_up().unwrap();
    for name in NAMES {
        assert_eq!(projections.rebuild(name, &mut |_| {}).unwrap().changed, Some(0), "{name}");
    }
}
