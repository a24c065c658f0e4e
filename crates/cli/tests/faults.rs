//! Faults around the program: many processes at once, a clock that goes back, a folder that cannot be written. In each: a
//! clear error or none, no damage, and the work goes on when the fault is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Room, Running, run, run_with_input, text};

fn line(id: &str, timestamp: i64) -> String {
    json!({"id": id, "timestamp": timestamp, "kind": "user.prompt", "data": {"prompt": "x"}}).to_string() + "\n"
}

/// `ingest` of these lines into the session `s`.
fn ingest(room: &Room, lines: &str) -> support::Ran {
    run_with_input(&mut room.command(["ingest", "--format", "runtime", "--session", "s", "--ack", "--json"]), lines)
}

#[test]
fn sixteen_processes_that_append_at_once_lose_and_double_nothing() {
    // Given a ledger that each of them may have to make
    let room = Room::new();
    let ids: Vec<Vec<String>> =
        (0..16).map(|process| (0..60).map(|number| format!("{process}-{number}")).collect()).collect();
    // When
    let acknowledged: Vec<(String, u64)> = std::thread::scope(|scope| {
        let append = |ids: &Vec<String>| {
            let lines: String = ids.iter().map(|id| line(id, 1)).collect();
            let mut ran = ingest(&room, &lines);
            // One that was shut out says so in words, and may try again.
            while ran.code != Some(0) {
                assert!(ran.stderr().contains("another process is writing"), "{ran:?}");
                ran = ingest(&room, &lines);
            }
            let acknowledgements = ran.json().into_iter().filter(|line| line["position"].is_u64());
            let place = |line: &Value| {
                let at = usize::try_from(line["line"].as_u64().unwrap()).unwrap() - 1;
                (ids[at].clone(), line["position"].as_u64().unwrap())
            };
            acknowledgements.map(|line| place(&line)).collect::<Vec<_>>()
        };
        let threads: Vec<_> = ids.iter().map(|ids| scope.spawn(move || append(ids))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    // Then
    let events = room.events();
    assert_eq!(events.len(), 16 * 60);
    assert_eq!(acknowledged.len(), events.len());
    let position = |event: &Value| (text(event, "/id").to_owned(), event["position"].as_u64().unwrap());
    let stands: HashMap<String, u64> = events.iter().map(position).collect();
    assert!(acknowledged.iter().all(|(id, position)| stands[id] == *position), "each stands where it was said to");
    assert!(events.iter().zip(1..).all(|(event, expected)| event["position"] == expected));
    room.verify();
}

#[test]
fn rebuilds_in_several_processes_beside_one_that_appends_all_succeed() {
    // Given
    let room = Room::new();
    for n in 0..3 {
        assert_eq!(run(&mut room.exec(&["--session", &format!("s{n}")], "echo words")).code, Some(0));
    }
    // When
    let rebuilds: Vec<Running> =
        (0..3).map(|_| Running::start(&mut room.command(["rebuild-projections", "--verify"]))).collect();
    let lines: String = (0..300).map(|n| line(&format!("e{n}"), n)).collect();
    assert_eq!(ingest(&room, &lines).code, Some(0));
    // Then each one verified what it had built,
    for rebuild in rebuilds {
        let ran = rebuild.wait();
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    // and what came meanwhile is shown too.
    room.ok(["rebuild-projections", "--verify"]);
    assert_eq!(room.json(["runs"]).len(), 3);
}

#[test]
fn a_clock_that_goes_back_changes_no_order() {
    // Given events that occur earlier and earlier, before 1970 too
    let room = Room::new();
    let lines: String = (0..50).map(|n| line(&format!("e{n}"), 1000 - n * 100)).collect();
    assert_eq!(ingest(&room, &lines).code, Some(0));
    // and a copy in whose log the wall clock stood earlier at each append.
    let export = room.ok(["export"]);
    let earlier = |(n, line): (i64, &str)| {
        let recorded_at = serde_json::from_str::<Value>(line).unwrap()["recorded_at"].as_i64().unwrap();
        let line =
            line.replace(&format!("\"recorded_at\":{recorded_at}"), &format!("\"recorded_at\":{}", 5000 - n * 100));
        assert!(line.contains(&(5000 - n * 100).to_string()));
        line + "\n"
    };
    let back: String = (0..).zip(export.lines()).map(earlier).collect();
    let copy = Room::new();
    let ran = run_with_input(&mut copy.command(["ingest", "--format", "runtime"]), back);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // When the clock is right again
    for room in [&room, &copy] {
        assert_eq!(ingest(room, &line("last", 7)).code, Some(0));
        // Then the order is that of the appends,
        let ids: Vec<String> = room.events().iter().map(|event| text(event, "/id").to_owned()).collect();
        let expected: Vec<String> = (0..50).map(|n| format!("e{n}")).chain(["last".to_owned()]).collect();
        assert_eq!(ids, expected);
        // and log and read models are whole.
        room.verify();
        room.ok(["rebuild-projections", "--verify"]);
    }
    assert_eq!(copy.events()[49]["recorded_at"], 100);
}

/// What a process of somebody else runs: modes do not hold for root.
fn as_nobody(command: &mut Command) -> &mut Command {
    const NOBODY: u32 = 65534;
    if rustix::process::geteuid().is_root() { command.uid(NOBODY).gid(NOBODY) } else { command }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_that_cannot_be_written_is_named_and_reading_works_or_says_why() {
    // Given a ledger, in a folder and files that may only be read, by a program that others may run
    let room = Room::new();
    assert_eq!(ingest(&room, &line("e1", 1)).code, Some(0));
    room.ok(["sessions"]);
    let program = room.path("bin/runledger");
    std::fs::copy(env!("CARGO_BIN_EXE_runledger"), &program).unwrap();
    for path in [room.path(""), room.path("bin"), program.clone(), room.path("project"), room.path("home")] {
        set_mode(&path, 0o755);
    }
    let state = room.path("state");
    let files = || std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    files().for_each(|file| set_mode(&file, 0o444));
    set_mode(&state, 0o555);
    let bytes = || -> Vec<_> {
        let mut all: Vec<_> = files().map(|file| (std::fs::read(&file).unwrap(), file)).collect();
        all.sort();
        all
    };
    let before = bytes();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.env_clear().env("HOME", room.path("home")).current_dir(room.project());
        command.arg("--db").arg(room.ledger()).args(arguments);
        as_nobody(&mut command);
        command
    };
    // When somebody writes
    let arguments = ["ingest", "--format", "runtime", "--session", "s"];
    let ran = run_with_input(&mut command(&arguments), line("e2", 2));
    // Then it is refused in words that name the ledger,
    assert!(
        ran.code == Some(3) && ran.stderr().contains("ledger.db") && ran.stderr().contains("permissions"),
        "{ran:?}"
    );
    // what only reads the log reads it,
    let ran = run(&mut command(&["events", "--json"]));
    assert!(ran.code == Some(0) && ran.json().len() == 1, "{ran:?}");
    // nothing was changed,
    assert!(bytes() == before);
    // and when the fault is gone the work goes on.
    set_mode(&state, 0o755);
    files().for_each(|file| set_mode(&file, 0o644));
    assert_eq!(ingest(&room, &line("e2", 2)).code, Some(0));
    room.verify();
}
