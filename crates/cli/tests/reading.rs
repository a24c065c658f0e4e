//! The commands that read: what they print for a person and as JSON, which runs a word finds, and the help.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Normalizer, Room, append, run, run_with_input, text};

/// A ledger with a run of each kind, and a harness session that no run used.
fn scenario() -> Room {
    let room = Room::new();
    let log = room.log();
    let lines = [
        r#"{"id":"e1","timestamp":1700000000000,"kind":"session.start","sessionId":"a1","data":{"source":"startup","model":"opus"}}"#,
        r#"{"id":"e2","timestamp":1700000001000,"kind":"user.prompt","sessionId":"a1","data":{"prompt":"Hello\nthere \u001b[31mred"}}"#,
        r#"{"id":"e3","timestamp":1700000002000,"kind":"tool.pre","sessionId":"a1","data":{"tool_name":"Bash","tool_input":{"command":"ls -la"}}}"#,
        r#"{"id":"e4","timestamp":1700000003000,"kind":"permission.request","sessionId":"a1","data":{"tool_name":"Write","tool_input":{"file_path":"a.txt"}}}"#,
        r#"{"eventId":"e4","decision":{"type":"json","source":"user","intent":{"kind":"permission_allow"}},"now":1700000004000}"#,
        r#"{"id":"e5","timestamp":1700000005000,"kind":"brand.new","sessionId":"a1","data":{"x":1}}"#,
        r#"{"id":"e6","timestamp":1700000006000,"kind":"session.end","sessionId":"a1","data":{"reason":"other"}}"#,
    ];
    for line in lines {
        append(&log, "session/a1", line);
    }
    drop(log);
    let exec = |options: &[&str], script: &str| {
        let ran = run(&mut room.exec(options, script));
        assert_ne!(ran.code, Some(3), "{ran:?}");
    };
    let workflow = room.workflow(3);
    let turns = r#"echo "turn $RUNLEDGER_ITERATION"; echo "turn $RUNLEDGER_ITERATION" > "$RUNLEDGER_TRACKER"
        [ "$RUNLEDGER_ITERATION" -lt 2 ] || echo '<!-- WORKFLOW_COMPLETE -->' >> "$RUNLEDGER_TRACKER""#;
    exec(&["--session", "s1", "--workflow", &workflow], turns);
    exec(
        &["--session", "s1", "--workflow", &workflow],
        r#"echo '<!-- WORKFLOW_BLOCKED: no key -->' > "$RUNLEDGER_TRACKER""#,
    );
    exec(&["--session", "s2"], "echo 'the disk is on fire' >&2; exit 3");
    let lines = [
        json!({"type": "system", "subtype": "init", "session_id": "c1", "uuid": "u1", "model": "opus"}),
        json!({"type": "assistant", "session_id": "c1", "uuid": "u2", "message": {"id": "m1", "model": "opus",
            "content": [{"type": "text", "text": "Hello."}], "usage": {"input_tokens": 1000, "output_tokens": 1}}}),
        json!({"type": "result", "is_error": false, "session_id": "c1", "uuid": "u3",
            "usage": {"input_tokens": 1000, "output_tokens": 234567},
            "modelUsage": {"opus": {"contextWindow": 200_000}}}),
    ];
    let stream = room.write("stream.jsonl", lines.map(|line| format!("{line}\n")).concat());
    room.program("claude", &format!("cat '{}'", stream.display()));
    assert_eq!(run(&mut room.command(["exec", "--session", "s2", "p"])).code, Some(0));
    room
}

/// The ids of the runs, the oldest first.
fn run_ids(room: &Room) -> Vec<String> {
    let mut ids: Vec<String> = room.json(["runs"]).iter().map(|run| text(run, "/id").to_owned()).collect();
    ids.reverse();
    ids
}

fn normalizer(room: &Room) -> Normalizer {
    let mut normalizer = Normalizer::new(room);
    for (at, id) in run_ids(room).iter().enumerate() {
        normalizer.name(id, &format!("run {}", at + 1));
    }
    normalizer
}

