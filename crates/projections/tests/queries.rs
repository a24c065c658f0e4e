//! Queries: what they answer, in which order, what they count once, and that they write nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runledger_events::{Continuation, Position, RunStatus, Tokens};
use runledger_projections::{ProjectionError, Queries, Run, RunFilter, RunMatch, projections_path, registered, run_at};
use runledger_store::Read;
use runledger_testkit::TempLedger;
use support::{
    NAMES, Story, Told, assert_verifies, caught_up, dump, files, into_running, iteration_end, iteration_session,
    iteration_start, of_run, open, queries, run_id, sqlite, sqlite_of_log, start, stream_of, tell, version_of,
};

fn ids(runs: &[Run]) -> Vec<&str> {
    runs.iter().map(|run| run.id.as_str()).collect()
}

#[test]
fn runs_come_newest_first_and_are_filtered_by_session_status_and_number() {
    // Given
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let told = [
        ("a", "s1", RunStatus::Completed),
        ("b", "s2", RunStatus::Failed),
        ("c", "s1", RunStatus::Failed),
        ("d", "s1", RunStatus::Completed),
    ];
    for (run, session, status) in told {
        tell(&*ledger.log, &story.whole_run(run, session, 1, status));
    }
    tell(&*ledger.log, &[story.next_of_run("e", 1)]);
    drop(caught_up(&ledger.path));
    let queries = queries(&ledger.path);
    let runs = |session: Option<&str>, status, limit| {
        let session = session.map(|id| id.parse().unwrap());
        let filter = RunFilter { session, status, limit, ..RunFilter::default() };
        let runs = queries.runs(&filter).unwrap();
        ids(&runs).join("")
    };
    // When and then
    assert_eq!(runs(None, None, None), "edcba");
    assert_eq!(runs(None, None, Some(2)), "ed");
    assert_eq!(runs(None, None, Some(0)), "");
    assert_eq!(runs(None, None, Some(usize::MAX)), "edcba");
    assert_eq!(runs(Some("s1"), None, None).replace('e', ""), "dca");
    assert_eq!(runs(Some("s1"), Some(RunStatus::Completed), None), "da");
    assert_eq!(runs(Some("s1"), Some(RunStatus::Completed), Some(1)), "d");
    assert_eq!(runs(None, Some(RunStatus::Failed), None), "cb");
    assert_eq!(runs(None, Some(RunStatus::Running), None), "e");
    assert_eq!(runs(None, Some(RunStatus::Exhausted), None), "");
    assert_eq!(runs(Some("s'; DROP TABLE x --"), None, None), "");
}

#[test]
fn runs_are_found_by_a_text_letter_for_letter_and_told_from_a_position_back() {
    let ledger = TempLedger::new();
    let mut story = Story::default();
    for (run, session) in [("abc", "one%"), ("aXc", "two_"), ("b_d", "one%")] {
        tell(&*ledger.log, &story.whole_run(run, session, 1, RunStatus::Completed));
    }
    drop(caught_up(&ledger.path));
    let queries = queries(&ledger.path);
    let found = |filter: RunFilter| ids(&queries.runs(&filter).unwrap()).join(" ");
    let text = |text: &str| found(RunFilter { text: Some(text.to_owned()), ..RunFilter::default() });
    assert_eq!(text("axC"), "aXc");
    assert_eq!(text("e%"), "b_d abc", "a sign of patterns is a letter as any");
    assert_eq!(text("_"), "b_d aXc");
    assert_eq!(text("\\"), "");
    let begun = queries.runs(&RunFilter::default()).unwrap()[1].first_position;
    assert_eq!(found(RunFilter { before: Some(begun), ..RunFilter::default() }), "abc");
    assert_eq!(found(RunFilter { workflow: Some("none".to_owned()), ..RunFilter::default() }), "");
}

