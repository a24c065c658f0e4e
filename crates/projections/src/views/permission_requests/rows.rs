//! The rows: made, settled, given to a run.

use runledger_events::{AppliedRule, LogId, OnAsk, OnTimeout, Position, RelayQuestion, RequestStatus, TimestampMs};
use rusqlite::named_params;

use super::contexts::{Belonging, Linked};
use super::{NAME, select};
use crate::error::ProjectionError;
use crate::projection::Target;
use crate::views::{figure, sqlite, to_json};

/// A row as one event asks for it.
#[derive(Debug, Clone)]
pub(super) struct NewRow {
    pub(super) session_id: String,
    pub(super) event_id: String,
    pub(super) request_id: String,
    pub(super) position: Position,
    pub(super) event_position: Option<Position>,
    pub(super) tool_use_id: Option<String>,
    pub(super) adapter_session_id: Option<String>,
    pub(super) belonging: Option<Belonging>,
    pub(super) agent_id: Option<String>,
    pub(super) agent_type: Option<String>,
    pub(super) tool_name: Option<String>,
    /// JSON text.
    pub(super) tool_input: Option<String>,
    pub(super) cwd: Option<String>,
    pub(super) question: RelayQuestion,
    pub(super) asked_at: TimestampMs,
    pub(super) rule: Option<AppliedRule>,
    /// What only a question has that was put through the ledger.
    pub(super) relay: Option<Relay>,
}

#[derive(Debug, Clone)]
pub(super) struct Relay {
    pub(super) mode: OnAsk,
    pub(super) on_timeout: OnTimeout,
    pub(super) due_at: Option<TimestampMs>,
    pub(super) pattern: Option<String>,
    pub(super) log_id: LogId,
}

/// What settles a row.
#[derive(Debug, Clone, Default)]
pub(super) struct Settlement {
    pub(super) status: Option<RequestStatus>,
    pub(super) at: TimestampMs,
    pub(super) position: Position,
    pub(super) by: Option<String>,
    pub(super) via: Option<String>,
    pub(super) intent: Option<String>,
    pub(super) reason: Option<String>,
    /// JSON text.
    pub(super) answers: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) pattern: Option<String>,
    pub(super) rule: Option<AppliedRule>,
}

/// Which rows a settlement is for.
pub(super) enum Settled<'a> {
    /// The question with this id, while it waits.
    Question(&'a str),
    /// What was asked, or decided, about this event of a session; never a question that was put through the ledger.
    Event { session_id: &'a str, event_id: &'a str },
    /// What was asked about this call of an adapter session; never a question that was put through the ledger.
    Call { adapter: &'a str, tool_use_id: &'a str },
    /// What was asked by this actor of an adapter session, or by any, and of which nothing more is known.
    Unsettled { adapter: &'a str, actor: Option<&'a str> },
}

/// Makes a row; one that is there gets what it lacks, and becomes a question where this is one.
pub(super) fn put(target: &Target<'_>, row: &NewRow) -> Result<(), ProjectionError> {
    let columns = select::COLUMNS;
    let belonging = row.belonging.as_ref();
    let context = belonging.and_then(|belonging| belonging.context.as_ref());
    let relay = row.relay.as_ref();
    let sql = format!(
        "INSERT INTO {} ({columns})
         VALUES (:session_id, :event_id, :request_id, :position, :event_position, :tool_use_id, :adapter_session_id,
             :run_id, :workflow_name, :state, :iteration, :max_iterations, :actor_id, :agent_type, :tool_name,
             :tool_input, :cwd, :question, :mode, :on_timeout, :status, :asked_at, :due_at, NULL, NULL, NULL, NULL,
             NULL, NULL, NULL, NULL, :pattern, :rule, 0, :log_id)
         ON CONFLICT (session_id, event_id) DO UPDATE SET
             event_position = coalesce(event_position, excluded.event_position),
             tool_use_id = coalesce(tool_use_id, excluded.tool_use_id),
             tool_name = coalesce(tool_name, excluded.tool_name),
             tool_input = coalesce(tool_input, excluded.tool_input),
             cwd = coalesce(cwd, excluded.cwd),
             agent_type = coalesce(agent_type, excluded.agent_type) {}",
        target.table(NAME),
        if relay.is_some() {
            // From now on its stream alone says how it stands.
            ", request_id = excluded.request_id, position = excluded.position, asked_at = excluded.asked_at,
             run_id = coalesce(excluded.run_id, run_id),
             workflow_name = iif(excluded.run_id IS NULL, workflow_name, excluded.workflow_name),
             state = iif(excluded.run_id IS NULL, state, excluded.state),
             iteration = iif(excluded.run_id IS NULL, iteration, excluded.iteration),
             max_iterations = iif(excluded.run_id IS NULL, max_iterations, excluded.max_iterations),
             question = excluded.question, mode = excluded.mode, on_timeout = excluded.on_timeout,
             status = excluded.status, due_at = excluded.due_at, pattern = excluded.pattern, log_id = excluded.log_id,
             decided_at = NULL, decided_position = NULL, decided_by = NULL, decided_via = NULL, intent = NULL,
             reason = NULL, answers = NULL, scope = NULL, rule = coalesce(excluded.rule, rule)"
        } else {
            ", rule = coalesce(rule, excluded.rule)"
        }
    );
    let actor_id = row.agent_id.as_ref().map_or_else(|| "agent:root".to_owned(), |id| format!("subagent:{id}"));
    let rule = row.rule.as_ref().map(|rule| to_json(NAME, rule)).transpose()?;
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.execute(named_params! {
                ":session_id": row.session_id,
                ":event_id": row.event_id,
                ":request_id": row.request_id,
                ":position": row.position.0,
                ":event_position": figure(row.event_position.map(|position| position.0)),
                ":tool_use_id": row.tool_use_id,
                ":adapter_session_id": row.adapter_session_id,
                ":run_id": belonging.map(|belonging| belonging.run_id.as_str()),
                ":workflow_name": context.and_then(|context| context.workflow_name.as_deref()),
                ":state": context.map(|context| context.state.as_str()),
                ":iteration": context.map(|context| context.iteration),
                ":max_iterations": context.map(|context| context.max_iterations),
                ":actor_id": actor_id,
                ":agent_type": row.agent_type,
                ":tool_name": row.tool_name,
                ":tool_input": row.tool_input,
                ":cwd": row.cwd,
                ":question": row.question.as_str(),
                ":mode": relay.map(|relay| relay.mode.as_str()),
                ":on_timeout": relay.map(|relay| relay.on_timeout.as_str()),
                ":status": relay.map(|_| RequestStatus::Pending.as_str()),
                ":asked_at": row.asked_at.0,
                ":due_at": relay.and_then(|relay| relay.due_at).map(|at| at.0),
                ":pattern": relay.and_then(|relay| relay.pattern.as_deref()),
                ":rule": rule,
                ":log_id": relay.map(|relay| relay.log_id.as_str()),
            })
        })
        .map(|_| ())
        .map_err(|source| sqlite(target, NAME, &source))
}

