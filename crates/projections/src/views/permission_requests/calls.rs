//! Tool calls that are not over: where they stand in the log, who makes them, and which of them a permission request
//! without a call's id is for: the latest of its adapter session in its turn with the same tool and input.

use runledger_events::{Position, RecordedEvent, Source};
use rusqlite::{OptionalExtension, Row};

use super::CALLS;
use super::fold::Told;
use crate::projection::Target;

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

/// Notes a call that begins. Those that only the output or the record tell are asked for by nobody here.
pub(super) fn begin(target: &Target<'_>, event: &RecordedEvent, told: &Told<'_>) -> rusqlite::Result<()> {
    let (Some(adapter), Some(tool_use_id)) = (&event.metadata.adapter_session_id, &told.tool_use_id) else {
        return Ok(());
    };
    if matches!(Source::of(&event.id), Source::Stream | Source::Transcript) {
        return Ok(());
    }
    let sql = format!(
        "INSERT OR REPLACE INTO {} (session_id, event_id, position, adapter_session_id, tool_use_id, tool_name, ask_key,
             agent_id, agent_type, cwd)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        target.table(CALLS)
    );
    target.connection.prepare_cached(&sql)?.execute((
        told.session_id(),
        event.id.as_str(),
        event.position.0,
        adapter.as_str(),
        tool_use_id,
        &told.tool_name,
        ask_key(told),
        &event.facts.agent_id,
        &event.facts.agent_type,
        &told.cwd,
    ))?;
    Ok(())
}

/// The call that an event of this session began.
pub(super) fn begun_by(target: &Target<'_>, session_id: &str, event_id: &str) -> rusqlite::Result<Option<Call>> {
    let sql = format!("{} WHERE session_id = ?1 AND event_id = ?2", columns(target));
    target.connection.prepare_cached(&sql)?.query_row((session_id, event_id), call).optional()
}

/// The call that a permission request without a call's id is for.
pub(super) fn asked_for(target: &Target<'_>, event: &RecordedEvent, told: &Told<'_>) -> rusqlite::Result<Option<Call>> {
    let (Some(adapter), Some(key)) = (&event.metadata.adapter_session_id, ask_key(told)) else {
        return Ok(None);
    };
    let sql =
        format!("{} WHERE adapter_session_id = ?1 AND ask_key = ?2 ORDER BY position DESC LIMIT 1", columns(target));
    target.connection.prepare_cached(&sql)?.query_row((adapter.as_str(), key), call).optional()
}

/// Forgets a call that is over.
pub(super) fn end(target: &Target<'_>, adapter: &str, tool_use_id: &str) -> rusqlite::Result<()> {
    let sql = format!("DELETE FROM {} WHERE adapter_session_id = ?1 AND tool_use_id = ?2", target.table(CALLS));
    target.connection.prepare_cached(&sql)?.execute((adapter, tool_use_id))?;
    Ok(())
}

/// Forgets all calls of an adapter session.
pub(super) fn end_all(target: &Target<'_>, adapter: &str) -> rusqlite::Result<()> {
    let sql = format!("DELETE FROM {} WHERE adapter_session_id = ?1", target.table(CALLS));
    target.connection.prepare_cached(&sql)?.execute([adapter])?;
    Ok(())
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
