//! What can be done: decide a request, cancel a run, signal it, fork it. Each is one command, from this process as from any other.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use runledger_events::Position;
use runledger_projections::PermissionRequest;
use runledger_store::{EventFilter, Read, Receipt};
use runledger_workflow::{
    CommandError, ForkError, ForkPoint, GrantScope, RelayAnswer, RelayVerdict, Signal, VerdictSource, current_user,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::asking::{Asking, run_of};
use super::lists::{Acted, ForkedRun, Lined};
use crate::actions::{refused, see};
use crate::cancelling::{CancelError, cancel_all};
use crate::failure::Failure;
use crate::jobs::{Job, Jobs};
use crate::ledger::Opened;

/// Requests that are named in a message, at the most.
const NAMED_MAX: usize = 5;

/// What is decided.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// It may be done; a question is answered.
    Allow,
    /// It may not.
    Deny,
}

/// How far a decision reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// This call.
    #[default]
    Once,
    /// Such calls in this run.
    Run,
    /// Such calls in every run of this workflow.
    Always,
}

/// What somebody decides.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    verdict: Verdict,
    /// Why; the agent is told. A denial needs one.
    reason: Option<String>,
    #[serde(default)]
    scope: Scope,
    /// The calls that it holds for, where it reaches beyond this one.
    pattern: Option<String>,
    /// The answers to a question of the agent, by the question's text, its header or its number.
    #[serde(default)]
    answers: BTreeMap<String, String>,
}

pub(crate) fn decide(asking: &Asking<'_, Decision>) -> Result<PermissionRequest, Failure> {
    let Asking { opened, name, asked, .. } = asking;
    let request = one_question(opened, name)?;
    let decided = opened.commands()?.decide(&request.request_id, &asked.verdict()?).map_err(refused)?;
    see(opened, Some(decided.settled.position));
    one_question(opened, request.request_id.as_str())
}

impl Decision {
    fn verdict(&self) -> Result<RelayVerdict, Failure> {
        let reason = self.reason.clone().filter(|reason| !reason.trim().is_empty());
        if self.pattern.is_some() && self.scope == Scope::Once {
            let next = "say how far it reaches: `scope` is run or always";
            return Err(Failure::bad_request("a pattern says nothing of this call alone", next));
        }
        let answer = match self.verdict {
            Verdict::Deny if reason.is_none() => {
                return Err(Failure::bad_request("a denial needs a reason", "the agent is told why: give `reason`"));
            }
            Verdict::Deny if !self.answers.is_empty() => {
                return Err(Failure::bad_request("a denial answers nothing", "leave `answers` out, or allow"));
            }
            Verdict::Deny => RelayAnswer::Deny,
            Verdict::Allow if self.answers.is_empty() => RelayAnswer::Allow,
            Verdict::Allow => RelayAnswer::Answers(self.answers.clone().into_iter().collect()),
        };
        let scope = match self.scope {
            Scope::Once => GrantScope::Once,
            Scope::Run => GrantScope::Run,
            Scope::Always => GrantScope::Always,
        };
        let by = Some(current_user());
        Ok(RelayVerdict { answer, reason, scope, pattern: self.pattern.clone(), source: VerdictSource::User, by })
    }
}

/// The one request of this name that somebody waits for through the ledger.
fn one_question(opened: &Opened, name: &str) -> Result<PermissionRequest, Failure> {
    let found = opened.queries.requests_named(name)?;
    let is_known = !found.is_empty();
    let mut questions: Vec<_> = found.into_iter().filter(|request| request.mode.is_some()).collect();
    let count = questions.len();
    match (questions.pop(), count) {
        (Some(request), 1) => Ok(request),
        (None, _) if is_known => {
            let next = "decide it where it was asked";
            let error = format!("nobody waits for a decision on request {name} through the ledger");
            Err(Failure::new(StatusCode::CONFLICT, error, next))
        }
        (None, _) => {
            let next = "/api/v1/permissions lists those that wait";
            Err(Failure::not_found(format!("there is no request {name}"), next))
        }
        (Some(last), _) => {
            let shown = questions.iter().chain([&last]).take(NAMED_MAX).map(|request| request.position.to_string());
            let next = format!("name one by its position: {}", shown.collect::<Vec<_>>().join(", "));
            Err(Failure::bad_request(format!("{name} fits {count} requests"), next))
        }
    }
}

/// Nothing more is said.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancel {}

pub(crate) fn cancel(asking: &Asking<'_, Cancel>) -> Result<Acted, Failure> {
    let opened = asking.opened;
    let (run, _) = run_of(opened, asking.name)?;
    let cancelled = cancel_all(&opened.commands()?, &opened.queries, &run.id, &current_user());
    let receipts = cancelled.map_err(|error| match error {
        CancelError::Command(error) => not_done(error),
        CancelError::Read(error) => error.into(),
    })?;
    acted(opened, &receipts.1)
}

