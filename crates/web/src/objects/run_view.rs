//! Runs, as `runs --json`, `runs --tree --json`, `show --json` and `/api/v1/runs` have them.

use runledger_events::words::duration;
use runledger_events::{Position, RunId, RunStatus, Tokens};
use runledger_projections::{Iteration, ProjectionError, Queries, Run, RunNode};
use runledger_workflow::is_alive;
use schemars::JsonSchema;
use serde::Serialize;

/// A run, and whether the process that drives it is still there.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RunView {
    /// The run.
    #[serde(flatten)]
    pub run: Run,
    /// None where it cannot be known from here, and for a run that is over.
    pub owner_alive: Option<bool>,
}

impl RunView {
    /// A run, with a look at its owner's process.
    pub fn new(run: Run) -> Self {
        let is_open = run.status == RunStatus::Running;
        let owner_alive = run.owner.as_ref().filter(|_| is_open).and_then(is_alive);
        Self { run, owner_alive }
    }

    /// Whether it goes on with nobody who drives it.
    pub fn owner_is_gone(&self) -> bool {
        self.owner_alive == Some(false)
    }

    /// What keeps it from going on, in words.
    pub fn held_by(&self) -> Option<&'static str> {
        if self.run.status != RunStatus::Running {
            return None;
        }
        // One that waits for a decision needs no owner meanwhile.
        match (&self.run.waiting_for, self.run.paused) {
            (Some(_), _) => Some("waiting"),
            (None, true) => Some("paused"),
            (None, false) => self.owner_is_gone().then_some("owner gone"),
        }
    }

    /// How long it took; a dash while it goes on.
    pub fn duration(&self) -> String {
        match self.run.ended_at {
            Some(ended_at) => duration(ended_at.0.saturating_sub(self.run.started_at.0)),
            None => "–".to_owned(),
        }
    }
}

/// A run in its tree.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RunInTree {
    /// The run.
    #[serde(flatten)]
    pub view: RunView,
    /// How many runs stand above it.
    pub depth: usize,
    /// The runs right under it: its sub-runs and its forks, the oldest first.
    pub children: Vec<RunId>,
    /// What it cost with all of its sub-runs. Forks cost by themselves.
    pub tokens_with_children: Tokens,
}

impl From<RunNode> for RunInTree {
    fn from(node: RunNode) -> Self {
        let RunNode { run, depth, children, tokens_with_children } = node;
        Self { view: RunView::new(run), depth, children, tokens_with_children }
    }
}

/// A run with its iterations, and the runs that it was forked off, one off the other.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RunWithIterations {
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
    /// The forks that lead to it, its own first.
    pub lineage: Vec<ForkedFrom>,
    /// Its iterations, in order.
    pub iterations: Vec<Iteration>,
}

/// A run that was forked off, and where.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ForkedFrom {
    /// The run that it was forked off.
    pub run_id: RunId,
    /// The position as of which.
    pub forked_at: Option<Position>,
}

impl RunWithIterations {
    /// A run as it is now, or as it was (`is_past`).
    ///
    /// # Errors
    /// [`ProjectionError`] when the runs that it was forked off cannot be read.
    pub fn new(
        queries: &Queries,
        run: Run,
        iterations: Vec<Iteration>,
        is_past: bool,
    ) -> Result<Self, ProjectionError> {
        let lineage = lineage(&run, queries.lineage(&run)?);
        let mut run = RunView::new(run);
        if is_past {
            // Whether its owner lives now says nothing about then.
            run.owner_alive = None;
        }
        Ok(Self { run, lineage, iterations })
    }
}

/// The forks that lead to a run, its own first; the last may be off a run that this log does not have.
fn lineage(run: &Run, origins: Vec<Run>) -> Vec<ForkedFrom> {
    let runs = std::iter::once(run).chain(&origins);
    runs.filter_map(|run| Some(ForkedFrom { run_id: run.forked_from.clone()?, forked_at: run.forked_at })).collect()
}
