//! A copy of the log, as it is at one moment, while others write.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::connection;
use crate::error::{BackupError, StorageError};
use crate::reader::{Head, LogReader};

/// Pages copied before progress is told.
const STEP_PAGES: i32 = 4096;
/// Between two tries, where SQLite is busy with the file.
const PATIENCE: Duration = Duration::from_millis(10);

/// A copy that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The end of the log in it.
    pub head: Head,
    /// Its length.
    pub bytes: u64,
}

/// The copy before it has its name: it goes with this value, unless it got one.
struct Unnamed {
    path: PathBuf,
    is_named: bool,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if !self.is_named
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished copy could not be removed");
        }
    }
}

impl LogReader {
    /// Copies the log into a new file (0600), as it is at this moment. Others may write meanwhile; what they append from
    /// now on is not in it. `progress` hears how many pages of how many are copied.
    ///
    /// The copy is written beside its place, as `NAME.part`, synced, and only then gets its name: under that name it is
    /// whole, or not there. It is one file, and can be read on a medium that cannot be written.
    ///
    /// # Errors
    /// [`BackupError`]; there is no copy then, and what was begun is removed.
    pub fn backup(&self, to: impl AsRef<Path>, mut progress: impl FnMut(u64, u64)) -> Result<Copied, BackupError> {
        let to = connection::absolute(to.as_ref())?;
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| BackupError::File { path, source }
        };
        refuse_existing(&to)?;
        let mut part = to.clone().into_os_string();
        part.push(".part");
        let mut part = make(PathBuf::from(part))?;

        let storage = |source: rusqlite::Error| StorageError::sqlite(&part.path, "making a backup", &source);
        // As long as it is open the copy is of one moment, and nothing makes SQLite begin anew.
        let snapshot = self.connection().unchecked_transaction().map_err(|source| self.storage(&source))?;
        let head = self.head()?;
        {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let mut copy = Connection::open_with_flags(&part.path, flags).map_err(storage)?;
            // It is of no use before all of it is there, and synced then.
            copy.pragma_update(None, "journal_mode", "OFF").map_err(storage)?;
            copy.pragma_update(None, "synchronous", "OFF").map_err(storage)?;
            let backup = Backup::new(&snapshot, &mut copy).map_err(storage)?;
            loop {
                let step = backup.step(STEP_PAGES).map_err(storage)?;
                let pages = backup.progress();
                let [all, left] = [pages.pagecount, pages.remaining].map(|pages| u64::try_from(pages).unwrap_or(0));
                progress(all.saturating_sub(left), all);
                match step {
                    StepResult::Done => break,
                    StepResult::More => {}
                    _ => std::thread::sleep(PATIENCE),
                }
            }
            drop(backup);
            // One file, which can be read where nothing can be written; whoever writes to it turns the write-ahead log on.
            copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(storage)?;
        }
        drop(snapshot);
        let copy = File::options().read(true).write(true).open(&part.path).map_err(file(&part.path))?;
        copy.sync_all().map_err(file(&part.path))?;
        let bytes = copy.metadata().map_err(file(&part.path))?.len();
        refuse_existing(&to)?;
        std::fs::rename(&part.path, &to).map_err(file(&to))?;
        part.is_named = true;
        // The name has to outlive a power loss too.
        #[cfg(unix)]
        if let Some(folder) = to.parent() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(file(folder))?;
        }
        Ok(Copied { head, bytes })
    }
}

fn refuse_existing(path: &Path) -> Result<(), BackupError> {
    match path.symlink_metadata() {
        Ok(_) => Err(BackupError::Exists { path: path.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BackupError::File { path: path.to_owned(), source }),
    }
}

/// Makes the empty file, which nobody else may be writing.
fn make(path: PathBuf) -> Result<Unnamed, BackupError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(&path) {
        Ok(_) => Ok(Unnamed { path, is_named: false }),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(BackupError::Begun { path }),
        Err(source) => Err(BackupError::File { path, source }),
    }
}
