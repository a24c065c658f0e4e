//! One thread of Codex told by its hooks, its rollout and its `exec --json`: the three have to agree.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{NOW, lines_of};
use runledger_adapters::{CodexJson, CodexRollout, HookLines, LineAdapter};
use runledger_events::{EventKind, RuntimeEvent};
use serde_json::Value;

fn folder() -> Option<PathBuf> {
    common::recordings("codex-0.169.0")
}

fn read(path: &Path, adapter: &mut dyn LineAdapter) -> Option<Vec<RuntimeEvent>> {
    let lines = path.exists().then(|| lines_of(path))?;
    Some(lines.iter().flat_map(|line| adapter.line(line, Some(NOW)).unwrap()).collect())
}

fn hooks(folder: &Path, case: &str) -> Option<Vec<RuntimeEvent>> {
    read(&folder.join(format!("{case}.hooks.jsonl")), &mut HookLines::new())
}

/// The case's rollout with that of its child thread.
fn rollout(folder: &Path, case: &str) -> Option<Vec<RuntimeEvent>> {
    let mut events = read(&folder.join(format!("{case}.rollout.jsonl")), &mut CodexRollout::new())?;
    let child = read(&folder.join(format!("{case}.child-rollout.jsonl")), &mut CodexRollout::new());
    events.extend(child.into_iter().flatten());
    Some(events)
}

/// The cases that have hooks and a rollout, told by both.
fn cases() -> Vec<(String, Vec<RuntimeEvent>, Vec<RuntimeEvent>)> {
    let Some(folder) = folder() else { return Vec::new() };
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".hooks.jsonl")?.to_owned())).collect();
    names.sort();
    let told = names.into_iter().filter_map(|case| {
        let (hooks, rollout) = (hooks(&folder, &case)?, rollout(&folder, &case)?);
        Some((case, hooks, rollout))
    });
    let cases: Vec<_> = told.collect();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    cases
}

fn of_kind<'a>(events: &'a [RuntimeEvent], kind: &EventKind) -> impl Iterator<Item = Value> + 'a {
    let kind = kind.clone();
    events.iter().filter(move |event| *event.kind() == kind).map(|event| serde_json::from_str(event.json()).unwrap())
}

/// Session, agent, turn and words of each prompt, in order.
fn prompts(events: &[RuntimeEvent]) -> Vec<[Value; 4]> {
    let told = of_kind(events, &EventKind::UserPrompt);
    let fields = |it: Value| {
        [&it["sessionId"], &it["agentId"], &it["data"]["turn_id"], &it["data"]["prompt"]].map(Value::to_owned)
    };
    told.map(fields).collect()
}

fn tools(events: &[RuntimeEvent], kind: &EventKind) -> BTreeMap<String, Value> {
    let events = of_kind(events, kind).map(|event| (event["data"]["tool_use_id"].as_str().unwrap().to_owned(), event));
    events.collect()
}

#[test]
fn a_rollout_tells_the_prompts_that_the_hooks_tell_in_order() {
    for (case, hooks, rollout) in cases() {
        let (hooked, kept) = (prompts(&hooks), prompts(&rollout));
        if case == "prompt-block" {
            // The hook refused it, so the thread has none.
            assert_eq!((hooked.len(), kept.len()), (1, 0));
            continue;
        }
        // The rollout of a resumed thread has what was before as well, which hooks of another case told.
        let is_resumed = case.contains("resumed");
        assert!(is_resumed || kept.len() == hooked.len(), "{case}: {kept:?}");
        assert_eq!(kept[kept.len() - hooked.len()..], hooked, "{case}");
    }
}

#[test]
fn tool_calls_and_their_results_are_the_same_whoever_tells_them() {
    let mut compared = 0;
    for (case, hooks, rollout) in cases() {
        for (kind, fields) in [
            (EventKind::ToolPre, ["tool_name", "tool_input", "turn_id"]),
            (EventKind::ToolPost, ["tool_name", "tool_response", "turn_id"]),
        ] {
            let kept = tools(&rollout, &kind);
            for (id, told) in tools(&hooks, &kind) {
                let kept = kept.get(&id).unwrap_or_else(|| panic!("{case}: {kind} of {id} is in no rollout"));
                assert_eq!(told["agentId"], kept["agentId"], "{case}: {id}");
                for field in fields {
                    assert_eq!(told["data"][field], kept["data"][field], "{case}: {field} of {id}");
                }
                compared += 1;
            }
        }
    }
    assert!(compared == 0 || compared >= 40, "{compared} compared");
}

#[test]
fn the_last_message_of_a_turn_is_the_one_that_the_hooks_tell() {
    let mut compared = 0;
    for (case, hooks, rollout) in cases() {
        let messages: Vec<Value> =
            of_kind(&rollout, &EventKind::MessageComplete).map(|it| it["data"].clone()).collect();
        for kind in [EventKind::StopRequest, EventKind::SubagentStop] {
            for stop in of_kind(&hooks, &kind) {
                let last = &stop["data"]["last_assistant_message"];
                let is_told =
                    messages.iter().any(|it| it["message"] == *last && it["turn_id"] == stop["data"]["turn_id"]);
                assert!(is_told, "{case}: {last}");
                compared += 1;
            }
        }
    }
    assert!(compared == 0 || compared >= 20, "{compared} compared");
}

