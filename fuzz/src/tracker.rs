//! Trackers: what an agent wrote, and what its last line says.

use runledger_workflow::{LoopConfig, TrackerReading, Verdict};

/// Bytes of a tracker's text that an event holds, at the most.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Any bytes as a tracker, with the usual markers, and with its own first two lines as markers.
pub fn tracker(bytes: &[u8]) {
    let usual: LoopConfig = serde_json::from_str("{}").expect("every field has a default");
    check(bytes, &usual);
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    if let (Some(completion), Some(blocked)) = (lines.next(), lines.next()) {
        let own = LoopConfig { completion_marker: completion.to_owned(), blocked_marker: blocked.to_owned(), ..usual };
        check(bytes, &own);
    }
}

fn check(bytes: &[u8], config: &LoopConfig) {
    let reading = TrackerReading::of(bytes, config);
    let whole = String::from_utf8_lossy(bytes);
    assert_eq!(reading.facts.bytes, bytes.len() as u64);
    assert!(whole.starts_with(&reading.text) && reading.text.len() <= TEXT_BYTES_MAX);
    assert_eq!(reading.facts.is_whole, reading.text.len() == whole.len());
    let last = whole.lines().map(str::trim).rfind(|line| !line.is_empty());
    match &reading.verdict {
        Verdict::Open => assert!(last.is_none_or(|line| line != config.completion_marker.trim())),
        Verdict::Complete => assert_eq!(last, Some(config.completion_marker.trim())),
        Verdict::Blocked(reason) => {
            let line = last.expect("an empty tracker says nothing");
            assert!(line.starts_with(config.blocked_marker.trim()));
            if let Some(reason) = reason {
                assert!(!reason.is_empty() && reason.trim() == reason && !reason.contains("-->"));
                assert!(line.contains(reason.as_str()));
            }
        }
    }
    let again = TrackerReading::of(reading.text.as_bytes(), config);
    assert_eq!(again.text, reading.text);
}
