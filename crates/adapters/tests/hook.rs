//! What each hook payload becomes, on payloads written by hand for this.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{NOW, assert_told, hostile_lines, told};
use runledger_adapters::{AdapterError, HookLines, LineAdapter, hook_event};
use runledger_events::{EventKind, RuntimeEvent, Source, TimestampMs};

/// A payload of this hook with these further fields.
fn payload(hook: &str, fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { "," };
    format!(
        r#"{{"session_id":"s1","transcript_path":"/t/s1.jsonl","cwd":"/srv/demo","prompt_id":"p1","hook_event_name":"{hook}"{comma}{fields}}}"#
    )
}

fn snapshot(name: &str, payloads: &[(&str, &str)]) {
    let lines: Vec<String> = payloads.iter().map(|(hook, fields)| payload(hook, fields)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_told(&format!("hook__{name}"), &mut HookLines::new(), &lines);
}

fn only(line: &str) -> RuntimeEvent {
    let mut events = HookLines::new().line(line, Some(NOW)).unwrap();
    assert_eq!(events.len(), 1, "{line}");
    events.swap_remove(0)
}

#[test]
fn hooks_of_a_session_and_its_turns_are_told() {
    snapshot(
        "of_a_session",
        &[
            ("SessionStart", r#""source":"resume","model":"m","agent_type":"main","context_tokens":9"#),
            ("UserPromptSubmit", r#""permission_mode":"default","prompt":"go 😀""#),
            ("Stop", r#""permission_mode":"plan","stop_hook_active":false,"last_assistant_message":"done""#),
            ("StopFailure", r#""error":"server_error","last_assistant_message":"API Error: 529""#),
            ("Interrupt", r#""turn_id":"t1","model":"m""#),
            ("PreCompact", r#""trigger":"manual","custom_instructions":null"#),
            ("PostCompact", r#""trigger":"manual","compact_summary":"short""#),
            ("SessionEnd", r#""reason":"other""#),
        ],
    );
}

#[test]
fn hooks_of_tools_and_permissions_are_told() {
    snapshot(
        "of_tools",
        &[
            ("PreToolUse", r#""tool_name":"Bash","tool_input":{"command":"ls", "n":1e999},"tool_use_id":"t1""#),
            ("PermissionRequest", r#""tool_name":"Bash","tool_input":{},"permission_suggestions":[{"type":"x"}]"#),
            ("PermissionDenied", r#""tool_name":"Bash","tool_input":{},"tool_use_id":"t1","reason":"no""#),
            (
                "PostToolUse",
                r#""tool_name":"Bash","tool_input":{},"tool_response":{"stdout":"a"},"tool_use_id":"t1","duration_ms":3"#,
            ),
            (
                "PostToolUseFailure",
                r#""tool_name":"Bash","tool_input":{},"tool_use_id":"t2","error":"Exit code 1","is_interrupt":false"#,
            ),
            ("PostToolBatch", r#""tool_calls":[{"tool_name":"Bash","tool_use_id":"t1","tool_response":"a"}]"#),
        ],
    );
}

#[test]
fn hooks_of_subagents_and_teams_are_told() {
    snapshot(
        "of_subagents",
        &[
            ("SubagentStart", r#""agent_id":"a1","agent_type":"Explore""#),
            (
                "PreToolUse",
                r#""agent_id":"a1","agent_type":"Explore","tool_name":"Read","tool_input":{},"tool_use_id":"t1""#,
            ),
            (
                "SubagentStop",
                r#""agent_id":"a1","agent_type":"Explore","stop_hook_active":false,"agent_transcript_path":"/t/a1.jsonl","last_assistant_message":"Fine.""#,
            ),
            ("TaskCreated", r#""task_id":"1","task_subject":"a","task_description":"b""#),
            ("TaskCompleted", r#""task_id":"1","task_subject":"a","teammate_name":"n","team_name":"m""#),
            ("TeammateIdle", r#""teammate_name":"n","team_name":"m""#),
        ],
    );
}

#[test]
fn the_other_hooks_have_kinds_of_their_own_or_are_unknown() {
    snapshot(
        "of_other_things",
        &[
            ("Notification", r#""message":"Claude needs you","notification_type":"permission_prompt""#),
            ("Setup", r#""trigger":"init""#),
            ("ConfigChange", r#""source":"project_settings","file_path":"/s.json""#),
            ("CwdChanged", r#""old_cwd":"/srv","new_cwd":"/srv/demo/sub""#),
            ("FileChanged", r#""file_path":"/a","event":"change""#),
            ("Elicitation", r#""mcp_server_name":"srv","requested_schema":{"type":"object"}"#),
            ("ElicitationResult", r#""mcp_server_name":"srv","action":"accept","content":{"a":1}"#),
            ("InstructionsLoaded", r#""file_path":"/CLAUDE.md","load_reason":"session_start""#),
            ("OfTomorrow", r#""half":"\ud83d""#),
        ],
    );
}

#[test]
fn a_message_of_one_piece_is_told_whole_and_one_of_several_by_its_pieces() {
    let piece = |index: u32, is_final: bool| {
        let fields = format!(r#""turn_id":"t1","message_id":"m1","index":{index},"final":{is_final},"delta":"words""#);
        let json = only(&payload("MessageDisplay", &fields)).into_json();
        let kind = json.split(r#""kind":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
        let data = json.split(r#""data":"#).nth(1).unwrap().split(r#","hookName""#).next().unwrap().to_owned();
        (kind, data)
    };
    let told = |kind: &str, data: &str| (kind.to_owned(), format!(r#"{{{data},"prompt_id":"p1","turn_id":"t1"}}"#));
    assert_eq!(piece(0, true), told("message.complete", r#""item_id":"m1","message":"words""#));
    assert_eq!(piece(0, false), told("message.delta", r#""item_id":"m1","delta":"words","index":0"#));
    assert_eq!(piece(3, true), told("message.complete", r#""item_id":"m1","delta":"words","index":3"#));
}

#[test]
fn what_a_recorder_put_around_a_payload_stands_beside_it() {
    let lines = [
        r#"{"ts": 1795347701394, "type": "Stop", "data": {"session_id":"s1", "n":1e999,"half":"\ud83d", "hook_event_name":"Stop"}, "env": ["CODEX_X"], "run_id": "r1", "answer": {"out":"\ude00"}}"#,
        r#"{"ts": "2025-12-08T18:24:53.159936", "type": "AssistantResponse", "session_id": "s2", "data": {"response": "words"}}"#,
        r#"{"ts": "soon", "type": "Notification", "session_id": "s2", "data": {"session_id": "s3"}}"#,
        r#"{"session_id":"s1","hook_event_name":"Tomorrow","data":{"a":1}}"#,
    ];
    assert_told("hook__recorder", &mut HookLines::new(), &lines);
    let json = only(lines[0]).into_json();
    assert!(json.contains(r#""payload":{"session_id":"s1", "n":1e999,"half":"\ud83d", "hook_event_name":"Stop"}"#));
    assert!(json.contains(r#""answer":{"out":"\ude00"}"#), "{json}");
}

#[test]
fn only_a_permission_request_expects_a_decision() {
    for hook in ["SessionStart", "PreToolUse", "PermissionRequest", "Stop", "Elicitation", "Tomorrow"] {
        let event = only(&payload(hook, ""));
        assert_eq!(event.facts().expects_decision, hook == "PermissionRequest", "{hook}");
    }
}

#[test]
fn ids_are_made_of_the_text_and_count_lines_of_one_text() {
    let line = payload("Stop", "");
    let ids = || {
        let mut lines = HookLines::new();
        let texts = [line.clone(), payload("SessionEnd", ""), format!("  {line}\n")];
        texts.map(|text| lines.line(&text, Some(NOW)).unwrap()[0].id().unwrap().clone())
    };
    let [first, other, again] = ids();
    assert_eq!(again.as_str(), format!("{}#2", first.as_str()));
    assert_ne!(first, other);
    assert_eq!(Source::of(&first), Source::Hook);
    assert_eq!(ids(), [first, other, again]);
}

#[test]
fn a_live_hook_has_the_id_that_it_is_given_and_the_same_data_as_its_line() {
    let line = payload("PreToolUse", r#""tool_name":"Bash","tool_input":{},"tool_use_id":"t1""#);
    let live = hook_event(&format!("{line}\n"), "0198", TimestampMs(7)).unwrap();
    assert_eq!(live.id().unwrap().as_str(), "hook:0198");
    assert_eq!(live.occurred_at(), Some(TimestampMs(7)));
    assert_eq!(live.facts(), only(&line).facts());
    assert!(matches!(hook_event("", "n", NOW), Err(AdapterError::NotAnObject { .. })));
    assert!(matches!(hook_event("{}", &"n".repeat(2000), NOW), Err(AdapterError::Event { .. })));
}

#[test]
fn any_payload_is_told_or_refused_without_a_panic() {
    let base = payload(
        "MessageDisplay",
        r#""tool_name":"B","tool_use_id":"t","index":1,"final":true,"agent_id":"a","agent_type":"b""#,
    );
    let wrapped = format!(r#"{{"ts":1,"type":"Stop","session_id":"x","data":{base},"env":[]}}"#);
    for line in hostile_lines(&[&base, &wrapped]) {
        let mut lines = HookLines::new();
        match lines.line(&line, Some(NOW)) {
            Ok(events) => {
                assert_eq!(events.len(), 1);
                assert!(!matches!(events[0].kind(), EventKind::Other(_)), "{line}");
                assert!(hook_event(&line, "n", NOW).is_ok());
            }
            Err(AdapterError::NotAnObject { .. }) => {}
            Err(error) => panic!("{error}: {line}"),
        }
    }
    assert!(told(&mut HookLines::new(), &["{}"]).contains("unknown"));
}
