//! Questions that are put through the ledger, what becomes of them, and what rules and standing decisions say.
//!
//! A question and the harness's own request, where it is about one, are one entry, whichever comes first. It outlives the
//! agent's run: nobody forgets what waits.

use runledger_events::{
    DecisionFacts, EXPIRED, KindFacts, ObjectText, RelayQuestion, RelayState, RequestStatus, TimerKind,
};
use serde::{Deserialize, Serialize};

use super::event::FeedLevel;
use super::incoming::Incoming;
use super::mapper::{Draft, Mapper};
use super::memory::Seam;
use super::subagents::{ROOT, actor_of};
use super::{decision_correlation, text, titles, tool_correlation};
use crate::error::ProjectionError;

/// The entry that shows a question.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Shown {
    event_id: String,
    /// The event that it is about.
    about: String,
    is_open: bool,
}

impl Mapper<'_> {
    /// `relay.request`.
    pub(super) fn relay_request(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let Some(request) = RelayState::initial(event.event).map(|state| state.request) else {
            return Ok(());
        };
        let about = request.event_id.as_str();
        let known = decision_correlation::known(&mut self.memory, about)?;
        let entry = match known.filter(|known| known.kind == "permission.request") {
            Some(known) => {
                if let Some(seq) = known.seq() {
                    self.retell(event, seq, None)?;
                }
                known.event_id
            }
            None => {
                if let Some(run) = self.counting_run(event) {
                    run.counters.permission_requests += 1;
                }
                let parent = tool_correlation::parent(&mut self.memory, request.tool_use_id.as_deref())?;
                let actor = event.envelope("agentId").map_or_else(|| ROOT.to_owned(), |id| actor_of(&id));
                let rule = request.rule.as_ref().and_then(|rule| serde_json::to_string(rule).ok());
                let data = ObjectText::new()
                    .text("tool_name", event.tool_name().as_str())
                    .raw("tool_input", event.object_json("tool_input"))
                    .text("tool_use_id", request.tool_use_id.as_deref())
                    .text("request_id", request.request_id.as_str())
                    .text("mode", request.mode.as_str())
                    .raw("due_at", request.due_at.map(|at| at.to_string()).as_deref())
                    .text("pattern", request.pattern.as_deref())
                    .raw("rule", rule.as_deref());
                let draft = Draft::new("permission.request", request_title(event), data).by(actor);
                let (seq, entry) = self.emit(event, draft.of_tool(request.tool_use_id.clone()).after(parent))?;
                self.memory.put(Seam::RelayAbout, about, &seq)?;
                entry
            }
        };
        let shown = Shown { event_id: entry, about: about.to_owned(), is_open: true };
        self.memory.put(Seam::Relay, request.request_id.as_str(), &shown)
    }

    /// Whether a question shows what the harness itself asks with this event.
    pub(super) fn is_shown_by_question(&mut self, event: &Incoming<'_>) -> Result<bool, ProjectionError> {
        let Some(seq) = self.memory.get::<u64>(Seam::RelayAbout, event.id())? else {
            return Ok(false);
        };
        self.retell(event, seq, None)?;
        Ok(true)
    }

    /// A decision in a question's own stream.
    pub(super) fn relay_decision(
        &mut self,
        event: &Incoming<'_>,
        facts: &DecisionFacts,
    ) -> Result<(), ProjectionError> {
        let is_late = facts.decision_type.as_deref() == Some(EXPIRED);
        let Some(id) = event.event.stream.request_id() else {
            return Ok(());
        };
        if !is_late && RequestStatus::of_decision(facts).is_none() {
            return Ok(());
        }
        let Some(mut shown) = self.memory.get::<Shown>(Seam::Relay, id.as_str())? else {
            return Ok(());
        };
        if !is_late {
            if !shown.is_open {
                return Ok(());
            }
            shown.is_open = false;
            self.memory.put(Seam::Relay, id.as_str(), &shown)?;
        }
        let draft = Draft::new("permission.decision", decision_title(event, facts), decision_data(event, facts))
            .level(if is_late { FeedLevel::Warn } else { FeedLevel::Info })
            .by(actor(facts))
            .after(Some(shown.event_id));
        self.emit(event, draft)?;
        Ok(())
    }

    /// `relay.withdrawn`.
    pub(super) fn relay_withdrawn(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let Some(id) = event.event.stream.request_id() else {
            return Ok(());
        };
        let Some(shown) = self.memory.get::<Shown>(Seam::Relay, id.as_str())?.filter(|shown| shown.is_open) else {
            return Ok(());
        };
        self.memory.put(Seam::Relay, id.as_str(), &Shown { is_open: false, ..shown.clone() })?;
        let data = ObjectText::new()
            .text("decision_type", "withdrawn")
            .text("reason", event.text("reason").as_deref())
            .text("request_id", id.as_str());
        self.emit(event, Draft::new("permission.decision", withdrawn_title(event), data).after(Some(shown.event_id)))?;
        Ok(())
    }

    /// A rule's own decision on a call that nobody was asked about.
    pub(super) fn rule_decision(&mut self, event: &Incoming<'_>, facts: &DecisionFacts) -> Result<(), ProjectionError> {
        // A runtime's own rules decide on what it tells of; ours are named, or say that the run is over.
        let is_ours = facts.rule.is_some() || facts.source.as_deref() == Some("run");
        let Some(status) = RequestStatus::of_decision(facts).filter(|_| is_ours) else {
            return Ok(());
        };
        let id = event.text("tool_use_id");
        let parent = tool_correlation::parent(&mut self.memory, id.as_deref())?;
        // What rules allow is most of what an agent does.
        let level = if status == RequestStatus::Allowed { FeedLevel::Debug } else { FeedLevel::Warn };
        let data = decision_data(event, facts).text("tool_name", event.text("tool_name").as_deref());
        let draft = Draft::new("permission.decision", decision_title(event, facts), data);
        self.emit(event, draft.level(level).by("system").of_tool(id).after(parent))?;
        Ok(())
    }

    /// A decision that holds for a run, or for every run of a workflow.
    pub(super) fn standing_decision(
        &mut self,
        event: &Incoming<'_>,
        facts: &DecisionFacts,
    ) -> Result<(), ProjectionError> {
        let Some(title) = standing_title(event, facts) else {
            return Ok(());
        };
        let draft = Draft::new("permission.grant", title, decision_data(event, facts)).by(actor(facts));
        self.emit(event, draft)?;
        Ok(())
    }

    /// `timer.scheduled`, `timer.fired`.
    pub(super) fn timer(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        let (kind, timer) = match &event.event.facts.data {
            KindFacts::TimerScheduled(timer) => ("timer.scheduled", timer),
            KindFacts::TimerFired(timer) => ("timer.fired", timer),
            _ => return Ok(()),
        };
        let Some(title) = timer_title(event).filter(|_| event.event.stream.run_id().is_some()) else {
            return Ok(());
        };
        let data = ObjectText::new()
            .text("timer", timer.timer.as_str())
            .raw("due_at", timer.due_at.to_string().as_str())
            .raw("iteration", timer.iteration.to_string().as_str());
        let is_quiet =
            timer.timer == TimerKind::Delay || kind == "timer.scheduled" && timer.timer == TimerKind::Deadline;
        let level = if is_quiet { FeedLevel::Debug } else { FeedLevel::Info };
        self.emit(event, Draft::new(kind, title, data).level(level))?;
        Ok(())
    }
}

