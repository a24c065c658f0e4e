//! Erasing in a log that another engine keeps: what has to be told before the engine deletes events, and what each copy does when it
//! hears of it.
//!
//! Invariants: who tells of an erasure tells a stand-in for each event: the event as `export` writes it without its content, which
//! comes to the same digest. Copies erase what is told of, and who never had the event takes the stand-in. The last event of a stream
//! is never deleted, since the engine takes an append by where that stands; so where it is erased, a mark comes behind it.

use std::collections::{HashSet, VecDeque};

use runledger_events::{Digest, EventKind, LogId, Position, StreamName, StreamVersion};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::copied_log::CopiedLog;
use crate::error::{ReadError, RedactError};
use crate::expected_version::ExpectedVersion;
use crate::exported::{copied_event, exported_line};
use crate::new_event::{NewEvent, StreamAppend};
use crate::reader::{EventFilter, LogReader, Read};
use crate::redact::{Erase, Ranges, redacted, settle, told};
use crate::row::RawEvent;

/// Marks that are appended together with what tells of the erasure, at the most: an engine takes so many events as one.
const MARKS_MAX: usize = 900;

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
}

/// What a mark says: nothing but whose it is.
#[derive(Serialize)]
struct Mark<'a> {
    log_id: &'a LogId,
}

/// What is left to tell of an erasure, in order.
#[derive(Debug, Default)]
pub struct ErasurePlan {
    positions: VecDeque<u64>,
    /// Those of them whose content is gone, and of which nothing tells.
    untold: HashSet<u64>,
}

impl CopiedLog {
    /// What is to be told of an erasure, by the copy as it is, up to a position.
    ///
    /// # Errors
    /// [`RedactError`], as [`EventLog::redact`](crate::EventLog::redact).
    pub fn plan_erasure(&self, erase: &Erase, up_to: Position) -> Result<ErasurePlan, RedactError> {
        let reader = self.reader()?;
        let (mut positions, untold) = erase.to_tell(&reader, reader.connection())?;
        positions.retain(|position| *position <= up_to.0);
        Ok(ErasurePlan { positions: positions.into(), untold: untold.into_iter().collect() })
    }

    /// The next part of it, taken out of the plan; none where nothing is left. Its stand-ins have at most `bytes_max` bytes, unless one
    /// alone has more.
    ///
    /// # Errors
    /// [`RedactError`], as [`EventLog::redact`](crate::EventLog::redact).
    pub fn next_erasure(
        &self,
        plan: &mut ErasurePlan,
        erase: &Erase,
        reason: &str,
        by: &str,
        bytes_max: usize,
    ) -> Result<Option<Erasure>, RedactError> {
        let reader = self.reader()?;
        let snapshot = reader.connection().unchecked_transaction().map_err(|source| reader.storage(&source))?;
        let mark = redacted(&Mark { log_id: &self.log_id })?;
        let mut part = Part::new(bytes_max, mark);
        while let Some(position) = plan.positions.front().copied() {
            let (after, at) = (Position(position.saturating_sub(1)), Position(position));
            let mut is_taken = true;
            let read = reader.scan(&EventFilter::default(), after, at, Read::All, true, |raw| {
                // Somebody else may have had it erased meanwhile.
                if raw.content.is_some() || plan.untold.contains(&position) {
                    is_taken = part.take(&reader, raw)?;
                }
                Ok(true)
            });
            read.map_err(|error| match error {
                ReadError::Storage(error) => RedactError::from(error),
                error => RedactError::Event { detail: error.to_string() },
            })?;
            if !is_taken {
                break;
            }
            plan.positions.pop_front();
        }
        drop(snapshot);
        part.erasure(&self.log_id, erase, reason, by)
    }

    /// What was told to be erased, in ranges from the first to the last position of each: in order, none within another.
    ///
    /// # Errors
    /// [`RedactError`] when the copy cannot be read.
    pub fn redactions(&self) -> Result<Vec<(u64, u64)>, RedactError> {
        Ok(Ranges::new(self.reader()?.told_in(StreamName::redactions())?).into_inner())
    }

