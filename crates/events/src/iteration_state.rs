//! What the `workflow.iteration` facts of one iteration mean: a pure fold.

use serde::{Deserialize, Serialize};

use crate::ids::{AdapterSessionId, EventId, RequestId};
use crate::position::{Position, TimestampMs};
use crate::tokens::Tokens;
use crate::workflow_event::{Continuation, Retry, TrackerFacts, WorkflowIteration};
use crate::workflow_state::RunState;
use crate::{KindFacts, RecordedEvent};

/// What came of an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum IterationOutcome {
    /// The turn succeeded and the work goes on.
    Continue,
    /// The work is complete.
    Completed,
    /// The tracker says blocked.
    Blocked,
    /// The tracker is gone.
    TrackerMissing,
    /// The tracker is still the skeleton.
    TrackerUntouched,
    /// The turn failed.
    Failed,
    /// The run was cancelled during the turn.
    Cancelled,
    /// The run's time was up during the turn.
    TimedOut,
    /// Its runner was gone; the run was interrupted.
    Interrupted,
}

impl IterationOutcome {
    /// The word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Completed => "completed",
            Self::Blocked => "blocked",
            Self::TrackerMissing => "tracker_missing",
            Self::TrackerUntouched => "tracker_untouched",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
        }
    }
}

/// One iteration, as its facts tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IterationState {
    /// Counts from 1.
    pub iteration: u32,
    /// How often it was begun: again after an interruption.
    pub attempt: u32,
    /// What it is another try of.
    pub retry: Option<Retry>,
    /// How it continued what was before.
    pub continuation: Continuation,
    /// When it began.
    pub started_at: TimestampMs,
    /// Where it begins in the log.
    pub start_position: Position,
    /// The event it begins with; its JSON has the prompt.
    pub start_event_id: EventId,
    /// When it ended.
    pub ended_at: Option<TimestampMs>,
    /// Where it ends in the log.
    pub end_position: Option<Position>,
    /// The question that it waits for, where nobody waits with it.
    pub waiting_for: Option<RequestId>,
    /// What came of it; none while it runs.
    pub outcome: Option<IterationOutcome>,
    /// The harness's exit code.
    pub exit_code: Option<i32>,
    /// The harness's error, in words.
    pub error: Option<String>,
    /// What it cost.
    pub tokens: Tokens,
    /// The tracker as it left it.
    pub tracker: Option<TrackerFacts>,
    /// The last harness session it used.
    pub adapter_session_id: Option<AdapterSessionId>,
}

impl IterationState {
    /// The state after an iteration's start; `None` for any other event.
    pub fn initial(event: &RecordedEvent) -> Option<Self> {
        let KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) = &event.facts.data else {
            return None;
        };
        Some(Self {
            iteration: start.iteration,
            attempt: 1,
            retry: start.retry.clone(),
            continuation: start.continuation.clone(),
            started_at: event.occurred_at,
            start_position: event.position,
            start_event_id: event.id.clone(),
            ended_at: None,
            end_position: None,
            waiting_for: None,
            outcome: None,
            exit_code: None,
            error: None,
            tokens: Tokens::default(),
            tracker: None,
            adapter_session_id: None,
        })
    }

    /// Takes a later fact of the same iteration, or of its run; anything else changes nothing.
    pub fn evolve(&mut self, event: &RecordedEvent) {
        match &event.facts.data {
            KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) if start.iteration == self.iteration => {
                // Begun again, after its runner was gone: what the turn before cost has no end, and so no figures.
                if self.outcome == Some(IterationOutcome::Interrupted)
                    && let Some(again) = Self::initial(event)
                {
                    let (attempt, tokens) = (self.attempt + 1, self.tokens);
                    *self = Self { attempt, tokens, ..again };
                }
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Session(session))
                if session.iteration == self.iteration =>
            {
                self.adapter_session_id = Some(session.adapter_session_id.clone());
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Deferred(deferred))
                if deferred.iteration == self.iteration && self.ended_at.is_none() =>
            {
                self.waiting_for = Some(deferred.request_id.clone());
                self.add(deferred.tokens);
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Continued(continued))
                if continued.iteration == self.iteration =>
            {
                self.waiting_for = None;
            }
            KindFacts::WorkflowIteration(WorkflowIteration::End(end))
                if end.iteration == self.iteration && self.ended_at.is_none() =>
            {
                self.ended_at = Some(event.occurred_at);
                self.end_position = Some(event.position);
                self.waiting_for = None;
                self.outcome = Some(end.outcome);
                self.exit_code = end.exit_code;
                self.error = end.error.clone();
                self.add(end.tokens);
                self.tracker = end.tracker.clone();
            }
            KindFacts::WorkflowTransition(transition) if transition.to == RunState::Idle && self.ended_at.is_none() => {
                self.ended_at = Some(event.occurred_at);
                self.end_position = Some(event.position);
                self.waiting_for = None;
                self.outcome = Some(IterationOutcome::Interrupted);
            }
            _ => {}
        }
    }

    /// Adds what a turn cost; of one turn alone the figures are as they were told.
    fn add(&mut self, tokens: Tokens) {
        self.tokens = if self.tokens == Tokens::default() { tokens } else { self.tokens.followed_by(tokens) };
    }
}
