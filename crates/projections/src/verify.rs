//! Verifying a read model: a fresh fold of the log in memory, compared row by row.

use runledger_events::Position;
use runledger_store::EventFilter;

use crate::checkpoint::Checkpoint;
use crate::compare::{self, Difference};
use crate::error::ProjectionError;
use crate::file;
use crate::parked::Parked;
use crate::projection::{Projection, Target};
use crate::projections::{BATCH_EVENTS_MAX, Projections};
use crate::rebuild::FOLD_BYTES_MAX;

/// Differing rows that are told one by one; the rest is counted.
const TOLD_MAX: usize = 20;

/// One row that is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDifference {
    /// Its table.
    pub table: &'static str,
    /// Its key, in words.
    pub key: String,
    /// How it differs, in words.
    pub detail: String,
}

/// What verifying a read model found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Where the read model stands.
    pub position: Position,
    /// Rows it has.
    pub rows: u64,
    /// Rows that differ.
    pub different: u64,
    /// The first of them, at most 20.
    pub differences: Vec<RowDifference>,
}

impl Projections {
    /// Whether a read model has seen events of this log that are no longer there, or no longer what they were; says
    /// which, in words, and from which position on.
    ///
    /// # Errors
    /// [`ProjectionError`] when a file cannot be read.
    pub fn lost_events(&self) -> Result<Option<(Position, String)>, ProjectionError> {
        let head = self.reader.head()?.position;
        for name in self.names() {
            let Some(seen) = self.checkpoint(name)? else {
                continue;
            };
            if seen.log_id != *self.reader.log_id() || self.reader.chain_at(seen.position)? == Some(seen.chain) {
                continue;
            }
            return Ok(Some(if seen.position > head {
                let detail = format!("read model {name} has seen events up to position {}", seen.position);
                (head.next(), format!("{detail}, and those from here on are gone"))
            } else {
                (seen.position, format!("read model {name} has seen another log up to here"))
            }));
        }
        Ok(None)
    }

    /// Compares a read model with a fresh fold of the log up to where it stands.
    ///
    /// # Errors
    /// [`ProjectionError`] when the log cannot be folded, or the read model was never built.
    pub fn verify(
        &mut self,
        projection: &str,
        progress: &mut dyn FnMut(Position),
    ) -> Result<Verified, ProjectionError> {
        let index = self.index_of(projection)?;
        let path = self.path.clone();
        let failed =
            |source: rusqlite::Error| runledger_store::StorageError::sqlite(&path, "verifying a read model", &source);
        // One transaction: the rows compared are those of the checkpoint, whatever is projected meanwhile.
        let snapshot = self.connection.unchecked_transaction().map_err(failed)?;
        let projection = self.registered[index].as_ref();
        let checkpoint = Checkpoint::load(&snapshot, projection.name())
            .map_err(failed)?
            .ok_or_else(|| ProjectionError::NotBuilt { path: path.clone(), projection: projection.name() })?;
        let mut verified = Verified { position: checkpoint.position, ..Verified::default() };
        if !self.fits(&checkpoint)? {
            verified.different = 1;
            verified.differences.push(RowDifference {
                table: "checkpoints",
                key: format!("projection {}", projection.name()),
                detail: format!("position {} is not of this log, or no longer what it was", checkpoint.position),
            });
            return Ok(verified);
        }

        let memory = file::open_in_memory()?;
        let fresh = Target { connection: &memory, generation: 0 };
        self.fold(index, &fresh, checkpoint.position, progress)?;
        let stored = Target { connection: &snapshot, generation: checkpoint.generation };
        for table in projection.tables() {
            let (first, second) = (stored.table(table.name), fresh.table(table.name));
            verified.rows +=
                compare::tables(table, (stored.connection, &first), (fresh.connection, &second), |difference| {
                    verified.different += 1;
                    if verified.differences.len() < TOLD_MAX {
                        verified.differences.push(RowDifference::new(table.name, difference));
                    }
                })
                .map_err(failed)?;
        }
        Ok(verified)
    }

    /// Folds the log up to a position into new tables.
    fn fold(
        &self,
        index: usize,
        target: &Target<'_>,
        up_to: Position,
        progress: &mut dyn FnMut(Position),
    ) -> Result<(), ProjectionError> {
        let projection: &dyn Projection = self.registered[index].as_ref();
        target
            .connection
            .execute_batch(&projection.create_tables(target.generation))
            .map_err(|source| self.failed("making tables to compare with", &source))?;
        let filter = EventFilter { kinds: self.kinds(std::iter::once(index)), ..EventFilter::default() };
        let mut after = Position::START;
        let (mut fold, mut parked) = (projection.fold(), Parked::default());
        while after < up_to {
            let batch = self.reader.read_readable(&filter, after, up_to, BATCH_EVENTS_MAX, projection.reads())?;
            parked.hand_on(projection, fold.as_mut(), target, &batch)?;
            after = batch.scanned_to;
            if fold.kept_bytes() > FOLD_BYTES_MAX {
                fold.flush(target, usize::MAX)?;
                fold = projection.fold();
            }
            progress(after);
        }
        fold.flush(target, usize::MAX)?;
        Ok(())
    }
}

impl RowDifference {
    fn new(table: &'static str, difference: Difference) -> Self {
        let (key, detail) = match difference {
            Difference::OnlyFirst { key } => (key, "the log tells of no such row".to_owned()),
            Difference::OnlySecond { key } => (key, "the row is missing".to_owned()),
            Difference::Columns { key, columns } => (key, format!("{} differ from the log", columns.join(", "))),
        };
        Self { table, key, detail }
    }
}
