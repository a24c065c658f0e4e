//! The tables beside the feed's rows: states, runs, actors, the plan, and which event is shown by which entry.

use runledger_events::{Position, SessionId, TimestampMs};
use rusqlite::{Connection, Row};
use serde::Serialize;

use super::mapper::{Actor, Changes, SessionState};
use super::memory;
use super::run_lifecycle::{RunCounters, RunRecord};
use super::{ACTORS, NAME, PLAN_ITEMS, RETELLINGS, RUNS};
use crate::error::ProjectionError;
use crate::projection::Target;
use crate::views::{from_json, sqlite, to_json};

/// Writes what changed in one session, beside its feed events, its retellings and its memory; says how many rows that were.
pub(super) fn store(
    target: &Target<'_>,
    session_id: &SessionId,
    key: i64,
    state: &SessionState,
    changes: &Changes,
) -> Result<usize, ProjectionError> {
    let id = session_id.as_str();
    memory::store_state(target, (key, id), state)?;
    for run in changes.runs.values() {
        store_run(target, id, run)?;
    }
    let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
    for (run_id, failures) in &changes.failures {
        recount(target, id, run_id, *failures).map_err(failed)?;
    }
    for actor in &changes.actors {
        store_actor(target, id, actor).map_err(failed)?;
    }
    if let Some(plan) = &changes.plan {
        store_plan(target, id, plan).map_err(failed)?;
    }
    let plan = changes.plan.as_ref().map_or(0, Vec::len);
    Ok(1 + changes.runs.len() + changes.failures.len() + changes.actors.len() + plan)
}

/// Writes which events tell again what an entry shows.
pub(super) fn store_retellings(
    target: &Target<'_>,
    session_id: &SessionId,
    retellings: impl Iterator<Item = (Position, u64)>,
) -> Result<(), ProjectionError> {
    let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
    let sql =
        format!("INSERT OR REPLACE INTO {} (position, session_id, seq) VALUES (?1, ?2, ?3)", target.table(RETELLINGS));
    let mut statement = target.connection.prepare_cached(&sql).map_err(failed)?;
    for (position, seq) in retellings {
        statement.execute((position.0, session_id.as_str(), seq)).map_err(failed)?;
    }
    Ok(())
}

fn store_run(target: &Target<'_>, session_id: &str, run: &RunRecord) -> Result<(), ProjectionError> {
    let subagents = to_json(NAME, &run.subagent_ids)?;
    let sql = format!(
        "INSERT OR REPLACE INTO {} (session_id, number, run_id, adapter_session_id, workflow_run_id, started_at, ended_at,
             status, reason, trigger, prompt_preview, tool_uses, tool_failures, permission_requests, blocks, subagent_ids,
             first_seq)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
        target.table(RUNS)
    );
    let ending = run.ending.as_ref();
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                session_id,
                run.number,
                run.run_id,
                run.session_id,
                run.workflow_run_id,
                run.started_at.0,
                run.ended_at.map(|at| at.0),
                ending.map_or("running", |ending| ending.status.as_str()),
                ending.and_then(|ending| ending.reason.as_deref()),
                run.trigger.as_str(),
                run.prompt_preview,
                run.counters.tool_uses,
                run.counters.tool_failures,
                run.counters.permission_requests,
                run.counters.blocks,
                subagents,
                run.first_seq,
            ])
        })
        .map(|_| ())
        .map_err(|source| sqlite(target, NAME, &source))
}

/// Counts failures more, or less, of a run that is written already.
fn recount(target: &Target<'_>, session_id: &str, run_id: &str, failures: i64) -> rusqlite::Result<()> {
    let sql = format!(
        "UPDATE {} SET tool_failures = max(tool_failures + ?3, 0) WHERE session_id = ?1 AND run_id = ?2",
        target.table(RUNS)
    );
    target.connection.prepare_cached(&sql)?.execute((session_id, run_id, failures))?;
    Ok(())
}

fn store_actor(target: &Target<'_>, session_id: &str, actor: &Actor) -> rusqlite::Result<()> {
    // The first telling of an actor counts.
    let sql = format!(
        "INSERT OR IGNORE INTO {} (session_id, actor_id, ordinal, kind, display_name, agent_type, parent_actor_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        target.table(ACTORS)
    );
    target.connection.prepare_cached(&sql)?.execute(rusqlite::params![
        session_id,
        actor.actor_id,
        actor.order,
        actor.kind,
        actor.display_name,
        actor.agent_type,
        actor.parent_actor_id,
    ])?;
    Ok(())
}

