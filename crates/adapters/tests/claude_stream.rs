//! What each kind of line becomes, on lines written by hand for this.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{NOW, assert_bounded, hostile_lines, values_of};
use runledger_adapters::{AdapterError, ClaudeOutcome, ClaudeStream};
use runledger_events::{EventKind, KindFacts, RuntimeEvent, TimestampMs};

const INIT: &str =
    r#"{"type":"system","subtype":"init","cwd":"/srv/demo","session_id":"s1","model":"model-large","uuid":"u-init"}"#;

fn assert_told(name: &str, lines: &[&str]) {
    common::assert_told(&format!("claude_stream__{name}"), &mut ClaudeStream::new(), lines);
}

fn kinds(stream: &mut ClaudeStream, line: &str) -> Vec<String> {
    stream.line(line, NOW).unwrap().iter().map(|event| event.kind().to_string()).collect()
}

#[test]
fn a_turn_with_tools_is_told_block_by_block() {
    assert_told(
        "turn_with_tools",
        &[
            INIT,
            r#"{"type":"assistant","message":{"id":"m1","model":"model-large","usage":{"input_tokens":11,"output_tokens":1,"cache_read_input_tokens":0,"cache_creation_input_tokens":200},"content":[{"type":"thinking","thinking":"Hm.","signature":"x"}]},"parent_tool_use_id":null,"session_id":"s1","uuid":"u1","timestamp":"2025-10-20T22:40:00.250Z"}"#,
            r#"{"type":"assistant","message":{"id":"m1","content":[{"type":"text","text":"I look \ud83d\ude00\n."},{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls", "n": 1e999}},{"type":"thinking","thinking":"And"},{"type":"tool_use","id":"t2","name":"Read","input":{"file_path":"a"}}]},"parent_tool_use_id":null,"session_id":"s1","uuid":"u2","timestamp":"2025-10-20T22:40:00.500Z"}"#,
            r#"{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"a\nb","is_error":false}]},"session_id":"s1","uuid":"u3","tool_use_result":{"stdout":"a\nb"}}"#,
            r#"{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"one"},{"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"no"},{"type":"text","text":"file"}],"is_error":true}]},"session_id":"s1","uuid":"u4","tool_use_result":{"stdout":"of which?"}}"#,
            r#"{"type":"user","message":{"role":"user","content":"go on"},"session_id":"s1","uuid":"u5"}"#,
            r#"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"Stop hook feedback"},{"type":"image","source":{}}]},"isSynthetic":true,"session_id":"s1","uuid":"u6"}"#,
            r#"{"type":"system","subtype":"permission_denied","tool_name":"Bash","tool_use_id":"t1","decision_reason":"asks","message":"longer words","uuid":"u7","session_id":"s1"}"#,
            r#"{"type":"result","subtype":"success","is_error":false,"terminal_reason":"completed","result":"done","session_id":"s1","uuid":"u8","modelUsage":{"model-large":{"contextWindow":200000}},"model_usage_since_last_result":{"model-large":{"inputTokens":11,"outputTokens":27,"cacheReadInputTokens":0,"cacheCreationInputTokens":200}}}"#,
            INIT,
        ],
    );
}

#[test]
fn a_subagent_is_told_with_its_id_and_type() {
    assert_told(
        "subagent",
        &[
            INIT,
            r#"{"type":"system","subtype":"task_started","task_id":"a1","tool_use_id":"t1","subagent_type":"Explore","task_type":"local_agent","prompt":"look","uuid":"u1","session_id":"s1"}"#,
            r#"{"type":"assistant","message":{"id":"m1","content":[{"type":"tool_use","id":"c1","name":"Bash","input":{}}]},"parent_tool_use_id":"t1","session_id":"s1","uuid":"u2","agent_id":"a1","subagent_type":"Explore"}"#,
            r#"{"type":"system","subtype":"permission_denied","tool_name":"Bash","tool_use_id":"c1","agent_id":"a1","message":"needs approval","uuid":"u3","session_id":"s1"}"#,
            r#"{"type":"system","subtype":"task_notification","task_id":"a1","tool_use_id":"t1","status":"completed","summary":"Fine.","summary_is_report":true,"uuid":"u4","session_id":"s1"}"#,
        ],
    );
}

