//! Every recorded file goes through its translator: nothing is refused, nothing is lost, ids are the same each time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use common::{NOW, lines_of};
use runledger_adapters::{
    AdapterError, ClaudeStream, ClaudeTranscript, CodexJson, CodexRollout, HookLines, LineAdapter,
};
use runledger_events::{EventKind, RuntimeEvent, Source};
use serde_json::value::RawValue;

/// The lines of a file that are torn, counted from 1: two writers wrote at once.
const TORN: (&str, [usize; 2]) = ("claude-hooks/session-long-with-corrupt-line.jsonl", [1002, 1003]);

type NewAdapter = fn() -> Box<dyn LineAdapter>;

/// Every recorded file: its path below the folder of recordings, and its translator.
fn files() -> Vec<(String, PathBuf, NewAdapter)> {
    let Some(root) = common::recordings("") else { return Vec::new() };
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let named = paths.into_iter().map(|path| (path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), path));
    named.filter_map(|(name, path)| Some((name.clone(), path, adapter_of(&name)?))).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, paths) } else { paths.push(path) }
    }
}

fn adapter_of(name: &str) -> Option<NewAdapter> {
    let is_in = |folder: &str| name.starts_with(folder) || name.contains(folder);
    let ends = |end: &str| name.ends_with(end);
    if ends(".hooks.jsonl") || is_in("claude-hooks/") {
        return Some(|| Box::new(HookLines::new()));
    }
    if ends(".exec.jsonl") {
        return Some(|| Box::new(CodexJson::new()));
    }
    if ends(".stream.jsonl") {
        return Some(|| Box::new(ClaudeStream::new()));
    }
    if ends("rollout.jsonl") || is_in("codex-rollouts/") {
        return Some(|| Box::new(CodexRollout::new()));
    }
    let is_transcript = ends(".transcript.jsonl") || is_in(".subagents/") || is_in("transcripts/");
    if is_transcript && ends(".jsonl") {
        return Some(|| Box::new(ClaudeTranscript::new()));
    }
    None
}

/// The events of each line; none for a line that is refused.
fn read(name: &str, adapter: &mut dyn LineAdapter, lines: &[String]) -> Vec<Vec<RuntimeEvent>> {
    let mut events = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let is_torn = TORN.0 == name && TORN.1.contains(&(at + 1));
        match adapter.line(line, Some(NOW)) {
            Ok(told) => {
                assert!(!is_torn, "{name}:{}", at + 1);
                events.push(told);
            }
            Err(AdapterError::NotAnObject { .. }) if is_torn => events.push(Vec::new()),
            Err(error) => panic!("{name}:{}: {error}", at + 1),
        }
    }
    events
}

/// What has to be kept of a line: all of it, of a wrapped hook payload the payload.
fn kept(line: &str) -> String {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(line).unwrap();
    let wrapped = fields.get("data").filter(|_| fields.contains_key("ts"));
    wrapped.map_or(line, |data| data.get()).trim().to_owned()
}

#[test]
fn every_line_is_told_and_its_words_are_kept() {
    let mut files_read = 0;
    for (name, path, adapter) in files() {
        let lines = lines_of(&path);
        for (line, events) in lines.iter().zip(read(&name, &mut *adapter(), &lines)) {
            let Some(first) = events.first() else {
                assert_eq!(name, TORN.0);
                continue;
            };
            assert!(first.json().contains(&format!(r#""payload":{}"#, kept(line))), "{name}: {line}");
            for event in &events {
                assert_eq!(&RuntimeEvent::from_json(event.json()).unwrap(), event, "{name}");
                assert!(!matches!(event.kind(), EventKind::Other(_)), "{name}: {}", event.json());
                assert!(event.occurred_at().is_some(), "{name}");
            }
        }
        files_read += 1;
    }
    assert!(files_read == 0 || files_read >= 200, "{files_read} files");
}

#[test]
fn ids_are_of_their_source_each_its_own_and_the_same_each_time() {
    for (name, path, adapter) in files() {
        let lines = lines_of(&path);
        let ids = |lines: &[String]| -> Vec<String> {
            let events = read(&name, &mut *adapter(), lines);
            events.iter().flatten().map(|event| event.id().unwrap().as_str().to_owned()).collect()
        };
        let first = ids(&lines);
        assert_eq!(first, ids(&lines), "{name}");
        let grown = ids(&lines[..lines.len() / 2]);
        assert_eq!(grown, first[..grown.len()], "{name}: a file that grew");
        let mut seen = HashSet::new();
        for id in &first {
            assert!(seen.insert(id), "{name}: {id} comes twice");
            let source = Source::of(&runledger_events::EventId::new(id.as_str()).unwrap());
            assert_ne!(source, Source::Runtime, "{name}: {id}");
        }
    }
}
