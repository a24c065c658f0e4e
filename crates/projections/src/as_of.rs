//! The past: what read models would say of a session if the log ended at a position, and the same of one run alone.
//!
//! Invariants: nothing is taken from stored rows, everything from the log; the folds, the parking of what cannot be read
//! and the queries are the projector's and [`Queries`]' own; what it costs depends on the session, not on the log.

use std::path::Path;

use runledger_events::{
    Digest, EventKind, IterationState, LogId, Position, RunId, SessionId, StreamName, WorkflowState,
};
use runledger_store::{Batch, EventFilter, LogReader, Read, StorageError};
use rusqlite::Connection;

use crate::checkpoint::Checkpoint;
use crate::error::ProjectionError;
use crate::file;
use crate::objects::{Iteration, Run};
use crate::parked::Parked;
use crate::projection::{Fold, Projection, Target};
use crate::projections::{BATCH_EVENTS_MAX, chain_at, content_kinds_of, kinds_of, read_of, registered};
use crate::queries::Queries;
use crate::rebuild::FOLD_BYTES_MAX;
use crate::views::workflow_runs::RUN_KINDS;

/// The one generation of the tables in memory.
const GENERATION: i64 = 1;

/// Bytes of a page of the tables in memory.
const PAGE_BYTES: u64 = 4096;

/// How much one fold of a session may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Events that are read at once.
    batch_events: usize,
    /// Bytes that all folds together may keep before they write, about.
    kept_bytes: usize,
    /// Bytes of the tables.
    table_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { batch_events: BATCH_EVENTS_MAX, kept_bytes: FOLD_BYTES_MAX, table_bytes: 1 << 30 }
    }
}

/// One ledger session as of a position: what the read models would say of it if the log ended there.
///
/// Folded from the session's events, those whose metadata name it, into tables in memory, by the folds that keep the
/// ledger's file; asked by the very same [`Queries`]. Only the session is in it: a question that names no session is
/// answered of this one, and the children, the origins and the tree of a run are those within it.
///
/// ```no_run
/// use runledger_projections::events::{Position, SessionId};
/// use runledger_projections::{AsOf, RunFilter};
/// use runledger_store::LogReader;
///
/// let log = LogReader::open("ledger.db")?;
/// if let Some(as_of) = AsOf::fold(&log, &SessionId::new("s1")?, Position(120))? {
///     let runs = as_of.queries().runs(&RunFilter::default())?;
///     println!("at position {}: {} runs", as_of.position(), runs.len());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Shape: all read models of one session, at one position. Units: time and memory are those of the session's events up to
/// there, about 25 µs and 0.8 KB for each of a usual size, however long the log is; at most 1 GiB of tables, and about
/// 64 MiB beside them while it is folded.
///
/// It answers what [`Queries`] answered of the session when the log ended there, but for:
/// - [`FeedEvent::cursor`](crate::FeedEvent::cursor) counts the session's own entries. One of the ledger's feed holds
///   here, and the other way round, where the filter names the session.
/// - What other sessions tell. Where a harness's hooks know neither its run nor that run's session, they stand in a session
///   of their own: here it knows nothing of the run, and the run's session nothing of them. No request is settled by what
///   another session tells of the same adapter session, and none is found by its name there. Whatever the program starts
///   has the session of its run: the harness, its hooks, its questions.
/// - Events of a run's or a question's stream whose metadata name another session, or none. The program writes none.
/// - What was erased since: its words are gone from the past too.
///
/// An event that cannot be read parks its stream as in the ledger's read models: it is left out from there on, and
/// [`Queries::parked`] says so, with position and cause.
#[derive(Debug, Clone)]
pub struct AsOf {
    session: SessionId,
    position: Position,
    /// The log's chain there.
    chain: Digest,
    erased: Option<Position>,
    events: usize,
    bytes: u64,
    queries: Queries,
}

impl AsOf {
    /// Folds a session's events up to and with `position`, or to the log's head where that is before it; `None` where the
    /// session had not begun.
    ///
    /// # Errors
    /// - [`ProjectionError::Read`]: a row of the session is damaged beyond its payloads; it names the position.
    /// - [`ProjectionError::TooLarge`]: the session does not fit in memory.
    pub fn fold(reader: &LogReader, session: &SessionId, position: Position) -> Result<Option<Self>, ProjectionError> {
        Self::fold_some(reader, session, position, usize::MAX)
    }