#[test]
fn a_run_is_found_by_its_id_or_the_beginning_of_it_letter_for_letter() {
    // Given ids of which one is the beginning of another, and ids with signs that a pattern would mean something by
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let names = ["abc", "abcd", "abd", "x%y", "x_y", "it's", "Grüße-1", "Grüße-2", "日本", "Z", "z", "\u{10fffe}b"];
    for name in names {
        tell(&*ledger.log, &story.whole_run(name, "s", 2, RunStatus::Completed));
    }
    drop(caught_up(&ledger.path));
    let queries = queries(&ledger.path);
    let found = |prefix: &str| match queries.run(prefix).unwrap() {
        RunMatch::None => vec![],
        RunMatch::One(run, iterations) => {
            assert_eq!(iterations.iter().map(|iteration| iteration.iteration).collect::<Vec<_>>(), [1, 2]);
            vec![run.id.as_str().to_owned()]
        }
        RunMatch::Several(ids) => {
            assert!(ids.len() > 1);
            ids.iter().map(|id| id.as_str().to_owned()).collect()
        }
    };
    // When and then: a whole id wins over longer ones,
    for name in names {
        assert_eq!(found(name), [name]);
    }
    // a beginning that fits one finds it, one that fits several names them, the newest first,
    assert_eq!(found("abcd"), ["abcd"]);
    assert_eq!(found("ab"), ["abd", "abcd", "abc"]);
    assert_eq!(found("Grüße"), ["Grüße-2", "Grüße-1"]);
    assert_eq!(found("日"), ["日本"]);
    assert_eq!(found("it'"), ["it's"]);
    // and signs stand for themselves.
    assert_eq!(found("x%"), ["x%y"]);
    assert_eq!(found("x_"), ["x_y"]);
    for none in ["%", "_", "'", "a%", "abcde", "ABC", "日本語", "\u{0}", "x*", "\u{10ffff}"] {
        assert!(found(none).is_empty(), "{none:?}");
    }
}

