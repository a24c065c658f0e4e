//! What each kind of line of `codex exec --json` becomes, on lines written by hand for this.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{NOW, assert_bounded, assert_told, events, hostile_lines};
use runledger_adapters::{AdapterError, CodexJson, CodexOutcome, LineAdapter};
use runledger_events::{EventKind, Tokens};

const STARTED: &str = r#"{"type":"thread.started","thread_id":"t1"}"#;

fn snapshot(name: &str, lines: &[&str]) {
    assert_told(&format!("codex_json__{name}"), &mut CodexJson::new(), lines);
}

fn ids(json: &mut CodexJson, lines: &[&str]) -> Vec<String> {
    let told = lines.iter().flat_map(|line| events(json, line));
    told.map(|event| event.id().unwrap().as_str().to_owned()).collect()
}

#[test]
fn a_turn_is_told_item_by_item() {
    snapshot(
        "turn",
        &[
            STARTED,
            r#"{"type":"item.completed","item":{"id":"item_0","type":"error","message":"a warning"}}"#,
            r#"{"type":"turn.started"}"#,
            r#"{"type":"item.completed","item":{"id":"item_1","type":"reasoning","text":"Hm."}}"#,
            r#"{"type":"item.completed","item":{"id":"item_2","type":"agent_message","text":"I look."}}"#,
            r#"{"type":"item.started","item":{"id":"item_3","type":"command_execution","command":"/bin/bash -lc 'ls; echo x'","aggregated_output":"","exit_code":null,"status":"in_progress"}}"#,
            r#"{"type":"item.updated","item":{"id":"item_3","type":"command_execution","command":"/bin/bash -lc 'ls; echo x'","aggregated_output":"x","status":"in_progress"}}"#,
            r#"{"type":"item.completed","item":{"id":"item_3","type":"command_execution","command":"/bin/bash -lc 'ls; echo x'","aggregated_output":"x\n","exit_code":2,"status":"failed"}}"#,
            r#"{"type":"item.completed","item":{"id":"item_4","type":"command_execution","command":"rm -rf /","status":"declined"}}"#,
            r#"{"type":"item.started","item":{"id":"item_5","type":"file_change","changes":[{"path":"/a","kind":"add"}],"status":"in_progress"}}"#,
            r#"{"type":"item.completed","item":{"id":"item_5","type":"file_change","changes":[{"path":"/a","kind":"add"}],"status":"completed"}}"#,
            r#"{"type":"item.completed","item":{"id":"item_6","type":"mcp_tool_call","server":"s","tool":"x","arguments":{"a":1},"result":{"content":[]},"error":null,"status":"completed"}}"#,
            r#"{"type":"item.completed","item":{"id":"item_7","type":"mcp_tool_call","server":"s","tool":"x","arguments":{},"result":null,"error":{"message":"no"},"status":"failed"}}"#,
            r#"{"type":"item.started","item":{"id":"item_8","type":"todo_list","items":[{"text":"look","completed":true},{"text":"write","completed":false}]}}"#,
            r#"{"type":"turn.completed","usage":{"input_tokens":300,"cached_input_tokens":100,"output_tokens":25}}"#,
        ],
    );
}

#[test]
fn agents_are_told_as_far_as_the_lines_do() {
    snapshot(
        "agents",
        &[
            STARTED,
            r#"{"type":"item.started","item":{"id":"item_1","type":"collab_tool_call","tool":"spawn_agent","sender_thread_id":"t1","receiver_thread_ids":[],"prompt":"look","agents_states":{},"status":"in_progress"}}"#,
            r#"{"type":"item.completed","item":{"id":"item_1","type":"collab_tool_call","tool":"spawn_agent","sender_thread_id":"t1","receiver_thread_ids":["a1"],"prompt":"look","agents_states":{"a1":{"status":"pending_init","message":null}},"status":"completed"}}"#,
            r#"{"type":"item.completed","item":{"id":"item_2","type":"collab_tool_call","tool":"wait","sender_thread_id":"t1","receiver_thread_ids":["a1"],"prompt":null,"agents_states":{"a1":{"status":"completed","message":"Fine."}},"status":"completed"}}"#,
            r#"{"type":"item.completed","item":{"id":"item_3","type":"collab_tool_call","tool":"close_agent","agents_states":{"a1":{"status":"shutdown"}},"status":"completed"}}"#,
        ],
    );
}

