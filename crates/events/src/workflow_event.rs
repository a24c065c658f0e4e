//! The `data` of the four `workflow.*` kinds: what the runner writes, as facts and as JSON (snake_case); and the JSON of
//! every event that this project itself makes.

use serde::{Deserialize, Serialize};

use crate::ids::{AdapterSessionId, EventId, LogId, RequestId, RunId, SessionId};
use crate::kind::EventKind;
use crate::permission_policy::RunPolicy;
use crate::position::{Position, TimestampMs};
use crate::relay_event::ProcessId;
use crate::tokens::Tokens;
use crate::workflow_state::{RunState, RunStatus};
use crate::{IterationOutcome, KindFacts};

/// `workflow.start`: a run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct WorkflowStart {
    /// The run.
    pub run_id: RunId,
    /// Its ledger session.
    pub session_id: SessionId,
    /// The workflow's name; none for a bare prompt.
    pub workflow_name: Option<String>,
    /// The harness's name: `command`, `claude`, …
    pub harness: Option<String>,
    /// The iteration limit.
    pub max_iterations: u32,
    /// The tracker's path, relative to the project directory; none without a loop.
    pub tracker_path: Option<String>,
    /// The run that this one belongs to.
    pub parent_run_id: Option<RunId>,
    /// The position that this run was forked at.
    pub forked_at: Option<Position>,
    /// How often this work was begun, from 1.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
    /// When the run has to be done.
    pub deadline_at: Option<TimestampMs>,
    /// Who drives it.
    pub owner: Option<Owner>,
    /// The run that it was forked from.
    #[serde(default)]
    pub forked_from: Option<RunId>,
    /// Iterations that it takes over from there; its own first one has the next number.
    #[serde(default)]
    pub iteration: u32,
    /// Permissions, retries and delays in force.
    #[serde(default)]
    pub policy: Option<RunPolicy>,
}

fn first_attempt() -> u32 {
    1
}

/// The process that drives a run. A newer term fences off every older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Owner {
    /// Counts the owners of this run, from 1.
    pub term: u64,
    /// The log that the owner writes to: a copy in another log is driven by nobody there.
    pub log_id: LogId,
    /// The host's name.
    pub host: String,
    /// The boot of that host, where it is known.
    pub boot_id: Option<String>,
    /// The process's id on that host.
    pub pid: u32,
    /// When that process began, in the kernel's own count, so that a reused id is not mistaken for it.
    pub pid_started_at: Option<u64>,
}

/// `workflow.transition`: a run moved to another state, or to another owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct WorkflowTransition {
    /// The state before.
    pub from: RunState,
    /// The state after.
    pub to: RunState,
    /// The status after.
    pub status: RunStatus,
    /// Why, in words.
    pub reason: Option<String>,
    /// The new owner, where it changed.
    pub owner: Option<Owner>,
}

/// `workflow.iteration`: an iteration began, learned its harness session, or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, bincode::Encode, bincode::Decode)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum WorkflowIteration {
    /// It began.
    Start(IterationStart),
    /// The harness named its session.
    Session(IterationSession),
    /// It ended.
    End(IterationEnd),
    /// The harness's process began.
    Process(IterationProcess),
    /// The turn ended for a question that nobody waits for; the iteration stays open.
    Deferred(IterationDeferred),
    /// That question was answered, and another turn of the iteration goes on.
    Continued(IterationContinued),
}

/// How an iteration continues what the harness did before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(tag = "mode", rename_all = "kebab-case", try_from = "ContinuationFields")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Continuation {
    /// A new harness session.
    Fresh,
    /// The named harness session is resumed.
    Resume {
        /// That session.
        handle: String,
    },
    /// The harness's current session goes on.
    ReuseCurrent,
}

/// A continuation as JSON has it. serde would buffer a tagged enum's unknown fields, and refuse numbers it cannot hold.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ContinuationFields {
    mode: String,
    handle: Option<String>,
}

impl TryFrom<ContinuationFields> for Continuation {
    type Error = String;

    fn try_from(fields: ContinuationFields) -> Result<Self, String> {
        match (fields.mode.as_str(), fields.handle) {
            ("fresh", _) => Ok(Self::Fresh),
            ("resume", Some(handle)) => Ok(Self::Resume { handle }),
            ("resume", None) => Err("a continuation of mode resume needs a handle".to_owned()),
            ("reuse-current", _) => Ok(Self::ReuseCurrent),
            (other, _) => Err(format!("no mode of continuation: {other}")),
        }
    }
}

/// An iteration began. Its prompt stands in the event's JSON (`prompt`), not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct IterationStart {
    /// Counts from 1.
    pub iteration: u32,
    /// How it continues.
    pub continuation: Continuation,
    /// What it is another try of.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// What a reader of this run has to know from before, so that it may begin to read here.
    #[serde(default)]
    pub carried: Carried,
}

/// An iteration that is another try: counted apart from the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Retry {
    /// Why.
    pub why: RetryReason,
    /// The decision that denied; none after a failure.
    pub cause: Option<EventId>,
}

/// Why an iteration is another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RetryReason {
    /// A permission was denied in the turn before.
    Denied,
    /// The turn before failed.
    Failed,
}

