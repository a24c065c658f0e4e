//! What stands in a log's stream on an engine, and is no event of a ledger: a message that somebody else published there.
//!
//! It has a position that every copy has to fill, and with the same, whatever release fills it: so an event tells of it, of which every
//! byte follows from the message.

use runledger_events::{EventId, EventKind, Metadata, Position, SALT_BYTES, StreamName, TimestampMs, content_digest};

use crate::new_event::{NewContent, NewEvent};

/// The kind of what tells of it.
const KIND: &str = "ledger.stray";
/// The facts of an event without any, in version 2 of the codec: for ever, as they are part of the digest.
const FACTS: [u8; 8] = [2, 0, 0, 0, 0, 0, 0, 0];

/// A message that is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray<'a> {
    /// Where it was published.
    pub subject: &'a str,
    /// When the engine took it.
    pub at: TimestampMs,
    /// Its length.
    pub bytes: usize,
}

impl Stray<'_> {
    /// The event that tells of it; `None` only where a name cannot be made of digits.
    pub(crate) fn event(&self, position: Position) -> Option<(StreamName, NewEvent)> {
        let json = serde_json::json!({ "data": { "bytes": self.bytes, "subject": self.subject }, "kind": KIND });
        let event = NewEvent {
            id: Some(EventId::new(format!("stray-{position}")).ok()?),
            kind: EventKind::parse(KIND),
            occurred_at: Some(self.at),
            recorded_at: Some(self.at),
            metadata: Metadata::default(),
            facts: FACTS.to_vec(),
            content: NewContent::Json { json: json.to_string(), salt: Some([0; SALT_BYTES]) },
            digest: None,
        };
        Some((stream_of_strays(self.subject)?, event))
    }
}

/// The stream of what was published at a subject and is no event.
pub(crate) fn stream_of_strays(subject: &str) -> Option<StreamName> {
    StreamName::new(format!("stray/{}", content_digest(subject.as_bytes()))).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use runledger_events::{Codec, RuntimeEvent};

    use super::*;

    #[test]
    fn its_bytes_are_a_promise() {
        let stray = Stray { subject: "team.\"x\"", at: TimestampMs(5), bytes: 7 };
        let (stream, event) = stray.event(Position(6)).unwrap();
        assert_eq!(stream.as_str(), "stray/26b6e03000bbd404a9ea472abe14f5547f1d2f7d8d1706b7c8d2f16db9d75567");
        let json = r#"{"data":{"bytes":7,"subject":"team.\"x\""},"kind":"ledger.stray"}"#;
        assert_eq!((event.json(), event.id().unwrap().as_str()), (Some(json), "stray-6"));
        // As this release reads the text, too.
        let read = RuntimeEvent::from_json(json).unwrap();
        assert_eq!(Codec::default().encode_facts(read.facts()).unwrap(), FACTS);
    }
}
