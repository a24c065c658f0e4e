//! The list of runs: what is running, what waits, and what came of the others.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use maud::{Markup, html};
use runledger_events::words::{self, duration};
use runledger_events::{Position, RequestStatus, RunId, RunState, RunStatus, SessionId, TimestampMs};
use runledger_projections::{PermissionRequest, Queries, RequestFilter, Run, RunFilter};
use serde::Deserialize;

use crate::failure::Failure;
use crate::ledger::Opened;
use crate::pages::decision::can_be_decided;
use crate::pages::event::position_of;
use crate::pages::given;
use crate::pages::permissions::call;
use crate::server::App;
use crate::show::{self, Signs};

/// Runs on a page.
const PAGE: usize = 100;

/// The filter, as the address holds it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    status: String,
    workflow: String,
    session: String,
    q: String,
    tree: Option<String>,
    before: String,
}

/// A run in the list, and how deep it stands under others.
struct Row {
    run: Run,
    depth: usize,
    is_fork: bool,
    /// What it asks, and nobody has answered.
    asks: Option<PermissionRequest>,
    /// When its session last told something, where it runs.
    last_at: Option<TimestampMs>,
}

/// Questions that are looked through for those of the runs on a page.
const ASKED_MAX: usize = 500;

/// What waits for an answer, by the run that asks; of several the oldest.
pub(super) fn questions(
    queries: &Queries,
    run: Option<RunId>,
    now: TimestampMs,
) -> Result<HashMap<RunId, PermissionRequest>, Failure> {
    let filter =
        RequestFilter { status: Some(RequestStatus::Pending), run, limit: Some(ASKED_MAX), ..RequestFilter::default() };
    let asked = queries.permission_requests(&filter)?.into_iter();
    let asked = asked.filter(|request| can_be_decided(request, now));
    Ok(asked.filter_map(|request| Some((request.run_id.clone()?, request))).collect())
}

pub(crate) async fn serve(State(app): State<Arc<App>>, Query(asked): Query<Asked>) -> Result<Markup, Failure> {
    let filter = asked.filter()?;
    let is_tree = asked.is_tree();
    let rows = app.ledger.ask(move |opened| rows(opened, &filter, is_tree)).await?;
    Ok(super::page(&app, "Runs", "/", &asked.draw(&rows)))
}

fn rows(opened: &Opened, filter: &RunFilter, is_tree: bool) -> Result<Vec<Row>, Failure> {
    let mut questions = questions(&opened.queries, None, show::now())?;
    let mut row = |run: Run, depth, is_fork| -> Result<Row, Failure> {
        let session = match run.status {
            RunStatus::Running => opened.queries.session(&run.session_id)?,
            _ => None,
        };
        let last_at = session.map(|session| session.last_at);
        Ok(Row { asks: questions.remove(&run.id), run, depth, is_fork, last_at })
    };
    if is_tree {
        let nodes = opened.queries.run_tree(filter)?.into_iter();
        return nodes.map(|node| row(node.run.clone(), node.depth, node.is_fork())).collect();
    }
    let runs = opened.queries.runs(filter)?.into_iter();
    runs.map(|run| {
        let is_fork = run.forked_from.is_some();
        row(run, 0, is_fork)
    })
    .collect()
}

impl Asked {
    fn is_tree(&self) -> bool {
        self.tree.as_deref() == Some("1")
    }

    fn filter(&self) -> Result<RunFilter, Failure> {
        let status = match given(&self.status)? {
            None => None,
            Some(word) => Some(RunStatus::parse(&word).ok_or_else(|| {
                let words: Vec<&str> = RunStatus::ALL.iter().map(|status| status.as_str()).collect();
                Failure::bad_request(
                    format!("there is no status {word}"),
                    format!("choose one of {}", words.join(", ")),
                )
            })?),
        };
        let session = given(&self.session)?.map(SessionId::new).transpose();
        let session = session.map_err(|error| Failure::bad_request(error.to_string(), "choose another session"))?;
        Ok(RunFilter {
            session,
            status,
            workflow: given(&self.workflow)?,
            text: given(&self.q)?,
            before: given(&self.before)?.map(|text| position_of(&text)).transpose()?,
            limit: Some(PAGE),
        })
    }

    fn address(&self, before: Option<Position>) -> String {
        let before = before.map(|position| position.to_string());
        show::address(
            "/",
            &[
                ("status", Some(&self.status)),
                ("workflow", Some(&self.workflow)),
                ("session", Some(&self.session)),
                ("q", Some(&self.q)),
                ("tree", self.tree.as_deref()),
                ("before", before.as_deref()),
            ],
        )
    }

