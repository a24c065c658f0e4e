//! Erasing the content of events: the text goes from the log's file and from its write-ahead log, and an event says who
//! had it erased, and why. Rows, digests and chain stay.
//!
//! Invariants: the event and what it tells of are one transaction; what was erased is never put back (the schema's guard).
//! The file is written anew then, without what its pages keep of rows that were moved or shortened.

use std::path::Path;
use std::time::Duration;

use runledger_events::{EventKind, LogId, Metadata, Position, RuntimeEvent, SessionId, StreamName};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::connection::open_writable;
use crate::error::{RedactError, StorageError};
use crate::expected_version::ExpectedVersion;
use crate::ledger_events::LedgerData;
use crate::log::EventLog;
use crate::new_event::{NewEvent, Receipt, StreamAppend};
use crate::reader::LogReader;
use crate::seal::seal;
use crate::sqlite::empty_wal;
use crate::sqlite_log::{OpenOptions, SqliteLog};
use crate::write::{AppendTransaction, Heads};

/// How long others are waited for, who read what the write-ahead log holds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erase {
    /// The content of these events.
    Events(Vec<Position>),
    /// The content of every event of these sessions, those of their runs and questions among them.
    Sessions(Vec<SessionId>),
}

/// What was erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    /// The event that says so; none where there was nothing left to erase.
    pub receipt: Option<Receipt>,
    /// Events whose content is gone now, and was there before.
    pub events: u64,
    /// Events whose content was gone before, and of which no event told; now one does.
    pub untold: u64,
    /// Where all of these stand, in order.
    pub positions: Vec<Position>,
    /// Whether the text is gone from the files here too, and not from rows alone. Where somebody reads all the while, or
    /// there is no room to write the file anew, it is not yet: [`EventLog::settle`](crate::EventLog::settle) later.
    pub is_settled: bool,
}

impl SqliteLog {
    pub(crate) fn erase(&self, erase: &Erase, reason: &str, by: &str) -> Result<Redacted, RedactError> {
        let path = self.path();
        let options = OpenOptions { create: false, ..OpenOptions::default() };
        let mut connection = open_writable(path, &options, None)?;
        let failed = |source: rusqlite::Error| StorageError::sqlite(path, "erasing", &source);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // Nobody else writes as long as this transaction goes on.
        let (positions, untold) = erase.to_tell(&self.reader()?, &transaction)?;
        let untold = untold.len() as u64;
        let mut receipt = None;
        if positions.is_empty() {
            transaction.commit().map_err(failed)?;
        } else {
            let mut erased = transaction
                .prepare("UPDATE runtime_events SET content = NULL, salt = NULL WHERE position = ?1")
                .map_err(failed)?;
            positions.iter().try_for_each(|position| erased.execute([*position]).map(drop)).map_err(failed)?;
            drop(erased);
            let event = told(self.log_id(), erase.sessions(), &positions, &[], reason, by)?;
            let append =
                StreamAppend { stream: StreamName::redactions(), expected: ExpectedVersion::Any, events: vec![event] };
            let mut heads = Heads::default();
            let mut appending = AppendTransaction::begin(path, self.log_id(), &transaction, &mut heads)?;
            receipt = appending.append(&transaction, seal(path, vec![append])?)?.pop();
            appending.finish(&transaction)?;
            transaction.commit().map_err(failed)?;
            self.tell_listeners();
        }
        let is_settled = write_anew(&connection).unwrap_or_else(|error| {
            tracing::warn!(%error, "the rows are erased, but the log's file could not be written anew");
            false
        });
        let events = positions.len() as u64 - untold;
        let positions = positions.into_iter().map(Position).collect();
        Ok(Redacted { receipt, events, untold, positions, is_settled })
    }
}

/// Writes a log's file anew, and empties its write-ahead log; false where somebody reads all the while.
pub(crate) fn settle(path: &Path, copy_of: Option<&LogId>) -> Result<bool, RedactError> {
    let connection = open_writable(path, &OpenOptions { create: false, ..OpenOptions::default() }, copy_of)?;
    write_anew(&connection).map_err(|source| StorageError::sqlite(path, "clearing", &source).into())
}

impl Erase {
    /// The sessions that it names.
    pub(crate) fn sessions(&self) -> &[SessionId] {
        match self {
            Self::Events(_) => &[],
            Self::Sessions(sessions) => sessions,
        }
    }

