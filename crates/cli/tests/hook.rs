//! `hook`: nothing is lost, nothing doubled and the order kept, whatever is done to the ledger meanwhile; and it never
//! breaks the agent.
//!
//! Tests may run as root, whom no permission bits stop, so what cannot be written is shown otherwise: by something else
//! in a file's place, and by a limit on the size of files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use support::{Ran, Room, append, run, run_with_input, text, wait_until};

/// A payload of a session, with a number to know it by.
fn prompt(session: &str, number: usize) -> String {
    json!({"session_id": session, "hook_event_name": "UserPromptSubmit", "cwd": "/", "prompt_id": "p",
        "prompt": number.to_string()})
    .to_string()
}

/// Runs the hook; it has to exit with 0 and say nothing on standard output.
fn hook(room: &Room, payload: &str) -> Ran {
    hook_with(&mut room.command(["hook"]), payload)
}

fn hook_with(command: &mut Command, payload: impl AsRef<[u8]>) -> Ran {
    let ran = run_with_input(command, payload);
    assert_eq!((ran.code, ran.stdout().as_str()), (Some(0), ""), "{ran:?}");
    ran
}

/// The hook with nothing to complain about.
fn quiet(room: &Room, payload: &str) {
    let ran = hook(room, payload);
    assert_eq!(ran.stderr(), "", "{ran:?}");
}

/// The one line on standard error.
fn complaint(ran: &Ran) -> String {
    let stderr = ran.stderr();
    assert_eq!(stderr.lines().count(), 1, "one line: {ran:?}");
    assert!(stderr.starts_with("runledger: "), "{ran:?}");
    stderr.trim_end().to_owned()
}

fn beside(room: &Room) -> PathBuf {
    room.path("state/.ledger.db.spool")
}

/// The one spool that is not beside the ledger.
fn elsewhere(room: &Room) -> PathBuf {
    let mut folders = std::fs::read_dir(room.path("home/.local/state/runledger-spool")).unwrap();
    let folder = folders.next().unwrap().unwrap().path();
    assert!(folders.next().is_none());
    folder
}

/// The numbers of a session's prompts, in the order of the log.
fn numbers(room: &Room, session: &str) -> Vec<usize> {
    let events = room.json(["events", "--session", session]);
    events.iter().map(|event| text(&event["event"], "/data/prompt").parse().unwrap()).collect()
}

/// Makes a ledger with the first prompts of a session in it.
fn room_with(count: usize) -> Room {
    let room = Room::new();
    for number in 0..count {
        quiet(&room, &prompt("s", number));
    }
    room
}

/// The payloads that a client gave its hooks in a recorded case, word for word.
fn recorded(shared: &Path, case: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        data: Box<RawValue>,
    }
    let lines = std::fs::read_to_string(shared.join(format!("{case}.hooks.jsonl"))).unwrap();
    lines.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().data.get().to_owned()).collect()
}

/// The payloads of eight processes: each a recorded case as a session of its own, then prompts of one they all share.
fn work_of_eight() -> Option<Vec<Vec<(String, String)>>> {
    let shared = runledger_testkit::shared("real")?;
    let (claude, codex) = (shared.join("claude-code-2.1.330"), shared.join("codex-0.169.0"));
    let cases = [(&claude, "plain"), (&claude, "tools"), (&claude, "sub"), (&codex, "tools")];
    let work = |at: usize| {
        let (folder, case) = cases[at % cases.len()];
        let own = format!("own-{at}");
        let of_case = recorded(folder, case).into_iter().map(|payload| {
            let session = serde_json::from_str::<Value>(&payload).unwrap()["session_id"].as_str().unwrap().to_owned();
            (own.clone(), payload.replace(&session, &own))
        });
        let common = (0..40).map(|number| ("common".to_owned(), prompt("common", at * 1000 + number)));
        // Each process has about as much to do, so that they are all at it to the end.
        of_case.take(30).chain(common).collect()
    };
    Some((0..8).map(work).collect())
}

/// What is done to the ledger while hooks run, in turn; each is undone by what it gives back.
type Disturbance = fn(&Room) -> Box<dyn FnOnce() + '_>;

