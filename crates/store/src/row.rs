//! A row of the log as it is stored, and the event in it.

use runledger_events::{
    AdapterSessionId, Codec, Content, Digest, EventId, EventKind, IdError, Metadata, Position, RecordedEvent, RunId,
    Salt, SessionId, StreamName, StreamVersion, TimestampMs,
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

/// A stream's name, and what it is the stream of: made once for all events that name it.
#[derive(Debug, Clone)]
pub(crate) struct NamedStream {
    pub(crate) name: StreamName,
    session_id: Option<SessionId>,
    run_id: Option<RunId>,
}

impl NamedStream {
    pub(crate) fn new(name: StreamName) -> Self {
        Self { session_id: name.session_id(), run_id: name.run_id(), name }
    }
}

/// The columns of a row that hold names by key.
pub(crate) struct Names {
    pub(crate) session: Option<NamedStream>,
    pub(crate) run: Option<NamedStream>,
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

/// The metadata of a row.
pub(crate) fn metadata(
    position: Position,
    names: Names,
    adapter_session_id: Option<&str>,
    causation_id: Option<&str>,
    correlation_id: Option<String>,
) -> Result<Metadata, ReadError> {
    let name = |source: IdError| ReadError::Name { position, source };
    // A key that leads to a stream of another sort is no session, and no run.
    let column = |column: &'static str| ReadError::Column { position, column };
    let session = names.session.map(|stream| stream.session_id.ok_or_else(|| column("session_key")));
    let run = names.run.map(|stream| stream.run_id.ok_or_else(|| column("run_key")));
    Ok(Metadata {
        causation_id: causation_id.map(EventId::new).transpose().map_err(name)?,
        correlation_id,
        session_id: session.transpose()?,
        adapter_session_id: adapter_session_id.map(AdapterSessionId::new).transpose().map_err(name)?,
        run_id: run.transpose()?,
    })
}
