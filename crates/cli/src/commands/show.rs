//! `show`: one run with its iterations, now or as of a position.

use clap::Args;
use runledger_events::{Continuation, Position};
use runledger_projections::{Iteration, run_at};
use runledger_web::objects::{ForkedFrom, RunWithIterations};

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

impl Show {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let queries = ledger.queries()?;
        let (mut run, mut iterations) = one_run(&queries, &self.run)?;
        if let Some(at) = self.at {
            let begun = run.first_position;
            (run, iterations) = run_at(&ledger.open_for_reading()?, &run.id, Position(at))?
                .ok_or_else(|| No(format!("run {} had not begun at position {at}; it begins at {begun}", run.id)))?;
        }
        let shown = RunWithIterations::new(&queries, run, iterations, self.at.is_some())?;
        if output.is_json() {
            output.json(&shown)?;
            return Ok(Exit::Done);
        }
        tell(&shown, output)?;
        Ok(Exit::Done)
    }
}

fn tell(shown: &RunWithIterations, output: &mut Output) -> anyhow::Result<()> {
    let RunWithIterations { run: view, lineage, iterations } = shown;
    let run = &view.run;
    let is_waiting = run.waiting_for.is_some();
    let gone = if view.owner_is_gone() && !is_waiting { ", but the process that drove it is gone" } else { "" };
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
    if let Some(request) = &run.waiting_for {
        facts.push(("waits for", format!("{request} (runledger context {request})")));
    }
    if run.paused {
        facts.push(("paused", "it waits for the signal resume".to_owned()));
    }
    if let Some(timer) = &run.timer {
        facts.push(("timer", format!("{}, due {}", timer.timer.as_str(), render::time(timer.due_at))));
    }
    if let Some(parent) = &run.parent_run_id {
        facts.push(("part of", parent.to_string()));
    }
    if !lineage.is_empty() {
        let at = |fork: &ForkedFrom| fork.forked_at.map(|at| format!(" at {at}")).unwrap_or_default();
        let forks: Vec<String> = lineage.iter().map(|fork| format!("{}{}", fork.run_id, at(fork))).collect();
        facts.push(("forked from", forks.join(", forked from ")));
    }
    let retries = match run.retries {
        0 => String::new(),
        1 => ", 1 of them a retry".to_owned(),
        retries => format!(", {retries} of them retries"),
    };
    facts.push(("iteration", format!("{} of {}{retries}", run.iteration, run.max_iterations)));
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
    let is_narrow = render::is_narrow(&table);
    if is_narrow {
        table = render::table(&["ITER", "OUTCOME", "STARTED", "TOKENS", "POSITIONS", "ERROR"], output.is_terminal());
    }
    for iteration in iterations {
        let outcome = match (iteration.outcome, &iteration.waiting_for) {
            (Some(outcome), _) => outcome.as_str().replace('_', " "),
            (None, Some(_)) => "waiting".to_owned(),
            (None, None) => "open".to_owned(),
        };
        let took = || {
            let ended_at = iteration.ended_at;
            ended_at.map_or_else(dash, |at| render::duration(at.0.saturating_sub(iteration.started_at.0)))
        };
        let positions = match iteration.end_position {
            Some(end) => format!("{} to {end}", iteration.start_position),
            None => format!("{} on", iteration.start_position),
        };
        let cells = [
            Some(format!("{}{}", iteration.iteration, how(iteration))),
            Some(outcome),
            Some(render::time_in(&table, iteration.started_at)),
            (!is_narrow).then(took),
            (!is_narrow).then(|| iteration.exit_code.map_or_else(dash, |code| code.to_string())),
            Some(render::tokens(&iteration.tokens)),
            (!is_narrow).then(|| iteration.tracker.as_ref().map_or_else(dash, |tracker| render::bytes(tracker.bytes))),
            Some(positions),
            Some(render::short(iteration.error.as_deref().unwrap_or(""), 60)),
        ];
        table.add_row(cells.into_iter().flatten());
    }
    for line in render::lines(&table, output.is_terminal()) {
        output.line(&line)?;
    }
    Ok(())
}

fn dash() -> String {
    "–".to_owned()
}

/// How an iteration came to be, in words.
fn how(iteration: &Iteration) -> String {
    let mut words = Vec::new();
    match &iteration.continuation {
        Continuation::Fresh => {}
        Continuation::Resume { .. } => words.push("resumed".to_owned()),
        Continuation::ReuseCurrent => words.push("continued".to_owned()),
    }
    if let Some(retry) = &iteration.retry {
        words.push(format!("retry: {}", retry.why.as_str()));
    }
    if iteration.attempt > 1 {
        words.push(format!("attempt {}", iteration.attempt));
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
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
