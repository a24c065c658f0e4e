//! Bad input: what cannot be used is named in one line, with the documented exit status, and nothing is written; lines
//! that cannot be taken are reported, and the others are kept.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Ran, Room, append, run, run_with_input, text};

const READING: &[&[&str]] = &[
    &["runs"],
    &["runs", "--json"],
    &["show", "0199"],
    &["show", "0199", "--at", "1"],
    &["sessions"],
    &["events"],
    &["events", "--run", "0199"],
    &["events", "--follow"],
    &["verify"],
    &["status"],
    &["rebuild-projections"],
    &["rebuild-projections", "--run", "0199", "--verify"],
    &["export"],
    &["backup", "copy.db"],
];

const WRITING: &[&[&str]] = &[&["exec", "p", "--", "true"], &["ingest", "--format", "runtime"]];

/// A line of `ingest --format runtime`.
fn line(id: &str, text: &str) -> String {
    json!({"id": id, "timestamp": 1, "kind": "user.prompt", "data": {"prompt": text}}).to_string()
}

fn ingest(room: &Room, options: &[&str], input: impl AsRef<[u8]>) -> Ran {
    run_with_input(room.command(["ingest", "--format", "runtime", "--json"]).args(options), input)
}

/// The report of an ingest: appended, duplicates, and (line, reason) of what was rejected.
fn report(ran: &Ran) -> (u64, u64, Vec<(u64, String)>) {
    let report = ran.json().pop().unwrap_or_else(|| panic!("a report: {ran:?}"));
    let rejected = report["rejected"].as_array().unwrap();
    let figure = |name: &str| report[name].as_u64().unwrap();
    let rejected: Vec<_> =
        rejected.iter().map(|one| (one["line"].as_u64().unwrap(), text(one, "/reason").to_owned())).collect();
    assert_eq!(figure("lines"), figure("appended") + figure("duplicates") + rejected.len() as u64, "{report}");
    assert_eq!(ran.code, Some(i32::from(!rejected.is_empty())), "{ran:?}");
    (figure("appended"), figure("duplicates"), rejected)
}

fn ids(room: &Room) -> Vec<String> {
    room.events().iter().map(|event| text(event, "/id").to_owned()).collect()
}

/// Everything in a folder: names, and what is in the files.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap_or_default()))
        .collect();
    found.sort();
    found
}

/// Nothing was written: no ledger, and nothing in the project but what was there.
fn nothing_was_written(room: &Room, project_before: &[(String, Vec<u8>)]) {
    assert!(room.has_no_ledger(), "a ledger was made");
    assert_eq!(contents(&room.project()), project_before);
}

#[test]
fn a_name_that_sqlite_would_take_for_something_else_is_the_file_of_that_name() {
    let room = Room::new();
    let foreign = room.path("other.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    for name in ["file:other.db", ":memory:"] {
        let mut command = room.bare_command();
        command.current_dir(room.path("")).args(["--db", name, "exec", "x", "--", "true"]);
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(room.path(name).is_file(), "{name}");
    }
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
}

#[test]
fn a_missing_ledger_is_named_and_not_made() {
    for arguments in READING {
        let room = Room::new();
        let told = room.run(*arguments).is_refused_with(3);
        assert!(told.contains(&room.ledger().display().to_string()) && told.contains("no ledger"), "{told}");
        assert!(room.has_no_ledger(), "{arguments:?}");
        let told = run(room.bare_command().args(*arguments)).is_refused_with(3);
        assert!(told.contains("home/.local/state/runledger/ledger.db"), "{told}");
        assert!(room.has_no_ledger(), "{arguments:?}");
    }
}

#[test]
fn an_empty_file_is_no_ledger_to_read() {
    for arguments in READING {
        let room = Room::new();
        room.write("state/ledger.db", "");
        room.run(*arguments).is_refused_with(3);
        assert_eq!(contents(&room.path("state")).len(), 1, "{arguments:?}");
    }
}

