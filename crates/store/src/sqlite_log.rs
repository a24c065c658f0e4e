//! The log in SQLite, for writing: one connection that any number of threads append through.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use runledger_events::{LogId, Position};

use crate::connection;
use crate::error::{AppendError, OpenError, RedactError, SealError};
use crate::follow::Follower;
use crate::group_commit::{GroupCommit, Writer};
use crate::ledger_events::refuse_foreign;
use crate::log::EventLog;
use crate::new_event::{Receipt, StreamAppend};
use crate::redact::{Erase, Redacted, settle};
use crate::seal::seal;
use crate::signed_head::{SealKey, SignedHead};

/// What an append has done when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Its events are on the disk: a loss of power takes nothing that was acknowledged. SQLite's `synchronous=FULL`.
    #[default]
    Full,
    /// Its events are with the operating system, which writes them later; the disk is waited for only when the
    /// write-ahead log is written into the file. SQLite's `synchronous=NORMAL`.
    ///
    /// What that gives up: after a loss of power, or a crash of the operating system, the appends that were
    /// acknowledged last may be gone, and their positions are given to other events then. What is left is whole: appends
    /// up to some point, each of them entire. A process that crashes or is killed loses nothing. Whoever throws
    /// something away because it was appended, as [`take_in`](crate::take_in) does with spools, wants [`SyncMode::Full`].
    Normal,
}

impl SyncMode {
    /// The word that SQLite has for it.
    pub(crate) fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }
}

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// How long an append waits for another process that writes.
    pub busy_timeout: Duration,
    /// Whether a missing ledger is made, with its folder.
    pub create: bool,
    /// Pages of the write-ahead log before it is written into the file and begun anew. Whoever opens a file that nobody
    /// else has open reads that log whole: about 2 µs a page of 4096 bytes.
    pub wal_pages: u32,
    /// Whether an append waits for the disk. It holds for the appends of this log alone: another process has its own.
    pub sync: SyncMode,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5), create: true, wal_pages: 4000, sync: SyncMode::Full }
    }
}

/// Who wants to know of each commit in this process.
pub(crate) type Listeners = Arc<Mutex<Vec<Sender<()>>>>;

/// The log in an SQLite file, for writing. Share it in an [`Arc`].
#[derive(Debug)]
pub struct SqliteLog {
    path: PathBuf,
    log_id: LogId,
    group: GroupCommit,
    listeners: Listeners,
}

impl SqliteLog {
    /// Opens the ledger at `path`; makes it, and its folder, where they are missing.
    ///
    /// # Errors
    /// [`OpenError`]; a file that is no ledger, or a newer one, is not touched.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// Opens the ledger with options.
    ///
    /// # Errors
    /// As [`SqliteLog::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, OpenError> {
        let path = connection::absolute(path.as_ref())?;
        let connection = connection::open_writable(&path, options, None)?;
        let log_id = crate::reader::log_id(&path, &connection)?;
        let listeners = Listeners::default();
        let writer = Writer::new(path.clone(), log_id.clone(), connection, listeners.clone(), options.wal_pages);
        Ok(Self { path, log_id, group: GroupCommit::new(writer), listeners })
    }

    /// The same, also of what was done to this log.
    pub(crate) fn append_own(&self, appends: Vec<StreamAppend>) -> Result<Vec<Receipt>, AppendError> {
        // In this thread, at the same time as others.
        self.group.append(seal(&self.path, appends)?)
    }

    /// Tells who follows in this process of a commit of another connection.
    pub(crate) fn tell_listeners(&self) {
        crate::group_commit::notify(&self.listeners);
    }

    /// Hears of each commit of this process; several commits may be one word.
    pub fn commits(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        match self.listeners.lock() {
            Ok(mut listeners) => listeners.push(sender),
            // The list is only ever pushed to and swept, so it is whole even if a holder of the lock panicked.
            Err(poisoned) => poisoned.into_inner().push(sender),
        }
        receiver
    }
}

impl EventLog for SqliteLog {
    fn path(&self) -> &Path {
        &self.path
    }

    fn log_id(&self) -> &LogId {
        &self.log_id
    }

    fn append_all(&self, appends: Vec<StreamAppend>) -> Result<Vec<Receipt>, AppendError> {
        refuse_foreign(&self.path, &self.log_id, &appends)?;
        self.append_own(appends)
    }

    fn redact(&self, erase: &Erase, reason: &str, by: &str) -> Result<Redacted, RedactError> {
        self.erase(erase, reason, by)
    }

    fn settle(&self) -> Result<bool, RedactError> {
        settle(&self.path, None)
    }

    fn seal(&self, key: &SealKey) -> Result<(SignedHead, Receipt), SealError> {
        SignedHead::seal(self, key, |append| self.append_own(vec![append]))
    }

    fn follow(&self, after: Position) -> Result<Follower, OpenError> {
        Ok(Follower::new(self.reader()?, after, Some(self.commits())))
    }
}