#[test]
fn what_a_person_reads() {
    let room = scenario();
    let normalizer = normalizer(&room);
    let ids = run_ids(&room);
    let at = |position: u64| position.to_string();
    let first = room.json(["show", &ids[0]]).remove(0);
    let begins = first["first_position"].as_u64().unwrap();
    let in_turn = first["iterations"][0]["start_position"].as_u64().unwrap();
    let between = first["iterations"][0]["end_position"].as_u64().unwrap();
    let looks: Vec<(&str, Vec<String>)> = vec![
        ("runs", vec!["runs".into()]),
        ("runs_of_a_session", vec!["runs".into(), "--session".into(), "s1".into()]),
        ("show_a_completed_run", vec!["show".into(), ids[0].clone()]),
        ("show_a_completed_run_as_it_began", vec!["show".into(), ids[0].clone(), "--at".into(), at(begins)]),
        ("show_a_completed_run_in_its_first_turn", vec!["show".into(), ids[0].clone(), "--at".into(), at(in_turn)]),
        ("show_a_completed_run_after_its_first_turn", vec!["show".into(), ids[0].clone(), "--at".into(), at(between)]),
        ("show_a_blocked_run", vec!["show".into(), ids[1].clone()]),
        ("show_a_failed_run", vec!["show".into(), ids[2].clone()]),
        ("show_a_run_of_claude", vec!["show".into(), ids[3].clone()]),
        ("sessions", vec!["sessions".into()]),
        ("events", vec!["events".into()]),
        ("events_of_a_run", vec!["events".into(), "--run".into(), ids[2].clone()]),
        ("verify", vec!["verify".into()]),
        ("status", vec!["status".into()]),
        ("rebuild_projections", vec!["rebuild-projections".into(), "--verify".into()]),
        (
            "rebuild_projections_of_a_run",
            vec![
                "rebuild-projections".into(),
                "--run".into(),
                ids[0].clone(),
                "--projection".into(),
                "workflow_runs".into(),
            ],
        ),
    ];
    for (name, arguments) in looks {
        let printed = room.ok(&arguments);
        assert!(!printed.contains('\u{1b}'), "{name}: no escapes where no terminal is");
        insta::assert_snapshot!(name, normalizer.text(&printed));
    }
}

#[test]
fn a_ledger_without_runs_says_what_makes_some() {
    let room = Room::new();
    drop(room.log());
    for command in ["runs", "sessions"] {
        let ran = room.run([command]);
        assert_eq!((ran.code, ran.stdout().as_str()), (Some(0), ""), "{ran:?}");
        assert!(ran.stderr().starts_with("no "), "{ran:?}");
        assert_eq!(room.json([command]), Vec::<Value>::new());
    }
    assert_eq!(room.ok(["events"]), "");
    let checkpoints = &room.json(["status"])[0];
    assert_eq!(checkpoints["head"], 0);
    room.verify();
    room.ok(["rebuild-projections", "--verify"]);
}

/// What a value looks like: the fields and the types, not the content.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(items) => Value::Array(items.first().map(shape).into_iter().collect()),
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), shape(field))).collect(),
    }
}

#[test]
fn what_a_program_reads() {
    let room = scenario();
    let ids = run_ids(&room);
    let mut shapes = BTreeMap::new();
    let mut look = |name: &str, arguments: &[&str]| {
        let lines = room.json(arguments);
        assert!(lines.iter().all(Value::is_object), "{name}");
        shapes.insert(name.to_owned(), shape(&lines[0]));
    };
    look("runs", &["runs"]);
    look("show", &["show", &ids[0]]);
    look("show of claude", &["show", &ids[3]]);
    look("show --at", &["show", &ids[0], "--at", "1000"]);
    look("sessions", &["sessions"]);
    look("events", &["events"]);
    look("events of a run", &["events", "--run", &ids[0]]);
    look("verify", &["verify"]);
    look("status", &["status"]);
    look("rebuild-projections", &["rebuild-projections"]);
    look("export", &["export"]);
    insta::assert_json_snapshot!("shapes", shapes);
    for field in ["position", "stream", "stream_version", "recorded_at", "event"] {
        assert!(room.events().iter().all(|event| event.get(field).is_some()), "{field}");
    }
}

