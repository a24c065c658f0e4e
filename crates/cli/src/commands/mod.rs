//! The commands, one a file.

pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod ingest;
pub(crate) mod rebuild_projections;
pub(crate) mod runs;
pub(crate) mod sessions;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod verify;

use runledger_events::SessionId;

/// A session's name on the command line; an empty one, as an unset variable may give it, is none.
pub(crate) fn session(text: &str) -> Result<Option<SessionId>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    SessionId::new(text).map(Some).map_err(|error| error.to_string())
}
