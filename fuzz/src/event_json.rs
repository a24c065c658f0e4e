//! RuntimeEvents as JSON text, lines of `export`, and the lines of `ingest --format runtime`.

use std::io::BufReader;

use runledger_events::{Codec, Metadata, RuntimeEvent, readable};
use runledger_store::{NewEvent, new_event_from_exported};

/// The program has no library, so its reader of lines is compiled in here.
#[path = "../../crates/cli/src/commands/ingest/lines.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod ingest_lines;
use ingest_lines::{Line, Lines};

/// One event, or one line of `export`.
pub fn event_json(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        one(text);
    }
}

fn one(text: &str) {
    match RuntimeEvent::from_json(text) {
        Ok(event) => {
            assert_eq!(event.json(), text.trim().replace(['\n', '\r'], " "), "the text is kept");
            comes_back(&event);
        }
        Err(error) => assert!((1..4096).contains(&error.to_string().len()), "an error is short"),
    }
    match new_event_from_exported(text) {
        Ok((stream, _, event)) => {
            assert!(!stream.as_str().is_empty());
            assert!(event.id().is_some(), "an exported event has its id");
            event.facts().expect("what goes into a log can be read");
        }
        Err(error) => assert!((1..4096).contains(&error.to_string().len()), "an error is short"),
    }
}

/// An event is taken by the log, and survives it.
pub(crate) fn comes_back(event: &RuntimeEvent) {
    let again = RuntimeEvent::from_json(event.json()).expect("its own text is an event");
    assert_eq!(&again, event);
    let is_strict = serde_json::from_str::<serde::de::IgnoredAny>(&readable(event.json())).is_ok();
    assert!(is_strict, "its text is JSON");
    let codec = Codec::default();
    let content = codec.encode_content(event.json()).expect("its text can be written");
    assert_eq!(codec.decode_content(&content).expect("and read"), event.json());
    let new = NewEvent::new(event.clone(), Metadata::default()).expect("the log takes it");
    assert_eq!(&new.facts().expect("its facts can be read"), event.facts());
}

/// A file of lines, of which none may be longer than its first byte says.
pub fn runtime_lines(bytes: &[u8]) {
    let (bytes_max, bytes) = match bytes.split_first() {
        Some((first, rest)) => (16 + usize::from(*first) * 64, rest),
        None => (16, bytes),
    };
    let mut lines = Lines::new(BufReader::with_capacity(32, bytes), bytes_max);
    let mut last = 0;
    while let Some((number, line)) = lines.next().expect("memory can be read") {
        assert!(number > last, "lines count up");
        last = number;
        match line {
            Line::Text(text) => {
                assert!(!text.trim_end_matches('\n').contains('\n'), "one line at a time");
                assert!(!text.bytes().all(|byte| byte.is_ascii_whitespace()), "blank lines are left out");
                let is_exported = text.starts_with("{\"position\":");
                assert!(text.len() <= bytes_max + 1 || is_exported, "{} bytes where {bytes_max} are taken", text.len());
                one(&text);
            }
            Line::Bad(reason) => assert!(!reason.is_empty()),
        }
    }
    assert_eq!(lines.bytes_read(), bytes.len() as u64, "every byte is read");
}
