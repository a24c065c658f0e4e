//! Rebuilding a read model: a hidden generation of its tables is filled from the log, then takes the old one's place.
//!
//! Invariants:
//! - Readers see the old generation until one transaction switches the views and the checkpoint; a crash before it
//!   leaves the old model, and its leftovers are removed by the next rebuild.
//! - The tables are filled in short transactions with a pause between them, so the live projector is not starved.
//! - The switch brings the new generation at least to where the old one stands: a position once reached stays reached.
//! - One rebuild at a time: a lock on a file beside the read models, which ends with the process that holds it.

use std::collections::HashSet;
use std::fs::File;
use std::time::Instant;

use runledger_events::{Position, RecordedEvent, RunId, StreamName, StreamVersion};
use runledger_store::{Batch, EventFilter, StorageError, failpoint};
use rusqlite::{Connection, TransactionBehavior};
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::compare;
use crate::error::ProjectionError;
use crate::generations::{Hidden, Writer};
use crate::pace::Pace;
use crate::parked::Parked;
use crate::projection::{Projection, Target};
use crate::projections::{BATCH_EVENTS_MAX, Projections, read_of};
use crate::read_ahead::read_ahead;

/// Bytes that a fold may keep before it writes, about.
pub(crate) const FOLD_BYTES_MAX: usize = 48 << 20;
/// Events that the switch may still apply within its own transaction.
const SWITCH_EVENTS_MAX: usize = 256;
/// How often the generations are compared, when the live projector moves on before the switch; then the switch is made
/// without the number of changed rows.
const COMPARISONS_MAX: u32 = 4;
/// Rows that the first transaction writes.
const ROWS_FIRST: usize = 500;
/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rebuilt {
    /// The read model.
    pub projection: String,
    /// Events it was folded from.
    pub events: u64,
    /// Rows it has now.
    pub rows: u64,
    /// How long it took, with those that were built in the same pass.
    pub seconds: f64,
    /// Rows that differ from those before; none where those before were of another version or another log, and where
    /// events came so fast that the two were never at the same position.
    pub changed: Option<u64>,
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy)]
pub struct RebuildProgress<'a> {
    /// The read model; those of one pass with commas.
    pub projection: &'a str,
    /// Where it is in the log.
    pub position: Position,
    /// Where the log ends.
    pub head: Position,
}

/// What the old generation was when it was compared with the hidden one.
struct Compared {
    old: Option<Checkpoint>,
    changed: Option<u64>,
    /// Whether both are of this log and version, but not at the same position.
    is_apart: bool,
}

/// What comes of an event that a read model needs and that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    /// The rebuild ends with an error.
    Refuse,
    /// Its stream is left out from there on.
    Park,
}

/// How one rebuild reads the log.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Where the log ended when it began.
    began_at: Position,
    unreadable: Unreadable,
}

