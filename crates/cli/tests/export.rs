//! `export | ingest` gives an equal log, twice is no change, and no line changes a run that a runner of the log owns.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Ran, Room, Running, run, run_with_input, text, wait_for_line, wait_until};

fn on(room: &Room, ledger: &Path, arguments: &[&str]) -> String {
    let ran = run(&mut room.command_on(ledger, arguments));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout()
}

fn ingest(room: &Room, ledger: &Path, input: &str) -> Ran {
    run_with_input(&mut room.command_on(ledger, ["ingest", "--format", "runtime", "--json"]), input)
}

/// Appended, duplicates, and the reasons of what was rejected.
fn report(ran: &Ran) -> (u64, u64, Vec<String>) {
    let report = ran.json().pop().unwrap_or_else(|| panic!("a report: {ran:?}"));
    let rejected = report["rejected"].as_array().unwrap().iter().map(|one| text(one, "/reason").to_owned());
    (report["appended"].as_u64().unwrap(), report["duplicates"].as_u64().unwrap(), rejected.collect())
}

/// The lines of an export without their positions, and otherwise as they are, to the byte.
fn without_positions(export: &str) -> Vec<String> {
    let cut = |line: &str| {
        let rest = line.strip_prefix("{\"position\":").unwrap_or_else(|| panic!("no position: {line}"));
        rest.trim_start_matches(|digit: char| digit.is_ascii_digit()).to_owned()
    };
    export.lines().map(cut).collect()
}

