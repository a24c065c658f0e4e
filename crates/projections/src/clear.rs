//! Clearing the file of the read models of texts that were erased in the log: out of its free pages and its write-ahead log,
//! once no row has them any more.

use std::time::Duration;

use runledger_events::Position;
use runledger_store::StorageError;

use crate::error::ProjectionError;
use crate::file;
use crate::projections::Projections;

/// How long others are waited for, who read what the write-ahead log holds.
const PATIENCE: Duration = Duration::from_secs(2);

impl Projections {
    /// Whether nothing of what was erased in the log so far is left in the file of the read models; clears what is left, as
    /// far as those who read let it. Any [`Projections::catch_up`] does so too.
    ///
    /// # Errors
    /// [`ProjectionError`]: something may be left, and another try may clear it.
    pub fn clear_erased(&mut self) -> Result<bool, ProjectionError> {
        let Some(redaction) = self.reader.last_redaction()? else {
            return Ok(true);
        };
        let path = self.path.clone();
        let failed = |source: rusqlite::Error| StorageError::sqlite(&path, "clearing what was erased", &source);
        let cleared = |column: &str| -> rusqlite::Result<Position> {
            let sql = format!("SELECT {column} FROM cleared");
            self.connection.query_row(&sql, [], |row| Ok(Position(row.get(0)?)))
        };
        let (of_file, of_wal) = (cleared("of_file").map_err(failed)?, cleared("of_wal").map_err(failed)?);
        if of_wal >= redaction {
            return Ok(true);
        }
        let mut names = self.registered.iter().map(|projection| projection.name());
        let are_there =
            names.try_fold(true, |are, name| Ok::<_, ProjectionError>(are && self.reached(name)? >= redaction))?;
        if !are_there {
            return Ok(false);
        }
        let note = |column: &str| {
            let sql = format!("UPDATE cleared SET {column} = max({column}, ?1)");
            self.connection.execute(&sql, [redaction.0]).map(drop).map_err(failed)
        };
        if of_file < redaction {
            // Rows are written over where they stand, and pages freed with what was in them: only a file that is written
            // anew has nothing but the rows of today.
            self.connection.execute_batch("VACUUM").map_err(failed)?;
            note("of_file")?;
        }
        self.connection.busy_timeout(PATIENCE).map_err(failed)?;
        let is_busy: rusqlite::Result<bool> =
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        file::set_busy_handler(&self.connection).map_err(failed)?;
        if is_busy.map_err(failed)? {
            return Ok(false);
        }
        note("of_wal")?;
        Ok(true)
    }

    fn reached(&self, name: &str) -> Result<Position, ProjectionError> {
        Ok(self.checkpoint(name)?.map(|checkpoint| checkpoint.position).unwrap_or_default())
    }
}