#[test]
fn without_a_home_the_ledger_has_to_be_named() {
    let room = Room::new();
    let ran = run(room.bare_command().env_remove("HOME").arg("runs"));
    let told = ran.is_refused_with(2);
    assert!(told.contains("--db"), "{told}");
}

#[test]
fn a_ledger_of_a_newer_program_is_not_touched() {
    let room = Room::new();
    assert_eq!(run(&mut room.exec(&[], "true")).code, Some(0));
    room.sqlite().execute_batch("PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    for name in ["-wal", "-shm", ".projections", ".projections-wal", ".projections-shm"] {
        // Not all are there.
        let _ = std::fs::remove_file(room.path(&format!("state/ledger.db{name}")));
    }
    let before = contents(&room.path("state"));
    for arguments in READING.iter().chain(WRITING) {
        let told = room.run(*arguments).is_refused_with(3);
        assert!(told.contains("99") && told.contains("upgrade"), "{told}");
        assert!(contents(&room.path("state")) == before, "{arguments:?} changed something");
    }
}

#[test]
fn read_models_of_a_newer_program_are_not_touched() {
    let room = Room::new();
    let file = "state/ledger.db.projections";
    let cases = ["PRAGMA user_version = 99", "UPDATE checkpoints SET version = 99"];
    for sql in cases {
        let room = Room::new();
        assert_eq!(run(&mut room.exec(&[], "true")).code, Some(0));
        let read_models = rusqlite::Connection::open(room.path(file)).unwrap();
        read_models.execute_batch(&format!("{sql}; PRAGMA wal_checkpoint(TRUNCATE)")).unwrap();
        drop(read_models);
        let before = std::fs::read(room.path(file)).unwrap();
        for arguments in [&["runs"][..], &["sessions"], &["rebuild-projections"]] {
            let told = room.run(arguments).is_refused_with(3);
            assert!(told.contains("upgrade"), "{sql}: {told}");
        }
        assert!(std::fs::read(room.path(file)).unwrap() == before, "{sql}");
    }
    assert!(room.has_no_ledger());
}

#[test]
fn a_text_file_is_no_ledger_and_stays_as_it_is() {
    for content in ["just some notes\n".to_owned(), "x".repeat(5000)] {
        for arguments in READING.iter().chain(WRITING) {
            let room = Room::new();
            room.write("state/ledger.db", &content);
            let before = contents(&room.path("state"));
            let told = room.run(*arguments).is_refused_with(3);
            assert!(told.contains("no ledger"), "{told}");
            assert_eq!(contents(&room.path("state")), before, "{arguments:?}");
        }
    }
}

#[test]
fn somebody_elses_database_is_no_ledger_and_stays_as_it_is() {
    for arguments in READING.iter().chain(WRITING) {
        let room = Room::new();
        std::fs::create_dir(room.path("state")).unwrap();
        room.sqlite().execute_batch("CREATE TABLE cake (layers INTEGER); PRAGMA user_version = 1").unwrap();
        let before = contents(&room.path("state"));
        let told = room.run(*arguments).is_refused_with(3);
        assert!(told.contains("no ledger"), "{told}");
        assert_eq!(contents(&room.path("state")), before, "{arguments:?}");
    }
}

#[test]
fn a_folder_is_no_ledger() {
    for arguments in READING.iter().chain(WRITING) {
        let room = Room::new();
        std::fs::create_dir_all(room.ledger()).unwrap();
        room.run(*arguments).is_refused_with(3);
    }
}

