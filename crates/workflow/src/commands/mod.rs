//! What anybody may do to a run, or to a question of it, from any process: each is one look at the log and one append.

mod clock;
mod fork;
mod relay;
mod rules;
mod signals;

use std::sync::Arc;

use runledger_events::TimestampMs;
use runledger_store::{EventLog, LogReader, OpenError};

pub use clock::Clock;
pub use fork::{ForkPoint, Forked};
pub use relay::{DecidedRequest, Withdrawer};
pub use rules::{RulesError, WorkflowGrants};
pub use signals::{Cancelled, Signal};

/// The write half's commands on one ledger.
///
/// Each reads the stream that it is on, decides, and appends under that stream's version. So of two that decide at the
/// same instant one wins, and the other learns of it.
#[derive(Debug)]
pub struct Commands {
    log: Arc<dyn EventLog>,
    reader: LogReader,
    clock: Clock,
}

impl Commands {
    /// Commands on an open log.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    pub fn open(log: Arc<dyn EventLog>) -> Result<Self, OpenError> {
        let reader = log.reader()?;
        Ok(Self { log, reader, clock: Clock::default() })
    }

    /// The same by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The time, by its clock.
    pub(crate) fn now(&self) -> TimestampMs {
        self.clock.now()
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn EventLog> {
        &self.log
    }

    /// A reader of the log.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }
}
