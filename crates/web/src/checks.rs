//! Every check of a ledger, and what it came to: of the log, of its seals, and of each read model against a fresh fold.

use runledger_events::Position;
use runledger_events::words::count;
use runledger_projections::{Projections, Verified};
use runledger_store::{LogReader, LogReport, SealFinding, SealPublicKey, SignedHead, StorageError};
use schemars::JsonSchema;
use serde::Serialize;

/// Hears what is looked at, where that is, and where it ends.
pub type Progress<'a> = &'a mut dyn FnMut(&str, Position, Position);

/// The check of the read models' file as a whole.
pub const PROJECTIONS: &str = "projections";

/// One check, and what it came to.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Check {
    /// Its name: `log digests`, `projection sessions`, …
    pub check: String,
    /// Whether all is well.
    pub ok: bool,
    /// What it found, or looked at.
    pub detail: Option<String>,
}

impl Check {
    /// One that could not be made.
    pub fn failed(check: &str, error: &dyn std::fmt::Display) -> Self {
        Self { check: check.to_owned(), ok: false, detail: Some(error.to_string()) }
    }
}

/// The log alone behind a position, each check of it.
///
/// # Errors
/// [`StorageError`] when the file cannot be read at all.
pub fn check_log(reader: &LogReader, since: Position, progress: Progress<'_>) -> Result<Vec<Check>, StorageError> {
    let head = reader.head()?.position;
    let report = reader.verify_since(since, |position| progress("log", position, head))?;
    let mut checks = Vec::new();
    // Pages are read as a whole, or not at all.
    let is_made =
        |name: &&&str| since == Position::START || **name != "integrity" || report.counts.contains_key(**name);
    for name in LogReport::CHECKS.iter().filter(is_made) {
        let check = format!("log {name}");
        let found = report.counts.get(name).copied().unwrap_or_default();
        if found == 0 {
            let detail = (*name == "positions").then(|| {
                let behind = if since == Position::START { String::new() } else { format!(" behind position {since}") };
                let events = format!("{} events{behind}", count(report.events));
                match report.erased {
                    0 => events,
                    erased => format!("{events}, the content of {} erased", count(erased)),
                }
            });
            checks.push(Check { check, ok: true, detail });
            continue;
        }
        let told = report.findings.iter().filter(|finding| finding.check == *name);
        let mut left = found;
        for finding in told {
            left -= 1;
            let detail = match finding.position {
                Some(position) => format!("position {position}: {}", finding.detail),
                None => finding.detail.clone(),
            };
            checks.push(Check { check: check.clone(), ok: false, detail: Some(detail) });
        }
        if left > 0 {
            checks.push(Check { check, ok: false, detail: Some(format!("and {} more", count(left))) });
        }
    }
    Ok(checks)
}

/// The seals in the log itself. Where they cannot be read, that is one finding beside the others.
pub fn check_own_seals(reader: &LogReader, keys: &[SealPublicKey]) -> Check {
    let check = "log seals";
    let seals = reader.seals().and_then(|seals| check_seals(check, reader, seals, keys));
    seals.unwrap_or_else(|error| Check::failed(check, &error))
}

/// All seals in one check: the first one that does not fit says where the log was changed at the latest.
///
/// # Errors
/// [`StorageError`] when the log cannot be read.
pub fn check_seals(
    name: &str,
    reader: &LogReader,
    seals: Vec<Result<SignedHead, SealFinding>>,
    keys: &[SealPublicKey],
) -> Result<Check, StorageError> {
    let held = seals.len();
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
        [] if held == 0 => {
            (!keys.is_empty()).then(|| "there is none: what was sealed may be gone with its seal".to_owned())
        }
        [] => Some(format!("{} fit, the last one of position {last}", count(held as u64))),
        [one] => Some(one.clone()),
        [first, rest @ ..] => Some(format!("{first}; and {} more do not fit", count(rest.len() as u64))),
    };
    let is_missing = !keys.is_empty() && held == 0;
    Ok(Check { check: name.to_owned(), ok: wrong.is_empty() && !is_missing, detail })
}

/// What is found of the log is told in any case, so what is wrong here is a finding too.
pub fn check_projections(projections: &mut Projections, progress: Progress<'_>) -> Vec<Check> {
    let failed = |detail: String| Check { check: PROJECTIONS.to_owned(), ok: false, detail: Some(detail) };
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
        checks.extend(check_projection(projections, name, progress));
    }
    checks
}

fn check_projection(projections: &mut Projections, name: &str, progress: Progress<'_>) -> Vec<Check> {
    let head = projections.reader().head().map(|head| head.position).unwrap_or_default();
    let verified = projections.verify(name, &mut |position| progress(name, position, head));
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
        return vec![new(true, format!("{} {rows} at position {}", count(verified.rows), verified.position))];
    }
    let told =
        verified.differences.iter().map(|row| new(false, format!("{}, row {}: {}", row.table, row.key, row.detail)));
    let mut checks: Vec<Check> = told.collect();
    let left = verified.different.saturating_sub(u64::try_from(checks.len()).unwrap_or(u64::MAX));
    if left > 0 {
        checks.push(new(false, format!("and {} more", count(left))));
    }
    checks
}
