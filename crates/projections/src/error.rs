//! Errors of the read half: which read model, what went wrong, and what to do next.

use std::path::PathBuf;

use runledger_events::{Position, RunId, SessionId, StreamName};
use runledger_store::{OpenError, ReadError, StorageError};

use crate::file::is_projections_path;

/// Why a read model could not be kept, rebuilt or read. The log is never harmed; a batch is applied whole or not at all.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log cannot be read.
    #[error("reading the log: {0}")]
    Read(#[from] ReadError),
    /// The projections' file, or the log's, cannot be used.
    #[error(transparent)]
    Storage(StorageError),
    /// The projections' file is damaged. It is disposable.
    #[error("{path}: the file of read models is damaged ({detail}); remove it, any command that reads builds it again")]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The projections' file is of a newer program.
    #[error("{path}: schema version {found} is newer than {newest}, the newest that this program knows; upgrade it")]
    NewerFile {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest known.
        newest: i64,
    },
    /// The projections' file is something else.
    #[error("{path}: this is no file of read models (application id {application_id}); move it away")]
    ForeignFile {
        /// The file.
        path: PathBuf,
        /// The application id in its header.
        application_id: i64,
    },
    /// A read model is of a newer program.
    #[error(
        "read model {projection}: version {found} is newer than {ours}, this program's; upgrade it, \
         or use the program that made it"
    )]
    NewerProjection {
        /// Which.
        projection: String,
        /// Its version.
        found: u32,
        /// This program's.
        ours: u32,
    },
    /// The read models were not built yet.
    #[error("{path}: no read model {projection}; `rebuild-projections` builds it")]
    NotBuilt {
        /// The file.
        path: PathBuf,
        /// Which.
        projection: &'static str,
    },
    /// No such read model.
    #[error("there is no read model {name}; there are {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A row of a read model is not as it was written.
    #[error("read model {projection}: {detail}; `rebuild-projections --projection {projection}` mends it")]
    Row {
        /// Which.
        projection: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The read models did not come as far as was waited for.
    #[error(
        "the read models stand at position {reached}, not yet at {wanted}; is a projector running? \
         Any command that reads brings them up to date"
    )]
    TimedOut {
        /// What was waited for.
        wanted: Position,
        /// Where they stand.
        reached: Position,
    },
    /// There is no such run.
    #[error("there is no workflow run {run}")]
    NoRun {
        /// The run.
        run: RunId,
    },
    /// An event that a read model needs cannot be read. Nothing was replaced.
    #[error(
        "read model {projection} needs position {position} of stream {stream}, which cannot be read: {cause}; \
         nothing was replaced. `verify` tells more; a newer program may read it; `rebuild-projections --park` leaves the \
         stream out from there on"
    )]
    Unreadable {
        /// The read model.
        projection: &'static str,
        /// The stream.
        stream: StreamName,
        /// Where the event stands.
        position: Position,
        /// Why.
        cause: String,
    },
    /// A session has more than is folded in memory.
    #[error("session {session}: its read models take more than {bytes_max} bytes, which is too much to fold in memory")]
    TooLarge {
        /// The session.
        session: SessionId,
        /// Bytes of tables in memory, at the most.
        bytes_max: u64,
    },
    /// A file or lock beside the ledger cannot be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The pool of reading connections cannot give one.
    #[error("{path}: no connection for reading: {detail}")]
    Pool {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// The projector's thread panicked.
    #[error("the projector has ended; the read models stand where they were, any command that reads goes on")]
    ProjectorGone,
}

impl From<StorageError> for ProjectionError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Damaged { path, detail, .. } if is_projections_path(&path) => {
                Self::DamagedFile { path, detail }
            }
            error => Self::Storage(error),
        }
    }
}

impl ProjectionError {
    /// Whether trying again may help: another process held a lock.
    pub fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Storage(StorageError::Busy { .. }) | Self::Read(ReadError::Storage(StorageError::Busy { .. }))
        )
    }
}
