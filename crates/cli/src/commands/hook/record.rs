//! Recording one payload, whatever state the ledger is in, and answering it where the rules of a run say so.
//!
//! Invariants: it never writes read models, never makes a second ledger in the place of one that was there, and waits
//! for no other process longer than a quarter of a second, but where its event would be lost. An event never stands
//! before one of its session that a hook that had ended before had put into a spool: while a spool has events, a new one
//! goes behind them. A rule's decision goes with the event that it is on, and is answered wherever both went.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runledger_store::{AppendError, EventLog, FileId, LogReader, SpoolRecord, StreamAppend, TakeError};

use super::answer::Answer;
use super::ask::{Failure, ask};
use super::call::Asking;
use super::judge::{Judged, Verdict, judge};
use super::payload::Payload;
use super::place::{OpenFault, Place};
use crate::ledger::LedgerArg;
use crate::output::message;
use crate::render;
use crate::spools::Spools;

/// How long a hook takes in what others have spooled, about.
const TAKE_TIME: Duration = Duration::from_millis(200);
/// Reads a payload and records it, and answers it where rules say so; whatever fails is one line on standard error.
///
/// `fails_closed`: where it fails so that rules cannot be kept, the call is denied. `redacts_secrets`: rules see what is
/// recorded, without its secrets, so that the log shows what they decided upon.
pub(crate) fn record(ledger: &LedgerArg, fails_closed: bool, redacts_secrets: bool) {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        message("runledger hook takes a payload on standard input, as a harness gives it; `hook install` sets that up");
    }
    let unknown = |why: &str| failed(why, Asking::PreToolUse, fails_closed);
    let payload = match Payload::read(stdin.lock(), redacts_secrets) {
        Ok(payload) => payload,
        Err(error) => return unknown(&format!("standard input cannot be read: {error}; the payload is lost")),
    };
    let place = match Place::of(ledger) {
        Ok(place) => place,
        Err(error) => return unknown(&format!("{}; the payload is lost", render::chain(&error))),
    };
    let spools = Spools::of(&place.path);
    match payload {
        Payload::Nothing => unknown("an empty payload; there is nothing to record"),
        Payload::Unusable { bytes, reason } => {
            keep_aside(&spools, &bytes, &reason);
            deny_unknown(&reason, Asking::PreToolUse, fails_closed);
        }
        Payload::Event(record) => {
            let Judged { verdict, reader } = judge(&place, &spools, &record, fails_closed);
            take(&place, &spools, *record, reader, verdict, fails_closed);
        }
    }
}

/// Records the event, with the decision where a rule made one, and answers.
fn take(
    place: &Place,
    spools: &Spools,
    record: SpoolRecord,
    reader: Option<LogReader>,
    verdict: Verdict,
    fails_closed: bool,
) {
    match verdict {
        Verdict::NoOpinion => deliver(place, spools, &[record], reader),
        Verdict::Unknown { call, why } => {
            deliver(place, spools, &[record], reader);
            failed(&format!("the rules of its run cannot be read: {why}"), call.asking, fails_closed);
        }
        Verdict::Ruled { call, answer, decision } => {
            deliver(place, spools, &[record, *decision], reader);
            answer.print(call.asking);
        }
        Verdict::Ask(question) => {
            let records = [record];
            deliver(place, spools, &records, reader);
            let [record] = &records;
            if let Err(Failure(why)) = ask(place, record, &question) {
                failed(&format!("nobody could be asked: {why}"), question.call.asking, fails_closed);
            }
        }
    }
}

/// Says what failed; the client decides as it would have without us, unless it is to be denied then.
fn failed(why: &str, asking: Asking, fails_closed: bool) {
    say(why);
    deny_unknown(why, asking, fails_closed);
}

/// Denies the call, where what fails is to deny it.
pub(crate) fn deny_unknown(why: &str, asking: Asking, fails_closed: bool) {
    if fails_closed {
        Answer::Deny { reason: format!("runledger hook --fail-closed: {why}") }.print(asking);
    }
}

pub(crate) fn say(text: &str) {
    message(&format!("runledger: {}", render::plain(text)));
}

fn keep_aside(spools: &Spools, bytes: &[u8], reason: &str) {
    match spools.reject(bytes, reason) {
        Ok(folder) => say(&format!("{reason}; it is kept in `rejected` in {}", folder.display())),
        Err(error) => say(&format!("{reason}; {error}; the payload is lost")),
    }
}

