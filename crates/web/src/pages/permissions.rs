//! The inbox: what waits for a decision, in its workflow context; and one request, with what was decided before it.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use runledger_events::words::call_parts;
use runledger_events::{Fields, Position, RequestStatus, TimestampMs, readable};
use runledger_projections::{PermissionRequest, RequestContext, RequestFilter};
use runledger_workflow::UserQuestion;
use serde::Deserialize;

use super::decision::{self, Draft, can_be_decided, questions};
use super::event::position_of;
use super::given;
use crate::failure::Failure;
use crate::ledger::Opened;
use crate::server::App;
use crate::show;

/// Requests in a list.
const PAGE: usize = 200;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    status: String,
    before: String,
}

pub(crate) async fn serve(State(app): State<Arc<App>>, Query(asked): Query<Asked>) -> Result<Markup, Failure> {
    let status = match asked.status.as_str() {
        "" => Some(RequestStatus::Pending),
        "all" => None,
        word => Some(RequestStatus::parse(word).ok_or_else(|| {
            let words: Vec<&str> = RequestStatus::ALL.iter().map(|status| status.as_str()).collect();
            Failure::bad_request(
                format!("there is no status {word}"),
                format!("choose one of {}, or all", words.join(", ")),
            )
        })?),
    };
    let before = given(&asked.before)?.map(|text| position_of(&text)).transpose()?;
    // One more than is shown says that there are older ones.
    let filter = RequestFilter { status, before, limit: Some(PAGE + 1), ..RequestFilter::default() };
    let mut requests = app.ledger.ask(move |opened| Ok(opened.queries.permission_requests(&filter)?)).await?;
    let is_more = requests.len() > PAGE;
    requests.truncate(PAGE);
    let older = requests.last().filter(|_| is_more).map(|request| request.position);
    if status == Some(RequestStatus::Pending) {
        // What comes next stands below, and moves no button that somebody is about to press.
        requests.reverse();
    }
    Ok(super::page(&app, "Permissions", "/permissions", &list(&app, &asked, older, &requests)))
}

pub(crate) async fn serve_one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Markup, Failure> {
    let context = app.ledger.ask(move |opened| one(opened, &name)).await?;
    let title = format!("Request {}", context.request.position);
    Ok(super::page(
        &app,
        &title,
        "/permissions",
        &html! { div data-live="request" { (draw(&app, &context, &Draft::default())) } },
    ))
}

/// The request that a name fits; of several the newest that can be decided.
pub(crate) fn one(opened: &Opened, name: &str) -> Result<RequestContext, Failure> {
    let unknown = || Failure::not_found(format!("there is no request {name}"), "the inbox is at /permissions");
    let found = opened.queries.requests_named(name)?;
    let request = found.iter().find(|request| request.mode.is_some()).or(found.first()).ok_or_else(unknown)?;
    opened.queries.context(request.position)?.ok_or_else(unknown)
}

/// The page of a request after a decision that was refused: why, and what was filled in.
pub(crate) fn refused_page(app: &App, context: &RequestContext, draft: &Draft, failure: &Failure) -> Markup {
    let title = format!("Request {}", context.request.position);
    let main = html! {
        p .banner role="alert" { strong { (failure.error) } ". " (failure.next) "." }
        div data-live="request" { (draw(app, context, draft)) }
    };
    super::page(app, &title, "/permissions", &main)
}

fn list(app: &App, asked: &Asked, older: Option<Position>, requests: &[PermissionRequest]) -> Markup {
    let now = show::now();
    let status = asked.status.as_str();
    let address = |before: Option<Position>| {
        let before = before.map(|position| position.to_string());
        show::address("/permissions", &[("status", Some(status)), ("before", before.as_deref())])
    };
    let pages = html! {
        @if older.is_some() || !asked.before.trim().is_empty() { nav .pages {
            @if older.is_some() { a rel="prev" href=(address(older)) { "Older requests" } }
            @if !asked.before.trim().is_empty() { a href=(address(None)) { "Latest requests" } }
        } }
    };
    html! {
        h1 .hidden { "Permissions" }
        form .filter method="get" action="/permissions" data-filter {
            label { "Show " select name="status" {
                option value="" { "what waits" }
                option value="all" selected[status == "all"] { "everything" }
                @for word in RequestStatus::ALL.iter().filter(|word| **word != RequestStatus::Pending) {
                    option value=(word) selected[status == word.as_str()] { (word) }
                }
            } }
            button { "Filter" }
        }
        div data-live="requests" {
            @if requests.is_empty() {
                p .nothing { @if !asked.before.trim().is_empty() { "There are no older ones." } @else if status.is_empty() { "Nothing waits for you." } @else { "There is no such request." } }
            }
            // The oldest stand on top of those that wait, at the end of the others.
            @if status.is_empty() { (pages) }
            ol .requests { @for request in requests { li data-key=(request.position) { (card(app, request, &Draft::default(), now)) } } }
            @if !status.is_empty() { (pages) }
        }
    }
}

/// A request as one card, with the buttons that decide it where it can be.
fn card(app: &App, request: &PermissionRequest, draft: &Draft, now: TimestampMs) -> Markup {
    html! {
        article .card.expired[request.status == Some(RequestStatus::Pending) && !can_be_decided(request, now)] {
            div .head {
                a .what href={ "/permissions/" (request.position) } { (request.tool_name.as_deref().unwrap_or("a question")) }
                (standing(request, now))
                span .quiet { "asked " (show::age(request.asked_at, now)) }
            }
            (what(request, has_form(app, request)))
            (context_line(request))
            (form(app, request, draft, now))
        }
    }
}

