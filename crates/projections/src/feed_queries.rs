//! Queries of the feed: pages of a timeline both ways, what was found in it, its runs, actors and plan.

use std::fmt;
use std::str::FromStr;

use runledger_events::{Fields, Position, RunId, SessionId, readable};
use runledger_store::{EventFilter, LogReader, Read};
use rusqlite::types::Value;
use serde_json::value::RawValue;

use crate::error::ProjectionError;
use crate::queries::Queries;
use crate::views::feed::{self, AgentRun, FeedActor, FeedEvent, FeedLevel, rows, tables};
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
    /// Those of this kind, or of this family of kinds: `tool` takes `tool.pre`, `tool.post`, …
    pub kind: Option<String>,
    /// Those of this level alone.
    pub level: Option<FeedLevel>,
}

/// A place in the feed, between entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedCursor {
    /// Of the entry that it is at.
    entry: u64,
    seq: u64,
    first_position: Position,
    /// The generation of the feed that counted them so: a rebuild may count otherwise, where something was erased.
    generation: i64,
}

/// A text is no place in the feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no place in the feed; an entry's cursor is")]
pub struct FeedCursorError;

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.generation, self.entry, self.seq, self.first_position)
    }
}

impl FromStr for FeedCursor {
    type Err = FeedCursorError;

    fn from_str(text: &str) -> Result<Self, FeedCursorError> {
        let numbers: Result<Vec<u64>, _> = text.split('.').map(str::parse).collect();
        let Ok(&[generation, entry, seq, first_position]) = numbers.as_deref() else {
            return Err(FeedCursorError);
        };
        let generation = i64::try_from(generation).map_err(|_| FeedCursorError)?;
        Ok(Self { entry, seq, first_position: Position(first_position), generation })
    }
}

impl FeedEvent {
    /// The place right behind it, and before it.
    pub fn cursor(&self) -> FeedCursor {
        FeedCursor {
            entry: self.entry,
            seq: self.seq,
            first_position: self.first_position,
            generation: self.generation,
        }
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
        let mut clause = Clause::default();
        if let Some(session) = &filter.session {
            clause.equals("session_id", session.to_string());
        }
        if let Some(run) = &filter.run {
            clause.equals("workflow_run_id", run.to_string());
        }
        if let Some(kind) = &filter.kind {
            let (kind, family) = (clause.mark(Value::Text(kind.clone())), clause.mark(Value::Text(format!("{kind}."))));
            clause.conditions.push(format!("(kind = ?{kind} OR substr(kind, 1, length(?{family})) = ?{family})"));
        }
        if let Some(level) = filter.level {
            clause.equals("level", level.as_str().to_owned());
        }
        if let Some(text) = filter.search.as_deref() {
            let query = feed_search::query(text);
            if query.is_empty() {
                return Ok(Vec::new());
            }
            let mark = clause.mark(Value::Text(query));
            match feed_search::condition(&snapshot, mark).map_err(failed)? {
                Some(condition) => clause.conditions.push(condition),
                None => return Err(self.not_built(feed_search::NAME)),
            }
        }
        let generation = self.checkpoint(&snapshot, feed::NAME)?.map_or(0, |checkpoint| checkpoint.generation);
        let place = |cursor: &FeedCursor, is_behind| -> Result<FeedCursor, ProjectionError> {
            if cursor.generation == generation {
                return Ok(cursor.clone());
            }
            rows::select_place(&snapshot, filter.session.as_ref(), cursor.first_position, is_behind)
                .map(|(entry, seq)| FeedCursor { entry, seq, ..cursor.clone() })
                .map_err(failed)
        };
        let page = &match page {
            FeedPage::After(cursor) => FeedPage::After(place(cursor, true)?),
            FeedPage::Before(cursor) => FeedPage::Before(place(cursor, false)?),
            page => page.clone(),
        };
        let is_backward = matches!(page, FeedPage::Before(_) | FeedPage::Last);
        let sql = clause.of_page(page, filter.session.is_some(), limit);
        let parameters = rusqlite::params_from_iter(clause.parameters);
        let mut events = rows::select(&snapshot, &sql, parameters).map_err(failed)?;
        if is_backward {
            events.reverse();
        }
        events.iter_mut().for_each(|event| event.generation = generation);
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

/// What a query of the feed asks for, as it is put together.
#[derive(Default)]
struct Clause {
    conditions: Vec<String>,
    parameters: Vec<Value>,
}

impl Clause {
    /// The number of the mark that stands for a value.
    fn mark(&mut self, value: Value) -> usize {
        self.parameters.push(value);
        self.parameters.len()
    }

    fn equals(&mut self, column: &str, text: String) {
        let mark = self.mark(Value::Text(text));
        self.conditions.push(format!("{column} = ?{mark}"));
    }

    /// The SQL behind the table's name, for one page.
    fn of_page(&mut self, page: &FeedPage, is_of_session: bool, limit: usize) -> String {
        // Those of one session are in the order of their numbers in it too, and found by them.
        let order = if is_of_session { "seq" } else { "entry" };
        let place = |cursor: &FeedCursor| if is_of_session { cursor.seq } else { cursor.entry };
        let (direction, after) = match page {
            FeedPage::First => ("", None),
            FeedPage::After(cursor) => ("", Some((">", place(cursor)))),
            FeedPage::Before(cursor) => (" DESC", Some(("<", place(cursor)))),
            FeedPage::Last => (" DESC", None),
        };
        if let Some((sign, place)) = after {
            let mark = self.mark(integer(place));
            self.conditions.push(format!("{order} {sign} ?{mark}"));
        }
        let mut conditions = String::new();
        if !self.conditions.is_empty() {
            conditions = format!("WHERE {} ", self.conditions.join(" AND "));
        }
        let limit = self.mark(integer(u64::try_from(limit).unwrap_or(u64::MAX)));
        format!("{conditions}ORDER BY {order}{direction} LIMIT ?{limit}")
    }
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
