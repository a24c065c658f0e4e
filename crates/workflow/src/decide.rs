//! What a run does next: a pure function from its state and a command to events.

use runledger_events::{
    AdapterSessionId, Continuation, IterationEnd, IterationOutcome, IterationSession, IterationStart, KindFacts,
    RunState, RunStatus, Tokens, TrackerFacts, WorkflowEnd, WorkflowIteration, WorkflowStart, WorkflowState,
    WorkflowTransition,
};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::tracker::Verdict;

/// Bytes of a reason in an event's facts, at the most: facts are small, and never erased.
const REASON_BYTES_MAX: usize = 2 << 10;

/// What is asked of a run.
#[derive(Debug, Clone)]
pub enum Command {
    /// Begin the run.
    Start {
        /// What is known of it from the start.
        start: Box<WorkflowStart>,
        /// Prompt, workflow and project directory, for readers.
        extra: Extra,
    },
    /// Begin the next iteration.
    BeginIteration {
        /// How it continues.
        continuation: Continuation,
        /// Its prompt.
        extra: Extra,
    },
    /// The harness has named its session.
    NameSession(AdapterSessionId),
    /// The turn is over.
    EndIteration(Box<TurnReport>),
    /// End the run, between turns or before the first.
    Stop(StopCause),
}

/// Why a run is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// Somebody cancelled it.
    Cancelled,
    /// Its time is up.
    TimedOut,
}

/// What a turn came to.
#[derive(Debug, Clone, Default)]
pub struct TurnReport {
    /// The harness's exit code, where it had one.
    pub exit_code: Option<i32>,
    /// The harness's error; may be empty.
    pub error: Option<String>,
    /// The last that the harness said on standard error.
    pub last_stderr: Option<String>,
    /// What it cost.
    pub tokens: Tokens,
    /// What the harness's stream and its hooks saw of each other.
    pub transport: Option<TransportCheck>,
    /// The harness session that it used.
    pub adapter_session_id: Option<AdapterSessionId>,
    /// The tracker, where the run has one and it is there.
    pub tracker: Option<TrackerReading>,
    /// Whether the turn was ended from outside.
    pub stopped: Option<StopCause>,
}

/// Tool uses that a harness's stream told of, and those that came by its hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportCheck {
    /// In the stream.
    pub stream_tool_uses: u64,
    /// By hooks.
    pub pre_tool_use_events: u64,
}

/// A tracker as a turn left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerReading {
    /// Digest and length.
    pub facts: TrackerFacts,
    /// Its text, up to a bound.
    pub text: String,
    /// Whether the skeleton's marker is still in it.
    pub is_skeleton: bool,
    /// What its last line says.
    pub verdict: Verdict,
}

/// An event to append: its facts, and what stands beside them in its JSON.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The facts.
    pub facts: KindFacts,
    /// The rest.
    pub extra: Extra,
}