#[test]
fn a_workflow_file_that_cannot_be_used_is_named_and_nothing_is_written() {
    let garbled: [(&str, &[u8]); 7] = [
        ("torn.json", b"{\"name\": \"tidy\", "),
        ("list.json", b"[]"),
        ("nameless.json", b"{}"),
        ("shape.json", b"{\"name\": \"n\", \"loop\": {\"maxIterations\": \"many\"}}"),
        ("negative.json", b"{\"name\": \"n\", \"loop\": {\"maxIterations\": -1}}"),
        ("latin1.json", b"{\"name\": \"caf\xe9\"}"),
        ("empty.json", b""),
    ];
    let room = Room::new();
    for (name, content) in garbled {
        room.write(name, content);
    }
    room.write("long.json", format!("{{\"name\":\"{}\"}}", "n".repeat(1 << 20)));
    std::fs::create_dir(room.path("folder.json")).unwrap();
    let before = contents(&room.project());
    let names = garbled.iter().map(|(name, _)| *name).chain(["folder.json", "missing.json", "long.json"]);
    for name in names {
        let path = room.path(name).display().to_string();
        let told = run(&mut room.exec(&["--workflow", &path], "touch ran")).is_refused_with(3);
        assert!(told.contains(&path), "{told}");
        assert_eq!(told.contains("longer than 1048576 bytes"), name == "long.json", "{told}");
        nothing_was_written(&room, &before);
    }
}

#[test]
fn a_harness_that_is_not_there_is_named_and_nothing_is_written() {
    let room = Room::new();
    room.write("project/plain.txt", "not executable");
    let before = contents(&room.project());
    for program in ["no-such-program", "./no-such-program", "/no/such/program", "./plain.txt", "."] {
        let told = run(room.command(["exec", "p", "--", program]).env_remove("X")).is_refused_with(3);
        assert!(told.contains(program), "{told}");
        nothing_was_written(&room, &before);
    }
}

#[test]
fn a_program_that_cannot_be_run_fails_the_run_and_says_so() {
    let room = Room::new();
    room.program("broken", "true");
    let script = room.write("broken.draft", "#!/no/such/interpreter\n");
    let made = Command::new("install").args(["-m", "755"]).arg(script).arg(room.path("bin/broken")).status();
    assert!(made.unwrap().success());
    let ran = run(&mut room.command(["exec", "p", "--", "broken"]));
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(room.json(["runs"])[0]["status"], "failed");
}

#[test]
fn words_that_do_not_fit_together_are_usage() {
    let room = Room::new();
    let cases: &[&[&str]] = &[
        &["exec", "--harness", "abacus", "p"],
        &["exec", "--harness", "command", "p"],
        &["exec", "--harness", "claude", "p", "--", "true"],
        &["rebuild-projections", "--projection", "no_such_model"],
    ];
    for arguments in cases {
        if arguments[0] == "rebuild-projections" {
            assert_eq!(run(&mut room.exec(&[], "true")).code, Some(0));
        }
        room.run(*arguments).is_refused_with(2);
        assert!(arguments[0] == "rebuild-projections" || room.has_no_ledger(), "{arguments:?}");
    }
    let cases: &[&[&str]] = &[
        &[],
        &["no-such-command"],
        &["exec"],
        &["exec", "--timeout-ms", "soon", "p", "--", "true"],
        &["exec", "p", "q", "--", "true"],
        &["runs", "--status", "sleeping"],
        &["runs", "--limit", "-1"],
        &["show"],
        &["events", "--after", "here"],
        &["ingest"],
        &["ingest", "--format", "smoke-signals"],
        &["runs", "--no-such-option"],
    ];
    for arguments in cases {
        let room = Room::new();
        let ran = room.run(*arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stdout(), "", "{arguments:?}");
        assert!(room.has_no_ledger());
    }
}

#[test]
fn a_session_name_that_is_too_long_is_usage() {
    let room = Room::new();
    let ran = run(&mut room.exec(&["--session", &"s".repeat(2000)], "touch ran"));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    nothing_was_written(&room, &[]);
}

#[test]
fn a_project_that_is_not_there_is_named_and_nothing_is_written() {
    let room = Room::new();
    room.write("file", "");
    for name in ["no-such-folder", "file"] {
        let path = room.path(name).display().to_string();
        let told = run(&mut room.exec(&["--project-dir", &path], "touch ran")).is_refused_with(3);
        assert!(told.contains(&path), "{told}");
        nothing_was_written(&room, &[]);
    }
}

