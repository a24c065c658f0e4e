//! Erasing in a log that another engine keeps: what has to be told before the engine deletes events, and what each copy does when it
//! hears of it.
//!
//! Invariants: who tells of an erasure tells a stand-in for each event: the event as `export` writes it without its content, which
//! comes to the same digest. Copies erase what is told of, and who never had the event takes the stand-in. The last event of a stream
//! is never deleted, since the engine takes an append by where that stands; so where it is erased, a mark comes behind it.

use runledger_events::{LogId, Position, StreamName, StreamVersion};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::copied_log::CopiedLog;
use crate::error::{ReadError, RedactError};
use crate::expected_version::ExpectedVersion;
use crate::exported::{copied_event, exported_line};
use crate::new_event::StreamAppend;
use crate::reader::{EventFilter, LogReader, Read};
use crate::redact::{Erase, Ranges, ranges, redacted, settle, told};
use crate::row::RawEvent;

/// Events that are told of at once, at the most: each may need a mark, and the engine takes so many events as one.
const AT_ONCE: usize = 500;

/// A part of an erasure: what is to be appended, all or nothing, before the engine deletes anything.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// What tells of it, and the marks behind last events.
    pub appends: Vec<StreamAppend>,
    /// Where the events stand, in order.
    pub positions: Vec<Position>,
    /// Those of them whose content was gone before, and of which no event told.
    pub untold: u64,
}

/// What tells of an erasure, as far as copies need it.
#[derive(Deserialize)]
struct Told<'a> {
    log_id: LogId,
    #[serde(borrow, default)]
    stand_ins: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    data: Told<'a>,
}

/// What of a stand-in says which row it stands for.
#[derive(Deserialize)]
struct StandIn {
    position: Position,
    digest: String,
}

/// What a mark says: nothing but whose it is.
#[derive(Serialize)]
struct Mark<'a> {
    log_id: &'a LogId,
}

impl CopiedLog {
    /// The next part of an erasure, by the copy as it is: what is left of it to tell up to a position; none where nothing is. Its
    /// stand-ins have about `bytes_max` bytes.
    ///
    /// # Errors
    /// [`RedactError`], as [`EventLog::redact`](crate::EventLog::redact).
    pub fn next_erasure(
        &self,
        erase: &Erase,
        reason: &str,
        by: &str,
        up_to: Position,
        bytes_max: usize,
    ) -> Result<Option<Erasure>, RedactError> {
        let reader = self.reader()?;
        let snapshot = reader.connection().unchecked_transaction().map_err(|source| reader.storage(&source))?;
        let (mut positions, _) = erase.to_tell(&reader, reader.connection())?;
        positions.retain(|position| *position <= up_to.0);
        let mut part = Part::default();
        for (first, last) in ranges(&positions) {
            let after = Position(first.saturating_sub(1));
            let taken = reader.scan(&EventFilter::default(), after, Position(last), Read::All, true, |raw| {
                part.take(self, &reader, raw)?;
                Ok(!part.is_full(bytes_max))
            });
            taken.map_err(|error| match error {
                ReadError::Storage(error) => RedactError::from(error),
                error => RedactError::Event { detail: error.to_string() },
            })?;
            if part.is_full(bytes_max) {
                break;
            }
        }
        drop(snapshot);
        part.erasure(&self.log_id, erase, reason, by)
    }

    /// What was told to be erased, in ranges of positions from the first to the last of each.
    ///
    /// # Errors
    /// [`RedactError`] when the copy cannot be read.
    pub fn redactions(&self) -> Result<Vec<(u64, u64)>, RedactError> {
        Ok(self.reader()?.told_in(StreamName::redactions())?)
    }

    /// Those of the positions that the engine can delete: the event was erased here, so that something stands in for it, and is not the
    /// last one of its stream.
    ///
    /// # Errors
    /// [`RedactError`] when the copy cannot be read.
    pub fn deletable(&self, positions: impl IntoIterator<Item = u64>) -> Result<Vec<u64>, RedactError> {
        let reader = self.reader()?;
        let failed = |source: rusqlite::Error| reader.storage(&source);
        // What came without its content has none on the servers either.
        let arrived = Ranges::new(reader.told_in(StreamName::arrivals())?);
        let mut can_go = reader
            .connection()
            .prepare(
                "SELECT content IS NULL AND EXISTS (SELECT 1 FROM runtime_events AS next
                     WHERE next.stream_key = event.stream_key AND next.stream_version = event.stream_version + 1)
                 FROM runtime_events AS event WHERE position = ?1",
            )
            .map_err(failed)?;
        let mut found = Vec::new();
        for position in positions.into_iter().filter(|position| !arrived.contain(*position)) {
            if can_go.query_row([position], |row| row.get(0)).optional().map_err(failed)? == Some(true) {
                found.push(position);
            }
        }
        Ok(found)
    }

    /// Writes the copy's file anew, as [`EventLog::settle`](crate::EventLog::settle).
    ///
    /// # Errors
    /// As [`EventLog::settle`](crate::EventLog::settle).
    pub fn settle(&self) -> Result<bool, RedactError> {
        settle(&self.path, Some(&self.log_id))
    }
}

