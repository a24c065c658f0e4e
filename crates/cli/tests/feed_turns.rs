//! Turns in the feed: which run an end ends, turns of a record, long timelines, words to find.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use serde_json::{Value, json};
use support::{Room, run_with_input, text};

/// Takes in lines of a format, as of one session of the ledger.
fn ingest(room: &Room, format: &str, lines: &[Value]) {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut command = room.command(["ingest", "--format", format, "--session", "s"]);
    let ran = run_with_input(&mut command, lines);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr());
}

fn hook(session: &str, name: &str, more: Value) -> Value {
    let mut data = more;
    data["hook_event_name"] = name.into();
    data["session_id"] = session.into();
    json!({"ts": 1_700_000_000_000_i64, "type": name, "data": data})
}

/// Kinds and titles of the feed.
fn feed(room: &Room, options: &[&str]) -> Vec<String> {
    let entries = room.json([&["feed"], options].concat());
    entries.iter().map(|entry| format!("{} {}", text(entry, "/kind"), text(entry, "/title"))).collect()
}

#[test]
fn the_late_end_of_one_harness_session_does_not_end_the_run_of_another() {
    // Given
    let room = Room::new();
    let tool = json!({"tool_name": "Bash", "tool_use_id": "t", "tool_input": {}, "tool_response": ""});
    // When
    ingest(
        &room,
        "claude-hooks",
        &[
            hook("first", "UserPromptSubmit", json!({"prompt": "one"})),
            hook("first", "Stop", json!({})),
            hook("second", "SessionStart", json!({"source": "startup"})),
            hook("second", "UserPromptSubmit", json!({"prompt": "two"})),
            hook("second", "PreToolUse", tool.clone()),
            hook("first", "SessionEnd", json!({"reason": "other"})),
            hook("second", "PostToolUse", tool),
            hook("second", "Stop", json!({})),
            hook("second", "SessionEnd", json!({"reason": "other"})),
        ],
    );
    // Then
    let runs = feed(&room, &[]).into_iter().filter(|entry| entry.starts_with("run."));
    let runs: Vec<String> = runs.collect();
    assert_eq!(runs, ["run.start Run: one", "run.end Run completed", "run.start Run: two", "run.end Run completed"]);
    room.verify();
}

#[test]
fn a_turn_of_a_rollout_is_one_run() {
    // Given
    let room = Room::new();
    let line =
        |kind: &str, payload: Value| json!({"timestamp": "2026-01-02T03:04:05Z", "type": kind, "payload": payload});
    let turn = |id: &str| {
        [
            line("event_msg", json!({"type": "task_started", "turn_id": id})),
            line("event_msg", json!({"type": "user_message", "message": format!("ask {id}")})),
            line(
                "response_item",
                json!({"type": "message", "role": "assistant",
                "content": [{"type": "output_text", "text": format!("answer {id}")}]}),
            ),
            line("event_msg", json!({"type": "task_complete", "turn_id": id})),
        ]
    };
    // When
    ingest(&room, "codex-rollout", &[&turn("a")[..], &turn("b")].concat());
    // Then
    let starts = feed(&room, &[]).into_iter().filter(|entry| entry.starts_with("run.start"));
    assert_eq!(starts.collect::<Vec<_>>(), ["run.start Run: ask a", "run.start Run: ask b"]);
}

#[test]
fn words_to_search_for_may_begin_with_a_hyphen() {
    let room = Room::new();
    ingest(&room, "claude-hooks", &[hook("s", "UserPromptSubmit", json!({"prompt": "try --verbose"}))]);
    assert_eq!(feed(&room, &["--search", "--verbose"]), ["user.prompt try --verbose"]);
}

#[test]
fn the_four_thousandth_turn_costs_what_the_first_one_cost() {
    // Given a session in which the same thing is said again and again
    let room = Room::new();
    let turn = |id: usize| {
        [
            hook("s", "UserPromptSubmit", json!({"prompt": "go", "prompt_id": id.to_string()})),
            hook("s", "Stop", json!({"last_assistant_message": "ok", "stop_id": id})),
        ]
    };
    let turns: Vec<Value> = (0..4000).flat_map(turn).collect();
    ingest(&room, "claude-hooks", &turns);
    // When
    let shown = feed(&room, &["--last", "3"]);
    // Then no value of the memory has grown with them
    assert_eq!(shown, ["user.prompt go", "stop.request ⊘ Stop requested", "agent.message ⏺ Agent response"]);
    let projections = rusqlite::Connection::open(room.path("state/ledger.db.projections")).unwrap();
    let longest: i64 =
        projections.query_row("SELECT max(length(value)) FROM feed_memory", [], |row| row.get(0)).unwrap();
    assert!(longest < 200, "{longest}");
}

#[test]
fn what_a_subagent_and_the_main_agent_both_say_is_the_message_of_each() {
    // Given
    let room = Room::new();
    let subagent = json!({"agent_id": "a", "agent_type": "helper", "last_assistant_message": "42"});
    ingest(
        &room,
        "claude-hooks",
        &[
            hook("h", "UserPromptSubmit", json!({"prompt": "one", "prompt_id": "1"})),
            hook("h", "SubagentStart", subagent.clone()),
            hook("h", "SubagentStop", subagent),
            hook("h", "Stop", json!({"last_assistant_message": "42"})),
            hook("h", "SessionEnd", json!({"reason": "other"})),
        ],
    );
    // When the record of the main agent tells it too, in better words than a stop's
    let message = json!({"id": "m", "role": "assistant", "content": [{"type": "text", "text": "42"}]});
    let line = json!({"type": "assistant", "sessionId": "h", "uuid": "u", "timestamp": "2023-11-14T22:13:20Z",
        "message": message});
    ingest(&room, "claude-transcript", &[line]);
    // Then
    let entries = room.json(["feed"]);
    let messages = entries.iter().filter(|entry| entry["kind"] == "agent.message");
    let said: Vec<&str> = messages.map(|entry| text(entry, "/actor_id")).collect();
    assert_eq!(said, ["subagent:a", "agent:root"]);
    room.verify();
}
