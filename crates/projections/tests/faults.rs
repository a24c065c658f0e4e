//! A disk that is full or fails at the n-th call on the read models' file: an error, no damage, and once the fault is gone
//! the same handle catches up to what a fresh fold gives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test may fail loudly")]

mod support;

use std::path::{Path, PathBuf};

use runledger_faultfs::{Fault, Operation, Watch};
use runledger_projections::{ProjectionError, Projections, projections_path};
use runledger_testkit::TempLedger;
use support::{NAMES, Story, assert_no_leftovers, assert_verifies, caught_up, dump, files, fresh_dump, open, tell};

/// A log, and its read models' files as they were some events ago.
struct Place {
    ledger: TempLedger,
    before: Vec<(PathBuf, Vec<u8>)>,
}

impl Place {
    fn new() -> Self {
        let ledger = TempLedger::new();
        let mut story = Story::default();
        tell(&*ledger.log, &story.mixed(80, 4, 41));
        drop(caught_up(&ledger.path));
        let before = files(&ledger.path)
            .into_iter()
            .filter(|file| !file.to_string_lossy().ends_with("-shm"))
            .filter_map(|file| std::fs::read(&file).ok().map(|bytes| (file, bytes)))
            .collect();
        tell(&*ledger.log, &story.mixed(40, 4, 42));
        Self { ledger, before }
    }

    fn path(&self) -> &Path {
        &self.ledger.path
    }

    /// Puts the files back to what they were, or to nothing.
    fn reset(&self, is_new: bool) {
        files(self.path()).iter().for_each(|file| drop(std::fs::remove_file(file)));
        for (file, bytes) in self.before.iter().filter(|_| !is_new) {
            std::fs::write(file, bytes).unwrap();
        }
    }
}

/// Catches up, and rebuilds one read model and then two; goes on after an error.
fn work(ledger: &Path) -> (Option<Projections>, Vec<ProjectionError>) {
    let mut errors = Vec::new();
    let mut projections = Projections::open(ledger).map_err(|error| errors.push(error)).ok();
    if let Some(projections) = &mut projections {
        errors.extend(projections.catch_up().err());
        errors.extend(projections.rebuild(NAMES[0], &mut |_| {}).err());
        errors.extend(projections.rebuild_together(&NAMES[2..4], &mut |_| {}).err());
    }
    (projections, errors)
}

/// An error names the file, the cause and the next step.
fn assert_clear(errors: &[ProjectionError], ledger: &Path) {
    let file = projections_path(ledger).display().to_string();
    for error in errors.iter().map(ProjectionError::to_string) {
        assert!(error.contains(&file), "{error}");
        assert!(error.contains("; "), "no next step: {error}");
    }
}

fn assert_goes_on(place: &Place, projections: Option<Projections>) {
    let mut projections = projections.unwrap_or_else(|| open(place.path()));
    projections.catch_up().unwrap();
    assert_verifies(&mut projections);
    assert_eq!(dump(place.path()), fresh_dump(place.path()));
    projections.rebuild(NAMES[1], &mut |_| {}).unwrap();
    assert_no_leftovers(place.path());
}

#[test]
fn a_call_that_fails_while_read_models_are_built_harms_nothing() {
    let place = Place::new();
    for operation in Operation::ALL {
        let mut met = 0;
        for (lasts, is_new) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut nth = 1;
            loop {
                place.reset(is_new);
                let watch = Watch::new(&projections_path(place.path())).unwrap();
                watch.fail(Fault { operation, nth, lasts });
                let (projections, errors) = work(place.path());
                let hits = watch.hits();
                watch.heal();
                assert_clear(&errors, place.path());
                // Nothing is done without these.
                let is_needed = matches!(operation, Operation::Write | Operation::Read | Operation::Open);
                assert!(!is_needed || nth > 1 || !errors.is_empty(), "{operation:?} failed, and nobody says so");
                assert_goes_on(&place, projections);
                if hits == 0 {
                    break;
                }
                met += 1;
                nth += 1 + nth / 2;
            }
        }
        println!("{operation:?}: {met} faults");
    }
}

#[test]
fn a_full_disk_harms_nothing_wherever_it_ends() {
    let place = Place::new();
    for is_new in [true, false] {
        let mut left = 0;
        loop {
            place.reset(is_new);
            let watch = Watch::new(&projections_path(place.path())).unwrap();
            watch.fill_up(left);
            let (projections, errors) = work(place.path());
            let hits = watch.hits();
            watch.heal();
            assert_clear(&errors, place.path());
            assert!(hits == 0 || !errors.is_empty(), "the disk was full, and nobody says so");
            assert!(errors.iter().all(|error| error.to_string().contains("the disk is full")), "{errors:?}");
            assert_goes_on(&place, projections);
            if hits == 0 {
                break;
            }
            left += 100_003;
        }
    }
}
