//! `push` and `pull`: a ledger copied into another one, whatever engines keep them.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::commands::rebuild_projections::bar_of;
use crate::exit_code::Exit;
use crate::ledger::LedgerArg;
use crate::output::{Output, message};
use crate::render;

/// Copy this ledger into another one
///
/// Every stream keeps its versions, ids, times and order, which their digests show; positions are the other ledger's own. What is there
/// already is not copied again, so a copy that was cut off is gone on with by the same command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger --db ledger.db push nats://nats-1.example:4222,nats-2.example:4222/team")]
pub(crate) struct Push {
    /// The other ledger: a path, or an address
    #[arg(value_name = "LEDGER")]
    to: PathBuf,
}

/// Copy another ledger into this one
///
/// As `push`, the other way round.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger --db copy.db pull nats://nats-1.example:4222/team")]
pub(crate) struct Pull {
    /// The other ledger: a path, or an address
    #[arg(value_name = "LEDGER")]
    from: PathBuf,
}

#[derive(Serialize)]
struct TransferObject {
    from: String,
    to: String,
    appended: u64,
    known: u64,
}

impl Push {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        copy(ledger, &LedgerArg::new(Some(self.to.clone())), output)
    }
}

impl Pull {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        copy(&LedgerArg::new(Some(self.from.clone())), ledger, output)
    }
}

fn copy(from: &LedgerArg, to: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
    let reader = from.open_for_reading()?;
    let log = to.open_for_writing()?;
    let bar = bar_of("copy", "events", reader.head()?.position.0);
    let done = reader.copy_into(&*log, |events| bar.set_position(events))?;
    bar.finish_and_clear();
    let (from, to) = (from.place()?.display().to_string(), to.place()?.display().to_string());
    if output.is_json() {
        output.json(&TransferObject { from, to, appended: done.appended, known: done.known })?;
        return Ok(Exit::Done);
    }
    let (appended, known) = (render::count(done.appended), render::count(done.known));
    output.line(&format!("{appended} events copied"))?;
    if done.known > 0 {
        message(&format!("{known} were there already"));
    }
    Ok(Exit::Done)
}