fn rename(from: PathBuf, to: PathBuf) {
    std::fs::rename(&from, &to).unwrap_or_else(|error| panic!("{} to {}: {error}", from.display(), to.display()));
}

fn folder_moved(room: &Room) -> Box<dyn FnOnce() + '_> {
    rename(room.path("state"), room.path("away"));
    Box::new(|| rename(room.path("away"), room.path("state")))
}

fn file_moved(room: &Room) -> Box<dyn FnOnce() + '_> {
    rename(room.ledger(), room.path("ledger.away"));
    Box::new(|| rename(room.path("ledger.away"), room.ledger()))
}

/// As `mv ledger.db*` does it, one file after the other.
fn files_moved(room: &Room) -> Box<dyn FnOnce() + '_> {
    let names = ["ledger.db", "ledger.db-shm", "ledger.db-wal"];
    std::fs::create_dir_all(room.path("elsewhere")).unwrap();
    let pairs = move || names.map(|name| (room.path("state").join(name), room.path("elsewhere").join(name)));
    pairs().into_iter().for_each(|(here, there)| rename(here, there));
    Box::new(move || pairs().into_iter().for_each(|(here, there)| rename(there, here)))
}

fn locked(room: &Room) -> Box<dyn FnOnce() + '_> {
    let holder = room.sqlite();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    Box::new(move || holder.execute_batch("ROLLBACK").unwrap())
}

/// A folder in the ledger's place: neither root nor anybody else can write to that.
fn unwritable(room: &Room) -> Box<dyn FnOnce() + '_> {
    rename(room.ledger(), room.path("ledger.away"));
    std::fs::create_dir(room.ledger()).unwrap();
    Box::new(|| {
        std::fs::remove_dir(room.ledger()).unwrap();
        rename(room.path("ledger.away"), room.ledger());
    })
}

