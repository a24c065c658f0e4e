//! What both of a ledger's files need of SQLite, where several processes may open a new file at once.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use rusqlite_migration::Migrations;

use crate::error::StorageError;

/// Turns write-ahead logging on. That needs the file for itself for a moment, and SQLite waits for it by no busy
/// timeout, so it is tried again for as long as `patience`.
///
/// # Errors
/// What SQLite says.
pub fn use_wal(connection: &Connection, patience: Duration) -> Result<(), rusqlite::Error> {
    let began = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && began.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Bytes of a page of both files.
const PAGE_BYTES: u64 = 4096;

/// Writes a write-ahead log of `pages` or more into its file and empties it, unless somebody else is using it. For one who
/// is about to close the file.
///
/// What a checkpoint has written is known to those alone who have the file open. Without this, processes that come one
/// after the other would each read a log that only grows, and write it into the file once more.
pub fn shorten_wal(connection: &Connection, path: &Path, pages: u32) {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let length = std::fs::metadata(wal).map(|metadata| metadata.len()).unwrap_or_default();
    if length < u64::from(pages) * PAGE_BYTES {
        return;
    }
    let checkpoint = || -> rusqlite::Result<()> {
        connection.busy_timeout(Duration::ZERO)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    };
    if let Err(error) = checkpoint() {
        // Everything is in the write-ahead log, where the next one finds it.
        tracing::debug!(%error, "the write-ahead log was left as it is");
    }
}

/// Writes the write-ahead log into its file and empties it, so that nothing is left of what was in it; false where somebody
/// reads or writes it for longer than `patience`.
///
/// Another checkpoint, such as that of the thread that writes back, is waited for by no busy timeout of SQLite's, so it is
/// tried again.
///
/// # Errors
/// What SQLite says.
pub fn empty_wal(connection: &Connection, patience: Duration) -> Result<bool, rusqlite::Error> {
    let deadline = Instant::now() + patience;
    loop {
        connection.busy_timeout(deadline.saturating_duration_since(Instant::now()))?;
        let is_busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if !is_busy || Instant::now() >= deadline {
            return Ok(!is_busy);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Brings the schema to `newest`, the number of `migrations`.
///
/// Two processes may do so at once: the migrations run in an immediate transaction, so one waits for the other, then
/// finds the work done.
///
/// # Errors
/// [`StorageError`]; the schema is as it was.
pub fn migrate(
    path: &Path,
    connection: &mut Connection,
    migrations: &Migrations<'_>,
    newest: i64,
) -> Result<(), StorageError> {
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    let mut tries = 0;
    let result = loop {
        let Err(error) = migrations.to_latest(connection) else {
            break Ok(());
        };
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|source| StorageError::sqlite(path, "reading the schema version", &source))?;
        tries += 1;
        if version == newest {
            break Ok(());
        }
        if tries > 3 {
            let doing = "migrating the schema";
            break Err(match error {
                rusqlite_migration::Error::RusqliteError { err, .. } => StorageError::sqlite(path, doing, &err),
                error => StorageError::Sqlite { path: path.to_owned(), doing, detail: error.to_string() },
            });
        }
    };
    // A transaction that only reads must not take the write lock.
    connection.set_transaction_behavior(TransactionBehavior::Deferred);
    result
}
