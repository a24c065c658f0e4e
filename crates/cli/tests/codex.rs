//! The `codex` harness, with a program of that name that plays lines of `codex exec --json`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Ran, Room, fake_client, kinds, play_client, run, text};

const THREAD: &str = "11111111-2222-7333-8444-555555555555";

/// A turn with one command, as small as it can be.
fn lines() -> Vec<String> {
    let command = |output: &str, exit_code: Value, status: &str| {
        json!({"id": "item_0", "type": "command_execution", "command": "/bin/bash -lc 'echo hi'",
            "aggregated_output": output, "exit_code": exit_code, "status": status})
    };
    [
        json!({"type": "thread.started", "thread_id": THREAD}),
        json!({"type": "turn.started"}),
        json!({"type": "item.started", "item": command("", Value::Null, "in_progress")}),
        json!({"type": "item.completed", "item": command("hi\n", json!(0), "completed")}),
        json!({"type": "item.completed", "item": {"id": "item_1", "type": "agent_message", "text": "It said hi."}}),
        json!({"type": "turn.completed", "usage": {"input_tokens": 40, "cached_input_tokens": 10,
            "cache_write_input_tokens": 0, "output_tokens": 12, "reasoning_output_tokens": 3}}),
    ]
    .map(|line| line.to_string())
    .into()
}

fn fake(room: &Room, lines: &Path, after: &str) {
    fake_client(room, "codex", lines, after);
}

fn play(room: &Room, lines: &[String], after: &str) -> (Ran, Value) {
    play_client(room, "codex", lines, after)
}

