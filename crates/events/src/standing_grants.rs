//! What was decided for every run of a workflow: a pure fold of its stream `rules/<workflow name>`.
//!
//! Invariants: only that stream's own decisions count; of two on the same calls the later one stands behind the earlier;
//! one that was taken back is gone, and taking it back twice changes nothing.

use crate::facts::DecisionFacts;
use crate::position::{Position, TimestampMs};
use crate::relay_state::EXPIRED;
use crate::workflow_event::Grant;
use crate::{KindFacts, RecordedEvent};

/// The intent of a decision that takes an earlier one back: its `eventId` is that decision's.
pub const PERMISSION_WITHDRAW: &str = "permission_withdraw";

/// One decision that holds for every run of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingGrant {
    /// What it says.
    pub grant: Grant,
    /// Where it stands in the log.
    pub position: Position,
    /// When it was made.
    pub decided_at: TimestampMs,
    /// Who made it.
    pub by: Option<String>,
}

/// The decisions that hold for every run of one workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StandingGrants(Vec<StandingGrant>);

impl StandingGrants {
    /// Takes the next event of the stream.
    pub fn evolve(&mut self, event: &RecordedEvent) {
        let KindFacts::Decision(decision) = &event.facts.data else {
            return;
        };
        if !event.stream.is_rules() || decision.decision_type.as_deref() == Some(EXPIRED) {
            return;
        }
        self.hear(decision, event);
    }

    fn hear(&mut self, decision: &DecisionFacts, event: &RecordedEvent) {
        let is_allowed = match decision.intent.as_deref() {
            Some("permission_allow") => true,
            Some("permission_deny") => false,
            Some(PERMISSION_WITHDRAW) => {
                return self.0.retain(|standing| standing.grant.decision_id != decision.event_id);
            }
            _ => return,
        };
        if let Some(pattern) = decision.pattern.clone() {
            self.0.push(StandingGrant {
                grant: Grant { pattern, is_allowed, decision_id: event.id.clone() },
                position: event.position,
                decided_at: event.occurred_at,
                by: decision.by.clone(),
            });
        }
    }

    /// The decisions of a whole stream.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a RecordedEvent>) -> Self {
        let mut grants = Self::default();
        events.into_iter().for_each(|event| grants.evolve(event));
        grants
    }

    /// Those that stand, the latest last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &StandingGrant> {
        self.0.iter()
    }

    /// What those that stand say, the latest last.
    pub fn into_grants(self) -> Vec<Grant> {
        self.0.into_iter().map(|standing| standing.grant).collect()
    }
}