/// Runs a workflow with these fields of the loop; the agent leaves a trace if it ever runs.
fn exec_with(room: &Room, workflow: &Value, options: &[&str]) -> Ran {
    let workflow = room.write("w.json", workflow.to_string()).display().to_string();
    let mut options = options.to_vec();
    options.extend(["--workflow", &workflow]);
    run(&mut room.exec(&options, "touch ran"))
}

#[test]
fn a_tracker_outside_the_project_is_refused_and_nothing_is_written() {
    let room = Room::new();
    let outside = room.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, room.path("project/link")).unwrap();
    std::os::unix::fs::symlink(room.path("nowhere"), room.path("project/dangling")).unwrap();
    let before = contents(&room.project());
    let absolute = outside.join("tracker.md").display().to_string();
    let sneaky = format!("{}/../outside/tracker.md", room.project().display());
    let paths = [
        "../tracker.md",
        "a/../../tracker.md",
        &absolute,
        &sneaky,
        "/etc/runledger-tracker.md",
        "link/tracker.md",
        "dangling",
        "dangling/tracker.md",
        ".",
        "",
    ];
    for path in paths {
        let told = exec_with(&room, &json!({"name": "n", "loop": {"trackerPath": path}}), &[]).is_refused_with(3);
        assert!(told.contains("project directory"), "{path}: {told}");
        nothing_was_written(&room, &before);
        assert_eq!(contents(&outside), [], "{path}");
    }
    // A session's name stands in the default path.
    let told = exec_with(&room, &json!({"name": "n", "loop": {}}), &["--session", "../../outside"]).is_refused_with(3);
    assert!(told.contains("project directory"), "{told}");
    nothing_was_written(&room, &before);
    assert_eq!(contents(&outside), []);
}

#[test]
fn an_absolute_tracker_path_inside_the_project_is_taken() {
    let room = Room::new();
    let path = room.project().canonicalize().unwrap().join("deep/tracker.md");
    let ran = exec_with(&room, &json!({"name": "n", "loop": {"trackerPath": path}}), &[]);
    assert_eq!(ran.code, Some(4), "the agent leaves the tracker as it is: {ran:?}");
    assert!(path.exists());
}

#[test]
fn a_tracker_that_cannot_be_made_is_named_and_nothing_is_written() {
    let room = Room::new();
    room.write("project/file", "");
    let before = contents(&room.project());
    for path in ["file/tracker.md", "file/deep/tracker.md"] {
        exec_with(&room, &json!({"name": "n", "loop": {"trackerPath": path}}), &[]).is_refused_with(3);
        nothing_was_written(&room, &before);
    }
}

#[test]
fn instructions_that_are_outside_the_project_or_cannot_be_read_are_refused_and_nothing_is_written() {
    let room = Room::new();
    room.write("secret.md", "secret");
    room.write("project/latin1.md", b"caf\xe9");
    room.write("project/long.md", "x".repeat((1 << 20) + 1));
    let before = contents(&room.project());
    for path in ["../secret.md", "latin1.md", "long.md"] {
        for loop_config in [Value::Null, json!({"trackerPath": "tracker.md"})] {
            let workflow = json!({"name": "n", "workflowFile": path, "loop": loop_config});
            exec_with(&room, &workflow, &[]).is_refused_with(3);
            nothing_was_written(&room, &before);
        }
    }
}

#[test]
fn composed_instructions_are_not_written_through_a_link_out_of_the_project() {
    let room = Room::new();
    let precious = room.write("precious", "precious");
    room.write("project/rules.md", "rules");
    std::os::unix::fs::symlink(&precious, room.path("project/.composed-system-prompt.md")).unwrap();
    exec_with(&room, &json!({"name": "n", "workflowFile": "rules.md"}), &[]);
    assert_eq!(std::fs::read_to_string(precious).unwrap(), "precious");
}

#[test]
fn a_ledger_whose_folder_cannot_be_made_is_named() {
    let room = Room::new();
    room.write("file", "");
    for arguments in WRITING {
        let told = run(&mut room.command_on(&room.path("file/deep/ledger.db"), *arguments)).is_refused_with(3);
        assert!(told.contains("file"), "{told}");
    }
}

