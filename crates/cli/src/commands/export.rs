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
  runledger export | runledger --db copy.db ingest --format runtime
  runledger export --session s1 --share > for-others.jsonl")]
pub(crate) struct Export {
    /// Events of this session alone
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// For others to see: facts alone, as of events that were erased: kinds, times, names, figures, digests. Of questions,
    /// decisions and ends of runs the call's pattern and the reason are facts too (docs/events.md); it can be taken in and
    /// verified
    #[arg(long)]
    share: bool,
    /// With what was said and done too, after all
    #[arg(long, requires = "share")]
    with_content: bool,
}

impl Export {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let reader = ledger.open_for_reading()?;
        let with_content = !self.share || self.with_content;
        reader.export::<anyhow::Error>(self.session.as_ref(), with_content, |line| output.json_line(line))?;
        Ok(Exit::Done)
    }
}