/// What a run is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Told {
    /// `pause`, `resume`, or any other word.
    name: String,
    /// What belongs to it; `pause` and `resume` take none.
    data: Option<serde_json::Value>,
}

pub(crate) fn signal(asking: &Asking<'_, Told>) -> Result<Acted, Failure> {
    let Asking { opened, asked, .. } = asking;
    let refuse = |error: &str, next: &str| Err(Failure::bad_request(error, next));
    match (asked.name.as_str(), &asked.data) {
        (name, _) if name.trim().is_empty() => {
            return refuse("a signal needs a name", "it is pause, resume, or any other word");
        }
        ("cancel", _) => return refuse("a run is not cancelled by a signal", "POST to …/cancel"),
        ("pause" | "resume", Some(_)) => return refuse("pause and resume take no data", "leave `data` out"),
        _ => {}
    }
    let (run, _) = run_of(opened, asking.name)?;
    let signal = Signal::of(&asked.name, asked.data.as_ref().map(ToString::to_string));
    let receipt = opened.commands()?.signal(&run.id, &signal, &current_user()).map_err(not_done)?;
    acted(opened, &[receipt])
}

/// Where a run is forked: one of both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fork {
    /// As it stood at this position.
    at: Option<Position>,
    /// As this iteration left it.
    iteration: Option<u32>,
}

pub(crate) fn fork(asking: &Asking<'_, Fork>) -> Result<ForkedRun, Failure> {
    let Asking { opened, asked, .. } = asking;
    let point = match (asked.at, asked.iteration) {
        (Some(at), None) => ForkPoint::Position(at),
        (None, Some(iteration)) => ForkPoint::Iteration(iteration),
        _ => return Err(Failure::bad_request("it is not said where to fork", "give one of `at` and `iteration`")),
    };
    let (run, _) = run_of(opened, asking.name)?;
    let forked = opened.commands()?.fork(&run.id, point).map_err(|error| match error {
        ForkError::Read(_) | ForkError::Append(_) => Failure::unavailable(error),
        error => Failure::new(StatusCode::CONFLICT, error.to_string(), "choose another point of the run"),
    })?;
    let Acted { events } = acted(opened, &forked.receipts)?;
    Ok(ForkedRun {
        run_id: forked.run_id,
        session_id: forked.session_id,
        forked_at: forked.forked_at,
        iteration: forked.iteration,
        tracker: forked.tracker.map(|path| path.display().to_string()),
        events,
    })
}

/// What is built again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rebuild {
    /// The read models; all where none is named.
    #[serde(default)]
    projections: Vec<String>,
    /// Leave streams out from an event on that cannot be read, where the rebuild would stop at it.
    #[serde(default)]
    park: bool,
}

pub(crate) fn rebuild(asking: &Asking<'_, Rebuild>) -> Result<Job, Failure> {
    // What a server that only reads may not do either: its readers would wait for the rows to be written.
    asking.opened.commands()?;
    Jobs::rebuild(&asking.app.jobs, &asking.app.ledger, &asking.asked.projections, asking.asked.park)
}

/// What is checked: everything.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verify {}

pub(crate) fn verify(asking: &Asking<'_, Verify>) -> Result<Job, Failure> {
    // It brings the read models to the log's head first.
    asking.opened.commands()?;
    Jobs::verify(&asking.app.jobs, &asking.app.ledger)
}

/// Why a run was not told.
pub(crate) fn not_done(error: CommandError) -> Failure {
    match error {
        CommandError::Unknown { .. } => Failure::not_found(error.to_string(), "/api/v1/runs lists them"),
        CommandError::Over { .. } => {
            Failure::new(StatusCode::CONFLICT, error.to_string(), "a run that is over is told nothing; fork it")
        }
        CommandError::Event(_) | CommandError::ReadBack(_) => {
            Failure::bad_request(error.to_string(), "change what the run is told")
        }
        error => Failure::unavailable(error),
    }
}

/// The events of these receipts, once the read models have them.
fn acted(opened: &Opened, receipts: &[Receipt]) -> Result<Acted, Failure> {
    see(opened, receipts.iter().map(|receipt| receipt.position).max());
    opened.read(|reader| {
        let mut events = Vec::new();
        for Receipt { position, .. } in receipts {
            let before = Position(position.0.saturating_sub(1));
            let batch = reader.read(&EventFilter::default(), before, *position, 1, Read::All)?;
            events.extend(batch.events.into_iter().map(Lined::whole));
        }
        Ok(Acted { events })
    })
}
