//! The exported form of an event: one line of JSON that another log can take in, equal but for the position.

use std::fmt::Write as _;

use runledger_events::{
    AdapterSessionId, Codec, CodecError, Digest, EventId, EventKind, Facts, IdError, KindFacts, Metadata, Position,
    RunId, RuntimeEvent, RuntimeEventError, SALT_BYTES, Salt, SessionId, StreamName, StreamVersion, TimestampMs, brief,
    commitment,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{NewEventError, ReadError};
use crate::new_event::{NewContent, NewEvent, check_size};
use crate::reader::{EventFilter, LogReader, Read};
use crate::row::RawEvent;

/// A line that is no exported event.
#[derive(Debug, thiserror::Error)]
pub enum ExportedError {
    /// It is not of the shape that `export` writes.
    #[error("no exported event: {0}")]
    Shape(#[from] serde_json::Error),
    /// A field holds what it cannot hold.
    #[error("no exported event: `{field}` is not {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// Its event is none.
    #[error(transparent)]
    Event(#[from] RuntimeEventError),
    /// A name in it is none.
    #[error(transparent)]
    Name(#[from] IdError),
    /// It cannot be appended.
    #[error(transparent)]
    NewEvent(#[from] NewEventError),
}

#[derive(Serialize, Deserialize)]
struct Exported<'a> {
    position: Position,
    stream: StreamName,
    stream_version: StreamVersion,
    recorded_at: TimestampMs,
    id: EventId,
    kind: String,
    occurred_at: TimestampMs,
    #[serde(default)]
    causation_id: Option<EventId>,
    #[serde(default)]
    correlation_id: Option<String>,
    #[serde(default)]
    session_id: Option<SessionId>,
    #[serde(default)]
    adapter_session_id: Option<AdapterSessionId>,
    #[serde(default)]
    run_id: Option<RunId>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    /// The stored payload, in hexadecimal.
    #[serde(default)]
    facts: Option<String>,
    #[serde(default)]
    salt: Option<String>,
    #[serde(default)]
    commitment: Option<String>,
    #[serde(default)]
    digest: Option<String>,
}

impl LogReader {
    /// Hands each event, as a line of JSON without its line break, to `take`, in the order of the log; without content, as
    /// of events that were erased, where only facts may be handed on.
    ///
    /// # Errors
    /// [`ReadError`], or what `take` fails with.
    pub fn export<E: From<ReadError>>(
        &self,
        session: Option<&SessionId>,
        with_content: bool,
        mut take: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<u64, E> {
        let filter = EventFilter { session: session.cloned(), ..EventFilter::default() };
        let mut events = 0;
        let mut failed = None;
        let up_to = self.head().map_err(ReadError::from)?.position;
        self.scan(&filter, Position::START, up_to, Read::All, true, |raw| {
            let raw = if with_content { raw } else { raw.without_content() };
            let line = exported_line(self.codec(), &raw)?;
            match take(&line) {
                Ok(()) => events += 1,
                Err(error) => failed = Some(error),
            }
            Ok(failed.is_none())
        })?;
        failed.map_or(Ok(events), Err)
    }
}

/// One event as `export` writes it.
pub(crate) fn exported_line(codec: &Codec, raw: &RawEvent) -> Result<String, ReadError> {
    let position = raw.position;
    let json = raw
        .content
        .map(|content| codec.decode_content(content))
        .transpose()
        .map_err(|source| ReadError::Payload { position, source })?;
    let damaged = |column| move |_: serde_json::Error| ReadError::Column { position, column };
    let event = json.as_deref().map(serde_json::from_str::<&RawValue>).transpose().map_err(damaged("content"))?;
    let proof = raw.proof.as_ref();
    let Metadata { causation_id, correlation_id, session_id, adapter_session_id, run_id } = raw.metadata.clone();
    serde_json::to_string(&Exported {
        position,
        stream: raw.stream.clone(),
        stream_version: raw.stream_version,
        recorded_at: raw.recorded_at,
        id: raw.id.clone(),
        kind: raw.kind.to_string(),
        occurred_at: raw.occurred_at,
        causation_id,
        correlation_id,
        session_id,
        adapter_session_id,
        run_id,
        event,
        facts: Some(to_hex(raw.facts)),
        salt: proof.and_then(|proof| proof.salt).map(|salt| to_hex(&salt)),
        commitment: proof.map(|proof| to_hex(&proof.commitment.0)),
        digest: proof.map(|proof| to_hex(&proof.digest.0)),
    })
    .map_err(damaged("content"))
}

/// Reads a line of `export` (or of `events --json`, which leaves out salt and digests) back into an event to append.
///
/// # Errors
/// [`ExportedError`] when the line is of another shape.
pub fn new_event_from_exported(line: &str) -> Result<(StreamName, StreamVersion, NewEvent), ExportedError> {
    let (stream, version, event) = event_of(line, Whose::Told)?;
    let is_short = |text: &str| text.len() <= EventKind::BYTES_MAX;
    let correlation_id = event.metadata.correlation_id.as_deref().unwrap_or_default();
    for (field, is_taken) in [("kind", is_short(event.kind.as_str())), ("correlation_id", is_short(correlation_id))] {
        if !is_taken {
            return Err(ExportedError::Field { field, expected: "a string of at most 1024 bytes" });
        }
    }
    check_place(&stream, &event.kind, &event.facts()?)?;
    // Its stream may have had other events before it.
    Ok((stream, version, NewEvent { digest: None, ..event }))
}

/// The same for a copy of the log that the line is of, which takes whatever that has, as long as it comes to the same digest: also what
/// another release has read in a text, and what this one cannot read.
pub(crate) fn copied_event(line: &str) -> Result<(StreamName, StreamVersion, NewEvent), ExportedError> {
    event_of(line, Whose::OfTheLog)
}

/// Whose facts a line has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Whoever wrote the line says so, and they have to be those of the text.
    Told,
    /// They stand in a log: another release may have read other facts in the text, and the digest binds them.
    OfTheLog,
}

fn event_of(line: &str, whose: Whose) -> Result<(StreamName, StreamVersion, NewEvent), ExportedError> {
    let exported: Exported<'_> = serde_json::from_str(line).map_err(brief)?;
    let hex = |field: &'static str, text: &Option<String>| {
        text.as_deref()
            .map(|text| from_hex(text).ok_or(ExportedError::Field { field, expected: "bytes in hexadecimal" }))
    };
    let kind = EventKind::parse(&exported.kind);
    let given_facts = hex("facts", &exported.facts).transpose()?;
    let codec = Codec::default();
    let (facts, content) = match exported.event {
        Some(json) => {
            check_size(json.get())?;
            let salt = hex("salt", &exported.salt)
                .transpose()?
                .map(|salt| Salt::try_from(salt).map_err(|_| salt_shape()))
                .transpose()?;
            let agrees = |field, is_so: bool| {
                let expected = "what its event says";
                if is_so { Ok(()) } else { Err(ExportedError::Field { field, expected }) }
            };
            let facts = match given_facts {
                Some(facts) if whose == Whose::OfTheLog && !codec.is_of_own_version(&facts) => facts,
                given => {
                    let event = RuntimeEvent::from_json(json.get())?;
                    agrees("kind", *event.kind() == kind)?;
                    match given {
                        // Facts decide what a run's state is, so they have to be those of the text.
                        Some(facts) => {
                            let told = codec.decode_facts(&facts).map_err(NewEventError::from)?;
                            agrees("facts", told == *event.facts())?;
                            facts
                        }
                        None => codec.encode_facts(event.facts()).map_err(NewEventError::from)?,
                    }
                }
            };
            if let (Some(salt), Some(told)) = (&salt, hex("commitment", &exported.commitment).transpose()?) {
                agrees("commitment", commitment(salt, json.get().as_bytes()).0[..] == told[..])?;
            }
            (facts, NewContent::Json { json: json.get().to_owned(), salt })
        }
        None => {
            let missing = |field| ExportedError::Field { field, expected: "there, though the content was erased" };
            let stored = hex("commitment", &exported.commitment)
                .transpose()?
                .and_then(|bytes| Digest::from_slice(&bytes))
                .ok_or_else(|| missing("commitment"))?;
            (given_facts.ok_or_else(|| missing("facts"))?, NewContent::Erased { commitment: stored })
        }
    };
    let new = NewEvent {
        id: Some(exported.id),
        kind,
        occurred_at: Some(exported.occurred_at),
        recorded_at: Some(exported.recorded_at),
        metadata: Metadata {
            causation_id: exported.causation_id,
            correlation_id: exported.correlation_id,
            session_id: exported.session_id,
            adapter_session_id: exported.adapter_session_id,
            run_id: exported.run_id,
        },
        facts,
        content,
        digest: hex("digest", &exported.digest).transpose()?.map(|bytes| digest_of(&bytes, "digest")).transpose()?,
    };
    // What no program can read must not get into the log.
    match new.facts() {
        Err(NewEventError::Codec(CodecError::Newer { .. })) if whose == Whose::OfTheLog => {}
        facts => drop(facts?),
    }
    Ok((exported.stream, exported.stream_version, new))
}

/// A run's own facts stand in its own stream, and a stream is of one of the four sorts.
fn check_place(stream: &StreamName, kind: &EventKind, facts: &Facts) -> Result<(), ExportedError> {
    if stream.is_of_ledger() && matches!(kind, EventKind::LedgerRedacted | EventKind::LedgerSealed) {
        return Ok(());
    }
    let is_request = stream.as_str().starts_with("request/");
    if stream.session_id().is_none() && stream.run_id().is_none() && !is_request && !stream.is_rules() {
        return Err(ExportedError::Field {
            field: "stream", expected: "session/…, run/…, request/… or rules/…"
        });
    }
    if kind.is_workflow() && stream.run_id().is_none() {
        return Err(ExportedError::Field { field: "stream", expected: "the run's own, as its kind asks for" });
    }
    match &facts.data {
        KindFacts::WorkflowStart(start) if stream.run_id().as_ref() != Some(&start.run_id) => {
            Err(ExportedError::Field { field: "stream", expected: "that of the run it starts" })
        }
        _ => Ok(()),
    }
}

fn salt_shape() -> ExportedError {
    const { assert!(SALT_BYTES == 16) };
    ExportedError::Field { field: "salt", expected: "16 bytes in hexadecimal" }
}

fn digest_of(bytes: &[u8], field: &'static str) -> Result<Digest, ExportedError> {
    Digest::from_slice(bytes).ok_or(ExportedError::Field { field, expected: "32 bytes in hexadecimal" })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
