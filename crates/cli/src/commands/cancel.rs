//! `cancel`: asks a run to end, and with it the runs within it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use runledger_events::RunId;
use runledger_projections::{Projections, Queries};
use runledger_store::{EventLog, Receipt};
use runledger_workflow::{CommandError, Commands, current_user};

use crate::commands::signal::tell_events;
use crate::exit_code::Exit;
use crate::ledger::{LedgerArg, one_run};
use crate::output::{Output, message};

/// End a run and its sub-runs, from any process
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger cancel 0199

The process that drives the run ends its harness within 200 ms; a run that nobody drives
is ended here.")]
pub(crate) struct Cancel {
    /// The run's id, or the beginning of it
    #[arg(value_name = "RUN")]
    run: String,
}

impl Cancel {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let queries = ledger.queries()?;
        let run = one_run(&queries, &self.run)?.0;
        let log = Arc::new(ledger.open_for_writing()?);
        let commands = Commands::open(log.clone())?;
        let cancelled = commands.cancel(&run.id, &current_user())?;
        let mut receipts = cancelled.receipts;
        receipts.extend(cancel_all_below(&commands, &queries, &run.id)?);
        tell_events(&commands, &receipts, output)?;
        if !output.is_json() {
            let how = if cancelled.is_over { "cancelled; nobody drove it" } else { "cancel requested" };
            message(&format!("{} {how}", run.id));
        }
        Ok(Exit::Done)
    }
}

/// Cancels the runs within a run that has just been cancelled in this process.
pub(crate) fn cancel_below(log: &Arc<EventLog>, path: &Path, run_id: &RunId) -> anyhow::Result<()> {
    Projections::open(path)?.catch_up()?;
    let queries = Queries::open(path)?;
    cancel_all_below(&Commands::open(log.clone())?, &queries, run_id)?;
    Ok(())
}

/// Asks every run within a run to end.
fn cancel_all_below(commands: &Commands, queries: &Queries, run_id: &RunId) -> anyhow::Result<Vec<Receipt>> {
    let mut receipts = Vec::new();
    let mut seen = HashSet::from([run_id.clone()]);
    let mut open = vec![run_id.clone()];
    while let Some(parent) = open.pop() {
        for child in queries.children(&parent)? {
            if !seen.insert(child.id.clone()) {
                continue;
            }
            open.push(child.id.clone());
            match commands.cancel(&child.id, &current_user()) {
                Ok(cancelled) => receipts.extend(cancelled.receipts),
                Err(CommandError::Over { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(receipts)
}
