//! `show`: one run with its iterations, now or as of a position.

use clap::Args;
use runledger_events::{Continuation, Position};
use runledger_projections::{Iteration, run_at};
use serde::Serialize;

use crate::commands::runs::RunView;
use crate::exit_code::{Exit, No};
use crate::ledger::{LedgerArg, one_run};
use crate::output::Output;
use crate::render;

/// Show one run with its iterations
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger show 0199
  runledger show 0199 --at 120     as it was when the log ended at position 120")]
pub(crate) struct Show {
    /// The run's id, or the beginning of it
    #[arg(value_name = "RUN")]
    run: String,
    /// As of this position of the log
    #[arg(long, value_name = "POSITION")]
    at: Option<u64>,
}

/// A run with its iterations.
#[derive(Serialize)]
struct RunWithIterations {
    #[serde(flatten)]
    run: RunView,
    iterations: Vec<Iteration>,
}

impl Show {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let queries = ledger.queries()?;
        let (mut run, mut iterations) = one_run(&queries, &self.run)?;
        if let Some(at) = self.at {
            let begun = run.first_position;
            (run, iterations) = run_at(&ledger.open_for_reading()?, &run.id, Position(at))?
                .ok_or_else(|| No(format!("run {} had not begun at position {at}; it begins at {begun}", run.id)))?;
        }
        let mut run = RunView::new(run);
        if self.at.is_some() {
            // Whether its owner lives now says nothing about then.
            run.owner_alive = None;
        }
        if output.is_json() {
            output.json(&RunWithIterations { run, iterations })?;
            return Ok(Exit::Done);
        }
        tell(&run, &iterations, output)?;
        Ok(Exit::Done)
    }
}

fn tell(view: &RunView, iterations: &[Iteration], output: &mut Output) -> anyhow::Result<()> {
    let run = &view.run;
    let gone = if view.owner_is_gone() { ", but the process that drove it is gone" } else { "" };
    let mut facts = vec![
        ("run", run.id.to_string()),
        ("session", run.session_id.to_string()),
        ("workflow", run.workflow_name.clone().unwrap_or_else(|| "–".to_owned())),
        ("harness", run.harness.clone().unwrap_or_else(|| "–".to_owned())),
        ("status", format!("{} ({}){gone}", run.status, run.state)),
    ];
    if let Some(reason) = &run.stop_reason {
        facts.push(("reason", reason.clone()));
    }
    facts.push(("iteration", format!("{} of {}", run.iteration, run.max_iterations)));
    facts.push(("started", render::time(run.started_at)));
    if let Some(ended_at) = run.ended_at {
        facts.push(("ended", format!("{}, after {}", render::time(ended_at), view.duration())));
    }
    if let Some(path) = &run.tracker_path {
        facts.push(("tracker", path.clone()));
    }
    facts.push(("tokens", tokens(run.tokens)));
    if let Some(window) = run.tokens.context_window_size {
        let size = run.tokens.context_size.map_or_else(|| "–".to_owned(), render::count);
        facts.push(("context", format!("{size} of {}", render::count(window))));
    }
    if !run.adapter_session_ids.is_empty() {
        let ids: Vec<&str> = run.adapter_session_ids.iter().map(|id| id.as_str()).collect();
        facts.push(("harness sessions", ids.join(", ")));
    }
    facts.push(("positions", format!("{} to {}", run.first_position, run.last_position)));
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in &facts {
        output.line(&format!("{name:width$}  {}", render::plain(value)))?;
    }
    if iterations.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let heads = ["ITER", "OUTCOME", "STARTED", "TOOK", "EXIT", "TOKENS", "TRACKER", "POSITIONS", "ERROR"];
    let mut table = render::table(&heads, output.is_terminal());
    for iteration in iterations {
        table.add_row([
            format!("{}{}", iteration.iteration, continued(&iteration.continuation)),
            iteration.outcome.map_or_else(|| "open".to_owned(), |outcome| outcome.as_str().replace('_', " ")),
            render::time_in(&table, iteration.started_at),
            iteration
                .ended_at
                .map_or_else(|| "–".to_owned(), |at| render::duration(at.0.saturating_sub(iteration.started_at.0))),
            iteration.exit_code.map_or_else(|| "–".to_owned(), |code| code.to_string()),
            render::tokens(&iteration.tokens),
            iteration.tracker.as_ref().map_or_else(|| "–".to_owned(), |tracker| render::bytes(tracker.bytes)),
            match iteration.end_position {
                Some(end) => format!("{} to {end}", iteration.start_position),
                None => format!("{} on", iteration.start_position),
            },
            render::short(iteration.error.as_deref().unwrap_or(""), 60),
        ]);
    }
    for line in render::lines(&table, output.is_terminal()) {
        output.line(&line)?;
    }
    Ok(())
}

fn continued(continuation: &Continuation) -> &'static str {
    match continuation {
        Continuation::Fresh => "",
        Continuation::Resume { .. } => " (resumed)",
        Continuation::ReuseCurrent => " (continued)",
    }
}

fn tokens(tokens: runledger_events::Tokens) -> String {
    if tokens.is_unknown() {
        return "–".to_owned();
    }
    let figure = |figure: Option<u64>| figure.map_or_else(|| "–".to_owned(), render::count);
    format!(
        "{} (input {}, output {}, cache read {}, cache write {})",
        figure(tokens.total),
        figure(tokens.input),
        figure(tokens.output),
        figure(tokens.cache_read),
        figure(tokens.cache_write)
    )
}
