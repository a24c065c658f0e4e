//! `verify`: checks the log itself, and compares every read model with a fresh fold of it.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use runledger_events::Position;
use runledger_store::{LogReader, SealPublicKey, SignedHead};
use runledger_web::checks::{self, Check, PROJECTIONS, check_own_seals, check_seals};

use crate::commands::rebuild_projections::bar;
use crate::exit_code::{CouldNotStart, Exit, Usage};
use crate::ledger::LedgerArg;
use crate::output::Output;
use crate::render;

/// Check the log, and compare every read model with a fresh fold of it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger verify
  runledger verify --json | jq 'select(.ok | not)'
  runledger verify --since 120000
  runledger verify --seals seals.jsonl --key PUBLIC-KEY

Exit status: 0 when all is well, 1 when something differs")]
pub(crate) struct Verify {
    /// Check the log behind this position alone, which was checked before; read models are not compared
    #[arg(long, value_name = "POSITION")]
    since: Option<u64>,
    /// Check the log against the seals in this file too, one a line, as `seal --json` prints them; - for standard input
    #[arg(long, value_name = "FILE")]
    seals: Option<PathBuf>,
    /// The public key that the seals have to be signed with: the key, or a file that has it; several times where it changed
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
}

impl Verify {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let reader = ledger.open_for_reading()?;
        let keys: Vec<_> = self.key.iter().map(|key| public_key(key)).collect::<anyhow::Result<_>>()?;
        let held = self.seals.as_deref().map(read_seals).transpose()?;
        let mut checks = check_log(&reader, Position(self.since.unwrap_or(0)))?;
        checks.push(check_own_seals(&reader, &keys));
        if let Some(held) = held {
            let held = held.into_iter().map(Ok).collect();
            checks.push(
                check_seals("seals held", &reader, held, &keys)
                    .unwrap_or_else(|error| Check::failed("seals held", &error)),
            );
        }
        if self.since.is_none() {
            checks.extend(check_projections(ledger));
        }
        let is_well = checks.iter().all(|check| check.ok);
        for check in checks {
            if output.is_json() {
                output.json(&check)?;
            } else {
                tell(check, output)?;
            }
        }
        Ok(if is_well { Exit::Done } else { Exit::No })
    }
}

/// One line for a person.
pub(crate) fn tell(check: Check, output: &mut Output) -> anyhow::Result<()> {
    let mark = if check.ok { "ok   " } else { "WRONG" };
    let detail = check.detail.map(|detail| format!("  {}", render::plain(&detail))).unwrap_or_default();
    output.line(format!("{mark}  {:<32}{detail}", check.check).trim_end())
}

/// The log alone behind a position, each check of it.
pub(crate) fn check_log(reader: &LogReader, since: Position) -> anyhow::Result<Vec<Check>> {
    with_bars(|progress| Ok(checks::check_log(reader, since, progress)?))
}

fn check_projections(ledger: &LedgerArg) -> Vec<Check> {
    match ledger.projections() {
        Ok(mut projections) => with_bars(|progress| checks::check_projections(&mut projections, progress)),
        Err(error) => vec![Check::failed(PROJECTIONS, &render::chain(&error))],
    }
}

/// Shows how far it is with each thing that is looked at.
fn with_bars<T>(check: impl FnOnce(checks::Progress<'_>) -> T) -> T {
    let mut shown: Option<(String, ProgressBar)> = None;
    let checked = check(&mut |name, position, head| {
        if shown.as_ref().is_none_or(|(known, _)| known != name)
            && let Some((_, before)) = shown.replace((name.to_owned(), bar(name, head)))
        {
            before.finish_and_clear();
        }
        if let Some((_, bar)) = &shown {
            bar.set_position(position.0);
        }
    });
    if let Some((_, bar)) = shown {
        bar.finish_and_clear();
    }
    checked
}

/// The log from its beginning, and every read model.
pub(crate) fn check_all(ledger: &LedgerArg, reader: &LogReader) -> anyhow::Result<Vec<Check>> {
    let mut checks = check_log(reader, Position::START)?;
    checks.extend(check_projections(ledger));
    Ok(checks)
}

/// The key that was given, or that stands in the file that was named.
fn public_key(text: &str) -> anyhow::Result<SealPublicKey> {
    let given = SealPublicKey::parse(text).or_else(|error| match std::fs::read_to_string(text) {
        Ok(content) => SealPublicKey::parse(&content),
        Err(_) => Err(error),
    });
    given.map_err(|error| Usage(format!("--key {text}: {error}")).into())
}

/// The seals that somebody has kept.
fn read_seals(file: &Path) -> anyhow::Result<Vec<SignedHead>> {
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let name = file.display();
    let text = text.map_err(|error| CouldNotStart(format!("{name}: the seals cannot be read: {error}")))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let seals: Vec<SignedHead> = lines
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| {
                Usage(format!("{name}, line {number}: this is no seal: {error}; `seal --json` prints them"))
            })
        })
        .collect::<Result<_, _>>()?;
    if seals.is_empty() {
        return Err(Usage(format!("{name}: there is no seal in it; `seal --json` prints them")).into());
    }
    Ok(seals)
}
