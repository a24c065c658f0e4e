//! The log's schema: its migrations, and the check that keeps a file we do not know from being touched.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runledger_events::{CONTENT_DICTIONARY, LogId};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use rusqlite_migration::{M, Migrations};

use crate::error::{OpenError, StorageError};
use crate::sqlite;

/// `RLDG`, in the header of every ledger.
const APPLICATION_ID: i64 = 0x524C_4447;
/// `RLDC`, in the header of a copy of a log that another engine keeps: programs that know no copies leave it alone.
const COPY_ID: i64 = 0x524C_4443;

/// The schema version that this program writes, counted in `PRAGMA user_version`.
///
/// - 1: release 0.1.
/// - 2: two more indexes.
/// - 3: two guards roll back where they aborted.
/// - 4: the dictionary that content is compressed with.
pub(crate) const NEWEST: i64 = 4;

/// The oldest schema version that is read as it is: tables and columns are those of today, so that nobody has to write
/// before somebody may read. What it lacks are indexes, and what it has slows appends down alone.
pub(crate) const OLDEST_READ: i64 = 1;

static MIGRATIONS: LazyLock<Migrations<'static>> = LazyLock::new(|| migrations(None));

/// The migrations; a new file is a log of its own, or a copy of this one.
fn migrations(copy_of: Option<LogId>) -> Migrations<'static> {
    Migrations::new(vec![
        M::up_with_hook(
            include_str!("../../../migrations/log/0001_log.sql"),
            move |transaction: &rusqlite::Transaction<'_>| {
                let own = || uuid::Uuid::now_v7().to_string();
                let log_id = copy_of.as_ref().map_or_else(own, ToString::to_string);
                let sql = "INSERT INTO ledger (id, log_id, created_at) VALUES (1, ?1, ?2)";
                transaction.execute(sql, (log_id, crate::write::now().0))?;
                if copy_of.is_some() {
                    transaction.pragma_update(None, "application_id", COPY_ID)?;
                }
                Ok(())
            },
        ),
        M::up(include_str!("../../../migrations/log/0002_runs_and_permissions.sql")),
        M::up(include_str!("../../../migrations/log/0003_append.sql")),
        M::up_with_hook(
            include_str!("../../../migrations/log/0004_dictionary.sql"),
            |transaction: &rusqlite::Transaction<'_>| {
                transaction.execute(
                    "INSERT INTO dictionaries (dictionary_id, created_at, bytes) VALUES (?1, ?2, ?3)",
                    (CONTENT_DICTIONARY.id, crate::write::now().0, CONTENT_DICTIONARY.bytes),
                )?;
                Ok(())
            },
        ),
    ])
}

/// What a file is, seen without changing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Missing,
    /// No tables and no version yet: a file that was just made.
    Empty,
    Version(i64),
}

/// What a file's header told, and the connection that was needed to see more.
pub(crate) struct Looked {
    pub(crate) found: Found,
    /// Open as long as this value is.
    _probe: Option<Connection>,
}

/// Looks at the file without writing anything to it, or beside it where its header alone tells enough. A header may be
/// behind what stands in the write-ahead log: [`look`] again over the connection.
pub(crate) fn look_at_header(path: &Path, busy_timeout: Duration) -> Result<Looked, OpenError> {
    let settled = |found| Ok(Looked { found, _probe: None });
    let header = match read_past_sqlite(path, || header(path)) {
        Some(header) => header.map_err(|source| OpenError::Unreadable { path: path.to_owned(), source })?,
        None => return look_by_probe(path, busy_timeout),
    };
    match header {
        None => settled(Found::Missing),
        Some(Header::Empty) => settled(Found::Empty),
        Some(Header::NoDatabase) if rolls_back_to_nothing(path) => settled(Found::Empty),
        Some(Header::NoDatabase) => Err(OpenError::NoDatabase { path: path.to_owned() }),
        Some(Header::Database { application_id: 0, version: 0 }) => look_by_probe(path, busy_timeout),
        Some(Header::Database { application_id, version }) => settled(judge(path, application_id, version, true)?),
    }
}

