//! Tool calls that are not over: where they stand in the log, who makes them, and which of them a permission request
//! without a call's id is for: the latest of its adapter session in its turn with the same tool and input.
//!
//! Most calls end soon after they began, so they are written only once somebody asks for one, or everything is written.

use std::collections::{HashMap, HashSet};

use runledger_events::{AdapterSessionId, EventId, KindFacts, Position, RecordedEvent, SessionId, Source, readable};
use rusqlite::{OptionalExtension, Row};

use super::fold::Told;
use super::{CALLS, ROW_BYTES};
use crate::projection::Target;
use crate::views::damaged;

/// A call, as its beginning told it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) position: Position,
    pub(super) tool_use_id: String,
    pub(super) tool_name: Option<String>,
    pub(super) agent_id: Option<String>,
    pub(super) agent_type: Option<String>,
    pub(super) cwd: Option<String>,
}

/// What names a call's row: its session, where it has one, and the event that began it.
type Key = (Option<SessionId>, EventId);

/// Which calls are not over.
#[derive(Default)]
pub(super) struct Calls {
    /// The events that began those that are not written.
    begun: HashMap<Key, RecordedEvent>,
    /// The same, adapter session by adapter session, by the call's id.
    begun_in: HashMap<AdapterSessionId, HashMap<String, Vec<Key>>>,
    /// The ids of calls in the table; none before it was looked into.
    written: Option<HashMap<String, HashSet<String>>>,
    /// Sessions and events of those, and of some that are over.
    written_by: HashSet<Key>,
    /// Bytes of the events that are kept, about.
    bytes: usize,
}

impl Calls {
    /// Notes a call that begins. Those that only the output or the record tell are asked for by nobody here.
    pub(super) fn begin(&mut self, target: &Target<'_>, event: &RecordedEvent) -> rusqlite::Result<()> {
        let Some((adapter, tool_use_id)) = call_of(event) else {
            return Ok(());
        };
        if matches!(Source::of(&event.id), Source::Stream | Source::Transcript) {
            return Ok(());
        }
        self.written(target)?;
        let key = (event.metadata.session_id.clone(), event.id.clone());
        // Another stream of the session may have an event of the same id: it takes the place of the first.
        if self.written_by.remove(&key) {
            let sql = format!("DELETE FROM {} WHERE session_id = ?1 AND event_id = ?2", target.table(CALLS));
            target.connection.prepare_cached(&sql)?.execute((session_of(&key), key.1.as_str()))?;
        }
        if let Some(known) = self.begun.remove(&key) {
            self.bytes = self.bytes.saturating_sub(bytes_of(&known));
            if let Some((adapter, tool_use_id)) = call_of(&known)
                && let Some(keys) = self.begun_in.get_mut(adapter).and_then(|calls| calls.get_mut(tool_use_id))
            {
                keys.retain(|known| *known != key);
            }
        }
        let of_adapter = self.begun_in.entry(adapter.clone()).or_default();
        of_adapter.entry(tool_use_id.to_owned()).or_default().push(key.clone());
        self.bytes += bytes_of(event);
        self.begun.insert(key, event.clone());
        Ok(())
    }

    /// The call that an event of this session began.
    pub(super) fn begun_by(
        &mut self,
        target: &Target<'_>,
        session_id: &str,
        event_id: &str,
    ) -> rusqlite::Result<Option<Call>> {
        self.flush(target, &mut usize::MAX.clone())?;
        let sql = format!("{} WHERE session_id = ?1 AND event_id = ?2", columns(target));
        target.connection.prepare_cached(&sql)?.query_row((session_id, event_id), call).optional()
    }

    /// The call that a permission request without a call's id is for.
    pub(super) fn asked_for(
        &mut self,
        target: &Target<'_>,
        event: &RecordedEvent,
        told: &Told<'_>,
    ) -> rusqlite::Result<Option<Call>> {
        let (Some(adapter), Some(key)) = (&event.metadata.adapter_session_id, ask_key(told)) else {
            return Ok(None);
        };
        self.flush(target, &mut usize::MAX.clone())?;
        let sql = format!(
            "{} WHERE adapter_session_id = ?1 AND ask_key = ?2 ORDER BY position DESC LIMIT 1",
            columns(target)
        );
        target.connection.prepare_cached(&sql)?.query_row((adapter.as_str(), key), call).optional()
    }

    /// Forgets a call that is over.
    pub(super) fn end(
        &mut self,
        target: &Target<'_>,
        adapter: &AdapterSessionId,
        tool_use_id: &str,
    ) -> rusqlite::Result<()> {
        let begun = self.begun_in.get_mut(adapter).and_then(|calls| calls.remove(tool_use_id));
        self.forget(begun.unwrap_or_default());
        let adapter = adapter.as_str();
        let written = self.written(target)?.get_mut(adapter);
        if written.is_some_and(|calls| calls.remove(tool_use_id)) {
            let sql = format!("DELETE FROM {} WHERE adapter_session_id = ?1 AND tool_use_id = ?2", target.table(CALLS));
            target.connection.prepare_cached(&sql)?.execute((adapter, tool_use_id))?;
        }
        Ok(())
    }

