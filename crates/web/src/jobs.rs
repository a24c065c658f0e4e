//! Long work that is asked for here: one at a time, on a thread of its own, with how far it is.
//!
//! Invariants: whoever asks while one goes on is refused. What a job does stands in the ledger's own files and may be cut off at
//! any moment, as from the command line; only what is told of it here is lost with the server.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use runledger_events::{Position, TimestampMs};
use runledger_projections::{ProjectionError, Projections, RebuildProgress, Rebuilt};
use schemars::JsonSchema;
use serde::Serialize;

use crate::checks::{Check, check_log, check_own_seals, check_projections};
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::show::now;

/// Jobs that are remembered.
const KEPT: usize = 20;

/// What a job does.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobKind {
    /// It builds read models again from the log.
    Rebuild,
    /// It checks the log, and compares every read model with a fresh fold of it.
    Verify,
}

/// A job, and how far it is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Job {
    /// Counts from 1, since the server began.
    pub(crate) id: u64,
    pub(crate) kind: JobKind,
    /// The read models that it is on.
    projections: Vec<&'static str>,
    pub(crate) started_at: TimestampMs,
    /// When it was over, well or not.
    pub(crate) ended_at: Option<TimestampMs>,
    /// What it looks at now: the log, a read model; none for all of them.
    pub(crate) at: Option<String>,
    /// Where it is in the log.
    pub(crate) position: Position,
    /// Where the log ends.
    pub(crate) head: Position,
    /// What was built, as `rebuild-projections` tells it; none until it is done.
    pub(crate) rebuilt: Option<Vec<Rebuilt>>,
    /// What was checked, as `verify` tells it; none until it is done.
    pub(crate) checks: Option<Vec<Check>>,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

/// The jobs of one server.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<VecDeque<Job>>);

impl Jobs {
    /// All that are remembered, the newest first.
    pub(crate) fn all(&self) -> Vec<Job> {
        self.jobs().iter().rev().cloned().collect()
    }

    /// One of them.
    pub(crate) fn one(&self, id: u64) -> Option<Job> {
        self.jobs().iter().find(|job| job.id == id).cloned()
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, VecDeque<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs().iter_mut().find(|job| job.id == id) {
            change(job);
        }
    }

    /// Begins to build read models again, all or those named; where `is_lenient`, streams are left out from an event on that
    /// cannot be read.
    pub(crate) fn rebuild(
        jobs: &Arc<Self>,
        ledger: &Arc<Ledger>,
        named: &[String],
        is_lenient: bool,
    ) -> Result<Job, Failure> {
        let names = names(ledger.path(), named)?;
        Self::start(jobs, ledger, JobKind::Rebuild, names, move |path, of, id| {
            let rebuilt = rebuild(path, of, id, is_lenient)?;
            of.change(id, |job| job.rebuilt = Some(rebuilt));
            Ok(())
        })
    }

    /// Begins to check everything that `verify` checks.
    pub(crate) fn verify(jobs: &Arc<Self>, ledger: &Arc<Ledger>) -> Result<Job, Failure> {
        let names = names(ledger.path(), &[])?;
        Self::start(jobs, ledger, JobKind::Verify, names, |path, of, id| {
            let checks = verify(path, of, id)?;
            of.change(id, |job| job.checks = Some(checks));
            Ok(())
        })
    }

    /// A job on a thread of its own.
    fn start(
        jobs: &Arc<Self>,
        ledger: &Arc<Ledger>,
        kind: JobKind,
        names: Vec<&'static str>,
        work: impl FnOnce(&Path, &Jobs, u64) -> Result<(), ProjectionError> + Send + 'static,
    ) -> Result<Job, Failure> {
        let job = jobs.begin(kind, names)?;
        let (of, path, id) = (jobs.clone(), ledger.path().to_owned(), job.id);
        let work = move || {
            // Whatever becomes of it, it is over then: the next one could not begin.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&path, &of, id)));
            of.change(id, |job| {
                job.ended_at = Some(now());
                job.at = None;
                match result {
                    Ok(Ok(())) => job.position = job.head,
                    Ok(Err(error)) => job.error = Some(error.to_string()),
                    Err(_) => job.error = Some("something here broke; please report this".to_owned()),
                }
            });
        };
        if let Err(error) = std::thread::Builder::new().name("runledger-job".to_owned()).spawn(work) {
            jobs.jobs().retain(|known| known.id != id);
            return Err(Failure::unavailable(format!("no thread can be started: {error}")));
        }
        Ok(job)
    }

    /// A new job, unless one goes on.
    fn begin(&self, kind: JobKind, projections: Vec<&'static str>) -> Result<Job, Failure> {
        let mut jobs = self.jobs();
        if let Some(other) = jobs.iter().find(|job| job.ended_at.is_none()) {
            let next = format!("wait for it: /api/v1/jobs/{} tells how far it is", other.id);
            return Err(Failure::new(StatusCode::CONFLICT, format!("job {} goes on", other.id), next));
        }
        let job = Job {
            id: jobs.back().map_or(1, |last| last.id + 1),
            kind,
            projections,
            started_at: now(),
            ended_at: None,
            position: Position::START,
            head: Position::START,
            at: None,
            rebuilt: None,
            checks: None,
            error: None,
        };
        jobs.push_back(job.clone());
        while jobs.len() > KEPT {
            jobs.pop_front();
        }
        Ok(job)
    }
}

/// The read models of these names, in their order; all where none is named.
fn names(path: &Path, named: &[String]) -> Result<Vec<&'static str>, Failure> {
    let mut names = Projections::open(path)?.names();
    if let Some(unknown) = named.iter().find(|name| !names.contains(&name.as_str())) {
        let next = format!("there are {}", names.join(", "));
        return Err(Failure::bad_request(format!("there is no read model {unknown}"), next));
    }
    if !named.is_empty() {
        names.retain(|name| named.iter().any(|wanted| wanted == name));
    }
    Ok(names)
}

fn rebuild(path: &Path, jobs: &Jobs, id: u64, is_lenient: bool) -> Result<Vec<Rebuilt>, ProjectionError> {
    let mut projections = Projections::open(path)?;
    let names = jobs.one(id).map(|job| job.projections).unwrap_or_default();
    let mut progress = |progress: RebuildProgress<'_>| {
        jobs.change(id, |job| (job.position, job.head) = (progress.position, progress.head));
    };
    match is_lenient {
        true => projections.rebuild_readable(&names, &mut progress),
        false => projections.rebuild_together(&names, &mut progress),
    }
}

fn verify(path: &Path, jobs: &Jobs, id: u64) -> Result<Vec<Check>, ProjectionError> {
    let mut progress = |at: &str, position: Position, head: Position| {
        jobs.change(id, |job| {
            if job.at.as_deref() != Some(at) {
                job.at = Some(at.to_owned());
            }
            (job.position, job.head) = (position, head);
        });
    };
    let mut projections = Projections::open(path)?;
    let mut checks = check_log(projections.reader(), Position::START, &mut progress)?;
    checks.push(check_own_seals(projections.reader(), &[]));
    checks.extend(check_projections(&mut projections, &mut progress));
    Ok(checks)
}
