//! A log, whatever engine keeps it: what is appended to it, and where it is read.

use std::fmt;
use std::path::Path;

use runledger_events::{LogId, Position, StreamName};

use crate::error::{AppendError, OpenError, RedactError, SealError, StorageError};
use crate::expected_version::ExpectedVersion;
use crate::follow::Follower;
use crate::lease::Lease;
use crate::new_event::{NewEvent, Receipt, StreamAppend};
use crate::reader::LogReader;
use crate::redact::{Erase, Redacted};
use crate::signed_head::{SealKey, SignedHead};

/// The one append-only log of a ledger, for writing. Share it in an [`Arc`](std::sync::Arc).
///
/// An engine decides what is appended, and in which order. What was appended is read from an SQLite file on this machine: the log
/// itself where SQLite is the engine ([`SqliteLog`](crate::SqliteLog)), else this machine's copy of it, with the same positions,
/// versions, ids, times and digests. So there is one way to read, whatever the engine, and it needs no network.
pub trait EventLog: fmt::Debug + Send + Sync {
    /// The SQLite file that it is read from.
    fn path(&self) -> &Path;

    /// The log's UUID.
    fn log_id(&self) -> &LogId;

    /// Appends to several streams atomically: all, or nothing. Receipts come in the order given.
    ///
    /// # Errors
    /// As [`EventLog::append`].
    fn append_all(&self, appends: Vec<StreamAppend>) -> Result<Vec<Receipt>, AppendError>;

    /// Brings the file to where the log is now. There is nothing to do where it is the log itself.
    ///
    /// # Errors
    /// [`StorageError::Engine`] where that cannot be known; what is there can be read.
    fn refresh(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Whether the engine is known to be out of reach just now, so that what is appended would be refused.
    fn is_cut_off(&self) -> bool {
        false
    }

    /// Holds a name as long as what is given back lives, with words on who does. `None` where the engine has nothing of the kind: a
    /// log in a file, whose processes are of one host and can be seen.
    ///
    /// # Errors
    /// [`StorageError::Engine`]; nobody can tell that it is held.
    fn hold(&self, _name: &str, _who: &str) -> Result<Option<Lease>, StorageError> {
        Ok(None)
    }

    /// Whether somebody holds a name; `None` as [`EventLog::hold`].
    ///
    /// # Errors
    /// [`StorageError::Engine`] where that cannot be known.
    fn is_held(&self, _name: &str) -> Result<Option<bool>, StorageError> {
        Ok(None)
    }

    /// Erases the content of events, and appends `ledger.redacted` events to [`StreamName::redactions`] that say who had it erased and why.
    /// Facts, digests and the chain stay, and verify. The file is written anew, so for that long nobody else can write to it, and as
    /// much space again is needed on the disk.
    ///
    /// # Errors
    /// [`RedactError`]; what was not told of was not erased, and asking again goes on.
    ///
    /// Source: docs/decisions/0023-erasure.md
    fn redact(&self, erase: &Erase, reason: &str, by: &str) -> Result<Redacted, RedactError>;

    /// Writes the file anew and empties its write-ahead log, so that nothing is left of what was erased in its rows; false where
    /// somebody reads all the while.
    ///
    /// # Errors
    /// [`OpenError`], or [`StorageError`], where there is no room, say; the rows stay as they are.
    fn settle(&self) -> Result<bool, RedactError>;

    /// Signs the log's head, and appends a `ledger.sealed` event with it to [`StreamName::seals`].
    ///
    /// # Errors
    /// [`SealError`]; nothing was appended.
    fn seal(&self, key: &SealKey) -> Result<(SignedHead, Receipt), SealError>;

    /// Follows the log from `after` on, woken by this process's own commits at once.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    fn follow(&self, after: Position) -> Result<Follower, OpenError>;

    /// Appends `events` to `stream` atomically, and returns once they are durable, as the engine promises it, and can be read here.
    ///
    /// Shape: one stream, 1..n events, in order; one receipt each. An event that is there already, under the same id
    /// with the same content, is not appended again: its first receipt comes back. Under `NoStream` and `Exact`, either
    /// all events are there already, or none.
    ///
    /// # Errors
    /// - [`AppendError::WrongExpectedVersion`], [`AppendError::IdTaken`]: nothing was written. What the version was refused for can be
    ///   read here.
    /// - [`AppendError::OfLedger`]: what was done to this log is told by [`EventLog::redact`] and [`EventLog::seal`] alone.
    /// - [`AppendError::OtherDigest`]: an event that was copied is not the one that was appended elsewhere; nothing was written.
    /// - [`AppendError::Refused`]: nothing was written, and trying again is of no use.
    /// - [`AppendError::Storage`]: the outcome is unknown; appending the same ids again is safe.
    ///
    /// Source: docs/decisions/0002-append.md
    fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Receipt>, AppendError> {
        self.append_all(vec![StreamAppend { stream: stream.clone(), expected, events }])
    }

    /// A reader of what was appended.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    fn reader(&self) -> Result<LogReader, OpenError> {
        LogReader::open(self.path())
    }
}
