//! `restore`: puts a backup in the ledger's place, unless events would be lost by it.

use std::path::PathBuf;

use clap::Args;
use runledger_events::Position;
use runledger_store::LogReader;
use serde::Serialize;

use crate::commands::rebuild_projections::bar_of;
use crate::commands::verify::{check_log, tell};
use crate::exit_code::Exit;
use crate::ledger::{LedgerArg, refuse_address};
use crate::output::{Output, message};
use crate::render;

/// Put a backup in the ledger's place, where there is none, or where the backup has all of what is there
///
/// The backup is checked first, and stays. A ledger with events that are not in it is refused, and so is another log. Read
/// models are built from the log again by the next command that reads.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger restore ledger-2026-11-30.db
  runledger --db elsewhere.db restore ledger-2026-11-30.db

Exit status: 0 when the ledger is as the backup; 1 when the backup is not right, or events would be lost; 3 when a file
cannot be opened")]
pub(crate) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Serialize)]
struct RestoreObject {
    ledger: String,
    /// Where the log ended before; none where there was none.
    before: Option<Position>,
    /// Where it ends now.
    position: Position,
}

/// What is done with a ledger on NATS instead.
const ON_NATS: &str = "it has no file to restore: `nats stream restore FOLDER` restores the stream, `runledger push` makes one of a ledger in a file";

impl Restore {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let path = std::path::absolute(ledger.file(ON_NATS)?)?;
        refuse_address(&self.file, "`runledger pull ADDRESS` copies a ledger from servers")?;
        let backup = LogReader::open(&self.file)?;
        let checks = check_log(&backup, Position::START)?;
        if checks.iter().any(|check| !check.ok) {
            let wrong = checks.into_iter().filter(|check| !check.ok);
            wrong.into_iter().try_for_each(|check| tell(check, output))?;
            message("the backup is not right: nothing was restored");
            return Ok(Exit::No);
        }
        let bar = bar_of("restore", "pages", 0);
        let restored = backup.restore(&path, |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        let (ledger, position) = (path.display().to_string(), restored.head.position);
        let before = restored.before.map(|before| before.position);
        if output.is_json() {
            output.json(&RestoreObject { ledger, before, position })?;
            return Ok(Exit::Done);
        }
        let ledger = render::plain(&ledger);
        output.line(&match before {
            None => format!("{ledger}: the log up to position {position}"),
            Some(before) if before == position => format!("{ledger}: has all of the backup, up to position {position}"),
            Some(before) => format!("{ledger}: the log up to position {position}, which ended at {before} before"),
        })?;
        Ok(Exit::Done)
    }
}
