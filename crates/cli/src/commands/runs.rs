//! `runs`: workflow runs, the newest first; and how one run looks.

use clap::Args;
use comfy_table::Cell;
use runledger_events::{RunStatus, SessionId};
use runledger_projections::RunFilter;
use runledger_web::objects::RunView;

use crate::commands::run_tree;
use crate::exit_code::Exit;
use crate::ledger::LedgerArg;
use crate::output::{Output, message};
use crate::render;

pub(crate) const NONE: &str = "no runs; `runledger exec` makes one";
pub(crate) const NO_SUCH: &str = "no such runs";

/// List workflow runs, the newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger runs
  runledger runs --status failed --limit 5
  runledger runs --tree            with sub-runs and forks under their origin
  runledger runs --json | jq -r 'select(.tokens.total > 100000) | .id'")]
pub(crate) struct Runs {
    /// Those of this session alone
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Those of this status alone: running, completed, blocked, exhausted, failed, cancelled, interrupted
    #[arg(long, value_name = "S", value_parser = status)]
    status: Option<RunStatus>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Each with its sub-runs and forks, and what it cost with its sub-runs
    #[arg(long)]
    tree: bool,
}

fn status(word: &str) -> Result<RunStatus, String> {
    RunStatus::parse(word).ok_or_else(|| {
        let words: Vec<&str> = RunStatus::ALL.iter().map(|status| status.as_str()).collect();
        format!("the statuses are {}", words.join(", "))
    })
}

impl Runs {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let filter =
            RunFilter { session: self.session.clone(), status: self.status, limit: self.limit, ..RunFilter::default() };
        if self.tree {
            return run_tree::tell(ledger.queries()?.run_tree(&filter)?, output);
        }
        let runs = ledger.queries()?.runs(&filter)?;
        if output.is_json() {
            for run in runs {
                output.json(&RunView::new(run))?;
            }
            return Ok(Exit::Done);
        }
        if runs.is_empty() {
            let is_filtered = self.session.is_some() || self.status.is_some();
            message(if is_filtered { NO_SUCH } else { NONE });
            return Ok(Exit::Done);
        }
        let heads = ["RUN", "WORKFLOW", "STATUS", "ITER", "STARTED", "TOOK", "TOKENS", "REASON"];
        let mut table = render::table(&heads, output.is_terminal());
        let is_narrow = render::is_narrow(&table);
        if is_narrow {
            table = render::table(&["RUN", "WORKFLOW", "STATUS", "ITER", "STARTED", "REASON"], output.is_terminal());
        }
        for run in runs.into_iter().map(RunView::new) {
            let name_max = if is_narrow { 14 } else { 24 };
            let name = render::short(run.run.workflow_name.as_deref().unwrap_or("–"), name_max);
            let status = render::status_cell(run.run.status, run.held_by());
            let iteration = format!("{} of {}", run.run.iteration, run.run.max_iterations);
            let started = render::time_in(&table, run.run.started_at);
            let reason = Cell::new(render::short(run.run.stop_reason.as_deref().unwrap_or(""), 60));
            let id = run.run.id.as_str();
            if is_narrow {
                // A UUIDv7's first 13 characters are its time: enough of a prefix for every command.
                let id = render::plain(id.get(..13).unwrap_or(id));
                table.add_row(vec![id.into(), name.into(), status, iteration.into(), started.into(), reason]);
            } else {
                let (took, tokens) = (run.duration(), render::tokens(&run.run.tokens));
                let id = render::plain(id);
                let (took, tokens) = (Cell::new(took), Cell::new(tokens));
                table.add_row(vec![
                    id.into(),
                    name.into(),
                    status,
                    iteration.into(),
                    started.into(),
                    took,
                    tokens,
                    reason,
                ]);
            }
        }
        for line in render::lines(&table, output.is_terminal()) {
            output.line(&line)?;
        }
        Ok(Exit::Done)
    }
}
