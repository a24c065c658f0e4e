//! `kill -9` at any moment: whatever was acknowledged is there exactly once, and the log is whole.
//!
//! The child is this same test program, run with an environment variable. It appends from several threads and prints
//! each acknowledged position; the parent reads along and kills it after a seeded number of lines and steps. What was
//! printed to the end decides what has to be there, so the clock does not matter.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use runledger_events::{Position, RecordedEvent, StreamName};
use runledger_store::{
    EventLog, ExpectedVersion, LogReader, OpenError, OpenOptions, SqliteLog, StreamAppend, SyncMode,
};
use support::{Place, all, append_one, assert_dense, assert_verifies, prompt, stream};

const CHILD: &str = "RUNLEDGER_CRASH_CHILD";
const CHILD_TEST: &str = "as_a_child_it_appends_until_it_is_killed";
const ROUNDS: u64 = 15;
/// Rounds behind those, in which the children do not wait for the disk: what outlives them is the same.
const NORMAL_ROUNDS: u64 = 5;
const THREADS: u64 = 4;
/// What a child appends at the most, so that one that is not killed ends too.
const APPENDS_MAX: u64 = 5000;

/// Numbers from a seed (SplitMix64), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Does nothing unless it is run as the child: `RUNLEDGER_CRASH_CHILD` holds the round and the ledger's path.
#[test]
fn as_a_child_it_appends_until_it_is_killed() {
    let Ok(task) = std::env::var(CHILD) else {
        return;
    };
    let (round, path) = task.split_once(' ').unwrap();
    let sync = if round.parse::<u64>().unwrap() < ROUNDS { SyncMode::Full } else { SyncMode::Normal };
    let log = SqliteLog::open_with(path, &OpenOptions { sync, ..OpenOptions::default() }).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                for n in 0..APPENDS_MAX {
                    let id = |part: &str| format!("{round}-{thread}-{n}{part}");
                    // Small ones, large ones, and some of two streams at once.
                    let text = "x".repeat(if n % 7 == 3 { 40_000 } else { 10 });
                    let own = StreamAppend {
                        stream: stream(&format!("run/{round}-{thread}")),
                        expected: ExpectedVersion::Any,
                        events: vec![prompt(&id("a"), &text), prompt(&id("b"), "y")],
                    };
                    let shared = StreamAppend {
                        stream: stream("session/shared"),
                        expected: ExpectedVersion::Any,
                        events: vec![prompt(&id("c"), "z")],
                    };
                    let receipts = log.append_all(vec![own, shared]).unwrap();
                    let mut line = String::new();
                    for receipt in receipts {
                        line.push_str(&format!("ack {} {}\n", receipt.position, receipt.event_id));
                    }
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

/// Runs a child on the ledger and kills it; returns what it had acknowledged.
fn appended_until_killed(place: &Place, round: u64, random: &mut Random) -> Vec<(Position, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([CHILD_TEST, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{round} {}", place.path().display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    let mut left = random.below(120);
    let mut line = String::new();
    // Now and then it is killed before anything was acknowledged, while it makes or opens the ledger.
    let mut is_killed = false;
    loop {
        if left == 0 && !is_killed {
            // A few more steps, so that it dies anywhere between two acknowledgements.
            (0..random.below(2_000_000)).for_each(|step| {
                std::hint::black_box(step);
            });
            child.kill().unwrap();
            is_killed = true;
        }
        line.clear();
        if lines.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        // The test program's own words may stand before the first one on its line.
        if let Some((_, acknowledgement)) = line.trim_end().rsplit_once("ack ") {
            let (position, id) = acknowledgement.split_once(' ').unwrap();
            acknowledged.push((Position(position.parse().unwrap()), id.to_owned()));
            left = left.saturating_sub(1);
        }
    }
    let status = child.wait().unwrap();
    assert!(is_killed, "the child ended by itself: {status}");
    acknowledged
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    // Given
    let place = Place::new();
    let mut random = Random(0x5eed);
    let mut acknowledged = HashMap::new();
    for round in 0..ROUNDS + NORMAL_ROUNDS {
        // When
        for (position, id) in appended_until_killed(&place, round, &mut random) {
            assert_eq!(acknowledged.insert(position, id), None, "position {position} was acknowledged twice");
        }
        // Then a writer opens it and goes on,
        let log = place.log();
        append_one(&log, "session/shared", prompt(&format!("after-{round}"), "x"));
        let reader = place.reader();
        assert_verifies(&reader);
        let events = all(&reader);
        assert_dense(&events);
        // every acknowledged event stands where it was said to, once,
        let mut count = HashMap::<(&StreamName, &str), u32>::new();
        for event in &events {
            *count.entry((&event.stream, event.id.as_str())).or_default() += 1;
        }
        assert!(count.values().all(|count| *count == 1));
        for (position, id) in &acknowledged {
            let event: &RecordedEvent = &events[usize::try_from(position.0).unwrap() - 1];
            assert_eq!(event.id.as_str(), id, "at position {position}");
        }
        // and of the others, each append is there as a whole or not at all.
        let has = |id: &str| events.iter().filter(|event| event.id.as_str() == id).count();
        for event in events.iter().filter(|event| event.id.as_str().ends_with('a')) {
            let base = event.id.as_str().trim_end_matches('a');
            assert_eq!((has(&format!("{base}b")), has(&format!("{base}c"))), (1, 1), "{base}");
        }
    }
    assert!(acknowledged.len() > 100, "only {} acknowledgements", acknowledged.len());
}

/// Whoever makes a ledger turns write-ahead logging on first, in a transaction with a rollback journal.
#[test]
fn a_ledger_whose_making_was_cut_off_in_its_first_transaction_is_made_by_the_next_writer() {
    for is_first_page_whole in [true, false] {
        // Given
        let place = Place::new();
        place.sqlite().pragma_update(None, "journal_mode", "WAL").unwrap();
        if !is_first_page_whole {
            std::fs::write(place.path(), [0; 4096]).unwrap();
        }
        let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        // No pages in it, a nonce, no pages to go back to, bytes of a sector, bytes of a page.
        [0u32, 7, 0, 512, 4096].iter().for_each(|field| journal.extend(field.to_be_bytes()));
        journal.resize(512, 0);
        std::fs::write(place.folder().join("ledger.db-journal"), journal).unwrap();
        // When a reader comes, then there is no ledger yet;
        let error = LogReader::open(place.path()).unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }), "{error}");
        // a writer makes it.
        append_one(&place.log(), "session/s1", prompt("e1", "x"));
        assert_eq!(assert_verifies(&place.reader()).events, 1);
    }
}
