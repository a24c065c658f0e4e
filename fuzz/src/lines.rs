//! The lines of every harness format, through its translator, twice.

use std::collections::HashSet;

use runledger_adapters::{
    AdapterError, ClaudeStream, ClaudeTranscript, CodexJson, CodexRollout, HookLines, LineAdapter,
};
use runledger_events::{Fields, TimestampMs, readable};

use crate::event_json::comes_back;

/// Events that one line may tell of, at the most: its blocks, and a few beside them.
const EVENTS_MAX: usize = 2 * 1024 + 2;
/// Bytes of all the texts that the events of one line share, at the most: a dozen texts.
const SHARED_BYTES_MAX: usize = 12 * (16 << 20);

/// Recorded hook payloads.
pub fn claude_hooks(bytes: &[u8]) {
    check(bytes, || Box::new(HookLines::new()), false);
}

/// What `claude -p` prints.
pub fn claude_stream(bytes: &[u8]) {
    check(bytes, || Box::new(ClaudeStream::new()), true);
}

/// Claude Code's record of a session.
pub fn claude_transcript(bytes: &[u8]) {
    check(bytes, || Box::new(ClaudeTranscript::new()), true);
}

/// What `codex exec --json` prints.
pub fn codex_json(bytes: &[u8]) {
    check(bytes, || Box::new(CodexJson::new()), true);
}

/// Codex's record of a thread.
pub fn codex_rollout(bytes: &[u8]) {
    check(bytes, || Box::new(CodexRollout::new()), true);
}

/// `has_whole_line`: the first event's payload is the line itself.
fn check(bytes: &[u8], new: fn() -> Box<dyn LineAdapter>, has_whole_line: bool) {
    let (mut first, mut second, mut live) = (new(), new(), new());
    for line in bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
        let text = readable(line.trim());
        let is_object = Fields::parse(&text).is_ok();
        match (first.line(line, None), second.line(line, None)) {
            (Ok(events), Ok(again)) => {
                assert!(is_object);
                assert_eq!(events, again, "the same lines give the same events");
                assert!(!events.is_empty(), "a line tells of something");
                assert!(events.len() <= EVENTS_MAX, "{} events of one line", events.len());
                let size: usize = events.iter().map(|event| event.json().len()).sum();
                let most = 16 * line.len() + events.len() * 4096 + SHARED_BYTES_MAX;
                assert!(size <= most, "{size} bytes of events out of a line of {}", line.len());
                let ids: HashSet<_> = events.iter().map(|event| event.id().expect("an id")).collect();
                assert_eq!(ids.len(), events.len(), "each event of a line has an id of its own");
                for (at, event) in events.iter().enumerate() {
                    comes_back(event);
                    let json = readable(event.json());
                    let payload = Fields::parse(&json).expect("an object").raw("payload");
                    assert_eq!(payload.is_some(), at == 0, "the first event alone has the harness's words");
                    if at == 0 && has_whole_line {
                        assert_eq!(payload, Some(text.replace('\r', " ").as_str()));
                    }
                }
            }
            (Err(error), Err(again)) => {
                assert_eq!(error.to_string(), again.to_string());
                assert!(matches!(error, AdapterError::NotAnObject { .. }), "a mistake in the translator: {error}");
                assert!(!is_object);
                assert!(error.to_string().len() < 4096, "an error is short");
            }
            (one, other) => panic!("read twice, {one:?} and {other:?}"),
        }
        let _ = live.line(line, Some(TimestampMs(1_761_000_000_000)));
    }
}