#[test]
fn lines_become_events_tokens_and_a_linked_session_as_they_come() {
    let room = Room::new();
    let (ran, shown) = play(&room, &lines(), "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let recorded = |name: &str| std::fs::read_to_string(room.path("project").join(name)).unwrap();
    assert_eq!(recorded("arguments"), "exec\n--json\n--skip-git-repo-check\n-\n==\n");
    assert_eq!(recorded("input"), "Say hi==\n");
    let environment = recorded("environment");
    let names: Vec<&str> = environment.lines().map(|line| line.split_once('=').unwrap().0).collect();
    assert_eq!(names, ["RUNLEDGER_DB", "RUNLEDGER_ITERATION", "RUNLEDGER_RUN_ID", "RUNLEDGER_SESSION"]);
    assert!(environment.contains(text(&shown, "/id")), "{environment}");

    let own: Vec<String> = kinds(&room).into_iter().filter(|kind| !kind.starts_with("workflow.")).collect();
    let expected =
        ["session.start", "turn.start", "tool.pre", "tool.post", "message.complete", "usage.update", "turn.complete"];
    assert_eq!(own, expected);
    assert_eq!(shown["status"], "completed");
    assert_eq!(shown["harness"], "codex");
    assert_eq!(shown["adapter_session_ids"], json!([THREAD]));
    let tokens = json!({"input": 30, "output": 12, "cache_read": 10, "cache_write": 0, "total": 52,
        "context_size": null, "context_window_size": null});
    assert_eq!(shown["tokens"], tokens);
    assert_eq!(shown["iterations"][0]["adapter_session_id"], THREAD);

    let sessions = room.json(["sessions"]);
    let adapter = &sessions[0]["adapter_sessions"][0];
    assert_eq!((&adapter["id"], &adapter["run_id"]), (&json!(THREAD), &shown["id"]));
    assert_eq!(sessions[0]["tokens"]["total"], 52);

    let of_run = room.json(["events", "--run", text(&shown, "/id")]);
    assert_eq!(of_run.len(), room.events().len(), "the harness's events belong to the run");
    let start = of_run.iter().find(|event| event["kind"] == "workflow.iteration").unwrap();
    let tool = of_run.iter().find(|event| event["kind"] == "tool.pre").unwrap();
    assert_eq!(tool["causation_id"], start["id"], "what the harness did follows from the iteration's start");
    assert!(text(tool, "/id").starts_with("stream:"), "{tool}");
    room.verify();
}

#[test]
fn every_turn_is_a_new_thread_with_the_workflows_model_and_instructions() {
    let room = Room::new();
    let file = room.write("lines.jsonl", lines().iter().map(|line| format!("{line}\n")).collect::<String>());
    fake(&room, &file, r#"echo "turn" > "$RUNLEDGER_TRACKER""#);
    room.write("project/rules.md", "Be kind to {sessionId}.");
    let workflow = json!({"name": "w", "model": "gpt", "workflowFile": "rules.md", "loop": {"maxIterations": 2}});
    let workflow = room.write("w.json", workflow.to_string());
    let mut command = room.command(["exec", "--harness", "codex", "--session", "s1", "--workflow"]);
    let ran = run(command.arg(workflow).arg("p"));
    assert_eq!(ran.code, Some(9), "{ran:?}");
    let arguments = std::fs::read_to_string(room.path("project/arguments")).unwrap();
    let turns: Vec<&str> = arguments.trim_end().trim_end_matches("==").split("==\n").collect();
    assert_eq!(turns.len(), 2, "{arguments}");
    for turn in turns {
        assert!(turn.starts_with("exec\n--json\n--skip-git-repo-check\n-m\ngpt\n-c\n"), "{turn}");
        let (_, setting) = turn.split_once("developer_instructions=").unwrap();
        let instructions: String = serde_json::from_str(setting.lines().next().unwrap()).unwrap();
        assert!(instructions.ends_with("Be kind to s1."), "{instructions}");
    }
    // A client that says the same in two turns has done it twice.
    assert_eq!(kinds(&room).iter().filter(|kind| *kind == "tool.pre").count(), 2);
    room.verify();
}

#[test]
fn a_turn_that_failed_fails_the_run_whatever_the_exit_code() {
    let room = Room::new();
    let mut lines = lines();
    lines.pop();
    lines.push(json!({"type": "error", "message": "stream broke"}).to_string());
    lines.push(json!({"type": "turn.failed", "error": {"message": "the model went home"}}).to_string());
    let (ran, shown) = play(&room, &lines, "exit 0");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(shown["status"], "failed");
    assert_eq!(shown["stop_reason"], "the model went home");
}

#[test]
fn a_stream_that_broke_and_was_tried_again_fails_nothing() {
    let room = Room::new();
    let mut lines = lines();
    lines.insert(2, json!({"type": "error", "message": "Reconnecting... 1/5"}).to_string());
    let (ran, shown) = play(&room, &lines, "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(shown["status"], "completed");
}

#[test]
fn a_client_that_is_killed_fails_the_run_and_what_it_said_so_far_is_kept() {
    let room = Room::new();
    let mut lines = lines();
    lines.pop();
    let (ran, shown) = play(&room, &lines, "kill -9 $$");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(text(&shown, "/stop_reason").contains("signal 9"), "{shown}");
    assert_eq!(shown["adapter_session_ids"], json!([THREAD]));
    assert_eq!(shown["tokens"]["total"], Value::Null, "nobody said what it cost");
    assert!(kinds(&room).contains(&"message.complete".to_owned()));
}

#[test]
fn a_client_that_ends_without_the_end_of_its_turn_has_not_completed() {
    let room = Room::new();
    let mut lines = lines();
    lines.pop();
    let (ran, shown) = play(&room, &lines, "exit 0");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(shown["stop_reason"], "codex ended without the end of its turn");
}

#[test]
fn without_a_client_nothing_is_written_and_no_program_is_taken() {
    let room = Room::new();
    let mut command = room.command(["exec", "--harness", "codex", "Say hi"]);
    let told = run(command.env("PATH", room.path("bin"))).is_refused_with(3);
    assert!(told.contains("codex"), "{told}");
    let ran = room.run(["exec", "--harness", "codex", "Say hi", "--", "true"]);
    ran.is_refused_with(2);
    assert!(room.has_no_ledger());
}

#[test]
fn recordings_of_the_client_of_today_replay() {
    let Some(real) = runledger_testkit::shared("real") else {
        return;
    };
    let cases = [
        ("plain", 0, "completed", json!([325, 0])),
        ("tools", 0, "completed", json!([4761, 6])),
        ("sub", 0, "completed", json!([1128, 1])),
        ("prompt-block", 0, "completed", json!([0, 0])),
        ("api400", 1, "failed", json!([null, 0])),
        ("sigkill", 137, "failed", json!([null, 1])),
    ];
    for (case, exit_code, status, figures) in cases {
        let room = Room::new();
        let file = real.join(format!("codex-0.169.0/{case}.exec.jsonl")).canonicalize().unwrap();
        fake(&room, &file, &format!("exit {exit_code}"));
        let ran = run(&mut room.command(["exec", "--harness", "codex", "work"]));
        assert_eq!(ran.code, Some(if exit_code == 0 { 0 } else { 4 }), "{case}: {ran:?}");
        let shown = &room.json(["runs"])[0];
        assert_eq!(shown["status"], status, "{case}: {shown}");
        let tools = kinds(&room).iter().filter(|kind| *kind == "tool.pre").count();
        assert_eq!(json!([shown["tokens"]["total"], tools]), figures, "{case}: {shown}");
        // Each line of the recording stands, as it came, in exactly one event.
        let told = room.ok(["events", "--json"]);
        let lines = std::fs::read_to_string(&file).unwrap();
        for line in lines.lines() {
            let times = lines.lines().filter(|other| *other == line).count();
            assert_eq!(told.matches(line).count(), times, "{case}: {line}");
        }
        if case == "api400" {
            assert!(text(shown, "/stop_reason").contains("stub says no"), "{shown}");
        }
        room.verify();
    }
}
