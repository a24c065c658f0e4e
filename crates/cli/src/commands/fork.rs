//! `fork`: a new run that begins where another one stood.

use clap::{ArgGroup, Args};
use runledger_events::Position;
use runledger_workflow::{Commands, ForkPoint};

use crate::commands::signal::tell_events;
use crate::exit_code::Exit;
use crate::ledger::{LedgerArg, one_run};
use crate::output::{Output, message};

/// Begin a new run where another one stood, in a session of its own
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("point").required(true).args(["at", "iteration"])))]
#[command(after_help = "Examples:
  runledger fork 0199 --iteration 3     as iteration 3 left it
  runledger fork 0199 --at 120          as it stood at position 120
  runledger resume --last               begins the fork

The tracker is written as it was then. Other files of the project stay as they are now:
check out what belongs to that point before you resume.")]
pub(crate) struct Fork {
    /// The run's id, or the beginning of it
    #[arg(value_name = "RUN")]
    run: String,
    /// As it stood at this position of the log
    #[arg(long, value_name = "POSITION")]
    at: Option<u64>,
    /// As this iteration left it
    #[arg(long, value_name = "N")]
    iteration: Option<u32>,
}

impl Fork {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let run = one_run(&ledger.queries()?, &self.run)?.0;
        let point = match (self.at, self.iteration) {
            (Some(position), _) => ForkPoint::Position(Position(position)),
            (None, iteration) => ForkPoint::Iteration(iteration.unwrap_or_default()),
        };
        let commands = Commands::open(ledger.open_for_writing()?)?;
        let forked = commands.fork(&run.id, point)?;
        tell_events(&commands, &forked.receipts, output)?;
        if !output.is_json() {
            message(&format!(
                "forked {} at position {}, behind iteration {}; `runledger resume {}` begins it",
                run.id, forked.forked_at, forked.iteration, forked.run_id
            ));
            match &forked.tracker {
                Some(path) => message(&format!(
                    "its tracker is {}; no other file was restored: the project is as it is now",
                    path.display()
                )),
                None => message("no file was restored: the project is as it is now"),
            }
            output.line(forked.run_id.as_str())?;
        }
        Ok(Exit::Done)
    }
}
