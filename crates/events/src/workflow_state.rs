//! What the `workflow.*` facts of one run mean: a pure fold, and the table of legal transitions.
//!
//! ```text
//! idle ──► starting ──► running ──► completing ──► done
//!  ▲          │  └──────────┼───────────▲
//!  └──────────┴─────────────┴── (interrupted: nobody drives the run)
//! ```
//!
//! Invariants: the fold never fails on a log that `decide` wrote; an event that breaks the table leaves the state as it
//! was and is reported; `done` is final; the owner's term never falls; whoever begins to read at an iteration's start
//! ([`WorkflowState::at`]) knows of permissions what the whole stream tells.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{AdapterSessionId, RequestId, RunId, SessionId};
use crate::iteration_state::IterationOutcome;
use crate::permission_policy::RunPolicy;
use crate::position::{Position, StreamVersion, TimestampMs};
use crate::relay_event::{ProcessId, Timer, TimerKind};
use crate::tokens::Tokens;
use crate::workflow_event::{
    Carried, Continuation, Grant, IterationStart, Owner, Retry, WorkflowIteration, WorkflowStart, WorkflowTransition,
};
use crate::{DecisionFacts, KindFacts, RecordedEvent};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, bincode::Encode, bincode::Decode,
        )]
        #[serde(rename_all = "lowercase")]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word, as the log and JSON have it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The one of this word.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// Where a run is on its way.
    RunState {
        /// Nobody drives it: not started yet, or interrupted.
        Idle = "idle",
        /// An owner has it; no turn has begun yet.
        Starting = "starting",
        /// Turns run.
        Running = "running",
        /// The last turn is over; the end is being written.
        Completing = "completing",
        /// Over.
        Done = "done",
    }
}

words! {
    /// How a run stands, or ended.
    RunStatus {
        /// It goes on.
        Running = "running",
        /// The tracker said complete, or the only turn succeeded.
        Completed = "completed",
        /// The tracker said blocked.
        Blocked = "blocked",
        /// The iteration limit was reached.
        Exhausted = "exhausted",
        /// A turn failed, or the run could not go on.
        Failed = "failed",
        /// Somebody ended it.
        Cancelled = "cancelled",
        /// Its owner is gone; it can be resumed.
        Interrupted = "interrupted",
    }
}

impl RunStatus {
    /// Whether a run that ended can have this status.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Running | Self::Interrupted)
    }
}

/// Whether a run may move from one state to another.
pub fn transition_is_legal(from: RunState, to: RunState) -> bool {
    use RunState::{Completing, Done, Idle, Running, Starting};
    matches!(
        (from, to),
        (Idle, Starting)
            | (Starting, Running | Completing | Idle)
            | (Running, Completing | Idle)
            | (Completing, Done | Idle)
    )
}

/// An event that a run in this state cannot have; the state stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("position {position}: {what} does not follow on a run that is {state}")]
pub struct IllegalEvent {
    /// Where it stands in the log.
    pub position: Position,
    /// The event, in words.
    pub what: String,
    /// The state it met.
    pub state: RunState,
}

/// One run, as its facts tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowState {
    /// The run.
    pub run_id: RunId,
    /// Its ledger session.
    pub session_id: SessionId,
    /// The workflow's name.
    pub workflow_name: Option<String>,
    /// The harness's name.
    pub harness: Option<String>,
    /// Where it is on its way.
    pub state: RunState,
    /// How it stands.
    pub status: RunStatus,
    /// Iterations begun.
    pub iteration: u32,
    /// Whether the last iteration begun has not ended.
    pub iteration_is_open: bool,
    /// The iteration limit.
    pub max_iterations: u32,
    /// When it began.
    pub started_at: TimestampMs,
    /// When it ended.
    pub ended_at: Option<TimestampMs>,
    /// Why it ended, in words.
    pub stop_reason: Option<String>,
    /// The tracker's path, relative to the project directory.
    pub tracker_path: Option<String>,
    /// What all ended iterations cost.
    pub tokens: Tokens,
    /// The harness sessions it used, in order of first use.
    pub adapter_session_ids: Vec<AdapterSessionId>,
    /// The run it belongs to.
    pub parent_run_id: Option<RunId>,
    /// Where it was forked.
    pub forked_at: Option<Position>,
    /// How often this work was begun.
    pub attempt: u32,
    /// When it has to be done.
    pub deadline_at: Option<TimestampMs>,
    /// Who drives it, or drove it last.
    pub owner: Option<Owner>,
    /// Whether somebody asked for its end.
    pub cancel_requested: bool,
    /// Whether somebody asked it to wait before its next turn.
    pub pause_requested: bool,
    /// The run that it was forked from.
    pub forked_from: Option<RunId>,
    /// Permissions, retries and delays in force.
    pub policy: Option<Box<RunPolicy>>,
    /// What an iteration's start carries: retries, and what was decided for the run.
    pub carried: Carried,
    /// Whether the last iteration begun was cut off by an interruption; it is begun again, under its number.
    pub iteration_was_cut: bool,
    /// How the last iteration begun continues what the harness did before.
    pub iteration_continuation: Continuation,
    /// The last harness session of the last iteration begun.
    pub iteration_session: Option<AdapterSessionId>,
    /// The question that the open iteration waits for, with nobody waiting beside it.
    pub waiting_for: Option<RequestId>,
    /// The harness's process, of the open iteration or the one that was cut off.
    pub harness_process: Option<ProcessId>,
    /// How the last iteration ended.
    pub last_end: Option<LastEnd>,
    /// The timer that the next iteration waits for.
    pub timer: Option<Timer>,
    /// The last event of the run's stream.
    pub last_position: Position,
}

