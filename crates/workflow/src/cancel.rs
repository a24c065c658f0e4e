//! Asking a runner in this process to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const NOT_ASKED: u8 = 0;
const CANCEL: u8 = 1;
const KILL: u8 = 2;

/// Ends a run from another thread. Clones ask the same run.
#[derive(Debug, Clone, Default)]
pub struct CancelHandle(Arc<AtomicU8>);

impl CancelHandle {
    /// Asks the run to end: its harness is told to stop, and gets a moment to do so.
    pub fn cancel(&self) {
        self.0.fetch_max(CANCEL, Ordering::AcqRel);
    }

    /// Ends the harness at once. Asking to cancel again does the same.
    pub fn kill(&self) {
        self.0.fetch_max(KILL, Ordering::AcqRel);
    }

    /// Whether somebody asked for the end.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) != NOT_ASKED
    }

    /// Whether the harness is to be ended at once.
    pub fn is_killed(&self) -> bool {
        self.0.load(Ordering::Acquire) == KILL
    }
}
