//! `import`: takes over session databases of the two-tier design, and compares what the read models show with their rows.

mod compare;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use runledger_import::{ImportError, OldDatabase, TakenOver, take_over};
use runledger_projections::{Projections, Queries};
use runledger_store::EventLog;

use self::report::Report;
use crate::exit_code::Exit;
use crate::ledger::{LedgerArg, refuse_address};
use crate::output::{Output, message};
use crate::render;

/// Take over session databases of the two-tier design (schema versions 2 to 6)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger import ~/.config/athena/sessions/*/session.db
  runledger import --json session.db | jq '.runs, .feed'

A database is read with its -wal and never changed. Each is taken over whole or
not at all; what is there already is not appended again. Then runs, sessions,
tokens and the feed are compared with the old rows: the report counts what is
equal, what is different, and why.

Exit status: 0 when every database was taken over, 1 when some were refused")]
pub(crate) struct Import {
    /// The databases
    #[arg(value_name = "DB", required = true)]
    databases: Vec<PathBuf>,
}

impl Import {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let mut opened = None;
        let mut exit = Exit::Done;
        for file in &self.databases {
            refuse_address(file, "`runledger pull ADDRESS` copies a ledger from servers")?;
            let report = match import(file, ledger, &mut opened) {
                Ok(report) => report,
                Err(error) => match error.downcast::<ImportError>() {
                    Ok(refused) if !refused.is_of_the_ledger() => {
                        message(&format!("error: {}", render::plain(&refused.to_string())));
                        exit = Exit::No;
                        Report::refused(file, &refused)
                    }
                    Ok(failed) => return Err(failed.into()),
                    Err(error) => return Err(error),
                },
            };
            report.tell(output)?;
            // One database after the other: what is taken over is told before the next one is read.
            output.flush()?;
        }
        Ok(exit)
    }
}

/// The ledger, opened once.
struct Opened {
    log: Arc<dyn EventLog>,
    projections: Projections,
}

impl Opened {
    fn new(ledger: &LedgerArg) -> anyhow::Result<Self> {
        Ok(Self { log: ledger.open_for_writing()?, projections: ledger.projections()? })
    }
}

/// Takes one database over. The ledger is opened, and made, by the first one that can be read.
fn import(file: &Path, ledger: &LedgerArg, opened: &mut Option<Opened>) -> anyhow::Result<Report> {
    let old = OldDatabase::read(file)?;
    let opened = match opened {
        Some(opened) => opened,
        None => opened.insert(Opened::new(ledger)?),
    };
    let taken: TakenOver = take_over(&*opened.log, &old)?;
    opened.projections.catch_up()?;
    let queries = Queries::open(ledger.path()?)?;
    let compared = compare::compare(&old, &taken, &queries)?;
    Ok(Report::taken(&old, &taken, compared))
}
