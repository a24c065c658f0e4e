//! Tells of events while a run goes on, or out of the log: in a line for a person each.

use runledger_events::{
    Content, DecisionFacts, EXPIRED, EventKind, Fields, KindFacts, RecordedEvent, WorkflowIteration, readable,
};
use serde_json::value::RawValue;

use crate::render;

/// What was decided, by whom, and why; `name` is a signal's.
fn decided(decision: &DecisionFacts, reason: Option<String>, name: Option<String>) -> String {
    let word = decision.intent.as_deref().or(decision.decision_type.as_deref()).unwrap_or("decided");
    let by = match (&decision.rule, &decision.by) {
        (Some(rule), _) => format!(" by rule {}", rule.tool),
        (None, Some(by)) => format!(" by {by}"),
        (None, None) => String::new(),
    };
    let reach = match decision.scope.as_deref() {
        Some("run") => " for the run",
        Some("always") => " always",
        _ => "",
    };
    let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let is_late = decision.decision_type.as_deref() == Some(EXPIRED);
    let late = if is_late { "too late: " } else { "" };
    match word {
        "permission_allow" => format!("{late}allowed{reach}{by}{why}"),
        "permission_deny" => format!("{late}denied{reach}{by}{why}"),
        "question_answer" => format!("{late}answered{by}"),
        "workflow_cancel" => format!("cancel requested{by}"),
        "workflow_pause" => format!("pause requested{by}"),
        "workflow_resume" => format!("told to go on{by}"),
        "workflow_signal" => format!("signal {}{by}", name.unwrap_or_default()),
        "passthrough" => format!("left to the client{by}{why}"),
        word => format!("{word} on {}{by}{why}", decision.event_id),
    }
}

/// A text of what was decided, as the decision's own words have it.
fn decision_text(event: &RecordedEvent, field: &str) -> Option<String> {
    let text = readable(event.content.json()?);
    let event = Fields::parse(&text).ok()?;
    let decision =
        event.object("data").and_then(|data| data.object("decision")).or_else(|| event.object("decision"))?;
    decision.object("intent")?.text(field).filter(|text| !text.is_empty())
}

/// What an event says, in one line for a person.
pub(crate) fn summary(event: &RecordedEvent) -> String {
    let field = |name: &str| data_text(event, name);
    let text = match (&event.kind, &event.facts.data) {
        (_, KindFacts::WorkflowStart(start)) => {
            let name = start.workflow_name.as_deref().unwrap_or("one turn");
            let iterations = if start.max_iterations == 1 { "iteration" } else { "iterations" };
            let prompt = field("prompt").unwrap_or_default();
            let fork = start.forked_from.as_ref().map(|origin| format!(", forked from {origin}")).unwrap_or_default();
            format!("{name}{fork}, at most {} {iterations}: {prompt}", start.max_iterations)
        }
        (_, KindFacts::WorkflowTransition(transition)) => format!("{} → {}", transition.from, transition.to),
        (_, KindFacts::WorkflowIteration(WorkflowIteration::Start(start))) => {
            let retry = start.retry.as_ref().map(|retry| format!(", a retry ({})", retry.why.as_str()));
            let retry = retry.unwrap_or_default();
            format!("{} begins{retry}: {}", start.iteration, field("prompt").unwrap_or_default())
        }
        (_, KindFacts::WorkflowIteration(WorkflowIteration::Process(process))) => {
            format!("{} has its process", process.iteration)
        }
        (_, KindFacts::WorkflowIteration(WorkflowIteration::Deferred(deferred))) => {
            format!("{} waits for the answer to {}", deferred.iteration, deferred.request_id)
        }
        (_, KindFacts::WorkflowIteration(WorkflowIteration::Continued(continued))) => {
            format!("{} goes on with the answer to {}", continued.iteration, continued.request_id)
        }
        (_, KindFacts::WorkflowIteration(WorkflowIteration::Session(session))) => {
            format!("{} uses harness session {}", session.iteration, session.adapter_session_id)
        }
        (_, KindFacts::WorkflowIteration(WorkflowIteration::End(end))) => {
            let tokens = if end.tokens.is_unknown() {
                String::new()
            } else {
                format!(", {} tokens", render::tokens(&end.tokens))
            };
            let error = end.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            format!("{} ends, {}{tokens}{error}", end.iteration, end.outcome.as_str().replace('_', " "))
        }
        (_, KindFacts::WorkflowEnd(end)) => {
            let reason = end.stop_reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{}{reason}", end.status)
        }
        (_, KindFacts::Decision(decision)) => {
            decided(decision, decision_text(event, "reason"), decision_text(event, "name"))
        }
        (_, KindFacts::RelayRequest(request)) => {
            let input = tool_input(event).unwrap_or_default();
            format!("{} {input}", request.tool_name.as_deref().unwrap_or("a tool"))
        }
        (_, KindFacts::RelayWithdrawn(withdrawn)) => withdrawn.reason.clone().unwrap_or_default(),
        (_, KindFacts::TimerScheduled(timer) | KindFacts::TimerFired(timer)) => {
            format!("{}, due {}", timer.timer.as_str(), render::time(timer.due_at))
        }
        (_, KindFacts::Tool { tool_name, .. } | KindFacts::Permission { tool_name, .. }) => {
            let input = tool_input(event).unwrap_or_default();
            format!("{} {input}", tool_name.as_deref().unwrap_or("a tool"))
        }
        (EventKind::MessageDelta, _) => field("delta").unwrap_or_default(),
        (EventKind::MessageComplete, _) => field("message").unwrap_or_default(),
        (EventKind::UserPrompt, _) => field("prompt").unwrap_or_default(),
        (EventKind::Notification, _) => field("message").unwrap_or_default(),
        (_, KindFacts::SessionStart { source, model, .. }) => {
            [source.as_deref(), model.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
        (_, KindFacts::Unknown { hook_event_name, source_event_name }) => {
            source_event_name.clone().or_else(|| hook_event_name.clone()).unwrap_or_default()
        }
        _ => String::new(),
    };
    match &event.content {
        Content::Erased => format!("{text} (content erased)"),
        Content::Json(_) | Content::NotRead => text,
    }
}

/// A text out of an event's `data`.
pub(crate) fn data_text(event: &RecordedEvent, name: &str) -> Option<String> {
    data_field(event, name)?.as_str().map(str::to_owned)
}

fn data_field(event: &RecordedEvent, name: &str) -> Option<serde_json::Value> {
    #[derive(serde::Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let json = runledger_events::readable(event.content.json()?);
    let event: Event<'_> = serde_json::from_str(&json).ok()?;
    let mut data: serde_json::Map<String, serde_json::Value> = serde_json::from_str(event.data?.get()).ok()?;
    data.remove(name)
}

/// What a tool was given, as briefly as it can be told.
fn tool_input(event: &RecordedEvent) -> Option<String> {
    let input = data_field(event, "tool_input")?;
    let telling = ["command", "file_path", "path", "pattern", "url", "query", "prompt", "description"];
    telling
        .iter()
        .find_map(|name| input.get(name)?.as_str().map(str::to_owned))
        .or_else(|| (!input.is_null()).then(|| input.to_string()))
}
