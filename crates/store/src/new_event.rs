//! Events on their way into the log, and the receipts that come back.

use runledger_events::{
    CONTENT_BYTES_MAX, Codec, Digest, EventId, EventKind, Facts, Metadata, Position, RuntimeEvent, Salt, StreamName,
    StreamVersion, TimestampMs, event_digest,
};

use crate::error::NewEventError;
use crate::expected_version::ExpectedVersion;

/// An event to append, encoded and ready.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub(crate) id: Option<EventId>,
    pub(crate) kind: EventKind,
    pub(crate) occurred_at: Option<TimestampMs>,
    pub(crate) recorded_at: Option<TimestampMs>,
    pub(crate) metadata: Metadata,
    pub(crate) facts: Vec<u8>,
    pub(crate) content: NewContent,
    /// What its digest has to come to, where it is a copy of one whose predecessors in its stream are there too.
    pub(crate) digest: Option<Digest>,
}

/// The erasable part of a new event.
#[derive(Debug, Clone)]
pub(crate) enum NewContent {
    /// JSON text, its salt made at the append unless it is a copy from another log.
    Json { json: String, salt: Option<Salt> },
    /// A copy of an event whose content was erased.
    Erased { commitment: Digest },
}

impl NewEvent {
    /// Prepares an event. Without an adapter session in `metadata`, the event's own `sessionId` is taken.
    ///
    /// # Errors
    /// [`NewEventError`] when it is larger than the log takes.
    pub fn new(event: RuntimeEvent, mut metadata: Metadata) -> Result<Self, NewEventError> {
        check_size(event.json())?;
        if metadata.adapter_session_id.is_none() {
            metadata.adapter_session_id = event.adapter_session_id().cloned();
        }
        Ok(Self {
            id: event.id().cloned(),
            kind: event.kind().clone(),
            occurred_at: event.occurred_at(),
            recorded_at: None,
            metadata,
            facts: Codec::default().encode_facts(event.facts())?,
            content: NewContent::Json { json: event.into_json(), salt: None },
            digest: None,
        })
    }

    /// What its digest comes to as the copy of an event without content, which has an id and times; else none.
    pub(crate) fn digest_behind(&self, before: &Digest, stream: &StreamName, version: StreamVersion) -> Option<Digest> {
        let NewContent::Erased { commitment } = &self.content else {
            return None;
        };
        Some(event_digest(
            before,
            stream,
            version,
            self.id.as_ref()?,
            &self.kind,
            self.occurred_at?,
            self.recorded_at?,
            &self.metadata,
            &self.facts,
            commitment,
        ))
    }

    /// Gives it an id, where it has none of its own.
    #[must_use]
    pub fn or_id(mut self, id: impl FnOnce() -> EventId) -> Self {
        self.id.get_or_insert_with(id);
        self
    }

    /// The same event under another id; its JSON text stays as it is.
    #[must_use]
    pub fn with_id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }

    /// Gives it a time, where its text names none: without one it occurs when it is appended.
    #[must_use]
    pub fn or_occurred_at(mut self, at: TimestampMs) -> Self {
        self.occurred_at.get_or_insert(at);
        self
    }

    /// When it occurred, if that is known.
    pub fn occurred_at(&self) -> Option<TimestampMs> {
        self.occurred_at
    }

    /// Its id, if it has one already.
    pub fn id(&self) -> Option<&EventId> {
        self.id.as_ref()
    }

    /// What happened.
    pub fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// Its JSON text, where it has one.
    pub(crate) fn json(&self) -> Option<&str> {
        match &self.content {
            NewContent::Json { json, .. } => Some(json),
            NewContent::Erased { .. } => None,
        }
    }

    /// What it belongs to.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its typed fields.
    ///
    /// # Errors
    /// [`NewEventError::Codec`] for a copy of an event that this program cannot read.
    pub fn facts(&self) -> Result<Facts, NewEventError> {
        Ok(Codec::default().decode_facts(&self.facts)?)
    }
}

pub(crate) fn check_size(json: &str) -> Result<(), NewEventError> {
    if json.len() > CONTENT_BYTES_MAX {
        return Err(NewEventError::TooLarge { bytes: json.len(), max: CONTENT_BYTES_MAX });
    }
    Ok(())
}

/// Events for one stream, in order.
#[derive(Debug, Clone)]
pub struct StreamAppend {
    /// The stream.
    pub stream: StreamName,
    /// What it has to be.
    pub expected: ExpectedVersion,
    /// 1 to n events.
    pub events: Vec<NewEvent>,
}

/// Where an event stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its place in the log.
    pub position: Position,
    /// Its place in the stream.
    pub stream_version: StreamVersion,
    /// Its id.
    pub event_id: EventId,
    /// When it was appended.
    pub recorded_at: TimestampMs,
    /// Whether it was there before: this is its first receipt again.
    pub is_duplicate: bool,
}
