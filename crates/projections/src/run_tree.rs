//! Runs as a tree: a run's sub-runs, and what was forked off it, stand under it; sub-runs count for what it cost.

use std::collections::{BTreeMap, HashMap, HashSet};

use runledger_events::{RunId, Tokens};
use serde::Serialize;

use crate::error::ProjectionError;
use crate::objects::Run;
use crate::queries::{Queries, RunFilter};
use crate::views::workflow_runs;

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
        let fitting = self.runs(&RunFilter { limit: None, ..filter.clone() })?;
        let origins = |run: &Run| run.parent_run_id.clone().or_else(|| run.forked_from.clone());
        let mut tree = Tree::default();
        let ids: HashSet<RunId> = fitting.iter().map(|run| run.id.clone()).collect();
        // What fits under nothing that fits comes first; what is left then is a circle of runs that name each other.
        let (tops, others): (Vec<_>, Vec<_>) =
            fitting.into_iter().partition(|run| origins(run).is_none_or(|origin| !ids.contains(&origin)));
        for run in &tops {
            self.gather(run.clone(), &mut tree)?;
        }
        let mut tops: Vec<RunId> = tops.into_iter().map(|run| run.id).collect();
        for run in others {
            if !tree.runs.contains_key(&run.id) {
                tops.push(run.id.clone());
                self.gather(run, &mut tree)?;
            }
        }
        // One may stand under another by way of runs that do not fit themselves.
        let under: HashSet<RunId> = tree.children.values().flatten().cloned().collect();
        let tops = tops.into_iter().filter(|id| !under.contains(id)).take(filter.limit.unwrap_or(usize::MAX));
        let mut nodes = Vec::new();
        for id in tops {
            tree.tell(&id, &mut nodes);
        }
        Ok(nodes)
    }

    /// The runs that a run was forked off: the one that it was forked off itself, then the one that this was forked off, …
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn lineage(&self, run: &Run) -> Result<Vec<Run>, ProjectionError> {
        let mut lineage: Vec<Run> = Vec::new();
        let mut origin = run.forked_from.clone();
        while let Some(id) = origin {
            let found = workflow_runs::select(&*self.connection()?, "WHERE run_id = ?1", [id.as_str()])
                .map_err(|source| self.failed(workflow_runs::NAME, &source))?;
            let is_known = id == run.id || lineage.iter().any(|known| known.id == id);
            let Some(found) = found.into_iter().next().filter(|_| !is_known) else {
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
