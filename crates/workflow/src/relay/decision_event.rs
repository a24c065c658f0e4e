//! The JSON of the events of a question's stream, and of the decisions that reach beyond it.

use runledger_events::{
    EventId, EventKind, Fields, KindFacts, Metadata, ObjectText, RelayRequest, RelayWithdrawn, RequestId, RuntimeEvent,
    TimestampMs, event_json, quoted,
};
use runledger_store::NewEvent;
use serde::Serialize;
use uuid::Uuid;

use super::ask::Ask;
use super::error::RelayLogError;
use super::verdict::{GrantScope, RelayAnswer, RelayVerdict};

/// An id for an event of ours.
pub(crate) fn new_event_id() -> Result<EventId, RelayLogError> {
    Ok(EventId::new(Uuid::now_v7().to_string())?)
}

/// The question itself: its facts, and beside them the tool's input as it came.
pub(crate) fn request_event(ask: &Ask, facts: &RelayRequest, now: TimestampMs) -> Result<NewEvent, RelayLogError> {
    let json = serde_json::to_string(facts)?;
    let fields = Fields::parse(&json)?;
    let data = fields
        .iter()
        .fold(ObjectText::new(), |data, (name, value)| data.raw(name, value))
        .raw("tool_input", ask.tool_input_json.trim())
        .text("cwd", ask.cwd.as_deref())
        .finish();
    let id = new_event_id()?;
    let json = ObjectText::new()
        .text("id", id.as_str())
        .raw("timestamp", now.to_string().as_str())
        .text("kind", EventKind::RelayRequest.as_str())
        .text("agentId", ask.agent_id.as_deref())
        .text("agentType", ask.agent_type.as_deref())
        .raw("data", data.as_str())
        .finish();
    read_back(&json, ask.metadata())
}

/// That a question needs no answer any more.
pub(crate) fn withdrawn_event(
    request_id: &RequestId,
    reason: &str,
    now: TimestampMs,
    metadata: Metadata,
) -> Result<NewEvent, RelayLogError> {
    #[derive(Serialize)]
    struct Nothing {}
    let facts = RelayWithdrawn { request_id: request_id.clone(), reason: Some(reason.to_owned()) };
    let json = event_json(&new_event_id()?, now, &KindFacts::RelayWithdrawn(facts), &Nothing {})?;
    read_back(&json, metadata)
}

/// A decision on an event.
pub(crate) struct DecisionEvent<'a> {
    pub(crate) id: &'a EventId,
    pub(crate) at: TimestampMs,
    /// The event decided on.
    pub(crate) event_id: &'a EventId,
    /// The question, where one was put.
    pub(crate) request_id: Option<&'a RequestId>,
    /// `json`, `passthrough`, `expired`.
    pub(crate) decision_type: &'a str,
    pub(crate) source: &'a str,
    /// `permission_allow`, …; none where nothing was decided.
    pub(crate) intent: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) answers_json: Option<&'a str>,
    pub(crate) scope: Option<GrantScope>,
    pub(crate) pattern: Option<&'a str>,
    pub(crate) by: Option<&'a str>,
}

impl<'a> DecisionEvent<'a> {
    /// One that says nothing yet.
    pub(crate) fn new(id: &'a EventId, at: TimestampMs, event_id: &'a EventId, source: &'a str) -> Self {
        Self {
            id,
            at,
            event_id,
            request_id: None,
            decision_type: "json",
            source,
            intent: None,
            reason: None,
            answers_json: None,
            scope: None,
            pattern: None,
            by: None,
        }
    }

    /// One that says what a verdict says.
    pub(crate) fn of_verdict(
        id: &'a EventId,
        at: TimestampMs,
        event_id: &'a EventId,
        verdict: &'a RelayVerdict,
        answers_json: Option<&'a str>,
    ) -> Self {
        Self {
            intent: Some(intent(&verdict.answer)),
            reason: verdict.reason.as_deref(),
            answers_json,
            scope: Some(verdict.scope),
            by: verdict.by.as_deref(),
            ..Self::new(id, at, event_id, verdict.source.as_str())
        }
    }

    pub(crate) fn into_event(self, metadata: Metadata) -> Result<NewEvent, RelayLogError> {
        let intent = self.intent.map(|kind| {
            let intent = ObjectText::new().text("kind", kind).text("reason", self.reason);
            intent.raw("answers", self.answers_json).finish()
        });
        let decision = ObjectText::new()
            .text("type", self.decision_type)
            .text("source", self.source)
            .raw("intent", intent.as_deref())
            .text("scope", self.scope.map(GrantScope::as_str))
            .text("pattern", self.pattern)
            .text("by", self.by)
            .finish();
        let data = ObjectText::new()
            .text("eventId", self.event_id.as_str())
            .text("request_id", self.request_id.map(RequestId::as_str))
            .raw("decision", decision.as_str())
            .finish();
        let json = ObjectText::new()
            .text("id", self.id.as_str())
            .raw("timestamp", self.at.to_string().as_str())
            .text("kind", EventKind::Decision.as_str())
            .raw("data", data.as_str())
            .finish();
        read_back(&json, metadata)
    }
}

/// The word for what is said to a question.
pub(crate) fn intent(answer: &RelayAnswer) -> &'static str {
    match answer {
        RelayAnswer::Allow => "permission_allow",
        RelayAnswer::Deny => "permission_deny",
        RelayAnswer::Answers(_) => "question_answer",
    }
}

/// Answers as a JSON object, in the order of the questions.
pub(crate) fn answers_json(answers: &[(String, String)]) -> String {
    answers.iter().fold(ObjectText::new(), |object, (name, answer)| object.raw(name, quoted(answer).as_str())).finish()
}

fn read_back(json: &str, metadata: Metadata) -> Result<NewEvent, RelayLogError> {
    Ok(NewEvent::new(RuntimeEvent::from_json(json)?, metadata)?)
}
