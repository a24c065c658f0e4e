//! `runs --tree`: runs with their sub-runs and forks under them.

use comfy_table::Cell;
use runledger_projections::RunNode;
use runledger_web::objects::{RunInTree, RunView};

use crate::commands::runs::NONE;
use crate::exit_code::Exit;
use crate::output::{Output, message};
use crate::render;

/// Prints a tree, a run a line.
pub(crate) fn tell(nodes: Vec<RunNode>, output: &mut Output) -> anyhow::Result<Exit> {
    if output.is_json() {
        for node in nodes {
            output.json(&RunInTree::from(node))?;
        }
        return Ok(Exit::Done);
    }
    if nodes.is_empty() {
        message(NONE);
        return Ok(Exit::Done);
    }
    let mut table = render::table(
        &["RUN", "WORKFLOW", "STATUS", "ITER", "STARTED", "TOKENS", "WITH SUB-RUNS", "RELATION"],
        output.is_terminal(),
    );
    let is_narrow = render::is_narrow(&table);
    if is_narrow {
        table = render::table(&["RUN", "STATUS", "ITER", "TOKENS", "WITH SUB-RUNS", "RELATION"], output.is_terminal());
    }
    let branches = branches(&nodes);
    for (node, branch) in nodes.into_iter().zip(branches) {
        let relation = relation(&node);
        let all = render::tokens(&node.tokens_with_children);
        let view = RunView::new(node.run);
        let run = &view.run;
        let id = run.id.as_str();
        // A UUIDv7's first 13 characters are its time: enough of a prefix for every command.
        let id = if output.is_terminal() { id.get(..13).unwrap_or(id) } else { id };
        let name = render::short(run.workflow_name.as_deref().unwrap_or("–"), 24);
        let status = render::status_cell(run.status, view.held_by());
        let iteration = format!("{} of {}", run.iteration, run.max_iterations);
        let started = render::time_in(&table, run.started_at);
        let cells = [
            Some(Cell::new(format!("{branch}{}", render::plain(id)))),
            (!is_narrow).then(|| name.into()),
            Some(status),
            Some(iteration.into()),
            (!is_narrow).then(|| started.into()),
            Some(render::tokens(&run.tokens).into()),
            Some(all.into()),
            Some(relation.into()),
        ];
        table.add_row(cells.into_iter().flatten().collect::<Vec<Cell>>());
    }
    for line in render::lines(&table, output.is_terminal()) {
        output.line(&line)?;
    }
    Ok(Exit::Done)
}

fn relation(node: &RunNode) -> String {
    let forked = node.run.forked_from.as_ref().map(|origin| {
        let origin = render::plain(origin.as_str().get(..13).unwrap_or(origin.as_str()));
        let at = node.run.forked_at.map(|at| format!(" at {at}")).unwrap_or_default();
        if node.is_fork() && node.depth > 0 { format!("fork{at}") } else { format!("fork of {origin}{at}") }
    });
    let part = node.run.parent_run_id.as_ref().map(|parent| {
        let parent = render::plain(parent.as_str().get(..13).unwrap_or(parent.as_str()));
        if node.depth > 0 { "sub-run".to_owned() } else { format!("sub-run of {parent}") }
    });
    [part, forked].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What stands before each run to show whom it stands under.
fn branches(nodes: &[RunNode]) -> Vec<String> {
    // Whether another run comes at each depth, seen from the end.
    let mut goes_on: Vec<bool> = Vec::new();
    let mut branches: Vec<String> = nodes
        .iter()
        .rev()
        .map(|node| {
            goes_on.resize(node.depth + 1, false);
            let over = goes_on.iter().take(node.depth).skip(1);
            let mut branch: String = over.map(|goes_on| if *goes_on { "│ " } else { "  " }).collect();
            if node.depth > 0 {
                branch.push_str(if goes_on[node.depth] { "├ " } else { "└ " });
            }
            goes_on[node.depth] = true;
            branch
        })
        .collect();
    branches.reverse();
    branches
}
