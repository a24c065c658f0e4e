//! A client that speaks in JSON lines: its process run for a turn, each line told as it comes, and what the end means.

use std::process::Command;

use runledger_adapters::LineAdapter;
use runledger_events::{AdapterSessionId, RuntimeEvent};

use super::process::{self, Ended};
use super::{Stop, Turn, TurnDesk};
use crate::desk::now;
use crate::error::HarnessError;

/// The longest line of the output taken in one piece; tool results can be large.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Runs a client for one turn, and records what its lines tell; `session_of` is the client's own session, once a line
/// has named it.
pub(super) fn run<A: LineAdapter>(
    command: Command,
    program: &str,
    turn: &Turn,
    desk: &mut dyn TurnDesk,
    adapter: &mut A,
    session_of: impl Fn(&A) -> Option<&AdapterSessionId>,
) -> Result<Ended, HarnessError> {
    let mut has_session = false;
    process::run(command, program, LINE_BYTES_MAX, turn, desk, |line, desk| {
        let Some(line) = line else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(line);
        if text.trim().is_empty() {
            return Ok(());
        }
        let events = match adapter.line(text.trim(), Some(now())) {
            Ok(events) => events,
            Err(error) => vec![stray_line(text.trim_end(), &error.to_string())?],
        };
        if !has_session && let Some(id) = session_of(adapter) {
            desk.name_session(id)?;
            has_session = true;
        }
        desk.record(events)
    })
}

/// Why a turn failed whose lines say nothing of it: a signal ended the client, or nobody said that the turn came to its
/// end (`is_told`), which lacks its `last_line`.
pub(super) fn failure(client: &str, ended: &Ended, is_told: bool, last_line: &str) -> Option<String> {
    let signalled = ended.signal.map(|signal| format!("{client} was ended by signal {signal}"));
    let is_unfinished = !is_told && ended.exit_code == Some(0);
    signalled.or_else(|| is_unfinished.then(|| format!("{client} ended without {last_line}")))
}

/// A line that is no JSON: kept, as the text that it is.
fn stray_line(line: &str, error: &str) -> Result<RuntimeEvent, Stop> {
    let data = serde_json::json!({"source_event_name": "stdout", "text": line, "error": error});
    RuntimeEvent::from_json(&serde_json::json!({"kind": "unknown", "data": data}).to_string()).map_err(|error| {
        tracing::error!(%error, "a line of a client does not read back");
        Stop::Now
    })
}
