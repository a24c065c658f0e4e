//! Rows as queries answer them.

use runledger_events::{
    AdapterSessionId, AppliedRule, EventId, LogId, OnAsk, OnTimeout, Position, RelayQuestion, RequestId, RequestStatus,
    RunId, RunState, SessionId, TimestampMs,
};
use rusqlite::{Connection, Row};
use serde::Serialize;
use serde_json::value::RawValue;

use super::NAME;
use crate::views::{damaged, optional_from_json};

/// The columns, in the order of the table.
pub(super) const COLUMNS: &str = "session_id, event_id, request_id, position, event_position, tool_use_id, adapter_session_id, run_id, \
     workflow_name, state, iteration, max_iterations, actor_id, agent_type, tool_name, tool_input, cwd, question, mode, \
     on_timeout, status, asked_at, due_at, decided_at, decided_position, decided_by, decided_via, intent, reason, \
     answers, scope, pattern, rule, late_decisions, log_id";
/// How many they are.
const COLUMN_COUNT: usize = 35;

/// What was asked before and decided in the same run, at the most.
const BEFORE_MAX: usize = 50;

/// A permission that was asked for, or a question; or what a rule decided without anybody being asked.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PermissionRequest {
    /// The question's own id, or the id that it would have.
    pub request_id: RequestId,
    /// The event that asks: `relay.request`, or the harness's own; of what nobody was asked, the decision.
    pub position: Position,
    /// The event that it is about.
    pub event_id: EventId,
    /// Where that stands in the log.
    pub event_position: Option<Position>,
    /// The harness's own name of the call.
    pub tool_use_id: Option<String>,
    /// The ledger session.
    pub session_id: Option<SessionId>,
    /// The harness's own session.
    pub adapter_session_id: Option<AdapterSessionId>,
    /// The workflow run, and where it stood when this was asked.
    pub run_id: Option<RunId>,
    /// Its workflow.
    pub workflow_name: Option<String>,
    /// Its state.
    pub state: Option<RunState>,
    /// Iterations begun.
    pub iteration: Option<u32>,
    /// The iteration limit.
    pub max_iterations: Option<u32>,
    /// Who wants to act: `agent:root` or `subagent:ID`.
    pub actor_id: String,
    /// The subagent's type.
    pub agent_type: Option<String>,
    /// The tool.
    pub tool_name: Option<String>,
    /// Its input; none where it was erased.
    pub tool_input: Option<Box<RawValue>>,
    /// Where it is to be used.
    pub cwd: Option<String>,
    /// What is asked.
    pub question: RelayQuestion,
    /// How it waits; none where nobody waits through the ledger.
    pub mode: Option<OnAsk>,
    /// What it comes to if nobody answers; none where nobody waits through the ledger.
    pub on_timeout: Option<OnTimeout>,
    /// How it stands; none where the harness asked and nothing is known yet.
    pub status: Option<RequestStatus>,
    /// When it was asked.
    pub asked_at: TimestampMs,
    /// Until when it can be answered.
    pub due_at: Option<TimestampMs>,
    /// When it was settled.
    pub decided_at: Option<TimestampMs>,
    /// The event that settled it.
    pub decided_position: Option<Position>,
    /// Who decided, by name.
    pub decided_by: Option<String>,
    /// How: `user`, `rule`, `channel`, `timeout`, `terminal`; `harness` where only what the harness did tells it.
    pub decided_via: Option<String>,
    /// What it came to: `permission_allow`, `permission_deny`, `question_answer`.
    pub intent: Option<String>,
    /// Why, in words; none where it was erased.
    pub reason: Option<String>,
    /// The answers to a question, by question.
    pub answers: Option<Box<RawValue>>,
    /// How far the decision reaches: `once`, `run`, `always`.
    pub scope: Option<String>,
    /// The calls that the decision is on, where it reaches beyond this one; else the call as a pattern.
    pub pattern: Option<String>,
    /// The rule that has it asked, or that decided.
    pub rule: Option<AppliedRule>,
    /// Decisions that came too late.
    pub late_decisions: u32,
    /// The log that a question was put in; in a copy of it nobody waits for the answer.
    pub log_id: Option<LogId>,
}

/// A request, and what was asked and decided before it in its run.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RequestContext {
    /// The request.
    #[serde(flatten)]
    pub request: PermissionRequest,
    /// What was before, the newest first: at most 50.
    pub before: Vec<PermissionRequest>,
    /// How many there were.
    pub before_count: u64,
}

/// The rows that `clause` takes, read from the view.
pub(crate) fn select(
    connection: &Connection,
    clause: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<PermissionRequest>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM {NAME} {clause}"))?
        .query_map(parameters, request)?
        .collect()
}

