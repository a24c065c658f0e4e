//! Which calls fail, and how.

use std::ffi::c_int;

use rusqlite::ffi;

/// What SQLite asks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Opening or making it.
    Open,
    /// Reading from it.
    Read,
    /// Writing to it. The first half is written before the failure.
    Write,
    /// Shortening it.
    Truncate,
    /// Waiting until it is on the disk.
    Sync,
    /// Removing it.
    Delete,
    /// Asking for its length.
    Length,
    /// Locking it.
    Lock,
    /// Mapping the memory that connections share.
    SharedMemory,
    /// Locking a part of that memory.
    SharedLock,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 10] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Truncate,
        Self::Sync,
        Self::Delete,
        Self::Length,
        Self::Lock,
        Self::SharedMemory,
        Self::SharedLock,
    ];

    /// What SQLite's own VFS answers where the system refuses this.
    pub(crate) fn error(self) -> c_int {
        match self {
            Self::Open => ffi::SQLITE_CANTOPEN,
            Self::Read => ffi::SQLITE_IOERR_READ,
            Self::Write => ffi::SQLITE_IOERR_WRITE,
            Self::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
            Self::Sync => ffi::SQLITE_IOERR_FSYNC,
            Self::Delete => ffi::SQLITE_IOERR_DELETE,
            Self::Length => ffi::SQLITE_IOERR_FSTAT,
            Self::Lock => ffi::SQLITE_IOERR_LOCK,
            Self::SharedMemory => ffi::SQLITE_IOERR_SHMMAP,
            Self::SharedLock => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }
}

/// A failure to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which calls are counted.
    pub operation: Operation,
    /// Which of them fails, from 1 on, counted over the files since the fault was set.
    pub nth: u64,
    /// Whether all later ones fail too, until the fault is taken away.
    pub lasts: bool,
}

/// The fault that is set, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Injected {
    pub(crate) fault: Option<Fault>,
    /// What stands behind the name of the one file whose calls are counted; none where those of all are.
    only: Option<&'static str>,
    calls: u64,
    pub(crate) hits: u64,
}

impl Injected {
    pub(crate) fn new(fault: Fault, only: Option<&'static str>) -> Self {
        Self { fault: Some(fault), only, ..Self::default() }
    }

    /// Counts a call on a file; says with what it fails, if it does.
    pub(crate) fn strikes(&mut self, operation: Operation, suffix: &str) -> Option<c_int> {
        let is_counted = self.only.is_none_or(|only| only == suffix);
        let fault = self.fault.filter(|fault| fault.operation == operation && is_counted)?;
        self.calls += 1;
        let fails = if fault.lasts { self.calls >= fault.nth } else { self.calls == fault.nth };
        self.hits += u64::from(fails);
        fails.then(|| operation.error())
    }
}
