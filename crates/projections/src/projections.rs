//! Keeping the read models current: read a batch, apply it and move the checkpoints, in one transaction.
//!
//! Invariants: any number of processes may do this at once, and each event counts once, because the checkpoint is
//! compared and set in the transaction that applies; the log is read before the transaction begins, so that the write
//! lock is held only while rows are written. Folds are kept from batch to batch, as long as no other connection has
//! written meanwhile: SQLite counts that, and it is looked at under the lock.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use runledger_events::{Digest, EventKind, Position};
use runledger_store::{Batch, EventFilter, LogReader, Read, StorageError, WriteBack, failpoint, sqlite};
use rusqlite::{Connection, TransactionBehavior};

use crate::checkpoint::Checkpoint;
use crate::error::ProjectionError;
use crate::file;
use crate::parked::{self, Parked, ParkedStream};
use crate::projection::{Fold, Kinds, Projection, Target};
use crate::views::feed::Feed;
use crate::views::feed_search::FeedSearch;
use crate::views::permission_requests::PermissionRequests;
use crate::views::sessions::Sessions;
use crate::views::workflow_iterations::WorkflowIterations;
use crate::views::workflow_runs::WorkflowRuns;

/// Events in one batch, at the most.
pub(crate) const BATCH_EVENTS_MAX: usize = 2048;

/// Bytes that the fold of one read model may keep from batch to batch, about.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Pages of the write-ahead log from which on one who closes the file empties it.
const WAL_PAGES: u32 = 1000;

/// The read models of this release.
pub fn registered() -> Vec<Box<dyn Projection>> {
    vec![
        Box::new(WorkflowRuns),
        Box::new(WorkflowIterations),
        Box::new(Sessions),
        Box::new(PermissionRequests),
        Box::new(Feed),
        Box::new(FeedSearch),
    ]
}

/// The read models of one ledger, for writing.
pub struct Projections {
    pub(crate) path: PathBuf,
    pub(crate) reader: LogReader,
    pub(crate) connection: Connection,
    pub(crate) registered: Vec<Box<dyn Projection>>,
    /// Folds that go on with the next batch.
    pub(crate) kept: KeptFolds,
    pub(crate) write_back: WriteBack,
    /// Whether this handle has looked if what was parked can be read by now.
    has_tried_parked: bool,
    /// The last erasure that this handle has tried to clear the file of.
    tried_clearing: Position,
}

/// The folds of the last batch: good as long as nobody else has written to the file since.
#[derive(Default)]
pub(crate) struct KeptFolds {
    /// The number that changes when another connection commits, as it was then.
    data_version: Option<i64>,
    /// By the place of their read models in the list.
    folds: HashMap<usize, KeptFold>,
}

struct KeptFold {
    generation: i64,
    position: Position,
    fold: Box<dyn Fold>,
    parked: Parked,
}

impl KeptFolds {
    /// Forgets them, when something else has written to their tables.
    pub(crate) fn forget(&mut self) {
        self.folds.clear();
    }

    /// The fold that has come to this checkpoint, or one that knows nothing yet.
    fn take(
        &mut self,
        index: usize,
        projection: &dyn Projection,
        checkpoint: &Checkpoint,
        connection: &Connection,
    ) -> rusqlite::Result<KeptFold> {
        let kept = self.folds.remove(&index);
        match kept.filter(|kept| (kept.generation, kept.position) == (checkpoint.generation, checkpoint.position)) {
            Some(kept) => Ok(kept),
            None => Ok(KeptFold {
                generation: checkpoint.generation,
                position: checkpoint.position,
                fold: projection.fold(),
                parked: Parked::load(connection, projection.name(), checkpoint.generation)?,
            }),
        }
    }
}

impl std::fmt::Debug for Projections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Projections").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for Projections {
    fn drop(&mut self) {
        sqlite::shorten_wal(&self.connection, &self.path, WAL_PAGES);
    }
}

/// What a step came to.
#[derive(PartialEq, Eq)]
enum Step {
    /// Every read model has come as far as is wanted.
    There,
    /// Some came further, or another process was quicker: look again.
    Goes,
}

