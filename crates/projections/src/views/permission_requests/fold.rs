//! What each kind of event does to the rows.
//!
//! | event | what it does |
//! | --- | --- |
//! | `permission.request` | somebody was asked by the harness; the ledger only hears of it |
//! | `relay.request` | a question that its stream, and nothing else, answers |
//! | `decision` in that stream, `relay.withdrawn` | settles it; the first one counts |
//! | `decision` of a session | settles what the harness asked; a rule's own decision is a row too |
//! | `tool.post`, `tool.failure`, `permission.denied` | tell what the harness came to |
//! | the next prompt, a stop, an end | nothing came of what was asked before |

use std::collections::HashSet;

use runledger_events::{
    AskContext, DecisionFacts, EXPIRED, EventKind, Fields, KindFacts, QUESTION_TOOL, RecordedEvent, RelayQuestion,
    RelayState, RequestId, RequestStatus, Source, readable,
};

use super::NAME;
use super::calls::{self, Calls};
use super::contexts::{Belonging, Contexts};
use super::rows::{self, NewRow, Relay, Settled, Settlement};
use crate::error::ProjectionError;
use crate::projection::Target;
use crate::views::sqlite;

/// What the harness came to, with or without somebody's word.
const HARNESS: &str = "harness";
const ROOT: &str = "agent:root";

/// An event's own words.
pub(super) struct Told<'a> {
    event: &'a RecordedEvent,
    fields: Fields<'a>,
    pub(super) data: Fields<'a>,
    pub(super) tool_name: Option<String>,
    pub(super) tool_use_id: Option<String>,
    pub(super) cwd: Option<String>,
}

impl<'a> Told<'a> {
    pub(super) fn new(event: &'a RecordedEvent, text: &'a str) -> Self {
        let fields = Fields::parse(text).unwrap_or_default();
        let data = fields.object("data").unwrap_or_default();
        let (tool_name, tool_use_id) = match &event.facts.data {
            KindFacts::Tool { tool_name, tool_use_id, .. } | KindFacts::Permission { tool_name, tool_use_id } => {
                (tool_name.clone(), tool_use_id.clone())
            }
            KindFacts::RelayRequest(request) => (request.tool_name.clone(), request.tool_use_id.clone()),
            _ => (data.text("tool_name"), data.text("tool_use_id")),
        };
        let context_cwd = fields.object("context").and_then(|context| context.text("cwd"));
        let cwd = context_cwd.or_else(|| data.text("cwd"));
        Self { event, fields, data, tool_name, tool_use_id: tool_use_id.filter(|id| !id.is_empty()), cwd }
    }

    pub(super) fn session_id(&self) -> &'a str {
        self.event.metadata.session_id.as_ref().map_or("", |id| id.as_str())
    }

    /// JSON text.
    pub(super) fn tool_input(&self) -> Option<&'a str> {
        self.data.raw("tool_input")
    }

    fn adapter(&self) -> Option<&'a str> {
        self.event.metadata.adapter_session_id.as_ref().map(|id| id.as_str())
    }

    /// The row that this event, or the call that it is about, asks for.
    fn row(&self, event_id: &str, call: Option<&calls::Call>, belonging: Option<Belonging>) -> NewRow {
        let facts = &self.event.facts;
        let of_call = |told: &Option<String>, known: fn(&calls::Call) -> Option<String>| {
            told.clone().or_else(|| call.and_then(known))
        };
        let tool_name = of_call(&self.tool_name, |call| call.tool_name.clone());
        let tool_use_id = of_call(&self.tool_use_id, |call| Some(call.tool_use_id.clone()));
        NewRow {
            session_id: self.session_id().to_owned(),
            event_id: event_id.to_owned(),
            request_id: request_id(self.adapter(), tool_use_id.as_deref(), event_id),
            position: self.event.position,
            event_position: call.map(|call| call.position),
            tool_use_id,
            adapter_session_id: self.adapter().map(str::to_owned),
            belonging,
            agent_id: of_call(&facts.agent_id, |call| call.agent_id.clone()),
            agent_type: of_call(&facts.agent_type, |call| call.agent_type.clone()),
            question: match tool_name.as_deref() {
                Some(QUESTION_TOOL) => RelayQuestion::Question,
                _ => RelayQuestion::Permission,
            },
            tool_name,
            tool_input: self.tool_input().map(str::to_owned),
            cwd: of_call(&self.cwd, |call| call.cwd.clone()),
            asked_at: self.event.occurred_at,
            rule: None,
            relay: None,
        }
    }
}