/// How an iteration ended, as far as what follows depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// What came of it.
    pub outcome: IterationOutcome,
    /// What the next iteration is another try of, where one follows.
    pub retry: Option<Retry>,
    /// The event that tells it.
    pub position: Position,
}

impl WorkflowState {
    /// The state after a run's first event; `None` for any event but a `workflow.start` at the head of its own run's stream.
    pub fn initial(event: &RecordedEvent) -> Option<Self> {
        let KindFacts::WorkflowStart(start) = &event.facts.data else {
            return None;
        };
        // A start elsewhere, or behind other events, is somebody's words about a run.
        let is_first = event.stream_version == StreamVersion(1);
        if !is_first || event.stream.run_id().as_ref() != Some(&start.run_id) {
            return None;
        }
        Some(Self::begun(start, event))
    }

    fn begun(start: &WorkflowStart, event: &RecordedEvent) -> Self {
        Self {
            run_id: start.run_id.clone(),
            session_id: start.session_id.clone(),
            workflow_name: start.workflow_name.clone(),
            harness: start.harness.clone(),
            state: RunState::Starting,
            status: RunStatus::Running,
            iteration: start.iteration,
            iteration_is_open: false,
            max_iterations: start.max_iterations,
            started_at: event.occurred_at,
            ended_at: None,
            stop_reason: None,
            tracker_path: start.tracker_path.clone(),
            tokens: Tokens::default(),
            adapter_session_ids: Vec::new(),
            parent_run_id: start.parent_run_id.clone(),
            forked_at: start.forked_at,
            attempt: start.attempt,
            deadline_at: start.deadline_at,
            owner: start.owner.clone(),
            cancel_requested: false,
            pause_requested: false,
            forked_from: start.forked_from.clone(),
            policy: start.policy.clone().map(Box::new),
            carried: Carried::default(),
            iteration_was_cut: false,
            iteration_continuation: Continuation::Fresh,
            iteration_session: None,
            waiting_for: None,
            harness_process: None,
            last_end: None,
            timer: None,
            last_position: event.position,
        }
    }

