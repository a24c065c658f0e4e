//! The lock by which other programs know that a process has the ledger open.
//!
//! POSIX takes every lock on a file from a process that closes any handle of it. An SQLite (3.40 was seen to) that then closes
//! the file takes itself for the last one, and removes the write-ahead log under the process that writes to it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::os::unix::fs::MetadataExt;

use support::{Place, append_one, prompt};

/// Whether this process holds a lock on the ledger, as the kernel has it.
fn is_locked(place: &Place) -> bool {
    let inode = format!(":{}", std::fs::metadata(place.path()).unwrap().ino());
    let process = std::process::id().to_string();
    std::fs::read_to_string("/proc/locks").unwrap().lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.contains(&process.as_str()) && fields.iter().any(|field| field.ends_with(&inode))
    })
}

#[test]
fn opening_the_ledger_once_more_keeps_the_lock_of_the_process_that_has_it_open() {
    let place = Place::new();
    let log = place.log();
    append_one(&log, "run/1", prompt("first", "x"));
    assert!(is_locked(&place));

    let reader = place.reader();
    assert!(is_locked(&place), "behind another reader");
    drop(reader);
    assert!(is_locked(&place), "behind its end");
    drop(place.log());
    assert!(is_locked(&place), "behind another writer");
    place.verify();
    assert!(is_locked(&place), "behind a check");

    drop(log);
    assert!(!is_locked(&place), "the look sees it where there is none");
}