#[test]
fn an_error_that_may_be_tried_again_ends_no_turn() {
    let mut json = CodexJson::new();
    let kinds = |json: &mut CodexJson, line: &str| -> Vec<String> {
        events(json, line).iter().map(|event| event.kind().to_string()).collect()
    };
    kinds(&mut json, STARTED);
    assert_eq!(json.outcome(), None);
    assert_eq!(kinds(&mut json, r#"{"type":"error","message":"Reconnecting... 1/5"}"#), ["notification"]);
    assert!(json.outcome().unwrap().is_error, "should the process end here");
    kinds(&mut json, r#"{"type":"item.completed","item":{"id":"item_0","type":"agent_message","text":"Done."}}"#);
    kinds(&mut json, r#"{"type":"turn.completed","usage":{"input_tokens":1}}"#);
    let ended = CodexOutcome { is_error: false, last_message: Some(String::from("Done.")), error: None };
    assert_eq!(json.outcome(), Some(&ended));

    assert_eq!(kinds(&mut json, r#"{"type":"turn.failed","error":{"message":"no"}}"#), ["turn.complete"]);
    let failed = CodexOutcome { is_error: true, error: Some(String::from("no")), ..ended };
    assert_eq!(json.outcome(), Some(&failed));
}

#[test]
fn tokens_are_the_threads_and_what_came_before_is_taken_off() {
    let mut json = CodexJson::new();
    assert!(json.tokens().is_unknown());
    events(
        &mut json,
        r#"{"type":"turn.completed","usage":{"input_tokens":300,"cached_input_tokens":100,"output_tokens":25}}"#,
    );
    let before = Tokens { input: Some(50), output: Some(5), total: Some(55), ..Tokens::default() };
    let tokens = json.tokens_beyond(&before);
    assert_eq!((json.tokens().total, tokens.total, tokens.input), (Some(325), Some(270), Some(150)));
    events(&mut json, r#"{"type":"turn.completed"}"#);
    assert_eq!(json.tokens().total, Some(325), "what is not told stays as it was");
}

#[test]
fn the_same_line_has_an_id_of_its_own_each_time_it_comes() {
    let message = r#"{"type":"item.completed","item":{"id":"item_0","type":"agent_message","text":"again"}}"#;
    let lines = [STARTED, message, message];
    let first = ids(&mut CodexJson::new(), &lines);
    assert_eq!(first, ids(&mut CodexJson::new(), &lines));
    assert_ne!(first[1], first[2]);
    let mut later = CodexJson::of_process("run-1/2");
    assert!(ids(&mut later, &lines).iter().all(|id| !first.contains(id)), "another process tells other facts");
}

#[test]
fn items_of_one_number_in_two_processes_are_two_items() {
    let line = r#"{"type":"item.started","item":{"id":"item_1","type":"command_execution","command":"ls"}}"#;
    let call = |mut json: CodexJson, before: &str| -> serde_json::Value {
        events(&mut json, STARTED);
        events(&mut json, before);
        let told = events(&mut json, line);
        serde_json::from_str::<serde_json::Value>(told[0].json()).unwrap()["toolUseId"].clone()
    };
    let first = call(CodexJson::new(), "{}");
    assert!(first.as_str().unwrap().starts_with("t1/item_1/"), "{first}");
    assert_ne!(first, call(CodexJson::new(), r#"{"other":1}"#));
    assert_eq!(first, call(CodexJson::new(), "{}"));
}

#[test]
fn any_line_is_told_or_refused_without_a_panic() {
    let lines = [
        STARTED,
        r#"{"type":"turn.completed","usage":{"input_tokens":300,"cached_input_tokens":100,"output_tokens":25}}"#,
        r#"{"type":"turn.failed","error":{"message":"no"}}"#,
        r#"{"type":"item.completed","item":{"id":"i","type":"command_execution","command":"bash -lc 'x'","aggregated_output":"x","exit_code":2,"status":"failed"}}"#,
        r#"{"type":"item.completed","item":{"id":"i","type":"mcp_tool_call","server":"s","tool":"x","arguments":{},"error":{"message":"no"},"status":"failed"}}"#,
        r#"{"type":"item.updated","item":{"id":"i","type":"todo_list","items":[{"text":"a","completed":true}]}}"#,
        r#"{"type":"item.completed","item":{"id":"i","type":"collab_tool_call","tool":"spawn_agent","sender_thread_id":"t","receiver_thread_ids":["a"],"prompt":"p","agents_states":{"a":{"status":"completed","message":"m"}}}}"#,
    ];
    let mut json = CodexJson::new();
    for line in hostile_lines(&lines) {
        match json.line(&line, Some(NOW)) {
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
        let agents: Vec<String> = (0..count).map(|at| format!("\"{at}\"")).collect();
        let states: Vec<String> = agents.iter().map(|agent| format!(r#"{agent}:{{"status":"completed"}}"#)).collect();
        let item = format!(
            r#"{{"type":"collab_tool_call","tool":"spawn_agent","sender_thread_id":"{long}","prompt":"{long}","receiver_thread_ids":[{}],"agents_states":{{{}}}}}"#,
            agents.join(","),
            states.join(",")
        );
        format!(r#"{{"type":"item.completed","item":{item}}}"#)
    };
    assert_bounded(&mut CodexJson::new(), &[of(2), of(500), of(100_000)]);
}
