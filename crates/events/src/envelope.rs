//! An event as the log holds it: with its place, its times and what it belongs to.

use crate::facts::Facts;
use crate::ids::{AdapterSessionId, EventId, RunId, SessionId, StreamName};
use crate::kind::EventKind;
use crate::position::{Position, StreamVersion, TimestampMs};

/// What an event belongs to and what led to it. Each may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The event that led to this one.
    pub causation_id: Option<EventId>,
    /// What groups events across streams, such as one request's.
    pub correlation_id: Option<String>,
    /// The ledger session.
    pub session_id: Option<SessionId>,
    /// The harness's own session.
    pub adapter_session_id: Option<AdapterSessionId>,
    /// The workflow run.
    pub run_id: Option<RunId>,
}

impl Metadata {
    /// The fields in the order in which the digest takes them; the order is part of the format.
    pub(crate) fn fields(&self) -> [Option<&str>; 5] {
        [
            self.causation_id.as_ref().map(EventId::as_str),
            self.correlation_id.as_deref(),
            self.session_id.as_ref().map(SessionId::as_str),
            self.adapter_session_id.as_ref().map(AdapterSessionId::as_str),
            self.run_id.as_ref().map(RunId::as_str),
        ]
    }
}

/// The erasable part of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The event's JSON text, as it came.
    Json(String),
    /// It was erased; facts, digest and commitment are still there.
    Erased,
    /// It was not read, because the reader asked for facts alone.
    NotRead,
}

impl Content {
    /// The JSON text, where it is there.
    pub fn json(&self) -> Option<&str> {
        match self {
            Self::Json(json) => Some(json),
            Self::Erased | Self::NotRead => None,
        }
    }
}

/// One event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its stream.
    pub stream: StreamName,
    /// Its place in the stream, from 1.
    pub stream_version: StreamVersion,
    /// Its id, unique within the stream.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// When it happened, by the teller's clock.
    pub occurred_at: TimestampMs,
    /// When it was appended, by the writer's clock.
    pub recorded_at: TimestampMs,
    /// What it belongs to.
    pub metadata: Metadata,
    /// The typed fields that folds need.
    pub facts: Facts,
    /// The JSON text, unless it was erased or not read.
    pub content: Content,
}
