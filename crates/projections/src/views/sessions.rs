//! `sessions` and `adapter_sessions`: what belongs together, which harness sessions took part, what they cost.
//!
//! Tokens are counted once: an iteration's end says what its turn cost, so token figures that a harness tells within a
//! workflow run are not added to it; and what the harness's own record tells of the same session stands beside what was
//! told as it happened, of which the larger counts (docs/decisions/0008-tokens-once.md).

use std::collections::{BTreeMap, HashMap};

use runledger_events::{
    AdapterSessionId, EventKind, KindFacts, Position, RecordedEvent, RunId, SessionId, Source, TimestampMs, Tokens,
    WorkflowIteration, WorkflowState,
};
use rusqlite::{Connection, OptionalExtension, Row};

use super::kept_rows::KeptRows;
use super::{TOKEN_COLUMNS, damaged, figure, from_json, sqlite, to_json, tokens};
use crate::error::ProjectionError;
use crate::objects::{AdapterSession, Session};
use crate::projection::{Fold, Kinds, Projection, Table, Target};

/// The read model.
pub(crate) struct Sessions;

pub(crate) const NAME: &str = "sessions";
const ADAPTER_SESSIONS: &str = "adapter_sessions";

impl Projection for Sessions {
    fn name(&self) -> &'static str {
        NAME
    }

    /// 2: figures of the harness's own record stand apart.
    fn version(&self) -> u32 {
        2
    }

    fn kinds(&self) -> Kinds {
        Kinds::All
    }

    fn tables(&self) -> &'static [Table] {
        &[
            Table { name: NAME, key: &["session_id"] },
            Table { name: ADAPTER_SESSIONS, key: &["session_id", "adapter_session_id"] },
        ]
    }

    fn schema(&self) -> &'static str {
        include_str!("../../../../migrations/projections/sessions.sql")
    }

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(SessionsFold::default())
    }

    fn reset_run(&self, _target: &Target<'_>, _run_id: &str) -> Result<bool, ProjectionError> {
        Ok(false)
    }
}

/// Sessions under way, and the adapter sessions in them.
#[derive(Default)]
struct SessionsFold {
    sessions: KeptRows<SessionId, SessionRow>,
    adapters: KeptRows<(SessionId, AdapterSessionId), AdapterRow>,
}

/// Bytes of either in memory, about.
const SESSION_BYTES: usize = 1024;

impl Fold for SessionsFold {
    fn take(&mut self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
        for event in events {
            let Some(session_id) = &event.metadata.session_id else {
                continue;
            };
            let session = self.sessions.change(session_id, || load_session(target, session_id).map_err(failed))?;
            session.get_or_insert_with(|| SessionRow::first(session_id, event)).take(event);
            let Some(adapter_id) = adapter_session_of(event) else {
                continue;
            };
            let key = (session_id.clone(), adapter_id.clone());
            let adapter =
                self.adapters.change(&key, || load_adapter(target, session_id, adapter_id).map_err(failed))?;
            take(adapter.get_or_insert_with(|| first_adapter(adapter_id, event)), event);
        }
        Ok(())
    }

    fn flush(&mut self, target: &Target<'_>, mut rows: usize) -> Result<bool, ProjectionError> {
        let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
        let sessions = self.sessions.flush(&mut rows, |_, row| store_session(target, row).map_err(failed))?;
        let adapters =
            self.adapters.flush(&mut rows, |(session, _), row| store_adapter(target, session, row).map_err(failed))?;
        Ok(sessions && adapters)
    }

    fn kept_bytes(&self) -> usize {
        (self.sessions.len() + self.adapters.len()) * SESSION_BYTES
    }
}

/// A session without its adapter sessions.
struct SessionRow {
    id: SessionId,
    first_at: TimestampMs,
    last_at: TimestampMs,
    events: u64,
    runs: u64,
    loose_tokens: Tokens,
    first_position: Position,
    last_position: Position,
}

