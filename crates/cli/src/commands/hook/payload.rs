//! From the bytes on standard input to the event that goes into the ledger.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use runledger_adapters::{hook_event, redact_secrets};
use runledger_events::{EventId, RunId, RuntimeEvent, SessionId, Source, TimestampMs};
use runledger_store::SpoolRecord;
use serde::Serialize;

/// The longest payload that is taken, in bytes.
const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// How much is kept of a longer one.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// What came.
pub(crate) enum Payload {
    Event(Box<SpoolRecord>),
    /// No event can be made of it that had a session to go to.
    Unusable {
        /// What is kept of it.
        bytes: Vec<u8>,
        reason: String,
    },
    Nothing,
}

impl Payload {
    /// Reads standard input to its end; whoever writes to it is never cut off.
    ///
    /// # Errors
    /// The system's, when it cannot be read.
    pub(crate) fn read(mut input: impl Read, redacts_secrets: bool) -> std::io::Result<Self> {
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut bytes = Vec::with_capacity(16 << 10);
        input.by_ref().take(PAYLOAD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > PAYLOAD_BYTES_MAX {
            let rest = std::io::copy(&mut input, &mut std::io::sink())?;
            let length = bytes.len() as u64 + rest;
            let reason =
                format!("a payload of {length} bytes is too long: {PAYLOAD_BYTES_MAX} are taken; its begin is kept");
            bytes.truncate(KEPT_BYTES_MAX);
            let bytes = if redacts_secrets { without_secrets(&bytes) } else { bytes };
            return Ok(Self::Unusable { bytes, reason });
        }
        let bytes = if redacts_secrets { without_secrets(&bytes) } else { bytes };
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        // A name that the ledger does not take names nothing; the harness's own session is there still.
        let session_id = variable("RUNLEDGER_SESSION").and_then(|id| SessionId::new(id).ok());
        let run_id = variable("RUNLEDGER_RUN_ID").and_then(|id| RunId::new(id).ok());
        Ok(Self::understand(bytes, session_id, run_id, u64::try_from(now_ns).unwrap_or(u64::MAX)))
    }

    fn understand(bytes: Vec<u8>, session: Option<SessionId>, run_id: Option<RunId>, arrived_at_ns: u64) -> Self {
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let reason = format!("the payload is no UTF-8: {}", error.utf8_error());
                return Self::Unusable { bytes: error.into_bytes(), reason };
            }
        };
        if text.trim().is_empty() {
            return Self::Nothing;
        }
        let unusable = |text: String, reason: String| Self::Unusable { bytes: text.into_bytes(), reason };
        let now = TimestampMs(i64::try_from(arrived_at_ns / 1_000_000).unwrap_or(i64::MAX));
        let name = uuid::Uuid::now_v7().to_string();
        let event = match (hook_event(&text, &name, now), &session) {
            (Ok(event), _) => event,
            (Err(_), Some(_)) => match unknown_event(&text, &name, now) {
                Ok(event) => event,
                Err(reason) => return unusable(text, reason),
            },
            (Err(error), None) => return unusable(text, error.to_string()),
        };
        let own_session = || event.adapter_session_id().and_then(|id| SessionId::new(id.as_str()).ok());
        let Some(session_id) = session.or_else(own_session) else {
            return unusable(text, "the payload has no `session_id`, and RUNLEDGER_SESSION names none".to_owned());
        };
        Self::Event(Box::new(SpoolRecord { arrived_at_ns, session_id, run_id, event }))
    }
}

/// The event of words that are no JSON object: the words themselves, as a text.
fn unknown_event(payload: &str, name: &str, now: TimestampMs) -> Result<RuntimeEvent, String> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Unknown<'a> {
        id: EventId,
        timestamp: TimestampMs,
        kind: &'a str,
        data: Data<'a>,
        hook_name: &'a str,
        payload: &'a str,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        source_event_name: &'a str,
    }
    let id = Source::Hook.event_id(name).map_err(|error| error.to_string())?;
    let data = Data { source_event_name: "hook" };
    let event = Unknown { id, timestamp: now, kind: "unknown", data, hook_name: "hook", payload };
    let json = serde_json::to_string(&event).map_err(|error| error.to_string())?;
    RuntimeEvent::from_json(&json).map_err(|error| error.to_string())
}
/// What is no UTF-8 is kept aside as text then: secrets are found in nothing else.
fn without_secrets(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    redact_secrets(&text).into_owned().into_bytes()
}
