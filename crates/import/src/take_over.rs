//! The events of an old database into the log: all or none, and once.
//!
//! The ledger session has the old session's id. Where the ledger has another session of that id (one with another
//! fingerprint, or with other events under the same ids), it gets `~` and its fingerprint behind it, and the same
//! database comes to the same place again.

use std::collections::HashMap;

use runledger_events::{
    EventId, EventKind, Position, RunId, RunStatus, SessionId, StreamName, StreamVersion, TimestampMs, WorkflowState,
};
use runledger_store::{AppendError, EventFilter, EventLog, LogReader, Read};

use crate::convert::convert;
use crate::database::OldDatabase;
use crate::error::ImportError;
use crate::notes;
use crate::rows::WorkflowRunRow;
use crate::runs::Known;

/// What became of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    /// The ledger session that its events are in.
    pub session_id: SessionId,
    /// Events made of its rows.
    pub events: u64,
    /// Those that were appended.
    pub appended: u64,
    /// Those that were there already.
    pub duplicates: u64,
}

/// Appends the events of `database` to `log`, in one transaction.
///
/// Shape: all of its events, each once; those that are there already are counted and not appended again. Units: counts of
/// events. Afterwards the log has the session's events in their order of time, and each run as its row says.
///
/// # Errors
/// [`ImportError`]: nothing was appended. Where `is_of_the_ledger` says so, the log failed and the outcome is unknown;
/// importing again is safe.
///
/// Source: docs/decisions/0012-import.md
pub fn take_over(log: &dyn EventLog, database: &OldDatabase) -> Result<TakenOver, ImportError> {
    let reader = log.reader()?;
    let named = |id: String| {
        SessionId::new(id).map_err(|error| ImportError::Row {
            file: database.file.clone(),
            table: "session".to_owned(),
            row: database.session.id.clone(),
            cause: error.to_string(),
        })
    };
    let own = named(database.session.id.clone())?;
    let apart = named(format!("{}~{}", database.session.id, notes::session_fingerprint(database)))?;
    if !is_in(&reader, &apart, database)? && !is_taken(&reader, &own, database)? {
        match append(log, &reader, database, &own) {
            Err(ImportError::Conflict { source: AppendError::IdTaken { stream, .. }, .. })
                if stream == StreamName::session(&own) => {}
            result => return result,
        }
    }
    append(log, &reader, database, &apart)
}

/// Whether this session was imported to this place.
fn is_in(reader: &LogReader, session: &SessionId, database: &OldDatabase) -> Result<bool, ImportError> {
    match EventId::new(notes::session_event_id(database)) {
        Ok(id) => Ok(reader.position_of(&StreamName::session(session), &id)?.is_some()),
        Err(_) => Ok(false),
    }
}

/// Whether another session was imported to this place.
fn is_taken(reader: &LogReader, session: &SessionId, database: &OldDatabase) -> Result<bool, ImportError> {
    if is_in(reader, session, database)? {
        return Ok(false);
    }
    let kinds = Some(vec![EventKind::parse(notes::SESSION_KIND)]);
    let filter = EventFilter { stream: Some(StreamName::session(session)), kinds, ..EventFilter::default() };
    let others = reader.read(&filter, Position::START, reader.head()?.position, 1, Read::Facts)?;
    Ok(!others.events.is_empty())
}

fn append(
    log: &dyn EventLog,
    reader: &LogReader,
    database: &OldDatabase,
    session: &SessionId,
) -> Result<TakenOver, ImportError> {
    let known = known_runs(reader, database, session)?;
    let there: u64 = known.values().map(|known| known.version.0).sum();
    let appends = convert(database, session, &known)?;
    let receipts = log.append_all(appends).map_err(|source| match source {
        AppendError::Storage(_) => ImportError::Append(source),
        AppendError::Refused { .. } => ImportError::Refused { file: database.file.clone(), source },
        source => ImportError::Conflict { file: database.file.clone(), source },
    })?;
    let duplicates = receipts.iter().filter(|receipt| receipt.is_duplicate).count() as u64 + there;
    let events = receipts.len() as u64 + there;
    Ok(TakenOver { session_id: session.clone(), events, appended: events - duplicates, duplicates })
}

/// The runs that the ledger has already, and how far.
fn known_runs(
    reader: &LogReader,
    database: &OldDatabase,
    session: &SessionId,
) -> Result<HashMap<RunId, Known>, ImportError> {
    let mut known = HashMap::new();
    for row in &database.workflow_runs {
        let Ok(run_id) = RunId::new(row.id.as_str()) else {
            // Its conversion says what is wrong with it.
            continue;
        };
        let stream = reader.read_stream(&StreamName::run(&run_id), StreamVersion::EMPTY, Read::Facts)?;
        let Some((state, _)) = WorkflowState::fold(&stream) else {
            continue;
        };
        let goes_on_after = match difference(&state, row, session) {
            None => None,
            Some(_) if has_gone_on(&state, row, session) => Some(state.iteration),
            Some(field) => return Err(ImportError::RunDiffers { file: database.file.clone(), run: run_id, field }),
        };
        known.insert(run_id, Known { version: StreamVersion(stream.len() as u64), goes_on_after });
    }
    Ok(known)
}

/// Whether a run that was left when it was imported first is further now.
fn has_gone_on(state: &WorkflowState, row: &WorkflowRunRow, session: &SessionId) -> bool {
    state.status == RunStatus::Interrupted
        && state.owner.is_none()
        && state.session_id == *session
        && state.started_at == TimestampMs(row.started_at)
        && i64::from(state.iteration) <= row.iteration
}

/// What a run that the ledger has already says otherwise than its row.
fn difference(state: &WorkflowState, row: &WorkflowRunRow, session: &SessionId) -> Option<&'static str> {
    let is_left = row.status == RunStatus::Running.as_str();
    let status = if is_left { RunStatus::Interrupted.as_str() } else { row.status.as_str() };
    [
        ("session", state.session_id == *session),
        ("status", state.status.as_str() == status),
        ("iteration", i64::from(state.iteration) == row.iteration),
        ("stop reason", state.stop_reason == row.stop_reason || is_left),
        ("start", state.started_at == TimestampMs(row.started_at)),
        ("end", row.ended_at.is_none() || state.ended_at == row.ended_at.map(TimestampMs)),
    ]
    .into_iter()
    .find_map(|(field, is_equal)| (!is_equal).then_some(field))
}