/// The statement that finds requests by a number or a name.
pub(crate) fn named_sql(is_number: bool) -> String {
    let columns: &[&str] = if is_number {
        &["position", "event_position", "decided_position"]
    } else {
        &["request_id", "tool_use_id", "event_id"]
    };
    let searches = columns.iter().map(|column| format!("SELECT {COLUMNS} FROM {NAME} WHERE {column} = ?1"));
    // Of a row that is found twice one stays.
    format!("{} ORDER BY position DESC", searches.collect::<Vec<_>>().join(" UNION "))
}

/// The requests that a number or a name fits, the newest first.
pub(crate) fn named(
    connection: &Connection,
    is_number: bool,
    value: &dyn rusqlite::ToSql,
) -> rusqlite::Result<Vec<PermissionRequest>> {
    connection.prepare_cached(&named_sql(is_number))?.query_map([value], request)?.collect()
}

/// The statement that finds a request and what was before it.
pub(crate) fn context_sql() -> String {
    let asked = |column: &str| format!("(SELECT {column} FROM {NAME} WHERE position = ?1)");
    let (run, position) = (asked("run_id"), asked("position"));
    let before = format!("FROM {NAME} WHERE run_id = {run} AND position < {position}");
    format!(
        "SELECT {COLUMNS}, (SELECT count(*) {before}) FROM {NAME} WHERE position = ?1
         UNION ALL SELECT * FROM (SELECT {COLUMNS}, NULL {before} ORDER BY position DESC LIMIT {BEFORE_MAX})"
    )
}

/// The request at a position, with what was before it.
pub(crate) fn context(connection: &Connection, position: Position) -> rusqlite::Result<Option<RequestContext>> {
    let mut statement = connection.prepare_cached(&context_sql())?;
    let mut rows = statement.query([position.0])?;
    let Some(first) = rows.next()? else {
        return Ok(None);
    };
    let (asked, before_count) = (request(first)?, first.get(COLUMN_COUNT)?);
    let mut before = Vec::new();
    while let Some(row) = rows.next()? {
        before.push(request(row)?);
    }
    Ok(Some(RequestContext { request: asked, before, before_count }))
}

fn request(row: &Row<'_>) -> rusqlite::Result<PermissionRequest> {
    let json = |index: usize| -> rusqlite::Result<Option<Box<RawValue>>> {
        let text: Option<String> = row.get(index)?;
        text.map(RawValue::from_string).transpose().map_err(|error| damaged(index, error))
    };
    let time = |index: usize| -> rusqlite::Result<Option<TimestampMs>> {
        Ok(row.get::<_, Option<i64>>(index)?.map(TimestampMs))
    };
    let place =
        |index: usize| -> rusqlite::Result<Option<Position>> { Ok(row.get::<_, Option<u64>>(index)?.map(Position)) };
    let session: String = row.get(0)?;
    Ok(PermissionRequest {
        request_id: id(row, 2, RequestId::new)?.ok_or_else(|| damaged(2, "no request id"))?,
        position: Position(row.get(3)?),
        event_id: id(row, 1, EventId::new)?.ok_or_else(|| damaged(1, "no event id"))?,
        event_position: place(4)?,
        tool_use_id: row.get(5)?,
        session_id: if session.is_empty() { None } else { id(row, 0, SessionId::new)? },
        adapter_session_id: id(row, 6, AdapterSessionId::new)?,
        run_id: id(row, 7, RunId::new)?,
        workflow_name: row.get(8)?,
        state: word(row, 9, RunState::parse)?,
        iteration: row.get(10)?,
        max_iterations: row.get(11)?,
        actor_id: row.get(12)?,
        agent_type: row.get(13)?,
        tool_name: row.get(14)?,
        tool_input: json(15)?,
        cwd: row.get(16)?,
        question: word(row, 17, from_word)?.ok_or_else(|| damaged(17, "no question"))?,
        mode: word(row, 18, from_word)?,
        on_timeout: word(row, 19, from_word)?,
        status: word(row, 20, RequestStatus::parse)?,
        asked_at: TimestampMs(row.get(21)?),
        due_at: time(22)?,
        decided_at: time(23)?,
        decided_position: place(24)?,
        decided_by: row.get(25)?,
        decided_via: row.get(26)?,
        intent: row.get(27)?,
        reason: row.get(28)?,
        answers: json(29)?,
        scope: row.get(30)?,
        pattern: row.get(31)?,
        rule: optional_from_json(row, 32)?,
        late_decisions: row.get(33)?,
        log_id: id(row, 34, LogId::new)?,
    })
}

/// A word as serde reads it.
fn from_word<T: serde::de::DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::from(word)).ok()
}

fn word<T>(row: &Row<'_>, index: usize, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(index)?;
    text.map(|text| parse(&text).ok_or_else(|| damaged(index, format!("no such word: {text}")))).transpose()
}

fn id<T, E>(row: &Row<'_>, index: usize, new: impl Fn(String) -> Result<T, E>) -> rusqlite::Result<Option<T>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.get(index)?;
    text.map(new).transpose().map_err(|error| damaged(index, error))
}
