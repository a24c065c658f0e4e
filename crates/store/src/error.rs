//! Errors of the log: what was asked of which file, what went wrong, and what to do next.

use std::path::{Path, PathBuf};

use runledger_events::{CodecError, EventId, IdError, LogId, Position, StreamName, StreamVersion};

use crate::expected_version::ExpectedVersion;

/// SQLite or the disk under it refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// Another process held the write lock all the while.
    #[error("{path}: {doing}: another process is writing; nothing was changed, try again")]
    Busy {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
    },
    /// The disk is full.
    #[error("{path}: {doing}: the disk is full; what was stored before is kept; free some space and try again")]
    Full {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
    },
    /// The system failed to read, write, sync or lock.
    #[error(
        "{path}: {doing}: the disk failed ({detail}); what was stored before is kept; check the disk and the space on \
         it, and try again"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What failed, and the code that SQLite has for it.
        detail: String,
    },
    /// The file is damaged.
    #[error("{path}: {doing}: the file is damaged ({detail}); keep a copy, and restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The file, or its folder, cannot be written.
    #[error("{path}: {doing}: the file or its folder cannot be written; check their permissions")]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
    },
    /// Anything else that SQLite says.
    #[error("{path}: {doing}: {detail}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite says.
        detail: String,
    },
    /// A newer program has taken the file over since it was opened; nothing was written.
    #[error(
        "{path}: {doing}: schema version {found} is newer than {newest}, the newest that this program knows; upgrade it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Its schema version.
        found: i64,
        /// The newest known.
        newest: i64,
    },
    /// The engine that keeps the log elsewhere did not do it.
    #[error("{address}: {detail}")]
    Engine {
        /// Where the log is kept.
        address: String,
        /// What happened, and what holds now.
        detail: String,
    },
    /// Whoever wrote for those who wait panicked; the outcome is unknown.
    #[error("{path}: the writer has ended; read what is there, then open the ledger again")]
    WriterGone {
        /// The file.
        path: PathBuf,
    },
}

impl StorageError {
    /// Names the file and the deed in an error of SQLite.
    pub fn sqlite(path: &Path, doing: &'static str, source: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Busy { path, doing },
            Some(Code::DiskFull) => Self::Full { path, doing },
            Some(Code::SystemIoFailure) => Self::Io { path, doing, detail: io_failure(source) },
            Some(Code::ReadOnly | Code::PermissionDenied | Code::CannotOpen) => Self::ReadOnly { path, doing },
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => {
                Self::Damaged { path, doing, detail: source.to_string() }
            }
            _ => Self::Sqlite { path, doing, detail: source.to_string() },
        }
    }
}

/// Which call to the system failed. SQLite's own words for all of them are "disk I/O error".
fn io_failure(source: &rusqlite::Error) -> String {
    use rusqlite::ffi;
    let code = source.sqlite_error().map_or(ffi::SQLITE_IOERR, |error| error.extended_code);
    let call = match code {
        ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ => "a read",
        ffi::SQLITE_IOERR_WRITE => "a write",
        ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => "a sync",
        ffi::SQLITE_IOERR_TRUNCATE => "shortening a file",
        ffi::SQLITE_IOERR_DELETE | ffi::SQLITE_IOERR_DELETE_NOENT => "removing a file",
        ffi::SQLITE_IOERR_FSTAT => "asking for a file's length",
        ffi::SQLITE_IOERR_LOCK | ffi::SQLITE_IOERR_RDLOCK | ffi::SQLITE_IOERR_UNLOCK | ffi::SQLITE_IOERR_SHMLOCK => {
            "a lock"
        }
        ffi::SQLITE_IOERR_SHMOPEN | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP => "shared memory",
        _ => "a call",
    };
    format!("{call}, SQLite's code {code}")
}