    /// Those of the positions that the engine can delete, with their digests: the event was erased here, so that something stands in for
    /// it, and is not the last one of its stream.
    ///
    /// # Errors
    /// [`RedactError`] when the copy cannot be read.
    pub fn deletable(&self, positions: impl IntoIterator<Item = u64>) -> Result<Vec<(u64, Digest)>, RedactError> {
        let reader = self.reader()?;
        let failed = |source: rusqlite::Error| reader.storage(&source);
        // What came without its content has none on the servers either.
        let arrived = Ranges::new(reader.told_in(StreamName::arrivals())?);
        let mut can_go = reader
            .connection()
            .prepare(
                "SELECT digest FROM runtime_events AS event
                 WHERE position = ?1 AND content IS NULL AND EXISTS (SELECT 1 FROM runtime_events AS next
                     WHERE next.stream_key = event.stream_key AND next.stream_version = event.stream_version + 1)",
            )
            .map_err(failed)?;
        let mut found = Vec::new();
        for position in positions.into_iter().filter(|position| !arrived.contain(*position)) {
            let digest = can_go.query_row([position], |row| row.get(0).map(Digest)).optional().map_err(failed)?;
            found.extend(digest.map(|digest| (position, digest)));
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
struct Part {
    positions: Vec<u64>,
    stand_ins: Vec<Box<RawValue>>,
    bytes: usize,
    bytes_max: usize,
    untold: u64,
    mark: NewEvent,
    /// Streams whose last event is among them, with its version.
    marked: Vec<(StreamName, StreamVersion)>,
}

impl Part {
    fn new(bytes_max: usize, mark: NewEvent) -> Self {
        let (positions, stand_ins, marked) = (Vec::new(), Vec::new(), Vec::new());
        Self { positions, stand_ins, bytes: 0, bytes_max, untold: 0, mark, marked }
    }

    /// Takes an event in; false where the next part has to.
    fn take(&mut self, reader: &LogReader, raw: RawEvent<'_>) -> Result<bool, ReadError> {
        if self.is_mark(reader, &raw) {
            return Ok(true);
        }
        let (position, is_gone) = (raw.position, raw.content.is_none());
        let (stream, version) = (raw.stream.clone(), raw.stream_version);
        let is_last = reader.stream_version(&stream)? == version;
        let line = exported_line(reader.codec(), &raw.without_content())?;
        let is_full = self.bytes + line.len() > self.bytes_max || (is_last && self.marked.len() >= MARKS_MAX);
        if is_full && !self.positions.is_empty() {
            return Ok(false);
        }
        self.untold += u64::from(is_gone);
        self.bytes += line.len();
        self.stand_ins
            .push(RawValue::from_string(line).map_err(|_| ReadError::Column { position, column: "content" })?);
        self.positions.push(position.0);
        if is_last {
            self.marked.push((stream, version));
        }
        Ok(true)
    }

    /// Whether an event is a mark, word for word, so that nothing else passes for one.
    fn is_mark(&self, reader: &LogReader, raw: &RawEvent<'_>) -> bool {
        let json = || raw.content.and_then(|content| reader.codec().decode_content(content).ok());
        raw.kind == EventKind::LedgerRedacted && json().is_some_and(|json| self.mark.json() == Some(json.as_str()))
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
            appends.push(StreamAppend { stream, expected, events: vec![self.mark.clone()] });
        }
        let positions = self.positions.into_iter().map(Position).collect();
        Ok(Some(Erasure { appends, positions, untold: self.untold }))
    }
}

/// Erases in a copy what an event at a position tells of, where its stand-in comes to the digest of what stands there.
pub(crate) fn erase_told(
    connection: &Connection,
    log_id: &LogId,
    position: Position,
    json: &str,
) -> rusqlite::Result<()> {
    let mut digest_of = connection.prepare_cached(
        "SELECT digest FROM runtime_events
         WHERE stream_key = (SELECT stream_key FROM streams WHERE name = ?1) AND stream_version = ?2",
    )?;
    let mut erase = connection
        .prepare_cached("UPDATE runtime_events SET content = NULL, salt = NULL WHERE position = ?1 AND digest = ?2")?;
    for told in told_of(json, log_id) {
        let Ok(StandIn { position: erased }) = serde_json::from_str(told.get()) else {
            continue;
        };
        // It tells of what was before it, and what was done to the ledger is not erased.
        let stand_in = copied_event(told.get()).ok().filter(|(stream, ..)| erased < position && !stream.is_of_ledger());
        let mut is_erased = false;
        if let Some((stream, version, event)) = stand_in {
            let before =
                digest_of.query_row((stream.as_str(), version.0.saturating_sub(1)), |row| row.get(0).map(Digest));
            let before = before.optional()?.unwrap_or(Digest::ZERO);
            if let Some(digest) = event.digest_behind(&before, &stream, version) {
                is_erased = erase.execute((erased.0, digest.0))? > 0;
            }
        }
        if !is_erased {
            tracing::warn!(position = erased.0, "a redaction names another event than stands here; nothing was erased");
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
    let place = |stand_in: &RawValue| serde_json::from_str(stand_in.get()).map(|StandIn { position }| position);
    let with_place = |stand_in: &RawValue| Some((place(stand_in).ok()?, stand_in.get().to_owned()));
    told_of(json, log_id).into_iter().filter_map(with_place).collect()
}

fn told_of<'a>(json: &'a str, log_id: &LogId) -> Vec<&'a RawValue> {
    match serde_json::from_str::<Event<'_>>(json) {
        Ok(Event { data }) if data.log_id == *log_id => data.stand_ins,
        Ok(_) | Err(_) => Vec::new(),
    }
}
