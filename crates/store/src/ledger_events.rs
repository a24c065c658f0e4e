//! What the log tells of itself, in the streams `ledger/…`: read as far as it can be, and appended by the log alone.
//!
//! Invariant: no line from outside says what was done to this log. Of another log it may: copies have the events of their
//! originals.

use std::path::Path;

use runledger_events::{Content, Fields, LogId, Position, StreamName};
use serde::Deserialize;

use crate::error::{AppendError, ReadError, StorageError};
use crate::new_event::StreamAppend;
use crate::reader::{EventFilter, LogReader, Read};

/// Events that are read at once: those that tell of an erasure may be large.
const AT_ONCE: usize = 64;

/// What an event of such a stream tells.
pub(crate) enum LedgerData {
    /// Its `data`, as JSON text.
    Told(String),
    /// It was erased, or came without.
    Gone,
    /// The row, or what is in it, cannot be read.
    Unreadable,
}

impl LogReader {
    /// What is made of that which each event of a stream tells, in order. A damaged row keeps none of the others from being read.
    pub(crate) fn ledger_data<T>(
        &self,
        stream: StreamName,
        of: impl Fn(Position, LedgerData) -> T,
    ) -> Result<Vec<T>, StorageError> {
        let filter = EventFilter { stream: Some(stream), ..EventFilter::default() };
        let head = self.head()?.position;
        let (mut after, mut until, mut found) = (Position::START, head, Vec::new());
        let unreadable = |position| (position, of(position, LedgerData::Unreadable));
        while after < head {
            match self.read_readable(&filter, after, until, AT_ONCE, Read::All) {
                Ok(batch) => {
                    let told = batch.events.into_iter().filter(|event| !matches!(event.content, Content::NotRead));
                    found.extend(told.map(|event| (event.position, of(event.position, data_of(&event.content)))));
                    found.extend(batch.unreadable.iter().map(|found| unreadable(found.position)));
                    after = batch.scanned_to;
                    if after >= until && until < head {
                        // The row that could not be read, and then what is behind it.
                        after = until.next();
                        until = head;
                        found.push(unreadable(after));
                    }
                }
                Err(
                    ReadError::Payload { position, .. }
                    | ReadError::Name { position, .. }
                    | ReadError::Column { position, .. },
                ) if position > after => {
                    if position == after.next() {
                        found.push(unreadable(position));
                        after = position;
                        until = head;
                    } else {
                        until = Position(position.0 - 1);
                    }
                }
                Err(ReadError::Storage(error)) => return Err(error),
                // A position that was passed already: there is no order any more to go on in.
                Err(_) => break,
            }
        }
        found.sort_by_key(|(position, _)| *position);
        Ok(found.into_iter().map(|(_, of_it)| of_it).collect())
    }
}

fn data_of(content: &Content) -> LedgerData {
    let Some(json) = content.json() else {
        return LedgerData::Gone;
    };
    let data = Fields::parse(json).ok().and_then(|fields| fields.raw("data").map(str::to_owned));
    data.map_or(LedgerData::Unreadable, LedgerData::Told)
}

/// Refuses what somebody else says of this log, unless the log has it already.
pub(crate) fn refuse_foreign(path: &Path, log_id: &LogId, appends: &[StreamAppend]) -> Result<(), AppendError> {
    let mut suspicious = Vec::new();
    for StreamAppend { stream, events, .. } in appends.iter().filter(|append| append.stream.is_of_ledger()) {
        let told_here = events.iter().filter(|event| event.json().is_some_and(|json| !is_of_another(json, log_id)));
        suspicious.extend(told_here.map(|event| (stream, event.id())));
    }
    if suspicious.is_empty() {
        return Ok(());
    }
    let reader = LogReader::open(path).map_err(|error| StorageError::Sqlite {
        path: path.to_owned(),
        doing: "looking for what is there",
        detail: error.to_string(),
    })?;
    for (stream, id) in suspicious {
        let is_known = match id {
            Some(id) => reader.position_of(stream, id)?.is_some(),
            None => false,
        };
        if !is_known {
            return Err(AppendError::OfLedger { stream: stream.clone() });
        }
    }
    Ok(())
}

/// Whether an event names another log as the one that it tells of.
fn is_of_another(json: &str, log_id: &LogId) -> bool {
    #[derive(Deserialize)]
    struct Event {
        data: Named,
    }
    serde_json::from_str::<Event>(json).is_ok_and(|event| event.data.log_id != *log_id)
}

/// The log that what is told names.
#[derive(Deserialize)]
struct Named {
    log_id: LogId,
}

impl LedgerData {
    /// Whether it names another log as the one that it tells of.
    pub(crate) fn is_of_another(&self, log_id: &LogId) -> bool {
        match self {
            Self::Told(json) => serde_json::from_str::<Named>(json).is_ok_and(|named| named.log_id != *log_id),
            Self::Gone | Self::Unreadable => false,
        }
    }
}
