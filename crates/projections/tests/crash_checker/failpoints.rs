//! Death at each named step between append, commit, acknowledgement, projection, checkpoint, rebuild and switch.
//!
//! The steps are the failpoints in the source of the two crates (`crates/store/src/failpoint.rs`).

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use runledger_projections::Projections;
use runledger_store::{EventLog, OpenOptions, SqliteLog, SyncMode};

use crate::acknowledged::{Acknowledged, Key, parse};
use crate::ledger::{assert_ends_well, assert_whole};
use crate::requests::{Request, of_story, small};
use crate::support::{NAMES, Story, run_id};
use crate::workers::{Task, acknowledge};

/// Every failpoint, in the order in which the workload first passes them.
const FAILPOINTS: [&str; 34] = [
    // A ledger is made,
    "open.file_made",
    "open.before_schema",
    "open.after_schema",
    // events are appended,
    "append.before_lock",
    "append.inserted",
    "append.before_commit",
    "append.committed",
    "append.others_answered",
    // and written back into the file.
    "write_back.before",
    "write_back.after",
    // The file of read models is made,
    "models.before_schema",
    "models.after_schema",
    // they are built,
    "rebuild.locked",
    "leftovers.gone",
    "rebuild.tables_made",
    "rebuild.begun",
    "rebuild.written",
    "rebuild.flushed",
    "rebuild.filled",
    "rebuild.compared",
    "rebuild.checkpoint_stored",
    "rebuild.before_switch",
    "rebuild.switched",
    // kept current,
    "project.before_lock",
    "project.checkpoint_moved",
    "project.applied",
    "project.committed",
    // built again beside older ones,
    "rebuild.old_applied",
    "rebuild.old_committed",
    "rebuild.comparing",
    // which are removed,
    "leftovers.emptied",
    "leftovers.dropped",
    // and one run's rows are folded again.
    "rebuild_run.before_commit",
    "rebuild_run.committed",
];

/// The passings at which the process dies: the first, and later ones, which are at work beside what the first ones left.
const PASSINGS: [u64; 3] = [1, 2, 9];

/// A little of everything, on a ledger that may be there already: who comes after a death repeats it. The first one waits
/// for the thread that writes back, so that its failpoints are passed however slow it is.
pub(crate) fn workload(ledger: &Path, is_first: bool, mut tell: impl FnMut(&str)) {
    let [first, second, third, fourth, fifth] = parts();
    // Without waiting for the disk: what outlives a process is the same.
    let options = OpenOptions { sync: SyncMode::Normal, ..OpenOptions::default() };
    let log = SqliteLog::open_with(ledger, &options).unwrap();
    let reader = log.reader().unwrap();
    // Nothing but writing back makes the file itself longer.
    let bytes_before = bytes(ledger);
    let mut append = |requests: &[Request]| {
        requests.iter().for_each(|request| acknowledge(&log, &reader, request, &mut tell));
    };
    append(&first);
    append(&second);
    while is_first && bytes(ledger) == bytes_before {
        std::thread::yield_now();
    }
    let mut projections = Projections::open(ledger).unwrap();
    projections.catch_up().unwrap();
    append(&third);
    projections.catch_up().unwrap();
    // The old rows are behind the head when they are compared.
    append(&fourth);
    projections.rebuild_together(&NAMES, &mut |_| {}).unwrap();
    projections.rebuild_run(&run_id("run-0"), &NAMES).unwrap();
    append(&fifth);
    projections.catch_up().unwrap();
}

/// What the workload appends, one part after the other.
fn parts() -> [Vec<Request>; 5] {
    let mut story = Story::default();
    let mut told = |count, seed| story.mixed(count, 4, seed).chunks(5).map(|part| of_story(part.to_vec())).collect();
    let first = told(60, 1);
    // So many commits that the write-ahead log has more pages than are left in it.
    let many = (0..100).map(|n| small(&format!("small-{n}"))).collect();
    [first, many, told(20, 2), told(20, 3), told(20, 4)]
}

fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Runs the workload in a process that dies there; false where it came to its end instead.
fn dies_at(failpoint: &str, ledger: &Path, acknowledged: &mut Acknowledged) -> bool {
    let mut child = Task::Workload.start(ledger, Some(failpoint));
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        if let Some((event, place)) = line.ends_with('\n').then(|| parse(&line)).flatten() {
            acknowledged.take(event, place);
        }
        line.clear();
    }
    let status = child.wait().unwrap();
    assert!(status.success() || status.signal().is_some(), "{failpoint}: {status}");
    !status.success()
}

#[test]
fn a_death_at_any_step_loses_nothing_and_whoever_comes_next_goes_on() {
    let requests: Vec<Vec<Key>> = parts().iter().flatten().map(Request::keys).collect();
    for name in FAILPOINTS {
        for passing in PASSINGS {
            // Given
            let folder = tempfile::tempdir().unwrap();
            let ledger = folder.path().join("ledger.db");
            let mut acknowledged = Acknowledged::default();
            let failpoint = format!("{name}:{passing}");
            // When
            if !dies_at(&failpoint, &ledger, &mut acknowledged) {
                assert_ne!(passing, 1, "{name} was never passed");
                break;
            }
            // Then all is whole,
            assert_whole(&ledger, &mut acknowledged, &requests, &failpoint);
            // and who repeats the work finds done what was done, and does the rest.
            workload(&ledger, false, |lines| {
                lines.lines().filter_map(parse).for_each(|(event, place)| acknowledged.take(event, place));
            });
            assert_eq!(acknowledged.count(), requests.iter().flatten().count(), "{failpoint}");
            assert_whole(&ledger, &mut acknowledged, &requests, &failpoint);
            assert_ends_well(&ledger);
        }
    }
}

#[test]
fn every_failpoint_of_the_source_is_in_the_list() {
    let mut found = Vec::new();
    for crate_name in ["store", "projections"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(crate_name).join("src"), &mut found);
    }
    found.sort();
    let mut listed = FAILPOINTS.map(str::to_owned);
    listed.sort();
    assert_eq!(found, listed);
}

/// The names of the failpoints in the files below a folder.
fn collect(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            let text = std::fs::read_to_string(path).unwrap();
            let names = text.split("failpoint::pass(\"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(names.map(str::to_owned));
        }
    }
}
