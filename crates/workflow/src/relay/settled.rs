//! What a question came to, with the words that its facts leave out.

use std::collections::BTreeMap;
use std::fmt;

use runledger_events::{EventId, Fields, Position, RecordedEvent, RelayState, RequestStatus, TimestampMs, readable};

/// What settled a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// How it stands now.
    pub status: RequestStatus,
    /// The event that settled it.
    pub event_id: EventId,
    /// Where that stands in the log.
    pub position: Position,
    /// When it was settled.
    pub at: TimestampMs,
    /// Who decided: `user`, `channel`, `terminal`, `timeout`; none for a withdrawal.
    pub source: Option<String>,
    /// The same by name.
    pub by: Option<String>,
    /// What it came to: `permission_allow`, `permission_deny`, `question_answer`; none where the harness decides.
    pub intent: Option<String>,
    /// Why, in words.
    pub reason: Option<String>,
    /// The user's answers, by question.
    pub answers: BTreeMap<String, String>,
}

impl Settled {
    /// Reads what settled a question out of that event; `None` while nothing has.
    pub(crate) fn read(state: &RelayState, event: &RecordedEvent) -> Option<Self> {
        let text = readable(event.content.json().unwrap_or("{}"));
        let data = Fields::parse(&text).ok().and_then(|fields| fields.object("data"));
        let decision = data.as_ref().and_then(|data| data.object("decision"));
        let intent = decision.as_ref().and_then(|decision| decision.object("intent"));
        let withdrawn_for = data.as_ref().and_then(|data| data.text("reason"));
        let answers = intent.as_ref().and_then(|intent| serde_json::from_str(intent.raw("answers")?).ok());
        let facts = state.decision.as_ref();
        Some(Self {
            status: state.status,
            event_id: state.settled_by.clone()?,
            position: state.settled_position?,
            at: state.settled_at?,
            source: facts.and_then(|facts| facts.source.clone()),
            by: facts.and_then(|facts| facts.by.clone()),
            intent: facts.and_then(|facts| facts.intent.clone()),
            reason: intent.and_then(|intent| intent.text("reason")).or(withdrawn_for),
            answers: answers.unwrap_or_default(),
        })
    }

    /// Whether the tool may run; `None` where the harness decides as it would have without us.
    pub fn is_allowed(&self) -> Option<bool> {
        match self.intent.as_deref()? {
            "permission_allow" | "question_answer" => Some(true),
            "permission_deny" => Some(false),
            _ => None,
        }
    }
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match (&self.by, &self.source) {
            (Some(by), Some(source)) => write!(f, " by {by} ({source})")?,
            (Some(by), None) => write!(f, " by {by}")?,
            (None, Some(source)) => write!(f, " by {source}")?,
            (None, None) => {}
        }
        write!(f, " at position {}", self.position)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}
