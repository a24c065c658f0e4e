//! An old database, read whole: checked, never changed.

use std::path::{Path, PathBuf};

use runledger_events::readable;
use rusqlite::{Connection, OpenFlags};

use crate::copy::PrivateCopy;
use crate::error::ImportError;
use crate::rows::{
    AdapterSessionRow, FeedRow, OtherRow, Record, RuntimeRow, SessionRow, Table, WorkflowRunRow, damaged,
};

/// The schema versions that are taken over. Version 1 was never released, 2 has no token columns, 3 no window size, 4 no
/// workflow runs, 5 no gateway tables; up to 3, events have neither `kind` nor `data`.
pub const SCHEMA_VERSIONS: std::ops::RangeInclusive<i64> = 2..=6;

const SESSION: &str = "session";
const RUNTIME_EVENTS: &str = "runtime_events";
const FEED_EVENTS: &str = "feed_events";
const ADAPTER_SESSIONS: &str = "adapter_sessions";
const WORKFLOW_RUNS: &str = "workflow_runs";
const SCHEMA_VERSION: &str = "schema_version";

/// One session database, as it was when it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct OldDatabase {
    /// The file.
    pub file: PathBuf,
    /// Its schema version.
    pub schema_version: i64,
    /// Its session.
    pub session: SessionRow,
    /// What harnesses told, in the order of arrival.
    pub runtime_events: Vec<RuntimeRow>,
    /// What the mapper made of it, in the order of the timeline.
    pub feed_events: Vec<FeedRow>,
    /// Harness sessions, in the order of their beginning.
    pub adapter_sessions: Vec<AdapterSessionRow>,
    /// Workflow runs, in the order of their beginning.
    pub workflow_runs: Vec<WorkflowRunRow>,
    /// The rows of every other table.
    pub others: Vec<OtherRow>,
}