impl Projections {
    /// Opens the read models of the ledger at `ledger`, which has to be there; their own file is made where it is not.
    ///
    /// # Errors
    /// [`ProjectionError`]; files of newer programs are not touched.
    pub fn open(ledger: impl AsRef<Path>) -> Result<Self, ProjectionError> {
        Self::open_with(ledger, registered())
    }

    /// Opens read models of one's own choice.
    ///
    /// # Errors
    /// As [`Projections::open`].
    pub fn open_with(ledger: impl AsRef<Path>, registered: Vec<Box<dyn Projection>>) -> Result<Self, ProjectionError> {
        let reader = LogReader::open(&ledger)?;
        let path = file::projections_path(reader.path());
        let connection = file::open_writable(&path)?;
        let write_back = WriteBack::new(&path);
        Ok(Self {
            path,
            reader,
            connection,
            registered,
            kept: KeptFolds::default(),
            write_back,
            has_tried_parked: false,
            tried_clearing: Position::START,
        })
    }

    /// The log behind them.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// The names of the read models.
    pub fn names(&self) -> Vec<&'static str> {
        self.registered.iter().map(|projection| projection.name()).collect()
    }

    /// Brings every read model to where the log's head is now, and says where that is.
    ///
    /// A read model that was never built, is of an older version, does not fit the log, or has read what was erased since,
    /// is built anew. A stream with an event that cannot be read is left out from there on ([`ParkedStream`]).
    ///
    /// # Errors
    /// [`ProjectionError`]; what was applied before stays.
    pub fn catch_up(&mut self) -> Result<Position, ProjectionError> {
        let wanted = self.reader.head()?.position;
        while self.step(wanted)? == Step::Goes {}
        let redaction = self.reader.last_redaction()?.unwrap_or_default();
        if redaction > self.tried_clearing && redaction <= wanted {
            // Once: it may take seconds, which a projector has not with each batch. Where others read meanwhile, whoever had
            // it erased is told, and the next one to project tries again.
            self.tried_clearing = redaction;
            if let Err(error) = self.clear_erased() {
                tracing::warn!(%error, "texts that were erased in the log may still be in the file of the read models");
            }
        }
        Ok(wanted)
    }

    /// The checkpoint of a read model, if it was ever built.
    ///
    /// # Errors
    /// [`ProjectionError::Storage`] when the file cannot be read.
    pub fn checkpoint(&self, projection: &str) -> Result<Option<Checkpoint>, ProjectionError> {
        Checkpoint::load(&self.connection, projection).map_err(|source| self.failed("reading a checkpoint", &source))
    }

    /// Takes those that are furthest behind one batch further.
    fn step(&mut self, wanted: Position) -> Result<Step, ProjectionError> {
        let mut behind: Vec<(usize, Checkpoint)> = Vec::new();
        let mut unfit: Vec<(usize, Option<Checkpoint>)> = Vec::new();
        // In this order: what is erased from now on is told of behind this head.
        let head = self.reader.head()?.position;
        let redaction = self.reader.last_redaction()?.unwrap_or_default();
        let readable = self.parked_that_can_be_read()?;
        // Most often all stand at the same place, which is looked up once.
        let mut fitting: Option<(Position, Digest)> = None;
        for (index, found) in self.checkpoints()?.into_iter().enumerate() {
            let projection = &self.registered[index];
            let (name, ours) = (projection.name(), projection.version());
            match found {
                Some(found) if found.version > ours => {
                    return Err(ProjectionError::NewerProjection {
                        projection: name.to_owned(),
                        found: found.version,
                        ours,
                    });
                }
                Some(found)
                    if found.version == ours
                        && (found.position >= redaction || found.position == Position::START)
                        && !readable.iter().any(|parked| parked.projection == name)
                        && found.log_id == *self.reader.log_id()
                        && (fitting == Some((found.position, found.chain)) || self.fits(&found)?) =>
                {
                    fitting = Some((found.position, found.chain));
                    behind.push((index, found));
                }
                found => {
                    if found
                        .as_ref()
                        .is_some_and(|found| found.version == ours && found.log_id == *self.reader.log_id())
                        && found.as_ref().is_some_and(|found| !self.fits(found).unwrap_or(true))
                    {
                        tracing::warn!(
                            projection = name,
                            "the log is no longer what the read model has seen; it is built anew"
                        );
                    }
                    unfit.push((index, found));
                }
            }
        }
        if !unfit.is_empty() {
            self.rebuild_unless_current(unfit)?;
            return Ok(Step::Goes);
        }
        let Some(lowest) = behind.iter().map(|(_, checkpoint)| checkpoint.position).min() else {
            return Ok(Step::There);
        };
        if lowest >= wanted {
            return Ok(Step::There);
        }
        if lowest >= head {
            return Ok(Step::There);
        }
        behind.retain(|(_, checkpoint)| checkpoint.position == lowest);
        let filter =
            EventFilter { kinds: self.kinds(behind.iter().map(|(index, _)| *index)), ..EventFilter::default() };
        let content_kinds = self.content_kinds(behind.iter().map(|(index, _)| *index));
        let read = read_of(content_kinds.as_deref());
        let batch = self.reader.read_readable(&filter, lowest, head, BATCH_EVENTS_MAX, read)?;
        let chain = self.chain_at(batch.scanned_to)?;
        let is_applied = self.apply(&behind, &batch, chain)?;
        let are_all = behind.len() == self.registered.len();
        Ok(if is_applied && are_all && batch.scanned_to >= wanted { Step::There } else { Step::Goes })
    }

    /// The checkpoints of all read models, in the order of the list, as they are at one moment.
    fn checkpoints(&self) -> Result<Vec<Option<Checkpoint>>, ProjectionError> {
        let failed = |source: rusqlite::Error| self.failed("reading the checkpoints", &source);
        let snapshot = self.connection.unchecked_transaction().map_err(failed)?;
        let names = self.registered.iter().map(|projection| projection.name());
        names.map(|name| Checkpoint::load(&snapshot, name)).collect::<Result<_, _>>().map_err(failed)
    }

    /// Whether a checkpoint is of this log, and of what the log was when it was written.
    pub(crate) fn fits(&self, checkpoint: &Checkpoint) -> Result<bool, ProjectionError> {
        Ok(checkpoint.log_id == *self.reader.log_id()
            && self.reader.chain_at(checkpoint.position)? == Some(checkpoint.chain))
    }

    pub(crate) fn chain_at(&self, position: Position) -> Result<Digest, ProjectionError> {
        chain_at(&self.reader, position)
    }

    /// Parked streams whose event can be read by now, by an upgraded program or a mended log: looked at once.
    fn parked_that_can_be_read(&mut self) -> Result<Vec<ParkedStream>, ProjectionError> {
        if std::mem::replace(&mut self.has_tried_parked, true) {
            return Ok(Vec::new());
        }
        let parked =
            parked::select(&self.connection).map_err(|source| self.failed("reading what is parked", &source))?;
        let can_be_read = |parked: &ParkedStream| {
            let Ok(index) = self.index_of(&parked.projection) else {
                return false;
            };
            let before = Position(parked.position.0.saturating_sub(1));
            let read = self.registered[index].reads();
            let found = self.reader.read(&EventFilter::default(), before, parked.position, 1, read);
            found.is_ok_and(|batch| !batch.events.is_empty())
        };
        Ok(parked.into_iter().filter(can_be_read).collect())
    }

    /// The kinds that some of these read; `None` for all.
    pub(crate) fn kinds(&self, indexes: impl Iterator<Item = usize>) -> Option<Vec<EventKind>> {
        kinds_of(indexes.map(|index| self.registered[index].as_ref()))
    }

    /// The kinds of which some of these read the content; `None` for all.
    pub(crate) fn content_kinds(&self, indexes: impl Iterator<Item = usize>) -> Option<Vec<EventKind>> {
        content_kinds_of(indexes.map(|index| self.registered[index].as_ref()))
    }

    /// Applies a batch to those at the same position; false, and nothing is changed, when another process was quicker.
    fn apply(&mut self, behind: &[(usize, Checkpoint)], batch: &Batch, chain: Digest) -> Result<bool, ProjectionError> {
        let scanned_to = batch.scanned_to;
        let Self { path, connection, registered, kept, write_back, .. } = self;
        let failed = |doing: &'static str| {
            let path = &*path;
            move |source: rusqlite::Error| StorageError::sqlite(path, doing, &source)
        };
        failpoint::pass("project.before_lock");
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("waiting for the write lock"))?;
        let data_version = transaction
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(failed("looking for what others wrote"))?;
        if kept.data_version.replace(data_version) != Some(data_version) {
            kept.forget();
        }
        let mut folds = Vec::new();
        for (index, checkpoint) in behind {
            let projection = registered[*index].as_ref();
            let is_first = checkpoint
                .advance(&transaction, projection.name(), scanned_to, chain)
                .map_err(failed("moving a checkpoint"))?;
            if !is_first {
                return Ok(false);
            }
            failpoint::pass("project.checkpoint_moved");
            let target = Target { connection: &transaction, generation: checkpoint.generation };
            let mut kept =
                kept.take(*index, projection, checkpoint, &transaction).map_err(failed("reading what is parked"))?;
            kept.parked.hand_on(projection, kept.fold.as_mut(), &target, batch)?;
            kept.fold.flush(&target, usize::MAX)?;
            kept.parked.store(&transaction, projection.name(), checkpoint.generation).map_err(failed("parking"))?;
            folds.push((*index, KeptFold { position: scanned_to, ..kept }));
        }
        failpoint::pass("project.applied");
        transaction.commit().map_err(failed("committing"))?;
        failpoint::pass("project.committed");
        kept.folds.extend(folds.into_iter().filter(|(_, kept)| kept.fold.kept_bytes() <= KEPT_BYTES_MAX));
        write_back.look(connection);
        Ok(true)
    }

    pub(crate) fn failed(&self, doing: &'static str, source: &rusqlite::Error) -> ProjectionError {
        StorageError::sqlite(&self.path, doing, source).into()
    }

    /// The place of a read model in the list.
    pub(crate) fn index_of(&self, name: &str) -> Result<usize, ProjectionError> {
        self.registered
            .iter()
            .position(|projection| projection.name() == name)
            .ok_or_else(|| ProjectionError::Unknown { name: name.to_owned(), known: self.names().join(", ") })
    }
}