#[test]
fn a_run_is_found_by_its_id_or_the_beginning_of_it() {
    let room = Room::new();
    let log = room.log();
    for id in ["abc", "abcd", "abd", "x"] {
        let start = json!({"kind": "workflow.start", "timestamp": 1, "data":
            {"run_id": id, "session_id": "s1", "max_iterations": 1}});
        append(&log, &format!("run/{id}"), &start.to_string());
    }
    let find = |word: &str| room.run(["show", word]);
    for (word, id) in [("x", "x"), ("abcd", "abcd"), ("abc", "abc"), ("abd", "abd")] {
        let found = room.json(["show", word]);
        assert_eq!(text(&found[0], "/id"), id, "{word}");
    }
    for word in ["ab", "a"] {
        let told = find(word).is_refused_with(2);
        assert!(told.contains("abd"), "{told}");
    }
    // It begins every id, also where there is but one: what a script has left empty names no run.
    let told = find("").is_refused_with(2);
    assert!(told.contains("the run's id is empty"), "{told}");
    for word in ["abcde", "y", "ABC", "%", "ab_", "é", "\u{10ffff}"] {
        let told = find(word).is_refused_with(1);
        assert!(told.contains("no run"), "{word}: {told}");
    }
    for command in [&["events", "--run"][..], &["rebuild-projections", "--run"]] {
        let with = |word: &str| room.run(command.iter().copied().chain([word]));
        with("ab").is_refused_with(2);
        with("y").is_refused_with(1);
        assert_eq!(with("abcd").code, Some(0));
    }
    room.run(["show", "x", "--at", "1"]).is_refused_with(1);
}

#[test]
fn runs_are_listed_newest_first_and_as_the_filters_say() {
    let room = scenario();
    let of = |options: &[&str]| -> Vec<String> {
        let mut arguments = vec!["runs"];
        arguments.extend(options);
        room.json(arguments).iter().map(|run| text(run, "/status").to_owned()).collect()
    };
    assert_eq!(of(&[]), ["completed", "failed", "blocked", "completed"]);
    assert_eq!(of(&["--limit", "2"]), ["completed", "failed"]);
    assert_eq!(of(&["--limit", "0"]), Vec::<String>::new());
    assert_eq!(of(&["--session", "s1"]), ["blocked", "completed"]);
    assert_eq!(of(&["--status", "completed"]), ["completed", "completed"]);
    assert_eq!(of(&["--status", "completed", "--session", "s2", "--limit", "5"]), ["completed"]);
    assert_eq!(of(&["--session", "nobody"]), Vec::<String>::new());
    assert_eq!(of(&["--status", "interrupted"]), Vec::<String>::new());
}

#[test]
fn a_run_as_of_a_position_is_what_it_was_then() {
    let room = scenario();
    let id = &run_ids(&room)[0];
    let now = room.json(["show", id]).remove(0);
    let field = |value: &Value, name: &str| value[name].as_u64().unwrap();
    let (first, last) = (field(&now, "first_position"), field(&now, "last_position"));
    let told = room.run(["show", id, "--at", &(first - 1).to_string()]).is_refused_with(1);
    assert!(told.contains(&first.to_string()), "{told}");
    let mut iteration = 0;
    for position in first..=last {
        let then = room.json(["show", id, "--at", &position.to_string()]).remove(0);
        assert!(field(&then, "last_position") <= position);
        assert!(field(&then, "iteration") >= iteration, "{then}");
        iteration = field(&then, "iteration");
        assert_eq!(then["iterations"].as_array().unwrap().len() as u64, iteration);
        assert_eq!(then["ended_at"] == Value::Null, position < last, "{position}");
    }
    for position in [last, last + 1, u64::MAX] {
        let mut then = room.json(["show", id, "--at", &position.to_string()]).remove(0);
        then["owner_alive"] = now["owner_alive"].clone();
        assert_eq!(then, now);
    }
}

