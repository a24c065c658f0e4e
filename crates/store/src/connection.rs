//! Connections to the log's file, and what is set on them.

use std::path::{Path, PathBuf};

use runledger_events::LogId;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{OpenError, StorageError};
use crate::failpoint;
use crate::schema::{self, Found};
use crate::sqlite;
use crate::sqlite_log::OpenOptions;

/// The full path: SQLite takes names such as `file:x` or `:memory:` for something else than the file of that name.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    std::path::absolute(path).map_err(|source| OpenError::Create { path: path.to_owned(), source })
}

/// Whether what names a ledger is meant to be the address of a log that is kept elsewhere, `SCHEME://…`, and no file's path.
pub fn is_address(text: &str) -> bool {
    let is_scheme = |scheme: &str| scheme.len() > 1 && scheme.chars().all(|letter| letter.is_ascii_alphabetic());
    text.split_once(':').is_some_and(|(scheme, rest)| {
        // Both without slashes are slips of the pen, and no files.
        let is_known = ["nats", "tls"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        is_known || (is_scheme(scheme) && rest.starts_with("//"))
    })
}

/// What names a ledger for somebody in another folder: a path made absolute, the address of a log that is kept elsewhere as it is.
///
/// # Errors
/// [`std::io::Error`] where the path is empty, or the current folder is not known.
pub fn absolute_place(place: &Path) -> std::io::Result<PathBuf> {
    match place.to_str().is_some_and(is_address) {
        true => Ok(place.to_owned()),
        false => std::path::absolute(place),
    }
}

/// Opens the file for writing; makes it, and its folder, where they are missing and may be made. It is a log of its own, or
/// the copy of one that another engine keeps.
pub(crate) fn open_writable(
    path: &Path,
    options: &OpenOptions,
    copy_of: Option<&LogId>,
) -> Result<Connection, OpenError> {
    // What was looked at stays open for a moment: with the last connection SQLite's index of the write-ahead log goes
    // too, and the next one would have to read that log once more.
    let looked = schema::look_at_header(path, options.busy_timeout)?;
    match looked.found {
        Found::Missing | Found::Empty if has_wal_alone(path) => {
            return Err(OpenError::WalAlone { path: path.to_owned() });
        }
        Found::Missing if !options.create => return Err(OpenError::Missing { path: path.to_owned() }),
        Found::Missing => create(path)?,
        Found::Empty | Found::Version(_) => {}
    }
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "opening", &source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    schema::note_connection(path);
    let mut connection = Connection::open_with_flags(path, flags).map_err(storage)?;
    // SQLite takes a file that it may not write to for one to read.
    if connection.is_readonly("main").map_err(storage)? {
        return Err(OpenError::ReadOnly { path: path.to_owned() });
    }
    connection.busy_timeout(options.busy_timeout).map_err(storage)?;
    // A short-lived process leaves the WAL as it is; whoever opens the file next goes on with it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(storage)?;
    // The header may be behind what stands in the write-ahead log.
    schema::look(path, &connection)?;
    sqlite::use_wal(&connection, options.busy_timeout).map_err(storage)?;
    let pragmas: [(&str, &dyn rusqlite::ToSql); 6] = [
        ("synchronous", &options.sync.pragma()),
        // On macOS fsync leaves data in the drive's cache; this asks for F_FULLFSYNC. Elsewhere it changes nothing.
        ("fullfsync", &true),
        ("checkpoint_fullfsync", &true),
        ("wal_autocheckpoint", &options.wal_pages),
        // Keys of streams are read or made by the append itself, in the same transaction.
        ("foreign_keys", &false),
        ("trusted_schema", &false),
    ];
    for (name, value) in pragmas {
        connection.pragma_update(None, name, value).map_err(storage)?;
    }
    failpoint::pass("open.before_schema");
    schema::migrate(path, &mut connection, copy_of)?;
    match (copy_of, schema::is_copy(path, &connection)?) {
        (None, true) => return Err(OpenError::Copy { path: path.to_owned() }),
        (Some(_), false) => return Err(OpenError::NoCopy { path: path.to_owned() }),
        _ => {}
    }
    failpoint::pass("open.after_schema");
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens the file for reading; it has to be there, in a schema that is read as it is.
pub(crate) fn open_read_only(path: &Path) -> Result<Connection, OpenError> {
    let newest = schema::NEWEST;
    let busy_timeout = OpenOptions::default().busy_timeout;
    let missing = || OpenError::Missing { path: path.to_owned() };
    match schema::look_at_header(path, busy_timeout)?.found {
        Found::Missing | Found::Empty => return Err(missing()),
        Found::Version(_) => {}
    }
    let storage = |source: rusqlite::Error| StorageError::sqlite(path, "opening", &source);
    let connection = schema::open_probe(path, busy_timeout)?;
    match schema::look(path, &connection)? {
        Found::Missing | Found::Empty => return Err(missing()),
        Found::Version(found) if found < schema::OLDEST_READ => {
            return Err(OpenError::Older { path: path.to_owned(), found, newest });
        }
        Found::Version(_) => {}
    }
    connection.pragma_update(None, "trusted_schema", false).map_err(storage)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Whether the write-ahead log has lost its ledger: SQLite would remove it, with the events in it, for a new file.
pub(crate) fn has_wal_alone(path: &Path) -> bool {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let length = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
    // Who makes a ledger writes its first page before its write-ahead log.
    length(Path::new(&wal)) > 0 && length(path) == 0
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
        Ok(_) => failpoint::pass("open.file_made"),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;
    use crate::sqlite_log::SyncMode;

    #[test]
    fn an_address_stays_what_it_is_in_every_folder_and_a_file_is_made_absolute() {
        for text in ["nats://a/t", "tls://a,b/t?replicas=1", "NATS://a/t", "nats:a", "tls:/a", "ws://a/t", "file:///a"]
        {
            assert_eq!(absolute_place(Path::new(text)).unwrap(), Path::new(text));
        }
        for text in ["a.db", "/tmp/a.db", ":memory:", "file:a", "c:/a.db", "c://a.db", "a/b://c", "natsx:a", "://a"] {
            let place = absolute_place(Path::new(text)).unwrap();
            assert!(
                place.is_absolute() && place.ends_with(Path::new(text).file_name().unwrap()),
                "{}",
                place.display()
            );
        }
    }

    #[test]
    fn an_append_waits_for_the_disk_unless_whoever_opens_the_log_chose_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let synchronous = |options: &OpenOptions| -> i64 {
            let connection = open_writable(&path, options, None).unwrap();
            connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap()
        };
        let (normal, full) = (1, 2);
        assert_eq!(synchronous(&OpenOptions::default()), full);
        assert_eq!(synchronous(&OpenOptions { sync: SyncMode::Normal, ..OpenOptions::default() }), normal);
        assert_eq!(synchronous(&OpenOptions::default()), full, "the file does not keep it");
    }
}