/// Looks at the file over a connection that cannot write. Such a one cannot roll back either.
fn look_by_probe(path: &Path, busy_timeout: Duration) -> Result<Looked, OpenError> {
    if rolls_back_to_nothing(path) {
        return Ok(Looked { found: Found::Empty, _probe: None });
    }
    let probe = open_probe(path, busy_timeout)?;
    Ok(Looked { found: look(path, &probe)?, _probe: Some(probe) })
}

/// Whether a rollback journal stands beside the file that was begun when the file was empty: whoever made it is at it, or
/// came to its end there, and SQLite empties the file for the next one that writes.
fn rolls_back_to_nothing(path: &Path) -> bool {
    const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    // SQLite has no locks on a journal that closing it could give up.
    let mut header = [0; 20];
    let is_read = std::fs::File::open(journal).and_then(|mut file| file.read_exact(&mut header)).is_ok();
    // <https://www.sqlite.org/fileformat.html>, "The Rollback Journal": pages that the database had stand at 16.
    is_read && header.starts_with(&MAGIC) && header[16..] == [0; 4]
}

/// The files that this process has connected to. Closing any handle of a file gives up every lock that the process has on
/// it (POSIX), SQLite's too: another program that closes the file then takes itself for the last one, and removes the
/// write-ahead log under us. So a file is read past SQLite only before this process has connected to it.
static CONNECTED: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

fn connected() -> MutexGuard<'static, BTreeSet<(u64, u64)>> {
    // A set is whole at every step.
    CONNECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(unix)]
fn file_id(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Elsewhere a lock goes with its own handle.
#[cfg(not(unix))]
fn file_id(_: &Path) -> Option<(u64, u64)> {
    None
}

/// Notes that this process is about to connect to the file.
pub(crate) fn note_connection(path: &Path) {
    if let Some(id) = file_id(path) {
        connected().insert(id);
    }
}

/// Reads the file past SQLite, unless this process has connected to it before; nobody connects meanwhile.
fn read_past_sqlite<T>(path: &Path, read: impl FnOnce() -> T) -> Option<T> {
    let connected = connected();
    let is_connected = file_id(path).is_some_and(|id| connected.contains(&id));
    (!is_connected).then(read)
}

/// A connection that cannot write.
pub(crate) fn open_probe(path: &Path, busy_timeout: Duration) -> Result<Connection, StorageError> {
    note_connection(path);
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "opening", &source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let probe = Connection::open_with_flags(path, flags).map_err(storage)?;
    probe.busy_timeout(busy_timeout).map_err(storage)?;
    Ok(probe)
}

/// What the file is, its write-ahead log included.
pub(crate) fn look(path: &Path, connection: &Connection) -> Result<Found, OpenError> {
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "opening", &source);
    // All is read in one transaction: another process may be making the ledger right now.
    let transaction = connection.unchecked_transaction().map_err(storage)?;
    let pragma = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(storage);
    let (application_id, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(storage)?;
    judge(path, application_id, version, tables > 0)
}

fn judge(path: &Path, application_id: i64, version: i64, has_tables: bool) -> Result<Found, OpenError> {
    match (application_id, version) {
        (0, 0) if !has_tables => Ok(Found::Empty),
        (APPLICATION_ID | COPY_ID, found) if found > NEWEST => {
            Err(OpenError::Newer { path: path.to_owned(), found, newest: NEWEST })
        }
        (APPLICATION_ID | COPY_ID, found) => Ok(Found::Version(found)),
        (application_id, _) => Err(OpenError::Foreign { path: path.to_owned(), application_id }),
    }
}

/// What the first bytes of a file say (<https://www.sqlite.org/fileformat.html>, "The Database Header").
enum Header {
    Empty,
    NoDatabase,
    Database { application_id: i64, version: i64 },
}

fn header(path: &Path) -> std::io::Result<Option<Header>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // A pipe would keep us waiting; a folder or a socket is no ledger either.
        Ok(metadata) if !metadata.is_file() => return Ok(Some(Header::NoDatabase)),
        _ => {}
    }
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::with_capacity(100);
    file.by_ref().take(100).read_to_end(&mut bytes)?;
    let number = |at: usize| {
        let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
        field.map(|field| i64::from(i32::from_be_bytes(field)))
    };
    Ok(Some(match (bytes.is_empty(), bytes.starts_with(b"SQLite format 3\0"), number(68), number(60)) {
        (true, ..) => Header::Empty,
        (_, true, Some(application_id), Some(version)) => Header::Database { application_id, version },
        _ => Header::NoDatabase,
    }))
}

