//! Queries: the read models, read and never written, over a pool of connections; or over the one in memory that a session
//! was folded into ([`AsOf`](crate::AsOf)).

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use r2d2::{Pool, PooledConnection};
use r2d2_sqlite::SqliteConnectionManager;
use runledger_events::{AdapterSessionId, LogId, Position, RunId, RunStatus, SessionId};
use runledger_store::{LogReader, StorageError};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::error::ProjectionError;
use crate::file;
use crate::objects::{Iteration, Run, Session};
use crate::parked::{self, ParkedStream};
use crate::projections::registered;
use crate::views::{sessions, workflow_iterations, workflow_runs};

/// Connections in the pool, at the most.
const POOL_SIZE: u32 = 8;
/// How often the checkpoints are looked at while waiting.
const POLL: Duration = Duration::from_millis(2);

/// Which runs.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Those of this session alone.
    pub session: Option<SessionId>,
    /// Those of this status alone.
    pub status: Option<RunStatus>,
    /// Those of this workflow alone.
    pub workflow: Option<String>,
    /// Those in whose id, session, workflow or stop reason this text occurs, whatever the case of its ASCII letters.
    pub text: Option<String>,
    /// Those that began before this position.
    pub before: Option<Position>,
    /// At most so many, the newest first.
    pub limit: Option<usize>,
}

impl RunFilter {
    /// Whether a run fits, but for the limit: as [`Queries::runs`] asks it of the read model.
    pub(crate) fn takes(&self, run: &Run) -> bool {
        let has_text = |text: &String| {
            let text = text.to_ascii_lowercase();
            let columns = [
                Some(run.id.as_str()),
                Some(run.session_id.as_str()),
                run.workflow_name.as_deref(),
                run.stop_reason.as_deref(),
            ];
            columns.into_iter().flatten().any(|column| column.to_ascii_lowercase().contains(&text))
        };
        self.session.as_ref().is_none_or(|session| *session == run.session_id)
            && self.status.is_none_or(|status| status == run.status)
            && self.workflow.as_ref().is_none_or(|workflow| Some(workflow) == run.workflow_name.as_ref())
            && self.text.as_ref().is_none_or(has_text)
            && self.before.is_none_or(|before| run.first_position < before)
    }
}

/// What a run's id, or the beginning of one, fits.
#[derive(Debug, Clone)]
pub enum RunMatch {
    /// No run.
    None,
    /// One run, with its iterations.
    One(Box<Run>, Vec<Iteration>),
    /// Several.
    Several(Vec<RunId>),
}

/// How a read model stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProjectionStatus {
    /// Its name.
    pub projection: String,
    /// Its version in the file; none where it was never built.
    pub version: Option<u32>,
    /// This program's version of it.
    pub program_version: u32,
    /// Which of its generations is the one to read.
    pub generation: Option<i64>,
    /// The last position applied.
    pub position: Option<Position>,
    /// The log it is of.
    pub log_id: Option<LogId>,
}

/// The read models, for reading: those of the ledger's file, or those of a fold in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct Queries {
    path: PathBuf,
    log_id: LogId,
    source: Source,
}

/// Where connections come from.
#[derive(Debug, Clone)]
enum Source {
    File(Pool<SqliteConnectionManager>),
    /// The one connection there is.
    Memory(Arc<Mutex<Connection>>),
}

/// A connection, until it is given back.
pub(crate) enum Lent<'a> {
    Pooled(PooledConnection<SqliteConnectionManager>),
    Memory(MutexGuard<'a, Connection>),
}

impl Deref for Lent<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Pooled(connection) => connection,
            Self::Memory(connection) => connection,
        }
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        match self {
            Self::Pooled(connection) => connection,
            Self::Memory(connection) => connection,
        }
    }
}