impl SessionRow {
    fn first(id: &SessionId, event: &RecordedEvent) -> Self {
        Self {
            id: id.clone(),
            first_at: event.occurred_at,
            last_at: event.occurred_at,
            events: 0,
            runs: 0,
            loose_tokens: Tokens::default(),
            first_position: event.position,
            last_position: event.position,
        }
    }

    fn take(&mut self, event: &RecordedEvent) {
        self.events += 1;
        self.first_at = self.first_at.min(event.occurred_at);
        self.last_at = self.last_at.max(event.occurred_at);
        self.last_position = event.position;
        match &event.facts.data {
            KindFacts::WorkflowStart(_) if WorkflowState::initial(event).is_some() => self.runs += 1,
            KindFacts::WorkflowIteration(WorkflowIteration::End(end))
                if end.adapter_session_id.is_none() && event.stream.run_id().is_some() =>
            {
                self.loose_tokens = self.loose_tokens.followed_by(end.tokens);
            }
            _ => {}
        }
    }
}

/// The adapter session that an event is of, or tells of.
fn adapter_session_of(event: &RecordedEvent) -> Option<&AdapterSessionId> {
    match &event.facts.data {
        KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => end.adapter_session_id.as_ref(),
        KindFacts::WorkflowIteration(WorkflowIteration::Session(session)) => Some(&session.adapter_session_id),
        _ => event.metadata.adapter_session_id.as_ref(),
    }
}

/// An adapter session with what its record tells of tokens; `session.tokens` are those told as it happened.
struct AdapterRow {
    session: AdapterSession,
    /// By thread: a subagent's record tells sums of its own.
    recorded: BTreeMap<String, Tokens>,
}

impl AdapterRow {
    /// The adapter session as queries answer it: of the two tellings the one that tells more counts.
    fn shown(self) -> AdapterSession {
        let recorded = self.recorded.values().fold(Tokens::default(), |sum, tokens| sum.followed_by(*tokens));
        let told = |tokens: &Tokens| tokens.total.unwrap_or_default();
        let tokens = if told(&recorded) > told(&self.session.tokens) { recorded } else { self.session.tokens };
        AdapterSession { tokens, ..self.session }
    }
}

fn first_adapter(id: &AdapterSessionId, event: &RecordedEvent) -> AdapterRow {
    let session = AdapterSession {
        id: id.clone(),
        run_id: None,
        started_at: None,
        ended_at: None,
        model: None,
        source: None,
        end_reason: None,
        events: 0,
        tokens: Tokens::default(),
        first_position: event.position,
        last_position: event.position,
    };
    AdapterRow { session, recorded: BTreeMap::new() }
}

/// The figures before, with those that a harness tells now.
fn with_usage(before: Tokens, usage: Tokens, delta: Tokens) -> Tokens {
    if !usage.has_sums() {
        return before.followed_by(delta);
    }
    // Sums of the adapter session so far: they take the place of those before.
    Tokens {
        context_size: usage.context_size.or(before.context_size),
        context_window_size: usage.context_window_size.or(before.context_window_size),
        ..usage
    }
}

fn take(row: &mut AdapterRow, event: &RecordedEvent) {
    let adapter = &mut row.session;
    adapter.events += 1;
    adapter.last_position = event.position;
    if let Some(run_id) = &event.metadata.run_id {
        adapter.run_id = Some(run_id.clone());
    }
    match &event.facts.data {
        KindFacts::SessionStart { source, model, .. } if event.kind == EventKind::SessionStart => {
            adapter.started_at.get_or_insert(event.occurred_at);
            // Taken up again: it has not ended after all.
            adapter.ended_at = None;
            adapter.end_reason = None;
            adapter.source = adapter.source.take().or_else(|| source.clone());
            adapter.model = model.clone().or(adapter.model.take());
        }
        KindFacts::SessionEnd { reason } => {
            adapter.ended_at = Some(event.occurred_at);
            adapter.end_reason = reason.clone();
        }
        KindFacts::WorkflowIteration(WorkflowIteration::End(end)) if event.stream.run_id().is_some() => {
            adapter.tokens = adapter.tokens.followed_by(end.tokens);
        }
        KindFacts::Usage { usage, delta, thread_id } if Source::of(&event.id) == Source::Transcript => {
            let thread = row.recorded.entry(thread_id.clone().unwrap_or_default()).or_default();
            *thread = with_usage(*thread, *usage, *delta);
        }
        KindFacts::Usage { usage, delta, .. } if event.metadata.run_id.is_none() => {
            adapter.tokens = with_usage(adapter.tokens, *usage, *delta);
        }
        _ => {}
    }
}