/// Why an event is not in the ledger, or may not be.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Open(#[from] OpenFault),
    #[error("{0}")]
    Append(#[from] AppendError),
    #[error("{0}")]
    Take(#[from] TakeError),
    #[error("{path}: the ledger is gone from its place; put it back, or begin a new one with `exec` or `ingest`")]
    Gone { path: PathBuf },
    #[error("{path}: the ledger was moved while it was written to")]
    Moved { path: PathBuf },
    /// The same, but nobody has to be told: the log answers the event for what it is, should it come twice.
    #[error("{path}: the write-ahead log was not there before")]
    Unsure { path: PathBuf },
    /// Others wait before it.
    #[error("a spool is not empty")]
    Queue,
    #[error("the event is refused: {0}")]
    Refused(String),
}

/// Puts the events of one call of the hook into the ledger, else into a spool.
fn deliver(place: &Place, spools: &Spools, records: &[SpoolRecord], reader: Option<LogReader>) {
    if !spools.is_empty() {
        return queue(place, spools, records);
    }
    match append(place, spools, records, reader) {
        Ok(()) => {}
        Err(Fault::Queue) => queue(place, spools, records),
        Err(Fault::Refused(reason)) => {
            records.iter().for_each(|record| keep_aside(spools, record.event.json().as_bytes(), &reason));
        }
        Err(fault) => records.iter().for_each(|record| spool(spools, record, Some(&fault))),
    }
}

/// Puts the events behind those that wait, then takes in what time allows, themselves included.
fn queue(place: &Place, spools: &Spools, records: &[SpoolRecord]) {
    let until = Instant::now() + TAKE_TIME;
    for (at, record) in records.iter().enumerate() {
        let Err(error) = spools.append(record) else {
            continue;
        };
        // There may be room, and order, behind what is taken in now.
        let rest = &records[at..];
        return match take_in(place, spools, until) {
            Ok(()) if spools.is_empty() => deliver(place, spools, rest, None),
            _ => rest.iter().for_each(|record| say(&format!("{error}; {} is lost", name_of(record)))),
        };
    }
    if let Err(fault) = take_in(place, spools, until) {
        records
            .iter()
            .for_each(|record| say(&format!("{fault}; {} waits in a spool for the next command", name_of(record))));
    }
}

fn take_in(place: &Place, spools: &Spools, until: Instant) -> Result<(), Fault> {
    let path = &place.path;
    let is_missing = !path.exists();
    if is_missing && place.is_file() && spools.ledger_was_there() {
        return Err(Fault::Gone { path: path.to_owned() });
    }
    let log = place.open(is_missing)?;
    // That another process takes in, or that there is more than time allows, is no fault: the next one goes on.
    spools.take_in(&*log, Duration::ZERO, Some(until))?;
    Ok(())
}

fn spool(spools: &Spools, record: &SpoolRecord, fault: Option<&Fault>) {
    match (spools.append(record), fault) {
        (Ok(_), None | Some(Fault::Unsure { .. })) => {}
        (Ok(folder), Some(fault)) => {
            say(&format!("{fault}; {} waits in {} for the next command", name_of(record), folder.display()));
        }
        (Err(_), Some(Fault::Unsure { .. })) => {}
        (Err(error), Some(fault)) => say(&format!("{fault}; {error}; {} is lost", name_of(record))),
        (Err(error), None) => say(&format!("{error}; {} is lost", name_of(record))),
    }
}

fn name_of(record: &SpoolRecord) -> String {
    format!("{} of session {}", record.event.kind(), record.session_id)
}

/// Appends the events to the ledger, in one moment. One that was never there is made.
fn append(place: &Place, spools: &Spools, records: &[SpoolRecord], reader: Option<LogReader>) -> Result<(), Fault> {
    let appends: Result<Vec<StreamAppend>, _> = records.iter().cloned().map(SpoolRecord::into_append).collect();
    let appends = appends.map_err(Fault::Refused)?;
    if !place.is_file() {
        // The copy's file says nothing of where the log is.
        return append_to(&*place.open(true)?, appends);
    }
    let path = &place.path;
    let before = Files::of(path);
    match before.ledger {
        Some(_) => spools.remember(),
        None if spools.ledger_was_there() => return Err(Fault::Gone { path: path.to_owned() }),
        None => {}
    }
    let log = place.open(before.ledger.is_none())?;
    // While somebody else has it open the write-ahead log cannot be begun anew.
    drop(reader);
    // Looked at again with the ledger in its place: while it is not, a spool beside it cannot be seen.
    if !spools.is_empty() {
        return Err(Fault::Queue);
    }
    if before.ledger.is_some() && FileId::of(path) != before.ledger {
        return Err(Fault::Moved { path: path.to_owned() });
    }
    append_to(&*log, appends)?;
    spools.remember();
    before.are_still_at(path)
}

fn append_to(log: &dyn EventLog, appends: Vec<StreamAppend>) -> Result<(), Fault> {
    match log.append_all(appends) {
        Ok(_) => Ok(()),
        Err(error @ AppendError::Storage(_)) => Err(error.into()),
        Err(error) => Err(Fault::Refused(error.to_string())),
    }
}

/// Which files stood at the ledger's path. SQLite finds its write-ahead log by name, so a ledger that is moved between
/// two of its steps may leave a commit in a file that nobody reads again.
struct Files {
    ledger: Option<FileId>,
    wal: Option<FileId>,
}

impl Files {
    fn of(path: &Path) -> Self {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        Self { ledger: FileId::of(path), wal: FileId::of(Path::new(&wal)) }
    }

    fn are_still_at(&self, path: &Path) -> Result<(), Fault> {
        let after = Self::of(path);
        let moved = |path: &Path| Err(Fault::Moved { path: path.to_owned() });
        match (self.ledger, self.wal) {
            _ if after.ledger.is_none() || after.wal.is_none() => moved(path),
            (Some(_), _) if after.ledger != self.ledger => moved(path),
            (_, Some(_)) if after.wal != self.wal => moved(path),
            // The ledger was there and its write-ahead log was not: perhaps it is just being given back.
            (Some(_), None) => Err(Fault::Unsure { path: path.to_owned() }),
            _ => Ok(()),
        }
    }
}