/// Settles those rows that are to be settled; what is settled stays as it is.
pub(super) fn settle(target: &Target<'_>, which: &Settled<'_>, settlement: &Settlement) -> Result<(), ProjectionError> {
    // That nothing more came of a request was only supposed: who knows better is believed.
    let is_open = "log_id IS NULL AND (status IS NULL OR status = 'withdrawn')";
    let (condition, first, second) = match which {
        Settled::Question(id) => (
            "request_id = :first AND :second IS NULL AND log_id IS NOT NULL AND status = 'pending'".to_owned(),
            Some(*id),
            None,
        ),
        Settled::Event { session_id, event_id } => {
            (format!("session_id = :first AND event_id = :second AND {is_open}"), Some(*session_id), Some(*event_id))
        }
        Settled::Call { adapter, tool_use_id } => (
            format!("adapter_session_id = :first AND tool_use_id = :second AND {is_open}"),
            Some(*adapter),
            Some(*tool_use_id),
        ),
        Settled::Unsettled { adapter, actor } => (
            "adapter_session_id = :first AND status IS NULL AND actor_id = coalesce(:second, actor_id)".to_owned(),
            Some(*adapter),
            *actor,
        ),
    };
    let sql = format!(
        "UPDATE {} SET status = :status, decided_at = :at, decided_position = :position, decided_by = :by,
             decided_via = :via, intent = :intent, reason = :reason, answers = :answers, scope = :scope,
             pattern = coalesce(:pattern, pattern), rule = coalesce(:rule, rule)
         WHERE {condition}",
        target.table(NAME)
    );
    let rule = settlement.rule.as_ref().map(|rule| to_json(NAME, rule)).transpose()?;
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.execute(named_params! {
                ":status": settlement.status.map(RequestStatus::as_str),
                ":at": settlement.at.0,
                ":position": settlement.position.0,
                ":by": settlement.by,
                ":via": settlement.via,
                ":intent": settlement.intent,
                ":reason": settlement.reason,
                ":answers": settlement.answers,
                ":scope": settlement.scope,
                ":pattern": settlement.pattern,
                ":rule": rule,
                ":first": first,
                ":second": second,
            })
        })
        .map(|_| ())
        .map_err(|source| sqlite(target, NAME, &source))
}

/// Whether nobody was ever asked.
pub(super) fn is_empty(target: &Target<'_>) -> rusqlite::Result<bool> {
    let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM {})", target.table(NAME));
    target.connection.query_row(&sql, [], |row| row.get(0))
}

/// Counts a decision that came too late.
pub(super) fn count_late(target: &Target<'_>, request_id: &str) -> rusqlite::Result<()> {
    let sql = format!(
        "UPDATE {} SET late_decisions = late_decisions + 1 WHERE request_id = ?1 AND log_id IS NOT NULL",
        target.table(NAME)
    );
    target.connection.prepare_cached(&sql)?.execute([request_id])?;
    Ok(())
}

/// Whether there is a row about this event, and the question that it is, if it is one.
pub(super) fn find(target: &Target<'_>, session_id: &str, event_id: &str) -> rusqlite::Result<Option<Option<String>>> {
    use rusqlite::OptionalExtension as _;
    let sql = format!(
        "SELECT iif(log_id IS NULL, NULL, request_id) FROM {} WHERE session_id = ?1 AND event_id = ?2",
        target.table(NAME)
    );
    target.connection.prepare_cached(&sql)?.query_row((session_id, event_id), |row| row.get(0)).optional()
}

/// Gives what was asked in an iteration, before anybody knew that its adapter session is of a run, to that run.
pub(super) fn link(target: &Target<'_>, linked: &Linked) -> rusqlite::Result<()> {
    let sql = format!(
        "UPDATE {} SET run_id = ?3, workflow_name = ?4, state = ?5, iteration = ?6, max_iterations = ?7
         WHERE adapter_session_id = ?1 AND run_id IS NULL AND position > ?2",
        target.table(NAME)
    );
    let context = linked.belonging.context.as_ref();
    target.connection.prepare_cached(&sql)?.execute((
        linked.adapter_session_id.as_str(),
        linked.iteration_from.0,
        linked.belonging.run_id.as_str(),
        context.and_then(|context| context.workflow_name.as_deref()),
        context.map(|context| context.state.as_str()),
        context.map(|context| context.iteration),
        context.map(|context| context.max_iterations),
    ))?;
    Ok(())
}
