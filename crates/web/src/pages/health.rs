//! How the ledger stands: its head, its read models and how far behind they are, sizes, and what they leave out.

use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use maud::{Markup, html};
use runledger_events::words::{bytes, count};
use runledger_projections::{ParkedStream, ProjectionStatus, projections_path};

use crate::failure::Failure;
use crate::jobs::{Job, JobKind};
use crate::ledger::Opened;
use crate::server::App;
use crate::show;

/// What the page shows.
struct Health {
    log_id: String,
    head: u64,
    streams: u64,
    schema_version: i64,
    models: Vec<ProjectionStatus>,
    parked: Vec<ParkedStream>,
    sizes: Vec<(&'static str, Option<u64>)>,
}

pub(crate) async fn serve(State(app): State<Arc<App>>) -> Result<Markup, Failure> {
    let path = app.ledger.path().to_owned();
    let health = app.ledger.ask(move |opened| look(opened, &path)).await?;
    Ok(super::page(&app, "Health", "/health", &draw(&app, &health)))
}

fn look(opened: &Opened, path: &Path) -> Result<Health, Failure> {
    let models = opened.queries.status()?;
    let parked = opened.queries.parked()?;
    let size = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(Path::new(&name)).ok().map(|metadata| metadata.len())
    };
    let projections = projections_path(path);
    let sizes = vec![
        ("the log", size(path, "")),
        ("its write-ahead log", size(path, "-wal")),
        ("read models", size(&projections, "")),
        ("their write-ahead log", size(&projections, "-wal")),
    ];
    opened.read(|reader| {
        Ok(Health {
            log_id: reader.log_id().to_string(),
            head: reader.head()?.position.0,
            streams: reader.streams()?,
            schema_version: reader.schema_version()?,
            models,
            parked,
            sizes,
        })
    })
}

fn draw(app: &App, health: &Health) -> Markup {
    let lag = |model: &ProjectionStatus| model.position.map(|position| health.head.saturating_sub(position.0));
    html! {
        h1 { "Health" }
        div data-live="health" {
            dl .facts {
                dt { "ledger" } dd { code { (app.ledger.path().display()) } }
                dt { "log" } dd { code { (health.log_id) } }
                dt { "head" } dd { (count(health.head)) " events in " (count(health.streams)) " streams" }
                dt { "versions" } dd { "schema " (health.schema_version) ", program " (env!("CARGO_PKG_VERSION")) }
            }
            section .panel {
                h2 { "Read models" }
                div .scroll { table {
                    thead { tr { th scope="col" { "Read model" } th scope="col" .number { "Position" } th scope="col" .number { "Lag" } th scope="col" .number { "Version" } th scope="col" .number { "Generation" } } }
                    tbody { @for model in &health.models { tr {
                        th scope="row" { (model.projection) }
                        td .number { (model.position.map_or_else(|| "–".to_owned(), |position| count(position.0))) }
                        td .number .late[lag(model).is_none_or(|lag| lag > 10_000)] { (lag(model).map_or_else(|| "not built".to_owned(), count)) }
                        td .number { (model.version.map_or_else(|| "–".to_owned(), |version| version.to_string())) }
                        td .number { (model.generation.map_or_else(|| "–".to_owned(), |generation| generation.to_string())) }
                    } } }
                } }
            }
            section .panel { (jobs(app)) }
            section .panel {
                h2 { "Left out" }
                @if health.parked.is_empty() { p .nothing { "Every event can be read." } }
                ul { @for ParkedStream { projection, stream, position, cause } in &health.parked {
                    li { span .mark.failed { "parked" } " " (projection) " leaves " code { (stream) } " out from position "
                        a href={ "/events/" (position) } { (position) } " on, which cannot be read: " (cause) }
                } }
            }
            section .panel {
                h2 { "Sizes" }
                dl .facts { @for (name, size) in &health.sizes { dt { (name) } dd { (size.map_or_else(|| "–".to_owned(), bytes)) } } }
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
