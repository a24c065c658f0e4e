//! What a page can do: decide a request, cancel a run, fork one. Each is one command, from this process as from any other.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use runledger_events::Position;
use runledger_projections::PermissionRequest;
use runledger_workflow::{CommandError, DecideError, ForkPoint, current_user};
use serde::Deserialize;

use crate::cancelling::{CancelError, cancel_all};
use crate::failure::Failure;
use crate::guard::OwnForm;
use crate::jobs::{Job, Jobs};
use crate::ledger::Opened;
use crate::pages::decision::Draft;
use crate::pages::event::position_of;
use crate::pages::permissions::{one, refused_page};
use crate::pages::run::one_run;
use crate::server::App;
use crate::show;

/// How long an action waits for the read models, so that the page behind it shows what it did.
const SEEN: Duration = Duration::from_secs(2);

pub(crate) async fn decide(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    OwnForm(pairs): OwnForm<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let draft = Draft::read(pairs);
    let decided = app.ledger.ask(move |opened| {
        let context = one(opened, &name)?;
        match decide_one(opened, &context.request, &draft) {
            Err(failure) if matches!(failure.status, StatusCode::BAD_REQUEST | StatusCode::CONFLICT) => {
                Ok(Err((context, draft, failure)))
            }
            decided => Ok(Ok(decided?)),
        }
    });
    Ok(match decided.await? {
        Ok(position) => Redirect::to(&format!("/permissions/{position}")).into_response(),
        // What was filled in is not to be written twice.
        Err((context, draft, failure)) => {
            let page = refused_page(&app, &context, &draft, &failure);
            let mut response = (failure.status, page).into_response();
            // For who takes no pages.
            response.extensions_mut().insert(failure);
            response
        }
    })
}

/// Decides a request; gives its position.
fn decide_one(opened: &Opened, request: &PermissionRequest, draft: &Draft) -> Result<Position, Failure> {
    let decided = opened.commands()?.decide(&request.request_id, &draft.verdict(request)?).map_err(refused)?;
    see(opened, Some(decided.settled.position));
    Ok(request.position)
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