impl Queries {
    /// Opens the read models of the ledger at `ledger`. They have to be there: `Projections` makes them.
    ///
    /// # Errors
    /// [`ProjectionError`]; nothing is written.
    pub fn open(ledger: impl AsRef<Path>) -> Result<Self, ProjectionError> {
        let reader = LogReader::open(ledger)?;
        let log_id = reader.log_id().clone();
        let path = file::projections_path(reader.path());
        if !path.exists() {
            return Err(ProjectionError::NotBuilt { path, projection: "workflow_runs" });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // Looked at before there is a pool, which would try a file that is no database again and again.
        let storage = |source: rusqlite::Error| StorageError::sqlite(&path, "opening", &source);
        let probe = Connection::open_with_flags(&path, flags).map_err(storage)?;
        file::set_busy_handler(&probe).map_err(storage)?;
        file::check(&path, &probe)?;
        let manager = SqliteConnectionManager::file(&path).with_flags(flags).with_init(|connection| {
            file::set_busy_handler(connection)?;
            connection.pragma_update(None, "query_only", true)
        });
        let pool = Pool::builder()
            .max_size(POOL_SIZE)
            .min_idle(Some(0))
            .connection_timeout(Duration::from_secs(10))
            .build(manager)
            .map_err(|error| ProjectionError::Pool { path: path.clone(), detail: error.to_string() })?;
        let queries = Self { path, log_id, source: Source::File(pool) };
        let connection = queries.connection()?;
        for projection in registered() {
            let checkpoint = queries.checkpoint(&connection, projection.name())?;
            let found = checkpoint.map_or(0, |checkpoint| checkpoint.version);
            if found > projection.version() {
                let (projection, ours) = (projection.name().to_owned(), projection.version());
                return Err(ProjectionError::NewerProjection { projection, found, ours });
            }
        }
        drop(connection);
        Ok(queries)
    }

    /// Over a connection in memory, with every read model of `log_id` in it.
    pub(crate) fn in_memory(connection: Connection, log_id: LogId) -> Self {
        Self { path: file::IN_MEMORY.into(), log_id, source: Source::Memory(Arc::new(Mutex::new(connection))) }
    }

    /// The file; `:memory:` where there is none.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log that they are of.
    pub(crate) fn log_id(&self) -> &LogId {
        &self.log_id
    }

    /// Runs, the newest first.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>, ProjectionError> {
        let mut conditions = Vec::new();
        let mut parameters = Vec::new();
        if let Some(session) = &filter.session {
            parameters.push(Value::Text(session.to_string()));
            conditions.push(format!("session_id = ?{}", parameters.len()));
        }
        if let Some(status) = filter.status {
            parameters.push(Value::Text(status.to_string()));
            conditions.push(format!("status = ?{}", parameters.len()));
        }
        if let Some(workflow) = &filter.workflow {
            parameters.push(Value::Text(workflow.clone()));
            conditions.push(format!("workflow_name = ?{}", parameters.len()));
        }
        if let Some(text) = &filter.text {
            let literal = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            parameters.push(Value::Text(format!("%{literal}%")));
            let like = format!("LIKE ?{} ESCAPE '\\'", parameters.len());
            let columns = ["run_id", "session_id", "workflow_name", "stop_reason"];
            conditions.push(format!("({})", columns.map(|column| format!("{column} {like}")).join(" OR ")));
        }
        if let Some(before) = filter.before {
            parameters.push(Value::Integer(i64::try_from(before.0).unwrap_or(i64::MAX)));
            conditions.push(format!("first_position < ?{}", parameters.len()));
        }
        let mut clause = String::new();
        if !conditions.is_empty() {
            clause = format!("WHERE {} ", conditions.join(" AND "));
        }
        clause.push_str("ORDER BY first_position DESC");
        if let Some(limit) = filter.limit {
            parameters.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
            clause.push_str(&format!(" LIMIT ?{}", parameters.len()));
        }
        workflow_runs::select(&*self.connection()?, &clause, rusqlite::params_from_iter(parameters))
            .map_err(|source| self.failed(workflow_runs::NAME, &source))
    }

