//! The scratch file of a rebuild: a read model is folded there first, then its finished rows are copied.
//!
//! Whatever becomes of the file, nobody reads it, so it has no write-ahead log, no syncs and one transaction; and while it
//! is filled the live projector has the read models to itself. Its pages stay in a cache of fixed size.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use runledger_events::Position;
use runledger_store::{Batch, EventFilter, LogReader, ReadError, StorageError};
use rusqlite::{Connection, TransactionBehavior};

use crate::error::ProjectionError;
use crate::projection::{Projection, Table, Target};
use crate::projections::apply_of_its_kinds;
use crate::rebuild::{PAUSE, adapted};

/// Events in one batch: each touched row is written once in each, so more is quicker.
const BATCH_EVENTS: usize = 4096;
/// Batches that the reading thread is ahead.
const BATCHES_AHEAD: usize = 1;
/// The cache of the scratch file, in KiB.
const CACHE_KIB: i64 = 65_536;
/// Rows in the first copying transaction; later ones are adapted to how long the last one took.
const ROWS_FIRST: usize = 500;
/// The name that the file is attached under while it is copied.
const SCHEMA: &str = "scratch";

/// A read model that is folded beside the others.
pub(crate) struct Scratch {
    connection: Connection,
    file: ScratchFile,
    generation: i64,
}

/// The file, which goes with this value.
struct ScratchFile(PathBuf);

/// How far a scratch file was filled.
pub(crate) struct Filled {
    pub(crate) position: Position,
    pub(crate) events: u64,
}

impl Scratch {
    /// Makes the file with a read model's tables; one that a rebuild left behind is removed. Call it under the lock.
    pub(crate) fn make(
        projections: &Path,
        projection: &dyn Projection,
        generation: i64,
    ) -> Result<Self, ProjectionError> {
        let mut path = projections.as_os_str().to_owned();
        path.push(".rebuild-scratch");
        let path = PathBuf::from(path);
        remove(&path)?;
        crate::file::create(&path)?;
        let file = ScratchFile(path);
        let scratch = |source: rusqlite::Error| StorageError::sqlite(&file.0, "making a scratch file", &source);
        let connection = Connection::open(&file.0).map_err(scratch)?;
        let settings = format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA cache_size = -{CACHE_KIB};"
        );
        connection.execute_batch(&settings).map_err(scratch)?;
        connection.execute_batch(&projection.create_tables(generation)).map_err(scratch)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection, file, generation })
    }

    /// Folds the log from its begin up to a position. One thread reads and decodes, this one folds.
    pub(crate) fn fill(
        &self,
        log: &Path,
        projection: &dyn Projection,
        filter: &EventFilter,
        up_to: Position,
        progress: &mut dyn FnMut(Position),
    ) -> Result<Filled, ProjectionError> {
        let mut filled = Filled { position: Position::START, events: 0 };
        let failed = |source: rusqlite::Error| StorageError::sqlite(&self.file.0, "filling a scratch file", &source);
        let target = Target { connection: &self.connection, generation: self.generation };
        self.connection.execute_batch("BEGIN").map_err(failed)?;
        std::thread::scope(|scope| {
            let (sender, batches) = sync_channel(BATCHES_AHEAD);
            scope.spawn(move || {
                // Where nobody listens any more the fold has failed, which says more.
                let _ = read_ahead(log, filter, up_to, projection, &sender);
            });
            fold(&batches, projection, &target, &mut filled, progress)
        })?;
        self.connection.execute_batch("COMMIT").map_err(failed)?;
        Ok(filled)
    }

    /// Copies the rows into the tables of the same names, in the order of their keys, in short transactions.
    pub(crate) fn copy(self, into: &mut Connection, tables: &[Table]) -> Result<(), ProjectionError> {
        let Self { connection, file, generation } = self;
        // Only one that has let go of the file lets another connection attach it.
        drop(connection);
        let failed = |source: rusqlite::Error| StorageError::sqlite(&file.0, "copying a scratch file", &source);
        // A path need not be UTF-8.
        let attach = format!("ATTACH CAST(?1 AS TEXT) AS {SCHEMA}");
        into.execute(&attach, [file.0.as_os_str().as_encoded_bytes()]).map_err(failed)?;
        let copied = tables.iter().try_for_each(|table| file.copy_table(into, table, generation));
        // Statements that name the attached file have to go first.
        into.flush_prepared_statement_cache();
        let detached = into.execute_batch(&format!("DETACH {SCHEMA}")).map_err(failed);
        copied.and(detached.map_err(ProjectionError::from))
    }
}

