//! What the rules of a run say of a call, before anything of it is written.
//!
//! Invariants: a session without a run, or a run without rules, is left alone; where there may be rules and they cannot
//! be known, that is said.

use std::path::Path;

use runledger_events::{
    AdapterSessionId, AppliedRule, AskContext, EventKind, ObjectText, OnTimeout, RuleAction, RuleOrigin, RunId,
    RuntimeEvent,
};
use runledger_store::{LogReader, ReadError, SpoolRecord};
use runledger_workflow::{RunContext, find_run};

use super::answer::Answer;
use super::call::{HookCall, variable};
use super::place::Place;
use crate::ledger::LedgerArg;
use crate::spools::Spools;

/// What is to be answered.
pub(crate) enum Verdict {
    /// Nothing: the client decides as it would have without us.
    NoOpinion,
    /// There may be rules, and they cannot be known.
    Unknown { call: Box<HookCall>, why: String },
    /// A rule decides.
    Ruled { call: Box<HookCall>, answer: Answer, decision: Box<SpoolRecord> },
    /// Somebody is asked.
    Ask(Box<Question>),
}

/// A question that a call leads to.
pub(crate) struct Question {
    pub(crate) call: HookCall,
    pub(crate) context: RunContext,
    /// The rule that has it asked; none for what an agent asks its user.
    pub(crate) rule: Option<AppliedRule>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) on_timeout: OnTimeout,
}

/// What is answered, and the reader that it was read with: while the file is open, opening it again costs less.
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) reader: Option<LogReader>,
}

/// Judges the call that an event tells of. `fails_closed`: what cannot be known is worth a word where no run is named.
pub(crate) fn judge(place: &Place, spools: &Spools, record: &SpoolRecord, fails_closed: bool) -> Judged {
    let nothing = |reader| Judged { verdict: Verdict::NoOpinion, reader };
    let Some(mut call) = HookCall::of(record) else {
        return nothing(None);
    };
    let path = &place.path;
    let reader = match open(path, spools) {
        Ok(reader) => reader,
        // Of a session that names no run nothing says that there are rules.
        Err(_) if record.run_id.is_none() && !fails_closed => return nothing(None),
        Err(why) => return Judged { verdict: Verdict::Unknown { call: Box::new(call), why }, reader: None },
    };
    let found = match (&reader, &record.run_id) {
        (Some(reader), _) => find(path, reader, record),
        (None, Some(run_id)) => Err(not_there(path, run_id)),
        (None, None) => Ok(None),
    };
    let verdict = match found {
        Ok(None) => Verdict::NoOpinion,
        Ok(Some(context)) => {
            call.call.state = context.state.state;
            call.call.iteration = context.state.iteration;
            if let Some(folder) = context.project_dir.as_ref().and_then(|folder| folder.to_str()) {
                call.call.project_dir = folder.to_owned();
            }
            by_rules(call, context, record)
        }
        Err(why) => Verdict::Unknown { call: Box::new(call), why },
    };
    Judged { verdict, reader }
}

/// The ledger, where there is one, or never was.
fn open(path: &Path, spools: &Spools) -> Result<Option<LogReader>, String> {
    if !path.exists() && !spools.ledger_was_there() {
        return Ok(None);
    }
    LogReader::open(path).map(Some).map_err(|error| error.to_string())
}

/// The run that the call belongs to, where it has rules.
fn find(path: &Path, reader: &LogReader, record: &SpoolRecord) -> Result<Option<RunContext>, String> {
    let named = record.run_id.as_ref();
    let words = |error: ReadError| error.to_string();
    let Some(run_id) = find_run(reader, named, record.event.adapter_session_id()).map_err(words)? else {
        return Ok(None);
    };
    let Some(context) = RunContext::read(reader, &run_id).map_err(words)? else {
        return if named.is_some() { Err(not_there(path, &run_id)) } else { Ok(None) };
    };
    // A session of a run that has ended may go on without it; what the run's own environment names is still its own.
    let is_over = named.is_none() && context.state.status.is_final();
    match context.policy() {
        Some(policy) if !is_over => policy.check().map_err(|error| format!("run {run_id}: {error}"))?,
        _ => return Ok(None),
    }
    Ok(Some(context))
}

/// Why nothing is known of a run that is named: its rules may be anything.
fn not_there(path: &Path, run_id: &RunId) -> String {
    let other = variable("RUNLEDGER_DB").and_then(|other| LedgerArg::new(Some(other.into())).path().ok());
    let other = other.and_then(|other| std::path::absolute(other).ok());
    match other.filter(|other| other != path) {
        Some(other) => format!(
            "run {run_id} is in {}, and this hook was installed with `--db {}`: install it again without `--db`",
            other.display(),
            path.display()
        ),
        None => format!("RUNLEDGER_RUN_ID names run {run_id}, which is not in {}", path.display()),
    }
}

