//! Copying a log into another one, whatever engines keep them: every stream as it is, in order, and none of it twice.
//!
//! Invariants: an event of the copy has the version, id, times and digest of its original; its position is the other log's own. It
//! is told by digests whether two streams are one and the same, so it goes on where an earlier copy ended.

use std::collections::HashMap;

use runledger_events::{Digest, Position, StreamName, StreamVersion};

use crate::error::{AppendError, OpenError, ReadError, StorageError};
use crate::expected_version::ExpectedVersion;
use crate::exported::{ExportedError, copied_event, exported_line};
use crate::log::EventLog;
use crate::new_event::{NewEvent, StreamAppend};
use crate::reader::{EventFilter, LogReader, Read};

/// Events that are appended at once, at the most.
const AT_ONCE: usize = 500;
/// Bytes of their lines, about.
const BYTES_AT_ONCE: usize = 2 << 20;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transferred {
    /// Events that are in the other log now, and were not before.
    pub appended: u64,
    /// Events that were there already.
    pub known: u64,
}

/// A log was not copied to its end. What was copied stays, and copying it again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The other log has something else in a stream.
    #[error(
        "stream {stream} is another one there: its event of version {version} is not the same; copy into another ledger"
    )]
    Parted {
        /// The stream.
        stream: StreamName,
        /// The version at which it shows.
        version: StreamVersion,
    },
    /// An event cannot be copied.
    #[error("the event at position {position} cannot be copied: {source}")]
    Event {
        /// Where it stands.
        position: Position,
        /// Why.
        source: ExportedError,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The other log cannot be opened for reading.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The other log does not take them.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// One of both files failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl LogReader {
    /// The digest of an event, by its place in its stream; none where the stream is shorter.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn digest_at(&self, stream: &StreamName, version: StreamVersion) -> Result<Option<Digest>, StorageError> {
        self.query_optional(
            "SELECT digest FROM runtime_events
             WHERE stream_key = (SELECT stream_key FROM streams WHERE name = ?1) AND stream_version = ?2",
            (stream.as_str(), version.0),
            |row| Ok(Digest(row.get(0)?)),
        )
    }

    /// Copies every event into another log, and compares each stream by its digests. `tell` hears how far it is: events so far.
    ///
    /// Shape: streams of the other log that this one has too have to be the same as far as both go; others are left alone. What the
    /// log tells of itself comes along as what was told of another log, in whatever order is there.
    ///
    /// # Errors
    /// [`TransferError`]; what was copied by then stays.
    pub fn copy_into(&self, to: &dyn EventLog, mut tell: impl FnMut(u64)) -> Result<Transferred, TransferError> {
        to.refresh()?;
        let there = to.reader()?;
        let mut transfer = Transfer {
            to,
            there,
            lengths: HashMap::new(),
            waiting: Vec::new(),
            bytes: 0,
            done: Transferred::default(),
        };
        let up_to = self.head()?.position;
        let mut failed = None;
        self.scan(&EventFilter::default(), Position::START, up_to, Read::All, true, |raw| {
            let position = raw.position;
            let line = exported_line(self.codec(), &raw)?;
            let taken = copied_event(&line)
                .map_err(|source| TransferError::Event { position, source })
                .and_then(|(stream, version, event)| transfer.take(stream, version, event, line.len()));
            failed = taken.err();
            tell(position.0);
            Ok(failed.is_none())
        })?;
        if let Some(failed) = failed {
            return Err(failed);
        }
        transfer.send()?;
        Ok(transfer.done)
    }
}

/// A copy on its way.
struct Transfer<'a> {
    to: &'a dyn EventLog,
    there: LogReader,
    /// How long each stream was in the other log when the copy came to it.
    lengths: HashMap<StreamName, StreamVersion>,
    waiting: Vec<StreamAppend>,
    bytes: usize,
    done: Transferred,
}

impl Transfer<'_> {
    fn take(
        &mut self,
        stream: StreamName,
        version: StreamVersion,
        event: NewEvent,
        bytes: usize,
    ) -> Result<(), TransferError> {
        if stream.is_of_ledger() {
            // Both logs tell of themselves, so there it is at another version, if it is not there already.
            let event = NewEvent { digest: None, ..event };
            return self.wait(stream, ExpectedVersion::Any, event, bytes);
        }
        let length = match self.lengths.get(&stream) {
            Some(length) => *length,
            None => {
                let length = self.there.stream_version(&stream)?;
                self.lengths.insert(stream.clone(), length);
                length
            }
        };
        if version > length {
            return self.wait(stream, ExpectedVersion::Exact(StreamVersion(version.0 - 1)), event, bytes);
        }
        self.done.known += 1;
        let is_same = event.digest.is_none() || self.there.digest_at(&stream, version)? == event.digest;
        if is_same { Ok(()) } else { Err(TransferError::Parted { stream, version }) }
    }

    fn wait(
        &mut self,
        stream: StreamName,
        expected: ExpectedVersion,
        event: NewEvent,
        bytes: usize,
    ) -> Result<(), TransferError> {
        match self.waiting.last_mut() {
            // Events that follow each other in their stream are one part of the append.
            Some(last) if last.stream == stream => last.events.push(event),
            _ => self.waiting.push(StreamAppend { stream, expected, events: vec![event] }),
        }
        self.bytes += bytes;
        let count: usize = self.waiting.iter().map(|append| append.events.len()).sum();
        if count >= AT_ONCE || self.bytes >= BYTES_AT_ONCE {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), TransferError> {
        self.bytes = 0;
        let appends = std::mem::take(&mut self.waiting);
        if appends.is_empty() {
            return Ok(());
        }
        for receipt in self.to.append_all(appends)? {
            let counted = if receipt.is_duplicate { &mut self.done.known } else { &mut self.done.appended };
            *counted += 1;
        }
        Ok(())
    }
}
