//! What every translator of a harness's lines can do.

use runledger_events::{RuntimeEvent, TimestampMs};

use crate::error::AdapterError;

/// A translator of one harness's lines.
///
/// It reads one file, or one process's output, from its first line on; the next one needs a new translator. The same
/// lines give events with the same ids, so a file that is read again, or that grew, tells again what it told before.
pub trait LineAdapter: Send {
    /// Takes one line and gives the events it tells: 0..n, in order.
    ///
    /// `now`: the line's arrival, the time of events whose line names none. A recording has no arrival: there such a line
    /// has the time of the one before, and none at the beginning, so that the same lines give the same events whenever
    /// they are read.
    ///
    /// # Errors
    /// - `NotAnObject`: the line is no JSON object; nothing was taken from it, go on with the next.
    /// - `Event`: a mistake in this translator; the line's events are lost, go on with the next.
    fn line(&mut self, line: &str, now: Option<TimestampMs>) -> Result<Vec<RuntimeEvent>, AdapterError>;
}