    /// Those of the events that have something to erase, and those whose content is gone although nothing tells of it, in order; and
    /// the latter by themselves.
    pub(crate) fn to_tell(
        &self,
        reader: &LogReader,
        connection: &Connection,
    ) -> Result<(Vec<u64>, Vec<u64>), RedactError> {
        let failed = |source: rusqlite::Error| StorageError::sqlite(reader.path(), "erasing", &source);
        let mut positions: Vec<u64> = match self {
            Self::Events(positions) => positions.iter().map(|position| position.0).collect(),
            Self::Sessions(sessions) => of_sessions(connection, sessions).map_err(failed)?,
        };
        let last = last_position(connection).map_err(failed)?;
        if let Some(beyond) = positions.iter().find(|position| !(1..=last).contains(*position)) {
            return Err(RedactError::NoEvent { position: Position(*beyond), head: Position(last) });
        }
        positions.sort_unstable();
        positions.dedup();
        if let Some(position) = first_of_ledger(connection, &positions).map_err(failed)? {
            return Err(RedactError::OfLedger { position: Position(position) });
        }
        Ok(to_tell(connection, &positions, &reader.told_erasures()?).map_err(failed)?)
    }
}

impl LogReader {
    /// The positions whose content was erased in this log, or never came to it, as its events tell. Those that such an event
    /// has in a log that this one was copied from are others.
    pub(crate) fn told_erasures(&self) -> Result<Ranges, StorageError> {
        let mut found = self.told_in(StreamName::redactions())?;
        found.extend(self.told_in(StreamName::arrivals())?);
        Ok(Ranges::new(found))
    }

    /// What the events of a stream tell to be gone of this log, in ranges.
    pub(crate) fn told_in(&self, stream: StreamName) -> Result<Vec<(u64, u64)>, StorageError> {
        let told = self.ledger_data(stream, |position, data| {
            let LedgerData::Told(json) = data else {
                return Vec::new();
            };
            let told: Option<Told> =
                serde_json::from_str(&json).ok().filter(|told: &Told| told.log_id == *self.log_id());
            // It tells of what was before it.
            told.into_iter().flat_map(|told| told.ranges).filter(|(_, last)| *last < position.0).collect()
        })?;
        Ok(told.into_iter().flatten().collect())
    }

    /// Where the last event stands that tells of an erasure, if there is one.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn last_redaction(&self) -> Result<Option<Position>, StorageError> {
        self.query_optional(
            "SELECT position FROM runtime_events
             WHERE stream_key = (SELECT stream_key FROM streams WHERE name = ?1)
             ORDER BY stream_version DESC LIMIT 1",
            [StreamName::redactions().as_str()],
            |row| Ok(Position(row.get(0)?)),
        )
    }
}

/// Every event of the sessions, whatever stream it stands in.
fn of_sessions(connection: &Connection, sessions: &[SessionId]) -> rusqlite::Result<Vec<u64>> {
    let mut statement = connection.prepare(
        "SELECT position FROM runtime_events
         WHERE session_key = (SELECT stream_key FROM streams WHERE name = ?1)
            OR stream_key = (SELECT stream_key FROM streams WHERE name = ?1)",
    )?;
    let mut positions = Vec::new();
    for session in sessions {
        let mut rows = statement.query([StreamName::session(session).as_str()])?;
        while let Some(row) = rows.next()? {
            positions.push(row.get(0)?);
        }
    }
    Ok(positions)
}

fn last_position(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT coalesce(max(position), 0) FROM runtime_events", [], |row| row.get(0))
}

/// The first of the events that tells what was done to the ledger.
fn first_of_ledger(connection: &Connection, positions: &[u64]) -> rusqlite::Result<Option<u64>> {
    let mut name_of =
        connection.prepare("SELECT name FROM runtime_events JOIN streams USING (stream_key) WHERE position = ?1")?;
    for position in positions {
        let name: Option<String> = name_of.query_row([*position], |row| row.get(0)).optional()?;
        if name.and_then(|name| StreamName::new(name).ok()).is_some_and(|name| name.is_of_ledger()) {
            return Ok(Some(*position));
        }
    }
    Ok(None)
}

