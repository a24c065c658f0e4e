//! RunLifecycle: which adapter session and run a ledger session is in, its numbers and counters, and how a run ended.
//!
//! A run is one agent invocation within a session. `seq` and run numbers count within one ledger session, and never fall.

use runledger_events::{Source, TimestampMs};
use serde::{Deserialize, Serialize};

/// What opened a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Trigger {
    UserPromptSubmit,
    Resume,
    Clear,
    Compact,
    Other,
}

impl Trigger {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::UserPromptSubmit => "user_prompt_submit",
            Self::Resume => "resume",
            Self::Clear => "clear",
            Self::Compact => "compact",
            Self::Other => "other",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunEnd {
    Completed,
    Failed,
    Aborted,
}

impl RunEnd {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// How a run ended, and why where it did not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ending {
    pub(super) status: RunEnd,
    pub(super) reason: Option<String>,
}

impl Ending {
    pub(super) fn completed() -> Self {
        Self { status: RunEnd::Completed, reason: None }
    }

    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self { status: RunEnd::Failed, reason: Some(reason.into()) }
    }

    pub(super) fn aborted(reason: impl Into<String>) -> Self {
        Self { status: RunEnd::Aborted, reason: Some(reason.into()) }
    }
}

/// What happened in a run, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCounters {
    /// Tool calls.
    pub tool_uses: u64,
    /// Tool calls that failed.
    pub tool_failures: u64,
    /// Permission requests.
    pub permission_requests: u64,
    /// Stops that a decision blocked.
    pub blocks: u64,
}

/// Who tells: a source, or a source that says again what it may have said before. Earlier ones' words are the better ones.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, bincode::Encode, bincode::Decode,
)]
#[serde(rename_all = "snake_case")]
pub(super) enum Teller {
    Runtime,
    Hook,
    Stream,
    Transcript,
    /// A batch of tool calls, told by a hook behind their own hooks: it speaks only for those that had none.
    HookBatch,
    /// The last message, as a hook tells it with the stop.
    HookStop,
    /// The last message, as the output tells it with the stop.
    StreamStop,
    /// The last message, as the record tells it with the stop.
    TranscriptStop,
}

impl Teller {
    /// The source where it tells of a stop. To the reference that is telling as any.
    pub(super) fn with_a_stop(source: Source) -> Self {
        match source {
            Source::Runtime => Self::Runtime,
            Source::Hook => Self::HookStop,
            Source::Stream => Self::StreamStop,
            Source::Transcript => Self::TranscriptStop,
        }
    }
}

impl From<Source> for Teller {
    fn from(source: Source) -> Self {
        match source {
            Source::Runtime => Self::Runtime,
            Source::Hook => Self::Hook,
            Source::Stream => Self::Stream,
            Source::Transcript => Self::Transcript,
        }
    }
}

/// The adapter session that was started last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AdapterIdentity {
    pub(super) session_id: String,
    pub(super) started_at: TimestampMs,
    pub(super) source: String,
    pub(super) agent_type: Option<String>,
    pub(super) ended_at: Option<TimestampMs>,
}

impl AdapterIdentity {
    /// One that was met at work.
    pub(super) fn met(session_id: &str, at: TimestampMs) -> Self {
        let session_id = session_id.to_owned();
        Self { session_id, started_at: at, source: "unknown".to_owned(), agent_type: None, ended_at: None }
    }
}

/// The run that is open, or was the last to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RunRecord {
    pub(super) run_id: String,
    pub(super) number: u64,
    /// Its adapter session.
    pub(super) session_id: String,
    pub(super) started_at: TimestampMs,
    pub(super) ended_at: Option<TimestampMs>,
    pub(super) trigger: Trigger,
    pub(super) prompt_preview: Option<String>,
    pub(super) counters: RunCounters,
    pub(super) subagent_ids: Vec<String>,
    pub(super) ending: Option<Ending>,
    pub(super) first_seq: u64,
    /// The workflow run that it belongs to.
    pub(super) workflow_run_id: Option<String>,
    pub(super) opened_by: Teller,
    pub(super) has_prompt: bool,
    /// Whether the agent was at work when last heard of: since its last stop, or its prompt.
    pub(super) is_working: bool,
    /// How it will have ended, where something in it says so already.
    pub(super) verdict: Option<Ending>,
}