impl Projections {
    /// Builds a read model anew from the whole log.
    ///
    /// # Errors
    /// [`ProjectionError`]; the old rows stay as they were. [`ProjectionError::Unreadable`] names the first event that it
    /// needs and cannot read.
    pub fn rebuild(
        &mut self,
        projection: &str,
        progress: &mut dyn FnMut(RebuildProgress<'_>),
    ) -> Result<Rebuilt, ProjectionError> {
        let index = self.index_of(projection)?;
        let _lock = self.lock_rebuilds()?;
        // One for each that was asked for.
        Ok(self.rebuild_locked(&[index], Unreadable::Refuse, progress)?.swap_remove(0))
    }

    /// Builds several read models anew in one pass over the log; each takes the old one's place in a step of its own.
    ///
    /// # Errors
    /// As [`Projections::rebuild`]; those that are not built yet stay as they were.
    pub fn rebuild_together(
        &mut self,
        projections: &[&str],
        progress: &mut dyn FnMut(RebuildProgress<'_>),
    ) -> Result<Vec<Rebuilt>, ProjectionError> {
        self.rebuild_named(projections, Unreadable::Refuse, progress)
    }

    /// The same, where a stream with an event that cannot be read is left out from there on
    /// ([`ParkedStream`](crate::ParkedStream)).
    ///
    /// # Errors
    /// As [`Projections::rebuild_together`], unreadable events apart.
    pub fn rebuild_readable(
        &mut self,
        projections: &[&str],
        progress: &mut dyn FnMut(RebuildProgress<'_>),
    ) -> Result<Vec<Rebuilt>, ProjectionError> {
        self.rebuild_named(projections, Unreadable::Park, progress)
    }

    fn rebuild_named(
        &mut self,
        projections: &[&str],
        unreadable: Unreadable,
        progress: &mut dyn FnMut(RebuildProgress<'_>),
    ) -> Result<Vec<Rebuilt>, ProjectionError> {
        let mut indexes = projections.iter().map(|name| self.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let mut seen = HashSet::new();
        indexes.retain(|index| seen.insert(*index));
        let _lock = self.lock_rebuilds()?;
        self.rebuild_locked(&indexes, unreadable, progress)
    }

    /// Builds read models anew that were found missing, outdated or of another log, unless another process just did.
    pub(crate) fn rebuild_unless_current(
        &mut self,
        found: Vec<(usize, Option<Checkpoint>)>,
    ) -> Result<(), ProjectionError> {
        let _lock = self.lock_rebuilds()?;
        let mut indexes = Vec::new();
        for (index, found) in found {
            if self.checkpoint(self.registered[index].name())? == found {
                indexes.push(index);
            }
        }
        self.rebuild_locked(&indexes, Unreadable::Park, &mut |_| {})?;
        for index in indexes {
            let name = self.registered[index].name();
            // Built from the log as it is, it fits; else the log is changing under its readers, and no rebuild will
            // help.
            if let Some(built) = self.checkpoint(name)?
                && !self.fits(&built)?
            {
                let path = self.reader.path().to_owned();
                let detail = format!("read model {name} was built, and does not fit the log");
                return Err(StorageError::Damaged { path, doing: "reading the chain", detail }.into());
            }
        }
        Ok(())
    }

    /// Folds one run's stream again, and puts the rows in the place of those there are; the read models whose rows are
    /// not of runs are left out.
    ///
    /// # Errors
    /// [`ProjectionError::NoRun`] when the log has no such run.
    pub fn rebuild_run(&mut self, run_id: &RunId, names: &[&str]) -> Result<Vec<Rebuilt>, ProjectionError> {
        // The very rows that are to be mended may keep it from coming further.
        let caught_up = self.catch_up();
        if self.reader.stream_version(&StreamName::run(run_id))? == StreamVersion::EMPTY {
            return Err(ProjectionError::NoRun { run: run_id.clone() });
        }
        let mut rebuilt = Vec::new();
        for name in names {
            let index = self.index_of(name)?;
            rebuilt.extend(self.rebuild_run_of(index, run_id)?);
        }
        if caught_up.is_err() {
            self.catch_up()?;
        }
        Ok(rebuilt)
    }

    fn rebuild_run_of(&mut self, index: usize, run_id: &RunId) -> Result<Option<Rebuilt>, ProjectionError> {
        let began = Instant::now();
        let projection = self.registered[index].as_ref();
        let name = projection.name();
        let path = &self.path;
        let failed = |source: rusqlite::Error| StorageError::sqlite(path, "rebuilding a run", &source);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let checkpoint = Checkpoint::load(&transaction, name)
            .map_err(failed)?
            .ok_or_else(|| ProjectionError::NotBuilt { path: path.clone(), projection: name })?;
        let target = Target { connection: &transaction, generation: checkpoint.generation };
        let before = compare::rows_of_run(&target, projection, run_id).map_err(failed)?;
        if !projection.reset_run(&target, run_id.as_str())? {
            return Ok(None);
        }
        // Read under the lock, so that nothing is missed that another process has projected. What lies beyond the
        // checkpoint is the projector's to apply.
        let read = projection.reads();
        let mut events = self.reader.read_stream(&StreamName::run(run_id), StreamVersion::EMPTY, read)?;
        events.retain(|event| event.position <= checkpoint.position);
        let mut fold = projection.fold();
        let kinds = projection.kinds();
        let of_kinds: Vec<&RecordedEvent> = events.iter().filter(|event| kinds.takes(&event.kind)).collect();
        if !of_kinds.is_empty() {
            fold.take(&target, &of_kinds)?;
        }
        fold.flush(&target, usize::MAX)?;
        let after = compare::rows_of_run(&target, projection, run_id).map_err(failed)?;
        failpoint::pass("rebuild_run.before_commit");
        transaction.commit().map_err(failed)?;
        failpoint::pass("rebuild_run.committed");
        self.kept.forget();
        Ok(Some(Rebuilt {
            projection: name.to_owned(),
            events: u64::try_from(events.len()).unwrap_or(u64::MAX),
            rows: u64::try_from(after.len()).unwrap_or(u64::MAX),
            seconds: began.elapsed().as_secs_f64(),
            changed: Some(compare::count_differences(&before, &after)),
        }))
    }

    fn rebuild_locked(
        &mut self,
        indexes: &[usize],
        unreadable: Unreadable,
        progress: &mut dyn FnMut(RebuildProgress<'_>),
    ) -> Result<Vec<Rebuilt>, ProjectionError> {
        // Each erasure while it goes on has it begin anew: what it has read may have been erased.
        loop {
            if let Some(rebuilt) = self.rebuild_unless_erased(indexes, unreadable, progress)? {
                return Ok(rebuilt);
            }
        }
    }

    /// `None`, and nothing more is switched, when something was erased meanwhile.
    fn rebuild_unless_erased(
        &mut self,
        indexes: &[usize],
        unreadable: Unreadable,
        progress: &mut dyn FnMut(RebuildProgress<'_>),
    ) -> Result<Option<Vec<Rebuilt>>, ProjectionError> {
        let began = Instant::now();
        let reading = Reading { began_at: self.reader.head()?.position, unreadable };
        failpoint::pass("rebuild.locked");
        for index in indexes {
            let (name, ours) = (self.registered[*index].name(), self.registered[*index].version());
            if let Some(found) = self.checkpoint(name)?.map(|found| found.version).filter(|found| *found > ours) {
                return Err(ProjectionError::NewerProjection { projection: name.to_owned(), found, ours });
            }
        }
        self.remove_leftovers()?;
        let mut all = indexes.iter().map(|index| self.begin(*index)).collect::<Result<Vec<_>, _>>()?;
        if !self.fill(&mut all, reading, progress)? {
            return Ok(None);
        }
        let mut rebuilt = Vec::new();
        for mut hidden in all {
            let mut tries = 0;
            let changed = loop {
                // The others took their time.
                if !self.fill(std::slice::from_mut(&mut hidden), reading, progress)? {
                    return Ok(None);
                }
                self.advance_old(hidden.index)?;
                tries += 1;
                let is_last_try = tries > COMPARISONS_MAX;
                let compared = self.compare(&hidden, is_last_try)?;
                if compared.is_apart && !is_last_try {
                    continue;
                }
                if let Some(changed) = self.switch(&mut hidden, &compared, is_last_try)? {
                    break changed;
                }
            };
            rebuilt.push(Rebuilt {
                projection: self.registered[hidden.index].name().to_owned(),
                events: hidden.events,
                rows: self.count_rows(hidden.index, hidden.generation)?,
                seconds: began.elapsed().as_secs_f64(),
                changed,
            });
        }
        self.remove_leftovers()?;
        for rebuilt in &mut rebuilt {
            rebuilt.seconds = began.elapsed().as_secs_f64();
        }
        Ok(Some(rebuilt))
    }

    /// Makes the hidden generation's tables.
    fn begin(&mut self, index: usize) -> Result<Hidden, ProjectionError> {
        let projection = self.registered[index].as_ref();
        let chain = self.chain_at(Position::START)?;
        let path = &self.path;
        let failed = |source: rusqlite::Error| StorageError::sqlite(path, "beginning a rebuild", &source);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction
            .execute(
                "INSERT INTO rebuilds (projection, position, chain) VALUES (?1, 0, ?2)",
                (projection.name(), chain.0),
            )
            .map_err(failed)?;
        let generation = transaction.last_insert_rowid();
        transaction.execute_batch(&projection.create_tables(generation)).map_err(failed)?;
        failpoint::pass("rebuild.tables_made");
        transaction.commit().map_err(failed)?;
        failpoint::pass("rebuild.begun");
        Ok(Hidden {
            index,
            generation,
            position: Position::START,
            chain,
            events: 0,
            fold: projection.fold(),
            parked: Parked::default(),
            slice: SWITCH_EVENTS_MAX,
            rows: ROWS_FIRST,
        })
    }

    /// Fills hidden tables up to the head, all from the same position on: two threads read and decode, this one folds
    /// and writes. False when something was erased since the rebuild began.
    fn fill(
        &mut self,
        all: &mut [Hidden],
        reading: Reading,
        progress: &mut dyn FnMut(RebuildProgress<'_>),
    ) -> Result<bool, ProjectionError> {
        let indexes: Vec<usize> = all.iter().map(|hidden| hidden.index).collect();
        let Some(mut position) = all.iter().map(|hidden| hidden.position).min() else {
            return Ok(true);
        };
        let filter = EventFilter { kinds: self.kinds(indexes.iter().copied()), ..EventFilter::default() };
        let content_kinds = self.content_kinds(indexes.iter().copied());
        let names: Vec<&str> = indexes.iter().map(|index| self.registered[*index].name()).collect();
        let names = names.join(", ");
        let bytes_max = FOLD_BYTES_MAX / all.len();
        let Self { path, reader, connection, registered, write_back, .. } = self;
        let mut writer = Writer { connection, path, doing: "filling a rebuild", pace: Pace::default(), write_back };
        loop {
            // In this order: what is erased from now on is told of behind this head.
            let head = reader.head()?.position;
            if reader.last_redaction()?.is_some_and(|redaction| redaction > reading.began_at) {
                return Ok(false);
            }
            let told = |position| RebuildProgress { projection: &names, position, head };
            progress(told(position));
            if position >= head {
                break;
            }
            let read = read_of(content_kinds.as_deref());
            read_ahead(reader.path(), &filter, (position, head), read, |batch| {
                for hidden in &mut *all {
                    let projection = registered[hidden.index].as_ref();
                    hidden.take(&mut writer, projection, &batch)?;
                    if let (Unreadable::Refuse, Some((stream, at, cause))) =
                        (reading.unreadable, hidden.parked.first_new())
                    {
                        return Err(ProjectionError::Unreadable {
                            projection: projection.name(),
                            stream: stream.clone(),
                            position: *at,
                            cause: cause.clone(),
                        });
                    }
                    if hidden.fold.kept_bytes() > bytes_max {
                        hidden.flush(&mut writer)?;
                        if hidden.fold.kept_bytes() > bytes_max / 2 {
                            hidden.fold = projection.fold();
                        }
                    }
                }
                position = batch.scanned_to;
                progress(told(position));
                Ok(())
            })?;
        }
        all.iter_mut().try_for_each(|hidden| hidden.flush(&mut writer))?;
        failpoint::pass("rebuild.filled");
        let chain = self.chain_at(position)?;
        all.iter_mut().for_each(|hidden| hidden.chain = chain);
        Ok(true)
    }

    fn read(&self, index: usize, after: Position, up_to: Position) -> Result<Batch, ProjectionError> {
        let filter = EventFilter { kinds: self.kinds(std::iter::once(index)), ..EventFilter::default() };
        Ok(self.reader.read_readable(&filter, after, up_to, BATCH_EVENTS_MAX, self.registered[index].reads())?)
    }

    /// Brings the old generation to the head too, where it is one that counts, so that the two can be compared.
    fn advance_old(&mut self, index: usize) -> Result<(), ProjectionError> {
        let mut fold = (Position::START, self.registered[index].fold());
        loop {
            let projection = self.registered[index].as_ref();
            let head = self.reader.head()?.position;
            let Some(old) = self.checkpoint(projection.name())? else {
                return Ok(());
            };
            if old.version != projection.version() || !self.fits(&old)? || old.position >= head {
                return Ok(());
            }
            // It has read what was erased since, and must not pass for one that has not.
            if self.reader.last_redaction()?.is_some_and(|redaction| redaction > old.position) {
                return Ok(());
            }
            let batch = self.read(index, old.position, head)?;
            let chain = self.chain_at(batch.scanned_to)?;
            let path = &self.path;
            let failed = |source: rusqlite::Error| StorageError::sqlite(path, "catching up", &source);
            let transaction =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            if old.advance(&transaction, projection.name(), batch.scanned_to, chain).map_err(failed)? {
                let target = Target { connection: &transaction, generation: old.generation };
                if fold.0 != old.position {
                    fold.1 = projection.fold();
                }
                // Rows that cannot be folded further, because somebody damaged them, are no reason to keep them.
                let mut parked = Parked::load(&transaction, projection.name(), old.generation).map_err(failed)?;
                let taken = parked.hand_on(projection, fold.1.as_mut(), &target, &batch);
                if taken.and_then(|()| fold.1.flush(&target, usize::MAX)).is_err() {
                    return Ok(());
                }
                parked.store(&transaction, projection.name(), old.generation).map_err(failed)?;
                failpoint::pass("rebuild.old_applied");
                transaction.commit().map_err(failed)?;
                failpoint::pass("rebuild.old_committed");
                fold.0 = batch.scanned_to;
            }
        }
    }

    /// Compares the two generations without any lock, where both stand at the same position; not at the last try, which
    /// may not take long.
    fn compare(&self, hidden: &Hidden, is_last_try: bool) -> Result<Compared, ProjectionError> {
        let projection = self.registered[hidden.index].as_ref();
        let failed = |source: rusqlite::Error| self.failed("comparing with a rebuild", &source);
        // One transaction: the rows of the old generation are those of its checkpoint.
        let snapshot = self.connection.unchecked_transaction().map_err(failed)?;
        let old = Checkpoint::load(&snapshot, projection.name()).map_err(failed)?;
        let Some(checkpoint) = &old else {
            let rows = count_rows(&snapshot, projection, hidden.generation).map_err(failed)?;
            return Ok(Compared { old, changed: Some(rows), is_apart: false });
        };
        let is_of_a_kind = checkpoint.version == projection.version() && self.fits(checkpoint)?;
        let is_apart = is_of_a_kind && checkpoint.position != hidden.position;
        failpoint::pass("rebuild.comparing");
        let changed = if is_of_a_kind && !is_apart && !is_last_try {
            let before = Target { connection: &snapshot, generation: checkpoint.generation };
            let after = Target { connection: &snapshot, generation: hidden.generation };
            Some(compare::count_changed(projection, &before, &after).map_err(failed)?)
        } else {
            None
        };
        Ok(Compared { old, changed, is_apart })
    }

    /// Puts the hidden generation in the old one's place; returns the number of rows that changed, where it is known.
    ///
    /// `None`, and nothing is changed, when the old one has moved since it was compared, unless this is the last try;
    /// and when it has come too far ahead to be caught up with in here.
    fn switch(
        &mut self,
        hidden: &mut Hidden,
        compared: &Compared,
        is_last_try: bool,
    ) -> Result<Option<Option<u64>>, ProjectionError> {
        let kinds = self.kinds(std::iter::once(hidden.index));
        let projection = self.registered[hidden.index].as_ref();
        let name = projection.name();
        let path = &self.path;
        let failed = |source: rusqlite::Error| StorageError::sqlite(path, "switching to a rebuild", &source);
        failpoint::pass("rebuild.compared");
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let old = Checkpoint::load(&transaction, name).map_err(failed)?;
        let has_moved = old != compared.old;
        if has_moved && !is_last_try {
            return Ok(None);
        }
        if let Some(old) = &old
            && old.position > hidden.position
            && old.log_id == *self.reader.log_id()
            && self.reader.chain_at(old.position)? == Some(old.chain)
        {
            let filter = EventFilter { kinds, ..EventFilter::default() };
            let batch = self.reader.read_readable(
                &filter,
                hidden.position,
                old.position,
                SWITCH_EVENTS_MAX,
                projection.reads(),
            )?;
            if batch.scanned_to < old.position {
                return Ok(None);
            }
            let target = Target { connection: &transaction, generation: hidden.generation };
            hidden.parked.hand_on(projection, hidden.fold.as_mut(), &target, &batch)?;
            hidden.fold.flush(&target, usize::MAX)?;
            hidden.position = old.position;
            hidden.chain = old.chain;
            hidden.events += u64::try_from(batch.events.len()).unwrap_or(u64::MAX);
        }
        let checkpoint = Checkpoint {
            version: projection.version(),
            generation: hidden.generation,
            log_id: self.reader.log_id().clone(),
            position: hidden.position,
            chain: hidden.chain,
        };
        checkpoint.store(&transaction, name).map_err(failed)?;
        hidden.parked.store(&transaction, name, hidden.generation).map_err(failed)?;
        failpoint::pass("rebuild.checkpoint_stored");
        transaction.execute_batch(&projection.create_views(hidden.generation)).map_err(failed)?;
        transaction.execute("DELETE FROM rebuilds WHERE generation = ?1", [hidden.generation]).map_err(failed)?;
        failpoint::pass("rebuild.before_switch");
        transaction.commit().map_err(failed)?;
        failpoint::pass("rebuild.switched");
        Ok(Some(compared.changed.filter(|_| !has_moved)))
    }

    fn count_rows(&self, index: usize, generation: i64) -> Result<u64, ProjectionError> {
        count_rows(&self.connection, self.registered[index].as_ref(), generation)
            .map_err(|source| self.failed("counting rows", &source))
    }

    /// Waits until no other process rebuilds.
    fn lock_rebuilds(&self) -> Result<File, ProjectionError> {
        let (path, lock) = self.rebuild_lock()?;
        lock.lock().map_err(|source| ProjectionError::File { path, source })?;
        Ok(lock)
    }

    /// The lock, where nobody has it.
    pub(crate) fn try_lock_rebuilds(&self) -> Result<Option<File>, ProjectionError> {
        let (path, lock) = self.rebuild_lock()?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(source)) => Err(ProjectionError::File { path, source }),
        }
    }

    fn rebuild_lock(&self) -> Result<(std::path::PathBuf, File), ProjectionError> {
        let mut path = self.path.as_os_str().to_owned();
        path.push(".rebuild-lock");
        let path = std::path::PathBuf::from(path);
        let failed = |source| ProjectionError::File { path: path.clone(), source };
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let lock = options.open(&path).map_err(failed)?;
        Ok((path, lock))
    }
}

fn count_rows(connection: &Connection, projection: &dyn Projection, generation: i64) -> rusqlite::Result<u64> {
    projection.tables().iter().try_fold(0, |rows, table| {
        let sql = format!("SELECT count(*) FROM {}_{generation}", table.name);
        connection.query_row(&sql, [], |row| row.get::<_, u64>(0)).map(|count| rows + count)
    })
}
