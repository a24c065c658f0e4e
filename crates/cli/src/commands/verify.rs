//! `verify`: checks the log itself, and compares every read model with a fresh fold of it.

use std::path::{Path, PathBuf};

use clap::Args;
use runledger_events::Position;
use runledger_projections::{Projections, Verified};
use runledger_store::{LogReader, LogReport, SealFinding, SealPublicKey, SignedHead};
use serde::Serialize;

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

/// One check, and what it came to.
#[derive(Serialize)]
pub(crate) struct Check {
    pub(crate) check: String,
    pub(crate) ok: bool,
    pub(crate) detail: Option<String>,
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
                check_seals("seals held", &reader, held, &keys).unwrap_or_else(|error| failed("seals held", &error)),
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
    let bar = bar("log", reader.head()?.position);
    let report = reader.verify_since(since, |position| bar.set_position(position.0))?;
    bar.finish_and_clear();
    let mut checks = Vec::new();
    // Pages are read as a whole, or not at all.
    let is_made =
        |name: &&&str| since == Position::START || **name != "integrity" || report.counts.contains_key(**name);
    for name in LogReport::CHECKS.iter().filter(is_made) {
        let check = format!("log {name}");
        let count = report.counts.get(name).copied().unwrap_or_default();
        if count == 0 {
            let detail = (*name == "positions").then(|| {
                let behind = if since == Position::START { String::new() } else { format!(" behind position {since}") };
                let events = format!("{} events{behind}", render::count(report.events));
                match report.erased {
                    0 => events,
                    erased => format!("{events}, the content of {} erased", render::count(erased)),
                }
            });
            checks.push(Check { check, ok: true, detail });
            continue;
        }
        let told = report.findings.iter().filter(|finding| finding.check == *name);
        let mut left = count;
        for finding in told {
            left -= 1;
            let detail = match finding.position {
                Some(position) => format!("position {position}: {}", finding.detail),
                None => finding.detail.clone(),
            };
            checks.push(Check { check: check.clone(), ok: false, detail: Some(detail) });
        }
        if left > 0 {
            checks.push(Check { check, ok: false, detail: Some(format!("and {} more", render::count(left))) });
        }
    }
    Ok(checks)
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

/// The seals in the log itself. Where they cannot be read, that is one finding beside the others.
pub(crate) fn check_own_seals(reader: &LogReader, keys: &[SealPublicKey]) -> Check {
    let check = "log seals";
    let seals = reader.seals().map_err(anyhow::Error::from).and_then(|seals| check_seals(check, reader, seals, keys));
    seals.unwrap_or_else(|error| failed(check, &error))
}

fn failed(check: &str, error: &anyhow::Error) -> Check {
    Check { check: check.to_owned(), ok: false, detail: Some(render::chain(error)) }
}

/// All seals in one check: the first one that does not fit says where the log was changed at the latest.
fn check_seals(
    name: &str,
    reader: &LogReader,
    seals: Vec<Result<SignedHead, SealFinding>>,
    keys: &[SealPublicKey],
) -> anyhow::Result<Check> {
    let count = seals.len();
    let mut wrong = Vec::new();
    let mut last = Position::START;
    for seal in seals {
        let finding = match seal {
            Ok(seal) => {
                last = last.max(seal.position);
                reader.check_seal(&seal, keys)?
            }
            Err(finding) => Some(finding),
        };
        wrong.extend(finding.map(|SealFinding { position, detail }| match position {
            Some(position) => format!("seal of position {position}: {detail}"),
            None => detail,
        }));
    }
    let detail = match wrong.as_slice() {
        [] if count == 0 => {
            (!keys.is_empty()).then(|| "there is none: what was sealed may be gone with its seal".to_owned())
        }
        [] => Some(format!("{} fit, the last one of position {last}", render::count(count as u64))),
        [one] => Some(one.clone()),
        [first, rest @ ..] => Some(format!("{first}; and {} more do not fit", render::count(rest.len() as u64))),
    };
    let is_missing = !keys.is_empty() && count == 0;
    Ok(Check { check: name.to_owned(), ok: wrong.is_empty() && !is_missing, detail })
}

/// What is found of the log is told in any case, so what is wrong here is a finding too.
fn check_projections(ledger: &LedgerArg) -> Vec<Check> {
    let failed = |detail: String| Check { check: "projections".to_owned(), ok: false, detail: Some(detail) };
    let mut projections = match ledger.projections() {
        Ok(projections) => projections,
        Err(error) => return vec![failed(render::chain(&error))],
    };
    let mut checks = Vec::new();
    match projections.lost_events() {
        Ok(None) => {}
        // The read models are the witness: they are left as they are.
        Ok(Some((position, detail))) => return vec![failed(format!("position {position}: {detail}"))],
        Err(error) => checks.push(failed(error.to_string())),
    }
    // A log that cannot be folded to its head is told by the comparison below, as far as it goes.
    if let Err(error) = projections.catch_up() {
        checks.push(failed(error.to_string()));
    }
    for name in projections.names() {
        checks.extend(check_projection(&mut projections, name));
    }
    checks
}

fn check_projection(projections: &mut Projections, name: &str) -> Vec<Check> {
    let head = projections.reader().head().map(|head| head.position).unwrap_or_default();
    let bar = bar(name, head);
    let verified = projections.verify(name, &mut |position| bar.set_position(position.0));
    bar.finish_and_clear();
    let check = format!("projection {name}");
    match verified {
        Ok(verified) => findings(&check, &verified),
        Err(error) => vec![Check { check, ok: false, detail: Some(error.to_string()) }],
    }
}

fn findings(check: &str, verified: &Verified) -> Vec<Check> {
    let new = |ok, detail| Check { check: check.to_owned(), ok, detail: Some(detail) };
    if verified.different == 0 {
        let rows = if verified.rows == 1 { "row" } else { "rows" };
        return vec![new(true, format!("{} {rows} at position {}", render::count(verified.rows), verified.position))];
    }
    let told =
        verified.differences.iter().map(|row| new(false, format!("{}, row {}: {}", row.table, row.key, row.detail)));
    let mut checks: Vec<Check> = told.collect();
    let left = verified.different.saturating_sub(u64::try_from(checks.len()).unwrap_or(u64::MAX));
    if left > 0 {
        checks.push(new(false, format!("and {} more", render::count(left))));
    }
    checks
}
