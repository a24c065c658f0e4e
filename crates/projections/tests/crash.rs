//! `kill -9` at any moment of a rebuild or of catching up: the old model or the new one is there, and it is whole.
//!
//! The child is this same test program, run with an environment variable. It rebuilds and catches up and prints each
//! step; the parent reads along and kills it after a seeded number of steps, so the clock does not matter.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use runledger_projections::{Projections, RunFilter};
use runledger_testkit::TempLedger;
use support::{
    NAMES, Random, Story, assert_no_leftovers, assert_verifies, caught_up, dump, fresh_dump, open, queries, tell,
};

const CHILD: &str = "RUNLEDGER_CRASH_CHILD";
const CHILD_TEST: &str = "as_a_child_it_rebuilds_until_it_is_killed";
const ROUNDS: u64 = 12;
/// What a child does at the most, so that one that is not killed ends too.
const LOOPS_MAX: usize = 2000;

fn step() {
    std::io::stdout().lock().write_all(b"step\n").unwrap();
}

/// Does nothing unless it is run as the child: `RUNLEDGER_CRASH_CHILD` holds the ledger's path.
#[test]
fn as_a_child_it_rebuilds_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    for _ in 0..LOOPS_MAX {
        let mut projections = Projections::open(&path).unwrap();
        step();
        projections.catch_up().unwrap();
        step();
        for name in NAMES {
            projections.rebuild(name, &mut |_| step()).unwrap();
            step();
        }
    }
}

/// Runs a child on the ledger and kills it; meanwhile the parent appends.
fn rebuilt_until_killed(ledger: &Path, random: &mut Random, mut meanwhile: impl FnMut()) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([CHILD_TEST, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, ledger)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut left = random.below(40);
    let mut line = String::new();
    let mut is_killed = false;
    loop {
        if left == 0 && !is_killed {
            // A few more steps, so that it dies anywhere between two of its own.
            (0..random.below(3_000_000)).for_each(|step| {
                std::hint::black_box(step);
            });
            child.kill().unwrap();
            is_killed = true;
        }
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        if line.trim_end().ends_with("step") && !is_killed {
            left = left.saturating_sub(1);
            meanwhile();
        }
    }
    let status = child.wait().unwrap();
    assert!(is_killed, "the child ended by itself: {status}");
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_model_or_the_new_one_whole() {
    // Given
    let ledger = TempLedger::new();
    let mut random = Random(0x5eed);
    let mut story = Story::default();
    tell(&*ledger.log, &story.mixed(1000, 8, 30));
    let mut runs = 0;
    for round in 0..ROUNDS {
        // Every fourth time there is no file yet.
        if round % 4 == 0 {
            support::files(&ledger.path).iter().for_each(|file| drop(std::fs::remove_file(file)));
        }
        // When
        rebuilt_until_killed(&ledger.path, &mut random, || {
            tell(&*ledger.log, &story.mixed(10, 8, 31));
        });
        // Then what is there is whole, where it stands,
        let mut projections = open(&ledger.path);
        let built = NAMES.iter().all(|name| projections.checkpoint(name).unwrap().is_some());
        assert!(built || round % 4 == 0, "a model is gone after round {round}");
        if built {
            assert_verifies(&mut projections);
            let now = queries(&ledger.path).runs(&RunFilter::default()).unwrap().len();
            assert!(now >= runs, "round {round}: {now} runs, once {runs}");
            runs = now;
        }
        // it catches up,
        projections.catch_up().unwrap();
        assert_verifies(&mut projections);
        assert_eq!(dump(&ledger.path), fresh_dump(&ledger.path), "round {round}");
        // and the next rebuild leaves nothing of the one that died.
        projections.rebuild(NAMES[usize::try_from(round).unwrap() % 3], &mut |_| {}).unwrap();
        assert_no_leftovers(&ledger.path);
    }
}

#[test]
fn a_lock_of_a_process_that_died_keeps_nobody_out() {
    let ledger = TempLedger::new();
    tell(&*ledger.log, &Story::default().mixed(100, 4, 32));
    rebuilt_until_killed(&ledger.path, &mut Random(1), || ());
    for name in NAMES {
        caught_up(&ledger.path).rebuild(name, &mut |_| {}).unwrap();
    }
    assert_no_leftovers(&ledger.path);
}
