//! Why a database cannot be taken over: which file, the cause, and what to do next. Nothing was appended.

use std::path::PathBuf;

use runledger_events::RunId;
use runledger_store::{AppendError, OpenError, ReadError, StorageError};

/// A database that is not taken over. Nothing of it was appended, and the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}; name a session database that can be read")]
    Unreadable {
        /// The database.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The private copy cannot be made.
    #[error(
        "{file}: cannot be copied to {folder}: {source}; free some space there, or name another folder with TMPDIR"
    )]
    Copy {
        /// The database.
        file: PathBuf,
        /// Where the copy was to be.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was written to while it was copied.
    #[error("{file}: another program is writing to it; close that program and import again")]
    Changing {
        /// The database.
        file: PathBuf,
    },
    /// It is no SQLite database.
    #[error("{file}: this is no database; name a session database (session.db)")]
    NoDatabase {
        /// The file.
        file: PathBuf,
    },
    /// It is a database, and damaged.
    #[error(
        "{file}: the database is damaged ({detail}); import a backup of it, or repair a copy with `sqlite3 … .recover`"
    )]
    Damaged {
        /// The database.
        file: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// It is a database of something else.
    #[error("{file}: this is no session database ({detail}); name another file")]
    Foreign {
        /// The database.
        file: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// Its schema is older than the first release's.
    #[error(
        "{file}: schema version {found} is older than 2, the first that was released; there is no way to take it over"
    )]
    Older {
        /// The database.
        file: PathBuf,
        /// Its schema version.
        found: i64,
    },
    /// Its schema is newer than any that this program knows.
    #[error("{file}: schema version {found} is newer than 6, the newest that this program knows; upgrade runledger")]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its schema version.
        found: i64,
    },
    /// A row cannot become an event.
    #[error("{file}: {table} {row}: {cause}; nothing was imported, mend the row in a copy and import that")]
    Row {
        /// The database.
        file: PathBuf,
        /// The table.
        table: String,
        /// Which of its rows.
        row: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The ledger has a run of this id that is not what the row says.
    #[error(
        "{file}: workflow_runs {run}: the ledger has this run already, with another {field}; \
         import into another ledger (--db), or leave it as it is"
    )]
    RunDiffers {
        /// The database.
        file: PathBuf,
        /// The run.
        run: RunId,
        /// What is different.
        field: &'static str,
    },
    /// The events do not fit what the ledger has under their ids.
    #[error("{file}: {source}; import again, or into another ledger (--db)")]
    Conflict {
        /// The database.
        file: PathBuf,
        /// What does not fit.
        source: AppendError,
    },
    /// The ledger's servers can never take it as one append; nothing was written.
    #[error("{file}: {source}; import it into a file (--db), and `runledger push` that")]
    Refused {
        /// The database.
        file: PathBuf,
        /// Why.
        source: AppendError,
    },
    /// The ledger cannot be written.
    #[error(transparent)]
    Append(AppendError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The ledger cannot be opened for reading.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl ImportError {
    /// Whether it is the ledger that failed, so that no other database could be taken over either.
    pub fn is_of_the_ledger(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Read(_) | Self::Storage(_) | Self::Open(_))
    }
}
