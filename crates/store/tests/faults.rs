//! A disk that is full or fails at the n-th call: a clear error, no damage, and work goes on once the fault is gone.
//!
//! A workload runs over a VFS that fails on demand, once for each n until it runs through without the fault being met.
//! Whatever happens, an append is there whole or not at all, what was acknowledged stays, and the same handle appends again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test may fail loudly")]

mod support;

use std::path::Path;
use std::sync::OnceLock;

use runledger_faultfs::{Fault, Operation, Random, Watch};
use runledger_store::{
    AppendError, EventLog, ExpectedVersion, LogReader, OpenOptions, Receipt, SqliteLog, StorageError, StreamAppend,
};
use support::{Place, all, append_one, assert_dense, assert_verifies, prompt, stream};

const APPENDS: usize = 8;
const EVENTS: usize = 3;

/// A write-ahead log that is written back and begun anew every few appends.
fn open(path: &Path) -> Result<SqliteLog, runledger_store::OpenError> {
    SqliteLog::open_with(path, &OpenOptions { wal_pages: 10, ..OpenOptions::default() })
}

fn ids(n: usize) -> [String; EVENTS] {
    ["a", "b", "c"].map(|part| format!("{n}{part}"))
}

/// One request of three events, in several shapes.
fn request(n: usize) -> Vec<StreamAppend> {
    let to = |name: &str, ids: &[String], characters: usize| StreamAppend {
        stream: stream(name),
        expected: ExpectedVersion::Any,
        events: ids.iter().map(|id| prompt(id, &letters(n, characters))).collect(),
    };
    let ids = ids(n);
    match n % 4 {
        0 => vec![to("run/r1", &ids[..2], 10), to("session/s1", &ids[2..], 10)],
        1 => vec![to("run/r1", &ids[..2], 10), to("session/s1", &ids[2..], 20_000)],
        // The same stream twice is written step by step.
        2 => vec![to("run/r1", &ids[..1], 10), to("session/s1", &ids[1..2], 10), to("run/r1", &ids[2..], 10)],
        _ => vec![to(&format!("run/new-{n}"), &ids, 3000)],
    }
}

/// Letters that hardly shrink.
fn letters(seed: usize, count: usize) -> String {
    let mut random = Random::new(seed as u64);
    (0..count).map(|_| char::from(b'A' + u8::try_from(random.below(26)).unwrap())).collect()
}

/// What came of the workload.
struct Trial {
    log: Option<SqliteLog>,
    answers: Vec<Result<Vec<Receipt>, AppendError>>,
    /// Every error that a caller saw, as text.
    errors: Vec<String>,
}

impl Trial {
    /// Opens or makes the ledger, appends to it and reads it; goes on after an error.
    fn run(path: &Path) -> Self {
        let mut errors = Vec::new();
        let log = open(path).map_err(|error| errors.push(error.to_string())).ok();
        let mut answers = Vec::new();
        if let Some(log) = &log {
            answers = (0..APPENDS).map(|n| log.append_all(request(n))).collect();
            errors.extend(answers.iter().filter_map(|answer| answer.as_ref().err()).map(AppendError::to_string));
        }
        match LogReader::open(path) {
            Ok(reader) => errors.extend(reader.verify(|_| {}).err().map(|error| error.to_string())),
            Err(error) => errors.push(error.to_string()),
        }
        Self { log, answers, errors }
    }

    /// The fault is gone: nothing is damaged, and all that was refused is appended by the same handle.
    fn assert_goes_on(self, path: &Path, before: usize) {
        let log = self.log.unwrap_or_else(|| open(path).unwrap());
        let reader = LogReader::open(path).unwrap();
        let events = all(&reader);
        assert_dense(&events);
        for n in 0..APPENDS {
            let ids = ids(n);
            let there = events.iter().filter(|event| ids.iter().any(|id| event.id.as_str() == id)).count();
            match self.answers.get(n) {
                Some(Ok(_)) => assert_eq!(there, EVENTS, "append {n} was acknowledged"),
                _ => assert!(there == 0 || there == EVENTS, "append {n} is there in part: {there} events"),
            }
            let again = log.append_all(request(n)).unwrap();
            assert!(again.iter().all(|receipt| receipt.is_duplicate == (there == EVENTS)), "append {n}: {again:?}");
            if let Some(Ok(receipts)) = self.answers.get(n) {
                let places = |receipts: &[Receipt]| -> Vec<_> {
                    receipts.iter().map(|receipt| (receipt.position, receipt.stream_version)).collect()
                };
                assert_eq!(places(&again), places(receipts), "append {n}");
            }
        }
        let report = assert_verifies(&reader);
        assert_eq!(report.events, (before + APPENDS * EVENTS) as u64);
        assert_dense(&all(&reader));
    }
}