/// A ledger with a bit of everything: runs of each end, tokens, odd events, decisions.
fn eventful() -> Room {
    let room = Room::new();
    let odd = [
        r#"{"id":"e1","timestamp":1,"kind":"user.prompt","sessionId":"a1","data":{"prompt":"half \ud83d","n":1e400}}"#,
        r#"{"id":"e2","timestamp":2.5,"kind":"brand.new","sessionId":"a1","extra":[1.10,1E+2]}"#,
        r#"{"id":"e3","timestamp":3,"kind":"permission.request","sessionId":"a1","data":{"tool_name":"Bash"}}"#,
        r#"{"eventId":"e3","decision":{"type":"json","source":"user","intent":{"kind":"permission_allow"}},"now":4}"#,
        r#"{"kind":"notification","sessionId":"a2"}"#,
    ];
    let (appended, ..) = report(&ingest(&room, &room.ledger(), &odd.join("\n")));
    assert_eq!(appended, 5);
    let tracker = |script: &str| {
        let ran = run(&mut room.exec(&["--session", "s1", "--workflow", &room.workflow(2)], script));
        assert_ne!(ran.code, Some(3), "{ran:?}");
    };
    tracker(r#"echo on > "$RUNLEDGER_TRACKER"; echo said"#);
    tracker(r#"echo '<!-- WORKFLOW_BLOCKED: why -->' > "$RUNLEDGER_TRACKER""#);
    assert_eq!(run(&mut room.exec(&["--session", "s2"], "echo lost >&2; exit 3")).code, Some(4));
    let lines = [
        json!({"type": "system", "subtype": "init", "session_id": "c1", "uuid": "u1", "model": "opus"}),
        json!({"type": "result", "is_error": false, "session_id": "c1", "uuid": "u2", "usage": {"input_tokens": 5,
            "output_tokens": 7}}),
    ];
    let stream = room.write("stream.jsonl", lines.map(|line| format!("{line}\n")).concat());
    room.program("claude", &format!("cat '{}'", stream.display()));
    assert_eq!(run(&mut room.command(["exec", "--session", "s2", "p"])).code, Some(0));
    room
}

fn erase(room: &Room, condition: &str) {
    let positions: Vec<u64> = room
        .sqlite()
        .prepare(&format!("SELECT position FROM runtime_events WHERE {condition}"))
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let events = positions.iter().flat_map(|position| ["--event".to_owned(), position.to_string()]);
    room.ok(["redact", "--reason", "a password"].map(str::to_owned).into_iter().chain(events));
}

/// The lines of an export but for those that tell what was done to a ledger.
fn told_by_agents(export: &str) -> String {
    export
        .lines()
        .filter(|line| !line.contains(r#""stream":"ledger/"#))
        .fold(String::new(), |all, line| all + line + "\n")
}

fn copy_path(room: &Room) -> PathBuf {
    room.path("copy/ledger.db")
}

#[test]
fn an_export_taken_in_by_another_ledger_gives_an_equal_log() {
    let room = eventful();
    let copy = copy_path(&room);
    let export = room.ok(["export"]);
    let count = export.lines().count() as u64;
    assert_eq!(report(&ingest(&room, &copy, &export)), (count, 0, vec![]));
    assert_eq!(on(&room, &copy, &["export"]), export, "into an empty ledger even the positions are the same");
    assert!(export.contains("\"digest\":"));
    on(&room, &copy, &["verify"]);
    for query in [&["runs", "--json"][..], &["sessions", "--json"], &["events", "--json"], &["runs"], &["sessions"]] {
        assert_eq!(on(&room, &copy, query), room.ok(query), "{query:?}");
    }
    for run in room.json(["runs"]) {
        let show = ["show", text(&run, "/id"), "--json"];
        assert_eq!(on(&room, &copy, &show), room.ok(show));
    }
    room.verify();
}

#[test]
fn behind_what_is_there_already_all_but_the_positions_is_equal() {
    let room = eventful();
    erase(&room, "position % 3 = 0");
    let copy = copy_path(&room);
    let own = json!({"id": "own", "timestamp": 1, "kind": "user.prompt", "sessionId": "own"}).to_string();
    assert_eq!(report(&ingest(&room, &copy, &own)), (1, 0, vec![]));
    let export = room.ok(["export"]);
    assert_eq!(report(&ingest(&room, &copy, &export)).2, Vec::<String>::new());
    assert!(export.contains("\"event\":null"));
    let copied = on(&room, &copy, &["export"]);
    assert!(copied.contains("came without its content"), "the copy tells of it too");
    let copied = without_positions(&copied);
    let copied: Vec<_> = copied.into_iter().filter(|line| !line.contains("ledger/arrivals")).collect();
    assert_eq!(copied[1..], without_positions(&export));
    on(&room, &copy, &["verify"]);
    assert_eq!(on(&room, &copy, &["runs"]), room.ok(["runs"]));
}

#[test]
fn taken_in_twice_it_changes_nothing() {
    let room = eventful();
    erase(&room, "position % 4 = 0");
    let copy = copy_path(&room);
    let export = room.ok(["export"]);
    let count = export.lines().count() as u64;
    assert_eq!(report(&ingest(&room, &copy, &export)), (count, 0, vec![]));
    let once = on(&room, &copy, &["export"]);
    assert_eq!(report(&ingest(&room, &copy, &export)), (0, count, vec![]));
    assert_eq!(on(&room, &copy, &["export"]), once);
    // Nor does it into the ledger that it comes from.
    assert_eq!(report(&ingest(&room, &room.ledger(), &export)), (0, count, vec![]));
    assert_eq!(room.ok(["export"]), export);
    on(&room, &copy, &["verify"]);
}

#[test]
fn a_copy_that_goes_on_from_its_original_is_brought_up_to_date() {
    let room = eventful();
    let copy = copy_path(&room);
    ingest(&room, &copy, &room.ok(["export"]));
    assert_eq!(run(&mut room.exec(&["--session", "s1"], "echo more")).code, Some(0));
    let export = room.ok(["export"]);
    let (appended, duplicates, rejected) = report(&ingest(&room, &copy, &export));
    assert_eq!((appended + duplicates, rejected), (export.lines().count() as u64, vec![]));
    assert_eq!(on(&room, &copy, &["export"]), export);
}

#[test]
fn content_erased_after_the_copy_stays_there_and_does_not_come_back() {
    let room = eventful();
    let copy = copy_path(&room);
    let whole = room.ok(["export"]);
    ingest(&room, &copy, &whole);
    erase(&room, "kind = 'message.complete'");
    let export = room.ok(["export"]);
    // The same events, without content or with it: neither is another event.
    let count = whole.lines().count() as u64;
    assert_eq!(report(&ingest(&room, &copy, &export)), (1, count, vec![]), "what tells of it is new");
    assert_eq!(told_by_agents(&on(&room, &copy, &["export"])), whole);
    assert_eq!(report(&ingest(&room, &room.ledger(), &whole)), (0, count, vec![]));
    assert_eq!(room.ok(["export"]), export);
    room.verify();
}

#[test]
fn lines_of_events_json_are_taken_in_too() {
    let room = eventful();
    let copy = copy_path(&room);
    let events = room.ok(["events", "--json"]);
    let count = events.lines().count() as u64;
    assert_eq!(report(&ingest(&room, &copy, &events)), (count, 0, vec![]));
    assert_eq!(on(&room, &copy, &["events", "--json"]), events);
    assert_eq!(on(&room, &copy, &["runs", "--json"]), room.ok(["runs", "--json"]));
    assert_eq!(report(&ingest(&room, &copy, &events)), (0, count, vec![]));
    on(&room, &copy, &["verify"]);
}

#[test]
fn one_session_is_exported_with_its_runs_and_nothing_else() {
    let room = eventful();
    let all = room.ok(["export"]);
    let of = |session: &str| room.ok(["export", "--session", session]);
    let s1 = of("s1");
    let lines: Vec<Value> = s1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["session_id"] == "s1"));
    assert!(lines.iter().any(|line| text(line, "/stream").starts_with("run/")));
    let parts = ["s1", "s2", "a1", "a2"].map(|session| of(session).lines().count());
    assert_eq!(parts.iter().sum::<usize>(), all.lines().count());
    assert_eq!(of("nobody"), "");

    let copy = copy_path(&room);
    assert_eq!(report(&ingest(&room, &copy, &s1)).2, Vec::<String>::new());
    assert_eq!(without_positions(&on(&room, &copy, &["export"])), without_positions(&s1), "digests included");
    let statuses: Vec<Value> = room.json(["runs", "--session", "s1"]).iter().map(|run| run["status"].clone()).collect();
    let copied: Vec<Value> = on(&room, &copy, &["runs", "--json"])
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].clone())
        .collect();
    assert_eq!(copied, statuses);
    on(&room, &copy, &["verify"]);
}

