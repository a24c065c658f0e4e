//! Runs as a tree: a run's sub-runs, and what was forked off it, stand under it; sub-runs count for what it cost.

use std::collections::{BTreeMap, HashMap};

use runledger_events::{RunId, Tokens};
use serde::Serialize;

use crate::error::ProjectionError;
use crate::objects::Run;
use crate::queries::{Queries, RunFilter};
use crate::views::workflow_runs;

/// Runs that are looked through at once for those that are topmost: at least, and at the most.
const RUNS_AT_ONCE: (usize, usize) = (100, 1000);

/// The run that a run stands under.
fn origin_of(run: &Run) -> Option<RunId> {
    run.parent_run_id.clone().or_else(|| run.forked_from.clone())
}

/// A run in its tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunNode {
    /// The run.
    #[serde(flatten)]
    pub run: Run,
    /// How many runs stand above it.
    pub depth: usize,
    /// The runs right under it: its sub-runs and its forks, the oldest first.
    pub children: Vec<RunId>,
    /// What it cost with all of its sub-runs. Forks cost by themselves.
    pub tokens_with_children: Tokens,
}

impl RunNode {
    /// Whether it stands under a run that it was forked off, and not under one that it is a part of.
    pub fn is_fork(&self) -> bool {
        self.run.parent_run_id.is_none() && self.run.forked_from.is_some()
    }
}

