//! A row of the log as it is stored, and the event in it.

use runledger_events::{
    Codec, CodecError, Content, Digest, EventId, EventKind, Metadata, PayloadPart, Position, RecordedEvent, Salt,
    StreamName, StreamVersion, TimestampMs, commitment,
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
    /// What binds the content, where it was read: the commitment and its salt.
    pub(crate) sealed: Option<(Digest, Option<Salt>)>,
}

/// A payload that does not decode: it was damaged, or a newer program wrote it.
#[derive(Debug)]
pub struct Unreadable {
    /// Where it stands.
    pub position: Position,
    /// Its stream.
    pub stream: StreamName,
    /// Its event's kind.
    pub kind: EventKind,
    /// Which of the two. Without facts there is no event; without content there is one whose content was not read.
    pub part: PayloadPart,
    /// What is wrong with it.
    pub source: CodecError,
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
    /// The same row as it would be, had its content been erased.
    pub(crate) fn without_content(mut self) -> Self {
        self.content = None;
        if let Some(proof) = &mut self.proof {
            proof.salt = None;
        }
        self
    }

    /// Decodes the payloads that were read.
    pub(crate) fn decode(self, codec: &Codec) -> Result<RecordedEvent, ReadError> {
        let position = self.position;
        match self.decode_readable(codec) {
            (Some(event), None) => Ok(event),
            (_, Some(Unreadable { source, .. })) => Err(ReadError::Payload { position, source }),
            (None, None) => Err(ReadError::Column { position, column: "facts" }),
        }
    }

    /// The content, where it is what was appended: a bit that was flipped may leave another text.
    fn open(&self, codec: &Codec, content: &[u8]) -> Result<String, CodecError> {
        let json = codec.decode_content(content)?;
        match &self.sealed {
            Some((sealed, salt)) if salt.is_none_or(|salt| commitment(&salt, json.as_bytes()) != *sealed) => {
                Err(CodecError::Altered { part: PayloadPart::Content })
            }
            _ => Ok(json),
        }
    }

    /// The event, as far as it can be read, and what of it cannot.
    pub(crate) fn decode_readable(self, codec: &Codec) -> (Option<RecordedEvent>, Option<Unreadable>) {
        let unreadable = |part, source| Unreadable {
            position: self.position,
            stream: self.stream.clone(),
            kind: self.kind.clone(),
            part,
            source,
        };
        let facts = match codec.decode_facts(self.facts) {
            Ok(facts) => facts,
            Err(source) => return (None, Some(unreadable(PayloadPart::Facts, source))),
        };
        let (content, unreadable) = match self.content.map(|content| self.open(codec, content)) {
            Some(Ok(json)) => (Content::Json(json), None),
            Some(Err(source)) => (Content::NotRead, Some(unreadable(PayloadPart::Content, source))),
            None if self.content_was_read => (Content::Erased, None),
            None => (Content::NotRead, None),
        };
        let event = RecordedEvent {
            position: self.position,
            stream: self.stream,
            stream_version: self.stream_version,
            id: self.id,
            kind: self.kind,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            metadata: self.metadata,
            facts,
            content,
        };
        (Some(event), unreadable)
    }
}
