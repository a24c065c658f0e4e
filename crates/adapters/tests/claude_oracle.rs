//! One session of Claude Code told by its hooks, its stream and its transcript: the three have to agree.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use common::{NOW, lines_of};
use runledger_adapters::{ClaudeStream, ClaudeTranscript, HookLines, LineAdapter};
use runledger_events::{EventKind, RuntimeEvent};
use serde_json::Value;

fn folder() -> Option<PathBuf> {
    common::recordings("claude-code-2.1.330")
}

fn events_of(path: &Path, adapter: &mut dyn LineAdapter) -> Vec<RuntimeEvent> {
    lines_of(path).iter().flat_map(|line| adapter.line(line, Some(NOW)).unwrap()).collect()
}

/// One case's transcripts with their subagents', as far as they were recorded.
fn transcripts(folder: &Path, case: &str) -> Vec<RuntimeEvent> {
    let mut paths = vec![folder.join(format!("{case}.transcript.jsonl"))];
    for more in ["transcripts", "subagents"] {
        let entries = std::fs::read_dir(folder.join(format!("{case}.{more}"))).into_iter().flatten();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths.retain(|path| path.extension().is_some_and(|it| it == "jsonl") && path.exists());
    paths.sort();
    paths.iter().flat_map(|path| events_of(path, &mut ClaudeTranscript::new())).collect()
}

fn hooks(folder: &Path, case: &str) -> Option<Vec<RuntimeEvent>> {
    let path = folder.join(format!("{case}.hooks.jsonl"));
    path.exists().then(|| events_of(&path, &mut HookLines::new()))
}

fn stream(folder: &Path, case: &str) -> Option<Vec<RuntimeEvent>> {
    let path = folder.join(format!("{case}.stream.jsonl"));
    path.exists().then(|| events_of(&path, &mut ClaudeStream::new()))
}

/// The cases that have a transcript.
fn cases(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut cases: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".transcript.jsonl")?.to_owned())).collect();
    cases.push(String::from("inter"));
    cases.sort();
    cases
}

fn json(event: &RuntimeEvent) -> Value {
    serde_json::from_str(event.json()).unwrap()
}

fn data(event: &RuntimeEvent) -> Value {
    json(event)["data"].take()
}

fn of_kind<'a>(events: &'a [RuntimeEvent], kind: &EventKind) -> impl Iterator<Item = Value> + 'a {
    let kind = kind.clone();
    events.iter().filter(move |event| *event.kind() == kind).map(json)
}

/// Prompt id and words of each prompt, by session: hooks of two sessions overlap.
fn prompts(events: &[RuntimeEvent]) -> BTreeMap<String, Vec<(String, String)>> {
    let mut prompts: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for prompt in of_kind(events, &EventKind::UserPrompt) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let session = prompts.entry(text(&prompt["sessionId"])).or_default();
        session.push((text(&prompt["data"]["prompt_id"]), text(&prompt["data"]["prompt"])));
    }
    prompts
}

/// Tool calls by their id, with the results that tell of them.
fn tools(events: &[RuntimeEvent], kind: &EventKind) -> BTreeMap<String, Value> {
    let events = of_kind(events, kind).map(|event| (event["data"]["tool_use_id"].as_str().unwrap().to_owned(), event));
    events.collect()
}

/// A text as transcripts keep it: long ones are cut in the recordings.
fn is_same_text(whole: &Value, kept: &Value) -> bool {
    let (Some(whole), Some(kept)) = (whole.as_str(), kept.as_str()) else { return whole == kept };
    kept.split_once("…[cut:").map_or(whole == kept, |(begin, _)| whole.starts_with(begin))
}

fn is_same(whole: &Value, kept: &Value) -> bool {
    match (whole, kept) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| is_same(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        _ => is_same_text(whole, kept),
    }
}

#[test]
fn a_transcript_tells_the_prompts_that_the_hooks_tell_in_order() {
    let Some(folder) = folder() else { return };
    let mut compared = 0;
    for case in cases(&folder) {
        // The transcript of a resumed session begins with what came before, and hooks of another case told.
        let Some(mut hooked) = hooks(&folder, &case) else { continue };
        let before: &[&str] = match case.as_str() {
            "chain5-compact" => &["chain3-continue", "chain2-resume", "chain1"],
            "sigkill-resumed" => &["sigkill"],
            _ => &[],
        };
        for case in before {
            hooked.splice(0..0, hooks(&folder, case).unwrap());
        }
        let mut hooked = prompts(&hooked);
        if case == "prompt-exit2" {
            // The hook refused the prompt, so the session has none.
            hooked.clear();
        }
        assert_eq!(prompts(&transcripts(&folder, &case)), hooked, "{case}");
        compared += 1;
    }
    assert!(compared >= 30, "{compared} compared");
}

