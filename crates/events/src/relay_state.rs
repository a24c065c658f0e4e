//! What the facts of one question mean: a pure fold of its stream `request/<request id>`.
//!
//! Invariants: the first decision, or withdrawal, behind the question counts, whatever comes later; a decision of type
//! `expired` is the record of one that came too late, and never counts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::DecisionFacts;
use crate::ids::EventId;
use crate::position::{Position, StreamVersion, TimestampMs};
use crate::relay_event::RelayRequest;
use crate::{KindFacts, RecordedEvent};

/// The type of a decision that came too late: a record of what somebody wanted, which changed nothing.
pub const EXPIRED: &str = "expired";

/// How a question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RequestStatus {
    /// It waits for an answer.
    Pending,
    /// Yes, or it was answered.
    Allowed,
    /// No.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// It needs no answer any more.
    Withdrawn,
}

impl RequestStatus {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Pending, Self::Allowed, Self::Denied, Self::Expired, Self::Withdrawn];

    /// The word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// The one of this word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| status.as_str() == text)
    }

    /// What a decision on a permission or a question comes to; none for what decides nothing.
    pub fn of_decision(decision: &DecisionFacts) -> Option<Self> {
        if decision.decision_type.as_deref() == Some(EXPIRED) {
            return None;
        }
        if decision.source.as_deref() == Some("timeout") {
            return Some(Self::Expired);
        }
        match decision.intent.as_deref() {
            Some("permission_allow" | "question_answer") => Some(Self::Allowed),
            Some("permission_deny") => Some(Self::Denied),
            _ => None,
        }
    }
}

impl fmt::Display for RequestStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One question, as its facts tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayState {
    /// The question.
    pub request: RelayRequest,
    /// How it stands.
    pub status: RequestStatus,
    /// When it was put.
    pub asked_at: TimestampMs,
    /// Where it stands in the log.
    pub position: Position,
    /// Events in its stream: the version that the next one is appended under.
    pub version: StreamVersion,
    /// The decision that counts.
    pub decision: Option<DecisionFacts>,
    /// The event that settled it.
    pub settled_by: Option<EventId>,
    /// Where that stands in the log.
    pub settled_position: Option<Position>,
    /// When it was settled.
    pub settled_at: Option<TimestampMs>,
}

impl RelayState {
    /// The state after the first event of a question's stream; `None` for any other event.
    pub fn initial(event: &RecordedEvent) -> Option<Self> {
        let KindFacts::RelayRequest(request) = &event.facts.data else {
            return None;
        };
        let is_first = event.stream_version == StreamVersion(1);
        (is_first && event.stream.request_id().as_ref() == Some(&request.request_id)).then(|| Self {
            request: request.as_ref().clone(),
            status: RequestStatus::Pending,
            asked_at: event.occurred_at,
            position: event.position,
            version: event.stream_version,
            decision: None,
            settled_by: None,
            settled_position: None,
            settled_at: None,
        })
    }

    /// Takes the next event of the stream.
    pub fn evolve(&mut self, event: &RecordedEvent) {
        self.version = event.stream_version;
        if self.status != RequestStatus::Pending {
            return;
        }
        let status = match &event.facts.data {
            KindFacts::Decision(decision) => match RequestStatus::of_decision(decision) {
                Some(status) => {
                    self.decision = Some(decision.clone());
                    status
                }
                None => return,
            },
            KindFacts::RelayWithdrawn(_) => RequestStatus::Withdrawn,
            _ => return,
        };
        self.status = status;
        self.settled_by = Some(event.id.clone());
        self.settled_position = Some(event.position);
        self.settled_at = Some(event.occurred_at);
    }

    /// The state of a question's whole stream; `None` without a `relay.request` at its head.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a RecordedEvent>) -> Option<Self> {
        let mut events = events.into_iter();
        let mut state = Self::initial(events.next()?)?;
        events.for_each(|event| state.evolve(event));
        Some(state)
    }

    /// Whether its time is up and nobody has said so yet.
    pub fn is_overdue(&self, now: TimestampMs) -> bool {
        self.status == RequestStatus::Pending && self.request.due_at.is_some_and(|due_at| due_at <= now)
    }
}