/// A copy of the log that could not be made. There is none; the log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The copy's name is taken.
    #[error("{path}: there is something already; name a new file, or move that one away")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another copy of that name is being made, or was left unfinished.
    #[error("{path}: a backup to this name is under way, or was cut off; remove the file if none is, and try again")]
    Begun {
        /// The unfinished file.
        path: PathBuf,
    },
    /// The copy cannot be written.
    #[error(
        "{path}: the backup cannot be written: {source}; check the folder and the space there, or name another file"
    )]
    File {
        /// The file, or its folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The copy's name is none.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Reading the log or writing the copy failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A ledger that cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("{path}: there is no ledger; `exec`, `ingest` or a hook makes one, `--db` or RUNLEDGER_DB names another")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is gone, or empty, but its write-ahead log is there, and would be lost with a new file.
    #[error(
        "{path}: there is no ledger, but its {path}-wal is there, with events; put the ledger back beside it, or move \
         that file away"
    )]
    WalAlone {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written to.
    #[error("{path}: the ledger cannot be written to; check its permissions, or name another one with --db")]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The file is a database of something else.
    #[error("{path}: this is no ledger (application id {application_id}); name another file with --db")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The application id in its header.
        application_id: i64,
    },
    /// The file is a copy of a log that another engine keeps; what is appended to it goes there.
    #[error(
        "{path}: this is a copy of a log that is kept elsewhere, which alone is written to; name that one with --db"
    )]
    Copy {
        /// The file.
        path: PathBuf,
    },
    /// A log of its own lies where a copy is to be made.
    #[error("{path}: this is a ledger of its own, and no copy of another one; move it away")]
    NoCopy {
        /// The file.
        path: PathBuf,
    },
    /// The copy is one of another log.
    #[error(
        "{path}: this is a copy of log {found}, and the one at the address is {wanted}; move it away, and it is copied anew"
    )]
    CopyOfAnother {
        /// The file.
        path: PathBuf,
        /// The log that it is a copy of.
        found: LogId,
        /// The log that is to be copied.
        wanted: LogId,
    },
    /// The file cannot be looked at.
    #[error("{path}: cannot be read: {source}; check its permissions, or name another file with --db")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no SQLite database at all.
    #[error("{path}: this is no ledger, and no database; name another file with --db")]
    NoDatabase {
        /// The file.
        path: PathBuf,
    },
    /// A newer program made it.
    #[error("{path}: schema version {found} is newer than {newest}, the newest that this program knows; upgrade it")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest known.
        newest: i64,
    },
    /// An older program made it, and a reader does not migrate.
    #[error("{path}: schema version {found} is older than {newest}; a command that writes will migrate it")]
    Older {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest known.
        newest: i64,
    },
    /// The file or its folder cannot be made.
    #[error("{path}: cannot be made: {source}; name another file with --db")]
    Create {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Events that cannot be prepared for appending. Nothing was sent to the log.
#[derive(Debug, thiserror::Error)]
pub enum NewEventError {
    /// The JSON text is too large.
    #[error("the event has {bytes} bytes; at most {max} are taken")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest taken.
        max: usize,
    },
    /// The payload cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The condition of an append did not hold. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream}: expected {expected}, but it has {actual} events; read again and decide again")]
pub struct WrongExpectedVersion {
    /// The stream.
    pub stream: StreamName,
    /// What was expected.
    pub expected: ExpectedVersion,
    /// The version that it has.
    pub actual: StreamVersion,
}

/// Why events were not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The stream is not at the expected version; nothing was written.
    #[error(transparent)]
    WrongExpectedVersion(#[from] WrongExpectedVersion),
    /// Another event has this id in the stream; nothing was written.
    #[error("stream {stream}: another event with the id {id} stands at position {position}; nothing was appended")]
    IdTaken {
        /// The stream.
        stream: StreamName,
        /// The id.
        id: EventId,
        /// Where the other event stands.
        position: Position,
    },
    /// The event says what was done to this log; nothing was written.
    #[error("stream {stream}: what was done to this log is told by the log itself alone; nothing was appended")]
    OfLedger {
        /// The stream.
        stream: StreamName,
    },
    /// What was told of the event is not what it comes to here; nothing was written.
    #[error(
        "event {id} of stream {stream}, version {version}, is not the one that was appended: its digest is another; nothing was appended"
    )]
    OtherDigest {
        /// The stream.
        stream: StreamName,
        /// The version.
        version: StreamVersion,
        /// The id.
        id: EventId,
    },
    /// The engine will never take it as it is; nothing was written.
    #[error("{address}: {detail}; nothing was written")]
    Refused {
        /// Where the log is kept.
        address: String,
        /// Why not.
        detail: String,
    },
    /// SQLite refused; the outcome is unknown, read before you try again (or append the same ids again).
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a backup was not put in a ledger's place. What is there stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is a log of another ledger.
    #[error("{path}: this is another log, {log_id}; move it away, or name another place with --db")]
    OtherLog {
        /// The file.
        path: PathBuf,
        /// Its log.
        log_id: LogId,
    },
    /// The log there goes on where the backup ends.
    #[error(
        "{path}: the log there goes on to position {head}, the backup ends at {of_backup}: what is newer would be lost; \
         move the ledger away, with its -wal, if that is what you want"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Where its log ends.
        head: Position,
        /// Where the backup ends.
        of_backup: Position,
    },
    /// There is an empty file, which somebody may be making a ledger of.
    #[error("{path}: this is an empty file; remove it, if nobody is making a ledger of it, and try again")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The log there is not the beginning of the backup's.
    #[error(
        "{path}: the log there, up to position {head}, is not what the backup has up to there; `verify` both, and move \
         the wrong one away"
    )]
    Apart {
        /// The file.
        path: PathBuf,
        /// Where its log ends.
        head: Position,
    },
    /// There was none, and the copy cannot be made.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Reading or writing failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why nothing was erased.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// There is no such event.
    #[error("there is no event at position {position}; the log ends at {head}")]
    NoEvent {
        /// What was asked for.
        position: Position,
        /// The log's end.
        head: Position,
    },
    /// The event tells what was done to the ledger.
    #[error("position {position} tells what was done to the ledger itself, and is not erased")]
    OfLedger {
        /// What was asked for.
        position: Position,
    },
    /// The event that tells of it cannot be made of what was given.
    #[error("what is told of the erasure makes no event: {detail}; give another reason")]
    Event {
        /// Why.
        detail: String,
    },
    /// The event that tells of it is too large.
    #[error(transparent)]
    NewEvent(#[from] NewEventError),
    /// It was not appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why the log's head was not signed. Nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A key's text is none.
    #[error("this is no key: one line that begins with {expected}; `seal --init` makes a pair")]
    Key {
        /// What its text begins with.
        expected: &'static str,
    },
    /// The system gives no random bytes.
    #[error("no random bytes for a new key: {detail}; try again")]
    Random {
        /// Why.
        detail: String,
    },
    /// The event cannot be made.
    #[error("the signed head makes no event: {detail}")]
    Event {
        /// Why.
        detail: String,
    },
    /// It was not appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A payload does not decode.
    #[error("position {position}: {source}")]
    Payload {
        /// Where it stands.
        position: Position,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A name in a row is none.
    #[error("position {position}: {source}")]
    Name {
        /// Where it stands.
        position: Position,
        /// What is wrong with it.
        source: IdError,
    },
    /// A column holds what it cannot hold.
    #[error("position {position}: column {column} is damaged; `verify` tells more")]
    Column {
        /// Where it stands.
        position: Position,
        /// Which column.
        column: &'static str,
    },
    /// SQLite refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
