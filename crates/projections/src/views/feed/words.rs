//! The titles that an event gives to entries of the feed, as far as the event alone tells: the words to find it by.

use runledger_events::{EventKind, KindFacts, RecordedEvent, WorkflowIteration};

use super::incoming::Incoming;
use super::{decisions, harness, notifications, relays, titles, workflow};

/// The title of what an event tells; none where it is its own text, or where it tells nothing by itself.
pub(crate) fn title(event: &RecordedEvent, json: &str) -> Option<String> {
    use EventKind as K;
    let incoming = Incoming::new(event, json);
    let or = |name: &str, default: &str| incoming.text(name).unwrap_or_else(|| default.to_owned());
    let agent_type = || incoming.agent_type().unwrap_or_default();
    Some(match &event.kind {
        K::SessionStart => format!("Session started ({})", or("source", "startup")),
        K::SessionEnd => format!("Session ended ({})", or("reason", "unknown")),
        K::ToolPost => format!("{} result", incoming.tool_name()),
        K::ToolFailure => format!("{} failed", incoming.tool_name()),
        K::ToolPre => incoming.tool_name(),
        K::PermissionRequest => format!("Permission: {}", incoming.tool_name()),
        K::PermissionDenied => format!("Denied: {}", incoming.tool_name()),
        K::RelayRequest => relays::request_title(&incoming),
        K::RelayWithdrawn => relays::withdrawn_title(&incoming),
        K::TimerScheduled | K::TimerFired => return relays::timer_title(&incoming),
        K::StopRequest | K::TurnComplete => titles::STOP_REQUESTED.to_owned(),
        K::SubagentStart => format!("Subagent: {}", agent_type()),
        K::SubagentStop => format!("Subagent done: {}", agent_type()),
        K::PlanDelta => "Plan updated".to_owned(),
        K::UsageUpdate => "Usage updated".to_owned(),
        K::Notification => notifications::title(&incoming),
        K::Decision => decisions::titles(&incoming),
        K::WorkflowStart | K::WorkflowTransition | K::WorkflowIteration | K::WorkflowEnd => {
            return workflow_title(&incoming);
        }
        _ => return harness::title(&incoming),
    })
}

fn workflow_title(event: &Incoming<'_>) -> Option<String> {
    match &event.event.facts.data {
        KindFacts::WorkflowStart(start) => Some(workflow::start_title(event, start)),
        KindFacts::WorkflowTransition(moved) => workflow::move_title(moved),
        KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) => Some(workflow::iteration_title(start)),
        KindFacts::WorkflowIteration(WorkflowIteration::Deferred(deferred)) => Some(workflow::deferred_title(deferred)),
        KindFacts::WorkflowIteration(WorkflowIteration::Continued(continued)) => {
            Some(workflow::continued_title(continued))
        }
        KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => Some(workflow::iteration_end_title(end)),
        KindFacts::WorkflowEnd(end) => Some(workflow::end_title(end)),
        _ => None,
    }
}
