//! `export`: the log as JSON Lines, for another log to take in.

use clap::Args;
use runledger_events::SessionId;

use crate::exit_code::Exit;
use crate::ledger::LedgerArg;
use crate::output::Output;

/// Write the log as JSON Lines; `ingest --format runtime` takes them into another ledger, equal but for the positions
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger export > log.jsonl
  runledger export | runledger --db copy.db ingest --format runtime")]
pub(crate) struct Export {
    /// Events of this session alone
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
}

impl Export {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let reader = ledger.open_for_reading()?;
        reader.export::<anyhow::Error>(self.session.as_ref(), |line| output.line(line))?;
        Ok(Exit::Done)
    }
}