    /// The same, of at most `events_max` of the session's events, which are at least 1: [`AsOf::position`] says how far they
    /// go.
    ///
    /// # Errors
    /// As [`AsOf::fold`].
    pub fn fold_some(
        reader: &LogReader,
        session: &SessionId,
        position: Position,
        events_max: usize,
    ) -> Result<Option<Self>, ProjectionError> {
        Self::fold_within(reader, session, position, events_max, Bounds::default())
    }

    /// Goes on to a later position: what a fold up to there is, at the cost of a copy of the tables and of the events in
    /// between. This one stays as it is, and so does what was asked of it.
    ///
    /// `None` where it cannot go on, and a fold is to be made: the position is before its own, something was erased since it
    /// was folded, or the log is not the one that it was folded from.
    ///
    /// Shape: as of `position`, or of the log's head where that is before it. Units: 0.2 to 0.6 ms for each MB of its tables
    /// ([`AsOf::bytes`]), and then as a fold of the events in between. Memory: its tables once more, as long as both are kept.
    /// An event that could not be read stays left out, though it can be read by now.
    ///
    /// # Errors
    /// As [`AsOf::fold`]; this one can still be asked, and can go on.
    pub fn forward(&self, reader: &LogReader, position: Position) -> Result<Option<Self>, ProjectionError> {
        self.forward_some(reader, position, usize::MAX)
    }

    /// The same, by at most `events_max` of the session's events, which are at least 1: [`AsOf::position`] says how far they
    /// go.
    ///
    /// # Errors
    /// As [`AsOf::forward`].
    pub fn forward_some(
        &self,
        reader: &LogReader,
        position: Position,
        events_max: usize,
    ) -> Result<Option<Self>, ProjectionError> {
        self.forward_within(reader, position, events_max, Bounds::default())
    }