fn actor(facts: &DecisionFacts) -> &'static str {
    if facts.source.as_deref() == Some("user") { "user" } else { "system" }
}

fn decision_data(event: &Incoming<'_>, facts: &DecisionFacts) -> ObjectText {
    let decision_type = match facts.intent.as_deref() {
        _ if facts.decision_type.as_deref() == Some(EXPIRED) => "late",
        Some("permission_allow") => "allow",
        Some("permission_deny") => "deny",
        Some("question_answer") => "answer",
        Some("permission_withdraw") => "withdrawn",
        _ => "no_opinion",
    };
    let intent = event.decision().object("intent").unwrap_or_default();
    let rule = facts.rule.as_ref().and_then(|rule| serde_json::to_string(rule).ok());
    let field = if decision_type == "deny" { "message" } else { "reason" };
    ObjectText::new()
        .text("decision_type", decision_type)
        .text(field, intent.text("reason").as_deref())
        .raw("answers", intent.raw("answers"))
        .text("source", facts.source.as_deref())
        .text("by", facts.by.as_deref())
        .text("scope", facts.scope.as_deref())
        .text("pattern", facts.pattern.as_deref())
        .raw("rule", rule.as_deref())
        .text("request_id", event.text("request_id").as_deref())
}

/// The title of a question.
pub(super) fn request_title(event: &Incoming<'_>) -> String {
    match &event.event.facts.data {
        KindFacts::RelayRequest(request) if request.question == RelayQuestion::Question => {
            format!("{} The agent asks something", titles::WARNING)
        }
        _ => format!("{} Permission: {}", titles::WARNING, event.tool_name()),
    }
}