/// The name of what was asked, as a question of the same call would have it.
fn request_id(adapter: Option<&str>, tool_use_id: Option<&str>, event_id: &str) -> String {
    let name = tool_use_id.unwrap_or(event_id);
    let whole = adapter.map(|adapter| format!("{adapter}:{name}"));
    // Two names of the greatest length are longer than one may be.
    whole.filter(|id| RequestId::new(id.as_str()).is_ok()).unwrap_or_else(|| name.to_owned())
}

/// What the fold keeps.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) contexts: Contexts,
    pub(super) calls: Calls,
    /// Adapter sessions that somebody was asked in; none where rows were there before this fold.
    asked_in: Option<HashSet<String>>,
    /// Whether that was looked up.
    is_begun: bool,
}

impl Kept {
    /// Looks into the table, once.
    pub(super) fn begin(&mut self, target: &Target<'_>) -> Result<(), ProjectionError> {
        if !self.is_begun {
            let is_empty = rows::is_empty(target).map_err(|source| sqlite(target, NAME, &source))?;
            self.asked_in = is_empty.then(HashSet::new);
            self.is_begun = true;
        }
        Ok(())
    }
}

/// Makes a row.
fn put(target: &Target<'_>, kept: &mut Kept, row: &NewRow) -> Result<(), ProjectionError> {
    if let (Some(asked_in), Some(adapter)) = (&mut kept.asked_in, &row.adapter_session_id)
        && !asked_in.contains(adapter)
    {
        asked_in.insert(adapter.clone());
    }
    rows::put(target, row)
}

/// Settles rows of an adapter session, unless nobody was ever asked in it: in most nobody is.
fn settle_asked(
    target: &Target<'_>,
    kept: &Kept,
    adapter: &str,
    which: &Settled<'_>,
    settlement: impl FnOnce() -> Settlement,
) -> Result<(), ProjectionError> {
    match &kept.asked_in {
        Some(asked_in) if !asked_in.contains(adapter) => Ok(()),
        _ => rows::settle(target, which, &settlement()),
    }
}

/// Takes one event.
pub(super) fn take(target: &Target<'_>, kept: &mut Kept, event: &RecordedEvent) -> Result<(), ProjectionError> {
    use EventKind as K;
    let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
    if event.stream.run_id().is_some() {
        if let Some(linked) = kept.contexts.take(target, event)? {
            rows::link(target, &linked).map_err(failed)?;
        }
        return Ok(());
    }
    if event.kind == K::ToolPre {
        return kept.calls.begin(target, event).map_err(failed);
    }
    let text = match event.kind {
        K::PermissionRequest | K::PermissionDenied | K::RelayRequest | K::Decision => {
            readable(event.content.json().unwrap_or("{}"))
        }
        _ => "{}".into(),
    };
    let told = Told::new(event, &text);
    match &event.kind {
        K::PermissionRequest => requested(target, kept, &told),
        K::RelayRequest => relayed(target, kept, &told),
        K::RelayWithdrawn => withdrawn(target, event),
        K::Decision => decided(target, kept, &told),
        K::ToolPost | K::ToolFailure => ran(target, kept, &told),
        K::PermissionDenied => denied(target, kept, &told),
        K::UserPrompt | K::StopRequest | K::TurnComplete | K::SubagentStop | K::SessionEnd => {
            passed(target, kept, &told)
        }
        _ => Ok(()),
    }
}

