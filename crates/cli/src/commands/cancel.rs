//! `cancel`: asks a run to end, and with it the runs within it.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use runledger_events::RunId;
use runledger_projections::{Projections, Queries};
use runledger_store::EventLog;
use runledger_web::{CancelError, cancel_all};
use runledger_workflow::{Commands, current_user};

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
        let log = ledger.open_for_writing()?;
        let commands = Commands::open(log.clone())?;
        let (is_over, receipts) = cancel_all(&commands, &queries, &run.id, &current_user()).map_err(in_words)?;
        tell_events(&commands, &receipts, output)?;
        if !output.is_json() {
            let how = if is_over { "cancelled; nobody drove it" } else { "cancel requested" };
            message(&format!("{} {how}", run.id));
        }
        Ok(Exit::Done)
    }
}

/// Cancels the runs within a run that has just been cancelled in this process.
pub(crate) fn cancel_below(log: &Arc<dyn EventLog>, path: &Path, run_id: &RunId) -> anyhow::Result<()> {
    Projections::open(path)?.catch_up()?;
    let queries = Queries::open(path)?;
    runledger_web::cancel_below(&Commands::open(log.clone())?, &queries, run_id, &current_user()).map_err(in_words)?;
    Ok(())
}

fn in_words(error: CancelError) -> anyhow::Error {
    match error {
        CancelError::Command(error) => error.into(),
        CancelError::Read(error) => error.into(),
    }
}
