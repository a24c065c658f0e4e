//! Writing a write-ahead log back into its file on a thread of its own, so that whoever commits does not stop for it: at
//! the log's limit that took 10 to 40 ms, in which everybody waited.
//!
//! Invariant: nothing depends on it. Whatever it leaves is written back by the commit that reaches the log's limit, which
//! also begins the log anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{failpoint, schema};

/// Pages from which on they are written back: few, as the commit that reaches the limit writes what is left.
const PAGES: i64 = 500;

/// What writes one file's log back: a thread, once there was something for it to do.
#[derive(Debug)]
pub struct WriteBack {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Pages that were in the log when it was first looked at; none once it was begun anew.
    found: Option<i64>,
}

impl WriteBack {
    /// Does nothing yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), is_over: Arc::default(), thread: None, found: None }
    }

    /// After a commit of this connection to the same file: has the thread write back what is due. A process that commits
    /// little has no thread for it.
    pub fn look(&mut self, connection: &Connection) {
        if let Err(error) = self.look_at(connection) {
            tracing::debug!(%error, "commits write the write-ahead log back themselves");
        }
    }

    fn look_at(&mut self, connection: &Connection) -> std::io::Result<()> {
        // Only looks. SQLite before 3.51 takes the word for PASSIVE, and does it here.
        let (in_log, written_back): (i64, i64) = connection
            .prepare_cached("PRAGMA wal_checkpoint(NOOP)")
            .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?))))
            .map_err(std::io::Error::other)?;
        let before = self.found.get_or_insert(in_log);
        if in_log < *before {
            *before = 0;
        }
        if in_log - written_back.max(*before) >= PAGES {
            self.started()?.thread().unpark();
        }
        Ok(())
    }

    fn started(&mut self) -> std::io::Result<&JoinHandle<()>> {
        match &mut self.thread {
            Some(thread) => Ok(thread),
            none => {
                let connection = open(&self.path).map_err(std::io::Error::other)?;
                let is_over = self.is_over.clone();
                let thread = std::thread::Builder::new().name("runledger-write-back".to_owned());
                let path = self.path.clone();
                Ok(none.insert(thread.spawn(move || write_back(&path, &connection, &is_over))?))
            }
        }
    }
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that writes the write-ahead log back panicked");
            }
        }
    }
}

/// It syncs as SQLite does by default, whatever the one that commits does: the log first, then the file.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    schema::note_connection(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    Ok(connection)
}

fn write_back(path: &Path, connection: &Connection, is_over: &AtomicBool) {
    loop {
        std::thread::park();
        if is_over.load(Ordering::Acquire) {
            return;
        }
        // Where another connection does the same it is busy, and this is done.
        failpoint::pass("write_back.before");
        let file = path.display();
        match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            Ok(()) => {}
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                tracing::debug!(%error, %file, "its write-ahead log was not written back");
            }
            Err(error) => {
                tracing::error!(%error, %file, "its write-ahead log was not written back; if the disk failed, `runledger verify`");
            }
        }
        failpoint::pass("write_back.after");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    fn written(connection: &Connection, pages: usize) {
        connection.execute("INSERT INTO t VALUES (zeroblob(?1))", [pages * 4096]).unwrap();
    }

    fn pages(connection: &Connection) -> (i64, i64) {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, row.get(2)?));
        connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], row).unwrap()
    }

    #[test]
    fn who_commits_much_has_it_written_back_and_who_commits_little_has_no_thread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        connection.execute_batch("CREATE TABLE t (b BLOB)").unwrap();
        written(&connection, 800);

        // What others left is not this one's to write.
        let mut write_back = WriteBack::new(&path);
        for _ in 0..10 {
            written(&connection, 10);
            write_back.look(&connection);
        }
        assert!(write_back.thread.is_none());
        assert_eq!(pages(&connection).1, 0);

        written(&connection, 600);
        write_back.look(&connection);
        assert!(write_back.thread.is_some());
        let all = pages(&connection).0;
        while pages(&connection).1 < all {
            std::thread::yield_now();
        }
        drop(write_back);
        // The next commit begins the log anew.
        written(&connection, 1);
        assert!(pages(&connection).0 < 10);
        let blobs: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(blobs, 13);
    }
}
