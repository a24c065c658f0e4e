//! `resume`: takes up a run that was interrupted, was forked off, or waits for an answer, and carries it to its end.

use anyhow::Context;
use clap::Args;
use runledger_events::{RunId, RunStatus};
use runledger_projections::{Queries, RunFilter};
use runledger_workflow::{LedgerJournal, ResumeSpec, Runner};
use serde_json::json;

use crate::commands::drive::{drive, harness};
use crate::commands::exec::rules_are_enforced;
use crate::commands::sweep::sweep_before;
use crate::exit_code::{Exit, No, Usage};
use crate::ledger::{LedgerArg, one_run};
use crate::output::Output;

/// Take up an interrupted run from the log, and carry it to its end
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger resume 0199              the run whose id begins so
  runledger resume --last            the newest one that can be taken up
  runledger resume 0199 --watch      stay until a question is answered, then go on

A run whose owner is at work is refused; --take-over takes it away: the process that
drives it is shut out, and its harness is ended.

Exit status: as `exec`")]
pub(crate) struct Resume {
    /// The run's id, or the beginning of it
    #[arg(value_name = "RUN", required_unless_present = "last", conflicts_with = "last")]
    run: Option<String>,
    /// The newest run that can be taken up
    #[arg(long)]
    last: bool,
    /// Stay where the run waits for an answer, until somebody has given it
    #[arg(long)]
    watch: bool,
    /// Take the run from an owner that is at work, or of which nothing can be known from here
    #[arg(long)]
    take_over: bool,
    /// Another program for the `command` harness, and its arguments
    #[arg(last = true, value_name = "PROGRAM ARG")]
    program: Vec<String>,
}

impl Resume {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let (path, place) = (ledger.path()?, ledger.place()?);
        let queries = ledger.queries()?;
        let run_id = match &self.run {
            Some(prefix) => one_run(&queries, prefix)?.0.id,
            None => newest(&queries)?,
        };
        let log = ledger.open_for_writing()?;
        // So that the log says of each run what became of its owner, this one's too.
        sweep_before(&log, ledger, Some(&run_id));
        let journal = LedgerJournal::open(log.clone())?;
        let spec = ResumeSpec {
            ledger: Some(place.clone()),
            waits_for_answers: self.watch,
            takes_over: self.take_over,
            ..ResumeSpec::default()
        };
        let mut other_program = false;
        let mut harness_name = String::new();
        let runner = Runner::resume(&journal, &run_id, spec, |name, recorded, project_dir| {
            harness_name = name.to_owned();
            other_program = name != "command" && !self.program.is_empty();
            let program = if self.program.is_empty() { &recorded } else { &self.program };
            harness(name, program, project_dir)
        })
        .with_context(|| format!("resuming {run_id}"))?;
        if other_program {
            return Err(Usage("only the command harness takes a program after `--`".to_owned()).into());
        }
        if let Some(workflow) = runner.workflow() {
            rules_are_enforced(&harness_name, runner.project_dir(), &place, workflow)?;
        }
        let started = json!({
            "run_id": runner.run_id(),
            "session_id": runner.session_id(),
            "workflow": null,
            "tracker_path": runner.tracker_path(),
            "project_dir": runner.project_dir(),
        });
        drive(runner, &log, &path, started, output)
    }
}

/// The newest run that is not over and that nobody is known to drive.
fn newest(queries: &Queries) -> anyhow::Result<RunId> {
    let mut newest: Option<(u64, RunId)> = None;
    for status in [RunStatus::Running, RunStatus::Interrupted] {
        let runs = queries.runs(&RunFilter { status: Some(status), ..RunFilter::default() })?;
        for run in runs {
            let is_driven = status == RunStatus::Running
                && run.owner.as_ref().is_some_and(|owner| runledger_workflow::is_alive(owner) != Some(false));
            if !is_driven && newest.as_ref().is_none_or(|(position, _)| *position < run.first_position.0) {
                newest = Some((run.first_position.0, run.id));
            }
        }
    }
    let none = || No("no run can be taken up: each is over, or its owner is at work".to_owned()).into();
    newest.map(|(_, id)| id).ok_or_else(none)
}