#[test]
fn a_line_of_export_that_is_damaged_is_reported_and_the_others_kept() {
    let room = eventful();
    let export = room.ok(["export", "--session", "a1"]);
    let lines: Vec<&str> = export.lines().collect();
    let first: Value = serde_json::from_str(&room.ok(["export", "--session", "a2"])).unwrap();
    let change = |field: &str, value: Value| {
        let mut line = first.clone();
        line[field] = value;
        line["id"] = json!(format!("changed-{field}"));
        line.to_string()
    };
    let damaged = [
        change("facts", json!("xyz")),
        change("facts", json!("00ff")),
        change("salt", json!("00")),
        change("stream", json!("")),
        change("stream_version", json!("one")),
        change("kind", json!("k".repeat(1025))),
        change("correlation_id", json!("c".repeat(1025))),
        change("event", json!({"no": "kind"})),
        change("event", Value::Null).replace("\"commitment\":\"", "\"commitment\":\"zz"),
    ];
    let input = format!("{}\n{}\n{}\n", lines[0], damaged.join("\n"), lines[1]);
    let (appended, _, rejected) = report(&ingest(&room, &copy_path(&room), &input));
    assert_eq!((appended, rejected.len()), (2, damaged.len()), "{rejected:?}");
    on(&room, &copy_path(&room), &["verify"]);
}