#[test]
fn lines_that_cannot_be_taken_are_reported_and_the_others_kept() {
    let room = Room::new();
    let mut input = Vec::new();
    let lines: [&[u8]; 15] = [
        line("e1", "one").as_bytes(),
        b"{\"id\":\"torn\",\"kind\":\"user.prompt\",\"da",
        b"[1, 2]",
        b"",
        b"   \t",
        b"\"text\"",
        b"{\"id\":\"no-kind\"}",
        b"{\"id\":5,\"kind\":\"user.prompt\"}",
        b"{\"id\":\"when\",\"kind\":\"user.prompt\",\"timestamp\":\"noon\"}",
        b"{\"id\":\"latin1\",\"kind\":\"user.prompt\",\"data\":{\"prompt\":\"caf\xe9\"}}",
        b"{\"id\":\"start\",\"kind\":\"workflow.start\",\"data\":{}}",
        b"{\"kind\":\"\"}",
        b"{\"id\":\"\",\"kind\":\"user.prompt\"}",
        b"{} trailing",
        line("e2", "two").as_bytes(),
    ]
    .map(|line: &[u8]| -> &'static [u8] { Box::leak(line.to_vec().into_boxed_slice()) });
    for line in lines {
        input.extend_from_slice(line);
        input.push(b'\n');
    }
    // The last line lacks its line break, and is taken.
    input.extend_from_slice(line("e3", "three").as_bytes());
    let ran = ingest(&room, &["--session", "s1"], &input);
    let (appended, duplicates, rejected) = report(&ran);
    assert_eq!((appended, duplicates), (3, 0));
    let numbers: Vec<u64> = rejected.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14], "{rejected:?}");
    assert!(rejected.iter().all(|(_, reason)| !reason.is_empty() && !reason.contains('\n')), "{rejected:?}");
    assert_eq!(ran.stderr().lines().count(), rejected.len(), "each is told in a line: {ran:?}");
    assert!(ran.stderr().starts_with("-:2: "), "{ran:?}");
    assert_eq!(ids(&room), ["e1", "e2", "e3"]);
    room.verify();
}

#[test]
fn a_workflow_event_that_is_well_formed_is_refused_too() {
    let room = Room::new();
    assert_eq!(run(&mut room.exec(&["--session", "s1"], "true")).code, Some(0));
    let before = room.json(["runs"]);
    let head = room.events().len();
    let own: String = room
        .events()
        .iter()
        .filter(|event| text(event, "/kind").starts_with("workflow."))
        .map(|event| format!("{}\n", event["event"]))
        .collect();
    let (appended, _, rejected) = report(&ingest(&room, &["--session", "s1"], own));
    assert_eq!((appended, rejected.len()), (0, head));
    assert_eq!(room.json(["runs"]), before);
    assert_eq!(room.events().len(), head);
}

#[test]
fn a_line_that_is_too_long_is_passed_over() {
    let room = Room::new();
    let long = line("long", &"x".repeat(300_000));
    let exact = line("exact", &"y".repeat(500));
    let input = format!("{}\n{long}\n{exact}\n{}\n", line("e1", "one"), line("e2", "two"));
    let bound = exact.len().to_string();
    let ran = ingest(&room, &["--session", "s1", "--line-bytes-max", &bound], &input);
    let (appended, _, rejected) = report(&ran);
    assert_eq!(appended, 3, "a line of exactly {bound} bytes is taken: {rejected:?}");
    assert_eq!(rejected[0].0, 2);
    assert!(rejected[0].1.contains(&bound) && rejected[0].1.contains("--line-bytes-max"), "{rejected:?}");
    assert_eq!(ids(&room), ["e1", "exact", "e2"]);
    // The same with a long line that is the last, and not ended.
    let (appended, duplicates, rejected) =
        report(&ingest(&room, &["--session", "s1", "--line-bytes-max", &bound], &long));
    assert_eq!((appended, duplicates, rejected.len()), (0, 0, 1));
    let (appended, ..) = report(&ingest(&room, &["--session", "s1"], &long));
    assert_eq!(appended, 1, "16 MiB is the bound by default");
}

