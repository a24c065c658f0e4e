//! Following the log: what is there, then what comes, woken by channel within a process and by polling across processes.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use runledger_events::Position;

use crate::error::{ReadError, StorageError};
use crate::reader::{Batch, EventFilter, LogReader, Read};

/// How often another process's commits are looked for.
const POLL: Duration = Duration::from_millis(20);

/// A reader that waits for what comes next.
#[derive(Debug)]
pub struct Follower {
    reader: LogReader,
    after: Position,
    filter: EventFilter,
    read: Read<'static>,
    commits: Option<Receiver<()>>,
    data_version: Option<i64>,
}

impl Follower {
    pub(crate) fn new(reader: LogReader, after: Position, commits: Option<Receiver<()>>) -> Self {
        Self { reader, after, filter: EventFilter::default(), read: Read::Facts, commits, data_version: None }
    }

    /// Takes only these events.
    #[must_use]
    pub fn with_filter(mut self, filter: EventFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Reads this much of each event; without it, facts alone.
    #[must_use]
    pub fn with_read(mut self, read: Read<'static>) -> Self {
        self.read = read;
        self
    }

    /// The reader behind it.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// The head, as soon as it is beyond `position`, or after `timeout`. Reads no events and moves nothing.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn wait_beyond(&mut self, position: Position, timeout: Duration) -> Result<Position, StorageError> {
        let deadline = Instant::now() + timeout;
        loop {
            let data_version = self.reader.data_version()?;
            let head = self.reader.head()?.position;
            self.data_version = Some(data_version);
            if head > position || !self.wait(deadline)? {
                return Ok(head);
            }
        }
    }

    /// The next events, at most `limit`; an empty batch when nothing came within `timeout`.
    ///
    /// # Errors
    /// [`ReadError`]; the same events are tried again by the next call.
    pub fn next(&mut self, limit: usize, timeout: Duration) -> Result<Batch, ReadError> {
        let deadline = Instant::now() + timeout;
        loop {
            // Taken before the head is read: a commit in between makes the next look find a change.
            let data_version = self.reader.data_version()?;
            let head = self.reader.head()?.position;
            if head > self.after {
                let batch = self.reader.read(&self.filter, self.after, head, limit, self.read)?;
                self.after = batch.scanned_to;
                if !batch.events.is_empty() {
                    return Ok(batch);
                }
                continue;
            }
            self.data_version = Some(data_version);
            if !self.wait(deadline)? {
                return Ok(Batch { scanned_to: self.after, ..Batch::default() });
            }
        }
    }

    /// Waits until something was committed; false when the time is up.
    fn wait(&mut self, deadline: Instant) -> Result<bool, StorageError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            match &self.commits {
                None => std::thread::sleep(POLL.min(left)),
                Some(commits) => match commits.recv_timeout(POLL.min(left)) {
                    Ok(()) => return Ok(true),
                    Err(RecvTimeoutError::Timeout) => {}
                    // The writer of this process is gone; other processes may still write.
                    Err(RecvTimeoutError::Disconnected) => self.commits = None,
                },
            }
            let data_version = self.reader.data_version()?;
            if self.data_version.replace(data_version) != Some(data_version) {
                return Ok(true);
            }
        }
    }
}
