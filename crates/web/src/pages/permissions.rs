//! The inbox: what waits for a decision, in its workflow context; and one request, with what was decided before it.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use runledger_events::words::call_parts;
use runledger_events::{Position, RequestStatus, TimestampMs, readable};
use runledger_projections::{PermissionRequest, RequestContext, RequestFilter};
use runledger_workflow::UserQuestion;
use serde::Deserialize;

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
    let filter = RequestFilter { status, limit: Some(PAGE), ..RequestFilter::default() };
    let mut requests = app.ledger.ask(move |opened| Ok(opened.queries.permission_requests(&filter)?)).await?;
    if status == Some(RequestStatus::Pending) {
        // What comes next stands below, and moves no button that somebody is about to press.
        requests.reverse();
    }
    Ok(super::page(&app, "Permissions", "/permissions", &list(&app, &asked.status, &requests)))
}

pub(crate) async fn serve_one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Markup, Failure> {
    let context = app.ledger.ask(move |opened| one(opened, &name)).await?;
    let title = format!("Request {}", context.request.position);
    Ok(super::page(&app, &title, "/permissions", &html! { div data-live="request" { (draw(&app, &context)) } }))
}

/// The request that a name fits; of several the newest that can be decided.
pub(crate) fn one(opened: &Opened, name: &str) -> Result<RequestContext, Failure> {
    let unknown = || Failure::not_found(format!("there is no request {name}"), "the inbox is at /permissions");
    let found = opened.queries.requests_named(name)?;
    let request = found.iter().find(|request| request.mode.is_some()).or(found.first()).ok_or_else(unknown)?;
    opened.queries.context(request.position)?.ok_or_else(unknown)
}

/// Whether somebody waits for a decision that can still be made.
pub(crate) fn can_be_decided(request: &PermissionRequest, now: TimestampMs) -> bool {
    request.mode.is_some()
        && request.status == Some(RequestStatus::Pending)
        && request.due_at.is_none_or(|due_at| due_at > now)
}

fn list(app: &App, status: &str, requests: &[PermissionRequest]) -> Markup {
    let now = show::now();
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
                p .nothing { @if status.is_empty() { "Nothing waits for you." } @else { "There is no such request." } }
            }
            ol .requests { @for request in requests { li data-key=(request.position) { (card(app, request, now)) } } }
        }
    }
}

/// A request as one card, with the buttons that decide it where it can be.
fn card(app: &App, request: &PermissionRequest, now: TimestampMs) -> Markup {
    html! {
        article .card.expired[request.status == Some(RequestStatus::Pending) && !can_be_decided(request, now)] {
            div .head {
                a .what href={ "/permissions/" (request.position) } { (request.tool_name.as_deref().unwrap_or("a question")) }
                (standing(request, now))
                span .quiet { "asked " (show::age(request.asked_at, now)) }
            }
            pre .call tabindex="0" { (call(request)) }
            (context_line(request))
            (form(app, request, now))
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

fn form(app: &App, request: &PermissionRequest, now: TimestampMs) -> Markup {
    if app.ledger.is_read_only() || request.mode.is_none() {
        return html! {};
    }
    if request.status != Some(RequestStatus::Pending) {
        return html! { @if let Some(decided) = settled(request) { p .decided { (decided) } } };
    }
    let is_open = can_be_decided(request, now);
    let questions = request.tool_input.as_ref().map(|input| UserQuestion::of_input(&readable(input.get())));
    let questions = questions.unwrap_or_default();
    html! {
        form .decide method="post" action={ "/permissions/" (request.position) } data-due=[request.due_at.map(|due_at| due_at.0)] {
            fieldset disabled[!is_open] {
                input type="hidden" name="form_word" value=(app.guard.form_word());
                @for (index, question) in questions.iter().enumerate() {
                    label { (question.question) " " input name={ "answer_" (index + 1) } autocomplete="off"; }
                }
                label { "Reason " input name="reason" autocomplete="off" placeholder="told to the agent when you deny"; }
                @if questions.is_empty() {
                    label { "Holds " select name="scope" {
                        option value="once" { "once" }
                        @if request.run_id.is_some() { option value="run" { "for this run" } option value="always" { "always, in this workflow" } }
                    } }
                    label { "for " input name="pattern" autocomplete="off" placeholder="this call alone" title=[request.pattern.as_deref()]; }
                }
                button .allow name="verdict" value="allow" { @if questions.is_empty() { "Allow" } @else { "Answer" } }
                button .danger name="verdict" value="deny" { "Deny" }
            }
            @if !is_open { p .quiet { "It expired; it can no longer be decided." } }
        }
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

fn draw(app: &App, context: &RequestContext) -> Markup {
    let RequestContext { request, before, before_count } = context;
    let now = show::now();
    let place = |position: Position| html! { a href={ "/events/" (position) } { (position) } };
    html! {
        h1 { "Request " (request.position) }
        (card(app, request, now))
        dl .facts {
            dt { "asked" } dd { (show::time(request.asked_at, None)) }
            dt { "events" } dd { "request " (place(request.position))
                @if let Some(position) = request.event_position { ", call " (place(position)) }
                @if let Some(position) = request.decided_position { ", decision " (place(position)) }
            }
            dt { "request" } dd { code { (request.request_id) } }
            @if let Some(session) = &request.session_id { dt { "session" } dd { (session) } }
            @if request.late_decisions > 0 { dt { "too late" } dd { (request.late_decisions) " decisions" } }
        }
        section .panel {
            h2 { "Asked before in this run" span .quiet { " " (before_count) } }
            @if before.is_empty() { p .nothing { "Nothing." } } @else {
                table { tbody { @for earlier in before { tr {
                    td { (show::time(earlier.asked_at, Some(request.asked_at))) }
                    td { (show::request_status(earlier.status)) }
                    td { a href={ "/permissions/" (earlier.position) } { (earlier.tool_name.as_deref().unwrap_or("question")) } }
                    td .words { code { (call(earlier).lines().next().unwrap_or_default()) } }
                    td { @if let Some(decided) = settled(earlier) { (decided) } }
                } } } }
            }
        }
    }
}