#[test]
fn a_line_of_export_whose_facts_contradict_its_event_is_reported() {
    let room = Room::new();
    assert_eq!(run(&mut room.exec(&["--session", "s1"], "echo done")).code, Some(0));
    let export = room.ok(["export"]);
    let honest = r#""status":"completed""#;
    assert_eq!(export.matches(honest).count(), 1, "{export}");
    let forged = export.replace(honest, r#""status":"failed""#);
    let (_, _, rejected) = report(&ingest(&room, &copy_path(&room), &forged));
    let runs = on(&room, &copy_path(&room), &["runs", "--json"]);
    assert_eq!(rejected.len(), 1, "its text says failed, its facts say completed; the run: {runs}");
}

/// Lines that would end a run if they were taken: as `export` and as `events --json` write them, in its own stream, and
/// elsewhere in its name.
fn forgeries(room: &Room, run_id: &str) -> Vec<String> {
    let export = room.ok(["export"]);
    let of_run: Vec<Value> = export
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["run_id"] == run_id && text(line, "/stream").starts_with("run/"))
        .collect();
    let last = of_run.last().unwrap();
    let version = last["stream_version"].as_u64().unwrap();
    let forge = |version: u64, id: &str, kind: &str, data: Value| {
        let mut line = last.clone();
        line["stream_version"] = json!(version);
        line["id"] = json!(id);
        line["kind"] = json!(kind);
        line["event"] = json!({"id": id, "timestamp": 1, "kind": kind, "data": data});
        for field in ["facts", "salt", "commitment", "digest"] {
            line.as_object_mut().unwrap().remove(field);
        }
        line
    };
    let end = json!({"status": "failed", "stop_reason": "forged", "iteration": 1});
    let transition = json!({"from": "running", "to": "completing", "status": "running"});
    let takeover = json!({"from": "running", "to": "running", "status": "running", "owner": {"term": 99,
        "log_id": "elsewhere", "host": "elsewhere", "pid": 1}});
    let iteration = json!({"phase": "end", "iteration": 1, "outcome": "failed"});
    let cancel = json!({"eventId": "x", "decision": {"intent": {"kind": "workflow_cancel"}}});
    let mut forged = vec![
        forge(version + 1, "f1", "workflow.iteration", iteration),
        forge(version + 1, "f2", "workflow.transition", transition),
        forge(version + 1, "f3", "workflow.end", end.clone()),
        forge(version + 1, "f4", "workflow.transition", takeover),
        forge(version + 1, "f5", "decision", cancel),
        forge(version, "f6", "workflow.end", end.clone()),
        // Other content under an id that is there.
        forge(version, text(last, "/id"), "workflow.end", end.clone()),
        forge(version + 1, text(last, "/id"), "workflow.end", end.clone()),
        forge(1, text(&of_run[0], "/id"), "workflow.end", end.clone()),
    ];
    // A true line of another event's facts, under a new id.
    for line in &of_run {
        let mut again = line.clone();
        again["id"] = json!(format!("again-{}", line["stream_version"]));
        again["stream_version"] = json!(version + 1);
        forged.push(again);
    }
    forged.iter().map(Value::to_string).collect()
}

/// Words about a run in another stream.
fn hearsay(room: &Room, run_id: &str) -> Vec<String> {
    let data = json!({"status": "failed", "stop_reason": "forged", "iteration": 1});
    let event = json!({"id": "h1", "timestamp": 1, "kind": "workflow.end", "data": data});
    let line = |stream: &str, id: &str| {
        json!({"position": 1, "stream": stream, "stream_version": 1, "recorded_at": 1, "id": id, "kind": "workflow.end",
            "occurred_at": 1, "session_id": "s1", "run_id": run_id, "event": event})
        .to_string()
    };
    assert!(!room.events().is_empty());
    vec![line("session/s1", "h1"), line("request/r1", "h2"), line("other", "h3")]
}

