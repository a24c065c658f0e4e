//! Queries of the feed: pages of a timeline both ways, what was found in it, its runs, actors and plan.

use std::fmt;
use std::str::FromStr;

use runledger_events::{Fields, Position, RunId, SessionId, readable};
use runledger_store::{EventFilter, LogReader, Read};
use serde_json::value::RawValue;

use crate::error::ProjectionError;
use crate::feed_pages::{Asked, Way};
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
        let generation = self.checkpoint(&snapshot, feed::NAME)?.map_or(0, |checkpoint| checkpoint.generation);
        let place = |cursor: &FeedCursor, is_behind| -> Result<FeedCursor, ProjectionError> {
            if cursor.generation == generation {
                return Ok(cursor.clone());
            }
            rows::select_place(&snapshot, filter.session.as_ref(), cursor.first_position, is_behind)
                .map(|(entry, seq)| FeedCursor { entry, seq, ..cursor.clone() })
                .map_err(failed)
        };
        let number = |cursor: FeedCursor| if filter.session.is_some() { cursor.seq } else { cursor.entry };
        let (is_backward, from) = match page {
            FeedPage::First => (false, None),
            FeedPage::After(cursor) => (false, Some(number(place(cursor, true)?))),
            FeedPage::Before(cursor) => (true, Some(number(place(cursor, false)?))),
            FeedPage::Last => (true, None),
        };
        let asked = Asked { filter, is_backward, from, limit, way: Way::default() };
        let mut events = match filter.search.as_deref().map(feed_search::query) {
            None => asked.page(&snapshot).map_err(failed)?,
            Some(words) if words.is_empty() => Vec::new(),
            Some(words) => match feed_search::table(&snapshot).map_err(failed)? {
                Some(table) => asked.page_of_found(&snapshot, &table, words).map_err(failed)?,
                None => return Err(self.not_built(feed_search::NAME)),
            },
        };
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
