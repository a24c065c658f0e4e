//! The log at its limits: an event of the largest size, and a hundred thousand streams.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

use runledger_events::{CONTENT_BYTES_MAX, Metadata, Position, RuntimeEvent, StreamVersion};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, NewEventError, StreamAppend};
use support::{Place, all, append_one, assert_dense, prompt, stream};

/// An event whose text has this many bytes.
fn event_of(bytes: usize) -> Result<NewEvent, NewEventError> {
    let text = |prompt: &str| format!(r#"{{"id":"large","kind":"user.prompt","data":{{"prompt":"{prompt}"}}}}"#);
    let json = text(&"x".repeat(bytes - text("").len()));
    assert_eq!(json.len(), bytes);
    NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), Metadata::default())
}

#[test]
fn an_event_at_the_size_limit_is_taken_and_one_byte_more_is_refused() {
    // Given
    let place = Place::new();
    let log = place.log();
    append_one(&log, "session/a", prompt("before", "x"));
    // When
    let error = event_of(CONTENT_BYTES_MAX + 1).unwrap_err();
    let receipt = append_one(&log, "session/a", event_of(CONTENT_BYTES_MAX).unwrap());
    // Then the one says how large it is and may be, and the other is there, whole.
    let NewEventError::TooLarge { bytes, max } = error else { panic!("{error}") };
    assert_eq!((bytes, max), (CONTENT_BYTES_MAX + 1, CONTENT_BYTES_MAX));
    assert_eq!(receipt.position, Position(2));
    let reader = place.reader();
    let events = all(&reader);
    assert_eq!(events[1].content.json().unwrap().len(), CONTENT_BYTES_MAX);
    // Who comes next goes on.
    assert_eq!(append_one(&log, "session/a", prompt("after", "x")).position, Position(3));
}

#[test]
fn a_hundred_thousand_streams_are_appended_to_and_each_keeps_its_versions() {
    const STREAMS: usize = 100_000;
    const IN_ONE_APPEND: usize = 1000;
    // Given more streams than a writer keeps the heads of
    let place = Place::new();
    let log = place.log();
    let append = |n: usize, id: &str, expected| StreamAppend {
        stream: stream(&format!("session/{n}")),
        expected,
        events: vec![prompt(&format!("{id}{n}"), "x")],
    };
    let (new, second) = (ExpectedVersion::NoStream, ExpectedVersion::Exact(StreamVersion(1)));
    for first in (0..STREAMS).step_by(IN_ONE_APPEND) {
        log.append_all((first..first + IN_ONE_APPEND).map(|n| append(n, "a", new)).collect()).unwrap();
    }
    // When some of them, all over the log, are appended to again
    let some = (0..STREAMS).step_by(97);
    let receipts = log.append_all(some.clone().map(|n| append(n, "b", second)).collect()).unwrap();
    // Then each goes on from its own version, and every one is found by its name.
    assert!(receipts.iter().all(|receipt| receipt.stream_version == StreamVersion(2)));
    let reader = place.reader();
    let events = all(&reader);
    assert_eq!(events.len(), STREAMS + some.len());
    assert_dense(&events);
    for n in (0..STREAMS).step_by(1009) {
        let expected = if n % 97 == 0 { 2 } else { 1 };
        assert_eq!(reader.stream_version(&stream(&format!("session/{n}"))).unwrap(), StreamVersion(expected));
    }
    let error = log.append_all(vec![append(STREAMS - 1, "c", new)]).unwrap_err();
    assert!(error.to_string().contains("session/99999"), "{error}");
}
