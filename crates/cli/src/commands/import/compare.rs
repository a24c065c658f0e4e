//! What the read models show of a database that was taken over, beside what its rows say.
//!
//! A null in an old row says nothing, and is not compared: no release wrote `ended_at`, `model` and `source` of a harness
//! session, and few wrote its `run_id`. Token figures are, for there a null means that nothing was counted.

use anyhow::Context;
use runledger_events::{RunId, RunStatus, TimestampMs, Tokens};
use runledger_import::{AdapterSessionRow, Comparison, OldDatabase, TakenOver, WorkflowRunRow, compare_feed};
use runledger_projections::{AdapterSession, FeedFilter, FeedPage, Queries, Run, RunFilter, Session};
use serde_json::Value;

/// Entries of the feed that are read at once.
const FEED_PAGE: usize = 1000;

/// The comparisons of one database.
pub(crate) struct Compared {
    pub(crate) runs: Comparison,
    pub(crate) sessions: Comparison,
    pub(crate) adapter_sessions: Comparison,
    pub(crate) tokens: Comparison,
    pub(crate) feed: Comparison,
}

/// Compares all of a database's rows with the read models.
pub(crate) fn compare(old: &OldDatabase, taken: &TakenOver, queries: &Queries) -> anyhow::Result<Compared> {
    let session = queries.session(&taken.session_id)?;
    let session = session.with_context(|| format!("session {} is not in the read model", taken.session_id))?;
    let filter = RunFilter { session: Some(taken.session_id.clone()), ..RunFilter::default() };
    let found = queries.runs(&filter)?;
    let run_of = |row: &WorkflowRunRow| found.iter().find(|run| run.id.as_str() == row.id);
    let mut runs = Comparison::default();
    for row in &old.workflow_runs {
        runs.count(run_reasons(row, run_of(row)));
    }
    let mut sessions = Comparison::default();
    sessions.count(session_reasons(old, &session));
    let mut adapter_sessions = Comparison::default();
    let mut tokens = Comparison::default();
    for row in &old.adapter_sessions {
        let adapter = session.adapter_sessions.iter().find(|adapter| adapter.id.as_str() == row.session_id);
        adapter_sessions.count(adapter_reasons(row, adapter));
        tokens.count(token_reasons(row, adapter));
    }
    let feed = compare_feed(&old.feed_events, feed(taken, queries)?);
    Ok(Compared { runs, sessions, adapter_sessions, tokens, feed })
}

/// The feed of the session as it is now, in its order.
fn feed(taken: &TakenOver, queries: &Queries) -> anyhow::Result<Vec<Value>> {
    let filter = FeedFilter { session: Some(taken.session_id.clone()), ..FeedFilter::default() };
    let mut page = FeedPage::First;
    let mut entries = Vec::new();
    loop {
        let found = queries.feed(&filter, &page, FEED_PAGE)?;
        let Some(last) = found.last() else {
            return Ok(entries);
        };
        page = FeedPage::After(last.cursor());
        for entry in &found {
            entries.push(serde_json::to_value(entry)?);
        }
    }
}

/// The names of the fields that are not equal.
fn unequal<const N: usize>(fields: [(&str, bool); N]) -> Vec<String> {
    fields.into_iter().filter(|(_, is_equal)| !is_equal).map(|(field, _)| field.to_owned()).collect()
}

fn run_reasons(row: &WorkflowRunRow, run: Option<&Run>) -> Vec<String> {
    let Some(run) = run else {
        return vec!["not there".to_owned()];
    };
    let is_left = row.status == RunStatus::Running.as_str() && run.status == RunStatus::Interrupted;
    let has_no_end = row.ended_at.is_none() && run.status.is_final();
    let mut reasons = unequal([
        ("workflow_name", run.workflow_name == row.workflow_name),
        ("status", is_left || run.status.as_str() == row.status),
        ("iteration", i64::from(run.iteration) == row.iteration),
        ("max_iterations", i64::from(run.max_iterations) == row.max_iterations),
        ("stop_reason", run.stop_reason == row.stop_reason),
        ("tracker_path", run.tracker_path == row.tracker_path),
        ("started_at", run.started_at == TimestampMs(row.started_at)),
        ("ended_at", has_no_end || run.ended_at == row.ended_at.map(TimestampMs)),
    ]);
    if is_left {
        reasons.push("status: stored as running, but its process is gone: interrupted".to_owned());
    }
    if has_no_end {
        reasons.push("ended_at: not stored; the time of its last event".to_owned());
    }
    reasons
}

fn session_reasons(old: &OldDatabase, session: &Session) -> Vec<String> {
    let row = &old.session;
    let runs = &old.workflow_runs;
    // The session's time takes in its runs, whose rows may begin before its first event and end after its last one.
    let first = runs.iter().map(|run| run.started_at).fold(row.created_at, i64::min);
    let last = runs.iter().filter_map(|run| run.ended_at).fold(row.updated_at, i64::max);
    let is_known = |id: &str| session.adapter_sessions.iter().any(|adapter| adapter.id.as_str() == id);
    unequal([
        ("created_at", session.first_at == TimestampMs(first)),
        ("updated_at", session.last_at == TimestampMs(last)),
        ("workflow_runs", session.runs == runs.len() as u64),
        ("adapter_sessions", old.adapter_sessions.iter().all(|adapter| is_known(&adapter.session_id))),
    ])
}

fn adapter_reasons(row: &AdapterSessionRow, adapter: Option<&AdapterSession>) -> Vec<String> {
    let Some(adapter) = adapter else {
        return vec!["not there".to_owned()];
    };
    let says = |stored: &Option<String>, shown: &Option<String>| stored.is_none() || stored == shown;
    unequal([
        ("started_at", adapter.started_at == Some(TimestampMs(row.started_at))),
        ("ended_at", row.ended_at.is_none() || adapter.ended_at == row.ended_at.map(TimestampMs)),
        ("model", says(&row.model, &adapter.model)),
        ("source", says(&row.source, &adapter.source)),
        ("run_id", says(&row.run_id, &adapter.run_id.as_ref().map(RunId::to_string))),
    ])
}

fn token_reasons(row: &AdapterSessionRow, adapter: Option<&AdapterSession>) -> Vec<String> {
    let shown = adapter.map_or_else(Tokens::default, |adapter| adapter.tokens);
    let [input, output, cache_read, cache_write, context_size, context_window_size] = row.tokens;
    unequal([
        ("input", shown.input == input),
        ("output", shown.output == output),
        ("cache_read", shown.cache_read == cache_read),
        ("cache_write", shown.cache_write == cache_write),
        ("context_size", shown.context_size == context_size),
        ("context_window_size", shown.context_window_size == context_window_size),
    ])
}
