//! What each kind of rollout line becomes, on lines written by hand for this.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{NOW, assert_bounded, assert_told, events, hostile_lines};
use runledger_adapters::{AdapterError, CodexRollout, LineAdapter};
use runledger_events::EventKind;

const META: &str = r#"{"timestamp":"2025-10-20T22:40:00.250Z","ordinal":0,"type":"session_meta","payload":{"session_id":"s1","id":"s1","cwd":"/srv/demo","source":"exec","base_instructions":{"provenance":{"type":"model","model":"large"}}}}"#;
const STARTED: &str = r#"{"timestamp":"2025-10-20T22:40:01Z","ordinal":1,"type":"event_msg","payload":{"type":"task_started","turn_id":"n1"}}"#;

fn snapshot(name: &str, lines: &[&str]) {
    assert_told(&format!("codex_rollout__{name}"), &mut CodexRollout::new(), lines);
}

/// A call of this tool, and the events of it and of its output, after a thread began.
fn call_and_output(call: &str, output: &str) -> Vec<serde_json::Value> {
    let mut rollout = CodexRollout::new();
    let output = serde_json::Value::from(output);
    let call = format!(r#"{{"type":"response_item","payload":{{"type":"function_call","call_id":"c1",{call}}}}}"#);
    let output = format!(
        r#"{{"type":"response_item","payload":{{"type":"function_call_output","call_id":"c1","output":{output}}}}}"#
    );
    let told = [call, output].into_iter().flat_map(|line| events(&mut rollout, &line)).collect::<Vec<_>>();
    told.iter().map(|event| serde_json::from_str(event.json()).unwrap()).collect()
}

#[test]
fn a_turn_is_told_with_what_it_cost() {
    snapshot(
        "turn",
        &[
            META,
            STARTED,
            r#"{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"<environment_context>"}]}}"#,
            r#"{"type":"turn_context","payload":{"turn_id":"n1","cwd":"/srv/demo/sub","model":"large"}}"#,
            r#"{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"go"}]}}"#,
            r#"{"timestamp":"2025-10-20T22:40:02Z","type":"event_msg","payload":{"type":"item_completed","turn_id":"n1","item":{"type":"UserMessage","id":"i1","content":[{"type":"text","text":"go"}]}}}"#,
            r#"{"type":"response_item","payload":{"type":"reasoning","id":"r1","summary":[{"type":"summary_text","text":"Hm."},{"type":"summary_text","text":"So."}],"content":[{"type":"reasoning_text","text":"words"}]}}"#,
            r#"{"type":"event_msg","payload":{"type":"agent_message","message":"I look."}}"#,
            r#"{"type":"response_item","payload":{"type":"message","id":"m1","role":"assistant","phase":"commentary","content":[{"type":"output_text","text":"I look."}]}}"#,
            r#"{"type":"event_msg","payload":{"type":"token_count","info":null}}"#,
            r#"{"type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":300,"cached_input_tokens":100,"output_tokens":25},"last_token_usage":{"input_tokens":300,"cached_input_tokens":100,"output_tokens":25},"model_context_window":1000}}}"#,
            r#"{"ordinal":9,"type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":300,"cached_input_tokens":100,"output_tokens":25},"last_token_usage":{"input_tokens":300,"cached_input_tokens":100,"output_tokens":25},"model_context_window":1000}}}"#,
            r#"{"type":"event_msg","payload":{"type":"task_complete","turn_id":"n1","last_agent_message":"I look."}}"#,
            r#"{"type":"compacted","payload":{"message":"short"}}"#,
            r#"{"type":"event_msg","payload":{"type":"task_complete","turn_id":"n2","last_agent_message":null,"error":{"message":"no"}}}"#,
            r#"{"type":"event_msg","payload":{"type":"turn_aborted","turn_id":"n3","reason":"interrupted"}}"#,
        ],
    );
}

#[test]
fn tool_calls_are_told_by_the_names_that_hooks_use() {
    snapshot(
        "tools",
        &[
            META,
            STARTED,
            r#"{"type":"response_item","payload":{"type":"function_call","name":"exec_command","arguments":"{\"cmd\": \"ls; echo \\ud83d\", \"yield_time_ms\": 1}","call_id":"c1"}}"#,
            r#"{"type":"response_item","payload":{"type":"function_call_output","call_id":"c1","output":"Chunk ID: a\nWall time: 0.1 seconds\nProcess exited with code 2\nOutput:\na\nOutput:\nb\n"}}"#,
            r#"{"type":"response_item","payload":{"type":"custom_tool_call","name":"apply_patch","input":"*** Begin Patch\n","call_id":"c2"}}"#,
            r#"{"type":"response_item","payload":{"type":"custom_tool_call_output","call_id":"c2","output":"Exit code: 0\nOutput:\nDone.\n"}}"#,
            r#"{"type":"response_item","payload":{"type":"function_call","name":"update_plan","arguments":"{\"explanation\":\"why\",\"plan\":[{\"step\":\"a\",\"status\":\"pending\"}]}","call_id":"c3"}}"#,
            r#"{"type":"response_item","payload":{"type":"function_call_output","call_id":"c3","output":"Plan updated"}}"#,
            r#"{"type":"response_item","payload":{"type":"function_call","name":"js","namespace":"mcp__repl__","arguments":"torn","call_id":"c4"}}"#,
            r#"{"type":"response_item","payload":{"type":"local_shell_call","call_id":"c5","action":{"type":"exec","command":["bash","-lc","ls"]}}}"#,
            r#"{"type":"response_item","payload":{"type":"local_shell_call_output","call_id":"c5","output":"{\"output\":\"a\",\"metadata\":{\"exit_code\":1}}"}}"#,
            r#"{"type":"response_item","payload":{"type":"function_call_output","call_id":"nobodys","output":[{"type":"input_text","text":"a"}]}}"#,
        ],
    );
}

#[test]
fn a_tool_that_did_not_run_failed_and_a_command_that_failed_ran() {
    let kind = |output: &str| {
        let told = call_and_output(r#""name":"exec_command","arguments":"{\"cmd\":\"ls\"}""#, output);
        let (kind, data) = (&told[1]["kind"], &told[1]["data"]);
        (kind.as_str().unwrap().to_owned(), data["is_interrupt"].as_bool(), data["exit_code"].as_i64())
    };
    let failed = |is_interrupt: bool| (String::from("tool.failure"), Some(is_interrupt), None);
    assert_eq!(kind("Command blocked by PreToolUse hook: no. Command: ls"), failed(false));
    assert_eq!(kind("unsupported call: x"), failed(false));
    assert_eq!(kind("exec_command failed: CreateProcess"), failed(false));
    assert_eq!(kind("Wall time: 2.7 seconds\naborted by user"), failed(true));
    assert_eq!(kind("aborted by user after 3s"), failed(true));
    let ran = |code: Option<i64>| (String::from("tool.post"), None, code);
    assert_eq!(kind("Exit code: 1\nOutput:\naborted by user\n"), ran(Some(1)));
    assert_eq!(kind("says:\naborted by user"), ran(None));
    assert_eq!(kind("says Output:\nx"), ran(None));
}

#[test]
fn commands_are_told_as_hooks_tell_them_however_the_model_gave_them() {
    let command = |name: &str, arguments: &str| {
        let arguments = serde_json::Value::from(arguments);
        let told = call_and_output(&format!(r#""name":"{name}","arguments":{arguments}"#), "");
        assert_eq!(told[0]["toolName"], "Bash");
        told[0]["data"]["tool_input"]["command"].as_str().unwrap().to_owned()
    };
    assert_eq!(command("exec_command", r#"{"cmd":"ls"}"#), "ls");
    assert_eq!(command("shell_command", r#"{"command":"ls"}"#), "ls");
    assert_eq!(command("shell", r#"{"command":["bash","-lc","ls | wc"]}"#), "ls | wc");
    assert_eq!(command("shell", r#"{"command":["git","log","-1"]}"#), "git log -1");
}

#[test]
fn a_child_thread_belongs_to_its_parents_session() {
    snapshot(
        "child",
        &[
            r#"{"type":"session_meta","payload":{"session_id":"s1","id":"t2","parent_thread_id":"s1","source":{"subagent":{"thread_spawn":{"parent_thread_id":"s1","agent_role":"explorer"}}},"cwd":"/srv/demo"}}"#,
            r#"{"type":"event_msg","payload":{"type":"user_message","message":"look"}}"#,
            r#"{"type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":3,"output_tokens":2}}}}"#,
        ],
    );
}

#[test]
fn a_fork_has_a_source_and_only_its_own_figures_and_one_beginning() {
    let mut rollout = CodexRollout::new();
    let mut told = |line: &str| -> serde_json::Value {
        let told = events(&mut rollout, line);
        serde_json::from_str(told[0].json()).unwrap()
    };
    let fork = told(r#"{"type":"session_meta","payload":{"id":"s2","forked_from_id":"s1"}}"#);
    assert_eq!((&fork["sessionId"], &fork["data"]["source"]), (&"s2".into(), &"fork".into()));
    let copied = told(r#"{"type":"session_meta","payload":{"id":"s1"}}"#);
    assert_eq!((&copied["sessionId"], &copied["kind"]), (&"s2".into(), &"unknown".into()));
    let count = |input: u64| {
        format!(
            r#"{{"type":"event_msg","payload":{{"type":"token_count","info":{{"total_token_usage":{{"input_tokens":{input}}},"last_token_usage":{{"input_tokens":30}}}}}}}}"#
        )
    };
    assert_eq!(told(&count(530))["data"]["usage"]["input"], 30);
    assert_eq!(told(&count(560))["data"]["usage"]["input"], 60);
}

#[test]
fn any_line_is_told_or_refused_without_a_panic() {
    let lines = [
        META,
        r#"{"type":"session_meta","payload":{"session_id":"s1","id":"t2","parent_thread_id":"s1","source":{"subagent":{"thread_spawn":{"parent_thread_id":"s1","agent_role":"x"}}}}}"#,
        r#"{"timestamp":"2025-10-20T22:40:02Z","type":"event_msg","payload":{"type":"item_completed","turn_id":"n1","item":{"type":"UserMessage","content":[{"type":"text","text":"go"}]}}}"#,
        r#"{"type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":300,"cached_input_tokens":100,"output_tokens":25},"last_token_usage":{"input_tokens":300},"model_context_window":1000}}}"#,
        r#"{"type":"response_item","payload":{"type":"function_call","name":"exec_command","namespace":"n","arguments":"{\"cmd\":\"ls\"}","call_id":"c1","action":{"command":["a"]}}}"#,
        r#"{"type":"response_item","payload":{"type":"function_call_output","call_id":"c1","output":"Wall time: 1\nOutput:\nx"}}"#,
        r#"{"type":"response_item","payload":{"type":"function_call","name":"update_plan","arguments":"{\"plan\":[]}","call_id":"c3"}}"#,
        r#"{"type":"response_item","payload":{"type":"reasoning","id":"r1","summary":[{"text":"Hm."}],"content":[{"text":"x"}]}}"#,
        r#"{"type":"response_item","payload":{"type":"message","id":"m1","role":"assistant","phase":"p","content":[{"text":"x"}],"internal_chat_message_metadata_passthrough":{"turn_id":"n"}}}"#,
    ];
    let mut rollout = CodexRollout::new();
    for line in hostile_lines(&lines) {
        match rollout.line(&line, Some(NOW)) {
            Ok(events) => {
                assert!(!events.is_empty() && events[0].json().ends_with(&format!("{}}}", line.trim())), "{line}");
                assert!(events.iter().all(|event| !matches!(event.kind(), EventKind::Other(_))), "{line}");
            }
            Err(AdapterError::NotAnObject { .. }) => {}
            Err(error) => panic!("{error}: {line}"),
        }
    }
}

#[test]
fn a_line_of_long_texts_and_many_blocks_takes_bounded_memory() {
    let long = "x".repeat(1 << 20);
    let of = |count: usize| {
        let blocks = vec![r#"{"text":""}"#; count].join(",");
        let payload = format!(
            r#"{{"type":"reasoning","id":"{long}","turn_id":"{long}","summary":[{blocks}],"content":[{blocks}]}}"#
        );
        format!(r#"{{"type":"response_item","payload":{payload}}}"#)
    };
    let meta = format!(r#"{{"type":"session_meta","payload":{{"id":"t","cwd":"{long}"}}}}"#);
    assert_bounded(&mut CodexRollout::new(), &[meta, of(1000), of(100_000)]);
}
