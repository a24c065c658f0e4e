//! What the mapper remembers of a session beside its state, in tables of the projection: small values by seam and key, and
//! which facts were told (`tellings`).
//!
//! Invariant: with what is not written yet, the table holds all that is remembered. A value is read once, and written once
//! for all that changed it since the last time. So a session of 50,000 events is taken up again at the cost of the values
//! that are touched and of the chunks of its latest facts, and of one that began in this fold nothing is looked for.

use std::collections::{BTreeMap, HashMap};

use rusqlite::OptionalExtension;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::NAME;
use super::retelling::{FactKey, Told};
use super::tellings::Tellings;
use crate::error::ProjectionError;
use crate::projection::Target;
use crate::views::{from_json, sqlite, to_json};

/// The table of the values.
pub(super) const TABLE: &str = "feed_memory";

/// Whose values they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// What each source told last of the plan, and who tells of usage.
    LastTold,
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

/// How many seams there are.
const SEAMS: usize = 15;

/// Their names in the table, in the order of the variants.
const SEAM_NAMES: [&str; SEAMS] = [
    "tool",
    "tool_join",
    "request",
    "pending",
    "pending_piece",
    "last_message",
    "reasoning",
    "subagent",
    "shown",
    "last_told",
    "call_name",
    "relay",
    "relay_about",
    "workflow",
    "workflow_of_adapter",
];

impl Seam {
    fn as_str(self) -> &'static str {
        SEAM_NAMES[self as usize]
    }
}

/// Bytes of a value in memory, beside its key and its text, about.
const VALUE_BYTES: usize = 96;

/// A value as the fold knows it.
#[derive(Default)]
struct Known {
    json: Option<String>,
    is_changed: bool,
    /// Whether the table has it, as it is or as it was.
    is_written: bool,
}

/// What is known of one seam.
#[derive(Default)]
struct SeamMemory {
    known: HashMap<String, Known>,
    /// Keys of values that are not written as they are now.
    changed: Vec<String>,
    /// Whether nothing is remembered beside what is known.
    is_whole: bool,
    /// Whether the table may have values of it.
    is_written: bool,
    /// Whether those in the table no longer count.
    is_cleared: bool,
    bytes: usize,
}

/// The memory of one session, as far as the fold knows it.
pub(super) struct Remembered {
    session_key: i64,
    seams: [SeamMemory; SEAMS],
    tellings: Tellings,
}

impl Remembered {
    /// That of a session; a new one remembers nothing.
    pub(super) fn new(session_key: i64, is_new: bool) -> Self {
        let seam = || SeamMemory { is_whole: is_new, is_written: !is_new, ..SeamMemory::default() };
        Self { session_key, seams: std::array::from_fn(|_| seam()), tellings: Tellings::new(session_key, is_new) }
    }

    /// How many bytes are known, about.
    pub(super) fn bytes(&self) -> usize {
        self.seams.iter().map(|seam| seam.bytes).sum::<usize>() + self.tellings.bytes()
    }

    /// Writes what changed, at most `left` values; says whether that was all.
    pub(super) fn flush(&mut self, target: &Target<'_>, left: &mut usize) -> Result<bool, ProjectionError> {
        let session_key = self.session_key;
        let mut write = || -> rusqlite::Result<bool> {
            for (seam, memory) in SEAM_NAMES.iter().zip(&mut self.seams) {
                if !memory.flush(target, (session_key, seam), left)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if !write().map_err(|source| sqlite(target, NAME, &source))? {
            return Ok(false);
        }
        self.tellings.flush(target, left)
    }
}

impl SeamMemory {
    fn flush(&mut self, target: &Target<'_>, seam: (i64, &str), left: &mut usize) -> rusqlite::Result<bool> {
        if self.is_cleared || !self.changed.is_empty() {
            let table = target.table(TABLE);
            let prepared = |sql: String| target.connection.prepare_cached(&sql);
            if std::mem::take(&mut self.is_cleared) {
                prepared(format!("DELETE FROM {table} WHERE session_key = ?1 AND seam = ?2"))?.execute(seam)?;
                self.is_written = false;
            }
            // In the order of the table, so that one page is written once for all that stand on it.
            self.changed.sort_unstable();
            let mut put = prepared(format!(
                "INSERT OR REPLACE INTO {table} (session_key, seam, key, value) VALUES (?1, ?2, ?3, ?4)"
            ))?;
            let count = self.changed.len().min(*left);
            for key in self.changed.drain(..count) {
                let Some(known) = self.known.get_mut(&key) else {
                    continue;
                };
                match &known.json {
                    Some(json) => put.execute((seam.0, seam.1, &key, json)).map(|_| ())?,
                    None if known.is_written => {
                        prepared(format!("DELETE FROM {table} WHERE session_key = ?1 AND seam = ?2 AND key = ?3"))?
                            .execute((seam.0, seam.1, &key))?;
                    }
                    None => {}
                }
                (known.is_changed, known.is_written) = (false, known.json.is_some());
                self.is_written |= known.is_written;
                if known.json.is_none() && self.is_whole {
                    self.bytes -= bytes(&key, None);
                    self.known.remove(&key);
                }
            }
            *left -= count;
        }
        Ok(self.changed.is_empty())
    }

    fn set(&mut self, key: &str, json: Option<String>) {
        let before = self.known.get(key).map_or(0, |known| bytes(key, known.json.as_deref()));
        self.bytes = self.bytes - before + bytes(key, json.as_deref());
        match self.known.get_mut(key) {
            Some(known) => {
                known.json = json;
                if !std::mem::replace(&mut known.is_changed, true) {
                    self.changed.push(key.to_owned());
                }
            }
            None => {
                // What the table has of it was not looked at.
                let is_written = !self.is_whole;
                self.known.insert(key.to_owned(), Known { json, is_changed: true, is_written });
                self.changed.push(key.to_owned());
            }
        }
    }
}

fn bytes(key: &str, json: Option<&str>) -> usize {
    VALUE_BYTES + key.len() + json.map_or(0, str::len)
}

/// The memory of one session, and the table that has what is not known of it.
pub(super) struct Memory<'a> {
    target: Target<'a>,
    of: &'a mut Remembered,
}

impl<'a> Memory<'a> {
    pub(super) fn new(target: Target<'a>, of: &'a mut Remembered) -> Self {
        Self { target, of }
    }