impl OldDatabase {
    /// Reads the database at `file`, its `-wal` included. It and all beside it stay as they are.
    ///
    /// # Errors
    /// [`ImportError`] when it cannot be read, is no session database, is damaged, has another schema version, or has a
    /// row that is of no use.
    pub fn read(file: impl AsRef<Path>) -> Result<Self, ImportError> {
        let file = file.as_ref();
        let copy = PrivateCopy::of(file)?;
        let failed = |source: rusqlite::Error| damaged(file, &source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(copy.path(), flags).map_err(failed)?;
        connection.pragma_update(None, "trusted_schema", false).map_err(failed)?;
        let finding: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if finding != "ok" {
            return Err(ImportError::Damaged { file: file.to_owned(), detail: finding.replace('\n', " ") });
        }
        let tables = tables(&connection).map_err(failed)?;
        let schema_version = schema_version(file, &connection, &tables)?;
        read_rows(file, &connection, schema_version, &tables)
    }
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name")?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn schema_version(file: &Path, connection: &Connection, tables: &[String]) -> Result<i64, ImportError> {
    let foreign = |detail: String| ImportError::Foreign { file: file.to_owned(), detail };
    let has = |table: &str| tables.iter().any(|name| name == table);
    if tables.is_empty() {
        return Err(foreign("it is empty; a -wal file that stood beside it has to stand there still".to_owned()));
    }
    if !has(SCHEMA_VERSION) {
        return Err(foreign(format!("it has no table {SCHEMA_VERSION}")));
    }
    let versions = Table::read(file, connection, SCHEMA_VERSION, "rowid", |row| row.whole("version"))?;
    let found = match versions.as_slice() {
        [found] => *found,
        versions => return Err(foreign(format!("{SCHEMA_VERSION} has {} rows", versions.len()))),
    };
    if found < *SCHEMA_VERSIONS.start() {
        return Err(ImportError::Older { file: file.to_owned(), found });
    }
    if found > *SCHEMA_VERSIONS.end() {
        return Err(ImportError::Newer { file: file.to_owned(), found });
    }
    let runs = (found >= 5).then_some(WORKFLOW_RUNS);
    match [SESSION, RUNTIME_EVENTS, FEED_EVENTS, ADAPTER_SESSIONS].into_iter().chain(runs).find(|table| !has(table)) {
        Some(missing) => Err(foreign(format!("it has no table {missing}"))),
        None => Ok(found),
    }
}

fn read_rows(
    file: &Path,
    connection: &Connection,
    schema_version: i64,
    tables: &[String],
) -> Result<OldDatabase, ImportError> {
    let mut sessions = Table::read(file, connection, SESSION, "rowid", session)?;
    if sessions.len() != 1 {
        let detail = format!("it has {} sessions, where one is expected", sessions.len());
        return Err(ImportError::Foreign { file: file.to_owned(), detail });
    }
    let mut workflow_runs = Vec::new();
    let mut others = Vec::new();
    for table in tables {
        match table.as_str() {
            SESSION | RUNTIME_EVENTS | FEED_EVENTS | ADAPTER_SESSIONS | SCHEMA_VERSION => {}
            WORKFLOW_RUNS => {
                workflow_runs = Table::read(file, connection, table, "started_at, rowid", workflow_run)?;
            }
            table => {
                let other = |row: &Record<'_, '_>| Ok(OtherRow { table: table.to_owned(), row: row.json() });
                others.extend(Table::read(file, connection, table, "1", other)?);
            }
        }
    }
    Ok(OldDatabase {
        file: file.to_owned(),
        schema_version,
        session: sessions.remove(0),
        runtime_events: Table::read(file, connection, RUNTIME_EVENTS, "seq, rowid", runtime_event)?,
        feed_events: Table::read(file, connection, FEED_EVENTS, "seq, rowid", |row| feed_event(file, row))?,
        adapter_sessions: Table::read(file, connection, ADAPTER_SESSIONS, "started_at, rowid", adapter_session)?,
        workflow_runs,
        others,
    })
}

fn session(row: &Record<'_, '_>) -> Result<SessionRow, ImportError> {
    Ok(SessionRow {
        id: row.text("id")?,
        project_dir: row.text("project_dir")?,
        created_at: row.whole("created_at")?,
        updated_at: row.whole("updated_at")?,
        label: row.optional_text("label")?,
        event_count: row.optional_whole("event_count")?,
    })
}

fn runtime_event(row: &Record<'_, '_>) -> Result<RuntimeRow, ImportError> {
    Ok(RuntimeRow {
        id: row.text("id")?,
        seq: row.whole("seq")?,
        timestamp: row.whole("timestamp")?,
        hook_name: row.text("hook_name")?,
        // An empty id is the same as none.
        adapter_session_id: row.optional_text("adapter_session_id")?.filter(|id| !id.is_empty()),
        payload: row.text("payload")?,
    })
}

fn feed_event(file: &Path, row: &Record<'_, '_>) -> Result<FeedRow, ImportError> {
    let event_id = row.text("event_id")?;
    let data = row.text("data")?;
    let mut event: serde_json::Value = serde_json::from_str(&readable(&data)).map_err(|error| ImportError::Row {
        file: file.to_owned(),
        table: FEED_EVENTS.to_owned(),
        row: event_id.clone(),
        cause: format!("column data is no JSON: {error}"),
    })?;
    if let Some(fields) = event.as_object_mut() {
        // The harness's own words are most of it, and stand in the runtime event too.
        fields.remove("raw");
    }
    Ok(FeedRow {
        event_id,
        runtime_event_id: row.optional_text("runtime_event_id")?,
        seq: row.whole("seq")?,
        kind: row.text("kind")?,
        timestamp: row.whole("timestamp")?,
        data,
        event,
    })
}

fn adapter_session(row: &Record<'_, '_>) -> Result<AdapterSessionRow, ImportError> {
    // A figure below 0 is unknown, as everywhere.
    let figure = |column: &str| row.optional_whole(column).map(|figure| figure.and_then(|it| u64::try_from(it).ok()));
    Ok(AdapterSessionRow {
        session_id: row.text("session_id")?,
        started_at: row.whole("started_at")?,
        ended_at: row.optional_whole("ended_at")?,
        model: row.optional_text("model")?,
        source: row.optional_text("source")?,
        tokens: [
            figure("tokens_input")?,
            figure("tokens_output")?,
            figure("tokens_cache_read")?,
            figure("tokens_cache_write")?,
            figure("tokens_context_size")?,
            figure("tokens_context_window_size")?,
        ],
        run_id: row.optional_text("run_id")?,
        row: row.json(),
    })
}

fn workflow_run(row: &Record<'_, '_>) -> Result<WorkflowRunRow, ImportError> {
    Ok(WorkflowRunRow {
        id: row.text("id")?,
        workflow_name: row.optional_text("workflow_name")?,
        started_at: row.whole("started_at")?,
        ended_at: row.optional_whole("ended_at")?,
        iteration: row.whole("iteration")?,
        max_iterations: row.whole("max_iterations")?,
        status: row.text("status")?,
        stop_reason: row.optional_text("stop_reason")?,
        tracker_path: row.optional_text("tracker_path")?,
        row: row.json(),
    })
}