fn to_tell(connection: &Connection, positions: &[u64], told: &Ranges) -> rusqlite::Result<(Vec<u64>, Vec<u64>)> {
    let mut has_content =
        connection.prepare("SELECT content IS NOT NULL OR salt IS NOT NULL FROM runtime_events WHERE position = ?1")?;
    let (mut found, mut untold) = (Vec::new(), Vec::new());
    for position in positions {
        match has_content.query_row([*position], |row| row.get(0)).optional()? {
            Some(true) => found.push(*position),
            Some(false) if !told.contain(*position) => {
                found.push(*position);
                untold.push(*position);
            }
            Some(false) | None => {}
        }
    }
    Ok((found, untold))
}

/// Ranges of positions, from the first to the last of each: in order, and none within another.
#[derive(Debug, Default)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(crate) fn new(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let is_within = next.0 <= kept.1;
            if is_within {
                kept.1 = kept.1.max(next.1);
            }
            is_within
        });
        Self(ranges)
    }

    pub(crate) fn into_inner(self) -> Vec<(u64, u64)> {
        self.0
    }

    pub(crate) fn contain(&self, position: u64) -> bool {
        let begun = self.0.partition_point(|(first, _)| *first <= position);
        begun.checked_sub(1).and_then(|last| self.0.get(last)).is_some_and(|(_, last)| position <= *last)
    }
}

/// Positions in order, as ranges from the first to the last of each.
pub(crate) fn ranges(positions: &[u64]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for position in positions {
        match ranges.last_mut() {
            Some((_, last)) if position.saturating_sub(*last) <= 1 => *last = *position,
            _ => ranges.push((*position, *position)),
        }
    }
    ranges
}

/// What `ledger.redacted` tells, as far as the log itself needs it.
#[derive(Deserialize)]
struct Told {
    log_id: LogId,
    ranges: Vec<(u64, u64)>,
}

/// The event that tells of it. It names positions, never what stood there.
pub(crate) fn told(
    log_id: &LogId,
    sessions: &[SessionId],
    positions: &[u64],
    stand_ins: &[Box<RawValue>],
    reason: &str,
    by: &str,
) -> Result<NewEvent, RedactError> {
    let events = positions.len();
    redacted(&Data { by, events, log_id, ranges: ranges(positions), reason, session_ids: sessions, stand_ins })
}

/// A `ledger.redacted` event.
pub(crate) fn redacted(data: &impl Serialize) -> Result<NewEvent, RedactError> {
    let of = |detail: String| RedactError::Event { detail };
    let event = Event { data, kind: EventKind::LedgerRedacted.as_str() };
    let json = serde_json::to_string(&event).map_err(|error| of(error.to_string()))?;
    let event = RuntimeEvent::from_json(&json).map_err(|source| of(source.to_string()))?;
    Ok(NewEvent::new(event, Metadata::default())?)
}

#[derive(Serialize)]
struct Event<'a, D> {
    data: &'a D,
    kind: &'a str,
}

/// What is told of an erasure. docs/events.md explains it.
#[derive(Serialize)]
struct Data<'a> {
    by: &'a str,
    events: usize,
    log_id: &'a LogId,
    ranges: Vec<(u64, u64)>,
    reason: &'a str,
    session_ids: &'a [SessionId],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stand_ins: &'a [Box<RawValue>],
}

/// Writes the file anew from its rows, then the write-ahead log into it, and empties that, with the pages in it that still
/// have the text; false where somebody reads them all the while.
///
/// `secure_delete` would not do: a page keeps copies of rows that were moved to another one when the tree grew, years ago.
fn write_anew(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(PATIENCE)?;
    connection.execute_batch("VACUUM")?;
    empty_wal(connection, PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_lie_in_each_other_are_one() {
        let ranges = Ranges::new(vec![(8, 9), (1, 6), (2, 3), (5, 7), (8, 8)]);
        assert_eq!(ranges.0, [(1, 7), (8, 9)]);
        let contained: Vec<u64> = (0..12).filter(|position| ranges.contain(*position)).collect();
        assert_eq!(contained, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(!Ranges::default().contain(1));
    }

    #[test]
    fn positions_become_ranges() {
        assert_eq!(ranges(&[]), []);
        assert_eq!(ranges(&[1, 2, 3, 5, 7, 8]), [(1, 3), (5, 5), (7, 8)]);
        assert_eq!(ranges(&[u64::MAX - 1, u64::MAX]), [(u64::MAX - 1, u64::MAX)]);
    }
}