#[test]
fn forged_lines_do_not_change_a_run_that_is_over() {
    let room = Room::new();
    assert_eq!(run(&mut room.exec(&["--session", "s1"], "echo done")).code, Some(0));
    let before = room.json(["runs"]);
    let run_id = text(&before[0], "/id").to_owned();
    let of_run = room.ok(["events", "--json"]);
    let forged = forgeries(&room, &run_id);
    let (appended, duplicates, rejected) = report(&ingest(&room, &room.ledger(), &forged.join("\n")));
    assert_eq!((appended, duplicates, rejected.len()), (0, 0, forged.len()), "{rejected:#?}");
    assert_eq!(room.ok(["events", "--json"]), of_run);
    ingest(&room, &room.ledger(), &hearsay(&room, &run_id).join("\n"));
    assert_eq!(room.json(["runs"]), before);
    let shown = &room.json(["show", &run_id])[0];
    assert_eq!((&shown["status"], &shown["stop_reason"]), (&json!("completed"), &Value::Null));
    room.verify();
    room.ok(["rebuild-projections", "--verify"]);
    assert_eq!(room.json(["runs"]), before);
}

#[test]
fn forged_lines_do_not_disturb_a_run_that_goes_on() {
    let room = Room::new();
    let script = "echo $$ > works; while [ ! -e go ]; do sleep 0.05; done; echo done";
    let running = Running::start(&mut room.exec_json(&["--session", "s1"], script));
    let agent = wait_for_line(&room.path("project/works"));
    let before = room.json(["runs"]);
    let run_id = text(&before[0], "/id").to_owned();
    let forged = forgeries(&room, &run_id);
    let (appended, duplicates, rejected) = report(&ingest(&room, &room.ledger(), &forged.join("\n")));
    assert_eq!((appended, duplicates, rejected.len()), (0, 0, forged.len()), "{rejected:#?}");
    ingest(&room, &room.ledger(), &hearsay(&room, &run_id).join("\n"));
    assert_eq!(room.json(["runs"]), before);
    assert!(support::is_running(&agent));
    room.write("project/go", "");
    let ran = running.wait();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(room.json(["runs"])[0]["status"], "completed");
    room.verify();
}

#[test]
fn a_forged_owner_does_not_open_a_run_to_others() {
    // A copy's owner is another log's; a line that says otherwise is no key to this log's runs.
    let room = Room::new();
    assert_eq!(run(&mut room.exec(&["--session", "s1"], "echo done")).code, Some(0));
    let copy = copy_path(&room);
    ingest(&room, &copy, &room.ok(["export"]));
    let before = on(&room, &copy, &["runs", "--json"]);
    let run_id = text(&room.json(["runs"])[0], "/id").to_owned();
    let (_, _, rejected) = report(&ingest(&room, &room.ledger(), &forgeries(&room, &run_id).join("\n")));
    assert!(rejected.iter().any(|reason| reason.contains("its own runner")), "{rejected:#?}");
    // In the copy nobody drives it, and what cannot follow in a stream is refused there too.
    assert_eq!(on(&room, &copy, &["runs", "--json"]), before);
}

#[test]
fn a_run_that_was_cut_off_is_copied_as_it_stands() {
    let room = Room::new();
    let running = Running::start(&mut room.exec_json(&["--session", "s1"], "echo $$ > works; exec sleep 600"));
    let agent = wait_for_line(&room.path("project/works"));
    running.signal(Signal::KILL);
    running.wait();
    assert!(std::process::Command::new("kill").args(["-9", &agent]).status().unwrap().success());
    wait_until("the agent's end", || !support::is_running(&agent));
    let copy = copy_path(&room);
    ingest(&room, &copy, &room.ok(["export"]));
    assert_eq!(on(&room, &copy, &["runs", "--json"]), room.ok(["runs", "--json"]));
    on(&room, &copy, &["verify"]);
}

#[test]
fn an_empty_ledger_exports_nothing() {
    let room = Room::new();
    drop(room.log());
    assert_eq!(room.ok(["export"]), "");
    assert_eq!(report(&ingest(&room, &copy_path(&room), "")), (0, 0, vec![]));
    on(&room, &copy_path(&room), &["verify"]);
}

#[test]
fn an_export_that_cannot_be_written_says_so() {
    let room = eventful();
    let mut command = room.command(["export"]);
    command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let ran = Running::start_without_stdout(&mut command).wait();
    assert_eq!(ran.code, Some(7), "{ran:?}");
}