    /// Forgets all calls of an adapter session.
    pub(super) fn end_all(&mut self, target: &Target<'_>, adapter: &AdapterSessionId) -> rusqlite::Result<()> {
        let begun = self.begun_in.remove(adapter).unwrap_or_default();
        self.forget(begun.into_values().flatten().collect());
        let adapter = adapter.as_str();
        if self.written(target)?.remove(adapter).is_some() {
            let sql = format!("DELETE FROM {} WHERE adapter_session_id = ?1", target.table(CALLS));
            target.connection.prepare_cached(&sql)?.execute([adapter])?;
        }
        Ok(())
    }

    fn forget(&mut self, begun: Vec<Key>) {
        for key in begun {
            if let Some(event) = self.begun.remove(&key) {
                self.bytes = self.bytes.saturating_sub(bytes_of(&event));
            }
        }
    }

    fn written(&mut self, target: &Target<'_>) -> rusqlite::Result<&mut HashMap<String, HashSet<String>>> {
        if self.written.is_none() {
            let mut written: HashMap<String, HashSet<String>> = HashMap::new();
            let sql =
                format!("SELECT adapter_session_id, tool_use_id, session_id, event_id FROM {}", target.table(CALLS));
            let mut statement = target.connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                written.entry(row.get(0)?).or_default().insert(row.get(1)?);
                let (session_id, event_id): (String, String) = (row.get(2)?, row.get(3)?);
                let event_id = EventId::new(event_id).map_err(|error| damaged(3, error))?;
                self.written_by.insert((SessionId::new(session_id).ok(), event_id));
            }
            self.written = Some(written);
        }
        Ok(self.written.get_or_insert_default())
    }

    /// Writes the calls that are not over, at most `left`; says whether that was all.
    pub(super) fn flush(&mut self, target: &Target<'_>, left: &mut usize) -> rusqlite::Result<bool> {
        if self.begun.is_empty() {
            return Ok(true);
        }
        let sql = format!(
            "INSERT OR REPLACE INTO {} (session_id, event_id, position, adapter_session_id, tool_use_id, tool_name,
                 ask_key, agent_id, agent_type, cwd)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            target.table(CALLS)
        );
        let mut statement = target.connection.prepare_cached(&sql)?;
        self.written(target)?;
        let written = self.written.get_or_insert_default();
        for (adapter, calls) in std::mem::take(&mut self.begun_in) {
            let mut rest = HashMap::new();
            for (tool_use_id, keys) in calls {
                if *left == 0 {
                    rest.insert(tool_use_id, keys);
                    continue;
                }
                for key in keys {
                    let Some(event) = self.begun.remove(&key) else {
                        continue;
                    };
                    self.bytes = self.bytes.saturating_sub(bytes_of(&event));
                    let text = readable(event.content.json().unwrap_or("{}"));
                    let told = Told::new(&event, &text);
                    statement.execute((
                        session_of(&key),
                        key.1.as_str(),
                        event.position.0,
                        adapter.as_str(),
                        &tool_use_id,
                        &told.tool_name,
                        ask_key(&told),
                        &event.facts.agent_id,
                        &event.facts.agent_type,
                        &told.cwd,
                    ))?;
                    *left = left.saturating_sub(1);
                    written.entry(adapter.to_string()).or_default().insert(tool_use_id.clone());
                    self.written_by.insert(key);
                }
            }
            if !rest.is_empty() {
                self.begun_in.insert(adapter, rest);
            }
        }
        Ok(self.begun.is_empty())
    }

    /// Bytes that are kept, about.
    pub(super) fn bytes(&self) -> usize {
        let written = self.written.iter().flat_map(HashMap::values).map(HashSet::len).sum::<usize>();
        self.bytes + (self.begun.len() + written + self.written_by.len()) * ROW_BYTES
    }
}

/// The adapter session of an event, and the call that it is about, where it has both.
fn call_of(event: &RecordedEvent) -> Option<(&AdapterSessionId, &str)> {
    let adapter = event.metadata.adapter_session_id.as_ref()?;
    match &event.facts.data {
        KindFacts::Tool { tool_use_id: Some(id), .. } if !id.is_empty() => Some((adapter, id)),
        _ => None,
    }
}

fn session_of(key: &Key) -> &str {
    key.0.as_ref().map_or("", SessionId::as_str)
}

fn bytes_of(event: &RecordedEvent) -> usize {
    event.content.json().map_or(0, str::len)
}

/// What a request and its call have in common: the turn, the tool, the input. None where the turn is not told.
fn ask_key(told: &Told<'_>) -> Option<String> {
    let turn = told.data.text("prompt_id").or_else(|| told.data.text("turn_id"))?;
    let input = told.tool_input().unwrap_or("{}");
    // The order of an object's fields does not matter.
    let canonical = serde_json::from_str::<serde_json::Value>(input).map(|value| value.to_string());
    let digest = runledger_events::content_digest(canonical.as_deref().unwrap_or(input).as_bytes());
    Some(format!("{turn}\n{}\n{digest}", told.tool_name.as_deref().unwrap_or_default()))
}

fn columns(target: &Target<'_>) -> String {
    format!("SELECT position, tool_use_id, tool_name, agent_id, agent_type, cwd FROM {}", target.table(CALLS))
}

fn call(row: &Row<'_>) -> rusqlite::Result<Call> {
    Ok(Call {
        position: Position(row.get(0)?),
        tool_use_id: row.get(1)?,
        tool_name: row.get(2)?,
        agent_id: row.get(3)?,
        agent_type: row.get(4)?,
        cwd: row.get(5)?,
    })
}
