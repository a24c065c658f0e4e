//! Every recorded stream of a real client, read in place.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

mod common;

use runledger_adapters::ClaudeStream;
use runledger_events::{EventKind, KindFacts, RuntimeEvent, TimestampMs};
use serde_json::Value;

const NOW: TimestampMs = TimestampMs(1_795_000_000_000);

struct Recording {
    case: String,
    lines: Vec<String>,
    stream: ClaudeStream,
    events: Vec<Vec<RuntimeEvent>>,
}

fn folder() -> Option<PathBuf> {
    common::recordings("claude-code-2.1.330")
}

fn recordings() -> Vec<Recording> {
    let Some(folder) = folder() else { return Vec::new() };
    let mut recordings: Vec<Recording> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let case = path.file_name()?.to_str()?.strip_suffix(".stream.jsonl")?.to_owned();
            let lines = common::lines_of(&path);
            let mut stream = ClaudeStream::new();
            let events = lines.iter().map(|line| stream.line(line, NOW).unwrap()).collect();
            Some(Recording { case, lines, stream, events })
        })
        .collect();
    recordings.sort_by(|a, b| a.case.cmp(&b.case));
    assert!(recordings.len() >= 70, "{} recordings", recordings.len());
    recordings
}

fn parsed(recording: &Recording) -> Vec<Value> {
    recording.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_line_is_told_and_kept_whole() {
    for Recording { case, lines, events, .. } in recordings() {
        for (line, events) in lines.iter().zip(&events) {
            let first = events.first().unwrap_or_else(|| panic!("{case}: no event of {line}"));
            assert!(first.json().contains(line.as_str()), "{case}: {line}");
            for event in events {
                assert_eq!(&RuntimeEvent::from_json(event.json()).unwrap(), event, "{case}");
                assert!(event.occurred_at().is_some() && event.id().is_some(), "{case}: {}", event.json());
            }
        }
    }
}

#[test]
fn every_event_has_an_id_of_its_own_unless_its_line_repeats() {
    for Recording { case, lines, events, .. } in recordings() {
        let mut ids = HashSet::new();
        let mut seen = HashSet::new();
        for (line, events) in lines.iter().zip(&events).filter(|(line, _)| seen.insert(line.as_str())) {
            for event in events {
                assert!(ids.insert(event.id().unwrap().clone()), "{case}: {line}");
            }
        }
    }
}

#[test]
fn every_tool_call_is_told_before_its_end_and_ends_unless_the_process_did() {
    for recording in recordings() {
        let case = &recording.case;
        let mut open = HashMap::new();
        let mut calls = 0;
        for event in recording.events.iter().flatten() {
            let KindFacts::Tool { tool_name, tool_use_id, .. } = &event.facts().data else { continue };
            let id = tool_use_id.clone().unwrap();
            match event.kind() {
                EventKind::ToolPre => {
                    calls += 1;
                    assert!(open.insert(id, tool_name.clone().unwrap()).is_none(), "{case}");
                }
                _ => assert_eq!(open.remove(&id).as_ref(), tool_name.as_ref(), "{case}: {}", event.json()),
            }
        }
        assert_eq!(recording.stream.tool_uses(), calls, "{case}");
        let outcome = recording.stream.outcome();
        let is_deferred = outcome.is_some_and(|it| it.terminal_reason.as_deref() == Some("tool_deferred"));
        assert!(open.is_empty() || outcome.is_none() || is_deferred, "{case}: {open:?}");
    }
}

#[test]
fn tokens_are_the_sum_of_what_the_result_lines_tell() {
    for recording in recordings() {
        let lines = parsed(&recording);
        let results: Vec<_> = lines.iter().filter(|line| line["type"] == "result").collect();
        let sum = |name: &str| -> Option<u64> {
            let models =
                results.iter().flat_map(|line| line["model_usage_since_last_result"].as_object().unwrap().values());
            (!results.is_empty()).then(|| models.map(|model| model[name].as_u64().unwrap()).sum())
        };
        // Without a result line: the latest usage of each message.
        let mut usages: BTreeMap<&str, &Value> = BTreeMap::new();
        for message in lines.iter().filter(|line| line["type"] == "assistant").map(|line| &line["message"]) {
            usages.insert(message["id"].as_str().unwrap(), &message["usage"]);
        }
        let told = |name: &str| usages.values().map(|usage| usage[name].as_u64().unwrap()).sum::<u64>();

        let tokens = recording.stream.tokens();
        let case = &recording.case;
        assert_eq!(tokens.input, sum("inputTokens").or(Some(told("input_tokens"))), "{case}");
        assert_eq!(tokens.output, sum("outputTokens").or(Some(told("output_tokens"))), "{case}");
        let read = sum("cacheReadInputTokens").or(Some(told("cache_read_input_tokens")));
        assert_eq!(tokens.cache_read, read, "{case}");
        let write = sum("cacheCreationInputTokens").or(Some(told("cache_creation_input_tokens")));
        assert_eq!(tokens.cache_write, write, "{case}");
        let all = [tokens.input, tokens.output, tokens.cache_read, tokens.cache_write];
        assert_eq!(tokens.total, Some(all.into_iter().flatten().sum()), "{case}");

        let last_usage = recording.events.iter().flatten().rev().find_map(|event| match &event.facts().data {
            KindFacts::Usage { usage, .. } => Some(*usage),
            _ => None,
        });
        assert_eq!(last_usage.unwrap_or(tokens), tokens, "{case}");
    }
}

#[test]
fn the_adapter_session_is_the_one_of_the_case() {
    let Some(folder) = folder() else { return };
    let cases = std::fs::read_to_string(folder.join("cases.jsonl")).unwrap();
    let cases = cases.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let sessions: HashMap<String, String> = cases
        .filter_map(|case| Some((case["case"].as_str()?.to_owned(), case["session_id"].as_str()?.to_owned())))
        .collect();
    let mut compared = 0;
    for recording in recordings() {
        let Some(session) = sessions.get(&recording.case) else { continue };
        let adapter_session_id = recording.stream.adapter_session_id().map(|id| id.as_str());
        assert_eq!(adapter_session_id, Some(session.as_str()), "{}", recording.case);
        compared += 1;
    }
    assert!(compared >= 70, "{compared} compared");
}

#[test]
fn the_outcome_is_there_unless_the_process_was_killed() {
    for recording in recordings() {
        let case = recording.case.as_str();
        let outcome = recording.stream.outcome();
        assert_eq!(outcome.is_none(), matches!(case, "sigkill" | "sigterm"), "{case}");
        let is_error = outcome.is_some_and(|outcome| outcome.is_error);
        let fails = ["api400", "api529", "connreset", "perm-req-interrupt", "sigint"];
        assert_eq!(is_error, fails.contains(&case), "{case}: {outcome:?}");
    }
}
