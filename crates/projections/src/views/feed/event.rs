//! A FeedEvent: one entry of the timeline, in the words of the reference, with the workflow context it belongs to.

use std::fmt;

use runledger_events::{Position, RunId, SessionId, TimestampMs};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// How much an entry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FeedLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl FeedLevel {
    /// The word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Debug, Self::Info, Self::Warn, Self::Error].into_iter().find(|level| level.as_str() == text)
    }
}

impl fmt::Display for FeedLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What led to an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FeedCause {
    /// The RuntimeEvent that told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_request_id: Option<String>,
    /// The transcript of the harness session, where the event names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript_path: Option<String>,
    /// The tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_use_id: Option<String>,
    /// The entry that it follows on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_event_id: Option<String>,
}

/// Which workflow run an entry belongs to, and where that run was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkflowContext {
    /// The run.
    pub run_id: RunId,
    /// The workflow's name.
    pub workflow_name: Option<String>,
    /// Its iteration: how many had begun.
    pub iteration: u32,
    /// Its state.
    pub state: String,
}

/// What a user interface is told about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FeedUi {
    /// Whether it is folded away at first.
    pub collapsed_default: bool,
}

/// One entry of the timeline. `seq` and run numbers count within one ledger session.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FeedEvent {
    /// Counts the entries of the whole feed: its order.
    #[serde(skip)]
    pub(crate) entry: u64,
    /// The generation of the feed that counted it so.
    #[serde(skip)]
    pub(crate) generation: i64,
    /// `RUN:En`, unique within the ledger session.
    pub event_id: String,
    /// Its place in the ledger session, from 1.
    pub seq: u64,
    /// When it happened.
    pub ts: TimestampMs,
    /// The adapter session that it is of; `unknown` where none was told.
    pub session_id: String,
    /// The run that it is of (RunLifecycle's): `ADAPTER_SESSION:Rn`.
    pub run_id: String,
    /// What it is.
    pub kind: String,
    /// How much it matters.
    pub level: FeedLevel,
    /// Who did it: `user`, `system`, `agent:root`, `subagent:ID`.
    pub actor_id: String,
    /// What led to it.
    pub cause: FeedCause,
    /// One line.
    pub title: String,
    /// What belongs to its kind.
    pub data: Box<RawValue>,
    /// What the harness says of how to show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<Box<RawValue>>,
    /// What a user interface is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ui: Option<FeedUi>,
    /// The ledger session.
    pub ledger_session_id: SessionId,
    /// The event of the log that told it first: the order of the feed.
    pub first_position: Position,
    /// The event of the log in whose words it is shown: of several tellings the one with the highest precedence.
    pub position: Position,
    /// The workflow run, iteration and state that it belongs to.
    pub workflow: Option<WorkflowContext>,
    /// The harness's own words, where they were asked for: the `payload` of the event at `position`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<Box<RawValue>>,
}