#[test]
fn eight_processes_lose_and_double_nothing_while_the_ledger_is_taken_away_and_given_back() {
    let Some(work) = work_of_eight() else {
        return;
    };
    let room = room_with(1);
    let total: usize = work.iter().map(Vec::len).sum();
    let done = AtomicUsize::new(0);
    let faults = AtomicUsize::new(0);
    let (room_ref, done_ref, faults_ref) = (&room, &done, &faults);
    std::thread::scope(|scope| {
        for payloads in &work {
            scope.spawn(move || {
                for (_, payload) in payloads {
                    let ran = hook(room_ref, payload);
                    assert!(!ran.stderr().contains("lost"), "{ran:?}");
                    faults_ref.fetch_add(usize::from(!ran.stderr().is_empty()), Ordering::SeqCst);
                    done_ref.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Each disturbance begins and ends after so many hooks, so that the clock does not matter.
        let wait_for_hooks = |count: usize| {
            let until = (done.load(Ordering::SeqCst) + count).min(total);
            wait_until("hooks", || done.load(Ordering::SeqCst) >= until);
        };
        let disturbances: [Disturbance; 8] =
            [folder_moved, locked, file_moved, folder_moved, unwritable, files_moved, locked, folder_moved];
        for disturb in disturbances {
            wait_for_hooks(17);
            let undo = disturb(&room);
            wait_for_hooks(17);
            assert!(done.load(Ordering::SeqCst) < total, "the hooks were done before the ledger was back");
            undo();
        }
    });
    assert!(faults.load(Ordering::SeqCst) > 20, "the ledger was away for {} hooks only", faults.into_inner());
    assert_all_is_there(&room, &work);
    room.verify();
}

fn assert_same(found: &[Value], given: &[Value], what: &str) {
    let names = |payloads: &[Value]| -> Vec<String> {
        payloads.iter().map(|payload| format!("{} {}", payload["hook_event_name"], payload["prompt"])).collect()
    };
    assert!(found == given, "{what}: found {:#?}\ngiven {:#?}", names(found), names(given));
}

/// Reads once, then compares the log with what the hooks were given.
fn assert_all_is_there(room: &Room, work: &[Vec<(String, String)>]) {
    let events = room.events();
    let ids: HashSet<&str> = events.iter().map(|event| text(&event["event"], "/id")).collect();
    assert_eq!(ids.len(), events.len(), "ids are unique");
    assert_eq!(events.len(), 1 + work.iter().map(Vec::len).sum::<usize>());

    let mut found: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in &events {
        found.entry(text(event, "/stream")).or_default().push(&event["event"]["payload"]);
    }
    for (at, payloads) in work.iter().enumerate() {
        let given = |session: &str| -> Vec<Value> {
            let given = payloads.iter().filter(|(found, _)| found == session);
            given.map(|(_, payload)| serde_json::from_str(payload).unwrap()).collect()
        };
        let own = format!("own-{at}");
        let own_found: Vec<Value> =
            found[format!("session/{own}").as_str()].iter().map(|&found| found.clone()).collect();
        assert_same(&own_found, &given(&own), &format!("session {own}"));
        // In the shared session each process's payloads keep their order among the others'.
        let number = |payload: &Value| text(payload, "/prompt").parse::<usize>().unwrap();
        let of_this = |payload: &&&Value| number(payload) / 1000 == at;
        let common: Vec<Value> = found["session/common"].iter().filter(of_this).map(|&found| found.clone()).collect();
        assert_same(&common, &given("common"), &format!("process {at} in the shared session"));
    }
}

#[test]
fn the_first_hook_makes_the_ledger_privately_and_writes_no_read_models() {
    let room = Room::new();
    let mut command = room.command(["hook"]);
    command.env("CLAUDE_CODE_MESSAGING_TOKEN", "a-secret-value").env("CLAUDE_PROJECT_DIR", "/srv/a-private-value");
    let ran = hook_with(&mut command, prompt("s", 0));
    assert_eq!(ran.stderr(), "");
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(room.path("state")), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(room.path("state")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for secret in [b"a-secret-value".as_slice(), b"a-private-value"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        assert_eq!(mode(path), 0o600);
    }
    names.sort();
    assert_eq!(names, ["ledger.db", "ledger.db-shm", "ledger.db-wal"]);
    assert_eq!(numbers(&room, "s"), [0]);
}

#[test]
fn the_environment_names_session_and_run() {
    let room = Room::new();
    let run_id = "0199a2f0-0000-7000-8000-000000000001";
    let mut command = room.command(["hook"]);
    hook_with(command.env("RUNLEDGER_SESSION", "mine").env("RUNLEDGER_RUN_ID", run_id), prompt("a1", 1));
    let mut command = room.command(["hook"]);
    hook_with(command.env("RUNLEDGER_SESSION", "").env("RUNLEDGER_RUN_ID", ""), prompt("a1", 2));
    let events = room.events();
    assert_eq!(text(&events[0], "/stream"), "session/mine");
    assert_eq!(text(&events[0]["event"], "/sessionId"), "a1");
    assert!(text(&events[0]["event"], "/id").starts_with("hook:"));
    assert_eq!(text(&events[1], "/stream"), "session/a1");
    let reader = room.reader();
    let filter = runledger_store::EventFilter {
        run: Some(runledger_events::RunId::new(run_id).unwrap()),
        ..runledger_store::EventFilter::default()
    };
    let head = reader.head().unwrap().position;
    let of_run = reader.read(&filter, Default::default(), head, 10, runledger_store::Read::Facts).unwrap().events;
    assert_eq!(of_run.len(), 1);
}

/// What is done to the ledger, and a part of what the hook says to it.
const FAULTS: [(Disturbance, &str); 5] = [
    (locked, "another process is writing"),
    (folder_moved, "the ledger is gone from its place"),
    (file_moved, "the ledger is gone from its place"),
    (files_moved, "the ledger is gone from its place"),
    (unwritable, "this is no ledger"),
];

#[test]
fn a_payload_that_the_ledger_cannot_take_waits_and_keeps_its_place() {
    for (fault, words) in FAULTS {
        let room = room_with(1);
        let undo = fault(&room);
        for number in 1..4 {
            let said = complaint(&hook(&room, &prompt("s", number)));
            assert!(said.contains(words) && said.contains("waits in"), "{said}");
        }
        undo();
        // The next hook takes in what waits before its own, and the one after it finds nothing left.
        quiet(&room, &prompt("s", 4));
        quiet(&room, &prompt("s", 5));
        assert_eq!(numbers(&room, "s"), [0, 1, 2, 3, 4, 5], "{words}");
        room.verify();
    }
}

#[test]
fn a_damaged_ledger_and_one_of_a_newer_program_are_left_as_they_are() {
    let room = room_with(1);
    let version: i64 = room.sqlite().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    room.sqlite().execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA user_version = 99").unwrap();
    let said = complaint(&hook(&room, &prompt("s", 1)));
    assert!(said.contains("newer than") && said.contains("waits in"), "{said}");
    let ran = room.run(["events"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    room.sqlite().execute_batch(&format!("PRAGMA user_version = {version}")).unwrap();
    assert_eq!(numbers(&room, "s"), [0, 1]);

    let whole = std::fs::read(room.ledger()).unwrap();
    let mut damaged = whole.clone();
    damaged[..16].fill(0);
    std::fs::write(room.ledger(), &damaged).unwrap();
    let said = complaint(&hook(&room, &prompt("s", 2)));
    assert!(said.contains("no database") && said.contains("waits in"), "{said}");
    assert_eq!(std::fs::read(room.ledger()).unwrap(), damaged);
    std::fs::write(room.ledger(), &whole).unwrap();
    assert_eq!(numbers(&room, "s"), [0, 1, 2]);
}

/// The hook under a limit on the size of files, which stands for a full disk: what goes beyond it fails, for root too.
fn hook_on_a_full_disk(room: &Room, blocks: u32, payload: &str) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]);
    command.arg(env!("CARGO_BIN_EXE_runledger")).arg("--db").arg(room.ledger()).arg("hook");
    command.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", room.path("home"));
    hook_with(&mut command, payload)
}

#[test]
fn on_a_full_disk_the_payload_waits_or_is_said_to_be_lost() {
    let room = room_with(1);
    // A write-ahead log that ends far beyond the limit, which every small file keeps.
    append(
        &room.log(),
        "session/s",
        &json!({"kind": "user.prompt", "data": {"prompt": "0".repeat(1 << 20)}}).to_string(),
    );
    let said = complaint(&hook_on_a_full_disk(&room, 200, &prompt("s", 1)));
    assert!(said.contains("waits in"), "{said}");
    let said = complaint(&hook_on_a_full_disk(&room, 0, &prompt("s", 2)));
    assert!(said.contains("user.prompt of session s is lost"), "{said}");
    assert_eq!(numbers(&room, "s"), [0, 0, 1]);
    room.verify();
}

#[test]
fn where_nothing_can_be_written_the_loss_is_said() {
    let room = Room::new();
    room.write("file", "a file where the ledger's folder should be");
    let mut command = room.command_on(&room.path("file/ledger.db"), ["hook"]);
    let said = complaint(&hook_with(command.env_remove("HOME"), prompt("s", 1)));
    assert!(said.contains("user.prompt of session s is lost"), "{said}");
    // No home, and no name for the ledger either.
    let mut command = room.bare_command();
    let said = complaint(&hook_with(command.arg("hook").env_remove("HOME"), prompt("s", 1)));
    assert!(said.contains("the payload is lost"), "{said}");
    // With a home it waits there, for whoever reads that ledger once it can be made.
    let ledger = room.path("file/ledger.db");
    let said = complaint(&hook_with(&mut room.command_on(&ledger, ["hook"]), prompt("s", 1)));
    assert!(said.contains("home/.local/state/runledger-spool"), "{said}");
    std::fs::remove_file(room.path("file")).unwrap();
    let ran = run(&mut room.command_on(&ledger, ["events"]));
    assert_eq!((ran.code, ran.stdout().lines().count()), (Some(0), 1), "{ran:?}");
}

#[test]
fn a_spool_that_cannot_stand_beside_the_ledger_stands_elsewhere() {
    let room = room_with(1);
    room.write("state/.ledger.db.spool", "a file in its place");
    let undo = locked(&room);
    let said = complaint(&hook(&room, &prompt("s", 1)));
    assert!(said.contains("runledger-spool"), "{said}");
    undo();
    assert_eq!(numbers(&room, "s"), [0, 1]);
}

#[test]
fn two_spools_are_taken_in_by_the_order_of_arrival() {
    let room = room_with(1);
    let undo = locked(&room);
    complaint(&hook(&room, &prompt("s", 1)));
    undo();
    let undo = folder_moved(&room);
    complaint(&hook(&room, &prompt("s", 2)));
    undo();
    let undo = locked(&room);
    complaint(&hook(&room, &prompt("s", 3)));
    undo();
    assert!(beside(&room).join("entries").exists() && elsewhere(&room).join("entries").exists());
    assert_eq!(numbers(&room, "s"), [0, 1, 2, 3]);
    assert!(!beside(&room).join("entries").exists() && !elsewhere(&room).join("entries").exists());
}

#[test]
fn every_command_takes_the_spool_in_before_its_own_work() {
    let commands: [&[&str]; 7] = [
        &["runs"],
        &["sessions"],
        &["status"],
        &["verify"],
        &["export"],
        &["rebuild-projections"],
        &["ingest", "--format", "runtime"],
    ];
    for command in commands {
        let room = room_with(1);
        let undo = locked(&room);
        complaint(&hook(&room, &prompt("s", 1)));
        undo();
        let own = r#"{"id":"e1","kind":"user.prompt","sessionId":"s","data":{"prompt":"2"}}"#;
        let ran = run_with_input(&mut room.command(command), if command[0] == "ingest" { own } else { "" });
        assert_eq!(ran.code, Some(0), "{command:?}: {ran:?}");
        assert!(!ran.stderr().contains("warning"), "{command:?}: {ran:?}");
        assert_eq!(room.reader().head().unwrap().position.0, if command[0] == "ingest" { 3 } else { 2 }, "{command:?}");
        assert!(numbers(&room, "s").is_sorted());
    }
    let room = room_with(1);
    let undo = locked(&room);
    complaint(&hook(&room, &prompt("s", 1)));
    undo();
    assert_eq!(run(&mut room.exec(&["--session", "s"], "true")).code, Some(0));
    assert_eq!(text(&room.events()[1]["event"], "/data/prompt"), "1");
}

#[test]
fn a_process_that_takes_in_is_not_waited_for() {
    let room = room_with(1);
    let undo = locked(&room);
    complaint(&hook(&room, &prompt("s", 1)));
    undo();
    let taker = std::fs::File::options().create(true).append(true).open(beside(&room).join("take-lock")).unwrap();
    taker.lock().unwrap();
    quiet(&room, &prompt("s", 2));
    assert_eq!(room.reader().head().unwrap().position.0, 1);
    // Not by closing it: a process that another test is just starting may have it open for a moment.
    taker.unlock().unwrap();
    quiet(&room, &prompt("s", 3));
    assert_eq!(room.reader().head().unwrap().position.0, 4);
    assert_eq!(numbers(&room, "s"), [0, 1, 2, 3]);
}

#[test]
fn a_taker_that_was_killed_before_it_removed_what_it_had_appended_doubles_nothing() {
    let room = room_with(1);
    let undo = locked(&room);
    complaint(&hook(&room, &prompt("s", 1)));
    complaint(&hook(&room, &prompt("s", 2)));
    undo();
    let entries = std::fs::read(beside(&room).join("entries")).unwrap();
    assert_eq!(numbers(&room, "s"), [0, 1, 2]);
    // As the killed one would have left it: under its number, and complete.
    std::fs::write(beside(&room).join("00000001"), entries).unwrap();
    quiet(&room, &prompt("s", 3));
    assert_eq!(numbers(&room, "s"), [0, 1, 2, 3]);
}

#[test]
fn a_torn_record_costs_itself_alone_and_is_reported() {
    let room = room_with(1);
    let undo = locked(&room);
    for number in 1..4 {
        complaint(&hook(&room, &prompt("s", number)));
    }
    // A hook that is killed in the middle of its line.
    let entries = beside(&room).join("entries");
    let length = std::fs::metadata(&entries).unwrap().len();
    std::fs::File::options().write(true).open(&entries).unwrap().set_len(length - 40).unwrap();
    complaint(&hook(&room, &prompt("s", 4)));
    // And a line that the disk has damaged.
    let mut bytes = std::fs::read(&entries).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&entries, bytes).unwrap();
    undo();

    let ran = room.run(["events", "--json"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr().starts_with("warning: 2 spooled events were torn or refused"), "{ran:?}");
    assert_eq!(numbers(&room, "s"), [0, 2, 4]);
    let rejected = std::fs::read_to_string(beside(&room).join("rejected")).unwrap();
    let reasons: Vec<Value> = rejected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reasons.len(), 2);
    assert!(reasons.iter().all(|line| line["reason"] == "the record is torn"), "{rejected}");
}

#[test]
fn a_full_spool_refuses_the_newest_and_says_so() {
    let room = room_with(1);
    let undo = locked(&room);
    complaint(&hook(&room, &prompt("s", 1)));
    let segment = std::fs::File::create(beside(&room).join("00000001")).unwrap();
    segment.set_len(runledger_store::SPOOL_BYTES_MAX).unwrap();
    let said = complaint(&hook(&room, &prompt("s", 2)));
    assert!(said.contains("is full") && said.contains("user.prompt of session s is lost"), "{said}");
    segment.set_len(0).unwrap();
    undo();
    assert_eq!(numbers(&room, "s"), [0, 1]);
}

#[test]
fn what_is_no_payload_is_kept_where_it_can_be() {
    let room = Room::new();
    let rejected = || {
        let lines = std::fs::read_to_string(beside(&room).join("rejected")).unwrap_or_default();
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    std::fs::create_dir(room.path("state")).unwrap();
    for (payload, words) in [
        ("no JSON", "no JSON object"),
        ("[1]", "no JSON object"),
        (r#"{"hook_event_name":"Stop"}"#, "no `session_id`"),
        (r#"{"hook_event_name":"Stop","session_id":7}"#, "no `session_id`"),
    ] {
        let said = complaint(&hook(&room, payload));
        assert!(said.contains(words) && said.contains("rejected"), "{said}");
        assert_eq!(rejected().last().unwrap()["text"], payload);
    }
    let said = complaint(&hook_with(&mut room.command(["hook"]), b"\xff{}"));
    assert!(said.contains("no UTF-8"), "{said}");
    assert_eq!(rejected().last().unwrap()["hex"], "ff7b7d");
    let said = complaint(&hook(&room, " \n"));
    assert!(said.contains("nothing to record"), "{said}");
    let said = complaint(&hook(&room, &"x".repeat((16 << 20) + 1)));
    assert!(said.contains("too long"), "{said}");
    assert_eq!(rejected().len(), 6);
    assert!(!room.ledger().exists());

    // Where a session is named, the ledger takes it.
    for payload in ["no JSON", r#"{"hook_event_name":"Stop"}"#] {
        let mut command = room.command(["hook"]);
        assert_eq!(hook_with(command.env("RUNLEDGER_SESSION", "mine"), payload).stderr(), "");
    }
    let events = room.events();
    assert_eq!(text(&events[0]["event"], "/kind"), "unknown");
    assert_eq!(text(&events[0]["event"], "/payload"), "no JSON");
    assert_eq!(text(&events[1]["event"], "/kind"), "stop.request");
}

#[test]
fn a_command_line_that_is_refused_does_not_block_the_tool() {
    let room = Room::new();
    for arguments in [&["hook", "--unheard-of"][..], &["hook", "answer"], &["--json", "hook", "-x"]] {
        let ran = room.run(arguments);
        assert_eq!((ran.code, ran.stderr().lines().count()), (Some(1), 1), "{ran:?}");
    }
    for arguments in [&["hook", "install", "-x"][..], &["runs", "hook"], &["exec", "--harness", "hook", "-x"]] {
        assert_eq!(room.run(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn a_write_ahead_log_without_its_ledger_is_never_given_a_new_one() {
    let room = room_with(2);
    let undo = file_moved(&room);
    complaint(&hook(&room, &prompt("s", 2)));
    let ran = room.run(["events"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.stderr().starts_with("warning: events of hooks wait in"), "{ran:?}");
    let ran = run_with_input(&mut room.command(["ingest", "--format", "runtime"]), "");
    assert!(ran.is_refused_with(3).contains("-wal is there"), "{ran:?}");
    undo();
    assert_eq!(numbers(&room, "s"), [0, 1, 2]);
}
