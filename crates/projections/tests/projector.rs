//! The projector: what was appended is there to read, and its end comes after what was there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::time::Duration;

use runledger_events::{Position, RunStatus};
use runledger_projections::{ProjectionError, Projections, Projector, RunFilter, RunMatch};
use runledger_testkit::TempLedger;
use support::{Story, caught_up, dump, fresh_dump, queries, registered_with, tell, version_of};

/// Longer than any machine needs: a test that waits it out has failed.
const LONG: Duration = Duration::from_secs(60);

/// A projector that hears of this process's commits at once.
fn start(ledger: &TempLedger) -> Projector {
    Projector::start(&ledger.path, ledger.log.follow(Position::START).unwrap()).unwrap()
}

#[test]
fn one_reads_what_one_wrote() {
    // Given
    let ledger = TempLedger::new();
    drop(caught_up(&ledger.path));
    let projector = start(&ledger);
    let queries = queries(&ledger.path);
    let mut story = Story::default();
    for n in 0..100 {
        // When
        let run = format!("run-{n}");
        let position = tell(&*ledger.log, &story.whole_run(&run, "s", 1, RunStatus::Completed));
        queries.wait_for(position, LONG).unwrap();
        // Then
        assert!(matches!(queries.run(&run).unwrap(), RunMatch::One(run, _) if run.last_position == position));
        assert_eq!(queries.sessions().unwrap()[0].last_position, position);
    }
    projector.stop().unwrap();
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
}

#[test]
fn one_reads_what_another_process_wrote() {
    // Given a projector that has only a reader, and a log of its own for the writer
    let ledger = TempLedger::new();
    drop(caught_up(&ledger.path));
    let follower = ledger.log.reader().unwrap().follow(Position::START).unwrap();
    let projector = Projector::start(&ledger.path, follower).unwrap();
    let queries = queries(&ledger.path);
    let mut story = Story::default();
    for part in story.mixed(40, 3, 21).chunks(4) {
        let position = tell(&*ledger.log, part);
        queries.wait_for(position, LONG).unwrap();
    }
    projector.stop().unwrap();
}

#[test]
fn stopping_applies_what_was_there() {
    for count in [0, 1, 30, 3000] {
        // Given
        let ledger = TempLedger::new();
        let projector = start(&ledger);
        let told = Story::default().mixed(count, 6, 22);
        for part in told.chunks(500) {
            tell(&*ledger.log, part);
        }
        // When
        projector.stop().unwrap();
        // Then
        queries(&ledger.path).wait_for(Position(count as u64), Duration::ZERO).unwrap();
        assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
    }
}

#[test]
fn dropping_applies_what_was_there_too() {
    let ledger = TempLedger::new();
    let projector = start(&ledger);
    let position = tell(&*ledger.log, &Story::default().mixed(30, 3, 23));
    drop(projector);
    queries(&ledger.path).wait_for(position, Duration::ZERO).unwrap();
}

#[test]
fn a_projector_outlives_the_log_that_it_follows() {
    let TempLedger { folder, path, log, .. } = TempLedger::new();
    let projector = Projector::start(&path, log.follow(Position::START).unwrap()).unwrap();
    drop(log);
    let log = runledger_store::SqliteLog::open(&path).unwrap();
    let position = tell(&log, &Story::default().mixed(10, 3, 24));
    // Its file is made before `start` returns; the models are built a little later.
    queries(&path).wait_for(position, LONG).unwrap();
    projector.stop().unwrap();
    drop(folder);
}

#[test]
fn several_projectors_count_each_event_once() {
    let ledger = TempLedger::new();
    let projectors = [start(&ledger), start(&ledger), start(&ledger)];
    let told = Story::default().mixed(600, 6, 25);
    for part in told.chunks(7) {
        tell(&*ledger.log, part);
    }
    for projector in projectors {
        projector.stop().unwrap();
    }
    let events: u64 = queries(&ledger.path).sessions().unwrap().iter().map(|session| session.events).sum();
    assert_eq!(events, 600);
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
}

#[test]
fn a_projector_goes_on_while_its_models_are_rebuilt() {
    // Given
    let ledger = TempLedger::new();
    let mut projections = caught_up(&ledger.path);
    let projector = start(&ledger);
    let queries = queries(&ledger.path);
    let mut story = Story::default();
    let mut runs = 0;
    for n in 0..20 {
        let position = tell(&*ledger.log, &story.whole_run(&format!("run-{n}"), "s", 1, RunStatus::Completed));
        // When
        for name in support::NAMES {
            projections
                .rebuild(name, &mut |_| {
                    // Then what was appended is there to read at every step of it.
                    queries.wait_for(position, LONG).unwrap();
                    let now = queries.runs(&RunFilter::default()).unwrap().len();
                    assert!(now > runs);
                })
                .unwrap();
        }
        runs = n;
    }
    projector.stop().unwrap();
    assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path));
}

#[test]
fn what_ended_the_projector_is_told_when_it_is_stopped() {
    // Given a model of a newer program
    let ledger = TempLedger::new();
    let version = version_of("sessions");
    Projections::open_with(&ledger.path, registered_with("sessions", version + 1)).unwrap().catch_up().unwrap();
    let before = dump(&ledger.path);
    // When
    let projector = start(&ledger);
    tell(&*ledger.log, &Story::default().mixed(10, 3, 26));
    // Then
    let error = projector.stop().unwrap_err();
    let ProjectionError::NewerProjection { projection, found, ours } = error else {
        panic!("{error}");
    };
    assert_eq!((projection.as_str(), found, ours), ("sessions", version + 1, version));
    assert_eq!(dump(&ledger.path), before);
}

#[test]
fn a_projector_without_a_ledger_does_not_start() {
    let ledger = TempLedger::new();
    let follower = ledger.log.follow(Position::START).unwrap();
    let elsewhere = ledger.folder.path().join("elsewhere.db");
    assert!(matches!(Projector::start(&elsewhere, follower), Err(ProjectionError::Open(_))));
    assert!(!elsewhere.exists());
}
