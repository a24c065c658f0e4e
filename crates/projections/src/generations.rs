//! Generations of read models' tables: hidden ones are filled, old ones removed, in transactions so short that the live
//! projector comes between.

use std::path::Path;
use std::time::Instant;

use runledger_events::{Digest, Position, RecordedEvent};
use runledger_store::{Batch, StorageError, WriteBack, failpoint};
use rusqlite::{Connection, TransactionBehavior};

use crate::error::ProjectionError;
use crate::pace::Pace;
use crate::parked::Parked;
use crate::projection::{Fold, Projection, Target};
use crate::projections::Projections;

/// Rows of an old generation removed in the first transaction.
const REMOVED_ROWS: usize = 500;

/// A generation that nobody reads yet.
pub(crate) struct Hidden {
    /// The place of its read model in the list.
    pub(crate) index: usize,
    pub(crate) generation: i64,
    pub(crate) position: Position,
    pub(crate) chain: Digest,
    pub(crate) events: u64,
    pub(crate) fold: Box<dyn Fold>,
    pub(crate) parked: Parked,
    /// Events, and rows, of one transaction, adapted to how long the last one took.
    pub(crate) slice: usize,
    pub(crate) rows: usize,
}

impl Projections {
    /// Removes the tables of generations that nobody reads and nobody builds; call it under the lock.
    pub(crate) fn remove_leftovers(&mut self) -> Result<(), ProjectionError> {
        const DOING: &str = "removing leftovers";
        let leftovers = self.leftover_tables().map_err(|source| self.failed(DOING, &source))?;
        let Self { path, connection, write_back, .. } = self;
        let failed = |source: rusqlite::Error| StorageError::sqlite(path, DOING, &source);
        let mut writer = Writer { connection, path, doing: DOING, pace: Pace::default(), write_back };
        for table in leftovers {
            // What a search index stores goes like any rows: dropped in one step, that of a million events holds the
            // write lock for 0.3 s.
            for stored in shadow_tables(writer.connection, &table).map_err(failed)? {
                writer.remove_rows(&stored)?;
            }
            writer.remove_rows(&table)?;
            failpoint::pass("leftovers.emptied");
            writer.connection.execute_batch(&format!("DROP TABLE IF EXISTS {table}")).map_err(failed)?;
            failpoint::pass("leftovers.dropped");
        }
        self.connection
            .execute_batch(
                "DELETE FROM rebuilds;
                 DELETE FROM parked_streams WHERE (projection, generation) NOT IN
                     (SELECT projection, generation FROM checkpoints)",
            )
            .map_err(failed)?;
        failpoint::pass("leftovers.gone");
        Ok(())
    }

    fn leftover_tables(&self) -> rusqlite::Result<Vec<String>> {
        // What the views show is what readers read, whatever the checkpoints say.
        let current: Vec<String> = self
            .connection
            .prepare("SELECT sql FROM sqlite_schema WHERE type = 'view'")?
            .query_map([], |row| row.get::<_, String>(0))?
            .filter_map(|sql| sql.map(|sql| sql.rsplit(' ').next().map(str::to_owned)).transpose())
            .collect::<rusqlite::Result<_>>()?;
        let tables: Vec<String> = self
            .connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let is_generation = |name: &String| {
            self.registered.iter().flat_map(|projection| projection.tables()).any(|table| {
                name.strip_prefix(table.name)
                    .and_then(|rest| rest.strip_prefix('_'))
                    .is_some_and(|rest| rest.parse::<i64>().is_ok())
            })
        };
        Ok(tables.into_iter().filter(|name| is_generation(name) && !current.contains(name)).collect())
    }
}

