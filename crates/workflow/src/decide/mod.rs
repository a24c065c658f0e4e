//! What a run does next: a pure function from its state and a command to events.

mod judge;

use runledger_events::{
    AdapterSessionId, Carried, Continuation, EventId, IterationContinued, IterationDeferred, IterationEnd,
    IterationOutcome, IterationProcess, IterationSession, IterationStart, KindFacts, Owner, ProcessId, RequestId,
    RunState, RunStatus, Timer, TimerKind, TimestampMs, Tokens, TrackerFacts, WorkflowEnd, WorkflowIteration,
    WorkflowStart, WorkflowState, WorkflowTransition,
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
    /// The harness's process has begun.
    NoteProcess(ProcessId),
    /// The turn is over for a question that nobody waits for.
    Defer(Box<Deferral>),
    /// That question was answered: another turn of the iteration.
    Continue,
    /// The turn is over.
    EndIteration(Box<TurnReport>),
    /// End the run, between turns or before the first.
    Stop(StopCause),
    /// Its owner is gone: nobody drives it.
    Interrupt(String),
    /// Another owner drives it from here on.
    TakeOver(Box<TakeOver>),
}

/// How a run gets another owner.
#[derive(Debug, Clone)]
pub struct TakeOver {
    /// The owner; its term has to be newer.
    pub owner: Owner,
    /// Whether it is taken from one that may be at work: what that one had open is begun again.
    pub is_forced: bool,
    /// Why, in words.
    pub reason: String,
}

/// What a turn came to that ended for a question.
#[derive(Debug, Clone)]
pub struct Deferral {
    /// The question.
    pub request_id: RequestId,
    /// What the turn cost.
    pub tokens: Tokens,
    /// The harness session to take up again.
    pub adapter_session_id: Option<AdapterSessionId>,
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
    /// What was denied in it.
    pub denied: Vec<Denial>,
    /// When it was over.
    pub at: TimestampMs,
}

/// A permission that was denied in a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The event that denied it.
    pub event_id: EventId,
    /// What was denied, and why, in one line for the next prompt.
    pub words: String,
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
            let mut events = vec![Decided { facts: KindFacts::WorkflowStart(start.clone()), extra: extra.clone() }];
            if let Some(due_at) = start.deadline_at {
                let timer = Timer { timer: TimerKind::Deadline, due_at, iteration: start.iteration };
                events.push(Decided::of(KindFacts::TimerScheduled(timer)));
            }
            return Ok(events);
        }
        (Some(_), Command::Start { .. }) => return Err(Rejected::Begun),
        (None, _) => return Err(Rejected::NotBegun),
        (Some(state), _) => state,
    };
    let refused = |command| Err(Rejected::State { state: state.state, status: state.status, command });
    let has_turn = state.iteration_is_open && state.waiting_for.is_none();
    match command {
        Command::Start { .. } => Err(Rejected::Begun),
        Command::BeginIteration { continuation, extra } => {
            if !matches!(state.state, RunState::Starting | RunState::Running) || state.iteration_is_open {
                return refused("a new iteration");
            }
            Ok(begin_iteration(state, continuation, extra))
        }
        Command::NameSession(_) | Command::NoteProcess(_) | Command::Defer(_) if !has_turn => {
            refused("what a turn tells")
        }
        Command::NameSession(adapter_session_id) => {
            let session =
                IterationSession { iteration: state.iteration, adapter_session_id: adapter_session_id.clone() };
            Ok(vec![Decided::iteration(WorkflowIteration::Session(session))])
        }
        Command::NoteProcess(process) => {
            let process = IterationProcess { iteration: state.iteration, process: process.clone() };
            Ok(vec![Decided::iteration(WorkflowIteration::Process(process))])
        }
        Command::Defer(deferral) => {
            let Deferral { request_id, tokens, adapter_session_id } = deferral.as_ref().clone();
            let deferred = IterationDeferred { iteration: state.iteration, request_id, tokens, adapter_session_id };
            Ok(vec![Decided::iteration(WorkflowIteration::Deferred(deferred))])
        }
        Command::Continue => match &state.waiting_for {
            Some(request_id) if state.iteration_is_open => {
                let continued = IterationContinued { iteration: state.iteration, request_id: request_id.clone() };
                Ok(vec![Decided::iteration(WorkflowIteration::Continued(continued))])
            }
            _ => refused("another turn of an iteration that waits for no answer"),
        },
        Command::EndIteration(report) => {
            if !has_turn {
                return refused("the end of an iteration");
            }
            judge::end_iteration(state, report).map_err(|error| Rejected::Json(error.to_string()))
        }
        Command::Stop(cause) => {
            if !matches!(state.state, RunState::Starting | RunState::Running) || has_turn {
                return refused("a stop between turns");
            }
            Ok(stop(state, *cause))
        }
        Command::Interrupt(reason) => {
            if matches!(state.state, RunState::Idle | RunState::Done) {
                return refused("an interruption");
            }
            Ok(vec![interruption(state, reason)])
        }
        Command::TakeOver(take_over) => {
            if state.state == RunState::Done || take_over.owner.term <= state.term() {
                return refused("another owner");
            }
            Ok(take_over_by(state, take_over))
        }
    }
}

