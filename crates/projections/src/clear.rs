//! Clearing the file of the read models of texts that were erased in the log: out of its free pages and its write-ahead log,
//! once no row has them any more.

use std::time::Duration;

use runledger_events::Position;
use runledger_store::StorageError;
use runledger_store::sqlite::empty_wal;

use crate::error::ProjectionError;
use crate::file;
use crate::projections::Projections;

/// How long others are waited for, who read what the write-ahead log holds.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far something is cleared, as a column of the table.
#[derive(Debug, Clone, Copy)]
enum Cleared {
    File,
    Wal,
    Log,
}

impl Cleared {
    fn column(self) -> &'static str {
        match self {
            Self::File => "of_file",
            Self::Wal => "of_wal",
            Self::Log => "of_log",
        }
    }
}

impl Projections {
    /// Whether nothing of what was erased in the log so far is left in the file of the read models; clears what is left, as
    /// far as those who read or rebuild let it. Any [`Projections::catch_up`] does so too.
    ///
    /// # Errors
    /// [`ProjectionError`]: something may be left, and another try may clear it.
    pub fn clear_erased(&mut self) -> Result<bool, ProjectionError> {
        let Some(redaction) = self.reader.last_redaction()? else {
            return Ok(true);
        };
        if self.cleared(Cleared::Wal)? >= redaction {
            return Ok(true);
        }
        let mut names = self.registered.iter().map(|projection| projection.name());
        let are_there =
            names.try_fold(true, |are, name| Ok::<_, ProjectionError>(are && self.reached(name)? >= redaction))?;
        if !are_there {
            return Ok(false);
        }
        // Tables that nobody reads any more have the texts too, and whoever rebuilds is still to remove them.
        let Some(_lock) = self.try_lock_rebuilds()? else {
            return Ok(false);
        };
        let path = self.path.clone();
        let failed = |source: rusqlite::Error| StorageError::sqlite(&path, "clearing what was erased", &source);
        if self.cleared(Cleared::File)? < redaction {
            self.remove_leftovers()?;
            // Rows are written over where they stand, and pages freed with what was in them: only a file that is written
            // anew has nothing but the rows of today.
            self.connection.execute_batch("VACUUM").map_err(failed)?;
            self.note_cleared(Cleared::File, redaction)?;
        }
        let is_empty = empty_wal(&self.connection, PATIENCE);
        file::set_busy_handler(&self.connection).map_err(failed)?;
        if !is_empty.map_err(failed)? {
            return Ok(false);
        }
        self.note_cleared(Cleared::Wal, redaction)?;
        Ok(true)
    }

    /// Whether the log's own files are known to have nothing left of what was erased so far; whoever cleared them notes it.
    ///
    /// # Errors
    /// [`ProjectionError`] when a file cannot be read.
    pub fn log_is_cleared(&self) -> Result<bool, ProjectionError> {
        Ok(match self.reader.last_redaction()? {
            None => true,
            Some(redaction) => self.cleared(Cleared::Log)? >= redaction,
        })
    }

    /// Notes that the log's own files have nothing left of what was erased up to a position
    /// (`EventLog::settle`).
    ///
    /// # Errors
    /// [`ProjectionError`] when the file cannot be written.
    pub fn note_log_cleared(&mut self, up_to: Position) -> Result<(), ProjectionError> {
        self.note_cleared(Cleared::Log, up_to)
    }

    fn cleared(&self, what: Cleared) -> Result<Position, ProjectionError> {
        let sql = format!("SELECT CASE log_id WHEN ?1 THEN {} ELSE 0 END FROM cleared", what.column());
        self.connection
            .query_row(&sql, [self.reader.log_id().as_str()], |row| Ok(Position(row.get(0)?)))
            .map_err(|source| self.failed("looking how far it is cleared", &source))
    }

    fn note_cleared(&self, what: Cleared, up_to: Position) -> Result<(), ProjectionError> {
        let failed = |source: rusqlite::Error| self.failed("noting how far it is cleared", &source);
        let log_id = self.reader.log_id().as_str();
        // Of another log nothing is known.
        let reset = "UPDATE cleared SET of_file = 0, of_wal = 0, of_log = 0, log_id = ?1 WHERE log_id <> ?1";
        self.connection.execute(reset, [log_id]).map_err(failed)?;
        let note = format!("UPDATE cleared SET {0} = max({0}, ?1)", what.column());
        self.connection.execute(&note, [up_to.0]).map(drop).map_err(failed)
    }

    fn reached(&self, name: &str) -> Result<Position, ProjectionError> {
        Ok(self.checkpoint(name)?.map(|checkpoint| checkpoint.position).unwrap_or_default())
    }
}