#[test]
fn a_sessions_tokens_are_counted_once() {
    // Given a run whose turn cost 10, which the harness itself tells too, within the run; and a turn outside of it
    let ledger = TempLedger::new();
    let mut story = Story::default();
    let usage = |input: u64| format!(r#"{{"usage":{{"input":{input},"output":1}}}}"#);
    let told = [
        story.workflow_in("r", "s", &start("r", "s", 0)),
        story.workflow_in("r", "s", &into_running()),
        story.workflow_in("r", "s", &iteration_start(1, Continuation::Fresh)),
        story.told_of_harness("s", Some("a"), Some("r"), "session.start", r#"{"model":"m","source":"startup"}"#),
        story.workflow_in("r", "s", &iteration_session(1, "a")),
        story.told_of_harness("s", Some("a"), Some("r"), "usage.update", &usage(10)),
        story.workflow_in("r", "s", &iteration_end(1, 8, Some("a"))),
        // An iteration without a harness session.
        story.workflow_in("r", "s", &iteration_start(2, Continuation::Fresh)),
        story.workflow_in("r", "s", &iteration_end(2, 8, None)),
        // Sums so far, twice, outside of any run.
        story.told_of_harness("s", Some("b"), None, "usage.update", &usage(100)),
        story.told_of_harness("s", Some("b"), None, "usage.update", &usage(150)),
        // Without a harness session of its own nobody can tell sums apart, so they are not counted.
        story.told_of_harness("s", None, None, "usage.update", &usage(1000)),
    ];
    tell(&*ledger.log, &told);
    drop(caught_up(&ledger.path));
    // When
    let sessions = queries(&ledger.path).sessions().unwrap();
    // Then
    let [session] = &sessions[..] else { panic!("{sessions:?}") };
    assert_eq!((session.events, session.runs), (12, 1));
    let inputs: Vec<_> = session.adapter_sessions.iter().map(|adapter| adapter.tokens.input).collect();
    assert_eq!(inputs, [Some(8), Some(150)]);
    assert_eq!((session.tokens.input, session.tokens.output), (Some(8 + 8 + 150), Some(1)));
    let [a, b] = &session.adapter_sessions[..] else { panic!("{sessions:?}") };
    assert_eq!((a.id.as_str(), a.run_id.as_ref().unwrap().as_str(), a.events), ("a", "r", 4));
    assert_eq!((a.model.as_deref(), a.source.as_deref()), (Some("m"), Some("startup")));
    assert_eq!((b.id.as_str(), &b.run_id, b.events), ("b", &None, 2));
    let run = &queries(&ledger.path).runs(&RunFilter::default()).unwrap()[0];
    assert_eq!(run.tokens.input, Some(16));
}

#[test]
fn a_session_costs_what_its_runs_cost() {
    let ledger = TempLedger::new();
    let mut story = Story::default();
    for run in ["a", "b", "c"] {
        tell(&*ledger.log, &story.whole_run(run, "s", 3, RunStatus::Completed));
    }
    drop(caught_up(&ledger.path));
    let queries = queries(&ledger.path);
    let runs = queries.runs(&RunFilter::default()).unwrap();
    let sum = runs.iter().fold(Tokens::default(), |sum, run| sum.followed_by(run.tokens));
    let session = &queries.sessions().unwrap()[0];
    assert_eq!(queries.session(&session.id).unwrap().as_ref(), Some(session));
    assert_eq!(queries.session(&"another".parse().unwrap()).unwrap(), None);
    assert_eq!((session.tokens, session.runs), (sum, 3));
}

#[test]
fn a_workflow_event_outside_a_runs_stream_is_no_run_and_costs_nothing() {
    // Given a run's whole story, told again in its session's stream: somebody's words about it
    let ledger = TempLedger::new();
    let told = Story::default().whole_run("r", "s", 2, RunStatus::Completed);
    tell(&*ledger.log, &told);
    drop(caught_up(&ledger.path));
    let before = queries(&ledger.path).sessions().unwrap().remove(0);
    let again: Vec<Told> = told.into_iter().map(|told| Told { stream: "session/s".parse().unwrap(), ..told }).collect();
    tell(&*ledger.log, &again);
    // When
    drop(caught_up(&ledger.path));
    // Then
    let after = queries(&ledger.path).sessions().unwrap().remove(0);
    assert_eq!((after.runs, after.events), (before.runs, before.events * 2));
    assert_eq!(after.tokens, before.tokens);
}

#[test]
fn a_second_start_in_a_runs_stream_is_no_second_run() {
    let ledger = TempLedger::new();
    let mut story = Story::default();
    tell(&*ledger.log, &story.whole_run("r", "s", 1, RunStatus::Completed));
    tell(&*ledger.log, &[story.workflow_in("r", "s", &start("r", "s", 3))]);
    drop(caught_up(&ledger.path));
    let queries = queries(&ledger.path);
    assert_eq!(queries.runs(&RunFilter::default()).unwrap().len(), 1);
    assert_eq!(queries.sessions().unwrap()[0].runs, 1);
}

#[test]
fn a_start_that_names_another_run_harms_no_run_however_it_is_batched() {
    // Given a run, and in another run's stream a start that names it
    let mut story = Story::default();
    let mut told = story.whole_run("r", "s", 1, RunStatus::Completed);
    let other = Told { stream: stream_of("other"), ..story.workflow_in("r", "s", &start("r", "s", 3)) };
    told.push(Told { metadata: of_run("other", "s"), ..other });
    let moved = story.workflow_in("other", "s", &support::iteration_session(1, "x"));
    told.push(moved);
    let ledgers = [TempLedger::new(), TempLedger::new()];
    // When one projects it at once, and one event by event
    tell(&*ledgers[0].log, &told);
    drop(caught_up(&ledgers[0].path));
    for one in &told {
        tell(&*ledgers[1].log, std::slice::from_ref(one));
        drop(caught_up(&ledgers[1].path));
    }
    // Then
    for ledger in &ledgers {
        let RunMatch::One(run, _) = queries(&ledger.path).run("r").unwrap() else { panic!("no run r") };
        assert_eq!((run.status, run.first_position), (RunStatus::Completed, Position(1)));
    }
    assert_eq!(dump(&ledgers[0].path), dump(&ledgers[1].path));
}

/// Every run that has a stream, at every position of the log, compared with read models of a log that ends there.
fn assert_run_at_equals_a_log_cut_there(told: &[Told]) {
    let whole = TempLedger::new();
    tell(&*whole.log, told);
    let reader = whole.log.reader().unwrap();
    let mut runs: Vec<_> = told.iter().filter_map(|told| told.stream.run_id()).collect();
    runs.sort();
    runs.dedup();
    let cut = TempLedger::new();
    let mut projections = caught_up(&cut.path);
    let queries = queries(&cut.path);
    for (position, one) in (1..).map(Position).zip(told) {
        // Given
        tell(&*cut.log, std::slice::from_ref(one));
        projections.catch_up().unwrap();
        for run in &runs {
            // When
            let then = run_at(&reader, run, position).unwrap();
            // Then
            let now = match queries.run(run.as_str()).unwrap() {
                RunMatch::One(now, iterations) if now.id == *run => Some((*now, iterations)),
                _ => None,
            };
            assert_eq!(then, now, "{run} at {position}: {}", one.json);
        }
    }
    assert_eq!(run_at(&reader, &runs[0], Position::START).unwrap(), None);
    let last = Position(told.len() as u64);
    let beyond = run_at(&reader, &runs[0], Position(u64::MAX)).unwrap();
    assert_eq!(beyond, run_at(&reader, &runs[0], last).unwrap());
    assert_eq!(run_at(&reader, &run_id("nobody"), last).unwrap(), None);
}

#[test]
fn a_run_at_a_position_is_what_the_read_models_of_a_log_that_ends_there_say() {
    let mut story = Story::default();
    let mut told = story.whole_run("a", "s", 2, RunStatus::Blocked);
    told.extend(story.mixed(150, 4, 15));
    assert_run_at_equals_a_log_cut_there(&told);
}

#[test]
fn a_run_at_a_position_agrees_with_the_read_models_where_a_stream_does_not_begin_with_its_start() {
    let mut story = Story::default();
    let whole = story.whole_run("a", "s", 2, RunStatus::Blocked);
    let mut told = vec![story.workflow_in("a", "s", &iteration_session(1, "early"))];
    told.extend(whole);
    assert_run_at_equals_a_log_cut_there(&told);
}

#[test]
fn a_run_at_a_position_agrees_with_the_read_models_where_iterations_come_out_of_order() {
    let mut story = Story::default();
    let mut told = story.whole_run("a", "s", 0, RunStatus::Blocked);
    for iteration in [3, 1, 2] {
        told.push(story.workflow_in("a", "s", &iteration_start(iteration, Continuation::Fresh)));
    }
    assert_run_at_equals_a_log_cut_there(&told);
}

#[test]
fn events_whose_content_was_erased_fold_the_same_where_facts_are_read_and_without_their_words_elsewhere() {
    // Given
    let ledger = TempLedger::new();
    tell(&*ledger.log, &Story::default().mixed(300, 6, 16));
    let mut projections = caught_up(&ledger.path);
    let of_facts: Vec<&str> =
        registered().iter().filter(|model| model.reads() == Read::Facts).map(|model| model.name()).collect();
    assert_eq!(of_facts, NAMES[..3]);
    let erased =
        sqlite_of_log(&ledger.path).execute("UPDATE runtime_events SET content = NULL, salt = NULL", []).unwrap();
    assert_eq!(erased, 300);
    // When
    for name in NAMES {
        let changed = projections.rebuild(name, &mut |_| {}).unwrap().changed.unwrap();
        // Then
        assert_eq!(changed == 0, of_facts.contains(&name), "{name}");
    }
    assert!(!dump(&ledger.path).contains("secret"), "erased words in a read model");
    assert_verifies(&mut projections);
}

#[test]
fn without_a_file_the_models_are_not_built_and_none_is_made() {
    let ledger = TempLedger::new();
    assert!(matches!(Queries::open(&ledger.path), Err(ProjectionError::NotBuilt { .. })));
    assert!(files(&ledger.path).iter().all(|file| !file.exists()));
}

#[test]
fn a_file_that_was_only_just_made_has_no_models_yet() {
    // Given the moment in which another process has made the file, and nothing in it
    let ledger = TempLedger::new();
    std::fs::write(projections_path(&ledger.path), "").unwrap();
    // When and then
    let error = Queries::open(&ledger.path).unwrap_err();
    assert!(matches!(error, ProjectionError::NotBuilt { .. }), "{error}");
}

#[test]
fn a_file_without_models_says_so_and_answers_once_they_are_there() {
    // Given
    let ledger = TempLedger::new();
    tell(&*ledger.log, &Story::default().whole_run("r", "s", 1, RunStatus::Completed));
    let mut projections = open(&ledger.path);
    let queries = queries(&ledger.path);
    // When and then
    let not_built = |result: Result<(), ProjectionError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, ProjectionError::NotBuilt { .. }), "{error:?}");
        assert!(error.to_string().contains("rebuild-projections"), "{error}");
    };
    not_built(queries.runs(&RunFilter::default()).map(|_| ()));
    not_built(queries.run("r").map(|_| ()));
    not_built(queries.sessions().map(|_| ()));
    not_built(projections.verify("sessions", &mut |_| {}).map(|_| ()));
    for status in queries.status().unwrap() {
        assert_eq!((status.position, status.version), (None, None));
        assert_eq!(status.program_version, version_of(&status.projection));
    }
    assert!(matches!(
        queries.wait_for(Position(1), Duration::ZERO),
        Err(ProjectionError::TimedOut { wanted: Position(1), reached: Position::START })
    ));
    // When they are built, the same handle answers.
    let head = projections.catch_up().unwrap();
    assert_eq!(queries.runs(&RunFilter::default()).unwrap().len(), 1);
    assert_eq!(queries.sessions().unwrap().len(), 1);
    queries.wait_for(head, Duration::ZERO).unwrap();
}