#[test]
fn the_other_lines_of_the_client_are_notifications_or_unknown() {
    assert_told(
        "other_lines",
        &[
            INIT,
            r#"{"type":"system","subtype":"api_retry","attempt":1,"max_retries":10,"retry_delay_ms":519,"error_status":529,"error":"overloaded","session_id":"s1","uuid":"u1"}"#,
            r#"{"type":"system","subtype":"notification","key":"stop-hook-error","text":"stop hook problem","session_id":"s1","uuid":"u2"}"#,
            r#"{"type":"system","subtype":"informational","content":"A hook gave no usable answer.","level":"warning","session_id":"s1","uuid":"u3"}"#,
            r#"{"type":"system","subtype":"compact_boundary","compact_metadata":{"trigger":"manual"},"session_id":"s1","uuid":"u4"}"#,
            r#"{"type":"stream_event","event":{"type":"message_stop"},"session_id":"s1","uuid":"u5"}"#,
            r#"{"type":"system","subtype":"of_tomorrow","session_id":"s1"}"#,
            r#"{"type":"assistant","message":{"id":"m1","content":[{"type":"redacted_thinking"}, 7]}}"#,
            r#"{"type":"assistant","message":{"id":"m1","content":[]}}"#,
            r#"{}"#,
        ],
    );
}

#[test]
fn a_background_shell_is_no_subagent() {
    let mut stream = ClaudeStream::new();
    let started = r#"{"type":"system","subtype":"task_started","task_id":"b1","task_type":"local_bash"}"#;
    assert_eq!(kinds(&mut stream, started), ["unknown"]);
    let ended = r#"{"type":"system","subtype":"task_notification","task_id":"b1","status":"completed"}"#;
    assert_eq!(kinds(&mut stream, ended), ["unknown"]);
}

#[test]
fn the_session_is_that_of_the_init_line_and_not_of_the_hook_lines_before_it() {
    let mut stream = ClaudeStream::new();
    let hook = r#"{"type":"system","subtype":"hook_started","session_id":"passing","uuid":"u0"}"#;
    let events = stream.line(hook, NOW).unwrap();
    assert_eq!(events[0].adapter_session_id(), None);
    assert!(events[0].json().contains("passing"), "the payload is whole");
    assert_eq!(stream.adapter_session_id(), None);
    stream.line(INIT, NOW).unwrap();
    assert_eq!(stream.adapter_session_id().map(|id| id.as_str()), Some("s1"));
}

