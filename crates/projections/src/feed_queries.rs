//! Queries of the feed: pages of a timeline both ways, what was found in it, its runs, actors and plan.

use runledger_events::{Fields, Position, RunId, SessionId, readable};
use runledger_store::{EventFilter, LogReader, Read};
use rusqlite::types::Value;
use serde_json::value::RawValue;

use crate::error::ProjectionError;
use crate::queries::Queries;
use crate::views::feed::{self, AgentRun, FeedActor, FeedEvent, rows, tables};
use crate::views::feed_search;

/// Which entries of the feed.
#[derive(Debug, Clone, Default)]
pub struct FeedFilter {
    /// Those of this ledger session alone.
    pub session: Option<SessionId>,
    /// Those of this workflow run alone.
    pub run: Option<RunId>,
    /// Those in which each of these words occurs, or begins one that does.
    pub search: Option<String>,
}

/// A place in the feed, between entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedCursor {
    first_position: Position,
    session_id: SessionId,
    seq: u64,
}

impl FeedEvent {
    /// The place right behind it, and before it.
    pub fn cursor(&self) -> FeedCursor {
        FeedCursor { first_position: self.first_position, session_id: self.ledger_session_id.clone(), seq: self.seq }
    }
}

/// Which page of the entries that fit; always in the order of the feed.
#[derive(Debug, Clone)]
pub enum FeedPage {
    /// The first ones.
    First,
    /// Those behind this one.
    After(FeedCursor),
    /// Those right before this one.
    Before(FeedCursor),
    /// The last ones.
    Last,
}

/// Who takes part in a session, what it runs and what it plans.
#[derive(Debug, Clone)]
pub struct SessionFeed {
    /// Its runs (RunLifecycle's), in order.
    pub runs: Vec<AgentRun>,
    /// Its actors, in the order of their appearance.
    pub actors: Vec<FeedActor>,
    /// The items of its plan, JSON objects as they were told.
    pub plan: Vec<Box<RawValue>>,
}

impl Queries {
    /// A page of the feed: at most `limit` entries, in order.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn feed(&self, filter: &FeedFilter, page: &FeedPage, limit: usize) -> Result<Vec<FeedEvent>, ProjectionError> {
        let failed = |source: rusqlite::Error| self.failed(feed::NAME, &source);
        let mut connection = self.connection()?;
        let snapshot = connection.transaction().map_err(failed)?;
        let mut parameters: Vec<Value> = Vec::new();
        let mut conditions: Vec<String> = Vec::new();
        if let Some(session) = &filter.session {
            parameters.push(Value::Text(session.to_string()));
            conditions.push(format!("session_id = ?{}", parameters.len()));
        }
        if let Some(run) = &filter.run {
            parameters.push(Value::Text(run.to_string()));
            conditions.push(format!("workflow_run_id = ?{}", parameters.len()));
        }
        if let Some(text) = filter.search.as_deref() {
            let query = feed_search::query(text);
            if query.is_empty() {
                return Ok(Vec::new());
            }
            parameters.push(Value::Text(query));
            match feed_search::condition(&snapshot, parameters.len()).map_err(failed)? {
                Some(condition) => conditions.push(condition),
                None => return Err(self.not_built(feed_search::NAME)),
            }
        }
        // The entries of one session are in the order of their numbers, which is that of their positions too.
        let (order, place): (&[&str], fn(&FeedCursor) -> Vec<Value>) = if filter.session.is_some() {
            (&["seq"], |cursor| vec![seq(cursor)])
        } else {
            (&["first_position", "session_id", "seq"], |cursor| {
                vec![position(cursor), Value::Text(cursor.session_id.to_string()), seq(cursor)]
            })
        };
        let (is_backward, sign, cursor) = match page {
            FeedPage::First => (false, ">", None),
            FeedPage::After(cursor) => (false, ">", Some(cursor)),
            FeedPage::Before(cursor) => (true, "<", Some(cursor)),
            FeedPage::Last => (true, "<", None),
        };
        if let Some(cursor) = cursor {
            let first = parameters.len() + 1;
            parameters.extend(place(cursor));
            let marks: Vec<String> = (first..=parameters.len()).map(|mark| format!("?{mark}")).collect();
            conditions.push(format!("({}) {sign} ({})", order.join(", "), marks.join(", ")));
        }
        let mut clause = String::new();
        if !conditions.is_empty() {
            clause = format!("WHERE {} ", conditions.join(" AND "));
        }
        let direction = if is_backward { " DESC" } else { "" };
        let order: Vec<String> = order.iter().map(|column| format!("{column}{direction}")).collect();
        parameters.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        clause.push_str(&format!("ORDER BY {} LIMIT ?{}", order.join(", "), parameters.len()));
        let mut events = rows::select(&snapshot, &clause, rusqlite::params_from_iter(parameters)).map_err(failed)?;
        if is_backward {
            events.reverse();
        }
        Ok(events)
    }

    /// Runs, actors and plan of a session.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn session_feed(&self, session: &SessionId) -> Result<SessionFeed, ProjectionError> {
        let failed = |source: rusqlite::Error| self.failed(feed::NAME, &source);
        let mut connection = self.connection()?;
        let snapshot = connection.transaction().map_err(failed)?;
        let item = |json| {
            RawValue::from_string(json)
                .map_err(|error| ProjectionError::Row { projection: feed::NAME, detail: error.to_string() })
        };
        let plan = tables::select_plan(&snapshot, session).map_err(failed)?.into_iter().map(item);
        Ok(SessionFeed {
            runs: tables::select_runs(&snapshot, session).map_err(failed)?,
            actors: tables::select_actors(&snapshot, session).map_err(failed)?,
            plan: plan.collect::<Result<_, _>>()?,
        })
    }

    /// The events of the log that tell again what an entry shows, beside the one in whose words it is shown.
    ///
    /// # Errors
    /// [`ProjectionError`] when the read model cannot be read.
    pub fn retellings(&self, event: &FeedEvent) -> Result<Vec<Position>, ProjectionError> {
        tables::select_retellings(&*self.connection()?, &event.ledger_session_id, event.seq)
            .map_err(|source| self.failed(feed::NAME, &source))
    }
}

impl FeedEvent {
    /// Reads the harness's own words of the event at `position` out of the log, into `raw`.
    ///
    /// None where the event has no payload, or its content was erased.
    ///
    /// # Errors
    /// [`ProjectionError`] when the log cannot be read.
    pub fn read_raw(&mut self, log: &LogReader) -> Result<(), ProjectionError> {
        let before = Position(self.position.0.saturating_sub(1));
        let batch = log.read(&EventFilter::default(), before, self.position, 1, Read::All)?;
        let json = batch.events.first().and_then(|event| event.content.json());
        let json = json.map(readable).unwrap_or_default();
        let payload = Fields::parse(&json).ok().and_then(|fields| fields.raw_or_null("payload").map(str::to_owned));
        self.raw = payload.and_then(|payload| RawValue::from_string(payload).ok());
        Ok(())
    }
}

fn seq(cursor: &FeedCursor) -> Value {
    Value::Integer(i64::try_from(cursor.seq).unwrap_or(i64::MAX))
}

fn position(cursor: &FeedCursor) -> Value {
    Value::Integer(i64::try_from(cursor.first_position.0).unwrap_or(i64::MAX))
}