#[test]
fn tool_calls_and_their_results_are_the_same_whoever_tells_them() {
    let Some(folder) = folder() else { return };
    let mut compared = 0;
    for case in cases(&folder) {
        let transcript = transcripts(&folder, &case);
        for other in [hooks(&folder, &case), stream(&folder, &case)].into_iter().flatten() {
            let known = tools(&transcript, &EventKind::ToolPre);
            for kind in [EventKind::ToolPre, EventKind::ToolPost, EventKind::ToolFailure] {
                let kept = tools(&transcript, &kind);
                for (id, told) in tools(&other, &kind) {
                    assert!(known.contains_key(&id), "{case}: {id}");
                    let Some(kept) = kept.get(&id) else {
                        // The transcript has one result, hooks may tell a failure and a result of a retry.
                        panic!("{case}: {kind} of {id} is in no transcript: {told}");
                    };
                    for field in ["toolName", "agentId"] {
                        assert_eq!(told[field], kept[field], "{case}: {field} of {id}");
                    }
                    // A subagent's transcript has a result's text alone.
                    let has_response = kept["payload"].get("toolUseResult").is_some();
                    for field in ["tool_response", "error"].into_iter().filter(|it| has_response || *it == "error") {
                        assert!(is_same(&told["data"][field], &kept["data"][field]), "{case}: {told}\n{kept}");
                    }
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 190, "{compared} compared");
}

#[test]
fn messages_are_the_same_whoever_tells_them() {
    let Some(folder) = folder() else { return };
    let messages = |events: &[RuntimeEvent]| -> Vec<(String, String)> {
        let messages = of_kind(events, &EventKind::MessageComplete);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let messages =
            messages.filter_map(|it| Some((text(&it["agentId"]).unwrap_or_default(), text(&it["data"]["message"])?)));
        let mut messages: Vec<_> = messages.collect();
        messages.sort();
        messages
    };
    let mut compared = 0;
    for case in cases(&folder) {
        let transcript = messages(&transcripts(&folder, &case));
        // A resumed or forked session's transcript has more than the case's stream.
        if let Some(stream) = stream(&folder, &case).filter(|_| !case.starts_with("chain5")) {
            let mut stream = messages(&stream);
            // What a subagent says comes in the stream only where it is asked for.
            let mut transcript = transcript.clone();
            transcript.retain(|(agent, _)| agent.is_empty());
            stream.retain(|(agent, _)| agent.is_empty());
            assert_eq!(stream, transcript, "{case}");
        }
        let whole: BTreeSet<_> = transcript.into_iter().collect();
        for message in hooks(&folder, &case).iter().flat_map(|hooks| messages(hooks)) {
            assert!(whole.contains(&message), "{case}: {message:?}");
            compared += 1;
        }
    }
    assert!(compared >= 40, "{compared} compared");
}

#[test]
fn a_fork_tells_only_what_happened_in_it() {
    let Some(folder) = folder() else { return };
    let fork = transcripts(&folder, "chain4-fork");
    let copied = fork.iter().filter(|event| data(event)["source_event_name"] == "transcript:copied");
    assert_eq!(copied.count(), 35, "18 lines of the model, 14 of prompts and results, 3 of the client");
    assert_eq!(fork.iter().filter(|event| *event.kind() == EventKind::ToolPre).count(), 0);
    let usage: Vec<Value> = of_kind(&fork, &EventKind::UsageUpdate).collect();
    let stream = stream(&folder, "chain4-fork").unwrap();
    let told = of_kind(&stream, &EventKind::UsageUpdate).last().unwrap();
    assert_eq!(usage.len(), 1);
    for figure in ["input", "output", "cacheRead", "cacheWrite", "total", "contextSize"] {
        assert_eq!(usage[0]["data"]["usage"][figure], told["data"]["usage"][figure], "{figure}");
    }
}

#[test]
fn a_session_costs_in_its_transcripts_what_its_stream_says() {
    let Some(folder) = folder() else { return };
    let mut compared = 0;
    for case in cases(&folder) {
        let Some(stream) = stream(&folder, &case) else { continue };
        let Some(told) = of_kind(&stream, &EventKind::UsageUpdate).last() else { continue };
        // Sums of the session and of each subagent; the stream has them together. A resumed session cost more before.
        let mut threads = BTreeMap::new();
        for usage in of_kind(&transcripts(&folder, &case), &EventKind::UsageUpdate) {
            threads.insert(usage["data"]["thread_id"].to_string(), usage["data"]["usage"].clone());
        }
        if case == "chain5-compact" || case == "sigkill-resumed" {
            continue;
        }
        for figure in ["input", "output", "cacheRead", "cacheWrite", "total"] {
            let sum: u64 = threads.values().map(|usage| usage[figure].as_u64().unwrap()).sum();
            assert_eq!(Some(sum), told["data"]["usage"][figure].as_u64(), "{case}: {figure}");
        }
        compared += 1;
    }
    assert!(compared >= 20, "{compared} compared");
}