    pub(super) fn get<T: DeserializeOwned>(&mut self, seam: Seam, key: &str) -> Result<Option<T>, ProjectionError> {
        let memory = &self.of.seams[seam as usize];
        if !memory.known.contains_key(key) {
            if memory.is_whole {
                return Ok(None);
            }
            let json = self.load(seam, key)?;
            let memory = &mut self.of.seams[seam as usize];
            memory.bytes += bytes(key, json.as_deref());
            let is_written = json.is_some();
            memory.known.insert(key.to_owned(), Known { json, is_changed: false, is_written });
        }
        let json = self.of.seams[seam as usize].known.get(key).and_then(|known| known.json.as_deref());
        json.map(|json| parse(json)).transpose()
    }

    pub(super) fn put<T: Serialize>(&mut self, seam: Seam, key: &str, value: &T) -> Result<(), ProjectionError> {
        self.of.seams[seam as usize].set(key, Some(to_json(NAME, value)?));
        Ok(())
    }

    pub(super) fn remove(&mut self, seam: Seam, key: &str) {
        self.of.seams[seam as usize].set(key, None);
    }

    /// What was told of a fact.
    pub(super) fn told(&mut self, fact: FactKey) -> Result<Option<Told>, ProjectionError> {
        self.of.tellings.get(&self.target, fact)
    }

    pub(super) fn put_told(&mut self, fact: FactKey, told: Told) -> Result<(), ProjectionError> {
        self.of.tellings.put(&self.target, fact, told)
    }

    /// Everything of a seam, in the order of the keys.
    pub(super) fn all<T: DeserializeOwned>(&mut self, seam: Seam) -> Result<Vec<(String, T)>, ProjectionError> {
        let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
        if !self.of.seams[seam as usize].is_whole {
            let sql =
                format!("SELECT key, value FROM {} WHERE session_key = ?1 AND seam = ?2", self.target.table(TABLE));
            let rows = self.target.connection.prepare_cached(&sql).and_then(|mut statement| {
                let rows =
                    statement.query_map((self.of.session_key, seam.as_str()), |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect::<rusqlite::Result<Vec<(String, String)>>>()
            });
            let rows = rows.map_err(|source| sqlite(&self.target, NAME, &source))?;
            found.extend(rows.into_iter().map(|(key, json)| (key, Some(json))));
        }
        for (key, known) in &self.of.seams[seam as usize].known {
            found.insert(key.clone(), known.json.clone());
        }
        found.into_iter().filter_map(|(key, json)| json.map(|json| Ok((key, parse(&json)?)))).collect()
    }

    /// Forgets everything of a seam.
    pub(super) fn clear(&mut self, seam: Seam) {
        let memory = &mut self.of.seams[seam as usize];
        *memory = SeamMemory {
            is_whole: true,
            is_written: memory.is_written,
            is_cleared: memory.is_written,
            ..SeamMemory::default()
        };
    }

    fn load(&self, seam: Seam, key: &str) -> Result<Option<String>, ProjectionError> {
        let sql =
            format!("SELECT value FROM {} WHERE session_key = ?1 AND seam = ?2 AND key = ?3", self.target.table(TABLE));
        self.target
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                statement.query_row((self.of.session_key, seam.as_str(), key), |row| row.get(0)).optional()
            })
            .map_err(|source| sqlite(&self.target, NAME, &source))
    }
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, ProjectionError> {
    serde_json::from_str(json).map_err(|error| ProjectionError::Row { projection: NAME, detail: error.to_string() })
}

/// The sessions' states.
pub(super) const SESSIONS: &str = "feed_sessions";

/// The key and the state of one session, a JSON column.
pub(super) fn load_state<T: DeserializeOwned>(
    target: &Target<'_>,
    session_id: &str,
) -> Result<Option<(i64, T)>, ProjectionError> {
    let sql = format!("SELECT session_key, state FROM {} WHERE session_id = ?1", target.table(SESSIONS));
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.query_row([session_id], |row| Ok((row.get(0)?, from_json(row, 1)?))).optional()
        })
        .map_err(|source| sqlite(target, NAME, &source))
}

/// The last key that a session has; 0 where there is none.
pub(super) fn last_session_key(target: &Target<'_>) -> Result<i64, ProjectionError> {
    let sql = format!("SELECT coalesce(max(session_key), 0) FROM {}", target.table(SESSIONS));
    target.connection.query_row(&sql, [], |row| row.get(0)).map_err(|source| sqlite(target, NAME, &source))
}

/// Writes the state of one session.
pub(super) fn store_state<T: Serialize>(
    target: &Target<'_>,
    (session_key, session_id): (i64, &str),
    state: &T,
) -> Result<(), ProjectionError> {
    let sql = format!(
        "INSERT INTO {} (session_key, session_id, state) VALUES (?1, ?2, ?3)
         ON CONFLICT (session_key) DO UPDATE SET state = excluded.state",
        target.table(SESSIONS)
    );
    let json = to_json(NAME, state)?;
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.execute((session_key, session_id, json)))
        .map(|_| ())
        .map_err(|source| sqlite(target, NAME, &source))
}
