//! `permission_requests`: what was asked, or decided without asking, where its workflow run stood, and what became of it.
//!
//! | part | what it knows |
//! | --- | --- |
//! | `fold` | what each kind of event does to the rows |
//! | `rows` | the rows: made, decided, linked |
//! | `calls` | tool calls that are not over: which call a request without its id is for |
//! | `contexts` | workflow runs, and which of them an event belongs to |
//! | `select` | rows as queries answer them |
//!
//! Three sources meet in one row for each event asked about: the harness's own `permission.request`, of which the ledger
//! only hears; a question that was put through the ledger, whose stream alone answers it; a rule that decided.
//!
//! Requests are made and settled by statements of their own, so that what is found is what the events before left.

mod calls;
mod contexts;
mod fold;
mod rows;
pub(crate) mod select;

use runledger_events::{EventKind, RecordedEvent};
use runledger_store::Read;

use crate::error::ProjectionError;
use crate::projection::{Fold, Kinds, Projection, Table, Target};
use crate::views::sqlite;
use fold::Kept;
pub use select::{PermissionRequest, RequestContext};

/// The read model.
pub(crate) struct PermissionRequests;

pub(crate) const NAME: &str = "permission_requests";
const CALLS: &str = "permission_calls";
const RUNS: &str = "permission_runs";
const ADAPTERS: &str = "permission_adapters";

const KINDS: &[EventKind] = &[
    EventKind::PermissionRequest,
    EventKind::PermissionDenied,
    EventKind::ToolPre,
    EventKind::ToolPost,
    EventKind::ToolFailure,
    EventKind::UserPrompt,
    EventKind::StopRequest,
    EventKind::TurnComplete,
    EventKind::SubagentStop,
    EventKind::SessionEnd,
    EventKind::Decision,
    EventKind::RelayRequest,
    EventKind::RelayWithdrawn,
    EventKind::WorkflowStart,
    EventKind::WorkflowTransition,
    EventKind::WorkflowIteration,
    EventKind::WorkflowEnd,
];

/// Those of which more is read than facts.
const WORDS_OF: &[EventKind] = &[
    EventKind::PermissionRequest,
    EventKind::PermissionDenied,
    EventKind::ToolPre,
    EventKind::Decision,
    EventKind::RelayRequest,
    EventKind::WorkflowStart,
];

impl Projection for PermissionRequests {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn kinds(&self) -> Kinds {
        Kinds::Only(KINDS)
    }

    fn reads(&self) -> Read<'static> {
        Read::ContentOf(WORDS_OF)
    }

    fn tables(&self) -> &'static [Table] {
        &[
            Table { name: NAME, key: &["session_id", "event_id"] },
            Table { name: CALLS, key: &["session_id", "event_id"] },
            Table { name: RUNS, key: &["run_id"] },
            Table { name: ADAPTERS, key: &["adapter_session_id"] },
        ]
    }

    fn schema(&self) -> &'static str {
        include_str!("../../../../../migrations/projections/permission_requests.sql")
    }

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(RequestsFold::default())
    }

    fn reset_run(&self, _target: &Target<'_>, _run_id: &str) -> Result<bool, ProjectionError> {
        Ok(false)
    }
}

/// Requests are written as they come; runs, adapter sessions and calls are kept.
#[derive(Default)]
struct RequestsFold(Kept);

/// Bytes of a run, an adapter session or a call in memory, about.
const ROW_BYTES: usize = 512;

impl Fold for RequestsFold {
    fn writes_as_it_takes(&self) -> bool {
        true
    }

    fn take(&mut self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        self.0.begin(target)?;
        events.iter().try_for_each(|event| fold::take(target, &mut self.0, event))
    }

    fn flush(&mut self, target: &Target<'_>, mut rows: usize) -> Result<bool, ProjectionError> {
        let calls = self.0.calls.flush(target, &mut rows).map_err(|source| sqlite(target, NAME, &source))?;
        Ok(self.0.contexts.flush(target, &mut rows)? && calls)
    }

    fn kept_bytes(&self) -> usize {
        self.0.contexts.len() * ROW_BYTES + self.0.calls.bytes()
    }
}