fn store_plan(target: &Target<'_>, session_id: &str, plan: &[String]) -> rusqlite::Result<()> {
    let table = target.table(PLAN_ITEMS);
    let connection = target.connection;
    connection.prepare_cached(&format!("DELETE FROM {table} WHERE session_id = ?1"))?.execute([session_id])?;
    let sql = format!("INSERT INTO {table} (session_id, item, content) VALUES (?1, ?2, ?3)");
    for (item, content) in plan.iter().enumerate() {
        connection.prepare_cached(&sql)?.execute((session_id, item, content))?;
    }
    Ok(())
}

/// The items of the plan as they were written last.
pub(super) fn load_plan(target: &Target<'_>, session_id: &SessionId) -> Result<Vec<String>, ProjectionError> {
    let sql = format!("SELECT content FROM {} WHERE session_id = ?1 ORDER BY item", target.table(PLAN_ITEMS));
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_map([session_id.as_str()], |row| row.get(0))?.collect())
        .map_err(|source| sqlite(target, NAME, &source))
}

/// A run (RunLifecycle's): one agent invocation within a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(
    missing_docs,
    reason = "the fields are those of the reference's Run, and the session and workflow run it is of"
)]
pub struct AgentRun {
    pub run_id: String,
    pub session_id: String,
    pub ledger_session_id: String,
    pub workflow_run_id: Option<String>,
    pub started_at: TimestampMs,
    pub ended_at: Option<TimestampMs>,
    /// `running`, `completed`, `failed` or `aborted`.
    pub status: String,
    pub reason: Option<String>,
    pub trigger: String,
    pub prompt_preview: Option<String>,
    pub counters: RunCounters,
    pub subagent_ids: Vec<String>,
}

/// The runs of a session, in order.
pub(crate) fn select_runs(connection: &Connection, session_id: &SessionId) -> rusqlite::Result<Vec<AgentRun>> {
    let agent_run = |row: &Row<'_>| {
        Ok(AgentRun {
            run_id: row.get(0)?,
            session_id: row.get(1)?,
            ledger_session_id: session_id.to_string(),
            workflow_run_id: row.get(2)?,
            started_at: TimestampMs(row.get(3)?),
            ended_at: row.get::<_, Option<i64>>(4)?.map(TimestampMs),
            status: row.get(5)?,
            reason: row.get(6)?,
            trigger: row.get(7)?,
            prompt_preview: row.get(8)?,
            counters: RunCounters {
                tool_uses: row.get(9)?,
                tool_failures: row.get(10)?,
                permission_requests: row.get(11)?,
                blocks: row.get(12)?,
            },
            subagent_ids: from_json(row, 13)?,
        })
    };
    connection
        .prepare_cached(
            "SELECT run_id, adapter_session_id, workflow_run_id, started_at, ended_at, status, reason, trigger,
                 prompt_preview, tool_uses, tool_failures, permission_requests, blocks, subagent_ids
             FROM runs WHERE session_id = ?1 ORDER BY number",
        )?
        .query_map([session_id.as_str()], agent_run)?
        .collect()
}

/// Who takes part in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of the reference's Actor")]
pub struct FeedActor {
    pub actor_id: String,
    pub kind: String,
    pub display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_actor_id: Option<String>,
}

/// The actors of a session, in the order of their appearance.
pub(crate) fn select_actors(connection: &Connection, session_id: &SessionId) -> rusqlite::Result<Vec<FeedActor>> {
    connection
        .prepare_cached(
            "SELECT actor_id, kind, display_name, agent_type, parent_actor_id
             FROM actors WHERE session_id = ?1 ORDER BY ordinal",
        )?
        .query_map([session_id.as_str()], |row| {
            Ok(FeedActor {
                actor_id: row.get(0)?,
                kind: row.get(1)?,
                display_name: row.get(2)?,
                agent_type: row.get(3)?,
                parent_actor_id: row.get(4)?,
            })
        })?
        .collect()
}

/// The items of a session's plan, JSON text each, as they were told.
pub(crate) fn select_plan(connection: &Connection, session_id: &SessionId) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT content FROM plan_items WHERE session_id = ?1 ORDER BY item")?
        .query_map([session_id.as_str()], |row| row.get(0))?
        .collect()
}

/// The entries of the log that a feed event shows, beside the one whose words it has.
pub(crate) fn select_retellings(
    connection: &Connection,
    session_id: &SessionId,
    seq: u64,
) -> rusqlite::Result<Vec<Position>> {
    connection
        .prepare_cached("SELECT position FROM feed_retellings WHERE session_id = ?1 AND seq = ?2 ORDER BY position")?
        .query_map((session_id.as_str(), seq), |row| row.get(0).map(Position))?
        .collect()
}
