//! The runner's view of the log: append, and read a stream.

use std::sync::Arc;

use runledger_events::{LogId, Position, RecordedEvent, StreamName, StreamVersion};
use runledger_store::{
    AppendError, EventFilter, EventLog, ExpectedVersion, Lease, LogReader, NewEvent, OpenError, Read, ReadError,
    Receipt, StorageError,
};

/// Where a runner writes what happens, and reads what others wrote to its run.
pub trait Journal: Send {
    /// Appends events to one stream, as [`EventLog::append`] does.
    ///
    /// # Errors
    /// As there.
    fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Receipt>, AppendError>;

    /// The events of a stream after a version.
    ///
    /// # Errors
    /// As [`LogReader::read_stream`].
    fn read_stream(&self, stream: &StreamName, after: StreamVersion) -> Result<Vec<RecordedEvent>, ReadError>;

    /// The events after a position that the filter takes, whole, in the order of the log.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    fn read(&self, filter: &EventFilter, after: Position) -> Result<Vec<RecordedEvent>, ReadError>;

    /// The number of events in a stream.
    ///
    /// # Errors
    /// As [`LogReader::stream_version`].
    fn stream_version(&self, stream: &StreamName) -> Result<StreamVersion, StorageError>;

    /// The log's UUID.
    fn log_id(&self) -> LogId;

    /// Holds a name for as long as what is given back lives, as [`EventLog::hold`].
    ///
    /// # Errors
    /// As there.
    fn hold(&self, _name: &str, _who: &str) -> Result<Option<Lease>, StorageError> {
        Ok(None)
    }

    /// Whether somebody holds a name, as [`EventLog::is_held`].
    ///
    /// # Errors
    /// As there.
    fn is_held(&self, _name: &str) -> Result<Option<bool>, StorageError> {
        Ok(None)
    }
}

/// The journal of a ledger on this machine.
#[derive(Debug)]
pub struct LedgerJournal {
    log: Arc<dyn EventLog>,
    reader: LogReader,
}

impl LedgerJournal {
    /// Uses an open log.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    pub fn open(log: Arc<dyn EventLog>) -> Result<Self, OpenError> {
        let reader = log.reader()?;
        Ok(Self { log, reader })
    }
}

impl Journal for LedgerJournal {
    fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Receipt>, AppendError> {
        self.log.append(stream, expected, events)
    }

    fn read_stream(&self, stream: &StreamName, after: StreamVersion) -> Result<Vec<RecordedEvent>, ReadError> {
        self.reader.read_stream(stream, after, Read::Facts)
    }

    fn read(&self, filter: &EventFilter, after: Position) -> Result<Vec<RecordedEvent>, ReadError> {
        let head = self.reader.head()?.position;
        let mut events = Vec::new();
        let mut after = after;
        while after < head {
            let batch = self.reader.read(filter, after, head, usize::MAX, Read::All)?;
            events.extend(batch.events);
            after = batch.scanned_to;
        }
        Ok(events)
    }

    fn stream_version(&self, stream: &StreamName) -> Result<StreamVersion, StorageError> {
        self.reader.stream_version(stream)
    }

    fn log_id(&self) -> LogId {
        self.log.log_id().clone()
    }

    fn hold(&self, name: &str, who: &str) -> Result<Option<Lease>, StorageError> {
        self.log.hold(name, who)
    }

    fn is_held(&self, name: &str) -> Result<Option<bool>, StorageError> {
        self.log.is_held(name)
    }
}