#[test]
fn status_tells_how_each_model_stands() {
    let ledger = TempLedger::new();
    let head = tell(&*ledger.log, &Story::default().mixed(50, 3, 17));
    drop(caught_up(&ledger.path));
    let status = queries(&ledger.path).status().unwrap();
    assert_eq!(status.iter().map(|status| &status.projection[..]).collect::<Vec<_>>(), NAMES);
    for (generation, status) in (1..).zip(status) {
        let version = version_of(&status.projection);
        assert_eq!((status.version, status.program_version), (Some(version), version));
        assert_eq!((status.generation, status.position), (Some(generation), Some(head)));
        assert_eq!(status.log_id.as_ref(), Some(ledger.log.log_id()));
    }
}

#[test]
fn a_damaged_row_is_named_with_what_mends_it() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &Story::default().whole_run("r", "s", 1, RunStatus::Completed));
    let mut projections = caught_up(&ledger.path);
    sqlite(&ledger.path)
        .execute_batch(
            "UPDATE workflow_runs_1 SET status = 'nonsense';
             UPDATE workflow_iterations_2 SET continuation = 'no json';
             UPDATE sessions_3 SET events = -1;",
        )
        .unwrap();
    let queries = queries(&ledger.path);
    let damaged = |result: Result<(), ProjectionError>, name: &str| {
        let error = result.unwrap_err();
        assert!(matches!(&error, ProjectionError::Row { projection, .. } if *projection == name), "{error:?}");
        assert!(error.to_string().contains(&format!("--projection {name}")), "{error}");
    };
    damaged(queries.runs(&RunFilter::default()).map(|_| ()), "workflow_runs");
    damaged(queries.sessions().map(|_| ()), "sessions");
    projections.rebuild("workflow_runs", &mut |_| {}).unwrap();
    damaged(queries.run("r").map(|_| ()), "workflow_iterations");
}

