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
}

/// A job, and how far it is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Job {
    /// Counts from 1, since the server began.
    id: u64,
    kind: JobKind,
    /// The read models that it is on.
    projections: Vec<&'static str>,
    started_at: TimestampMs,
    /// When it was over, well or not.
    ended_at: Option<TimestampMs>,
    /// Where it is in the log.
    position: Position,
    /// Where the log ends.
    head: Position,
    /// What was built, as `rebuild-projections` tells it; none until it is done.
    rebuilt: Option<Vec<Rebuilt>>,
    /// Why it failed.
    error: Option<String>,
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
        let job = jobs.begin(JobKind::Rebuild, names)?;
        let (of, path, id) = (jobs.clone(), ledger.path().to_owned(), job.id);
        let work = move || {
            let result = rebuild(&path, &of, id, is_lenient);
            of.change(id, |job| {
                job.ended_at = Some(now());
                match result {
                    Ok(rebuilt) => {
                        job.position = job.head;
                        job.rebuilt = Some(rebuilt);
                    }
                    Err(error) => job.error = Some(error.to_string()),
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
            rebuilt: None,
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