/// Events that are to be told of together.
#[derive(Default)]
struct Part {
    positions: Vec<u64>,
    stand_ins: Vec<Box<RawValue>>,
    bytes: usize,
    untold: u64,
    /// Streams whose last event is among them, with its version.
    marked: Vec<(StreamName, StreamVersion)>,
}

impl Part {
    fn is_full(&self, bytes_max: usize) -> bool {
        self.positions.len() >= AT_ONCE || self.bytes >= bytes_max
    }

    fn take(&mut self, copy: &CopiedLog, reader: &LogReader, raw: RawEvent<'_>) -> Result<(), ReadError> {
        let position = raw.position;
        let (stream, version) = (raw.stream.clone(), raw.stream_version);
        let is_last = reader.stream_version(&stream)? == version;
        if is_mark(reader, &copy.log_id, &raw) {
            return Ok(());
        }
        self.untold += u64::from(raw.content.is_none());
        let line = exported_line(reader.codec(), &raw.without_content())?;
        self.bytes += line.len();
        self.stand_ins
            .push(RawValue::from_string(line).map_err(|_| ReadError::Column { position, column: "content" })?);
        self.positions.push(position.0);
        if is_last {
            self.marked.push((stream, version));
        }
        Ok(())
    }

    fn erasure(self, log_id: &LogId, erase: &Erase, reason: &str, by: &str) -> Result<Option<Erasure>, RedactError> {
        if self.positions.is_empty() {
            return Ok(None);
        }
        let event = told(log_id, erase.sessions(), &self.positions, &self.stand_ins, reason, by)?;
        let stream = StreamName::redactions();
        let mut appends = vec![StreamAppend { stream, expected: ExpectedVersion::Any, events: vec![event] }];
        for (stream, version) in self.marked {
            // Where something else came behind it meanwhile, nothing is told, and all is looked at again.
            let expected = ExpectedVersion::Exact(version);
            appends.push(StreamAppend { stream, expected, events: vec![redacted(&Mark { log_id })?] });
        }
        let positions = self.positions.into_iter().map(Position).collect();
        Ok(Some(Erasure { appends, positions, untold: self.untold }))
    }
}

/// Whether an event is a mark, word for word, so that nothing else passes for one.
fn is_mark(reader: &LogReader, log_id: &LogId, raw: &RawEvent<'_>) -> bool {
    let json = raw.content.and_then(|content| reader.codec().decode_content(content).ok());
    let mark = redacted(&Mark { log_id }).ok();
    json.is_some() && json.as_deref() == mark.as_ref().and_then(|mark| mark.json())
}

/// Erases in a copy what an event at a position tells of, where it is what stands there.
pub(crate) fn erase_told(
    connection: &Connection,
    log_id: &LogId,
    position: Position,
    json: &str,
) -> rusqlite::Result<()> {
    let mut erase = connection.prepare_cached(
        "UPDATE runtime_events SET content = NULL, salt = NULL
         WHERE position = ?1 AND lower(hex(digest)) = ?2",
    )?;
    for stand_in in told_of(json, log_id) {
        let Ok(StandIn { position: erased, digest }) = serde_json::from_str(stand_in.get()) else {
            continue;
        };
        // It tells of what was before it.
        if erased >= position || erase.execute((erased.0, digest))? == 0 {
            tracing::warn!(position = erased.0, "what is told to be erased is not what stands there");
        }
    }
    Ok(())
}

/// The stand-ins that an event, as `export` writes it, has for events of this log: where each stands, and its line. None where the
/// event tells of no erasure of it.
pub fn stand_ins(line: &str, log_id: &LogId) -> Vec<(Position, String)> {
    let Ok((stream, _, event)) = copied_event(line) else {
        return Vec::new();
    };
    let json = event.json().filter(|_| stream == StreamName::redactions()).unwrap_or_default();
    let place = |stand_in: &RawValue| serde_json::from_str(stand_in.get()).map(|StandIn { position, .. }| position);
    let with_place = |stand_in: &RawValue| Some((place(stand_in).ok()?, stand_in.get().to_owned()));
    told_of(json, log_id).into_iter().filter_map(with_place).collect()
}

fn told_of<'a>(json: &'a str, log_id: &LogId) -> Vec<&'a RawValue> {
    match serde_json::from_str::<Event<'_>>(json) {
        Ok(Event { data }) if data.log_id == *log_id => data.stand_ins,
        Ok(_) | Err(_) => Vec::new(),
    }
}