/// An error names the file, the cause and the next step.
fn assert_clear(errors: &[String], path: &Path, cause: Option<&str>) {
    for error in errors {
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("; "), "no next step: {error}");
        assert!(cause.is_none_or(|cause| error.contains(cause)), "{error}");
    }
}

/// Events of a ledger that was there before.
const BEFORE: usize = 3;

/// A closed ledger with as many events; nothing is there where there are none.
fn place_with(events: usize) -> Place {
    static MADE: OnceLock<Place> = OnceLock::new();
    let place = Place::new();
    if events > 0 {
        let made = MADE.get_or_init(|| {
            let made = Place::new();
            let log = made.log();
            (0..BEFORE).for_each(|n| drop(append_one(&log, "run/r1", prompt(&format!("before-{n}"), "x"))));
            made
        });
        for file in ["ledger.db", "ledger.db-wal"] {
            std::fs::copy(made.folder().join(file), place.folder().join(file)).unwrap();
        }
    }
    place
}

/// Fails the n-th call for every n; how many faults were met.
fn fail_every_call(operation: Operation, before: usize) -> usize {
    let mut met = 0;
    for lasts in [false, true] {
        let mut nth = 1;
        loop {
            let place = place_with(before);
            let watch = Watch::new(&place.path()).unwrap();
            watch.fail(Fault { operation, nth, lasts });
            let trial = Trial::run(&place.path());
            let hits = watch.hits();
            watch.heal();
            assert_clear(&trial.errors, &place.path(), None);
            // Shortening and removing files is left for later where it fails.
            let is_needed = !matches!(operation, Operation::Truncate | Operation::Delete);
            if is_needed && lasts && nth == 1 {
                assert!(hits > 0, "{operation:?} is never asked for");
                assert!(!trial.errors.is_empty(), "{operation:?} never works, and nobody says so");
            }
            trial.assert_goes_on(&place.path(), before);
            if hits == 0 {
                break;
            }
            met += 1;
            // The first ones one by one, then ever further apart.
            nth += 1 + nth / 6;
        }
    }
    println!("{operation:?}, {before} events before: {met} faults");
    met
}

#[test]
fn a_call_that_fails_while_a_ledger_is_appended_to_harms_nothing() {
    let met: usize = Operation::ALL.iter().map(|operation| fail_every_call(*operation, BEFORE)).sum();
    assert!(met > 100, "{met}");
}

#[test]
fn a_call_that_fails_while_a_ledger_is_made_harms_nothing() {
    let met: usize = Operation::ALL.iter().map(|operation| fail_every_call(*operation, 0)).sum();
    assert!(met > 100, "{met}");
}

#[test]
fn a_full_disk_harms_nothing_wherever_it_ends() {
    for before in [0, BEFORE] {
        let mut left = 0;
        let mut met = 0;
        loop {
            let place = place_with(before);
            let watch = Watch::new(&place.path()).unwrap();
            watch.fill_up(left);
            let trial = Trial::run(&place.path());
            let hits = watch.hits();
            watch.heal();
            if hits == 0 {
                break;
            }
            met += 1;
            let about_the_disk: Vec<String> =
                trial.errors.iter().filter(|error| !error.contains("there is no ledger")).cloned().collect();
            assert_clear(
                &about_the_disk,
                &place.path(),
                Some("the disk is full; what was stored before is kept; free"),
            );
            trial.assert_goes_on(&place.path(), before);
            left += 5001;
        }
        println!("{before} events before: {met} disks were full");
        assert!(met >= 10, "{met}");
    }
}

#[test]
fn all_who_wait_for_a_commit_that_fails_learn_it_and_append_again() {
    let place = place_with(BEFORE);
    let watch = Watch::new(&place.path()).unwrap();
    let log = open(&place.path()).unwrap();
    let append_from_four = |part: &'static str| -> Vec<Result<Receipt, AppendError>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (log, event) = (&log, prompt(&format!("{part}-{thread}"), "x"));
                    scope.spawn(move || log.append(&stream("run/r1"), ExpectedVersion::Any, vec![event]))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap().map(|mut receipts| receipts.remove(0))).collect()
        })
    };
    watch.fail(Fault { operation: Operation::Sync, nth: 1, lasts: true });
    for answer in append_from_four("failed") {
        let error = answer.unwrap_err();
        assert!(matches!(error, AppendError::Storage(StorageError::Io { .. })), "{error}");
        assert!(error.to_string().contains("the disk failed (a sync, SQLite's code 1034)"), "{error}");
    }
    watch.heal();
    assert!(append_from_four("failed").iter().all(|answer| answer.as_ref().is_ok_and(|receipt| !receipt.is_duplicate)));
    assert_eq!(assert_verifies(&place.reader()).events, BEFORE as u64 + 4);
}