fn standing(request: &PermissionRequest, now: TimestampMs) -> Markup {
    html! {
        @if request.status == Some(RequestStatus::Pending) && request.due_at.is_some_and(|due_at| due_at <= now) {
            span .mark.expired { "expired" }
        } @else { (show::request_status(request.status)) }
        @if let (Some(due_at), Some(RequestStatus::Pending)) = (request.due_at, request.status) {
            span .due data-due=(due_at.0) { "due " (show::age(due_at, now)) }
        }
    }
}

/// What is asked for. A question's words stand in its form, where there is one; the whole is there to be opened.
fn what(request: &PermissionRequest, has_form: bool) -> Markup {
    let questions = questions(request);
    html! {
        @if questions.is_empty() { pre .call tabindex="0" { (call(request)) } } @else {
            @if !has_form { (answered(request, &questions)) }
            details { summary .quiet { "The question as it was asked" } pre .call tabindex="0" { (call(request)) } }
        }
    }
}

/// Questions with their answers, or with what could have been chosen.
fn answered(request: &PermissionRequest, questions: &[UserQuestion]) -> Markup {
    let answers = request.answers.as_ref().map(|answers| readable(answers.get()));
    let answers = answers.as_deref().and_then(|answers| Fields::parse(answers).ok()).unwrap_or_default();
    html! {
        dl .answers { @for question in questions {
            dt { (question.question) }
            dd { @match answers.text(&question.question) {
                Some(answer) => { (answer) }
                None => { span .quiet { (question.options.iter().map(|option| option.label.as_str()).collect::<Vec<_>>().join(" / ")) } }
            } }
        } }
    }
}

/// What the tool is to do.
pub(super) fn call(request: &PermissionRequest) -> String {
    match &request.tool_input {
        Some(input) => call_parts(input.get()).join("\n"),
        None => "(erased, or not told)".to_owned(),
    }
}

/// Which workflow it belongs to, and where that stood.
fn context_line(request: &PermissionRequest) -> Markup {
    html! {
        p .context {
            @match &request.run_id {
                Some(run) => {
                    a href={ "/runs/" (show::encoded(run.as_str())) } { (request.workflow_name.as_deref().unwrap_or("run")) " " (show::short_id(run.as_str())) }
                    @if let (Some(iteration), Some(most)) = (request.iteration, request.max_iterations) { ", iteration " (iteration) " of " (most) }
                    @if let Some(state) = request.state { ", " (state) }
                }
                None => { "no workflow run" }
            }
            " · " (request.agent_type.as_deref().unwrap_or(&request.actor_id))
            @if let Some(cwd) = &request.cwd { " · in " code { (cwd) } }
            @if let Some(rule) = &request.rule {
                " · rule " (rule.number) " " code { (rule.tool) } @if let Some(reason) = &rule.reason { ": " (reason) }
            }
        }
    }
}

/// Whether it is decided here, if at all.
fn has_form(app: &App, request: &PermissionRequest) -> bool {
    request.status == Some(RequestStatus::Pending) && request.mode.is_some() && !app.ledger.is_read_only()
}

fn form(app: &App, request: &PermissionRequest, draft: &Draft, now: TimestampMs) -> Markup {
    html! {
        @if has_form(app, request) { (decision::form(app, request, draft, now)) }
        @if let Some(decided) = settled(request) { p .decided { (decided) } }
    }
}

/// Who settled it, and why.
fn settled(request: &PermissionRequest) -> Option<Markup> {
    let decided_at = request.decided_at?;
    Some(html! {
        (request.status.map_or("settled", RequestStatus::as_str))
        @if let Some(by) = request.decided_by.as_deref().or(request.decided_via.as_deref()) { " by " (by) }
        " " (show::time(decided_at, Some(request.asked_at)))
        @if let Some(scope) = request.scope.as_deref().filter(|scope| *scope != "once") { ", for " (scope) }
        @if let Some(reason) = &request.reason { ": " (reason) }
    })
}

fn draw(app: &App, context: &RequestContext, draft: &Draft) -> Markup {
    let RequestContext { request, before, before_count } = context;
    let now = show::now();
    let place = |position: Position| html! { a href={ "/events/" (position) } { (position) } };
    html! {
        h1 { "Request " (request.position) }
        (card(app, request, draft, now))
        dl .facts {
            div { dt { "asked" } dd { (show::time(request.asked_at, None)) } }
            div { dt { "events" } dd { "request " (place(request.position))
                @if let Some(position) = request.event_position { ", call " (place(position)) }
                @if let Some(position) = request.decided_position { ", decision " (place(position)) }
            } }
            div { dt { "request" } dd { code { (request.request_id) } } }
            @if let Some(session) = &request.session_id { div { dt { "session" } dd { (session) } } }
            @if request.late_decisions > 0 { div { dt { "too late" } dd { (request.late_decisions) " decisions" } } }
        }
        section .panel {
            h2 { "Asked before in this run" span .quiet { " " (before_count) } }
            @if before.is_empty() { p .nothing { "Nothing." } } @else {
                div .scroll { table { tbody { @for earlier in before { tr {
                    td { (show::time(earlier.asked_at, Some(request.asked_at))) }
                    td { (show::request_status(earlier.status)) }
                    td { a href={ "/permissions/" (earlier.position) } { (earlier.tool_name.as_deref().unwrap_or("question")) } }
                    td .words { code { (call(earlier).lines().next().unwrap_or_default()) } }
                    td { @if let Some(decided) = settled(earlier) { (decided) } }
                } } } } }
            }
        }
    }
}
