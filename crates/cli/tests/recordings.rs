//! Recordings of today's clients: all of them go in once, and what hooks, stream and transcript tell is shown once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runledger_adapters::{ClaudeStream, ClaudeTranscript, HookLines, LineAdapter};
use runledger_events::{Metadata, SessionId, StreamName};
use runledger_projections::{AgentRun, FeedEvent, FeedFilter, FeedPage, Projections, Queries};
use runledger_store::{ExpectedVersion, NewEvent, StreamAppend};
use runledger_testkit::{TempLedger, shared};
use serde_json::Value;
use support::Room;

/// The files of a folder that end so, in order.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}

/// Every recording, by format.
fn recordings(real: &Path) -> Vec<(&'static str, Vec<PathBuf>)> {
    let (claude, codex) = (real.join("claude-code-2.1.330"), real.join("codex-0.169.0"));
    let mut hooks = files(&real.join("claude-hooks"), ".jsonl");
    hooks.extend(files(&claude, ".hooks.jsonl"));
    hooks.extend(files(&codex, ".hooks.jsonl"));
    let mut transcripts = files(&real.join("claude-transcripts"), ".jsonl");
    transcripts.extend(files(&claude, ".transcript.jsonl"));
    for folder in files(&claude, ".subagents").iter().chain(&files(&claude, ".transcripts")) {
        transcripts.extend(files(folder, ".jsonl"));
    }
    let mut rollouts = files(&real.join("codex-rollouts"), ".jsonl");
    rollouts.extend(files(&codex, "rollout.jsonl"));
    vec![
        ("claude-hooks", hooks),
        ("claude-stream", files(&claude, ".stream.jsonl")),
        ("claude-transcript", transcripts),
        ("codex-rollout", rollouts),
        ("codex-json", files(&codex, ".exec.jsonl")),
    ]
}

#[test]
fn every_recording_goes_in_and_the_second_time_appends_nothing() {
    let Some(real) = shared("real") else {
        return;
    };
    let room = Room::new();
    let mut appended = 0;
    for round in 0..2 {
        for (format, files) in recordings(&real) {
            assert!(!files.is_empty(), "{format}");
            let mut arguments = vec!["--json", "ingest", "--format", format];
            arguments.extend(files.iter().map(|path| path.to_str().unwrap()));
            let ran = room.run(&arguments);
            let report = ran.json().remove(0);
            // Two writers tore one line of one file in two; what stands around it is there.
            let rejected: Vec<u64> =
                report["rejected"].as_array().unwrap().iter().map(|line| line["line"].as_u64().unwrap()).collect();
            let expected: &[u64] = if format == "claude-hooks" { &[1002, 1003] } else { &[] };
            assert_eq!(rejected, expected, "{format}: {}", ran.stderr());
            if round == 0 {
                appended += report["appended"].as_u64().unwrap();
            } else {
                assert_eq!(report["appended"], 0, "{format}");
            }
        }
    }
    assert_eq!(room.json(["--json", "status"])[0]["head"], appended);
    assert!(room.json(["--json", "feed"]).len() > 3000);
}

/// What is counted of a session's feed.
#[derive(Debug, PartialEq, Eq, Default)]
struct Shown {
    /// Tool calls and results by their id, messages and prompts by their text: how often each is shown.
    facts: BTreeMap<String, u32>,
    tool_uses: u64,
    tool_failures: u64,
    permission_requests: u64,
}

fn shown(events: &[FeedEvent], runs: &[AgentRun]) -> Shown {
    let mut shown = Shown::default();
    for event in events {
        let data: Value = serde_json::from_str(event.data.get()).unwrap();
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let fact = match event.kind.as_str() {
            "tool.pre" => format!("call {}", text("tool_use_id")),
            "tool.post" | "tool.failure" => format!("result {}", text("tool_use_id")),
            "agent.message" => format!("message {}", text("message")),
            "user.prompt" => format!("prompt {}", text("prompt")),
            "session.start" | "session.end" | "subagent.start" | "subagent.stop" => event.kind.clone(),
            _ => continue,
        };
        *shown.facts.entry(fact).or_default() += 1;
    }
    for run in runs {
        shown.tool_uses += run.counters.tool_uses;
        shown.tool_failures += run.counters.tool_failures;
        shown.permission_requests += run.counters.permission_requests;
    }
    shown
}

/// One telling of a case: the translator, and its lines.
type Telling<'a> = (Box<dyn LineAdapter>, &'a str);

/// Tells a case to a new ledger, as one session.
fn tell(tellings: Vec<Telling<'_>>) -> Shown {
    let ledger = TempLedger::new();
    let session = SessionId::new("case").unwrap();
    for (mut adapter, text) in tellings {
        let lines = text.split('\n').filter(|line| !line.trim().is_empty());
        let events = lines.flat_map(|line| adapter.line(line, None).unwrap());
        let appends = events.map(|event| {
            let metadata = Metadata { session_id: Some(session.clone()), ..Metadata::default() };
            let events = vec![NewEvent::new(event, metadata).unwrap()];
            StreamAppend { stream: StreamName::session(&session), expected: ExpectedVersion::Any, events }
        });
        ledger.log.append_all(appends.collect()).unwrap();
    }
    Projections::open(&ledger.path).unwrap().catch_up().unwrap();
    let queries = Queries::open(&ledger.path).unwrap();
    let filter = FeedFilter { session: Some(session.clone()), ..FeedFilter::default() };
    let events = queries.feed(&filter, &FeedPage::First, 1_000_000).unwrap();
    shown(&events, &queries.session_feed(&session).unwrap().runs)
}

#[test]
fn what_hooks_stream_and_transcript_tell_is_shown_once_in_whatever_order_they_come() {
    let Some(real) = shared("real/claude-code-2.1.330") else {
        return;
    };
    let mut compared = 0;
    for hooks in files(&real, ".hooks.jsonl") {
        let case = hooks.file_name().unwrap().to_str().unwrap().trim_end_matches(".hooks.jsonl").to_owned();
        let read = |kind: &str| std::fs::read_to_string(real.join(format!("{case}.{kind}.jsonl"))).ok();
        let (hooks, stream, transcript) = (read("hooks"), read("stream"), read("transcript"));
        let telling = |who: char| -> Option<Telling<'_>> {
            Some(match who {
                'h' => (Box::new(HookLines::new()), hooks.as_deref()?),
                's' => (Box::new(ClaudeStream::new()), stream.as_deref()?),
                _ => (Box::new(ClaudeTranscript::new()), transcript.as_deref()?),
            })
        };
        let told = |order: &str| tell(order.chars().filter_map(telling).collect());
        let live = told("hst");
        for order in ["sht", "tsh", "ths"] {
            assert_eq!(told(order), live, "{case}, {order}");
        }
        // One source alone never tells more of a fact than all of them together show.
        for alone in ["h", "s", "t"] {
            for (fact, count) in told(alone).facts {
                let together = live.facts.get(&fact).copied().unwrap_or_default();
                assert!(count <= together, "{case}, {alone}: {fact} is told {count} times, and shown {together} times");
            }
        }
        for (fact, count) in
            live.facts.iter().filter(|(fact, _)| fact.starts_with("call ") || fact.starts_with("result "))
        {
            assert_eq!(*count, 1, "{case}: {fact}");
        }
        compared += 1;
    }
    assert!(compared > 60, "{compared}");
}
