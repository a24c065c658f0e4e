//! DecisionCorrelation: which feed event a decision, or a resolved request, is on.
//!
//! Requests are those of the open run. A decision takes its request: a second one finds nothing. That a server request was
//! resolved can be told any number of times.

use serde::{Deserialize, Serialize};

use super::memory::{Memory, Seam};
use crate::error::ProjectionError;

/// A request that may be decided on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The feed event.
    pub(super) event_id: String,
    /// Its kind.
    pub(super) kind: String,
    is_open: bool,
}

/// Whether a request of this kind is what a decision is on, whatever else its event tells.
fn is_decidable(kind: &str) -> bool {
    matches!(kind, "permission.request" | "stop.request")
}

/// Notes a request. A stop or a permission keeps its place against other feed events of the same RuntimeEvent.
pub(super) fn requested(
    memory: &mut Memory<'_>,
    request_id: &str,
    event_id: &str,
    kind: &str,
) -> Result<(), ProjectionError> {
    let known: Option<Request> = memory.get(Seam::Request, request_id)?;
    if known.is_some_and(|known| is_decidable(&known.kind)) && !is_decidable(kind) {
        return Ok(());
    }
    let request = Request { event_id: event_id.to_owned(), kind: kind.to_owned(), is_open: true };
    memory.put(Seam::Request, request_id, &request)
}

impl Request {
    /// The feed event's number in its session.
    pub(super) fn seq(&self) -> Option<u64> {
        self.event_id.rsplit_once(":E").and_then(|(_, seq)| seq.parse().ok())
    }
}

/// The request of this id, however it stands.
pub(super) fn known(memory: &mut Memory<'_>, request_id: &str) -> Result<Option<Request>, ProjectionError> {
    memory.get(Seam::Request, request_id)
}

/// The request of this id, which is thereby decided.
pub(super) fn decide(memory: &mut Memory<'_>, request_id: &str) -> Result<Option<Request>, ProjectionError> {
    let Some(mut request) = memory.get::<Request>(Seam::Request, request_id)?.filter(|request| request.is_open) else {
        return Ok(None);
    };
    request.is_open = false;
    memory.put(Seam::Request, request_id, &request)?;
    Ok(Some(request))
}

/// The request that was resolved. Codex tells the bare number of what its events call `codex-req-NUMBER`.
pub(super) fn resolved(memory: &mut Memory<'_>, request_id: &str) -> Result<Option<Request>, ProjectionError> {
    if let Some(found) = memory.get(Seam::Request, request_id)? {
        return Ok(Some(found));
    }
    memory.get(Seam::Request, &format!("codex-req-{request_id}"))
}

/// A new run begins.
pub(super) fn reset(memory: &mut Memory<'_>) {
    memory.clear(Seam::Request);
}