#[test]
fn events_are_those_after_a_position_of_a_session_or_of_a_run() {
    let room = scenario();
    let all = room.events();
    assert_eq!(room.json(["events", "--after", "5"]), all[5..]);
    let of = |field: &str, id: &str| -> Vec<Value> { all.iter().filter(|event| event[field] == id).cloned().collect() };
    assert_eq!(room.json(["events", "--session", "s1"]), of("session_id", "s1"));
    let id = &run_ids(&room)[0];
    assert_eq!(room.json(["events", "--run", id]), of("run_id", id));
    assert_eq!(room.json(["events", "--run", id, "--session", "s2"]), Vec::<Value>::new());
}

#[test]
fn events_follow_what_another_process_appends() {
    let room = Room::new();
    let log = room.log();
    let event = |number: u64| format!(r#"{{"id":"e{number}","timestamp":1,"kind":"user.prompt","data":{{}}}}"#);
    append(&log, "session/s1", &event(1));
    let mut command = room.command(["events", "--follow", "--json", "--session", "s1"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut next = || -> Value {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    assert_eq!(next()["id"], "e1");
    for number in 2..5 {
        append(&log, "session/other", &event(number));
        append(&log, "session/s1", &event(number));
        let told = next();
        assert_eq!((&told["id"], &told["stream"]), (&json!(format!("e{number}")), &json!("session/s1")));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_goes_away_ends_the_command_without_a_word() {
    let room = scenario();
    for arguments in
        [&["events", "--json"][..], &["events", "--follow"], &["export"], &["runs"], &["sessions", "--json"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = room.command(arguments);
        let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(7), ""), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_behind_the_output_is_said() {
    let room = scenario();
    for arguments in [&["events"][..], &["runs", "--json"], &["status"], &["verify"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = support::Running::start_without_stdout(room.command(arguments).stdout(full)).wait();
        assert_eq!(ran.code, Some(7), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stderr().lines().count(), 1, "{ran:?}");
    }
}

#[test]
fn without_a_terminal_there_are_no_escapes_whatever_the_environment_says() {
    let room = scenario();
    for (name, value) in [("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1"), ("FORCE_COLOR", "1"), ("TERM", "xterm-256color")]
    {
        for arguments in [&["runs"][..], &["sessions"], &["events"], &["status"], &["verify"], &["rebuild-projections"]]
        {
            let ran = run(room.command(arguments).env(name, value));
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert!(!ran.stdout().contains('\u{1b}') && !ran.stderr().contains('\u{1b}'), "{name} {ran:?}");
        }
    }
}

/// Runs a command on a terminal that `script` makes, where there is one; gives what it printed.
fn on_a_terminal(room: &Room, command: &str, variable: Option<&str>) -> Option<String> {
    let mut script = std::process::Command::new("script");
    let program = env!("CARGO_BIN_EXE_runledger");
    script.args(["-qec", &format!("'{program}' --db '{}' {command}", room.ledger().display()), "/dev/null"]);
    script.env("TERM", "xterm-256color").env("TZ", "UTC").env_remove("NO_COLOR").stdin(Stdio::null());
    if let Some(variable) = variable {
        script.env(variable, "1");
    }
    let output = script.output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn on_a_terminal_there_are_colours_unless_no_color_is_set() {
    let room = scenario();
    let Some(printed) = on_a_terminal(&room, "runs", None) else {
        return;
    };
    assert!(printed.contains("\u{1b}["), "{printed}");
    let printed = on_a_terminal(&room, "runs", Some("NO_COLOR")).unwrap();
    assert!(printed.contains("completed") && !printed.contains("\u{1b}["), "{printed}");
}

#[test]
fn reading_a_ledger_that_nobody_read_before_builds_the_read_models() {
    let room = scenario();
    let before = room.json(["runs"]);
    for name in [".projections", ".projections-wal", ".projections-shm"] {
        // Not all are there.
        let _ = std::fs::remove_file(room.path(&format!("state/ledger.db{name}")));
    }
    let status = room.json(["status"]).remove(0);
    assert!(status["checkpoints"].as_array().unwrap().is_empty(), "`status` looks and builds nothing: {status}");
    assert!(!room.path("state/ledger.db.projections").exists());
    assert_eq!(room.json(["runs"]), before);
    let checkpoints = room.json(["status"]).remove(0)["checkpoints"].clone();
    assert!(checkpoints.as_array().unwrap().iter().all(|one| one["lag"] == 0), "{checkpoints}");
}

#[test]
fn a_read_model_that_somebody_changed_is_named_and_rebuilding_heals_it() {
    let room = scenario();
    let before = room.json(["runs"]);
    let file = rusqlite::Connection::open(room.path("state/ledger.db.projections")).unwrap();
    let table: String = file
        .query_row(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'workflow_runs%' ORDER BY name LIMIT 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let changed =
        file.execute(&format!("UPDATE \"{table}\" SET status = 'failed' WHERE status = 'blocked'"), []).unwrap();
    assert_eq!(changed, 1);
    drop(file);
    let ran = room.run(["verify"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let blocked = before.iter().find(|run| run["status"] == "blocked").unwrap();
    assert!(
        ran.stdout().lines().any(|line| line.starts_with("WRONG") && line.contains(text(blocked, "/id"))),
        "{ran:?}"
    );
    let rebuilt = room.json(["rebuild-projections", "--verify"]);
    let changed: Vec<&Value> = rebuilt.iter().filter(|one| one["projection"] == "workflow_runs").collect();
    assert_eq!(changed[0]["changed"], 1, "{rebuilt:?}");
    assert_eq!(room.json(["runs"]), before);
    room.verify();
}

#[test]
fn help_is_there_for_every_command_with_examples() {
    let room = Room::new();
    let commands = [
        "exec",
        "runs",
        "show",
        "sessions",
        "events",
        "ingest",
        "import",
        "export",
        "hook",
        "rebuild-projections",
        "backup",
        "verify",
        "status",
    ];
    insta::assert_snapshot!("help", room.ok(["--help"]));
    for command in commands {
        let help = room.ok([command, "--help"]);
        assert!(help.contains("Examples:"), "{command}");
        insta::assert_snapshot!(format!("help_{}", command.replace('-', "_")), help);
        assert!(!help.contains(&room.path("").display().to_string()), "no value of the environment: {help}");
    }
    assert!(room.ok(["--version"]).starts_with("runledger "));
    assert!(room.has_no_ledger());
}

#[test]
fn what_was_checked_before_is_not_checked_again_where_that_is_asked() {
    let room = Room::new();
    let lines = (1..=5).map(|number| format!(r#"{{"id":"e{number}","timestamp":1,"kind":"user.prompt","data":{{}}}}"#));
    let ran = run_with_input(
        &mut room.command(["ingest", "--format", "runtime", "--session", "s1"]),
        lines.collect::<Vec<_>>().join("\n"),
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let checks = room.json(["verify", "--since", "3"]);
    assert!(checks.iter().all(|check| check["ok"] == true), "{checks:?}");
    let names: Vec<_> = checks.iter().map(|check| text(check, "/check")).collect();
    assert!(!names.contains(&"log integrity") && names.iter().all(|name| name.starts_with("log ")), "{names:?}");
    assert!(checks.iter().any(|check| check["detail"] == "2 events behind position 3"), "{checks:?}");
    let ran = room.run(["verify", "--since", "6"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout().contains("position 6: it is not there to go on from; the log ends at 5"), "{ran:?}");
}