    /// The state at an iteration's start, as far as the run's first event and that one tell it: all that a decision on a
    /// permission needs. Tokens, harness sessions and signals of before are not known to it. `None` where they are no
    /// such events.
    pub fn at(first: &RecordedEvent, iteration_start: &RecordedEvent) -> Option<Self> {
        let mut state = Self::initial(first)?;
        let KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) = &iteration_start.facts.data else {
            return None;
        };
        state.state = RunState::Running;
        state.begin_iteration(start);
        state.carried = start.carried.clone();
        state.last_position = iteration_start.position;
        Some(state)
    }

    /// Takes the next event of the run's stream. Kinds that say nothing of a run's state only move `last_position`.
    ///
    /// # Errors
    /// [`IllegalEvent`] when the event cannot follow; all but `last_position` stays as it was.
    pub fn evolve(&mut self, event: &RecordedEvent) -> Result<(), IllegalEvent> {
        self.last_position = event.position;
        let illegal = |what: String| Err(IllegalEvent { position: event.position, what, state: self.state });
        match &event.facts.data {
            KindFacts::WorkflowStart(_) => illegal("a second workflow.start".to_owned()),
            KindFacts::WorkflowTransition(transition) => {
                if transition.from != self.state || !self.takes(transition) {
                    return illegal(format!("the transition {} to {}", transition.from, transition.to));
                }
                self.state = transition.to;
                self.status = transition.status;
                if let Some(owner) = &transition.owner {
                    self.owner = Some(owner.clone());
                }
                if transition.to == RunState::Idle {
                    self.iteration_was_cut |= self.iteration_is_open;
                    self.iteration_is_open = false;
                    self.waiting_for = None;
                }
                Ok(())
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) => {
                // One that was cut off is begun again, or left as it is.
                let is_again = self.iteration_was_cut && start.iteration == self.iteration;
                let is_next = is_again || start.iteration == self.iteration + 1;
                if self.state != RunState::Running || self.iteration_is_open || !is_next {
                    return illegal(format!("the start of iteration {}", start.iteration));
                }
                self.begin_iteration(start);
                Ok(())
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Session(session)) => {
                if !self.is_in(session.iteration) {
                    return illegal(format!("a session of iteration {}", session.iteration));
                }
                if !self.adapter_session_ids.contains(&session.adapter_session_id) {
                    self.adapter_session_ids.push(session.adapter_session_id.clone());
                }
                self.iteration_session = Some(session.adapter_session_id.clone());
                Ok(())
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Process(process)) => {
                if !self.is_in(process.iteration) {
                    return illegal(format!("a process of iteration {}", process.iteration));
                }
                self.harness_process = Some(process.process.clone());
                Ok(())
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Deferred(deferred)) => {
                if !self.is_in(deferred.iteration) {
                    return illegal(format!("a question of iteration {}", deferred.iteration));
                }
                self.waiting_for = Some(deferred.request_id.clone());
                self.tokens = self.tokens.followed_by(deferred.tokens);
                self.harness_process = None;
                Ok(())
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Continued(continued)) => {
                let is_waiting = self.waiting_for.as_ref() == Some(&continued.request_id);
                if continued.iteration != self.iteration || !self.iteration_is_open || !is_waiting {
                    return illegal(format!("another turn of iteration {}", continued.iteration));
                }
                self.waiting_for = None;
                Ok(())
            }
            KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => {
                if end.iteration != self.iteration || !self.iteration_is_open {
                    return illegal(format!("the end of iteration {}", end.iteration));
                }
                self.iteration_is_open = false;
                self.waiting_for = None;
                self.harness_process = None;
                self.tokens = self.tokens.followed_by(end.tokens);
                self.last_end =
                    Some(LastEnd { outcome: end.outcome, retry: end.retry.clone(), position: event.position });
                Ok(())
            }
            KindFacts::WorkflowEnd(end) => {
                if self.state != RunState::Completing || self.iteration_is_open || !end.status.is_final() {
                    return illegal(format!("workflow.end with status {}", end.status));
                }
                self.state = RunState::Done;
                self.status = end.status;
                self.stop_reason = end.stop_reason.clone();
                self.ended_at = Some(event.occurred_at);
                self.timer = None;
                Ok(())
            }
            KindFacts::TimerScheduled(timer) if timer.timer != TimerKind::Deadline => {
                if self.state == RunState::Done || self.iteration_is_open {
                    return illegal(format!("a timer of iteration {}", timer.iteration));
                }
                self.timer = Some(timer.clone());
                Ok(())
            }
            KindFacts::TimerFired(timer) if self.timer.as_ref() == Some(timer) => {
                self.timer = None;
                Ok(())
            }
            KindFacts::Decision(decision) => {
                self.hear(decision, event);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Takes what somebody else decided on the run: a signal, or a permission that holds for all of it.
    fn hear(&mut self, decision: &DecisionFacts, event: &RecordedEvent) {
        let is_allowed = match decision.intent.as_deref() {
            Some("workflow_cancel") => return self.cancel_requested = true,
            Some("workflow_pause") => return self.pause_requested = true,
            Some("workflow_resume") => return self.pause_requested = false,
            Some("permission_allow") => true,
            Some("permission_deny") => false,
            _ => return,
        };
        if let Some(pattern) = decision.pattern.clone() {
            self.carried.grants.push(Grant { pattern, is_allowed, decision_id: event.id.clone() });
        }
    }

    fn begin_iteration(&mut self, start: &IterationStart) {
        self.iteration = start.iteration;
        self.iteration_is_open = true;
        self.iteration_was_cut = false;
        self.iteration_continuation = start.continuation.clone();
        self.iteration_session = None;
        self.harness_process = None;
        self.timer = None;
        // What was decided for the run stands in its own events; only who begins to read here learns it from the start.
        self.carried.retries = start.carried.retries;
        self.carried.retries_in_a_row = start.carried.retries_in_a_row;
    }

    /// Whether this iteration is open, and a turn of it runs.
    fn is_in(&self, iteration: u32) -> bool {
        iteration == self.iteration && self.iteration_is_open && self.waiting_for.is_none()
    }

    /// Iterations that count against the limit: retries do not.
    pub fn counted_iterations(&self) -> u32 {
        self.iteration.saturating_sub(self.carried.retries)
    }

    /// The state of a run's whole stream, and what did not fit; `None` without a `workflow.start` at its head.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a RecordedEvent>) -> Option<(Self, Vec<IllegalEvent>)> {
        let mut events = events.into_iter();
        let mut state = Self::initial(events.next()?)?;
        let illegal = events.filter_map(|event| state.evolve(event).err()).collect();
        Some((state, illegal))
    }

    /// The owner's term; 0 while there was none.
    pub fn term(&self) -> u64 {
        self.owner.as_ref().map_or(0, |owner| owner.term)
    }

    /// Whether the table, the status and the owner's term allow this transition.
    fn takes(&self, transition: &WorkflowTransition) -> bool {
        // A takeover may leave the state where it is; anything else has to follow the table.
        let takes_over = transition.owner.as_ref().is_some_and(|owner| owner.term > self.term());
        let moves = transition_is_legal(transition.from, transition.to)
            || (takes_over && transition.from == transition.to && transition.to != RunState::Done);
        let status_fits = match transition.to {
            RunState::Idle => transition.status == RunStatus::Interrupted,
            // `done` is reached by workflow.end alone, which carries the final status.
            RunState::Done => false,
            _ => transition.status == RunStatus::Running,
        };
        moves && status_fits && (transition.owner.is_none() || takes_over)
    }
}
