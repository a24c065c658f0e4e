//! Decisions on permission requests and stops, and signals to workflow runs.

use runledger_events::{Fields, KindFacts, ObjectText};

use super::event::FeedLevel;
use super::incoming::Incoming;
use super::mapper::{Draft, Mapper};
use super::subagents::ROOT;
use super::{decision_correlation, relays, text, titles};
use crate::error::ProjectionError;

/// What was decided: the word, its reason or message, and the title.
struct Verdict {
    decision_type: &'static str,
    field: &'static str,
    words: Option<String>,
    title: String,
}

impl Mapper<'_> {
    pub(super) fn decision(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let KindFacts::Decision(facts) = &event.event.facts.data else {
            return Ok(());
        };
        let decision = event.decision();
        let source = facts.source.clone().unwrap_or_default();
        let actor = if source == "user" { "user" } else { "system" };
        let stream = &event.event.stream;
        if stream.request_id().is_some() {
            return self.relay_decision(event, facts);
        }
        if stream.is_rules() || (stream.run_id().is_some() && facts.pattern.is_some()) {
            return self.standing_decision(event, facts);
        }
        if stream.run_id().is_some() {
            return self.signal(event, facts.intent.as_deref(), actor);
        }
        let request_id = facts.event_id.as_str();
        let Some(request) = decision_correlation::decide(&mut self.memory, request_id)? else {
            return self.rule_decision(event, facts);
        };
        let (kind, verdict) = match request.kind.as_str() {
            "permission.request" => ("permission.decision", on_permission(&decision, &source)),
            "stop.request" => ("stop.decision", on_stop(&decision, &source)),
            _ => return Ok(()),
        };
        if kind == "stop.decision" && verdict.decision_type == "block" {
            if let Some(run) = self.state.lifecycle.open_mut() {
                run.counters.blocks += 1;
            }
            self.set_working(ROOT, true);
        }
        let data = ObjectText::new()
            .text("decision_type", verdict.decision_type)
            .text(verdict.field, verdict.words.as_deref());
        let draft = Draft::new(kind, verdict.title, data).by(actor).after(Some(request.event_id));
        let (seq, _) = self.emit(event, draft)?;
        let session_id = self.state.lifecycle.adapter_session_id().to_owned();
        if let Some(row) = self.changes.rows.get_mut(&seq) {
            row.adapter_session_id = session_id;
            row.cause.hook_request_id = Some(request_id.to_owned());
        }
        Ok(())
    }

    /// A decision in a run's own stream asks its runner for something.
    fn signal(&mut self, event: &Incoming<'_>, intent: Option<&str>, actor: &str) -> Result<(), ProjectionError> {
        let decision = event.decision();
        let told = decision.object("intent").unwrap_or_default();
        let data = ObjectText::new()
            .text("signal", intent.unwrap_or("unknown"))
            .text("name", told.text("name").as_deref())
            .raw("data", told.raw("data"))
            .text("by", decision.text("by").as_deref());
        let draft = Draft::new("workflow.signal", signal_title(event, intent), data);
        self.emit(event, draft.level(FeedLevel::Warn).by(actor))?;
        Ok(())
    }
}

/// The title of a signal to a run.
fn signal_title(event: &Incoming<'_>, intent: Option<&str>) -> String {
    let what = match intent.unwrap_or("unknown") {
        "workflow_cancel" => "Cancel requested".to_owned(),
        "workflow_pause" => "Pause requested".to_owned(),
        "workflow_resume" => "Resume requested".to_owned(),
        other => {
            let name = event.decision().object("intent").and_then(|intent| intent.text("name"));
            format!("Signal: {}", name.as_deref().unwrap_or(other))
        }
    };
    text::title(&format!("{} {what}", titles::WORKFLOW))
}

/// What a decision may be shown as: it depends on what it is on.
pub(super) fn titles(event: &Incoming<'_>) -> String {
    let stream = &event.event.stream;
    if let KindFacts::Decision(facts) = &event.event.facts.data {
        if stream.is_rules() || (stream.run_id().is_some() && facts.pattern.is_some()) {
            return relays::standing_title(event, facts).unwrap_or_default();
        }
        if stream.run_id().is_some() {
            return signal_title(event, facts.intent.as_deref());
        }
        if stream.request_id().is_some() || facts.rule.is_some() {
            return relays::decision_title(event, facts);
        }
    }
    let decision = event.decision();
    let source = decision.text("source").unwrap_or_default();
    format!("{}\n{}", on_permission(&decision, &source).title, on_stop(&decision, &source).title)
}

fn on_permission(decision: &Fields<'_>, source: &str) -> Verdict {
    let intent = decision.object("intent").unwrap_or_default();
    match intent.text("kind").as_deref() {
        _ if source == "timeout" => no_opinion("No opinion: ", "timeout"),
        _ if decision.text("type").as_deref() == Some("passthrough") => no_opinion("No opinion: ", source),
        Some("permission_allow") => {
            Verdict { decision_type: "allow", field: "reason", words: None, title: format!("{} Allowed", titles::DONE) }
        }
        Some("permission_deny") => {
            let reason = intent.text("reason");
            let title = format!("{} Denied: {}", titles::FAILED, reason.as_deref().unwrap_or("undefined"));
            Verdict { decision_type: "deny", field: "message", words: reason, title }
        }
        _ => no_opinion("No opinion: ", "unknown"),
    }
}

fn on_stop(decision: &Fields<'_>, source: &str) -> Verdict {
    let data = decision.object("data").unwrap_or_default();
    let reason = data.text("reason");
    let block = |reason: String| {
        let title = format!("{} Blocked: {reason}", titles::STOP);
        Verdict { decision_type: "block", field: "reason", words: Some(reason), title }
    };
    if source == "timeout" {
        Verdict { title: stop_undecided(), ..no_opinion("", "timeout") }
    } else if decision.text("type").as_deref() == Some("passthrough") {
        Verdict { title: stop_undecided(), ..no_opinion("", source) }
    } else if data.text("decision").as_deref() == Some("block") {
        block(reason.or_else(|| decision.text("reason")).unwrap_or_else(|| "Blocked".to_owned()))
    } else if data.bool("ok") == Some(false) {
        block(reason.unwrap_or_else(|| "Blocked by hook".to_owned()))
    } else {
        let title = format!("{} Stop allowed", titles::DONE);
        Verdict { decision_type: "allow", field: "reason", words: None, title }
    }
}

fn stop_undecided() -> String {
    format!("{} Stop: no opinion", titles::UNDECIDED)
}

fn no_opinion(prefix: &str, reason: &str) -> Verdict {
    Verdict {
        decision_type: "no_opinion",
        field: "reason",
        words: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        title: format!("{} {prefix}{reason}", titles::UNDECIDED),
    }
}