/// Fields of an event's JSON that no fold needs: texts, mostly.
#[derive(Debug, Clone, Default)]
pub struct Extra(Vec<(&'static str, Box<RawValue>)>);

impl Extra {
    /// Adds a field.
    ///
    /// # Errors
    /// Only for a value that cannot be written as JSON.
    pub fn with<T: Serialize + ?Sized>(mut self, name: &'static str, value: &T) -> Result<Self, serde_json::Error> {
        self.0.push((name, serde_json::value::to_raw_value(value)?));
        Ok(self)
    }
}

impl Serialize for Extra {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A command that does not fit the run's state. Nothing is to be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is no run yet.
    #[error("it has not begun")]
    NotBegun,
    /// There is a run already.
    #[error("it has begun already")]
    Begun,
    /// The run is in another state.
    #[error("it is {state} with status {status}, and {command} does not fit that")]
    State {
        /// The run's state.
        state: RunState,
        /// Its status.
        status: RunStatus,
        /// The command, in words.
        command: &'static str,
    },
    /// A text cannot be written as JSON.
    #[error("a text cannot be written as JSON: {0}")]
    Json(String),
}

/// The events that follow from a command.
///
/// # Errors
/// [`Rejected`] when the command does not fit the state.
pub fn decide(state: Option<&WorkflowState>, command: &Command) -> Result<Vec<Decided>, Rejected> {
    let state = match (state, command) {
        (None, Command::Start { start, extra }) => {
            return Ok(vec![Decided { facts: KindFacts::WorkflowStart(start.clone()), extra: extra.clone() }]);
        }
        (Some(_), Command::Start { .. }) => return Err(Rejected::Begun),
        (None, _) => return Err(Rejected::NotBegun),
        (Some(state), _) => state,
    };
    let refused = |command| Err(Rejected::State { state: state.state, status: state.status, command });
    match command {
        Command::Start { .. } => Err(Rejected::Begun),
        Command::BeginIteration { continuation, extra } => {
            let mut events = Vec::new();
            match state.state {
                RunState::Starting => events.push(transition(state, RunState::Running, None)),
                RunState::Running if !state.iteration_is_open => {}
                _ => return refused("a new iteration"),
            }
            let start = IterationStart {
                iteration: state.iteration + 1,
                continuation: continuation.clone(),
                retry: None,
                carried: state.carried.clone(),
            };
            events.push(Decided {
                facts: KindFacts::WorkflowIteration(WorkflowIteration::Start(start)),
                extra: extra.clone(),
            });
            Ok(events)
        }
        Command::NameSession(adapter_session_id) => {
            if !state.iteration_is_open {
                return refused("a harness session");
            }
            let session =
                IterationSession { iteration: state.iteration, adapter_session_id: adapter_session_id.clone() };
            Ok(vec![Decided::of(KindFacts::WorkflowIteration(WorkflowIteration::Session(session)))])
        }
        Command::EndIteration(report) => {
            if !state.iteration_is_open {
                return refused("the end of an iteration");
            }
            end_iteration(state, report).map_err(|error| Rejected::Json(error.to_string()))
        }
        Command::Stop(cause) => {
            if !matches!(state.state, RunState::Starting | RunState::Running) || state.iteration_is_open {
                return refused("a stop between turns");
            }
            let (status, reason) = cause.end();
            Ok(end(state, status, reason))
        }
    }
}

impl Decided {
    fn of(facts: KindFacts) -> Self {
        Self { facts, extra: Extra::default() }
    }
}

impl StopCause {
    fn end(self) -> (RunStatus, Option<String>) {
        match self {
            Self::Cancelled => (RunStatus::Cancelled, None),
            Self::TimedOut => (RunStatus::Failed, Some("timeout".to_owned())),
        }
    }
}

fn end_iteration(state: &WorkflowState, report: &TurnReport) -> Result<Vec<Decided>, serde_json::Error> {
    let (outcome, ending) = judge(state, report);
    let is_cancelled = outcome == IterationOutcome::Cancelled;
    // A cancelled turn's figures and tracker are of a moment in the middle of it, and do not count.
    let tracker = report.tracker.as_ref().filter(|_| !is_cancelled);
    let facts = IterationEnd {
        iteration: state.iteration,
        outcome,
        exit_code: report.exit_code,
        error: failure(report).map(|reason| cut(&reason)),
        tokens: if is_cancelled { Tokens::default() } else { report.tokens },
        tracker: tracker.map(|tracker| tracker.facts.clone()),
        adapter_session_id: report.adapter_session_id.clone(),
        retry: None,
    };
    let mut extra = Extra::default();
    if let Some(tracker) = tracker {
        extra = extra.with("tracker_text", &tracker.text)?;
    }
    if let Some(stderr) = &report.last_stderr {
        extra = extra.with("last_stderr", stderr)?;
    }
    let mut events = vec![Decided { facts: KindFacts::WorkflowIteration(WorkflowIteration::End(facts)), extra }];
    if let Some((status, reason)) = ending {
        events.extend(end(state, status, reason));
    }
    Ok(events)
}

/// What came of the iteration, and how the run ends with it, if it does.
fn judge(state: &WorkflowState, report: &TurnReport) -> (IterationOutcome, Option<(RunStatus, Option<String>)>) {
    if let Some(cause) = report.stopped {
        let outcome = match cause {
            StopCause::Cancelled => IterationOutcome::Cancelled,
            StopCause::TimedOut => IterationOutcome::TimedOut,
        };
        return (outcome, Some(cause.end()));
    }
    if let Some(reason) = failure(report) {
        return (IterationOutcome::Failed, Some((RunStatus::Failed, Some(reason))));
    }
    if state.tracker_path.is_none() {
        return (IterationOutcome::Completed, Some((RunStatus::Completed, None)));
    }
    let Some(tracker) = &report.tracker else {
        let reason = "Loop stopped: missing_tracker".to_owned();
        return (IterationOutcome::TrackerMissing, Some((RunStatus::Failed, Some(reason))));
    };
    match &tracker.verdict {
        Verdict::Complete => (IterationOutcome::Completed, Some((RunStatus::Completed, None))),
        Verdict::Blocked(reason) => (IterationOutcome::Blocked, Some((RunStatus::Blocked, reason.clone()))),
        Verdict::Open if tracker.is_skeleton => {
            let reason = "tracker skeleton was never replaced — Claude did not bootstrap the tracker".to_owned();
            (IterationOutcome::TrackerUntouched, Some((RunStatus::Failed, Some(reason))))
        }
        Verdict::Open if state.iteration >= state.max_iterations => {
            (IterationOutcome::Continue, Some((RunStatus::Exhausted, None)))
        }
        Verdict::Open => (IterationOutcome::Continue, None),
    }
}

/// Why the turn failed, if it did.
fn failure(report: &TurnReport) -> Option<String> {
    let behind = |reason: String| match report.last_stderr.as_deref().filter(|stderr| !stderr.is_empty()) {
        Some(stderr) => format!("{reason}: {stderr}"),
        None => reason,
    };
    let exit_code = report.exit_code.filter(|code| *code != 0);
    if let Some(message) = &report.error {
        return Some(match (message.as_str(), exit_code, &report.last_stderr) {
            ("", Some(code), _) => behind(format!("Process exited with code {code}")),
            ("", None, Some(stderr)) if !stderr.is_empty() => stderr.clone(),
            ("", None, _) => "Turn failed".to_owned(),
            (message, _, _) => behind(message.to_owned()),
        });
    }
    if let Some(code) = exit_code {
        return Some(behind(format!("Process exited with code {code}")));
    }
    let transport = report.transport?;
    (transport.stream_tool_uses > 0 && transport.pre_tool_use_events == 0).then(|| {
        format!(
            "Hook transport broken: observed {} tool use(s) in Claude stream but received no PreToolUse events.",
            transport.stream_tool_uses
        )
    })
}

fn end(state: &WorkflowState, status: RunStatus, reason: Option<String>) -> Vec<Decided> {
    let reason = reason.map(|reason| cut(&reason));
    let facts = WorkflowEnd { status, stop_reason: reason.clone(), iteration: state.iteration };
    vec![transition(state, RunState::Completing, reason), Decided::of(KindFacts::WorkflowEnd(facts))]
}

fn transition(state: &WorkflowState, to: RunState, reason: Option<String>) -> Decided {
    Decided::of(KindFacts::WorkflowTransition(WorkflowTransition {
        from: state.state,
        to,
        status: RunStatus::Running,
        reason,
        owner: None,
    }))
}

/// The text, or as much of it as facts may hold, with a mark where it was cut.
fn cut(text: &str) -> String {
    if text.len() <= REASON_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(REASON_BYTES_MAX - '…'.len_utf8())])
}