impl Hidden {
    /// Takes a batch, in short transactions where the fold writes as it goes.
    pub(crate) fn take(
        &mut self,
        writer: &mut Writer<'_>,
        projection: &dyn Projection,
        batch: &Batch,
    ) -> Result<(), ProjectionError> {
        let is_writing = self.fold.writes_as_it_takes();
        let events: Vec<&RecordedEvent> = self.parked.taken(projection, batch);
        self.events += u64::try_from(events.len()).unwrap_or(u64::MAX);
        let mut events = &events[..];
        while !events.is_empty() {
            let slice = if is_writing { self.slice.min(events.len()) } else { events.len() };
            let (slice, rest) = events.split_at(slice);
            let (fold, generation) = (&mut self.fold, self.generation);
            let take = |connection: &Connection| fold.take(&Target { connection, generation }, slice);
            if is_writing {
                self.slice = writer.write(self.slice, take)?.1;
            } else {
                writer.read(take)?;
            }
            events = rest;
        }
        self.position = batch.scanned_to;
        Ok(())
    }

    /// Writes what the fold keeps, in short transactions.
    pub(crate) fn flush(&mut self, writer: &mut Writer<'_>) -> Result<(), ProjectionError> {
        loop {
            let (fold, generation, rows) = (&mut self.fold, self.generation, self.rows);
            let (is_all, next) =
                writer.write(rows, |connection| fold.flush(&Target { connection, generation }, rows))?;
            self.rows = next;
            if is_all {
                return Ok(());
            }
        }
    }
}

/// Who fills hidden tables, or empties old ones: the connection, and how it leaves room for others.
pub(crate) struct Writer<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) path: &'a Path,
    pub(crate) doing: &'static str,
    pub(crate) pace: Pace,
    pub(crate) write_back: &'a mut WriteBack,
}

impl Writer<'_> {
    /// Writes so many rows, or events, in a transaction; with what it gives, how many the next one should write.
    fn write<T>(
        &mut self,
        count: usize,
        write: impl FnOnce(&Connection) -> Result<T, ProjectionError>,
    ) -> Result<(T, usize), ProjectionError> {
        let (path, doing) = (self.path, self.doing);
        let failed = |source: rusqlite::Error| StorageError::sqlite(path, doing, &source);
        let began = Instant::now();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let written = write(&transaction)?;
        failpoint::pass("rebuild.written");
        transaction.commit().map_err(failed)?;
        failpoint::pass("rebuild.flushed");
        self.write_back.look(self.connection);
        Ok((written, self.pace.next(count, began)))
    }

    /// Reads in a transaction.
    fn read<T>(&mut self, read: impl FnOnce(&Connection) -> Result<T, ProjectionError>) -> Result<T, ProjectionError> {
        let (path, doing) = (self.path, self.doing);
        let failed = |source: rusqlite::Error| StorageError::sqlite(path, doing, &source);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Deferred).map_err(failed)?;
        let taken = read(&transaction)?;
        transaction.commit().map_err(failed)?;
        Ok(taken)
    }

    /// Removes a table's rows, but for the last few thousand; none of a virtual table, whose rows its shadow tables have.
    fn remove_rows(&mut self, table: &str) -> Result<(), ProjectionError> {
        let (path, doing) = (self.path, self.doing);
        let failed = |source: rusqlite::Error| StorageError::sqlite(path, doing, &source);
        let key = key_of(self.connection, table).map_err(failed)?;
        let mut rows = REMOVED_ROWS;
        while !key.is_empty() {
            // With their indexes: to drop one of a million rows first would hold the write lock for 0.3 s.
            let sql = format!(
                "DELETE FROM {table} WHERE ({key}) <= (SELECT {key} FROM {table} ORDER BY {key} LIMIT 1 OFFSET {rows})"
            );
            let (removed, next) = self.write(rows, |connection| Ok(connection.execute(&sql, []).map_err(failed)?))?;
            if removed == 0 {
                break;
            }
            rows = next;
        }
        Ok(())
    }
}

/// The tables that a virtual table keeps what it has in; none where it is none.
fn shadow_tables(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT name FROM pragma_table_list
             WHERE schema = 'main' AND type = 'shadow' AND substr(name, 1, length(?1) + 1) = ?1 || '_'",
        )?
        .query_map([table], |row| row.get(0))?
        .collect()
}

/// The columns of a table's key, with commas; none for a virtual table.
fn key_of(connection: &Connection, table: &str) -> rusqlite::Result<String> {
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?
        .query_map([table], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(columns.join(", "))
}
