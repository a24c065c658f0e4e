//! What each kind of transcript line becomes, on lines written by hand for this.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{NOW, assert_bounded, assert_told, events, hostile_lines};
use runledger_adapters::{AdapterError, ClaudeTranscript, LineAdapter};
use runledger_events::{EventKind, KindFacts, RuntimeEvent, TimestampMs};

fn snapshot(name: &str, lines: &[&str]) {
    assert_told(&format!("claude_transcript__{name}"), &mut ClaudeTranscript::new(), lines);
}

fn kinds(transcript: &mut ClaudeTranscript, line: &str) -> Vec<String> {
    events(transcript, line).iter().map(|event| event.kind().to_string()).collect()
}

/// A `user` line of this text with these further fields.
fn user(text: &str, fields: &str) -> String {
    let text = serde_json::Value::from(text);
    format!(
        r#"{{"type":"user","message":{{"role":"user","content":{text}}},"uuid":"u","sessionId":"s1","isSidechain":false{fields}}}"#
    )
}

#[test]
fn a_turn_is_told_block_by_block_with_what_it_cost() {
    snapshot(
        "turn",
        &[
            r#"{"type":"mode","mode":"normal"}"#,
            r#"{"type":"user","promptId":"p1","message":{"role":"user","content":"go"},"uuid":"u1","timestamp":"2025-10-20T22:40:00.250Z","permissionMode":"default","cwd":"/srv/demo","sessionId":"s1","isSidechain":false}"#,
            r#"{"type":"assistant","message":{"id":"m1","model":"large","content":[{"type":"thinking","thinking":"Hm.","signature":"x"}],"usage":{"input_tokens":11,"output_tokens":1,"cache_read_input_tokens":5,"cache_creation_input_tokens":200}},"uuid":"u2","timestamp":"2025-10-20T22:40:01Z","cwd":"/srv/demo","sessionId":"s1"}"#,
            r#"{"type":"assistant","message":{"id":"m1","model":"large","content":[{"type":"text","text":"I look."},{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls", "n":1e999}}],"usage":{"input_tokens":11,"output_tokens":27,"cache_read_input_tokens":5,"cache_creation_input_tokens":200}},"uuid":"u3","timestamp":"2025-10-20T22:40:02Z","cwd":"/srv/demo","sessionId":"s1"}"#,
            r#"{"type":"assistant","message":{"id":"m1","model":"large","content":[{"type":"tool_use","id":"t2","name":"Read","input":{}}],"usage":{"input_tokens":11,"output_tokens":27,"cache_read_input_tokens":5,"cache_creation_input_tokens":200}},"uuid":"u4","sessionId":"s1"}"#,
            r#"{"type":"user","promptId":"p1","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"a"}]},"uuid":"u5","toolUseResult":{"stdout":"a"},"sessionId":"s1"}"#,
            r#"{"type":"user","promptId":"p1","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t2","content":"ended","is_error":true}]},"uuid":"u6","toolUseResult":"Error: ended","toolDenialKind":"interrupted","sessionId":"s1"}"#,
            r#"{"type":"assistant","isApiErrorMessage":true,"message":{"id":"m2","model":"<synthetic>","content":[{"type":"text","text":"API Error: 529"}],"usage":{"input_tokens":0,"output_tokens":0}},"uuid":"u7","sessionId":"s1"}"#,
            r#"{"type":"assistant","message":{"id":"m3","model":"<synthetic>","content":[{"type":"text","text":"No response requested."}]},"uuid":"u8","sessionId":"s1"}"#,
            r#"{"type":"system","subtype":"compact_boundary","compactMetadata":{"trigger":"auto"},"uuid":"u9","sessionId":"s1"}"#,
            r#"{"type":"attachment","attachment":{"type":"date"},"uuid":"u10","sessionId":"s1"}"#,
            r#"{"type":"summary","summary":"Demo","leafUuid":"u9"}"#,
        ],
    );
}

#[test]
fn a_subagents_own_transcript_carries_its_id_and_costs_apart() {
    snapshot(
        "subagent",
        &[
            r#"{"type":"user","isSidechain":true,"agentId":"a1","promptId":"p1","message":{"role":"user","content":"look"},"uuid":"u1","sessionId":"s1"}"#,
            r#"{"type":"assistant","isSidechain":true,"agentId":"a1","attributionAgent":"Explore","message":{"id":"m1","model":"small","content":[{"type":"text","text":"Fine."}],"usage":{"input_tokens":3,"output_tokens":4}},"uuid":"u2","sessionId":"s1"}"#,
        ],
    );
}