impl RetryReason {
    /// The word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// What an iteration's start carries along of the run's state, beside its own number and the run's first event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Carried {
    /// Retries so far, this one included.
    #[serde(default)]
    pub retries: u32,
    /// Retries in a row, this one included.
    #[serde(default)]
    pub retries_in_a_row: u32,
    /// What was decided for the whole run.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// A decision that holds beyond the one call: it decides where a rule of the workflow would have somebody asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Grant {
    /// The calls, as a rule's pattern.
    pub pattern: String,
    /// Whether they may be made.
    pub is_allowed: bool,
    /// The decision.
    pub decision_id: EventId,
}

/// The harness session that an iteration started or took up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct IterationSession {
    /// Counts from 1.
    pub iteration: u32,
    /// The harness's own session.
    pub adapter_session_id: AdapterSessionId,
}

/// An iteration ended. The tracker's text stands in the event's JSON (`tracker_text`), not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct IterationEnd {
    /// Counts from 1.
    pub iteration: u32,
    /// What came of it.
    pub outcome: IterationOutcome,
    /// The harness's exit code, where it had one.
    pub exit_code: Option<i32>,
    /// The harness's error, in words, cut to a bound.
    pub error: Option<String>,
    /// What this iteration's turn cost.
    #[serde(default)]
    pub tokens: Tokens,
    /// The tracker as the turn left it; none where there is no tracker or it is missing.
    pub tracker: Option<TrackerFacts>,
    /// The harness session that the turn used, where the harness has one.
    pub adapter_session_id: Option<AdapterSessionId>,
    /// What the next iteration is another try of, where one follows.
    #[serde(default)]
    pub retry: Option<Retry>,
}

/// The process of a turn's harness, which leads a process group of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct IterationProcess {
    /// Counts from 1.
    pub iteration: u32,
    /// The process.
    pub process: ProcessId,
}

/// A turn ended for a question that nobody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct IterationDeferred {
    /// Counts from 1.
    pub iteration: u32,
    /// The question.
    pub request_id: RequestId,
    /// What the turn cost.
    #[serde(default)]
    pub tokens: Tokens,
    /// The harness session to take up again.
    pub adapter_session_id: Option<AdapterSessionId>,
}

/// Another turn of an iteration whose question was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct IterationContinued {
    /// Counts from 1.
    pub iteration: u32,
    /// The question.
    pub request_id: RequestId,
}

/// A tracker as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrackerFacts {
    /// BLAKE3 of the file, in hexadecimal.
    pub digest: String,
    /// Its length.
    pub bytes: u64,
    /// Whether the event holds the whole text; a longer one is cut at its end.
    pub is_whole: bool,
}

/// `workflow.end`: a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct WorkflowEnd {
    /// The final status.
    pub status: RunStatus,
    /// Why, in words; none for a plain completion.
    pub stop_reason: Option<String>,
    /// Iterations begun.
    pub iteration: u32,
}

/// The JSON text of an event of the project's own kinds, but decisions: `data` holds its facts, and beside them what only
/// readers want.
///
/// # Errors
/// Only when `content` cannot be written as JSON, or the facts are of another kind, which is a mistake in the caller.
pub fn event_json<C: Serialize>(
    id: &EventId,
    occurred_at: TimestampMs,
    facts: &KindFacts,
    content: &C,
) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Event<'a, D> {
        id: &'a EventId,
        timestamp: TimestampMs,
        kind: &'a str,
        data: D,
    }
    #[derive(Serialize)]
    struct Data<'a, F, C> {
        #[serde(flatten)]
        facts: &'a F,
        #[serde(flatten)]
        content: &'a C,
    }
    fn write<F: Serialize, C: Serialize>(
        id: &EventId,
        timestamp: TimestampMs,
        kind: EventKind,
        facts: &F,
        content: &C,
    ) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Event { id, timestamp, kind: kind.as_str(), data: Data { facts, content } })
    }
    match facts {
        KindFacts::WorkflowStart(facts) => write(id, occurred_at, EventKind::WorkflowStart, facts.as_ref(), content),
        KindFacts::WorkflowTransition(facts) => write(id, occurred_at, EventKind::WorkflowTransition, facts, content),
        KindFacts::WorkflowIteration(facts) => write(id, occurred_at, EventKind::WorkflowIteration, facts, content),
        KindFacts::WorkflowEnd(facts) => write(id, occurred_at, EventKind::WorkflowEnd, facts, content),
        KindFacts::RelayRequest(facts) => write(id, occurred_at, EventKind::RelayRequest, facts.as_ref(), content),
        KindFacts::RelayWithdrawn(facts) => write(id, occurred_at, EventKind::RelayWithdrawn, facts, content),
        KindFacts::RelayDelivered(facts) => write(id, occurred_at, EventKind::RelayDelivered, facts, content),
        KindFacts::TimerScheduled(facts) => write(id, occurred_at, EventKind::TimerScheduled, facts, content),
        KindFacts::TimerFired(facts) => write(id, occurred_at, EventKind::TimerFired, facts, content),
        other => Err(serde::ser::Error::custom(format!("facts of a kind that others tell: {other:?}"))),
    }
}
