//! How a ledger stands, as `status --json` and `/api/v1/status` have it.

use std::path::Path;

use runledger_events::Position;
use runledger_projections::{ParkedStream, ProjectionStatus, projections_path};
use runledger_store::{LogReader, StorageError};
use schemars::JsonSchema;
use serde::Serialize;

/// Head, checkpoints, lag, sizes and versions.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Status {
    /// The log's file.
    pub path: String,
    /// The log's UUID.
    pub log_id: String,
    /// Its last position.
    pub head: Position,
    /// Streams with events.
    pub streams: u64,
    /// The schema version of the log's file.
    pub schema_version: i64,
    /// This program's version.
    pub program_version: &'static str,
    /// Bytes of each file.
    pub sizes: Sizes,
    /// The read models' file.
    pub projections_path: String,
    /// How far each read model is.
    pub checkpoints: Vec<Checkpoint>,
    /// Streams that read models leave out.
    pub parked: Vec<ParkedStream>,
    /// Files and folders that others may look into.
    pub loose_modes: Vec<LooseMode>,
}

/// Bytes; none for a file that is not there.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Sizes {
    /// The log.
    pub log: Option<u64>,
    /// Its write-ahead log.
    pub log_wal: Option<u64>,
    /// The read models.
    pub projections: Option<u64>,
    /// Their write-ahead log.
    pub projections_wal: Option<u64>,
    /// Events of hooks that wait to be taken in.
    pub spool: Option<u64>,
    /// What no event could be made of.
    pub spool_rejected: Option<u64>,
}

/// How far a read model is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Checkpoint {
    /// Its name.
    pub projection: String,
    /// The last position applied; none where it was never built.
    pub position: Option<Position>,
    /// Positions between it and the head.
    pub lag: Option<u64>,
    /// Its version in the file.
    pub version: Option<u32>,
    /// This program's version of it.
    pub program_version: u32,
    /// Which of its generations is the one to read.
    pub generation: Option<i64>,
}

/// A file or folder that others may look into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LooseMode {
    /// It.
    pub path: String,
    /// Its mode, in octal.
    pub mode: String,
    /// What it would be if this program had made it.
    pub wanted: String,
}

/// What stands beside a ledger's two files.
#[derive(Debug, Clone, Default)]
pub struct Aside {
    /// Bytes of events of hooks that wait to be taken in.
    pub spool: u64,
    /// Bytes of what no event could be made of.
    pub spool_rejected: u64,
    /// Files and folders that others may look into.
    pub loose_modes: Vec<LooseMode>,
}

impl Status {
    /// Looks, and brings no read model up to date.
    ///
    /// # Errors
    /// [`StorageError`] when the log cannot be read.
    pub fn look(
        path: &Path,
        reader: &LogReader,
        models: Vec<ProjectionStatus>,
        parked: Vec<ParkedStream>,
        aside: Aside,
    ) -> Result<Self, StorageError> {
        let head = reader.head()?.position;
        let projections = projections_path(path);
        Ok(Self {
            path: path.display().to_string(),
            log_id: reader.log_id().to_string(),
            head,
            streams: reader.streams()?,
            schema_version: reader.schema_version()?,
            program_version: env!("CARGO_PKG_VERSION"),
            sizes: Sizes {
                log: size(path, ""),
                log_wal: size(path, "-wal"),
                projections: size(&projections, ""),
                projections_wal: size(&projections, "-wal"),
                spool: Some(aside.spool).filter(|bytes| *bytes > 0),
                spool_rejected: Some(aside.spool_rejected).filter(|bytes| *bytes > 0),
            },
            projections_path: projections.display().to_string(),
            checkpoints: checkpoints(models, head),
            parked,
            loose_modes: aside.loose_modes,
        })
    }
}

/// How far read models are from a head.
pub fn checkpoints(models: Vec<ProjectionStatus>, head: Position) -> Vec<Checkpoint> {
    let checkpoint = |model: ProjectionStatus| Checkpoint {
        lag: model.position.map(|position| head.0.saturating_sub(position.0)),
        projection: model.projection,
        position: model.position,
        version: model.version,
        program_version: model.program_version,
        generation: model.generation,
    };
    models.into_iter().map(checkpoint).collect()
}

fn size(path: &Path, suffix: &str) -> Option<u64> {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    std::fs::metadata(Path::new(&name)).ok().map(|metadata| metadata.len())
}