const SESSION_COLUMNS: &str = "session_id, first_at, last_at, events, runs, first_position, last_position";
const ADAPTER_COLUMNS: &str = "session_id, adapter_session_id, run_id, started_at, ended_at, model, source, \
                               end_reason, events, first_position, last_position, recorded_tokens";

fn load_session(target: &Target<'_>, id: &SessionId) -> rusqlite::Result<Option<SessionRow>> {
    let sql = format!("SELECT {SESSION_COLUMNS}, {TOKEN_COLUMNS} FROM {} WHERE session_id = ?1", target.table(NAME));
    target.connection.prepare_cached(&sql)?.query_row([id.as_str()], session_row).optional()
}

fn load_adapter(
    target: &Target<'_>,
    session_id: &SessionId,
    id: &AdapterSessionId,
) -> rusqlite::Result<Option<AdapterRow>> {
    let sql = format!(
        "SELECT {ADAPTER_COLUMNS}, {TOKEN_COLUMNS} FROM {} WHERE session_id = ?1 AND adapter_session_id = ?2",
        target.table(ADAPTER_SESSIONS)
    );
    target.connection.prepare_cached(&sql)?.query_row((session_id.as_str(), id.as_str()), adapter_row).optional()
}

fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: SessionId::new(row.get::<_, String>(0)?).map_err(|error| damaged(0, error))?,
        first_at: TimestampMs(row.get(1)?),
        last_at: TimestampMs(row.get(2)?),
        events: row.get(3)?,
        runs: row.get(4)?,
        first_position: Position(row.get(5)?),
        last_position: Position(row.get(6)?),
        loose_tokens: tokens(row, 7)?,
    })
}

fn adapter_row(row: &Row<'_>) -> rusqlite::Result<AdapterRow> {
    let session = AdapterSession {
        id: AdapterSessionId::new(row.get::<_, String>(1)?).map_err(|error| damaged(1, error))?,
        run_id: row.get::<_, Option<String>>(2)?.map(RunId::new).transpose().map_err(|error| damaged(2, error))?,
        started_at: row.get::<_, Option<i64>>(3)?.map(TimestampMs),
        ended_at: row.get::<_, Option<i64>>(4)?.map(TimestampMs),
        model: row.get(5)?,
        source: row.get(6)?,
        end_reason: row.get(7)?,
        events: row.get(8)?,
        first_position: Position(row.get(9)?),
        last_position: Position(row.get(10)?),
        tokens: tokens(row, 12)?,
    };
    Ok(AdapterRow { session, recorded: from_json(row, 11)? })
}

fn store_session(target: &Target<'_>, row: &SessionRow) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT OR REPLACE INTO {} ({SESSION_COLUMNS}, {TOKEN_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        target.table(NAME)
    );
    let tokens = &row.loose_tokens;
    target.connection.prepare_cached(&sql)?.execute(rusqlite::params![
        row.id.as_str(),
        row.first_at.0,
        row.last_at.0,
        row.events,
        row.runs,
        row.first_position.0,
        row.last_position.0,
        figure(tokens.input),
        figure(tokens.output),
        figure(tokens.cache_read),
        figure(tokens.cache_write),
        figure(tokens.total),
        figure(tokens.context_size),
        figure(tokens.context_window_size),
    ])?;
    Ok(())
}

