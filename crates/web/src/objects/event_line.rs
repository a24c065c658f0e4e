//! An event of the log, as `events --json` and `/api/v1/events` have it.

use runledger_events::{EventId, RecordedEvent, StreamVersion, TimestampMs};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

/// Bytes of one event's own JSON among others; longer ones are left out, and counted.
pub(crate) const EVENT_BYTES_MAX: usize = 256 << 10;

/// An event: where it stands, what it belongs to, and its own JSON as it came.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EventLine<'a> {
    /// Its place in the log.
    pub position: u64,
    /// Its stream.
    pub stream: &'a str,
    /// Its place in the stream.
    pub stream_version: StreamVersion,
    /// When it was appended.
    pub recorded_at: TimestampMs,
    /// Its id.
    pub id: &'a EventId,
    /// What it is.
    pub kind: &'a str,
    /// When it happened.
    pub occurred_at: TimestampMs,
    /// The ledger session.
    pub session_id: Option<&'a str>,
    /// The harness's own session.
    pub adapter_session_id: Option<&'a str>,
    /// The workflow run.
    pub run_id: Option<&'a str>,
    /// The event that led to it.
    pub causation_id: Option<&'a str>,
    /// What it belongs with.
    pub correlation_id: Option<&'a str>,
    /// Its JSON; `null` where the content was erased, or left out.
    pub event: Option<&'a RawValue>,
    /// Bytes of its JSON where that is longer than is sent; there otherwise never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out_bytes: Option<usize>,
}

impl<'a> EventLine<'a> {
    /// The line of an event; its JSON is `null` where the content was erased.
    ///
    /// # Errors
    /// What is stored as its content is no JSON.
    pub fn new(event: &'a RecordedEvent) -> serde_json::Result<Self> {
        let mut line = Self::without_content(event);
        line.event = event.content.json().map(serde_json::from_str).transpose()?;
        Ok(line)
    }

    /// The same, where JSON of more than so many bytes is left out, and counted.
    pub(crate) fn within(event: &'a RecordedEvent, bytes_max: usize) -> serde_json::Result<Self> {
        match event.content.json().map(str::len).filter(|bytes| *bytes > bytes_max) {
            Some(bytes) => Ok(Self { left_out_bytes: Some(bytes), ..Self::without_content(event) }),
            None => Self::new(event),
        }
    }

    fn without_content(event: &'a RecordedEvent) -> Self {
        let metadata = &event.metadata;
        Self {
            position: event.position.0,
            stream: event.stream.as_str(),
            stream_version: event.stream_version,
            recorded_at: event.recorded_at,
            id: &event.id,
            kind: event.kind.as_str(),
            occurred_at: event.occurred_at,
            session_id: metadata.session_id.as_ref().map(|id| id.as_str()),
            adapter_session_id: metadata.adapter_session_id.as_ref().map(|id| id.as_str()),
            run_id: metadata.run_id.as_ref().map(|id| id.as_str()),
            causation_id: metadata.causation_id.as_ref().map(|id| id.as_str()),
            correlation_id: metadata.correlation_id.as_deref(),
            event: None,
            left_out_bytes: None,
        }
    }
}