#[test]
fn the_line_stays_in_the_payload_character_by_character() {
    let line = r#"{"type" : "assistant","n":1e999,"big":123456789012345678901234567890.50,"half":"\ud83d","message":{"id":"m1","content":[{"type":"text","text":"half \ud83d"},{"type":"tool_use","id":"t1","name":"X","input":{"n":1E+400}}]},"n":2,"uuid":"u1"}"#;
    let events = ClaudeStream::new().line(&format!("  {line}\n"), NOW).unwrap();
    assert!(events[0].json().ends_with(&format!(r#""payload":{line}}}"#)));
    assert!(events[0].json().contains(r#""message":"half \ufffd""#));
    assert!(!events[1].json().contains("payload"));
    assert!(events[1].json().contains(r#""tool_input":{"n":1E+400}"#));
    let ids: Vec<_> = events.iter().map(|event| event.id().unwrap().as_str().to_owned()).collect();
    assert_eq!(ids, ["stream:u1", "stream:u1#1"]);
}

#[test]
fn a_time_is_the_lines_own_where_it_has_one() {
    let time = |line: &str| ClaudeStream::new().line(line, NOW).unwrap()[0].occurred_at();
    assert_eq!(time(r#"{"timestamp":"2024-02-29T23:59:59.999Z"}"#), Some(TimestampMs(1_709_251_199_999)));
    assert_eq!(time(r#"{"timestamp":"2024-03-01T01:59:59+02:00"}"#), Some(TimestampMs(1_709_251_199_000)));
    assert_eq!(time(r#"{"timestamp":"2023-02-29T00:00:00Z"}"#), Some(NOW), "no such day");
    assert_eq!(time(r#"{"timestamp":1761000000250}"#), Some(NOW));
    assert_eq!(time("{}"), Some(NOW));
}

#[test]
fn ids_that_the_ledger_does_not_take_are_not_taken_over() {
    let long = "x".repeat(1025);
    let line = format!(r#"{{"type":"result","uuid":"{long}","session_id":"{long}"}}"#);
    let events = ClaudeStream::new().line(&line, NOW).unwrap();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.adapter_session_id().is_none()));
    let id = events[0].id().unwrap().as_str().to_owned();
    assert_eq!(id.len(), "stream:".len() + 32, "named by its text");
    assert_eq!(events[1].id().unwrap().as_str(), format!("{id}/1"));
    let empty = ClaudeStream::new().line(r#"{"uuid":"","session_id":""}"#, NOW).unwrap();
    assert!(empty[0].id().is_some() && empty[0].adapter_session_id().is_none());
}

#[test]
fn the_outcome_is_that_of_the_last_result_line() {
    let mut stream = ClaudeStream::new();
    stream.line(r#"{"type":"result","subtype":"success","is_error":false,"result":"done"}"#, NOW).unwrap();
    let line = r#"{"type":"result","subtype":"error_during_execution","is_error":true,"terminal_reason":"aborted_tools","errors":["one",{"text":2}]}"#;
    stream.line(line, NOW).unwrap();
    let expected = ClaudeOutcome {
        is_error: true,
        subtype: Some(String::from("error_during_execution")),
        terminal_reason: Some(String::from("aborted_tools")),
        result: None,
        errors: vec![String::from("one"), String::from(r#"{"text":2}"#)],
        deferred_tool_use_id: None,
    };
    assert_eq!(stream.outcome(), Some(&expected));
}

#[test]
fn an_api_error_is_told_as_success_and_ends_the_turn_with_error() {
    let mut stream = ClaudeStream::new();
    let line = r#"{"type":"result","subtype":"success","is_error":true,"terminal_reason":"api_error"}"#;
    let events = stream.line(line, NOW).unwrap();
    assert!(
        matches!(&events[1].facts().data, KindFacts::Turn { status: Some(status), .. } if status == "error"),
        "{:?}",
        events[1]
    );
    assert!(stream.outcome().unwrap().is_error);
}

#[test]
fn usage_is_told_as_what_the_process_has_cost_and_what_the_line_adds() {
    let mut stream = ClaudeStream::new();
    let line = r#"{"type":"result","usage":{"input_tokens":1,"output_tokens":2,"cache_read_input_tokens":3,"cache_creation_input_tokens":4}}"#;
    stream.line(line, NOW).unwrap();
    let events = stream.line(line, NOW).unwrap();
    let KindFacts::Usage { usage, delta, .. } = &events[0].facts().data else { panic!("{:?}", events[0]) };
    assert_eq!((usage.total, delta.total), (Some(20), Some(10)));
    assert_eq!(*usage, stream.tokens());
}

#[test]
fn a_tool_call_counts_once_though_its_line_comes_twice() {
    let mut stream = ClaudeStream::new();
    let line = r#"{"type":"assistant","message":{"id":"m1","content":[{"type":"tool_use","id":"t1","name":"X","input":{}},{"type":"tool_use","id":"t2","name":"X","input":{}}]}}"#;
    stream.line(line, NOW).unwrap();
    stream.line(line, NOW).unwrap();
    assert_eq!(stream.tool_uses(), 2);
}

#[test]
fn a_line_that_is_no_object_is_an_error_and_changes_nothing() {
    let mut stream = ClaudeStream::new();
    stream.line(INIT, NOW).unwrap();
    let lines =
        ["", "   ", "null", "7", "[]", "\"x\"", "{", r#"{"type":"result""#, "Invalid API key", "{}{}", "\u{feff}{}"];
    for line in lines {
        let error = stream.line(line, NOW).unwrap_err();
        assert!(matches!(error, AdapterError::NotAnObject { .. }), "{line}");
        assert!(error.to_string().starts_with("a line of the harness is no JSON object: "), "{error}");
    }
    assert!(stream.outcome().is_none());
    assert_eq!(kinds(&mut stream, INIT), ["turn.start"]);
}

#[test]
fn any_line_is_told_or_refused_without_a_panic() {
    let lines = [
        r#"{"type":"assistant","message":{"id":"m1","content":[{"type":"tool_use","id":"t1","name":"X","input":{}}]},"uuid":"u1"}"#,
        r#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":"x","is_error":true}]},"uuid":"u2"}"#,
        r#"{"type":"result","usage":{"input_tokens":1},"modelUsage":{"m":{}},"session_id":"s1"}"#,
    ];
    let mut stream = ClaudeStream::new();
    for line in hostile_lines(&lines) {
        match stream.line(&line, NOW) {
            Ok(events) => assert!(!events.is_empty() && events[0].id().is_some(), "{line}"),
            Err(AdapterError::NotAnObject { .. }) => {}
            Err(error) => panic!("{error}: {line}"),
        }
    }
}

#[test]
fn any_field_may_hold_anything() {
    let lines = [
        INIT,
        r#"{"type":"assistant","message":{"id":"m1","model":"m","usage":{"input_tokens":1},"content":[{"type":"text","text":"a"},{"type":"thinking","thinking":"b"},{"type":"tool_use","id":"t1","name":"X","input":{}}]},"parent_tool_use_id":null,"uuid":"u1","agent_id":"a1","subagent_type":"x","timestamp":"2025-10-20T22:40:00Z"}"#,
        r#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":"x","is_error":true},{"type":"tool_result","tool_use_id":"t1","content":[]},{"type":"text","text":"a"}]},"uuid":"u2","tool_use_result":{}}"#,
        r#"{"type":"result","subtype":"success","is_error":false,"usage":{"input_tokens":1,"output_tokens":2},"modelUsage":{"m":{"contextWindow":5}},"model_usage_since_last_result":{"m":{"inputTokens":1,"outputTokens":5}},"errors":["x"],"result":"x"}"#,
        r#"{"type":"system","subtype":"permission_denied","tool_name":"X","tool_use_id":"t1","message":"m"}"#,
        r#"{"type":"system","subtype":"task_started","task_id":"a1","subagent_type":"x","task_type":"local_agent","prompt":"p","tool_use_id":"t1"}"#,
        r#"{"type":"system","subtype":"task_notification","task_id":"a1","status":"completed","summary":"s"}"#,
        r#"{"type":"system","subtype":"api_retry","attempt":1,"max_retries":2,"error_status":529,"error":"x"}"#,
        r#"{"type":"system","subtype":"compact_boundary","compact_metadata":{"trigger":"auto"}}"#,
        r#"{"type":"system","subtype":"notification","key":"k","text":"t"}"#,
    ];
    let values =
        ["null", "true", "-7", "1e999", "[]", "[[1,null,{}]]", "{}", r#"{"a":{"b":1}}"#, r#""""#, r#""\ud83d""#];
    let mut stream = ClaudeStream::new();
    for line in lines {
        for (start, value_end) in values_of(line) {
            for value in values {
                let changed = format!("{}{value}{}", &line[..start], &line[value_end..]);
                let events = stream.line(&changed, NOW).unwrap();
                assert!(!events.is_empty(), "{changed}");
                assert!(events[0].json().contains(&changed), "{changed}");
                for event in events {
                    assert_eq!(RuntimeEvent::from_json(event.json()).unwrap(), event);
                    assert!(!matches!(event.kind(), EventKind::Other(_)), "{changed}");
                }
            }
        }
        for end in 0..line.len() {
            assert!(stream.line(&line[..end], NOW).is_err(), "{}", &line[..end]);
        }
    }
}

#[test]
fn words_that_the_client_put_in_itself_are_no_prompt() {
    let mut stream = ClaudeStream::new();
    let line = |text: &str, fields: &str| {
        format!(r#"{{"type":"user","message":{{"content":[{{"type":"text","text":"{text}"}}]}}{fields}}}"#)
    };
    assert_eq!(kinds(&mut stream, &line("go", "")), ["user.prompt"]);
    assert_eq!(kinds(&mut stream, &line("go", r#","isSynthetic":true"#)), ["unknown"]);
    assert_eq!(kinds(&mut stream, &line("look", r#","parent_tool_use_id":"t1""#)), ["unknown"]);
    assert_eq!(kinds(&mut stream, &line("[Request interrupted by user for tool use]", "")), ["unknown"]);
    let output = r#"{"type":"user","message":{"content":"<local-command-stdout>Compacted</local-command-stdout>"}}"#;
    assert_eq!(kinds(&mut stream, output), ["unknown"]);
}

#[test]
fn a_line_of_long_texts_and_many_blocks_takes_bounded_memory() {
    let long = "x".repeat(1 << 20);
    let blocks = |block: &str, count: usize| vec![block; count].join(",");
    let of = |role: &str, blocks: String, more: &str| {
        format!(
            r#"{{"type":"{role}","message":{{"id":"m","content":[{blocks}]{more}}},"agent_id":"{long}","uuid":"u"}}"#
        )
    };
    let model = format!(r#","model":"{long}""#);
    let init = format!(r#"{{"type":"system","subtype":"init","cwd":"{long}","session_id":"s1","model":"m"}}"#);
    let call = format!(r#"{{"type":"tool_use","id":"t","name":"{long}"}}"#);
    let result = r#"{"type":"tool_result","tool_use_id":"t"}"#;
    let text = r#"{"type":"text","text":""}"#;
    let lines = [
        init,
        of("assistant", call, ""),
        of("assistant", blocks(text, 1000), &model),
        of("user", blocks(result, 1000), ""),
        of("user", blocks("{}", 100_000), ""),
        of("assistant", blocks("{}", 100_000), &model),
    ];
    assert_bounded(&mut ClaudeStream::new(), &lines);
}