fn by_rules(call: HookCall, context: RunContext, record: &SpoolRecord) -> Verdict {
    let policy = context.policy().cloned().unwrap_or_default();
    let Some(ruling) = policy.ruling(&call.call, context.grants(), &context.standing) else {
        let (timeout_ms, on_timeout) = (policy.ask_timeout_ms(None), policy.on_timeout(None));
        return match call.is_question() {
            true => asked(Question { call, context, rule: None, timeout_ms, on_timeout }, record),
            false => Verdict::NoOpinion,
        };
    };
    let is_allowed = match ruling.action {
        RuleAction::Ask => {
            let (timeout_ms, on_timeout) = (ruling.ask_timeout_ms, ruling.on_timeout);
            return asked(Question { call, context, rule: Some(ruling.rule), timeout_ms, on_timeout }, record);
        }
        // Whoever allows a question lets the client ask it.
        RuleAction::Allow if call.is_question() => return Verdict::NoOpinion,
        RuleAction::Allow => true,
        RuleAction::Deny => false,
    };
    let of_ask = context.ask_context();
    let reason = words(&ruling.rule, if is_allowed { "allowed" } else { "denied" }, &of_ask);
    let answer =
        if is_allowed { Answer::Allow { reason: Some(reason), updated_input: None } } else { Answer::Deny { reason } };
    let said = Said { is_allowed, reason: ruling.rule.reason.as_deref(), rule: Some(&ruling.rule) };
    ruled(call.clone(), answer, decision(&call, record, &of_ask, &said))
}

/// Puts a question, but for one of a run that is over: its runner, who would have shown it, is gone, and whoever answers
/// a person's client in a terminal is there anyway.
fn asked(question: Question, record: &SpoolRecord) -> Verdict {
    let Question { call, context, rule, .. } = &question;
    let status = context.state.status;
    if !status.is_final() || call.is_attended {
        return Verdict::Ask(Box::new(question));
    }
    let reason = format!("run {} is {status}: nobody is asked for it any more", context.state.run_id);
    let said = Said { is_allowed: false, reason: Some(&reason), rule: rule.as_ref() };
    let decision = decision(call, record, &context.ask_context(), &said);
    ruled(question.call, Answer::Deny { reason }, decision)
}

fn ruled(call: HookCall, answer: Answer, decision: Result<SpoolRecord, String>) -> Verdict {
    match decision {
        Ok(decision) => Verdict::Ruled { call: Box::new(call), answer, decision: Box::new(decision) },
        Err(why) => Verdict::Unknown { call: Box::new(call), why },
    }
}

/// Why, in words: the rule's own, else which rule it is.
pub(crate) fn words(rule: &AppliedRule, done: &str, context: &AskContext) -> String {
    let AppliedRule { number, tool, .. } = rule;
    match (&rule.reason, rule.origin) {
        (Some(reason), _) => reason.clone(),
        (None, RuleOrigin::Run) => format!("{done} for this run: {tool}"),
        (None, RuleOrigin::Always) => format!("{done} for every run of the workflow: {tool}"),
        (None, RuleOrigin::Workflow) => {
            let name = context.workflow_name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
            format!("{done} by rule {number} of the workflow{name}: {tool}")
        }
    }
}

/// What is said of a call without asking anybody.
struct Said<'a> {
    is_allowed: bool,
    reason: Option<&'a str>,
    rule: Option<&'a AppliedRule>,
}

/// A decision that nobody was asked for, as an event of the session behind the one that tells of the call.
fn decision(
    call: &HookCall,
    record: &SpoolRecord,
    context: &AskContext,
    said: &Said<'_>,
) -> Result<SpoolRecord, String> {
    let failed = |error: serde_json::Error| format!("a decision cannot be written as JSON: {error}");
    let rule_json = said.rule.map(serde_json::to_string).transpose().map_err(failed)?;
    let context_json = serde_json::to_string(context).map_err(failed)?;
    let kind = if said.is_allowed { "permission_allow" } else { "permission_deny" };
    let intent = ObjectText::new().text("kind", kind).text("reason", said.reason).finish();
    let decision = ObjectText::new()
        .text("type", "json")
        .text("source", if said.rule.is_some() { "rule" } else { "run" })
        .raw("intent", intent.as_str())
        .raw("rule", rule_json.as_deref())
        .finish();
    let data = ObjectText::new()
        .text("eventId", call.event_id.as_str())
        .raw("decision", decision.as_str())
        .text("tool_name", call.call.tool_name.as_str())
        .text("tool_use_id", call.tool_use_id.as_deref())
        .raw("tool_input", call.call.tool_input.as_str())
        .raw("context", context_json.as_str())
        .finish();
    let json = ObjectText::new()
        .text("id", uuid::Uuid::now_v7().to_string().as_str())
        .raw("timestamp", (record.arrived_at_ns / 1_000_000).to_string().as_str())
        .text("kind", EventKind::Decision.as_str())
        .text("sessionId", call.adapter_session_id.as_ref().map(AdapterSessionId::as_str))
        .text("agentId", call.call.agent_id.as_deref())
        .text("agentType", call.call.agent_type.as_deref())
        .raw("data", data.as_str())
        .finish();
    let event = RuntimeEvent::from_json(&json).map_err(|error| format!("a decision does not read back: {error}"))?;
    let SpoolRecord { arrived_at_ns, session_id, .. } = record.clone();
    Ok(SpoolRecord { arrived_at_ns, session_id, run_id: Some(context.run_id.clone()), event })
}
