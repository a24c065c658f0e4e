//! The facts of a question to whoever can answer it, and of timers: kinds `relay.request`, `relay.withdrawn`,
//! `relay.delivered`, `timer.scheduled` and `timer.fired`.
//!
//! Each question has a stream of its own, `request/<request id>`: first `relay.request`, then what became of it. The first
//! `decision` or `relay.withdrawn` behind it counts, and the stream's version decides who was first. `relay.delivered`
//! comes before the answer goes to the harness, so that each is given once.

use serde::{Deserialize, Serialize};

use crate::ids::{EventId, LogId, RequestId, RunId};
use crate::permission_policy::{OnAsk, OnTimeout};
use crate::position::TimestampMs;
use crate::workflow_state::{RunState, WorkflowState};

/// The tool by which an agent asks its user something.
pub const QUESTION_TOOL: &str = "AskUserQuestion";

/// `relay.request`: a question was put. Tool input and working directory stand in the event's JSON, not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct RelayRequest {
    /// The question; its stream's name has it too.
    pub request_id: RequestId,
    /// The log that it was put in: a copy in another log is waited for by nobody there.
    pub log_id: LogId,
    /// The event that it is about: a `tool.pre` or `permission.request` of the session.
    pub event_id: EventId,
    /// What is asked.
    pub question: RelayQuestion,
    /// The tool.
    pub tool_name: Option<String>,
    /// The harness's own name of the call.
    pub tool_use_id: Option<String>,
    /// BLAKE3 of tool and input, in hexadecimal: the same question again is told from another one by it.
    pub fingerprint: String,
    /// The call as a pattern that fits it alone: `Bash(git push origin main)`.
    pub pattern: Option<String>,
    /// How it waits.
    pub mode: OnAsk,
    /// Until when it can be answered; none: as long as it takes.
    pub due_at: Option<TimestampMs>,
    /// What it comes to if nobody answers.
    pub on_timeout: OnTimeout,
    /// The rule that has it asked.
    pub rule: Option<AppliedRule>,
    /// Where its workflow run stood.
    pub context: Option<AskContext>,
    /// The process that waits.
    pub waiter: Option<ProcessId>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RelayQuestion {
    /// Whether a tool may run.
    Permission,
    /// A question of the agent to the user.
    Question,
}

impl RelayQuestion {
    /// The word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Question => "question",
        }
    }
}

/// The rule that a decision, or a question, follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AppliedRule {
    /// Where it comes from.
    pub origin: RuleOrigin,
    /// Its place among the rules of its origin, from 1.
    pub number: u32,
    /// Its tool pattern, as it is written.
    pub tool: String,
    /// Why, in words.
    pub reason: Option<String>,
}

/// Where a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RuleOrigin {
    /// The workflow file.
    Workflow,
    /// A decision that holds for the run.
    Run,
    /// A decision that holds for every run of the workflow.
    Always,
}

impl RuleOrigin {
    /// The word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Run => "run",
            Self::Always => "always",
        }
    }
}

/// Where a workflow run stood when something was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct AskContext {
    /// The run.
    pub run_id: RunId,
    /// Its workflow.
    pub workflow_name: Option<String>,
    /// Its state.
    pub state: RunState,
    /// Iterations begun.
    pub iteration: u32,
    /// The iteration limit.
    pub max_iterations: u32,
}

impl AskContext {
    /// Where a run in this state stands.
    pub fn of(state: &WorkflowState) -> Self {
        Self {
            run_id: state.run_id.clone(),
            workflow_name: state.workflow_name.clone(),
            state: state.state,
            iteration: state.iteration,
            max_iterations: state.max_iterations,
        }
    }
}

/// A process on a host, told apart from a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct ProcessId {
    /// The host's name.
    pub host: String,
    /// The boot of that host, where it is known.
    pub boot_id: Option<String>,
    /// The process's id on that host.
    pub pid: u32,
    /// When that process began, in the kernel's own count.
    pub pid_started_at: Option<u64>,
}

/// `relay.withdrawn`: a question needs no answer any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct RelayWithdrawn {
    /// The question.
    pub request_id: RequestId,
    /// Why, in words.
    pub reason: Option<String>,
}

/// `relay.delivered`: the answer goes to the harness now, for a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct RelayDelivered {
    /// The question.
    pub request_id: RequestId,
    /// The event that tells of the call that the answer is used for.
    pub event_id: EventId,
}

/// `timer.scheduled`, `timer.fired`: a moment of a workflow run, in its own stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Timer {
    /// What it is for.
    pub timer: TimerKind,
    /// When it is due.
    pub due_at: TimestampMs,
    /// Iterations begun when it was scheduled.
    pub iteration: u32,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TimerKind {
    /// The run has to be done by then.
    Deadline,
    /// The next iteration begins then.
    Delay,
    /// The iteration after a failed turn begins then.
    Backoff,
}

impl TimerKind {
    /// The word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Delay => "delay",
            Self::Backoff => "backoff",
        }
    }
}
