//! `sweep`: tells of runs whose owners are gone that they were interrupted.

use std::sync::Arc;

use clap::Args;
use runledger_events::{RunId, RunStatus, WorkflowState};
use runledger_projections::RunFilter;
use runledger_store::EventLog;
use runledger_workflow::Commands;
use serde::Serialize;

use crate::exit_code::Exit;
use crate::ledger::LedgerArg;
use crate::output::{Output, message};

/// Find runs of this host whose owner is gone, and say so in the log
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger sweep
  runledger sweep --json | jq -r .run_id | xargs -n 1 runledger resume

`exec` and `resume` do the same before they begin.")]
pub(crate) struct Sweep {}

#[derive(Serialize)]
struct Swept<'a> {
    run_id: &'a str,
    session_id: &'a str,
    status: RunStatus,
    iteration: u32,
    last_position: u64,
}

impl Sweep {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        // A ledger that is not there has no runs, and is not made for that answer.
        drop(ledger.open_for_reading()?);
        let log = ledger.open_for_writing()?;
        let swept = sweep(&log, ledger)?;
        for state in &swept {
            if output.is_json() {
                output.json(&Swept {
                    run_id: state.run_id.as_str(),
                    session_id: state.session_id.as_str(),
                    status: state.status,
                    iteration: state.iteration,
                    last_position: state.last_position.0,
                })?;
            } else {
                output.line(&format!("{} {}", state.run_id, state.status))?;
            }
        }
        if swept.is_empty() && !output.is_json() {
            message("no run of this host has lost its owner");
        }
        Ok(Exit::Done)
    }
}

/// Interrupts the runs whose owners are known to be gone.
fn sweep(log: &Arc<dyn EventLog>, ledger: &LedgerArg) -> anyhow::Result<Vec<WorkflowState>> {
    let filter = RunFilter { status: Some(RunStatus::Running), ..RunFilter::default() };
    let running = ledger.queries()?.runs(&filter)?;
    let commands = Commands::open(log.clone())?;
    let mut swept = Vec::new();
    for run in running {
        swept.extend(commands.interrupt_if_abandoned(&run.id)?);
    }
    Ok(swept)
}

/// Sweeps before a command of its own begins, which does not fail with it; of the run that it is on nothing is said.
pub(crate) fn sweep_before(log: &Arc<dyn EventLog>, ledger: &LedgerArg, own: Option<&RunId>) {
    match sweep(log, ledger) {
        Ok(swept) => {
            for state in swept.iter().filter(|state| Some(&state.run_id) != own) {
                message(&format!(
                    "run {} was interrupted: `runledger resume {}` takes it up",
                    state.run_id, state.run_id
                ));
            }
        }
        Err(error) => message(&format!("warning: runs whose owners are gone could not be looked for: {error:#}")),
    }
}
