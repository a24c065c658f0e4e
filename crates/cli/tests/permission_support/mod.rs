//! What the tests of answering hooks need: runs with rules, without a runner, and payloads as the clients give them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

use std::io::Write;
use std::process::{Command, Stdio};

use runledger_store::{EventLog, LogReader};
use serde_json::{Value, json};

use crate::support::{Ran, Room, Running, append, run_with_input, text, wait_until};

/// The client's session in all payloads.
pub(crate) const CLIENT_SESSION: &str = "client-1";

/// A room with a run `r` of the workflow `ship` in session `s` with these permissions, in its first iteration.
pub(crate) fn room_with_run(permissions: Value) -> Room {
    let room = Room::new();
    begin_run(&room, "r", permissions);
    room
}

/// Begins a run of Claude Code as its runner would have.
pub(crate) fn begin_run(room: &Room, run_id: &str, permissions: Value) {
    begin_run_of(room, run_id, "claude", permissions);
}

/// Begins a run of this harness as its runner would have.
pub(crate) fn begin_run_of(room: &Room, run_id: &str, harness: &str, permissions: Value) {
    begin_run_in(&room.log(), room, run_id, harness, permissions);
}

/// The same in a log of another engine.
pub(crate) fn begin_run_in(log: &dyn EventLog, room: &Room, run_id: &str, harness: &str, permissions: Value) {
    let stream = format!("run/{run_id}");
    let add = |kind: &str, data: Value| {
        let json = json!({"id": format!("{run_id}-{kind}-{data}"), "timestamp": 1, "kind": kind, "data": data});
        append(log, &stream, &json.to_string());
    };
    add(
        "workflow.start",
        json!({"run_id": run_id, "session_id": "s", "workflow_name": "ship", "harness": harness, "max_iterations": 5,
            "project_dir": room.project(), "policy": {"permissions": permissions}}),
    );
    add("workflow.transition", json!({"from": "starting", "to": "running", "status": "running"}));
    add(
        "workflow.iteration",
        json!({"phase": "start", "iteration": 1, "continuation": {"mode": "fresh"}, "prompt": "go"}),
    );
}

/// Ends it as its runner would have after a turn that failed.
pub(crate) fn end_run(room: &Room, run_id: &str) {
    for (kind, data) in [
        ("workflow.iteration", json!({"phase": "end", "iteration": 1, "outcome": "failed"})),
        ("workflow.transition", json!({"from": "running", "to": "completing", "status": "running"})),
        ("workflow.end", json!({"status": "failed", "iteration": 1})),
    ] {
        let json = json!({"id": format!("{run_id}-{kind}-end"), "timestamp": 3, "kind": kind, "data": data});
        append(&room.log(), &format!("run/{run_id}"), &json.to_string());
    }
}

/// A tool's call as Claude Code tells it before.
pub(crate) fn pre(tool_use_id: &str, command: &str) -> Value {
    json!({"session_id": CLIENT_SESSION, "transcript_path": "/t", "cwd": "/elsewhere", "prompt_id": "p1",
        "permission_mode": "default", "hook_event_name": "PreToolUse", "tool_name": "Bash",
        "tool_input": {"command": command, "description": "d"}, "tool_use_id": tool_use_id})
}

/// The same as another hook tells it.
pub(crate) fn told_by(hook: &str, pre: &Value) -> Value {
    let mut payload = pre.clone();
    payload["hook_event_name"] = json!(hook);
    if hook == "PermissionRequest" {
        payload.as_object_mut().unwrap().remove("tool_use_id");
    }
    payload
}

/// The same as Codex tells it.
pub(crate) fn of_codex(pre: &Value) -> Value {
    let mut payload = pre.clone();
    payload.as_object_mut().unwrap().remove("prompt_id");
    payload["turn_id"] = json!("turn-1");
    payload
}

/// The hook as a client of run `r` calls it.
pub(crate) fn hook_of_run(room: &Room) -> Command {
    let mut command = room.command(["hook"]);
    command.env("RUNLEDGER_RUN_ID", "r").env("RUNLEDGER_SESSION", "s");
    command
}

/// The same in a terminal of Claude Code.
pub(crate) fn hook_in_terminal(room: &Room) -> Command {
    let mut command = hook_of_run(room);
    command.env("CLAUDE_CODE_SESSION_ATTENDED", "1").env("CLAUDE_CODE_SESSION_ID", CLIENT_SESSION);
    command
}

/// Gives a payload to a hook that answers at once.
pub(crate) fn answer(command: &mut Command, payload: &Value) -> (Value, Ran) {
    let ran = run_with_input(command, payload.to_string());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let answer = ran.json().pop().map_or(Value::Null, |mut json| json["hookSpecificOutput"].take());
    (answer, ran)
}

/// The same for one that has nothing to complain about.
pub(crate) fn quiet_answer(command: &mut Command, payload: &Value) -> Value {
    let (answer, ran) = answer(command, payload);
    assert_eq!(ran.stderr(), "", "{ran:?}");
    answer
}

/// Gives a payload to a hook that waits.
pub(crate) fn start(command: &mut Command, payload: &Value) -> Running {
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    running.child.stdin.take().unwrap().write_all(payload.to_string().as_bytes()).unwrap();
    running
}

/// What a hook that waited answered in the end, and what it complained about.
pub(crate) fn answered(running: Running) -> (Value, Ran) {
    let ran = running.wait();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let answer = ran.json().pop().map_or(Value::Null, |mut json| json["hookSpecificOutput"].take());
    (answer, ran)
}

/// Waits until a call's question is in the log, and gives the event.
pub(crate) fn wait_for_question(room: &Room, tool_use_id: &str) -> Value {
    let mut found = None;
    wait_until(tool_use_id, || {
        found = requests(room).into_iter().find(|event| event["event"]["data"]["tool_use_id"] == tool_use_id);
        found.is_some()
    });
    found.unwrap()
}

/// The questions in the log.
pub(crate) fn requests(room: &Room) -> Vec<Value> {
    of_kind(room, "relay.request")
}

pub(crate) fn of_kind(room: &Room, kind: &str) -> Vec<Value> {
    if LogReader::open(room.ledger()).is_err() {
        return Vec::new();
    }
    room.events().into_iter().filter(|event| event["event"]["kind"] == kind).collect()
}

/// The decisions in a stream, as `source intent`.
pub(crate) fn decisions(room: &Room, stream: &str) -> Vec<String> {
    of_kind(room, "decision")
        .iter()
        .filter(|event| event["stream"] == stream)
        .map(|event| {
            let decision = &event["event"]["data"]["decision"];
            let intent = decision["intent"]["kind"].as_str().unwrap_or("none");
            format!("{} {intent}", text(decision, "/source"))
        })
        .collect()
}

/// The stream of a call's question.
pub(crate) fn stream_of(tool_use_id: &str) -> String {
    format!("request/{CLIENT_SESSION}:{tool_use_id}")
}