impl ScratchFile {
    /// Copies one table out of the attached file.
    fn copy_table(&self, into: &mut Connection, table: &Table, generation: i64) -> Result<(), ProjectionError> {
        let failed = |source: rusqlite::Error| StorageError::sqlite(&self.0, "copying a scratch file", &source);
        let (name, key) = (format!("{}_{generation}", table.name), table.key.join(", "));
        let places = (1..=table.key.len()).map(|number| format!("?{number}")).collect::<Vec<_>>().join(", ");
        let behind = format!("({key}) > ({places})");
        let mut last: Option<Vec<rusqlite::types::Value>> = None;
        let mut rows = ROWS_FIRST;
        loop {
            let condition = if last.is_some() { format!(" WHERE {behind}") } else { String::new() };
            let parameters = last.as_deref().unwrap_or_default();
            let began = Instant::now();
            let transaction = into.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            let next = {
                let sql =
                    format!("SELECT {key} FROM {SCHEMA}.{name}{condition} ORDER BY {key} LIMIT 1 OFFSET {}", rows - 1);
                let mut statement = transaction.prepare_cached(&sql).map_err(failed)?;
                let mut found = statement.query(rusqlite::params_from_iter(parameters)).map_err(failed)?;
                match found.next().map_err(failed)? {
                    None => None,
                    Some(row) => Some(
                        (0..table.key.len())
                            .map(|index| row.get(index))
                            .collect::<rusqlite::Result<_>>()
                            .map_err(failed)?,
                    ),
                }
            };
            let sql =
                format!("INSERT INTO main.{name} SELECT * FROM {SCHEMA}.{name}{condition} ORDER BY {key} LIMIT {rows}");
            transaction
                .prepare_cached(&sql)
                .and_then(|mut statement| statement.execute(rusqlite::params_from_iter(parameters)))
                .map_err(failed)?;
            transaction.commit().map_err(failed)?;
            let took = began.elapsed();
            if next.is_none() {
                return Ok(());
            }
            last = next;
            rows = adapted(rows, took);
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            // The next rebuild removes it.
            tracing::debug!(%error, "a scratch file was left behind");
        }
    }
}

fn remove(path: &Path) -> Result<(), ProjectionError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(ProjectionError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Reads batch after batch until `up_to`, each as soon as there is room for it.
fn read_ahead(
    log: &Path,
    filter: &EventFilter,
    up_to: Position,
    projection: &dyn Projection,
    batches: &std::sync::mpsc::SyncSender<Result<Batch, ProjectionError>>,
) -> Result<(), std::sync::mpsc::SendError<Result<Batch, ProjectionError>>> {
    let reader = match LogReader::open(log) {
        Ok(reader) => reader,
        Err(error) => return batches.send(Err(error.into())),
    };
    let mut after = Position::START;
    while after < up_to {
        let batch: Result<Batch, ReadError> = reader.read(filter, after, up_to, BATCH_EVENTS, projection.reads());
        let is_failed = batch.is_err();
        if let Ok(batch) = &batch {
            after = batch.scanned_to;
        }
        batches.send(batch.map_err(ProjectionError::from))?;
        if is_failed {
            break;
        }
    }
    Ok(())
}

fn fold(
    batches: &Receiver<Result<Batch, ProjectionError>>,
    projection: &dyn Projection,
    target: &Target<'_>,
    filled: &mut Filled,
    progress: &mut dyn FnMut(Position),
) -> Result<(), ProjectionError> {
    for batch in batches {
        let batch = batch?;
        apply_of_its_kinds(projection, target, &batch.events)?;
        filled.position = batch.scanned_to;
        filled.events += u64::try_from(batch.events.len()).unwrap_or(u64::MAX);
        progress(filled.position);
    }
    Ok(())
}
