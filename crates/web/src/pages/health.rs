//! How the ledger stands: its head, its read models and how far behind they are, sizes, and what they leave out.

use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};
use runledger_events::words::{bytes, count};
use runledger_projections::ParkedStream;

use crate::failure::Failure;
use crate::jobs::{Job, JobKind};
use crate::objects::{LooseMode, Status};
use crate::server::App;
use crate::show;

pub(crate) async fn serve(State(app): State<Arc<App>>) -> Result<Markup, Failure> {
    let of = app.clone();
    let status = app.ledger.ask(move |opened| of.status(opened)).await?;
    Ok(super::page(&app, "Health", "/health", &draw(&app, &status)))
}

fn draw(app: &App, status: &Status) -> Markup {
    let sizes = [
        ("the log", status.sizes.log),
        ("its write-ahead log", status.sizes.log_wal),
        ("read models", status.sizes.projections),
        ("their write-ahead log", status.sizes.projections_wal),
        ("waits to be taken in", status.sizes.spool),
        ("rejected", status.sizes.spool_rejected),
    ];
    html! {
        h1 { "Health" }
        div data-live="health" {
            dl .facts {
                div { dt { "ledger" } dd { code { (app.ledger.path().display()) } } }
                div { dt { "log" } dd { code { (status.log_id) } } }
                div { dt { "head" } dd { (count(status.head.0)) " events in " (count(status.streams)) " streams" } }
                div { dt { "versions" } dd { "schema " (status.schema_version) ", program " (status.program_version) } }
            }
            section .panel {
                h2 { "Read models" }
                div .scroll { table {
                    thead { tr { th scope="col" { "Read model" } th scope="col" .number { "Position" } th scope="col" .number { "Lag" } th scope="col" .number { "Version" } th scope="col" .number { "Generation" } } }
                    tbody { @for model in &status.checkpoints { tr {
                        th scope="row" { (model.projection) }
                        td .number { (model.position.map_or_else(|| "–".to_owned(), |position| count(position.0))) }
                        td .number .late[model.lag.is_none_or(|lag| lag > 10_000)] { (model.lag.map_or_else(|| "not built".to_owned(), count)) }
                        td .number { (model.version.map_or_else(|| "–".to_owned(), |version| version.to_string())) }
                        td .number { (model.generation.map_or_else(|| "–".to_owned(), |generation| generation.to_string())) }
                    } } }
                } }
            }
            section .panel { (jobs(app)) }
            section .panel {
                h2 { "Left out" }
                @if status.parked.is_empty() { p .nothing { "Every event can be read." } }
                ul { @for ParkedStream { projection, stream, position, cause } in &status.parked {
                    li { span .mark.failed { "parked" } " " (projection) " leaves " code { (stream) } " out from position "
                        a href={ "/events/" (position) } { (position) } " on, which cannot be read: " (cause) }
                } }
            }
            section .panel {
                h2 { "Sizes" }
                dl .facts { @for (name, size) in sizes { @if let Some(size) = size { div { dt { (name) } dd { (bytes(size)) } } } } }
                ul { @for LooseMode { path, mode, wanted } in &status.loose_modes {
                    li { code { (path) } " has " (mode) ", others may look into it; " (wanted) " would do" }
                } }
            }
        }
    }
}

/// Jobs that are shown.
const JOBS: usize = 5;

/// What can be begun, and how far it is.
fn jobs(app: &App) -> Markup {
    let jobs = app.jobs.all();
    let is_busy = jobs.iter().any(|job| job.ended_at.is_none());
    let button = |path: &str, words: &str, title: &str| {
        html! { form method="post" action=(path) {
            input type="hidden" name="form_word" value=(app.guard.form_word());
            button title=(title) disabled[is_busy] { (words) }
        } }
    };
    html! {
        div .head {
            h2 { "Checks and rebuilds" }
            @if !app.ledger.is_read_only() {
                (button("/health/verify", "Verify", "Check the log, and compare every read model with a fresh fold of it"))
                (button("/health/rebuild", "Rebuild", "Build every read model again from the log"))
            }
        }
        @if jobs.is_empty() { p .nothing { "None since this server began." } }
        @for job in jobs.iter().take(JOBS) { (draw_job(job)) }
    }
}

fn draw_job(job: &Job) -> Markup {
    let wrong = job.checks.iter().flatten().filter(|check| !check.ok).count();
    let words = match (job.kind, job.ended_at, &job.error) {
        (_, Some(_), Some(_)) => "failed",
        (JobKind::Verify, Some(_), None) if wrong > 0 => "something is wrong",
        (JobKind::Verify, Some(_), None) => "all is well",
        (JobKind::Rebuild, Some(_), None) => "done",
        (JobKind::Verify, None, _) => "checking",
        (JobKind::Rebuild, None, _) => "building",
    };
    let class = match (job.ended_at, job.error.is_some() || wrong > 0) {
        (None, _) => "running",
        (Some(_), true) => "failed",
        (Some(_), false) => "completed",
    };
    html! {
        details .job open[job.ended_at.is_none() || class == "failed"] data-busy[job.ended_at.is_none()] {
            summary {
                @match job.kind { JobKind::Verify => { "Verify " } JobKind::Rebuild => { "Rebuild " } }
                span class={ "mark " (class) } { (words) }
                span .quiet { " " (show::time(job.started_at, None)) }
            }
            @if job.ended_at.is_none() {
                progress max=(job.head.0.max(1)) value=(job.position.0) {}
                span .quiet { " " @if let Some(at) = &job.at { (at) ", " } (count(job.position.0)) " of " (count(job.head.0)) }
            }
            @if let Some(error) = &job.error { p .error { (error) } }
            @if let Some(rebuilt) = &job.rebuilt {
                ul { @for rebuilt in rebuilt { li { (rebuilt.projection) ": " (count(rebuilt.rows)) " rows" } } }
            }
            @if let Some(checks) = &job.checks { ul .checks { @for check in checks { li {
                span .mark.(if check.ok { "completed" } else { "failed" }) { @if check.ok { "ok" } @else { "wrong" } }
                " " (check.check) @if let Some(detail) = &check.detail { span .quiet { " " (detail) } }
            } } } }
        }
    }
}