    fn is_filtered(&self) -> bool {
        [&self.status, &self.workflow, &self.session, &self.q].iter().any(|text| !text.trim().is_empty())
    }

    fn draw(&self, rows: &[Row]) -> Markup {
        html! {
            h1 .hidden { "Runs" }
            form .filter method="get" action="/" role="search" data-filter {
                label { "Status " select name="status" {
                    option value="" { "any" }
                    @for status in RunStatus::ALL {
                        option value=(status) selected[self.status == status.as_str()] { (status) }
                    }
                } }
                label { "Workflow " input name="workflow" value=(self.workflow) size="14" autocomplete="off"; }
                label { "Session " input name="session" value=(self.session) size="14" autocomplete="off"; }
                label { "Text " input type="search" name="q" value=(self.q) size="18" placeholder="id, workflow, reason"; }
                label .check { input type="checkbox" name="tree" value="1" checked[self.is_tree()]; " tree" }
                button { "Filter" }
                @if self.is_filtered() { a href="/" { "Clear" } }
            }
            div data-live="runs" { (self.table(rows)) }
        }
    }

    fn table(&self, rows: &[Row]) -> Markup {
        let now = show::now();
        html! {
            @if rows.is_empty() {
                p .nothing {
                    @if !self.before.trim().is_empty() { "There are no older runs. " a href=(self.address(None)) { "Latest runs" } } @else if self.is_filtered() { "No run fits this filter." } @else { "No runs yet; " code { "runledger exec" } " makes one." }
                }
            } @else {
                div .scroll { table .runs {
                    thead { tr {
                        th scope="col" { "Run" } th scope="col" { "Status" } th scope="col" { "Workflow" }
                        th scope="col" .number { "Iteration" } th scope="col" { "Started" }
                        th scope="col" .number { "Took" } th scope="col" .number { "Tokens" } th scope="col" { "Waits for, or why" }
                    } }
                    tbody { @for row in rows { (draw_row(row, now)) } }
                } }
                @let tops: Vec<&Row> = rows.iter().filter(|row| row.depth == 0).collect();
                @if tops.len() >= PAGE && let Some(last) = tops.last() {
                    nav .pages { a rel="next" href=(self.address(Some(last.run.first_position))) { "Older runs" } }
                }
            }
        }
    }
}

fn draw_row(Row { run, depth, is_fork, asks, last_at }: &Row, now: TimestampMs) -> Markup {
    let ended_at = run.ended_at.unwrap_or(now);
    let silent_ms = last_at.map(|last_at| now.0.saturating_sub(last_at.0));
    let signs = Signs { asks: asks.is_some(), silent_ms, ..Signs::default() };
    html! {
        tr data-depth=[(*depth > 0).then(|| (*depth).min(6))] {
            th scope="row" {
                a .id href={ "/runs/" (show::encoded(run.id.as_str())) } title=(run.id) { (show::short_id(run.id.as_str())) }
                @if *is_fork { span .quiet { " fork" } }
            }
            td { (show::run_status(run, signs)) @if run.status == RunStatus::Running && run.state != RunState::Running { span .quiet { " " (run.state) } } }
            td { @match &run.workflow_name { Some(name) => { (name) } None => { span .quiet title="No workflow; its session" { (words::short(run.session_id.as_str(), 20)) } } } }
            td .number data-label="iteration" { (run.iteration) span .quiet { " of " (run.max_iterations) } }
            td { (show::age(run.started_at, now)) }
            td .number data-label="took" { (duration(ended_at.0.saturating_sub(run.started_at.0))) }
            td .number.none[run.tokens.total.is_none()] data-label="tokens" { (show::tokens(&run.tokens)) }
            td .words { (waits_for(run, asks.as_ref(), now)) }
        }
    }
}

/// What a run waits for, or why it ended.
pub(super) fn waits_for(run: &Run, asks: Option<&PermissionRequest>, now: TimestampMs) -> Markup {
    html! {
        @if run.status != RunStatus::Running {
            (run.stop_reason.as_deref().unwrap_or(""))
        } @else if let Some(request) = asks {
            a href={ "/permissions/" (request.position) } { "a decision on " (request.tool_name.as_deref().unwrap_or("a question")) }
            " " span .quiet { (words::short(&call(request), 80)) }
        } @else if let Some(request) = &run.waiting_for {
            a href={ "/permissions/" (show::encoded(request.as_str())) } { "a decision" }
        } @else if let Some(timer) = &run.timer {
            "a timer, due " (show::age(timer.due_at, now))
        } @else if run.paused {
            "to go on: it is paused"
        }
    }
}
