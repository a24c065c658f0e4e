//! One event in a spool: a line with a checksum, so that a torn one is known and costs nothing but itself.

use runledger_events::{Metadata, RunId, RuntimeEvent, SessionId, StreamName, brief, content_digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::expected_version::ExpectedVersion;
use crate::new_event::{NewEvent, StreamAppend};

/// The version of the line's JSON.
///
/// - 1: release 0.1.
const VERSION: u32 = 1;

/// Hexadecimal digits of the checksum: the begin of the BLAKE3 digest of the JSON.
const CHECKSUM_CHARS: usize = 16;

/// An event of a session on its way into the log, with the id and the time that it will have there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolRecord {
    /// When it came: Unix nanoseconds, by the wall clock. Two spools are taken in by this order.
    pub arrived_at_ns: u64,
    /// Its session, whose stream it goes to.
    pub session_id: SessionId,
    /// The workflow run that it belongs to.
    pub run_id: Option<RunId>,
    /// The event; it has an id.
    pub event: RuntimeEvent,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    v: u32,
    arrived_at_ns: u64,
    session_id: std::borrow::Cow<'a, str>,
    run_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    event: &'a RawValue,
}

impl SpoolRecord {
    /// The event as the log takes it.
    ///
    /// # Errors
    /// Why the log does not take it.
    pub fn into_append(self) -> Result<StreamAppend, String> {
        let stream = StreamName::session(&self.session_id);
        let metadata = Metadata { session_id: Some(self.session_id), run_id: self.run_id, ..Metadata::default() };
        let event = NewEvent::new(self.event, metadata).map_err(|error| error.to_string())?;
        if event.id().is_none() {
            return Err("the event has no id, so it could come twice".to_owned());
        }
        Ok(StreamAppend { stream, expected: ExpectedVersion::Any, events: vec![event] })
    }

    /// The line, with its line break.
    ///
    /// # Errors
    /// serde_json's, where the event's text is no JSON.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        let event: &RawValue = serde_json::from_str(self.event.json())?;
        let line = Line {
            v: VERSION,
            arrived_at_ns: self.arrived_at_ns,
            session_id: self.session_id.as_str().into(),
            run_id: self.run_id.as_ref().map(|id| id.as_str().into()),
            event,
        };
        let json = serde_json::to_string(&line)?;
        Ok(format!("{} {json}\n", checksum(json.as_bytes())))
    }

    /// Reads a line without its line break.
    ///
    /// # Errors
    /// Why it cannot be taken.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        let (sum, json) = line.split_at_checked(CHECKSUM_CHARS).ok_or("the record is torn")?;
        let json = json.strip_prefix(b" ").ok_or("the record is torn")?;
        if sum != checksum(json).as_bytes() {
            return Err("the record is torn".to_owned());
        }
        let line: Line<'_> = serde_json::from_slice(json)
            .map_err(|error| format!("the record is of no known shape: {}", brief(error)))?;
        if line.v > VERSION {
            return Err(format!("the record has version {}; this program knows {VERSION}", line.v));
        }
        let refused = |error: &dyn std::fmt::Display| format!("the record is refused: {error}");
        Ok(Self {
            arrived_at_ns: line.arrived_at_ns,
            session_id: SessionId::new(line.session_id).map_err(|error| refused(&error))?,
            run_id: line.run_id.map(RunId::new).transpose().map_err(|error| refused(&error))?,
            event: RuntimeEvent::from_json(line.event.get()).map_err(|error| refused(&error))?,
        })
    }
}

fn checksum(bytes: &[u8]) -> String {
    let mut digest = content_digest(bytes).to_string();
    digest.truncate(CHECKSUM_CHARS);
    digest
}
