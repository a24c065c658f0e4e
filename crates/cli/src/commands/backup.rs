//! `backup`: a consistent copy of the log while others write.

use std::path::PathBuf;

use clap::Args;
use runledger_events::Position;
use runledger_projections::Queries;
use runledger_store::LogReader;
use runledger_web::checks::Check;
use serde::Serialize;

use crate::commands::rebuild_projections::bar_of;
use crate::commands::verify::{check_log, tell};
use crate::exit_code::Exit;
use crate::ledger::{LedgerArg, refuse_address};
use crate::output::{Output, message};
use crate::render;

/// Copy the log into a new file, as it is now, while others write
///
/// The copy is a ledger of its own: `--db FILE` reads it. Read models are not copied, they are built from it again; events
/// that hooks have left in the spool are in it once a command has taken them in.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger backup ledger-2026-11-30.db --verify
  runledger --db ledger-2026-11-30.db runs

Exit status: 0 when the copy is made, and is right where that was asked; 1 when it is not right;
3 when it cannot be written, or there is something of that name already")]
pub(crate) struct Backup {
    /// The new file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check the copy, as `verify` checks a log
    #[arg(long)]
    verify: bool,
}

#[derive(Serialize)]
struct BackupObject {
    file: String,
    position: Position,
    chain: String,
    bytes: u64,
    /// Whether every check went well; none where none was asked for.
    verified: Option<bool>,
    /// What did not.
    findings: Vec<Check>,
}

/// What is done with a ledger on NATS instead.
const ON_NATS: &str = "it has no file to copy: `nats stream backup NAME FOLDER` copies the stream, `runledger pull` makes a ledger in a file of it";

impl Backup {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        ledger.file(ON_NATS)?;
        refuse_address(&self.file, "`runledger push ADDRESS` copies the ledger to servers")?;
        let reader = ledger.open_for_reading()?;
        let bar = bar_of("backup", "pages", 0);
        let copied = reader.backup(&self.file, |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        // Pages that nothing refers to are copied too.
        let known = Queries::open(reader.path()).and_then(|queries| queries.may_have_erased_texts(&reader));
        // How far it is cleared stands in the read models' file.
        if known.map_or_else(|_| reader.last_redaction().map(|last| last.is_some()), Ok)? {
            message(
                "an erasure is not through: the copy may have, in free pages, what was erased; `runledger doctor` clears the ledger, \
                 then make the copy again",
            );
        }
        let checks = match self.verify {
            true => check_log(&LogReader::open(&self.file)?, Position::START)?,
            false => Vec::new(),
        };
        let is_right = checks.iter().all(|check| check.ok);
        let file = std::path::absolute(&self.file)?.display().to_string();
        if output.is_json() {
            output.json(&BackupObject {
                file,
                position: copied.head.position,
                chain: copied.head.chain.to_string(),
                bytes: copied.bytes,
                verified: self.verify.then_some(is_right),
                findings: checks.into_iter().filter(|check| !check.ok).collect(),
            })?;
        } else {
            let (position, bytes) = (copied.head.position, render::bytes(copied.bytes));
            output.line(&format!("{}: the log up to position {position}, {bytes}", render::plain(&file)))?;
            checks.into_iter().try_for_each(|check| tell(check, output))?;
        }
        Ok(if is_right { Exit::Done } else { Exit::No })
    }
}