fn requested(target: &Target<'_>, kept: &mut Kept, told: &Told<'_>) -> Result<(), ProjectionError> {
    let event = told.event;
    let call = match &told.tool_use_id {
        Some(_) => None,
        None => kept.calls.asked_for(target, event, told).map_err(|source| sqlite(target, NAME, &source))?,
    };
    let row = told.row(event.id.as_str(), call.as_ref(), kept.contexts.of(target, event)?);
    put(target, kept, &NewRow { event_position: Some(event.position), rule: kept.contexts.rule(&row), ..row })
}

fn relayed(target: &Target<'_>, kept: &mut Kept, told: &Told<'_>) -> Result<(), ProjectionError> {
    let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
    let event = told.event;
    let Some(state) = RelayState::initial(event) else {
        return Ok(());
    };
    let request = state.request;
    let asked_about = request.event_id.as_str();
    let call = kept.calls.begun_by(target, told.session_id(), asked_about).map_err(failed)?;
    let belonging = match &request.context {
        Some(context) => Some(Belonging::of(context.clone())),
        None => kept.contexts.of(target, event)?,
    };
    let known = rows::find(target, told.session_id(), asked_about).map_err(failed)?;
    let is_taken = known.flatten().is_some_and(|id| id != request.request_id.as_str());
    // Another question about the same event does not take the place of the first.
    let event_id = if is_taken { event.id.as_str() } else { asked_about };
    put(
        target,
        kept,
        &NewRow {
            request_id: request.request_id.to_string(),
            question: request.question,
            rule: request.rule,
            relay: Some(Relay {
                mode: request.mode,
                on_timeout: request.on_timeout,
                due_at: request.due_at,
                pattern: request.pattern,
                log_id: request.log_id,
            }),
            ..told.row(event_id, call.as_ref(), belonging)
        },
    )
}

fn withdrawn(target: &Target<'_>, event: &RecordedEvent) -> Result<(), ProjectionError> {
    let (KindFacts::RelayWithdrawn(withdrawn), Some(id)) = (&event.facts.data, event.stream.request_id()) else {
        return Ok(());
    };
    let settlement = Settlement {
        status: Some(RequestStatus::Withdrawn),
        at: event.occurred_at,
        position: event.position,
        reason: withdrawn.reason.clone(),
        ..Settlement::default()
    };
    rows::settle(target, &Settled::Question(id.as_str()), &settlement)
}

fn decided(target: &Target<'_>, kept: &mut Kept, told: &Told<'_>) -> Result<(), ProjectionError> {
    let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
    let event = told.event;
    let KindFacts::Decision(facts) = &event.facts.data else {
        return Ok(());
    };
    let question = event.stream.request_id();
    if let (Some(id), Some(EXPIRED)) = (&question, facts.decision_type.as_deref()) {
        return rows::count_late(target, id.as_str()).map_err(failed);
    }
    let Some(status) = RequestStatus::of_decision(facts) else {
        return Ok(());
    };
    let settlement = settlement(told, facts, status);
    if let Some(id) = question {
        return rows::settle(target, &Settled::Question(id.as_str()), &settlement);
    }
    if event.stream.is_rules() {
        return Ok(());
    }
    let (session_id, event_id) = (told.session_id(), facts.event_id.as_str());
    // A runtime's own rules decide on what it tells of; ours are named.
    if facts.rule.is_some() && rows::find(target, session_id, event_id).map_err(failed)?.is_none() {
        let call = kept.calls.begun_by(target, session_id, event_id).map_err(failed)?;
        let context: Option<AskContext> = told.data.raw("context").and_then(|json| serde_json::from_str(json).ok());
        let belonging = match context {
            Some(context) => Some(Belonging::of(context)),
            None => kept.contexts.of(target, event)?,
        };
        put(target, kept, &told.row(event_id, call.as_ref(), belonging))?;
    }
    rows::settle(target, &Settled::Event { session_id, event_id }, &settlement)
}