/// The next iteration's begin; or the run's end, where the iteration before was the last.
fn begin_iteration(state: &WorkflowState, continuation: &Continuation, extra: &Extra) -> Vec<Decided> {
    let mut events = Vec::new();
    if let Some((status, reason)) = left_to_end(state) {
        return end(state, status, reason);
    }
    if state.state == RunState::Starting {
        events.push(transition(state.state, RunState::Running, None));
    }
    if let Some(timer) = &state.timer {
        events.push(Decided::of(KindFacts::TimerFired(timer.clone())));
    }
    let mut carried = Carried { retries_in_a_row: 0, ..state.carried.clone() };
    let retry = state.last_end.as_ref().and_then(|end| end.retry.clone());
    if state.iteration_was_cut {
        // Begun again: it was counted when it was begun first.
        carried = state.carried.clone();
    } else if retry.is_some() {
        carried.retries += 1;
        carried.retries_in_a_row = state.carried.retries_in_a_row + 1;
    }
    let iteration = if state.iteration_was_cut { state.iteration } else { state.iteration + 1 };
    let start = IterationStart { iteration, continuation: continuation.clone(), retry, carried };
    events.push(Decided { facts: KindFacts::WorkflowIteration(WorkflowIteration::Start(start)), extra: extra.clone() });
    events
}

/// How the run ends with what is there, where nobody wrote that end: its last iteration was the last one.
fn left_to_end(state: &WorkflowState) -> Option<(RunStatus, Option<String>)> {
    let last = state.last_end.as_ref().filter(|last| last.retry.is_none() && !state.iteration_was_cut)?;
    match last.outcome {
        IterationOutcome::Continue => {
            (state.counted_iterations() >= state.max_iterations.max(1)).then_some((RunStatus::Exhausted, None))
        }
        IterationOutcome::Completed => Some((RunStatus::Completed, None)),
        IterationOutcome::Blocked => Some((RunStatus::Blocked, None)),
        IterationOutcome::Cancelled => Some(StopCause::Cancelled.end()),
        IterationOutcome::TimedOut => Some(StopCause::TimedOut.end()),
        IterationOutcome::TrackerMissing | IterationOutcome::TrackerUntouched | IterationOutcome::Failed => {
            Some((RunStatus::Failed, Some("its last iteration failed".to_owned())))
        }
        IterationOutcome::Interrupted => None,
    }
}

/// The end of a run in which no turn runs; an iteration that waits for an answer ends with it.
fn stop(state: &WorkflowState, cause: StopCause) -> Vec<Decided> {
    let (status, reason) = cause.end();
    let mut events = cause.timer(state);
    if state.iteration_is_open {
        let facts = IterationEnd {
            iteration: state.iteration,
            outcome: cause.outcome(),
            exit_code: None,
            error: None,
            tokens: Tokens::default(),
            tracker: None,
            adapter_session_id: state.iteration_session.clone(),
            retry: None,
        };
        events.push(Decided::iteration(WorkflowIteration::End(facts)));
    }
    events.extend(end(state, status, reason));
    events
}

fn take_over_by(state: &WorkflowState, take_over: &TakeOver) -> Vec<Decided> {
    let TakeOver { owner, is_forced, reason } = take_over;
    let mut events = Vec::new();
    let mut from = state.state;
    if *is_forced && from != RunState::Idle {
        events.push(interruption(state, reason));
        from = RunState::Idle;
    }
    // One that waits for an answer stays where it is, whoever drives it.
    let to = if from == RunState::Idle { RunState::Starting } else { from };
    let facts = WorkflowTransition {
        from,
        to,
        status: RunStatus::Running,
        reason: Some(cut(reason)),
        owner: Some(owner.clone()),
    };
    events.push(Decided::of(KindFacts::WorkflowTransition(facts)));
    events
}

fn interruption(state: &WorkflowState, reason: &str) -> Decided {
    Decided::of(KindFacts::WorkflowTransition(WorkflowTransition {
        from: state.state,
        to: RunState::Idle,
        status: RunStatus::Interrupted,
        reason: Some(cut(reason)),
        owner: None,
    }))
}

impl Decided {
    fn of(facts: KindFacts) -> Self {
        Self { facts, extra: Extra::default() }
    }

    fn iteration(facts: WorkflowIteration) -> Self {
        Self::of(KindFacts::WorkflowIteration(facts))
    }
}

impl StopCause {
    fn end(self) -> (RunStatus, Option<String>) {
        match self {
            Self::Cancelled => (RunStatus::Cancelled, None),
            Self::TimedOut => (RunStatus::Failed, Some("timeout".to_owned())),
        }
    }

    fn outcome(self) -> IterationOutcome {
        match self {
            Self::Cancelled => IterationOutcome::Cancelled,
            Self::TimedOut => IterationOutcome::TimedOut,
        }
    }

    /// The timer that this cause is, as an event.
    fn timer(self, state: &WorkflowState) -> Vec<Decided> {
        let due_at = state.deadline_at.filter(|_| self == Self::TimedOut);
        let fired = |due_at| {
            let timer = Timer { timer: TimerKind::Deadline, due_at, iteration: state.iteration };
            Decided::of(KindFacts::TimerFired(timer))
        };
        due_at.map(fired).into_iter().collect()
    }
}

fn end(state: &WorkflowState, status: RunStatus, reason: Option<String>) -> Vec<Decided> {
    let reason = reason.map(|reason| cut(&reason));
    let facts = WorkflowEnd { status, stop_reason: reason.clone(), iteration: state.iteration };
    vec![transition(state.state, RunState::Completing, reason), Decided::of(KindFacts::WorkflowEnd(facts))]
}

fn transition(from: RunState, to: RunState, reason: Option<String>) -> Decided {
    Decided::of(KindFacts::WorkflowTransition(WorkflowTransition {
        from,
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
