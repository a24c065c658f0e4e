//! Connections to the log's file, and what is set on them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{OpenError, StorageError};
use crate::schema::{self, Found};
use crate::sqlite;

/// The write-ahead log is grown once to about 16 MB (4096-byte pages) and then written again from its start.
const WAL_PAGES: i64 = 4000;

/// The full path: SQLite takes names such as `file:x` or `:memory:` for something else than the file of that name.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    std::path::absolute(path).map_err(|source| OpenError::Create { path: path.to_owned(), source })
}

/// Opens the file for writing; makes it, and its folder, where they are missing.
pub(crate) fn open_writable(path: &Path, busy_timeout: Duration) -> Result<Connection, OpenError> {
    if schema::inspect(path)? == Found::Missing {
        create(path)?;
    }
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "opening", &source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(storage)?;
    connection.busy_timeout(busy_timeout).map_err(storage)?;
    // A short-lived process leaves the WAL as it is; whoever opens the file next goes on with it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(storage)?;
    sqlite::use_wal(&connection, busy_timeout).map_err(storage)?;
    let pragmas: [(&str, &dyn rusqlite::ToSql); 6] = [
        ("synchronous", &"FULL"),
        // On macOS fsync leaves data in the drive's cache; this asks for F_FULLFSYNC. Elsewhere it changes nothing.
        ("fullfsync", &true),
        ("checkpoint_fullfsync", &true),
        ("wal_autocheckpoint", &WAL_PAGES),
        ("foreign_keys", &true),
        ("trusted_schema", &false),
    ];
    for (name, value) in pragmas {
        connection.pragma_update(None, name, value).map_err(storage)?;
    }
    schema::migrate(path, &mut connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens the file for reading; it has to be there, in today's schema.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, OpenError> {
    let newest = schema::NEWEST;
    match schema::inspect(path)? {
        Found::Missing | Found::Empty => return Err(OpenError::Missing { path: path.to_owned() }),
        Found::Version(found) if found < newest => {
            return Err(OpenError::Older { path: path.to_owned(), found, newest });
        }
        Found::Version(_) => {}
    }
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "opening", &source);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(storage)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(storage)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(storage)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Makes the folder (0700) and the file (0600), so that SQLite's own files beside it are 0600 too.
fn create(path: &Path) -> Result<(), OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Create { path, source }
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_new_folder = !folder.exists();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(failed(folder))?;

    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(source) => return Err(failed(path)(source)),
    }
    // The file's name has to outlive a power loss too, and the new folder's.
    #[cfg(unix)]
    for folder in [Some(folder), folder.parent().filter(|_| is_new_folder)].into_iter().flatten() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    }
    Ok(())
}
