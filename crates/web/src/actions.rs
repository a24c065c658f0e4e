//! What a page can do: decide a request, cancel a run, fork one. Each is one command, from this process as from any other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use runledger_events::{Position, readable};
use runledger_workflow::{
    CommandError, DecideError, ForkPoint, GrantScope, RelayAnswer, RelayVerdict, UserQuestion, VerdictSource,
    current_user,
};
use serde::Deserialize;

use crate::cancelling::{CancelError, cancel_all};
use crate::failure::Failure;
use crate::guard::OwnForm;
use crate::jobs::{Job, Jobs};
use crate::ledger::Opened;
use crate::pages::event::position_of;
use crate::pages::permissions::one;
use crate::pages::run::one_run;
use crate::server::App;
use crate::show;

/// How long an action waits for the read models, so that the page behind it shows what it did.
const SEEN: Duration = Duration::from_secs(2);

/// What somebody decides.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Decision {
    verdict: String,
    reason: String,
    scope: String,
    pattern: String,
    /// The answers to a question, by its number: `answer_1`, …
    #[serde(flatten)]
    answers: BTreeMap<String, String>,
}

pub(crate) async fn decide(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    OwnForm(decision): OwnForm<Decision>,
) -> Result<Redirect, Failure> {
    let position = app.ledger.ask(move |opened| decide_one(opened, &name, &decision)).await?;
    Ok(Redirect::to(&format!("/permissions/{position}")))
}

/// Decides the request that a name fits; gives its position.
pub(crate) fn decide_one(opened: &Opened, name: &str, decision: &Decision) -> Result<Position, Failure> {
    let request = one(opened, name)?.request;
    let verdict = decision.verdict(request.tool_input.as_ref().map(|input| input.get()))?;
    let decided = opened.commands()?.decide(&request.request_id, &verdict).map_err(refused)?;
    see(opened, Some(decided.settled.position));
    Ok(request.position)
}

impl Decision {
    fn verdict(&self, input: Option<&str>) -> Result<RelayVerdict, Failure> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let scope = match self.scope.as_str() {
            "" => GrantScope::Once,
            word => GrantScope::parse(word).ok_or_else(|| {
                Failure::bad_request(format!("there is no scope {word}"), "it is once, run or always")
            })?,
        };
        let questions = input.map(|input| UserQuestion::of_input(&readable(input))).unwrap_or_default();
        let answer = match self.verdict.as_str() {
            "allow" if questions.is_empty() => RelayAnswer::Allow,
            "allow" => {
                let answers = questions.iter().enumerate().filter_map(|(index, question)| {
                    let answer = self.answers.get(&format!("answer_{}", index + 1)).and_then(|answer| given(answer))?;
                    Some((question.question.clone(), answer))
                });
                RelayAnswer::Answers(answers.collect())
            }
            "deny" if given(&self.reason).is_none() => {
                return Err(Failure::bad_request(
                    "a denial needs a reason",
                    "the agent is told why: write it, and deny again",
                ));
            }
            "deny" => RelayAnswer::Deny,
            word => return Err(Failure::bad_request(format!("there is no verdict {word}"), "it is allow or deny")),
        };
        let pattern = given(&self.pattern);
        if pattern.is_some() && scope == GrantScope::Once {
            let next = "say how far it reaches: for this run, or always";
            return Err(Failure::bad_request("a pattern says nothing of this call alone", next));
        }
        let by = Some(current_user());
        Ok(RelayVerdict { answer, reason: given(&self.reason), scope, pattern, source: VerdictSource::User, by })
    }
}

/// Why a decision does not count.
pub(crate) fn refused(error: DecideError) -> Failure {
    let conflict = |error: DecideError, next: &str| Failure::new(StatusCode::CONFLICT, error.to_string(), next);
    match error {
        DecideError::AlreadyDecided { .. } | DecideError::Withdrawn { .. } => {
            conflict(error, "look at the request: it says who decided, and how")
        }
        DecideError::Expired { .. } => {
            conflict(error, "it was recorded that you decided too late; the agent went on without you")
        }
        DecideError::Unknown { .. } | DecideError::Elsewhere { .. } => conflict(error, "decide it where it was asked"),
        DecideError::Unfit { .. } => Failure::bad_request(error.to_string(), "change the decision, and try again"),
        DecideError::Log { .. } => Failure::unavailable(error),
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Fork {
    at: String,
}

pub(crate) async fn fork(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    OwnForm(fork): OwnForm<Fork>,
) -> Result<Redirect, Failure> {
    let forked =
        app.ledger
            .ask(move |opened| {
                let at = position_of(&fork.at)?;
                let (run, _) = one_run(opened, &id)?;
                let forked = opened.commands()?.fork(&run.id, ForkPoint::Position(at)).map_err(|error| {
                    Failure::new(StatusCode::CONFLICT, error.to_string(), "choose another position")
                })?;
                see(opened, forked.receipts.iter().map(|receipt| receipt.position).max());
                Ok(forked.run_id)
            })
            .await?;
    Ok(Redirect::to(&format!("/runs/{}", show::encoded(forked.as_str()))))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Nothing {}

pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    OwnForm(Nothing {}): OwnForm<Nothing>,
) -> Result<Redirect, Failure> {
    let run = app
        .ledger
        .ask(move |opened| {
            let (run, _) = one_run(opened, &id)?;
            let cancelled = cancel_all(&opened.commands()?, &opened.queries, &run.id, &current_user());
            let (_, receipts) = cancelled.map_err(|error| match error {
                CancelError::Command(error @ (CommandError::Unknown { .. } | CommandError::Over { .. })) => {
                    Failure::new(StatusCode::CONFLICT, error.to_string(), "open the run anew")
                }
                error => Failure::unavailable(error),
            })?;
            see(opened, receipts.iter().map(|receipt| receipt.position).max());
            Ok(run.id)
        })
        .await?;
    Ok(Redirect::to(&format!("/runs/{}", show::encoded(run.as_str()))))
}

pub(crate) async fn verify(
    State(app): State<Arc<App>>,
    OwnForm(Nothing {}): OwnForm<Nothing>,
) -> Result<Redirect, Failure> {
    begin(&app, |app| Jobs::verify(&app.jobs, &app.ledger)).await
}

pub(crate) async fn rebuild(
    State(app): State<Arc<App>>,
    OwnForm(Nothing {}): OwnForm<Nothing>,
) -> Result<Redirect, Failure> {
    begin(&app, |app| Jobs::rebuild(&app.jobs, &app.ledger, &[], false)).await
}

/// Begins a job, and shows it.
async fn begin(
    app: &Arc<App>,
    begin: impl FnOnce(&App) -> Result<Job, Failure> + Send + 'static,
) -> Result<Redirect, Failure> {
    let of = app.clone();
    app.ledger
        .ask(move |opened| {
            opened.commands()?;
            begin(&of)
        })
        .await?;
    Ok(Redirect::to("/health"))
}

/// Waits until the read models have what was done; where they are slow, the page shows it later.
pub(crate) fn see(opened: &Opened, position: Option<Position>) {
    if let Some(position) = position
        && let Err(error) = opened.queries.wait_for(position, SEEN)
    {
        tracing::debug!(%error, "an action is not seen yet");
    }
}