/// The title of a decision on a question, or of a rule's.
pub(super) fn decision_title(event: &Incoming<'_>, facts: &DecisionFacts) -> String {
    let intent = event.decision().object("intent").unwrap_or_default();
    let who = match (&facts.rule, &facts.by, facts.source.as_deref()) {
        (Some(rule), ..) => format!(" by rule {} ({})", rule.tool, rule.origin.as_str()),
        (None, Some(by), _) => format!(" by {by}"),
        (None, None, Some(source)) => format!(" by {source}"),
        (None, None, None) => String::new(),
    };
    let why = intent.text("reason").map(|reason| format!(": {reason}")).unwrap_or_default();
    let what = match facts.intent.as_deref() {
        Some("permission_allow") => "allowed",
        Some("permission_deny") => "denied",
        Some("question_answer") => "answered",
        _ => "no opinion",
    };
    let reach = match facts.scope.as_deref() {
        Some("run") => " for the run",
        Some("always") => " always",
        _ => "",
    };
    let title = if facts.decision_type.as_deref() == Some(EXPIRED) {
        format!("{} Too late: {what}{who}{why}", titles::UNDECIDED)
    } else if facts.source.as_deref() == Some("timeout") {
        format!("{} Nobody answered in time: {what}", titles::UNDECIDED)
    } else {
        match what {
            "denied" => format!("{} Denied{reach}{who}{why}", titles::FAILED),
            "answered" => format!("{} Answered{who}{why}", titles::DONE),
            "allowed" => format!("{} Allowed{reach}{who}{why}", titles::DONE),
            _ => format!("{} No opinion{who}{why}", titles::UNDECIDED),
        }
    };
    text::title(&title)
}

/// The title of what ends a question without an answer.
pub(super) fn withdrawn_title(event: &Incoming<'_>) -> String {
    let why = event.text("reason").map(|reason| format!(": {reason}")).unwrap_or_default();
    text::title(&format!("{} Needs no answer any more{why}", titles::STOP))
}

/// The title of a decision that holds beyond one call; none for what decides nothing.
pub(super) fn standing_title(event: &Incoming<'_>, facts: &DecisionFacts) -> Option<String> {
    let stream = event.event.stream.as_str();
    let for_whom = match stream.strip_prefix("rules/") {
        Some("") => "for every run without a workflow".to_owned(),
        Some(workflow) => format!("for every run of {workflow}"),
        None => "for the run".to_owned(),
    };
    let pattern = facts.pattern.as_deref();
    let title = match facts.intent.as_deref() {
        Some("permission_allow") => format!("{} Allowed {for_whom}: {}", titles::DONE, pattern?),
        Some("permission_deny") => format!("{} Denied {for_whom}: {}", titles::FAILED, pattern?),
        Some("permission_withdraw") => format!("{} Taken back {for_whom}", titles::STOP),
        _ => return None,
    };
    Some(text::title(&title))
}

/// The title of a timer.
pub(super) fn timer_title(event: &Incoming<'_>) -> Option<String> {
    let what = |timer: TimerKind| match timer {
        TimerKind::Deadline => "Deadline",
        TimerKind::Delay => "Next iteration",
        TimerKind::Backoff => "Next try",
    };
    Some(match &event.event.facts.data {
        KindFacts::TimerScheduled(timer) => {
            let ms = timer.due_at.0.saturating_sub(event.event.occurred_at.0).max(0);
            format!("{} {} in {ms} ms", titles::WORKFLOW, what(timer.timer))
        }
        KindFacts::TimerFired(timer) => format!("{} {} is due", titles::WORKFLOW, what(timer.timer)),
        _ => return None,
    })
}
