//! The projector: the thread that keeps the read models of a ledger current.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use runledger_store::Follower;

use crate::error::ProjectionError;
use crate::projections::Projections;

/// How long the thread may take to see that it should end.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// A running projector. Dropping it ends the thread; [`Projector::stop`] also tells how it fared.
#[derive(Debug)]
pub struct Projector {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), ProjectionError>>>,
}

impl Projector {
    /// Starts a projector for the ledger at `ledger`, which has to be there.
    ///
    /// `follower` follows the same ledger: that of an `EventLog` in this process hears of its commits at once, that of a
    /// `LogReader` sees any process's within 20 ms.
    ///
    /// # Errors
    /// [`ProjectionError`] when the files cannot be opened, or the thread not started.
    pub fn start(ledger: &Path, follower: Follower) -> Result<Self, ProjectionError> {
        Self::start_with(Projections::open(ledger)?, follower)
    }

    /// Starts a projector of read models of one's own choice ([`Projections::open_with`]); `follower` follows the same
    /// ledger.
    ///
    /// # Errors
    /// [`ProjectionError`] when the thread cannot be started.
    pub fn start_with(projections: Projections, follower: Follower) -> Result<Self, ProjectionError> {
        let path = projections.path.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("runledger-projector".to_owned())
            .spawn(move || run(projections, follower, &stopped))
            .map_err(|source| ProjectionError::File { path, source })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether the thread goes on; where it does not, [`Projector::stop`] tells why.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the thread, once it has caught up with what was there, and tells how it fared.
    ///
    /// # Errors
    /// What ended the thread before.
    pub fn stop(mut self) -> Result<(), ProjectionError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ProjectionError> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(ProjectionError::ProjectorGone),
        }
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the projector ended");
        }
    }
}

fn run(mut projections: Projections, mut follower: Follower, stop: &AtomicBool) -> Result<(), ProjectionError> {
    let mut reached = runledger_events::Position::START;
    loop {
        // Looked at before catching up: what was there when the end was asked for is still applied.
        let is_last = stop.load(Ordering::Acquire);
        match projections.catch_up() {
            Ok(position) => reached = position,
            // Another process holds the file for long; its work is ours too, so look again.
            Err(error) if error.is_busy() && !is_last => tracing::debug!(%error, "the projector waits"),
            Err(error) => return Err(error),
        }
        if is_last {
            return Ok(());
        }
        follower.wait_beyond(reached, STOP_LOOK)?;
    }
}