    fn fold_within(
        reader: &LogReader,
        session: &SessionId,
        position: Position,
        events_max: usize,
        bounds: Bounds,
    ) -> Result<Option<Self>, ProjectionError> {
        // In this order: what is erased from now on is not known to it.
        let erased = reader.last_redaction()?;
        let up_to = position.min(reader.head()?.position);
        let mut events = SessionEvents::new(reader, session, (Position::START, up_to), events_max, bounds);
        match events.next()? {
            Some(batch) if batch.events.len() + batch.unreadable.len() > 0 => {
                Self::folded(events, (session, erased), bounds, Some(batch), || Models::new(bounds)).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn forward_within(
        &self,
        reader: &LogReader,
        position: Position,
        events_max: usize,
        bounds: Bounds,
    ) -> Result<Option<Self>, ProjectionError> {
        let erased = reader.last_redaction()?;
        let up_to = position.min(reader.head()?.position);
        let is_of_it = reader.log_id() == self.queries.log_id() && reader.chain_at(self.position)? == Some(self.chain);
        if up_to < self.position || erased != self.erased || !is_of_it {
            return Ok(None);
        }
        if up_to == self.position {
            return Ok(Some(self.clone()));
        }
        let events = SessionEvents::new(reader, &self.session, (self.position, up_to), events_max, bounds);
        let copied = || Models::copied(&*self.queries.connection()?, bounds);
        let mut later = Self::folded(events, (&self.session, erased), bounds, None, copied)?;
        later.events += self.events;
        Ok(Some(later))
    }

    /// Folds these events, of which the first were read before, on models that stand where they begin.
    fn folded(
        mut events: SessionEvents<'_>,
        (session, erased): (&SessionId, Option<Position>),
        bounds: Bounds,
        first: Option<Batch>,
        models: impl FnOnce() -> Result<Models, ProjectionError>,
    ) -> Result<Self, ProjectionError> {
        let fold = || {
            let mut models = models()?;
            if let Some(batch) = first {
                models.take(&batch)?;
            }
            while let Some(batch) = events.next()? {
                models.take(&batch)?;
            }
            let chain = chain_at(events.reader, events.scanned_to)?;
            let (connection, bytes) = models.finish(events.reader.log_id(), events.scanned_to, chain)?;
            Ok((connection, bytes, chain))
        };
        let (connection, bytes, chain) = fold().map_err(|error| match error {
            // Of tables in memory: they have as many pages as they may have.
            ProjectionError::Storage(StorageError::Full { .. }) => {
                ProjectionError::TooLarge { session: session.clone(), bytes_max: bounds.table_bytes }
            }
            error => error,
        })?;
        let queries = Queries::in_memory(connection, events.reader.log_id().clone());
        let (position, events) = (events.scanned_to, events.taken);
        Ok(Self { session: session.clone(), position, chain, erased, events, bytes, queries })
    }

    /// The session.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// The position that it is as of: what was asked for, or the log's head then.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Where the last erasure stands that it knows of: once another was made ([`LogReader::last_redaction`]), it may have
    /// words that are gone from the log.
    pub fn erased(&self) -> Option<Position> {
        self.erased
    }

    /// How many of the session's events are in it.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Bytes that its tables take in memory. Clones share them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is answered of it. Questions are answered one after the other.
    pub fn queries(&self) -> &Queries {
        &self.queries
    }
}

/// The events of a session between two positions, as the read models need them, batch by batch.
struct SessionEvents<'a> {
    reader: &'a LogReader,
    filter: EventFilter,
    content_kinds: Option<Vec<EventKind>>,
    /// Those up to and with this position were read.
    scanned_to: Position,
    up_to: Position,
    /// How many were read, and how many are still to be read at the most.
    taken: usize,
    left: usize,
    batch_events: usize,
}

impl<'a> SessionEvents<'a> {
    fn new(
        reader: &'a LogReader,
        session: &SessionId,
        (after, up_to): (Position, Position),
        events_max: usize,
        bounds: Bounds,
    ) -> Self {
        let all = registered();
        let projections = || all.iter().map(AsRef::as_ref);
        let filter =
            EventFilter { session: Some(session.clone()), kinds: kinds_of(projections()), ..EventFilter::default() };
        let (content_kinds, left) = (content_kinds_of(projections()), events_max.max(1));
        let batch_events = bounds.batch_events;
        Self { reader, filter, content_kinds, scanned_to: after, up_to, taken: 0, left, batch_events }
    }

    /// Those that come next, if there may be any.
    fn next(&mut self) -> Result<Option<Batch>, ProjectionError> {
        if self.scanned_to >= self.up_to || self.left == 0 {
            return Ok(None);
        }
        let (read, limit) = (read_of(self.content_kinds.as_deref()), self.batch_events.min(self.left));
        let batch = self.reader.read_readable(&self.filter, self.scanned_to, self.up_to, limit, read)?;
        let count = batch.events.len() + batch.unreadable.len();
        (self.scanned_to, self.taken, self.left) = (batch.scanned_to, self.taken + count, self.left - count);
        Ok(Some(batch))
    }
}

/// The read models of a session on their way to its position.
struct Models {
    connection: Connection,
    models: Vec<Model>,
    kept_bytes_max: usize,
}

struct Model {
    projection: Box<dyn Projection>,
    fold: Box<dyn Fold>,
    parked: Parked,
}

impl Models {
    /// Makes their tables.
    fn new(bounds: Bounds) -> Result<Self, ProjectionError> {
        let new = Self::begun(file::open_in_memory()?, bounds)?;
        for Model { projection, .. } in &new.models {
            new.connection.execute_batch(&projection.create_tables(GENERATION)).map_err(failed)?;
            new.connection.execute_batch(&projection.create_views(GENERATION)).map_err(failed)?;
        }
        Ok(new)
    }

    /// Goes on from a copy of tables that are filled; what the folds knew they read from them again.
    fn copied(tables: &Connection, bounds: Bounds) -> Result<Self, ProjectionError> {
        Self::begun(file::copy_in_memory(tables)?, bounds)
    }

    /// Begins the one transaction that fills them.
    fn begun(connection: Connection, bounds: Bounds) -> Result<Self, ProjectionError> {
        // Tables that could not be filled are thrown away: nothing is kept to take them back.
        connection.pragma_update(None, "journal_mode", "OFF").map_err(failed)?;
        connection.pragma_update(None, "temp_store", "MEMORY").map_err(failed)?;
        connection.pragma_update(None, "max_page_count", bounds.table_bytes / PAGE_BYTES).map_err(failed)?;
        connection.execute_batch("BEGIN").map_err(failed)?;
        let model = |projection: Box<dyn Projection>| {
            let parked = Parked::load(&connection, projection.name(), GENERATION).map_err(failed)?;
            Ok(Model { fold: projection.fold(), parked, projection })
        };
        let models = registered().into_iter().map(model).collect::<Result<Vec<_>, ProjectionError>>()?;
        let kept_bytes_max = bounds.kept_bytes / models.len().max(1);
        Ok(Self { connection, models, kept_bytes_max })
    }

    fn take(&mut self, batch: &Batch) -> Result<(), ProjectionError> {
        let target = Target { connection: &self.connection, generation: GENERATION };
        for Model { projection, fold, parked } in &mut self.models {
            parked.hand_on(projection.as_ref(), fold.as_mut(), &target, batch)?;
            if fold.kept_bytes() > self.kept_bytes_max {
                fold.flush(&target, usize::MAX)?;
                // What it knows by now can be read from the tables again; where that is little, it may keep it.
                if fold.kept_bytes() > self.kept_bytes_max / 2 {
                    *fold = projection.fold();
                }
            }
        }
        Ok(())
    }

    /// Writes what is not written yet, and how far it has come; gives the tables, which are read from now on, and their bytes.
    fn finish(self, log: &LogId, position: Position, chain: Digest) -> Result<(Connection, u64), ProjectionError> {
        let Self { connection, models, .. } = self;
        let target = Target { connection: &connection, generation: GENERATION };
        for Model { projection, mut fold, mut parked } in models {
            fold.flush(&target, usize::MAX)?;
            parked.store(&connection, projection.name(), GENERATION).map_err(failed)?;
            let (version, log_id) = (projection.version(), log.clone());
            let checkpoint = Checkpoint { version, generation: GENERATION, log_id, position, chain };
            checkpoint.store(&connection, projection.name()).map_err(failed)?;
        }
        connection.execute_batch("COMMIT").map_err(failed)?;
        let pages: u64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(failed)?;
        connection.pragma_update(None, "query_only", true).map_err(failed)?;
        Ok((connection, pages * PAGE_BYTES))
    }
}

fn failed(source: rusqlite::Error) -> ProjectionError {
    StorageError::sqlite(Path::new(file::IN_MEMORY), "folding a session in memory", &source).into()
}

/// The run and its iterations as of `position`; `None` when it had not begun. Reads the facts of its own stream alone.
///
/// # Errors
/// [`ProjectionError::Read`] names the position that cannot be read.
pub fn run_at(
    reader: &LogReader,
    run_id: &RunId,
    position: Position,
) -> Result<Option<(Run, Vec<Iteration>)>, ProjectionError> {
    let filter = EventFilter {
        stream: Some(StreamName::run(run_id)),
        kinds: Some(RUN_KINDS.to_vec()),
        ..EventFilter::default()
    };
    let events = reader.read(&filter, Position::START, position, usize::MAX, Read::Facts)?.events;
    let Some((state, _)) = WorkflowState::fold(&events) else {
        return Ok(None);
    };
    let first_position = events.first().map_or(position, |event| event.position);
    let mut iterations: Vec<IterationState> = Vec::new();
    for event in &events {
        iterations.iter_mut().for_each(|iteration| iteration.evolve(event));
        if let Some(iteration) = IterationState::initial(event)
            && !iterations.iter().any(|known| known.iteration == iteration.iteration)
        {
            iterations.push(iteration);
        }
    }
    iterations.sort_by_key(|iteration| iteration.iteration);
    Ok(Some((Run::new(state, first_position), iterations.into_iter().map(Iteration::from).collect())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use std::fmt::Write as _;

    use runledger_testkit::TempLedger;
    use rusqlite::types::Value;

    use super::*;

    /// A session of prompts, and where it ends.
    fn session(prompts: usize, words: &str) -> (TempLedger, SessionId, Position) {
        let ledger = TempLedger::new();
        let tell = |id: String, kind: &str, data: String| {
            let rest = r#""timestamp":1,"sessionId":"a""#;
            ledger.append("session/s", &format!(r#"{{"id":"hook:{id}",{rest},"kind":"{kind}","data":{data}}}"#));
        };
        for number in 1..=prompts {
            tell(format!("e{number}"), "user.prompt", format!(r#"{{"prompt":"{words} {number}"}}"#));
            let call = format!(r#"{{"tool_name":"Bash","tool_use_id":"t{}","tool_input":{{}}}}"#, number % 3);
            tell(format!("c{number}"), "permission.request", call);
        }
        let head = ledger.log.reader().unwrap().head().unwrap().position;
        (ledger, "s".parse().unwrap(), head)
    }

    /// Every row of every read model.
    fn dump(as_of: &AsOf) -> String {
        let connection = as_of.queries().connection().unwrap();
        let mut text = String::new();
        for table in registered().iter().flat_map(|projection| projection.tables()) {
            let key = table.key.join(", ").replace("rowid", "position");
            let mut statement = connection.prepare(&format!("SELECT * FROM {} ORDER BY {key}", table.name)).unwrap();
            let columns = statement.column_count();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<_> = (0..columns).map(|index| row.get::<_, Value>(index).unwrap()).collect();
                writeln!(text, "{}: {values:?}", table.name).unwrap();
            }
        }
        text
    }

    #[test]
    fn neither_batches_nor_what_folds_may_keep_change_a_row() {
        let (ledger, session, head) = session(40, "words");
        let reader = ledger.log.reader().unwrap();
        let whole = dump(&AsOf::fold(&reader, &session, head).unwrap().unwrap());
        assert!(whole.contains("words 40"));
        for (batch_events, kept_bytes) in [(1, 0), (3, usize::MAX), (7, 10_000), (1000, 0)] {
            let bounds = Bounds { batch_events, kept_bytes, ..Bounds::default() };
            let as_of = AsOf::fold_within(&reader, &session, head, usize::MAX, bounds).unwrap().unwrap();
            assert_eq!(dump(&as_of), whole, "{bounds:?}");
        }
    }

    /// Folds up to the head by so many events a step, each time on what the step before left.
    fn in_steps(reader: &LogReader, session: &SessionId, head: Position, step: usize, bounds: Bounds) -> AsOf {
        let mut past = AsOf::fold_within(reader, session, head, step, bounds).unwrap().unwrap();
        while past.position() < head {
            let next = past.forward_within(reader, head, step, bounds).unwrap().unwrap();
            assert!(past.position() < next.position() && next.events() <= past.events() + step);
            past = next;
        }
        past
    }

    #[test]
    fn to_go_on_in_steps_gives_the_rows_of_one_fold() {
        let (ledger, session, head) = session(40, "words");
        let reader = ledger.log.reader().unwrap();
        let whole = AsOf::fold(&reader, &session, head).unwrap().unwrap();
        for (step, batch_events, kept_bytes) in [(1, 1000, usize::MAX), (7, 3, 0), (33, 7, 10_000)] {
            let bounds = Bounds { batch_events, kept_bytes, ..Bounds::default() };
            let past = in_steps(&reader, &session, head, step, bounds);
            assert_eq!((past.position(), past.events()), (whole.position(), whole.events()));
            assert_eq!(dump(&past), dump(&whole), "{step} events a step, {bounds:?}");
        }
    }

    #[test]
    fn every_case_of_the_reference_has_the_same_rows_in_steps() {
        let Some(folder) = runledger_testkit::shared("conformance/feed") else {
            return;
        };
        let index: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("index.json")).unwrap()).unwrap();
        for (number, case) in index.as_array().unwrap().iter().enumerate() {
            let name = case["name"].as_str().unwrap();
            let input = std::fs::read_to_string(folder.join(format!("{name}.input.jsonl"))).unwrap();
            let is_event = |line: &&str| {
                let value: serde_json::Value = serde_json::from_str(&runledger_events::readable(line)).unwrap();
                value.get("transcript").is_none() && (value.get("kind").is_some() || value.get("eventId").is_some())
            };
            let (ledger, session) = (TempLedger::new(), SessionId::new(name).unwrap());
            let stream = StreamName::session(&session);
            for line in input.split('\n').filter(|line| !line.is_empty()).filter(is_event) {
                ledger.append(stream.as_str(), line);
            }
            let reader = ledger.log.reader().unwrap();
            let head = reader.head().unwrap().position;
            let Some(whole) = AsOf::fold(&reader, &session, head).unwrap() else {
                continue;
            };
            let step = 1 + number % 9;
            assert_eq!(dump(&in_steps(&reader, &session, head, step, Bounds::default())), dump(&whole), "{name}");
        }
    }

    #[test]
    fn what_one_goes_on_from_stays_as_it_is() {
        let (ledger, session, head) = session(6, "words");
        let reader = ledger.log.reader().unwrap();
        let past = AsOf::fold(&reader, &session, Position(4)).unwrap().unwrap();
        let (before, page) = (dump(&past), past.clone());
        let later = past.forward(&reader, head).unwrap().unwrap();
        assert_eq!((dump(&past), dump(&page)), (before.clone(), before));
        assert_eq!(dump(&later), dump(&AsOf::fold(&reader, &session, head).unwrap().unwrap()));
        // And is asked for no more, it is shared
        let same = later.forward(&reader, Position(u64::MAX)).unwrap().unwrap();
        assert_eq!((same.position(), same.events(), same.bytes()), (head, later.events(), later.bytes()));
        let of_bytes =
            |past: &AsOf| past.queries().connection().unwrap().query_row("PRAGMA page_count", [], |row| row.get(0));
        assert_eq!(of_bytes(&later).map(|pages: u64| pages * PAGE_BYTES), Ok(later.bytes()));
    }

    #[test]
    fn a_session_that_grows_beyond_memory_is_refused_by_name_and_what_was_is_still_there() {
        let (ledger, session, head) = session(40, &"long ".repeat(10_000));
        let reader = ledger.log.reader().unwrap();
        let bounds = Bounds { table_bytes: 1 << 20, ..Bounds::default() };
        let past = AsOf::fold_within(&reader, &session, Position(6), usize::MAX, bounds).unwrap().unwrap();
        let before = dump(&past);
        let error = past.forward_within(&reader, head, usize::MAX, bounds).unwrap_err();
        assert!(matches!(error, ProjectionError::TooLarge { bytes_max: 1_048_576, .. }), "{error}");
        assert_eq!(dump(&past), before);
        assert!(past.forward_within(&reader, Position(8), usize::MAX, bounds).unwrap().is_some());
    }

    #[test]
    fn a_session_that_does_not_fit_in_memory_is_refused_by_name() {
        let (ledger, session, head) = session(40, &"long ".repeat(10_000));
        let reader = ledger.log.reader().unwrap();
        let bounds = Bounds { table_bytes: 1 << 20, ..Bounds::default() };
        let error = AsOf::fold_within(&reader, &session, head, usize::MAX, bounds).unwrap_err();
        assert!(matches!(error, ProjectionError::TooLarge { bytes_max: 1_048_576, .. }), "{error}");
        assert!(error.to_string().contains("session s: "), "{error}");
        // The beginning of it fits
        assert!(AsOf::fold_within(&reader, &session, Position(6), usize::MAX, bounds).unwrap().is_some());
    }

    #[test]
    fn it_can_be_asked_by_any_thread_and_not_written() {
        fn shared<T: Send + Sync + Clone>(_: &T) {}
        let (ledger, session, head) = session(1, "words");
        let as_of = AsOf::fold(&ledger.log.reader().unwrap(), &session, head).unwrap().unwrap();
        shared(&as_of);
        let written = as_of.queries().connection().unwrap().execute("DELETE FROM feed_events_1", []);
        assert!(written.unwrap_err().to_string().contains("readonly"));
    }
}