fn store_adapter(target: &Target<'_>, session_id: &SessionId, row: &AdapterRow) -> rusqlite::Result<()> {
    let recorded = to_json(NAME, &row.recorded).map_err(|error| damaged(11, error))?;
    let row = &row.session;
    let sql = format!(
        "INSERT OR REPLACE INTO {} ({ADAPTER_COLUMNS}, {TOKEN_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        target.table(ADAPTER_SESSIONS)
    );
    let tokens = &row.tokens;
    target.connection.prepare_cached(&sql)?.execute(rusqlite::params![
        session_id.as_str(),
        row.id.as_str(),
        row.run_id.as_ref().map(RunId::as_str),
        row.started_at.map(|at| at.0),
        row.ended_at.map(|at| at.0),
        row.model,
        row.source,
        row.end_reason,
        row.events,
        row.first_position.0,
        row.last_position.0,
        recorded,
        figure(tokens.input),
        figure(tokens.output),
        figure(tokens.cache_read),
        figure(tokens.cache_write),
        figure(tokens.total),
        figure(tokens.context_size),
        figure(tokens.context_window_size),
    ])?;
    Ok(())
}

/// The ledger session that told of an adapter session first.
pub(crate) fn select_home(connection: &Connection, id: &AdapterSessionId) -> rusqlite::Result<Option<SessionId>> {
    let sql = format!(
        "SELECT session_id FROM {ADAPTER_SESSIONS} WHERE adapter_session_id = ?1 ORDER BY first_position LIMIT 1"
    );
    let found: Option<String> =
        connection.prepare_cached(&sql)?.query_row([id.as_str()], |row| row.get(0)).optional()?;
    found.map(|id| SessionId::new(id).map_err(|error| damaged(0, error))).transpose()
}

/// The sessions with the latest events, at most so many, whose last event is before a position.
pub(crate) fn select_latest(
    connection: &Connection,
    before: Option<Position>,
    limit: usize,
) -> rusqlite::Result<Vec<SessionId>> {
    let bound = |number: Option<u64>| number.and_then(|number| i64::try_from(number).ok()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&format!(
            "SELECT session_id FROM {NAME} WHERE last_position < ?1 ORDER BY last_position DESC LIMIT ?2"
        ))?
        .query_map((bound(before.map(|before| before.0)), bound(u64::try_from(limit).ok())), |row| {
            SessionId::new(row.get::<_, String>(0)?).map_err(|error| damaged(0, error))
        })?
        .collect()
}

/// One session, or all of them, with their adapter sessions, read from the views, the latest first.
pub(crate) fn select(connection: &Connection, id: Option<&SessionId>) -> rusqlite::Result<Vec<Session>> {
    let mut adapters: HashMap<String, Vec<AdapterSession>> = HashMap::new();
    let (condition, parameters) =
        id.map_or(("", Vec::new()), |id| ("WHERE session_id = ?1", vec![id.as_str().to_owned()]));
    let parameters = || rusqlite::params_from_iter(&parameters);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {ADAPTER_COLUMNS}, {TOKEN_COLUMNS} FROM {ADAPTER_SESSIONS} {condition}
         ORDER BY first_position, adapter_session_id"
    ))?;
    let mut rows = statement.query(parameters())?;
    while let Some(row) = rows.next()? {
        adapters.entry(row.get(0)?).or_default().push(adapter_row(row)?.shown());
    }
    connection
        .prepare_cached(&format!(
            "SELECT {SESSION_COLUMNS}, {TOKEN_COLUMNS} FROM {NAME} {condition} ORDER BY last_position DESC"
        ))?
        .query_map(parameters(), |row| {
            let row = session_row(row)?;
            let adapter_sessions = adapters.remove(row.id.as_str()).unwrap_or_default();
            let tokens = adapter_sessions.iter().fold(row.loose_tokens, |sum, adapter| sum.followed_by(adapter.tokens));
            Ok(Session {
                id: row.id,
                first_at: row.first_at,
                last_at: row.last_at,
                events: row.events,
                runs: row.runs,
                tokens,
                first_position: row.first_position,
                last_position: row.last_position,
                adapter_sessions,
            })
        })?
        .collect()
}