#[test]
fn the_lines_of_one_unnamed_subagent_have_one_agent() {
    let line = |uuid: &str, parent: &str, is_side: bool| {
        format!(
            r#"{{"type":"user","uuid":"{uuid}","parentUuid":{parent},"isSidechain":{is_side},"message":{{"content":"x"}}}}"#
        )
    };
    let mut transcript = ClaudeTranscript::new();
    let mut agent = |line: String| events(&mut transcript, &line)[0].facts().agent_id.clone();
    assert_eq!(agent(line("m1", "null", false)), None);
    assert_eq!(agent(line("a1", "null", true)).as_deref(), Some("a1"));
    assert_eq!(agent(line("b1", "null", true)).as_deref(), Some("b1"));
    assert_eq!(agent(line("a2", "\"a1\"", true)).as_deref(), Some("a1"));
    assert_eq!(agent(line("a3", "\"a2\"", true)).as_deref(), Some("a1"));
    assert_eq!(agent(line("m2", "\"m1\"", false)), None);
}

#[test]
fn only_the_users_own_words_are_prompts() {
    let is_prompt = |line: &str| kinds(&mut ClaudeTranscript::new(), line) == ["user.prompt"];
    assert!(is_prompt(&user("go", "")));
    assert!(is_prompt(&user("<task-notification>…", r#","promptId":"p""#)), "hooks tell these as well");
    let marks = ["isMeta", "isCompactSummary", "isVisibleInTranscriptOnly", "repeatsCompactSummary", "turnCompanion"];
    for mark in marks {
        assert!(!is_prompt(&user("go", &format!(r#","{mark}":true"#))), "{mark}");
    }
    assert!(!is_prompt(&user("go", r#","agentId":"a1""#)));
    let texts = [
        "<command-name>/clear</command-name>",
        "<local-command-stdout></local-command-stdout>",
        "<local-command-caveat>x",
        "<bash-input>ls</bash-input>",
        "[Request interrupted by user]",
        "Caveat: The messages below were generated by the user while running local commands. DO NOT …",
    ];
    for text in texts {
        assert!(!is_prompt(&user(text, "")), "{text}");
    }
}

#[test]
fn a_prompt_is_told_once_and_in_the_words_of_its_hook() {
    let mut transcript = ClaudeTranscript::new();
    let command =
        "<command-message>fix</command-message>\n<command-name>/fix</command-name>\n<command-args>it</command-args>";
    let told = events(&mut transcript, &user(command, r#","promptId":"p1""#));
    assert!(told[0].json().contains(r#""data":{"prompt":"/fix it","prompt_id":"p1"}"#), "{}", told[0].json());
    assert_eq!(kinds(&mut transcript, &user("expanded", r#","promptId":"p1""#)), ["unknown"]);
    let blocks = r#"{"type":"user","message":{"content":[{"type":"text","text":"a"},{"type":"image"},{"type":"text","text":"b"}]}}"#;
    assert!(events(&mut transcript, blocks)[0].json().contains(r#""prompt":"a\nb""#));
    assert_eq!(kinds(&mut transcript, r#"{"type":"user","message":{"content":[{"type":"image"}]}}"#), ["unknown"]);
}

#[test]
fn what_was_copied_from_another_session_is_no_new_fact() {
    let call = |fields: &str| {
        format!(
            r#"{{"type":"assistant","sessionId":"s2","timestamp":"2025-01-01T00:00:09Z"{fields},"message":{{"id":"m1","usage":{{"input_tokens":1}},"content":[{{"type":"tool_use","id":"t1","name":"X","input":{{}}}}]}}}}"#
        )
    };
    let result =
        r#"{"type":"user","sessionId":"s2","message":{"content":[{"type":"tool_result","tool_use_id":"t1"}]}}"#;
    let queued = r#"{"type":"queue-operation","timestamp":"2025-01-01T00:00:05Z","sessionId":"s2"}"#;
    let told = |first: &str, lines: &[&str]| {
        let mut transcript = ClaudeTranscript::new();
        events(&mut transcript, first);
        let told = lines.iter().flat_map(|line| events(&mut transcript, line));
        told.map(|event| match &event.facts().data {
            KindFacts::Unknown { source_event_name: Some(name), .. } => name.clone(),
            _ => event.kind().to_string(),
        })
        .collect::<Vec<_>>()
    };
    let copied = "transcript:copied";
    assert_eq!(told("{}", &[&call(r#","requestSessionId":"s1""#), result]), [copied, copied]);
    assert_eq!(told("{}", &[&call(r#","forkedFrom":{"sessionId":"s1"}"#), result]), [copied, copied]);
    assert_eq!(told("{}", &[&call(r#","requestSessionId":"s2""#), result]), ["tool.pre", "usage.update", "tool.post"]);
    let old = user("before", r#","timestamp":"2025-01-01T00:00:04Z""#);
    let new = user("after", r#","timestamp":"2025-01-01T00:00:06Z""#);
    assert_eq!(told(queued, &[&old, &new]), [copied, "user.prompt"]);
    assert_eq!(told("{}", &[&old, &new]), ["user.prompt", "user.prompt"]);

    let mut transcript = ClaudeTranscript::new();
    events(&mut transcript, queued);
    assert_eq!(events(&mut transcript, &old)[0].id().unwrap().as_str(), "transcript:u@s1", "not the original's id");
}

#[test]
fn lines_without_a_time_or_a_session_take_those_of_the_lines_before() {
    let mut transcript = ClaudeTranscript::new();
    let told = |transcript: &mut ClaudeTranscript, line: &str| -> (Option<TimestampMs>, Option<String>) {
        let event: RuntimeEvent = events(transcript, line).swap_remove(0);
        (event.occurred_at(), event.adapter_session_id().map(|id| id.as_str().to_owned()))
    };
    let bare = r#"{"type":"file-history-snapshot"}"#;
    assert_eq!(told(&mut transcript, bare), (Some(NOW), None));
    let time = Some(TimestampMs(1_709_251_199_999));
    let timed = r#"{"type":"x","timestamp":"2024-02-29T23:59:59.999Z","sessionId":"s1"}"#;
    assert_eq!(told(&mut transcript, timed), (time, Some(String::from("s1"))));
    assert_eq!(told(&mut transcript, bare), (time, Some(String::from("s1"))));
}

#[test]
fn lines_without_an_id_are_named_by_their_text() {
    let mut transcript = ClaudeTranscript::new();
    let call = r#"{"type":"assistant","message":{"id":"m1","usage":{"input_tokens":1},"content":"words"}}"#;
    let ids = |transcript: &mut ClaudeTranscript| -> Vec<String> {
        events(transcript, call).iter().map(|event| event.id().unwrap().as_str().to_owned()).collect()
    };
    let first = ids(&mut transcript);
    assert_eq!(first[1], format!("{}/1", first[0]));
    assert_eq!(ids(&mut transcript), [format!("{}#2", first[0])], "the figures are told");
}

#[test]
fn any_line_is_told_or_refused_without_a_panic() {
    let lines = [
        r#"{"type":"assistant","message":{"id":"m1","model":"m","usage":{"input_tokens":1},"content":[{"type":"text","text":"a"},{"type":"thinking","thinking":"b"},{"type":"tool_use","id":"t1","name":"X","input":{}}]},"uuid":"u1","agentId":"a1","attributionAgent":"x","requestSessionId":"s","sessionId":"s","timestamp":"2025-10-20T22:40:00Z","isSidechain":true}"#,
        r#"{"type":"user","promptId":"p","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":"x","is_error":true},{"type":"text","text":"a"}]},"uuid":"u2","parentUuid":"u1","isSidechain":true,"toolUseResult":{}}"#,
        r#"{"type":"user","promptId":"p","message":{"content":"go"},"uuid":"u2","permissionMode":"x","cwd":"/"}"#,
        r#"{"type":"system","subtype":"compact_boundary","compactMetadata":{"trigger":"auto"},"attachment":{"type":"x"}}"#,
    ];
    let mut transcript = ClaudeTranscript::new();
    for line in hostile_lines(&lines) {
        match transcript.line(&line, Some(NOW)) {
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
    let of = |role: &str, block: &str, count: usize| {
        let blocks = vec![block; count].join(",");
        let message = format!(r#"{{"id":"{long}","model":"{long}","content":[{blocks}]}}"#);
        format!(
            r#"{{"type":"{role}","cwd":"{long}","promptId":"{long}","sessionId":"s","uuid":"u","message":{message}}}"#
        )
    };
    let lines = [
        of("assistant", r#"{"type":"text","text":""}"#, 1000),
        of("user", r#"{"type":"tool_result"}"#, 1000),
        of("assistant", "{}", 100_000),
        of("user", r#"{"type":"tool_result"}"#, 100_000),
    ];
    assert_bounded(&mut ClaudeTranscript::new(), &lines);
}
