//! The projections' file: where it is, its schema, and connections to it.
//!
//! It is disposable, so it syncs less than the log: after a power loss its last transactions may be gone, never half
//! there, and the projector goes on from the checkpoint it finds.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use runledger_store::{StorageError, failpoint, sqlite};

use crate::error::ProjectionError;

/// `RLDP`, in the header of every projections' file.
const APPLICATION_ID: i64 = 0x524C_4450;

/// The schema version of the projector's own tables.
///
/// - 1: release 0.1.
/// - 2: parked streams, and how far erased texts were cleared.
const NEWEST: i64 = 2;

/// Pages of the write-ahead log from which on they are written back: a page that changes often is then written once.
const WAL_PAGES: u32 = 4000;

/// How long a transaction waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

static MIGRATIONS: LazyLock<Migrations<'static>> = LazyLock::new(|| {
    Migrations::new(vec![
        M::up(include_str!("../../../migrations/projections/0001_projector.sql")),
        M::up(include_str!("../../../migrations/projections/0002_parked.sql")),
    ])
});

/// What stands behind a ledger's name in that of its projections' file.
const SUFFIX: &str = ".projections";

/// The projections' file of a ledger: its own name with `.projections` behind it.
pub fn projections_path(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

pub(crate) fn is_projections_path(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(SUFFIX.as_bytes())
}

/// Opens the file for writing; makes it where it is missing.
pub(crate) fn open_writable(path: &Path) -> Result<Connection, ProjectionError> {
    create(path)?;
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "opening", &source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(storage)?;
    set_busy_handler(&connection).map_err(storage)?;
    check(path, &connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(storage)?;
    sqlite::use_wal(&connection, BUSY_TIMEOUT).map_err(storage)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(storage)?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES).map_err(storage)?;
    connection.set_prepared_statement_cache_capacity(64);
    failpoint::pass("models.before_schema");
    sqlite::migrate(path, &mut connection, &MIGRATIONS, NEWEST)?;
    failpoint::pass("models.after_schema");
    Ok(connection)
}

/// Pages of a file in memory that are copied at once: all of them, since nobody writes to it.
const PAGES_AT_ONCE: std::ffi::c_int = std::ffi::c_int::MAX;

/// Where a file in memory is, in words.
pub(crate) const IN_MEMORY: &str = ":memory:";

/// A new connection in memory with the projector's tables, for a fold of one's own.
pub(crate) fn open_in_memory() -> Result<Connection, ProjectionError> {
    let path = Path::new(IN_MEMORY);
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "making a read model", &source);
    let mut connection = Connection::open_in_memory().map_err(storage)?;
    connection.set_prepared_statement_cache_capacity(64);
    sqlite::migrate(path, &mut connection, &MIGRATIONS, NEWEST)?;
    Ok(connection)
}

/// A new connection in memory with all that another one has.
pub(crate) fn copy_in_memory(connection: &Connection) -> Result<Connection, ProjectionError> {
    let storage = |source: rusqlite::Error| StorageError::sqlite(Path::new(IN_MEMORY), "copying read models", &source);
    let mut copy = Connection::open_in_memory().map_err(storage)?;
    copy.set_prepared_statement_cache_capacity(64);
    Backup::new(connection, &mut copy)
        .and_then(|backup| backup.run_to_completion(PAGES_AT_ONCE, Duration::ZERO, None))
        .map_err(storage)?;
    Ok(copy)
}

/// Waits for a lock in steps of a millisecond: SQLite's own steps grow to 100 ms, which would starve the live projector
/// beside a rebuild.
pub(crate) fn set_busy_handler(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_handler(Some(|tries| {
        std::thread::sleep(Duration::from_millis(1));
        u128::from(tries.unsigned_abs()) < BUSY_TIMEOUT.as_millis()
    }))
}

/// Refuses a file of a newer program, or of something else, before anything is written to it.
pub(crate) fn check(path: &Path, connection: &Connection) -> Result<(), ProjectionError> {
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "opening", &source);
    let (application_id, found, tables): (i64, i64, i64) = connection
        .query_row(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
                 (SELECT count(*) FROM sqlite_schema)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .map_err(storage)?;
    if application_id != APPLICATION_ID && (application_id, found, tables) != (0, 0, 0) {
        return Err(ProjectionError::ForeignFile { path: path.to_owned(), application_id });
    }
    if found > NEWEST {
        return Err(ProjectionError::NewerFile { path: path.to_owned(), found, newest: NEWEST });
    }
    Ok(())
}

/// Makes an empty file (0600), so that SQLite's own files beside it are 0600 too.
pub(crate) fn create(path: &Path) -> Result<(), ProjectionError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(ProjectionError::File { path: path.to_owned(), source }),
    }
}