fn settlement(told: &Told<'_>, facts: &DecisionFacts, status: RequestStatus) -> Settlement {
    // A decision line has its decision beside `eventId`, without `data`.
    let decision = told.fields.object("decision").or_else(|| told.data.object("decision")).unwrap_or_default();
    let intent = decision.object("intent").unwrap_or_default();
    Settlement {
        status: Some(status),
        at: told.event.occurred_at,
        position: told.event.position,
        by: facts.by.clone(),
        via: facts.source.clone(),
        intent: facts.intent.clone(),
        reason: intent.text("reason"),
        answers: intent.raw("answers").map(str::to_owned),
        scope: facts.scope.clone(),
        pattern: facts.pattern.clone(),
        rule: facts.rule.clone(),
    }
}

fn of_harness(event: &RecordedEvent, status: RequestStatus) -> Settlement {
    let intent = match status {
        RequestStatus::Allowed => Some("permission_allow".to_owned()),
        RequestStatus::Denied => Some("permission_deny".to_owned()),
        _ => None,
    };
    Settlement {
        status: Some(status),
        at: event.occurred_at,
        position: event.position,
        via: Some(HARNESS.to_owned()),
        intent,
        ..Settlement::default()
    }
}

/// A call is over, so it was allowed. That one failed is no sign of it where output or record tell it: a call that was
/// denied fails there too.
fn ran(target: &Target<'_>, kept: &mut Kept, told: &Told<'_>) -> Result<(), ProjectionError> {
    let event = told.event;
    let (Some(adapter), Some(tool_use_id)) = (&event.metadata.adapter_session_id, told.tool_use_id.as_deref()) else {
        return Ok(());
    };
    kept.calls.end(target, adapter, tool_use_id).map_err(|source| sqlite(target, NAME, &source))?;
    let is_of_copy = matches!(Source::of(&event.id), Source::Stream | Source::Transcript);
    if event.kind == EventKind::ToolFailure && is_of_copy {
        return Ok(());
    }
    let adapter = adapter.as_str();
    let settled = Settled::Call { adapter, tool_use_id };
    settle_asked(target, kept, adapter, &settled, || of_harness(event, RequestStatus::Allowed))
}

fn denied(target: &Target<'_>, kept: &mut Kept, told: &Told<'_>) -> Result<(), ProjectionError> {
    let (Some(adapter), Some(tool_use_id)) = (told.adapter(), told.tool_use_id.as_deref()) else {
        return Ok(());
    };
    let settlement =
        || Settlement { reason: told.data.text("reason"), ..of_harness(told.event, RequestStatus::Denied) };
    settle_asked(target, kept, adapter, &Settled::Call { adapter, tool_use_id }, settlement)
}

/// What was asked before and not answered needs no answer any more. A record that is read afterwards tells of what was
/// long before.
fn passed(target: &Target<'_>, kept: &mut Kept, told: &Told<'_>) -> Result<(), ProjectionError> {
    let event = told.event;
    let told_in = event.metadata.adapter_session_id.as_ref();
    let Some(adapter) = told_in.filter(|_| Source::of(&event.id) != Source::Transcript) else {
        return Ok(());
    };
    let subagent = match &event.facts.data {
        KindFacts::Subagent { agent_id, .. } => agent_id.as_ref().or(event.facts.agent_id.as_ref()),
        _ => None,
    };
    let actor = match (&event.kind, subagent) {
        (EventKind::SessionEnd, _) => None,
        (EventKind::SubagentStop, Some(id)) => Some(format!("subagent:{id}")),
        (EventKind::SubagentStop, None) => return Ok(()),
        // Subagents may be at work beside the main agent, whose turn this is.
        _ => Some(ROOT.to_owned()),
    };
    if actor.is_none() {
        kept.calls.end_all(target, adapter).map_err(|source| sqlite(target, NAME, &source))?;
    }
    let adapter = adapter.as_str();
    let settled = Settled::Unsettled { adapter, actor: actor.as_deref() };
    settle_asked(target, kept, adapter, &settled, || of_harness(event, RequestStatus::Withdrawn))
}
