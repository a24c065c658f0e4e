//! What anybody may do to a run, or to a question of it, from any process: each is one look at the log and one append.

mod fork;
mod signals;

use std::sync::Arc;

use runledger_store::{EventLog, LogReader, OpenError};

pub use fork::{ForkPoint, Forked};
pub use signals::{Cancelled, Signal};

/// The write half's commands on one ledger.
///
/// Each reads the stream that it is on, decides, and appends under that stream's version. So of two that decide at the
/// same instant one wins, and the other learns of it.
#[derive(Debug)]
pub struct Commands {
    log: Arc<EventLog>,
    reader: LogReader,
}

impl Commands {
    /// Commands on an open log.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    pub fn open(log: Arc<EventLog>) -> Result<Self, OpenError> {
        let reader = log.reader()?;
        Ok(Self { log, reader })
    }

    /// The log.
    pub fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    /// A reader of the log.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }
}
