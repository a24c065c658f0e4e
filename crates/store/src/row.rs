//! A row of the log as it is stored, and the event in it.

use runledger_events::{
    Codec, Content, Digest, EventId, EventKind, Metadata, Position, RecordedEvent, Salt, StreamName, StreamVersion,
    TimestampMs,
};

use crate::error::ReadError;

/// One row, names resolved, payloads undecoded, where SQLite has them.
#[derive(Debug)]
pub(crate) struct RawEvent<'row> {
    pub(crate) position: Position,
    pub(crate) stream: StreamName,
    pub(crate) stream_version: StreamVersion,
    pub(crate) id: EventId,
    pub(crate) kind: EventKind,
    pub(crate) occurred_at: TimestampMs,
    pub(crate) recorded_at: TimestampMs,
    pub(crate) metadata: Metadata,
    pub(crate) facts: &'row [u8],
    pub(crate) proof: Option<Proof>,
    /// The stored content payload; `None` where it was erased, or not read.
    pub(crate) content: Option<&'row [u8]>,
    pub(crate) content_was_read: bool,
}

/// What ties the row to its stream and its place.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    pub(crate) digest: Digest,
    pub(crate) chain: Digest,
    pub(crate) commitment: Digest,
    pub(crate) salt: Option<Salt>,
}

impl RawEvent<'_> {
    /// Decodes the payloads that were read.
    pub(crate) fn decode(self, codec: &Codec) -> Result<RecordedEvent, ReadError> {
        let position = self.position;
        let payload = |source| ReadError::Payload { position, source };
        let facts = codec.decode_facts(self.facts).map_err(payload)?;
        let content = match self.content {
            Some(content) => Content::Json(codec.decode_content(content).map_err(payload)?),
            None if self.content_was_read => Content::Erased,
            None => Content::NotRead,
        };
        Ok(RecordedEvent {
            position,
            stream: self.stream,
            stream_version: self.stream_version,
            id: self.id,
            kind: self.kind,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            metadata: self.metadata,
            facts,
            content,
        })
    }
}
