//! Watching one database: a journal of what is done to its files, and the calls that fail.
//!
//! Invariant: a change and its entry are made under one lock, so that the journal's order is the order in which the
//! system was asked, and an entry is there once the call has returned.

use std::collections::HashMap;
use std::ffi::c_int;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi::{SQLITE_FULL, SQLITE_OK};

use crate::fault::{Fault, Injected, Operation};
use crate::vfs;

/// What was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was there, with these bytes, when it was first opened under the watch. That is on the disk.
    Found(Vec<u8>),
    /// It was made.
    Created,
    /// Bytes were written.
    Written {
        /// Where the first one stands.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// It was shortened to this many bytes.
    Truncated(u64),
    /// All that was done to it before is on the disk; its name too, which SQLite sees to with the first sync.
    Synced,
    /// A sync failed: what was done before may be on the disk or not, and no later sync is about it.
    SyncFailed,
    /// It was removed.
    Deleted {
        /// Whether its folder was synced then.
        is_synced: bool,
    },
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What stands behind the database's name in the file's: nothing, `-wal`, `-journal`.
    pub suffix: Arc<str>,
    /// What was done.
    pub change: Change,
}

#[derive(Debug, Default)]
struct State {
    journal: Vec<Entry>,
    /// How often syncs of a file have failed.
    failed_syncs: HashMap<Arc<str>, u64>,
    /// The files that are there, with their lengths.
    lengths: HashMap<Arc<str>, u64>,
    injected: Injected,
    /// Bytes that all files may have together.
    quota: Option<u64>,
}

impl State {
    fn note(&mut self, suffix: &Arc<str>, change: Change) {
        self.journal.push(Entry { suffix: suffix.clone(), change });
    }

    /// How many of the bytes are written, and with what the call ends.
    fn taken(&mut self, suffix: &str, offset: u64, count: usize) -> (usize, c_int) {
        if let Some(code) = self.injected.strikes(Operation::Write, suffix) {
            return (count / 2, code);
        }
        let length = self.lengths.get(suffix).copied().unwrap_or_default();
        let left = self.quota.map(|quota| quota.saturating_sub(self.lengths.values().sum()));
        let fitting = left.map_or(u64::MAX, |left| length.saturating_add(left).saturating_sub(offset));
        match usize::try_from(fitting) {
            Ok(fitting) if fitting < count => {
                self.injected.hits += 1;
                (fitting, SQLITE_FULL)
            }
            _ => (count, SQLITE_OK),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever watches has the process for itself: it has one default VFS.
static TURN: Mutex<()> = Mutex::new(());

/// The database that is watched now: its path, as text.
static WATCHED: Mutex<Option<(String, Arc<Mutex<State>>)>> = Mutex::new(None);

/// A database that is watched as long as this value lives. A second one in the process waits for its turn.
#[derive(Debug)]
pub struct Watch {
    state: Arc<Mutex<State>>,
    _turn: MutexGuard<'static, ()>,
}

impl Watch {
    /// Watches the database at `path`, which need not be there yet, and all files whose names begin with its name. Only
    /// files that are opened from now on are seen.
    ///
    /// # Errors
    /// The folder is not there.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        let turn = lock(&TURN);
        vfs::register();
        // SQLite follows links before it opens a file.
        let folder = path.parent().unwrap_or(Path::new("/")).canonicalize()?;
        let name = path.file_name().map_or(folder.clone(), |name| folder.join(name));
        let state = Arc::<Mutex<State>>::default();
        *lock(&WATCHED) = Some((name.to_string_lossy().into_owned(), state.clone()));
        Ok(Self { state, _turn: turn })
    }

    /// How many entries the journal has: whatever a call did that has returned stands before.
    pub fn len(&self) -> usize {
        lock(&self.state).journal.len()
    }

    /// Whether nothing was done yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was done so far, in order.
    pub fn journal(&self) -> Vec<Entry> {
        lock(&self.state).journal.clone()
    }

    /// Has calls fail; another fault is replaced, and what was hit is counted from 0 on.
    pub fn fail(&self, fault: Fault) {
        lock(&self.state).injected = Injected::new(fault, None);
    }

    /// The same where calls on one file alone are counted and fail: the one with this behind the database's name.
    pub fn fail_in(&self, suffix: &'static str, fault: Fault) {
        lock(&self.state).injected = Injected::new(fault, Some(suffix));
    }

    /// The disk has room for this many bytes more than the files have now. Memory that connections share does not count.
    pub fn fill_up(&self, bytes_left: u64) {
        let mut state = lock(&self.state);
        state.quota = Some(state.lengths.values().sum::<u64>() + bytes_left);
        state.injected = Injected::default();
    }

    /// From now on nothing fails.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        state.injected.fault = None;
        state.quota = None;
    }

    /// Calls that failed since the fault was set.
    pub fn hits(&self) -> u64 {
        lock(&self.state).injected.hits
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *lock(&WATCHED) = None;
    }
}

/// A file of the database that is watched.
#[derive(Debug)]
pub(crate) struct WatchedFile {
    suffix: Arc<str>,
    state: Arc<Mutex<State>>,
    /// How many failed syncs of it this handle was told of, or were before it was opened.
    told_failures: AtomicU64,
}

impl WatchedFile {
    /// The file of that path, if it is watched.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let watched = lock(&WATCHED);
        let (name, state) = watched.as_ref()?;
        let suffix = path.strip_prefix(name.as_str())?;
        let suffix: Arc<str> = suffix.into();
        let failed = lock(state).failed_syncs.get(&suffix).copied().unwrap_or_default();
        Some(Self { suffix, state: state.clone(), told_failures: AtomicU64::new(failed) })
    }