impl Queries {
    /// Runs with all that stand under them, each before those under it; the newest of the topmost first.
    ///
    /// The filter says which are topmost: those that fit it, but for those that stand under another that does. Its limit
    /// counts these.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn run_tree(&self, filter: &RunFilter) -> Result<Vec<RunNode>, ProjectionError> {
        let wanted = filter.limit.unwrap_or(usize::MAX);
        let at_once = wanted.saturating_mul(2).clamp(RUNS_AT_ONCE.0, RUNS_AT_ONCE.1);
        let mut page = RunFilter { limit: Some(at_once), ..filter.clone() };
        let (mut tree, mut tops, mut origins) = (Tree::default(), Vec::new(), HashMap::new());
        loop {
            let fitting = self.runs(&page)?;
            page.before = fitting.last().map(|run| run.first_position);
            let is_last = fitting.len() < at_once;
            for run in fitting {
                let is_known = tree.runs.contains_key(&run.id);
                if tops.len() < wanted && !is_known && !self.is_under_fitting(&run, filter, &mut origins)? {
                    tops.push(run.id.clone());
                    self.gather(run, &mut tree)?;
                }
            }
            if is_last || tops.len() >= wanted {
                break;
            }
        }
        let mut nodes = Vec::new();
        for id in &tops {
            tree.tell(id, &mut nodes);
        }
        Ok(nodes)
    }

    /// Whether a run stands under one that fits, however far above. Of runs that name each other in a circle none does; what is
    /// found of runs on the way is kept in `known`.
    fn is_under_fitting(
        &self,
        run: &Run,
        filter: &RunFilter,
        known: &mut HashMap<RunId, bool>,
    ) -> Result<bool, ProjectionError> {
        let mut way = vec![(run.id.clone(), filter.takes(run))];
        let mut origin = origin_of(run);
        let mut is_under = false;
        while let Some(id) = origin.take() {
            if let Some(found) = known.get(&id) {
                is_under = *found || self.run_of(&id)?.is_some_and(|above| filter.takes(&above));
                break;
            }
            if let Some(at) = way.iter().position(|(seen, _)| *seen == id) {
                known.extend(way.drain(at..).map(|(id, _)| (id, false)));
                // What hangs on the circle stands under it.
                is_under = self.run_of(&id)?.is_some_and(|above| filter.takes(&above));
                break;
            }
            let Some(above) = self.run_of(&id)? else {
                break;
            };
            way.push((id, filter.takes(&above)));
            origin = origin_of(&above);
        }
        for (id, fits) in way.into_iter().rev() {
            known.insert(id, is_under);
            is_under |= fits;
        }
        Ok(known.get(&run.id).copied().unwrap_or_default())
    }

    fn run_of(&self, id: &RunId) -> Result<Option<Run>, ProjectionError> {
        let found = workflow_runs::select(&*self.connection()?, "WHERE run_id = ?1", [id.as_str()])
            .map_err(|source| self.failed(workflow_runs::NAME, &source))?;
        Ok(found.into_iter().next())
    }

    /// The runs that a run was forked off: the one that it was forked off itself, then the one that this was forked off, …
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn lineage(&self, run: &Run) -> Result<Vec<Run>, ProjectionError> {
        let mut lineage: Vec<Run> = Vec::new();
        let mut origin = run.forked_from.clone();
        while let Some(id) = origin {
            let found = self.run_of(&id)?;
            let is_known = id == run.id || lineage.iter().any(|known| known.id == id);
            let Some(found) = found.filter(|_| !is_known) else {
                break;
            };
            origin = found.forked_from.clone();
            lineage.push(found);
        }
        Ok(lineage)
    }

    /// Reads a run's whole part of the tree.
    fn gather(&self, run: Run, tree: &mut Tree) -> Result<(), ProjectionError> {
        let mut waiting = vec![run];
        while let Some(run) = waiting.pop() {
            if tree.runs.contains_key(&run.id) {
                continue;
            }
            let condition = "WHERE parent_run_id = ?1 OR (forked_from = ?1 AND parent_run_id IS NULL)
                             ORDER BY first_position";
            let under = workflow_runs::select(&*self.connection()?, condition, [run.id.as_str()])
                .map_err(|source| self.failed(workflow_runs::NAME, &source))?;
            // A run that is gathered already stands where it is, or the tree would have a circle.
            let under: Vec<Run> = under.into_iter().filter(|child| tree.is_free(&child.id, &run.id)).collect();
            for child in &under {
                tree.above.insert(child.id.clone(), run.id.clone());
            }
            tree.children.insert(run.id.clone(), under.iter().map(|child| child.id.clone()).collect());
            tree.runs.insert(run.id.clone(), run);
            waiting.extend(under);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Tree {
    runs: HashMap<RunId, Run>,
    children: BTreeMap<RunId, Vec<RunId>>,
    above: HashMap<RunId, RunId>,
}

impl Tree {
    /// Whether a run may stand under another: not where it stands above it already.
    fn is_free(&self, child: &RunId, under: &RunId) -> bool {
        let mut at = Some(under);
        while let Some(id) = at {
            if id == child {
                return false;
            }
            at = self.above.get(id);
        }
        true
    }

    /// Adds a run and all under it.
    fn tell(&self, top: &RunId, nodes: &mut Vec<RunNode>) {
        let first = nodes.len();
        // Each with the place of the one above it.
        let mut above: Vec<Option<usize>> = Vec::new();
        let mut waiting = vec![(top, 0, None)];
        while let Some((id, depth, over)) = waiting.pop() {
            let Some(run) = self.runs.get(id) else {
                continue;
            };
            let children = self.children.get(id).map(Vec::as_slice).unwrap_or_default();
            let at = nodes.len();
            waiting.extend(children.iter().rev().map(|child| (child, depth + 1, Some(at))));
            above.push(over);
            let tokens_with_children = run.tokens;
            nodes.push(RunNode { run: run.clone(), depth, children: children.to_vec(), tokens_with_children });
        }
        // Whoever stands under another comes behind it.
        for (at, over) in (first..nodes.len()).zip(above).rev() {
            let (is_part, tokens) = (!nodes[at].is_fork(), nodes[at].tokens_with_children);
            if let Some(over) = over.filter(|_| is_part) {
                let sum = nodes[over].tokens_with_children;
                // The context is the run's own.
                nodes[over].tokens_with_children = Tokens {
                    context_size: sum.context_size,
                    context_window_size: sum.context_window_size,
                    ..sum.followed_by(tokens)
                };
            }
        }
    }
}