/// The numbers, and where the session is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct RunLifecycle {
    seq: u64,
    run_number: u64,
    pub(super) adapter: Option<AdapterIdentity>,
    /// The last run; it is open while it has no `ended_at`.
    last: Option<RunRecord>,
}

/// What a new run is made of.
pub(super) struct Opening<'a> {
    pub(super) session_id: &'a str,
    pub(super) at: TimestampMs,
    pub(super) trigger: Trigger,
    pub(super) prompt_preview: Option<&'a str>,
    pub(super) opened_by: Teller,
    pub(super) workflow_run_id: Option<String>,
}

impl RunLifecycle {
    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// The id of the run that an event told now is of.
    pub(super) fn run_id(&self) -> String {
        format!("{}:R{}", self.adapter_session_id(), self.run_number)
    }

    /// The adapter session that was started last; `unknown` before the first.
    pub(super) fn adapter_session_id(&self) -> &str {
        self.adapter.as_ref().map_or("unknown", |adapter| adapter.session_id.as_str())
    }

    /// The open run.
    pub(super) fn open(&self) -> Option<&RunRecord> {
        self.last.as_ref().filter(|run| run.ended_at.is_none())
    }

    pub(super) fn open_mut(&mut self) -> Option<&mut RunRecord> {
        self.last.as_mut().filter(|run| run.ended_at.is_none())
    }

    /// The open run, or the one that was open last.
    pub(super) fn last(&self) -> Option<&RunRecord> {
        self.last.as_ref()
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut RunRecord> {
        self.last.as_mut()
    }

    /// Opens the next run; the one before has to be closed.
    pub(super) fn start(&mut self, opening: &Opening<'_>) {
        self.run_number += 1;
        self.last = Some(RunRecord {
            run_id: self.run_id(),
            number: self.run_number,
            session_id: opening.session_id.to_owned(),
            started_at: opening.at,
            ended_at: None,
            trigger: opening.trigger,
            prompt_preview: opening.prompt_preview.map(str::to_owned),
            counters: RunCounters::default(),
            subagent_ids: Vec::new(),
            ending: None,
            first_seq: self.seq + 1,
            workflow_run_id: opening.workflow_run_id.clone(),
            opened_by: opening.opened_by,
            has_prompt: opening.trigger == Trigger::UserPromptSubmit,
            is_working: opening.trigger == Trigger::UserPromptSubmit,
            verdict: None,
        });
    }

    /// Closes the open run; gives it as it ended.
    pub(super) fn close(&mut self, at: TimestampMs, ending: Ending) -> Option<RunRecord> {
        let run = self.open_mut()?;
        run.ended_at = Some(at);
        run.ending = Some(ending);
        self.last.clone()
    }
}

impl RunRecord {
    /// How it ends when another run takes its place: a run that was at work was overtaken.
    ///
    /// A record read afterwards tells no stops, so nothing can be said of its runs; a compaction only cuts a run in two.
    pub(super) fn ending_when_overtaken(&self, by: Trigger) -> Ending {
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        if self.is_working && self.opened_by != Teller::Transcript && by != Trigger::Compact {
            return Ending::aborted("overtaken");
        }
        Ending::completed()
    }

    /// How it ends with its adapter session: a harness with hooks tells of every stop, so without one it was cut off.
    pub(super) fn ending_with_session(&self) -> Ending {
        if let Some(verdict) = &self.verdict {
            return verdict.clone();
        }
        if self.is_working && self.opened_by == Teller::Hook {
            return Ending::aborted("the session ended");
        }
        Ending::completed()
    }
}