#[test]
fn an_interrupted_turn_is_told_by_both() {
    let mut compared = 0;
    for (case, hooks, rollout) in cases() {
        let interrupted = |events: &[RuntimeEvent]| -> Vec<Value> {
            let turns = of_kind(events, &EventKind::TurnComplete).filter(|it| it["data"]["status"] == "interrupted");
            turns.map(|it| it["data"]["turn_id"].clone()).collect()
        };
        assert_eq!(interrupted(&hooks), interrupted(&rollout), "{case}");
        compared += interrupted(&hooks).len();
    }
    assert!(compared == 0 || compared == 2, "{compared} compared");
}

#[test]
fn a_child_thread_is_a_subagent_of_the_session() {
    let Some(folder) = folder() else { return };
    let (hooks, rollout) = (hooks(&folder, "sub").unwrap(), rollout(&folder, "sub").unwrap());
    let agents = |events: &[RuntimeEvent]| -> Vec<[Value; 4]> {
        let starts = of_kind(events, &EventKind::SubagentStart);
        let fields = |it: Value| {
            [&it["sessionId"], &it["agentId"], &it["data"]["agent_id"], &it["data"]["agent_type"]].map(Value::to_owned)
        };
        starts.map(fields).collect()
    };
    assert_eq!(agents(&hooks), agents(&rollout));
    assert_eq!(of_kind(&rollout, &EventKind::SessionStart).count(), 1);
}

#[test]
fn a_fork_costs_what_it_cost_itself() {
    let Some(folder) = folder() else { return };
    let usage = |case: &str| of_kind(&rollout(&folder, case).unwrap(), &EventKind::UsageUpdate).last().unwrap();
    assert_eq!(usage("tools")["data"]["usage"]["total"], 4761);
    assert_eq!(usage("resumed")["data"]["usage"]["total"], 5086, "a resumed thread goes on counting");
    assert_eq!(usage("forked")["data"]["usage"]["total"], 325);
}

#[test]
fn the_output_of_a_process_tells_what_the_rollout_tells_of_it() {
    let Some(folder) = folder() else { return };
    let mut compared = 0;
    for (case, _, rollout) in cases() {
        let mut json = CodexJson::new();
        let Some(output) = read(&folder.join(format!("{case}.exec.jsonl")), &mut json) else { continue };
        let session = of_kind(&rollout, &EventKind::SessionStart).next().unwrap()["sessionId"].clone();
        assert_eq!(json.adapter_session_id().map(|id| id.as_str()), session.as_str(), "{case}");

        // Of the rollout that of this process alone, and of no child.
        let last = |events: &[RuntimeEvent], kind: &EventKind, count: usize| -> Vec<Value> {
            let events: Vec<Value> = of_kind(events, kind).filter(|it| it["agentId"].is_null()).collect();
            let from = events.len().saturating_sub(count);
            events[from..].iter().map(|it| it["data"].clone()).collect()
        };
        let count = |kind: &EventKind| of_kind(&output, kind).count();
        let texts = |of: Vec<Value>| of.into_iter().map(|it| it["message"].clone()).collect::<Vec<_>>();
        let messages = count(&EventKind::MessageComplete);
        // The recording of `stop-block` ends where the process was killed, and the rollout a moment before.
        if case != "stop-block" {
            let told = texts(last(&output, &EventKind::MessageComplete, messages));
            assert_eq!(told, texts(last(&rollout, &EventKind::MessageComplete, messages)), "{case}");
        }
        for command in last(&output, &EventKind::ToolPre, usize::MAX) {
            let is_shell = command["tool_name"] == "Bash";
            let calls = last(&rollout, &EventKind::ToolPre, usize::MAX);
            // A hook of `pre-input` changed the command, which the rollout does not tell of the call.
            let is_known = case == "pre-input" || calls.iter().any(|it| it["tool_input"] == command["tool_input"]);
            assert!(!is_shell || is_known, "{case}: {command}");
            compared += 1;
        }
        let status =
            |events: &[RuntimeEvent]| last(events, &EventKind::TurnComplete, 1).pop().map(|it| it["status"].clone());
        // Where a signal ended the process, its output has no end, and the rollout may have one.
        if json.outcome().is_some() {
            assert_eq!(status(&output), status(&rollout), "{case}");
        }
        let usage = |events: &[RuntimeEvent]| last(events, &EventKind::UsageUpdate, 1).pop();
        // A fork's output counts what the other thread cost as well.
        if let (Some(told), Some(kept), true) = (usage(&output), usage(&rollout), case != "forked") {
            assert_eq!(told["usage"]["total"], kept["usage"]["total"], "{case}");
        }
        compared += messages;
    }
    assert!(compared >= 30, "{compared} compared");
}