    /// The run whose id is, or begins with, `prefix`, with its iterations; both as of one moment.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn run(&self, prefix: &str) -> Result<RunMatch, ProjectionError> {
        let failed = |source: rusqlite::Error| self.failed(workflow_runs::NAME, &source);
        let mut connection = self.connection()?;
        let snapshot = connection.transaction().map_err(failed)?;
        let condition = "WHERE run_id >= ?1 AND run_id < ?1 || char(1114111) ORDER BY first_position DESC";
        let mut runs = workflow_runs::select(&snapshot, condition, [prefix]).map_err(failed)?;
        if let Some(index) = runs.iter().position(|run| run.id.as_str() == prefix) {
            runs = vec![runs.swap_remove(index)];
        }
        match runs.len() {
            0 => Ok(RunMatch::None),
            1 => {
                let run = runs.remove(0);
                let iterations = workflow_iterations::select(&snapshot, &run.id)
                    .map_err(|source| self.failed(workflow_iterations::NAME, &source))?;
                Ok(RunMatch::One(Box::new(run), iterations))
            }
            _ => Ok(RunMatch::Several(runs.into_iter().map(|run| run.id).collect())),
        }
    }

    /// The runs that were started within a run, the oldest first.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn children(&self, run_id: &RunId) -> Result<Vec<Run>, ProjectionError> {
        let condition = "WHERE parent_run_id = ?1 ORDER BY first_position";
        workflow_runs::select(&*self.connection()?, condition, [run_id.as_str()])
            .map_err(|source| self.failed(workflow_runs::NAME, &source))
    }

    /// Sessions with their adapter sessions, those with the latest event first.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn sessions(&self) -> Result<Vec<Session>, ProjectionError> {
        let mut connection = self.connection()?;
        let snapshot = connection.transaction().map_err(|source| self.failed(sessions::NAME, &source))?;
        sessions::select(&snapshot, None).map_err(|source| self.failed(sessions::NAME, &source))
    }

    /// Sessions with their adapter sessions, those with the latest event first: at most so many, whose last event is before a
    /// position.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn latest_sessions(&self, before: Option<Position>, limit: usize) -> Result<Vec<Session>, ProjectionError> {
        let failed = |source: rusqlite::Error| self.failed(sessions::NAME, &source);
        let mut connection = self.connection()?;
        let snapshot = connection.transaction().map_err(failed)?;
        let mut found = Vec::new();
        for id in sessions::select_latest(&snapshot, before, limit).map_err(failed)? {
            found.extend(sessions::select(&snapshot, Some(&id)).map_err(failed)?);
        }
        Ok(found)
    }

    /// One session with its adapter sessions, at a cost that does not depend on how many others there are.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn session(&self, id: &SessionId) -> Result<Option<Session>, ProjectionError> {
        let mut connection = self.connection()?;
        let snapshot = connection.transaction().map_err(|source| self.failed(sessions::NAME, &source))?;
        let found = sessions::select(&snapshot, Some(id)).map_err(|source| self.failed(sessions::NAME, &source))?;
        Ok(found.into_iter().next())
    }

    /// The ledger session that an adapter session is of: the one that told of it first.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn session_of_adapter(&self, id: &AdapterSessionId) -> Result<Option<SessionId>, ProjectionError> {
        sessions::select_home(&*self.connection()?, id).map_err(|source| self.failed(sessions::NAME, &source))
    }

    /// How each read model stands.
    ///
    /// # Errors
    /// [`ProjectionError`] when the file cannot be read.
    pub fn status(&self) -> Result<Vec<ProjectionStatus>, ProjectionError> {
        let connection = self.connection()?;
        registered()
            .iter()
            .map(|projection| {
                let checkpoint = self.checkpoint(&connection, projection.name())?;
                Ok(ProjectionStatus {
                    projection: projection.name().to_owned(),
                    version: checkpoint.as_ref().map(|checkpoint| checkpoint.version),
                    program_version: projection.version(),
                    generation: checkpoint.as_ref().map(|checkpoint| checkpoint.generation),
                    position: checkpoint.as_ref().map(|checkpoint| checkpoint.position),
                    log_id: checkpoint.map(|checkpoint| checkpoint.log_id),
                })
            })
            .collect()
    }

    /// The streams that read models leave out, because of an event that cannot be read.
    ///
    /// # Errors
    /// [`ProjectionError`] when the file cannot be read.
    pub fn parked(&self) -> Result<Vec<ParkedStream>, ProjectionError> {
        let connection = self.connection()?;
        let failed = |source: rusqlite::Error| self.failed("parked_streams", &source);
        // A file that nobody has projected into since an upgrade has no such table yet.
        let is_there = connection.table_exists(None, "parked_streams").map_err(failed)?;
        if is_there { parked::select(&connection).map_err(failed) } else { Ok(Vec::new()) }
    }

    /// Whether texts that were erased in the log may still be in the ledger's files, its log's or its read models': an erasure
    /// that was interrupted, or is not told of here yet.
    ///
    /// # Errors
    /// [`ProjectionError`] when a file cannot be read.
    pub fn may_have_erased_texts(&self, reader: &LogReader) -> Result<bool, ProjectionError> {
        let Some(redaction) = reader.last_redaction()? else {
            return Ok(false);
        };
        let connection = self.connection()?;
        let failed = |source: rusqlite::Error| self.failed("cleared", &source);
        // A file that nobody has projected into since an upgrade has no such table yet.
        if !connection.table_exists(None, "cleared").map_err(failed)? {
            return Ok(true);
        }
        let sql = "SELECT CASE log_id WHEN ?1 THEN min(of_file, of_wal, of_log) ELSE 0 END FROM cleared";
        let cleared: u64 = connection.query_row(sql, [reader.log_id().as_str()], |row| row.get(0)).map_err(failed)?;
        Ok(Position(cleared) < redaction)
    }

    /// Waits until every read model has applied `position` of this ledger's log: to read what one wrote.
    ///
    /// It stays right while a model is rebuilt, because the switch never takes a model back.
    ///
    /// # Errors
    /// [`ProjectionError::TimedOut`] after `timeout`; at once of a fold in memory, which comes no further.
    pub fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), ProjectionError> {
        let deadline = Instant::now() + timeout;
        loop {
            // Given back before each pause: those who wait do not keep the pool from those who ask.
            let connection = self.connection()?;
            let mut reached = position;
            for projection in registered() {
                let at = self
                    .checkpoint(&connection, projection.name())?
                    .filter(|checkpoint| checkpoint.log_id == self.log_id)
                    .map_or(Position::START, |checkpoint| checkpoint.position);
                reached = reached.min(at);
            }
            if reached >= position {
                return Ok(());
            }
            if Instant::now() >= deadline || matches!(self.source, Source::Memory(_)) {
                return Err(ProjectionError::TimedOut { wanted: position, reached });
            }
            drop(connection);
            std::thread::sleep(POLL);
        }
    }

    /// A connection, for one question: whoever holds one asks for no other.
    pub(crate) fn connection(&self) -> Result<Lent<'_>, ProjectionError> {
        match &self.source {
            Source::File(pool) => pool
                .get()
                .map(Lent::Pooled)
                .map_err(|error| ProjectionError::Pool { path: self.path.clone(), detail: error.to_string() }),
            // A question that panicked has written nothing, and its transaction is over.
            Source::Memory(connection) => Ok(Lent::Memory(connection.lock().unwrap_or_else(PoisonError::into_inner))),
        }
    }

    pub(crate) fn checkpoint(
        &self,
        connection: &Connection,
        projection: &'static str,
    ) -> Result<Option<Checkpoint>, ProjectionError> {
        Checkpoint::load(connection, projection).map_err(|source| self.failed(projection, &source))
    }

    pub(crate) fn failed(&self, projection: &'static str, source: &rusqlite::Error) -> ProjectionError {
        match source {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..) => ProjectionError::Row { projection, detail: source.to_string() },
            // The view is not there: the model was never built.
            rusqlite::Error::SqliteFailure(_, Some(text)) if text.starts_with("no such table") => {
                self.not_built(projection)
            }
            source => StorageError::sqlite(&self.path, "reading a read model", source).into(),
        }
    }

    pub(crate) fn not_built(&self, projection: &'static str) -> ProjectionError {
        ProjectionError::NotBuilt { path: self.path.clone(), projection }
    }
}