#[test]
fn queries_write_nothing() {
    // Given
    let ledger = TempLedger::new();
    tell(&*ledger.log, &Story::default().mixed(100, 3, 18));
    let mut projections = caught_up(&ledger.path);
    let watching = sqlite(&ledger.path);
    let version = || watching.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).unwrap();
    let before = version();
    // When
    let queries = queries(&ledger.path);
    queries.runs(&RunFilter::default()).unwrap();
    queries.run("run").unwrap();
    queries.sessions().unwrap();
    queries.status().unwrap();
    queries.wait_for(Position(1), Duration::ZERO).unwrap();
    drop(queries);
    // Then
    assert_eq!(version(), before);
    projections.catch_up().unwrap();
    assert_eq!(version(), before);
}

#[test]
fn queries_read_while_another_process_holds_the_write_lock() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &Story::default().mixed(100, 3, 18));
    drop(caught_up(&ledger.path));
    let writing = sqlite(&ledger.path);
    writing.execute_batch("BEGIN IMMEDIATE; DELETE FROM workflow_runs_1").unwrap();
    assert!(!queries(&ledger.path).runs(&RunFilter::default()).unwrap().is_empty());
    writing.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn those_who_wait_do_not_keep_others_from_asking() {
    // Given more who wait than the pool has connections
    let ledger = TempLedger::new();
    let head = tell(&*ledger.log, &Story::default().mixed(20, 3, 19));
    drop(caught_up(&ledger.path));
    let queries = queries(&ledger.path);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    // Each waits far longer than a query may take.
                    let waited = queries.wait_for(head.next(), Duration::from_secs(60));
                    assert!(waited.is_ok(), "{waited:?}");
                }
            });
        }
        // When: many questions, of which each needs a connection
        let answers: Vec<_> = (0..200).map(|_| queries.status().map(|_| ())).collect();
        // Then
        is_over.store(true, Ordering::Release);
        tell(&*ledger.log, &[Story::default().harness("late", None, None, 5)]);
        drop(caught_up(&ledger.path));
        assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
    });
}
