//! The `claude` harness, with a program of that name that plays a stream of Claude Code's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Ran, Room, fake_client, kinds, play_client, run, text};

const SESSION: &str = "11111111-2222-4333-8444-555555555555";

/// A turn with one tool call, as small as it can be.
fn stream() -> Vec<String> {
    let usage = |input: u64, output: u64| {
        json!({"input_tokens": input, "output_tokens": output,
        "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7})
    };
    let model = json!({"inputTokens": 30, "outputTokens": 12, "cacheReadInputTokens": 10, "cacheCreationInputTokens": 14,
        "contextWindow": 200_000});
    [
        json!({"type": "system", "subtype": "init", "cwd": "/p", "session_id": SESSION, "model": "opus", "uuid": "u1"}),
        json!({"type": "assistant", "uuid": "u2", "session_id": SESSION, "message": {"id": "m1", "model": "opus",
            "content": [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "echo hi"}}],
            "usage": usage(10, 1)}}),
        json!({"type": "user", "uuid": "u3", "session_id": SESSION, "message": {"role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "hi"}]}}),
        json!({"type": "assistant", "uuid": "u4", "session_id": SESSION, "message": {"id": "m2", "model": "opus",
            "content": [{"type": "text", "text": "It said hi."}], "usage": usage(20, 1)}}),
        json!({"type": "result", "subtype": "success", "is_error": false, "uuid": "u5", "session_id": SESSION,
            "result": "It said hi.", "terminal_reason": "completed", "usage": usage(30, 12),
            "modelUsage": {"opus": model}, "model_usage_since_last_result": {"opus": model}}),
    ]
    .map(|line| line.to_string())
    .into()
}

fn fake(room: &Room, lines: &Path, after: &str) {
    fake_client(room, "claude", lines, after);
}

fn play(room: &Room, lines: &[String], after: &str) -> (Ran, Value) {
    play_client(room, "claude", lines, after)
}

#[test]
fn a_stream_becomes_events_tokens_and_a_linked_session_as_it_comes() {
    let room = Room::new();
    let (ran, shown) = play(&room, &stream(), "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let recorded = |name: &str| std::fs::read_to_string(room.path("project").join(name)).unwrap();
    assert_eq!(recorded("arguments"), "-p\n--output-format\nstream-json\n--verbose\n==\n");
    assert_eq!(recorded("input"), "Say hi==\n");

    let own: Vec<String> = kinds(&room).into_iter().filter(|kind| !kind.starts_with("workflow.")).collect();
    let expected = ["session.start", "tool.pre", "tool.post", "message.complete", "usage.update", "turn.complete"];
    assert_eq!(own, expected);
    assert_eq!(shown["status"], "completed");
    assert_eq!(shown["harness"], "claude");
    assert_eq!(shown["adapter_session_ids"], json!([SESSION]));
    let tokens = json!({"input": 30, "output": 12, "cache_read": 10, "cache_write": 14, "total": 66,
        "context_size": 32, "context_window_size": 200_000});
    assert_eq!(shown["tokens"], tokens);
    assert_eq!(shown["iterations"][0]["tokens"], tokens);
    assert_eq!(shown["iterations"][0]["adapter_session_id"], SESSION);

    let sessions = room.json(["sessions"]);
    assert_eq!(sessions.len(), 1);
    let adapter = &sessions[0]["adapter_sessions"][0];
    assert_eq!((&adapter["id"], &adapter["run_id"]), (&json!(SESSION), &shown["id"]));
    assert_eq!((&adapter["model"], &adapter["source"]), (&json!("opus"), &json!("startup")));
    assert_eq!(sessions[0]["tokens"]["total"], 66);

    let of_run = room.json(["events", "--run", text(&shown, "/id")]);
    assert_eq!(of_run.len(), room.events().len(), "the harness's events belong to the run");
    let start = of_run.iter().find(|event| event["kind"] == "workflow.iteration").unwrap();
    let tool = of_run.iter().find(|event| event["kind"] == "tool.pre").unwrap();
    assert_eq!(tool["causation_id"], start["id"], "what the harness did follows from the iteration's start");
    assert_eq!(tool["adapter_session_id"], SESSION);
    assert_eq!(tool["id"], "stream:u2");
    room.verify();
}

#[test]
fn the_whole_line_is_kept_as_it_came() {
    let room = Room::new();
    let odd = r#"{"type":"system","subtype":"new_thing","uuid":"u9","n":1e400,"s":"\ud83d","z":1,"a":2.50}"#;
    let mut lines = stream();
    lines.insert(1, odd.to_owned());
    let (ran, _) = play(&room, &lines, "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let events = room.ok(["events", "--json"]);
    assert!(events.contains(odd), "{events}");
}

#[test]
fn every_turn_is_a_new_process_with_the_workflows_model_and_instructions() {
    let room = Room::new();
    let file = room.write("stream.jsonl", stream().iter().map(|line| format!("{line}\n")).collect::<String>());
    fake(&room, &file, r#"echo "turn" > "$RUNLEDGER_TRACKER""#);
    room.write("project/rules.md", "Be kind to {sessionId}.");
    let workflow = json!({"name": "w", "model": "haiku", "workflowFile": "rules.md", "loop": {"maxIterations": 2}});
    let workflow = room.write("w.json", workflow.to_string());
    let mut command = room.command(["exec", "--session", "s1", "--workflow"]);
    let ran = run(command.arg(workflow).arg("p"));
    assert_eq!(ran.code, Some(9), "{ran:?}");
    let arguments = std::fs::read_to_string(room.path("project/arguments")).unwrap();
    let turns: Vec<&str> = arguments.trim_end().trim_end_matches("==").split("==\n").collect();
    assert_eq!(turns.len(), 2, "{arguments}");
    for turn in turns {
        assert!(turn.contains("--model\nhaiku\n"), "{turn}");
        let (_, instructions) = turn.split_once("--append-system-prompt-file\n").unwrap();
        let instructions = std::fs::read_to_string(instructions.trim()).unwrap();
        assert!(instructions.ends_with("Be kind to s1."), "{instructions}");
    }
    let shown = &room.json(["runs"])[0];
    assert_eq!(shown["tokens"]["total"], 132, "both turns count, though their events have the same ids");
    assert_eq!(shown["adapter_session_ids"], json!([SESSION]));
    room.verify();
}

#[test]
fn a_result_that_says_error_fails_the_run_whatever_the_exit_code() {
    let room = Room::new();
    let mut lines = stream();
    let last = lines.len() - 1;
    lines[last] = json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "uuid": "u5",
        "session_id": SESSION, "errors": ["the model went home"]})
    .to_string();
    let (ran, shown) = play(&room, &lines, "exit 0");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(shown["status"], "failed");
    assert_eq!(shown["stop_reason"], "the model went home");
}

#[test]
fn a_client_that_is_killed_before_its_result_fails_the_run_and_what_it_cost_so_far_counts() {
    let room = Room::new();
    let mut lines = stream();
    lines.pop();
    let (ran, shown) = play(&room, &lines, "kill -9 $$");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(text(&shown, "/stop_reason").contains("signal 9"), "{shown}");
    assert_eq!(shown["tokens"]["input"], 30, "10 and 20 of the two messages");
    assert_eq!(shown["adapter_session_ids"], json!([SESSION]));
    assert!(kinds(&room).contains(&"message.complete".to_owned()));
}

#[test]
fn a_client_that_ends_without_a_result_has_not_completed() {
    let room = Room::new();
    let mut lines = stream();
    lines.pop();
    let (ran, shown) = play(&room, &lines, "exit 0");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert_eq!(shown["stop_reason"], "claude ended without a result line");
}

#[test]
fn a_line_that_is_no_json_is_kept_and_the_rest_goes_on() {
    let room = Room::new();
    let mut lines = stream();
    lines.insert(1, "warning: \u{1b}[31mthis is no JSON".to_owned());
    lines.insert(2, r#"{"type":"assistant","torn"#.to_owned());
    lines.insert(3, "[1,2,3]".to_owned());
    lines.insert(4, String::new());
    let (ran, shown) = play(&room, &lines, "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(shown["tokens"]["total"], 66);
    let strays: Vec<Value> = room.events().into_iter().filter(|event| event["kind"] == "unknown").collect();
    let texts: Vec<&str> = strays.iter().map(|event| text(event, "/event/data/text")).collect();
    assert_eq!(texts, ["warning: \u{1b}[31mthis is no JSON", r#"{"type":"assistant","torn"#, "[1,2,3]"]);
    assert!(!ran.stderr().contains('\u{1b}'), "{ran:?}");
    room.verify();
}

#[test]
fn an_id_used_twice_in_one_stream_loses_nothing() {
    let room = Room::new();
    let mut lines = stream();
    lines[3] = lines[3].replace("\"u4\"", "\"u2\"");
    let (ran, _) = play(&room, &lines, "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let kinds = kinds(&room);
    assert!(kinds.contains(&"tool.pre".to_owned()) && kinds.contains(&"message.complete".to_owned()), "{kinds:?}");
    room.verify();
}

#[test]
fn without_a_client_nothing_is_written() {
    let room = Room::new();
    let mut command = room.command(["exec", "Say hi"]);
    let ran = run(command.env("PATH", room.path("bin")));
    let told = ran.is_refused_with(3);
    assert!(told.contains("claude"), "{told}");
    assert!(room.has_no_ledger());
}

#[test]
fn recordings_of_the_client_of_today_replay() {
    let Some(real) = runledger_testkit::shared("real") else {
        return;
    };
    let cases = [
        ("plain", 0, "completed", json!([11, 27, 0, 200]), "d5283093-bc9e-4d2c-bb22-dd854fe61353"),
        ("tools", 0, "completed", json!([155, 350, 3240, 605]), "9333dd11-5c12-4379-904a-fd5bf63f363c"),
        ("sub", 0, "completed", json!([59, 146, 640, 524]), "b164e572-78c9-46f3-9ea5-e1570c78a63a"),
        ("api400", 1, "failed", json!([0, 0, 0, 0]), "f63dc3c2-3d3e-4fed-bbf5-ea0efbf96c17"),
    ];
    for (case, exit_code, status, figures, session) in cases {
        let room = Room::new();
        let file = real.join(format!("claude-code-2.1.330/{case}.stream.jsonl")).canonicalize().unwrap();
        fake(&room, &file, &format!("exit {exit_code}"));
        let ran = run(&mut room.command(["exec", "work"]));
        assert_eq!(ran.code, Some(if exit_code == 0 { 0 } else { 4 }), "{case}: {ran:?}");
        let shown = &room.json(["runs"])[0];
        assert_eq!(shown["status"], status, "{case}: {shown}");
        let tokens = &shown["tokens"];
        let own = json!([tokens["input"], tokens["output"], tokens["cache_read"], tokens["cache_write"]]);
        assert_eq!(own, figures, "{case}: {shown}");
        assert_eq!(shown["adapter_session_ids"], json!([session]), "{case}");
        // Each line of the recording stands, as it came, in exactly one event.
        let told = room.ok(["events", "--json"]);
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            assert_eq!(told.matches(line).count(), 1, "{case}: {line}");
        }
        if case == "api400" {
            assert_ne!(shown["stop_reason"], Value::Null);
        }
        room.verify();
    }
}