/// The chain at a position that was there a moment ago.
pub(crate) fn chain_at(reader: &LogReader, position: Position) -> Result<Digest, ProjectionError> {
    reader.chain_at(position)?.ok_or_else(|| {
        let path = reader.path().to_owned();
        let detail = format!("position {position} was there a moment ago, and is gone");
        StorageError::Damaged { path, doing: "reading the chain", detail }.into()
    })
}

/// The kinds that some of these read; `None` for all.
pub(crate) fn kinds_of<'a>(projections: impl Iterator<Item = &'a dyn Projection>) -> Option<Vec<EventKind>> {
    let mut kinds: Vec<EventKind> = Vec::new();
    for projection in projections {
        let Kinds::Only(only) = projection.kinds() else {
            return None;
        };
        for kind in only {
            if !kinds.contains(kind) {
                kinds.push(kind.clone());
            }
        }
    }
    Some(kinds)
}

/// The kinds of which some of these read the content; `None` for all.
pub(crate) fn content_kinds_of<'a>(projections: impl Iterator<Item = &'a dyn Projection>) -> Option<Vec<EventKind>> {
    let mut kinds: Vec<EventKind> = Vec::new();
    for projection in projections {
        let of_one = parked::content_kinds_of(projection)?;
        kinds.extend(of_one.iter().filter(|kind| !kinds.contains(kind)).cloned().collect::<Vec<_>>());
    }
    Some(kinds)
}

/// The content of these kinds, or of all.
pub(crate) fn read_of(content_kinds: Option<&[EventKind]>) -> Read<'_> {
    match content_kinds {
        None => Read::All,
        Some([]) => Read::Facts,
        Some(kinds) => Read::ContentOf(kinds),
    }
}