/// Brings the schema to the newest version; a new file becomes a log of its own, or a copy of this one.
pub(crate) fn migrate(path: &Path, connection: &mut Connection, copy_of: Option<&LogId>) -> Result<(), StorageError> {
    match copy_of {
        None => sqlite::migrate(path, connection, &MIGRATIONS, NEWEST),
        Some(log_id) => sqlite::migrate(path, connection, &migrations(Some(log_id.clone())), NEWEST),
    }
}

/// Whether the file is a copy of a log that another engine keeps.
pub(crate) fn is_copy(path: &Path, connection: &Connection) -> Result<bool, StorageError> {
    let found: i64 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(|source| StorageError::sqlite(path, "opening", &source))?;
    Ok(found == COPY_ID)
}

/// How the tables, indexes, triggers and dictionaries of a file differ from those that the migrations up to its version
/// make.
pub(crate) fn differences(path: &Path, connection: &Connection) -> Result<Vec<String>, StorageError> {
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "comparing the schema", &source);
    let objects = |connection: &Connection| -> rusqlite::Result<BTreeMap<String, String>> {
        connection
            .prepare("SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    };
    let mut reference = Connection::open_in_memory().map_err(storage)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(storage)?;
    let version = usize::try_from(version).unwrap_or_default();
    MIGRATIONS.to_version(&mut reference, version).map_err(|error| StorageError::Sqlite {
        path: path.to_owned(),
        doing: "making a schema to compare with",
        detail: error.to_string(),
    })?;
    let (made, found) = (objects(&reference).map_err(storage)?, objects(connection).map_err(storage)?);
    let missing = made.keys().filter(|name| !found.contains_key(*name)).map(|name| format!("{name} is missing"));
    let changed = made
        .iter()
        .filter(|(name, sql)| found.get(*name).is_some_and(|found| found != *sql))
        .map(|(name, _)| format!("{name} was changed"));
    let added = found.keys().filter(|name| !made.contains_key(*name)).map(|name| format!("{name} was added"));
    let of_dictionary = dictionary_difference(&reference, connection).map_err(storage)?;
    Ok(missing.chain(changed).chain(added).chain(of_dictionary).collect())
}

/// Whoever reads the file without this program needs the very bytes that the program wrote with.
fn dictionary_difference(made: &Connection, found: &Connection) -> rusqlite::Result<Option<String>> {
    let id = CONTENT_DICTIONARY.id;
    let bytes = |connection: &Connection| -> rusqlite::Result<Option<Vec<u8>>> {
        let sql = "SELECT CAST(bytes AS BLOB) FROM dictionaries WHERE dictionary_id = ?1";
        connection.query_row(sql, [id], |row| row.get(0)).optional()
    };
    // Without its table it is missing; what else is wrong with the file is told elsewhere.
    Ok(match (bytes(made)?, bytes(found).unwrap_or_default()) {
        (Some(made), Some(found)) if made != found => Some(format!("dictionary {id} was changed")),
        (Some(_), None) => Some(format!("dictionary {id} is missing")),
        (None, Some(_)) => Some(format!("dictionary {id} was added")),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_the_number_of_migrations() {
        MIGRATIONS.validate().expect("valid migrations");
        let mut connection = Connection::open_in_memory().expect("memory");
        MIGRATIONS.to_latest(&mut connection).expect("migrated");
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("version");
        assert_eq!(version, NEWEST);
        let id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).expect("id");
        assert_eq!(id, APPLICATION_ID);
    }
}