    /// Counts a call; says with what it fails, if it does.
    pub(crate) fn strikes(&self, operation: Operation) -> Option<c_int> {
        lock(&self.state).injected.strikes(operation, &self.suffix)
    }

    /// Notes that it was opened; `found` are its bytes, if it was there before.
    pub(crate) fn opened(&self, found: impl FnOnce() -> Option<Vec<u8>>) {
        let mut state = lock(&self.state);
        if state.lengths.contains_key(&self.suffix) {
            return;
        }
        let found = found();
        let length = found.as_ref().map_or(0, |bytes| length_of(bytes));
        state.lengths.insert(self.suffix.clone(), length);
        state.note(&self.suffix, found.map_or(Change::Created, Change::Found));
    }

    /// Writes as much as is to be written, by `write`.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8], write: impl FnOnce(&[u8]) -> c_int) -> c_int {
        let mut state = lock(&self.state);
        let (count, code) = state.taken(&self.suffix, offset, bytes.len());
        let bytes = &bytes[..count];
        if bytes.is_empty() {
            return code;
        }
        let written = write(bytes);
        if written != SQLITE_OK {
            return written;
        }
        let length = state.lengths.entry(self.suffix.clone()).or_default();
        *length = (*length).max(offset + length_of(bytes));
        state.note(&self.suffix, Change::Written { offset, bytes: bytes.to_vec() });
        code
    }

    pub(crate) fn truncate(&self, length: u64, truncate: impl FnOnce() -> c_int) -> c_int {
        let mut state = lock(&self.state);
        let code = state.injected.strikes(Operation::Truncate, &self.suffix).unwrap_or_else(truncate);
        if code == SQLITE_OK {
            state.lengths.insert(self.suffix.clone(), length);
            state.note(&self.suffix, Change::Truncated(length));
        }
        code
    }

    /// Does not wait for the real disk: the machine goes on, and tests sync some ten thousand times.
    ///
    /// Every handle is told once of a failure, whichever handle's sync it was, as Linux does it: what was written by this one may
    /// be among what was dropped. What is there by then is on the disk all the same.
    pub(crate) fn sync(&self) -> c_int {
        let mut state = lock(&self.state);
        let struck = state.injected.strikes(Operation::Sync, &self.suffix);
        let failed = state.failed_syncs.entry(self.suffix.clone()).or_default();
        *failed += u64::from(struck.is_some());
        let is_told = self.told_failures.swap(*failed, Ordering::Relaxed) < *failed;
        state.note(&self.suffix, if struck.is_some() { Change::SyncFailed } else { Change::Synced });
        if is_told { Operation::Sync.error() } else { SQLITE_OK }
    }

    pub(crate) fn delete(&self, is_synced: bool, delete: impl FnOnce() -> c_int) -> c_int {
        let mut state = lock(&self.state);
        let code = state.injected.strikes(Operation::Delete, &self.suffix).unwrap_or_else(delete);
        if code == SQLITE_OK && state.lengths.remove(&self.suffix).is_some() {
            state.note(&self.suffix, Change::Deleted { is_synced });
        }
        code
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
