//! What the mapper remembers of a session beside its state: small values by seam and key, in a table of the projection.
//!
//! Invariant: the table holds what was remembered at the end of the last batch; a batch reads each value once, and writes
//! each that changed once. So a session of 50,000 events is taken up again at the cost of the values that are touched.

use std::collections::{BTreeMap, HashMap};

use rusqlite::OptionalExtension;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::NAME;
use crate::error::ProjectionError;
use crate::projection::Target;
use crate::views::{from_json, sqlite, to_json};

/// The table.
pub(super) const TABLE: &str = "feed_memory";

/// Whose values they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Seam {
    /// Tool calls of the run, by id.
    Tool,
    /// Tool calls of the run that a permission request may be for, by prompt, name and input.
    ToolJoin,
    /// Requests of the run that a decision may be on, by the RuntimeEvent's id.
    Request,
    /// Messages that stream, by item.
    Pending,
    /// Their pieces, by item and number.
    PendingPiece,
    /// The last message of each actor in the run.
    LastMessage,
    /// Summaries of reasoning, by item and index.
    Reasoning,
    /// What subagents were asked to do, by their id.
    Subagent,
    /// Which feed events show which facts.
    Shown,
    /// Which facts were told how often by whom.
    Telling,
    /// Which calls of Codex's output are which calls of its hooks and rollout.
    CallName,
    /// Questions, by their id.
    Relay,
    /// Which feed event shows a question, by the event that it is about.
    RelayAbout,
    /// Workflow runs, by their id.
    Workflow,
    /// The workflow run of an adapter session.
    WorkflowOfAdapter,
}

impl Seam {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::ToolJoin => "tool_join",
            Self::Request => "request",
            Self::Pending => "pending",
            Self::PendingPiece => "pending_piece",
            Self::LastMessage => "last_message",
            Self::Reasoning => "reasoning",
            Self::Subagent => "subagent",
            Self::Shown => "shown",
            Self::Telling => "telling",
            Self::CallName => "call_name",
            Self::Relay => "relay",
            Self::RelayAbout => "relay_about",
            Self::Workflow => "workflow",
            Self::WorkflowOfAdapter => "workflow_of_adapter",
        }
    }
}

/// A value as the batch knows it.
struct Known {
    json: Option<String>,
    is_changed: bool,
}

/// The memory of one session, during one batch.
pub(super) struct Memory<'a> {
    target: Target<'a>,
    session_id: &'a str,
    known: HashMap<(Seam, String), Known>,
    /// Seams that were cleared in this batch: what the table has of them no longer counts.
    cleared: Vec<Seam>,
}

impl<'a> Memory<'a> {
    pub(super) fn new(target: Target<'a>, session_id: &'a str) -> Self {
        Self { target, session_id, known: HashMap::new(), cleared: Vec::new() }
    }

    pub(super) fn get<T: DeserializeOwned>(&mut self, seam: Seam, key: &str) -> Result<Option<T>, ProjectionError> {
        let place = (seam, key.to_owned());
        if !self.known.contains_key(&place) {
            let json = if self.cleared.contains(&seam) { None } else { self.load(seam, key)? };
            self.known.insert(place.clone(), Known { json, is_changed: false });
        }
        let json = self.known.get(&place).and_then(|known| known.json.as_deref());
        json.map(|json| parse(json)).transpose()
    }

    pub(super) fn put<T: Serialize>(&mut self, seam: Seam, key: &str, value: &T) -> Result<(), ProjectionError> {
        let json = Some(to_json(NAME, value)?);
        self.known.insert((seam, key.to_owned()), Known { json, is_changed: true });
        Ok(())
    }

    pub(super) fn remove(&mut self, seam: Seam, key: &str) {
        self.known.insert((seam, key.to_owned()), Known { json: None, is_changed: true });
    }