#[test]
fn a_line_beyond_sixteen_mebibytes_needs_to_be_asked_for() {
    let room = Room::new();
    let huge = line("huge", &"x".repeat(16 << 20));
    let (appended, _, rejected) = report(&ingest(&room, &["--session", "s1"], &huge));
    assert_eq!((appended, rejected.len()), (0, 1));
    let (appended, ..) = report(&ingest(&room, &["--session", "s1", "--line-bytes-max", "20000000"], &huge));
    assert_eq!(appended, 1);
    room.verify();
}

#[test]
fn several_files_are_taken_in_order_and_each_complaint_names_its_own() {
    let room = Room::new();
    let one = room.write("one.jsonl", format!("{}\nnonsense\n", line("e1", "one")));
    let two = room.write("two.jsonl", format!("\nrubbish\n{}\n", line("e2", "two")));
    let mut command = room.command(["ingest", "--format", "runtime", "--json", "--session", "s1"]);
    let ran = run(command.args([&one, &two]));
    report(&ran);
    let report = ran.json().pop().unwrap();
    assert_eq!(report["lines"], 4);
    let complaints: Vec<(&str, &Value)> =
        report["rejected"].as_array().unwrap().iter().map(|one| (text(one, "/file"), &one["line"])).collect();
    assert_eq!(
        complaints,
        [(one.display().to_string().as_str(), &json!(2)), (two.display().to_string().as_str(), &json!(2))]
    );
    assert_eq!(ids(&room), ["e1", "e2"]);
}

#[test]
fn a_file_that_is_not_there_is_named_before_anything_is_taken() {
    let room = Room::new();
    let one = room.write("one.jsonl", format!("{}\n", line("e1", "one")));
    let mut command = room.command(["ingest", "--format", "runtime", "--session", "s1"]);
    let told = run(command.args([&one, &room.path("missing.jsonl")])).is_refused_with(3);
    assert!(told.contains("missing.jsonl"), "{told}");
    assert!(room.has_no_ledger());
}

#[test]
fn a_folder_cannot_be_ingested() {
    let room = Room::new();
    let mut command = room.command(["ingest", "--format", "runtime", "--session", "s1"]);
    let ran = run(command.arg(room.project()));
    assert!(matches!(ran.code, Some(2..=4)), "{ran:?}");
    assert_eq!((ran.stdout().as_str(), ran.stderr().lines().count()), ("", 1), "{ran:?}");
}

#[test]
fn an_event_without_a_session_is_reported() {
    let room = Room::new();
    let own = json!({"id": "e2", "timestamp": 1, "kind": "user.prompt", "sessionId": "adapter-1", "data": {}});
    let (appended, _, rejected) = report(&ingest(&room, &[], format!("{}\n{own}\n", line("e1", "one"))));
    assert_eq!(appended, 1);
    assert_eq!(rejected[0].0, 1);
    assert!(rejected[0].1.contains("--session"), "{rejected:?}");
    let events = room.events();
    assert_eq!(
        (&events[0]["session_id"], &events[0]["adapter_session_id"]),
        (&json!("adapter-1"), &json!("adapter-1"))
    );
}

