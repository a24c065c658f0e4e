//! What queries answer with: runs, iterations and sessions, as the command line's JSON has them.

use runledger_events::{
    AdapterSessionId, Continuation, EventId, IterationState, Owner, Position, RequestId, Retry, RunId, RunState,
    RunStatus, SessionId, TimerKind, TimestampMs, Tokens, TrackerFacts, WorkflowState,
};
use serde::Serialize;

/// A workflow run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of WorkflowState, and of the command line's run object")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Run {
    pub id: RunId,
    pub session_id: SessionId,
    pub workflow_name: Option<String>,
    pub harness: Option<String>,
    pub status: RunStatus,
    pub state: RunState,
    pub iteration: u32,
    pub iteration_is_open: bool,
    pub max_iterations: u32,
    pub started_at: TimestampMs,
    pub ended_at: Option<TimestampMs>,
    pub stop_reason: Option<String>,
    pub tracker_path: Option<String>,
    pub tokens: Tokens,
    pub adapter_session_ids: Vec<AdapterSessionId>,
    pub parent_run_id: Option<RunId>,
    pub forked_at: Option<Position>,
    pub attempt: u32,
    pub deadline_at: Option<TimestampMs>,
    pub owner: Option<Owner>,
    pub forked_from: Option<RunId>,
    pub retries: u32,
    pub waiting_for: Option<RequestId>,
    pub paused: bool,
    pub timer: Option<RunTimer>,
    pub first_position: Position,
    pub last_position: Position,
}

/// The timer that a run's next iteration waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RunTimer {
    /// What it is for.
    pub timer: TimerKind,
    /// When it is due.
    pub due_at: TimestampMs,
}

impl Run {
    /// The run that this state is of; `first_position` is its `workflow.start`'s.
    pub fn new(state: WorkflowState, first_position: Position) -> Self {
        Self {
            id: state.run_id,
            session_id: state.session_id,
            workflow_name: state.workflow_name,
            harness: state.harness,
            status: state.status,
            state: state.state,
            iteration: state.iteration,
            iteration_is_open: state.iteration_is_open,
            max_iterations: state.max_iterations,
            started_at: state.started_at,
            ended_at: state.ended_at,
            stop_reason: state.stop_reason,
            tracker_path: state.tracker_path,
            tokens: state.tokens,
            adapter_session_ids: state.adapter_session_ids,
            parent_run_id: state.parent_run_id,
            forked_at: state.forked_at,
            attempt: state.attempt,
            deadline_at: state.deadline_at,
            owner: state.owner,
            forked_from: state.forked_from,
            retries: state.carried.retries,
            waiting_for: state.waiting_for,
            paused: state.pause_requested,
            timer: state.timer.map(|timer| RunTimer { timer: timer.timer, due_at: timer.due_at }),
            first_position,
            last_position: state.last_position,
        }
    }
}

/// One iteration of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of IterationState")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Iteration {
    pub iteration: u32,
    pub attempt: u32,
    pub retry: Option<Retry>,
    pub continuation: Continuation,
    pub started_at: TimestampMs,
    pub ended_at: Option<TimestampMs>,
    pub waiting_for: Option<RequestId>,
    pub outcome: Option<runledger_events::IterationOutcome>,
    pub exit_code: Option<i32>,
    pub error: Option<String>,
    pub tokens: Tokens,
    pub tracker: Option<TrackerFacts>,
    pub adapter_session_id: Option<AdapterSessionId>,
    pub start_event_id: EventId,
    pub start_position: Position,
    pub end_position: Option<Position>,
}

impl From<IterationState> for Iteration {
    fn from(state: IterationState) -> Self {
        Self {
            iteration: state.iteration,
            attempt: state.attempt,
            retry: state.retry,
            continuation: state.continuation,
            started_at: state.started_at,
            ended_at: state.ended_at,
            waiting_for: state.waiting_for,
            outcome: state.outcome,
            exit_code: state.exit_code,
            error: state.error,
            tokens: state.tokens,
            tracker: state.tracker,
            adapter_session_id: state.adapter_session_id,
            start_event_id: state.start_event_id,
            start_position: state.start_position,
            end_position: state.end_position,
        }
    }
}

/// A ledger session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// When its first event occurred.
    pub first_at: TimestampMs,
    /// When its last event occurred.
    pub last_at: TimestampMs,
    /// Events of it, of its runs included.
    pub events: u64,
    /// Workflow runs of it.
    pub runs: u64,
    /// What it cost.
    pub tokens: Tokens,
    /// Its first event.
    pub first_position: Position,
    /// Its last event.
    pub last_position: Position,
    /// Its adapter sessions, in order of appearance.
    pub adapter_sessions: Vec<AdapterSession>,
}

/// A harness session within a ledger session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AdapterSession {
    /// The harness's own id.
    pub id: AdapterSessionId,
    /// The workflow run that used it last.
    pub run_id: Option<RunId>,
    /// When it began, where the harness said so.
    pub started_at: Option<TimestampMs>,
    /// When it ended, where the harness said so.
    pub ended_at: Option<TimestampMs>,
    /// Its model.
    pub model: Option<String>,
    /// How it began: `startup`, `resume`, …
    pub source: Option<String>,
    /// Why it ended.
    pub end_reason: Option<String>,
    /// Its events.
    pub events: u64,
    /// What it cost.
    pub tokens: Tokens,
    /// Its first event.
    pub first_position: Position,
    /// Its last event.
    pub last_position: Position,
}