    /// Everything of a seam, in the order of the keys.
    pub(super) fn all<T: DeserializeOwned>(&mut self, seam: Seam) -> Result<Vec<(String, T)>, ProjectionError> {
        let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
        if !self.cleared.contains(&seam) {
            let sql =
                format!("SELECT key, value FROM {} WHERE session_id = ?1 AND seam = ?2", self.target.table(TABLE));
            let rows = self.target.connection.prepare_cached(&sql).and_then(|mut statement| {
                let rows =
                    statement.query_map((self.session_id, seam.as_str()), |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect::<rusqlite::Result<Vec<(String, String)>>>()
            });
            let rows = rows.map_err(|source| sqlite(&self.target, NAME, &source))?;
            found.extend(rows.into_iter().map(|(key, json)| (key, Some(json))));
        }
        for ((of, key), known) in &self.known {
            if *of == seam {
                found.insert(key.clone(), known.json.clone());
            }
        }
        found.into_iter().filter_map(|(key, json)| json.map(|json| Ok((key, parse(&json)?)))).collect()
    }

    /// Forgets everything of a seam.
    pub(super) fn clear(&mut self, seam: Seam) {
        self.known.retain(|(of, _), _| *of != seam);
        if !self.cleared.contains(&seam) {
            self.cleared.push(seam);
        }
    }

    fn load(&self, seam: Seam, key: &str) -> Result<Option<String>, ProjectionError> {
        let sql =
            format!("SELECT value FROM {} WHERE session_id = ?1 AND seam = ?2 AND key = ?3", self.target.table(TABLE));
        self.target
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                statement.query_row((self.session_id, seam.as_str(), key), |row| row.get(0)).optional()
            })
            .map_err(|source| sqlite(&self.target, NAME, &source))
    }

    /// Writes what changed.
    pub(super) fn flush(&mut self) -> Result<(), ProjectionError> {
        let table = self.target.table(TABLE);
        let connection = self.target.connection;
        let write = || -> rusqlite::Result<()> {
            let clear = format!("DELETE FROM {table} WHERE session_id = ?1 AND seam = ?2");
            for seam in &self.cleared {
                connection.prepare_cached(&clear)?.execute((self.session_id, seam.as_str()))?;
            }
            let put = format!("INSERT OR REPLACE INTO {table} (session_id, seam, key, value) VALUES (?1, ?2, ?3, ?4)");
            let remove = format!("DELETE FROM {table} WHERE session_id = ?1 AND seam = ?2 AND key = ?3");
            for ((seam, key), known) in self.known.iter().filter(|(_, known)| known.is_changed) {
                match &known.json {
                    Some(json) => connection.prepare_cached(&put)?.execute((self.session_id, seam.as_str(), key, json)),
                    None => connection.prepare_cached(&remove)?.execute((self.session_id, seam.as_str(), key)),
                }?;
            }
            Ok(())
        };
        write().map_err(|source| sqlite(&self.target, NAME, &source))?;
        self.known.clear();
        self.cleared.clear();
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, ProjectionError> {
    serde_json::from_str(json).map_err(|error| ProjectionError::Row { projection: NAME, detail: error.to_string() })
}

/// The state of one session, a JSON column.
pub(super) fn load_state<T: DeserializeOwned>(
    target: &Target<'_>,
    session_id: &str,
) -> Result<Option<T>, ProjectionError> {
    let sql = format!("SELECT state FROM {} WHERE session_id = ?1", target.table(SESSIONS));
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row([session_id], |row| from_json(row, 0)).optional())
        .map_err(|source| sqlite(target, NAME, &source))
}

/// The sessions' states.
pub(super) const SESSIONS: &str = "feed_sessions";

/// Writes the state of one session.
pub(super) fn store_state<T: Serialize>(
    target: &Target<'_>,
    session_id: &str,
    state: &T,
) -> Result<(), ProjectionError> {
    let sql = format!("INSERT OR REPLACE INTO {} (session_id, state) VALUES (?1, ?2)", target.table(SESSIONS));
    let json = to_json(NAME, state)?;
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.execute((session_id, json)))
        .map(|_| ())
        .map_err(|source| sqlite(target, NAME, &source))
}