#[test]
fn the_session_of_the_variable_is_taken_too() {
    let room = Room::new();
    let mut command = room.command(["ingest", "--format", "runtime"]);
    let ran = run_with_input(command.env("RUNLEDGER_SESSION", "s9"), line("e1", "one"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(room.events()[0]["session_id"], "s9");
    assert_eq!(room.events()[0]["stream"], "session/s9");
}

#[test]
fn each_line_is_acknowledged_with_its_position_once_it_is_durable() {
    let room = Room::new();
    let input = format!("{}\nbad\n\n{}\n{}\n", line("e1", "one"), line("e2", "two"), line("e1", "one"));
    let ran = ingest(&room, &["--session", "s1", "--ack"], &input);
    let mut lines = ran.json();
    let last = lines.pop().unwrap();
    assert_eq!((&last["appended"], &last["duplicates"]), (&json!(2), &json!(1)));
    let expected = [(1, 1), (4, 2), (5, 1)].map(|(line, position)| json!({"line": line, "position": position}));
    assert_eq!(lines, expected);
}

#[test]
fn a_pipe_that_pauses_gets_its_acknowledgements_meanwhile() {
    use std::io::{BufRead, BufReader, Write};
    let room = Room::new();
    let mut command = room.command(["ingest", "--format", "runtime", "--session", "s1", "--ack"]);
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for number in 1..=3 {
        writeln!(stdin, "{}", line(&format!("e{number}"), "x")).unwrap();
        stdin.flush().unwrap();
        // This would wait for ever if the acknowledgement came with the end of input alone.
        let mut answer = String::new();
        stdout.read_line(&mut answer).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), json!({"line": number, "position": number}));
        assert_eq!(room.events().len(), number);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_same_file_twice_appends_nothing() {
    let room = Room::new();
    let decision =
        r#"{"eventId":"e1","decision":{"type":"json","source":"user","intent":{"kind":"permission_allow"}},"now":7}"#;
    let input = format!("{}\n{}\n{decision}\n", line("e1", "one"), line("e2", "two"));
    assert_eq!(report(&ingest(&room, &["--session", "s1"], &input)), (3, 0, vec![]));
    let before = room.events();
    assert_eq!(report(&ingest(&room, &["--session", "s1"], &input)), (0, 3, vec![]));
    assert_eq!(room.events(), before);
    // In another session the same ids are other events.
    assert_eq!(report(&ingest(&room, &["--session", "s2"], &input)), (3, 0, vec![]));
    room.verify();
}

#[test]
fn other_content_under_the_same_id_is_rejected() {
    let room = Room::new();
    let input = format!("{}\n{}\n{}\n", line("e1", "one"), line("e1", "other"), line("e2", "two"));
    let (appended, duplicates, rejected) = report(&ingest(&room, &["--session", "s1"], input));
    assert_eq!((appended, duplicates, rejected.len()), (2, 0, 1));
    assert_eq!(rejected[0].0, 2);
    assert!(rejected[0].1.contains("e1") && rejected[0].1.contains("position 1"), "{rejected:?}");
    assert_eq!(ids(&room), ["e1", "e2"]);
}

#[test]
fn what_strict_readers_refuse_comes_back_as_it_was() {
    let room = Room::new();
    let lines = [
        r#"{"id":"e1","timestamp":1,"kind":"user.prompt","data":{"prompt":"half \ud83d a smile","n":1e400,"z":1,"a":-0.0}}"#,
        r#"{"kind":"brand.new","id":"e2","timestamp":2.75,"extra":{"deep":[1.10,1E+2,123456789012345678901234567890]},"extra":2}"#,
        r#"{"timestamp":3,"id":"e3","kind":"tool.pre","data":{"tool_name":"B\u0061sh","tool_input":{"\udc00":"\u0000"}}}"#,
        r#"{ "id" : "e4" ,  "timestamp":4, "kind":"notification" , "data" : null }"#,
    ];
    let (appended, _, rejected) = report(&ingest(&room, &["--session", "s1"], lines.join("\n")));
    assert_eq!((appended, rejected), (4, vec![]));
    let printed = room.ok(["events", "--json"]);
    let exported = room.ok(["export"]);
    for (at, line) in lines.iter().enumerate() {
        let marker = format!("\"event\":{line}");
        assert!(printed.lines().nth(at).unwrap().contains(&marker), "{line}\n{printed}");
        assert!(exported.lines().nth(at).unwrap().contains(&marker), "{line}\n{exported}");
    }
    for arguments in [&["events"][..], &["sessions"], &["runs"]] {
        room.ok(arguments);
    }
    room.verify();
}

#[test]
fn deep_json_is_taken_or_reported_and_never_a_crash() {
    let room = Room::new();
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let input = format!(
        "{{\"id\":\"e1\",\"timestamp\":1,\"kind\":\"user.prompt\",\"data\":{{\"x\":{deep}}}}}\n{}\n",
        line("e2", "two")
    );
    let ran = ingest(&room, &["--session", "s1"], input);
    let (appended, _, rejected) = report(&ran);
    assert_eq!(appended + rejected.len() as u64, 2, "{ran:?}");
    let ran = room.run(["events"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(room.run(["events", "--json"]).code, Some(0));
    assert_eq!(room.run(["export"]).code, Some(0));
    room.verify();
}

/// A decision on an event, without a session of its own.
fn decision(event_id: &str) -> String {
    json!({"eventId": event_id, "decision": {"type": "json", "source": "user", "intent": {"kind": "permission_deny"}},
        "now": 9})
    .to_string()
}

#[test]
fn a_decision_finds_the_session_of_the_event_it_is_on() {
    let room = Room::new();
    let request = json!({"id": "r1", "timestamp": 1, "kind": "permission.request", "sessionId": "a1", "data": {}});
    // In the same input, and in a later one.
    assert_eq!(report(&ingest(&room, &[], format!("{request}\n{}\n", decision("r1")))), (2, 0, vec![]));
    assert_eq!(report(&ingest(&room, &[], decision("r1"))), (0, 1, vec![]));
    let later = decision("r1").replace("permission_deny", "permission_allow");
    assert_eq!(report(&ingest(&room, &[], later)), (1, 0, vec![]));
    let events = room.events();
    assert!(events.iter().all(|event| event["session_id"] == "a1"), "{events:?}");
    assert!(events[1..].iter().all(|event| event["kind"] == "decision" && event["causation_id"] == "r1"), "{events:?}");

    // With a session it belongs there, whatever it is on.
    assert_eq!(report(&ingest(&room, &["--session", "s2"], decision("elsewhere"))), (1, 0, vec![]));

    let (appended, _, rejected) = report(&ingest(&room, &[], decision("unheard-of")));
    assert_eq!(appended, 0);
    assert!(rejected[0].1.contains("unheard-of") && rejected[0].1.contains("--session"), "{rejected:?}");
    room.verify();
}

#[test]
fn a_decision_that_fits_several_sessions_is_reported() {
    let room = Room::new();
    let request = |session: &str| {
        json!({"id": "r1", "timestamp": 1, "kind": "permission.request", "sessionId": session, "data": {}}).to_string()
    };
    let both = format!("{}\n{}\n", request("a1"), request("a2"));
    assert_eq!(report(&ingest(&room, &[], &both)), (2, 0, vec![]));
    let (appended, _, rejected) = report(&ingest(&room, &[], decision("r1")));
    assert_eq!(appended, 0);
    assert!(rejected[0].1.contains("2 sessions"), "{rejected:?}");

    // That it comes in one input with them changes nothing.
    let room = Room::new();
    let (appended, _, rejected) = report(&ingest(&room, &[], format!("{both}{}\n", decision("r1"))));
    assert_eq!((appended, rejected.len()), (2, 1), "{:?}", room.events());
}

#[test]
fn ingesting_changes_no_run_that_goes_on() {
    let room = Room::new();
    assert_eq!(run(&mut room.exec(&["--session", "s1"], "true")).code, Some(0));
    let before = room.json(["runs"]);
    let start = text(&room.events()[0], "/id").to_owned();
    let cancel = json!({"eventId": start, "decision": {"intent": {"kind": "workflow_cancel"}}}).to_string();
    report(&ingest(&room, &["--session", "s1"], cancel));
    assert_eq!(room.json(["runs"]), before);
}

#[test]
fn a_position_beyond_the_log_gives_nothing_and_no_error() {
    let room = Room::new();
    append(&room.log(), "session/s1", &line("e1", "one"));
    assert_eq!(room.ok(["events", "--after", "100"]), "");
    assert_eq!(room.ok(["events", "--after", "18446744073709551615"]), "");
    assert_eq!(room.ok(["events", "--session", "nobody"]), "");
    assert_eq!(room.run(["events", "--run", "nobody"]).code, Some(1));
}
