//! Putting a backup in a ledger's place: where there is none, or where the log there is the beginning of the backup's.
//!
//! Invariant: no event is lost by it. What is there and is not in the backup is refused, also where it comes in between.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};

use crate::connection;
use crate::error::{OpenError, RestoreError, StorageError};
use crate::reader::{Head, LogReader};
use crate::sqlite_log::OpenOptions;

/// Pages copied before progress is told.
const STEP_PAGES: i32 = 4096;
/// Between two tries, where SQLite is busy with the file.
const PATIENCE: Duration = Duration::from_millis(10);

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Where the log ended before; none where there was none.
    pub before: Option<Head>,
    /// Where it ends now.
    pub head: Head,
}

impl LogReader {
    /// Puts this log, a backup, in the place of the ledger at `to`: in one transaction, so that others see the one or the
    /// other. `progress` hears how many pages of how many are copied.
    ///
    /// # Errors
    /// [`RestoreError`]; what is there stays as it is.
    pub fn restore(&self, to: impl AsRef<Path>, mut progress: impl FnMut(u64, u64)) -> Result<Restored, RestoreError> {
        let to = connection::absolute(to.as_ref())?;
        let is_link = std::fs::symlink_metadata(&to).is_ok_and(|file| file.is_symlink());
        // What a link leads to may be on a disk that is away for a moment.
        let to = match std::fs::canonicalize(&to) {
            Ok(real) if is_link => real,
            Err(_) if is_link => return Err(OpenError::Missing { path: to }.into()),
            _ => to,
        };
        if connection::has_wal_alone(&to) {
            return Err(OpenError::WalAlone { path: to }.into());
        }
        match std::fs::metadata(&to) {
            Err(_) => {
                let copied = self.backup(&to, progress)?;
                return Ok(Restored { before: None, head: copied.head });
            }
            Ok(file) if file.len() == 0 => return Err(RestoreError::Empty { path: to }),
            Ok(_) => {}
        }
        let there = LogReader::open(&to)?;
        let before = self.fits(&there)?;
        if before == self.head()? {
            return Ok(Restored { before: Some(before), head: before });
        }
        let options = OpenOptions { create: false, ..OpenOptions::default() };
        let mut target = connection::open_writable(&to, &options, None)?;
        let storage = |source: rusqlite::Error| StorageError::sqlite(&to, "restoring a backup", &source);
        let snapshot = self.connection().unchecked_transaction().map_err(|source| self.storage(&source))?;
        let head = self.head()?;
        let backup = Backup::new(&snapshot, &mut target).map_err(storage)?;
        let mut is_first = true;
        loop {
            let step = backup.step(if is_first { 1 } else { STEP_PAGES }).map_err(storage)?;
            if !matches!(step, StepResult::Done | StepResult::More) {
                std::thread::sleep(PATIENCE);
                continue;
            }
            // From here on nobody else can append; until here somebody may have.
            if std::mem::take(&mut is_first) {
                self.fits(&there)?;
            }
            let pages = backup.progress();
            let [all, left] = [pages.pagecount, pages.remaining].map(|pages| u64::try_from(pages).unwrap_or(0));
            progress(all.saturating_sub(left), all);
            if matches!(step, StepResult::Done) {
                break;
            }
        }
        drop(backup);
        Ok(Restored { before: Some(before), head })
    }

    /// Where the other log ends, which has to be the beginning of this one.
    fn fits(&self, there: &Self) -> Result<Head, RestoreError> {
        let path = there.path().to_owned();
        if there.log_id() != self.log_id() {
            return Err(RestoreError::OtherLog { path, log_id: there.log_id().clone() });
        }
        let (head, own) = (there.head()?, self.head()?.position);
        match self.chain_at(head.position)? {
            Some(chain) if chain == head.chain => Ok(head),
            None => Err(RestoreError::Newer { path, head: head.position, of_backup: own }),
            Some(_) => Err(RestoreError::Apart { path, head: head.position }),
        }
    }
}
