//! Which request a word of the command line means, and what became of it in words.

use runledger_projections::{PermissionRequest, Queries};
use runledger_workflow::Settled;

use crate::exit_code::{No, Usage};
use crate::render;

/// The requests named in a message, at the most.
const LISTED_MAX: usize = 5;

/// The one request that a word means (a position, or the harness's or the ledger's name of it), among those that somebody
/// waits for through the ledger: the others nobody can decide here.
pub(crate) fn one_question(queries: &Queries, word: &str) -> anyhow::Result<PermissionRequest> {
    let (questions, others): (Vec<_>, Vec<_>) =
        queries.requests_named(word)?.into_iter().partition(|request| request.mode.is_some());
    match others.into_iter().next() {
        Some(other) if questions.is_empty() => Err(No(not_a_question(word, &other)).into()),
        _ => one_of(word, questions),
    }
}

/// The one request among those that a word fits.
pub(crate) fn one_of(word: &str, mut found: Vec<PermissionRequest>) -> anyhow::Result<PermissionRequest> {
    if found.len() == 1
        && let Some(request) = found.pop()
    {
        return Ok(request);
    }
    if found.is_empty() {
        return Err(No(format!("there is no request {word}; `runledger pending` lists those that wait")).into());
    }
    let shown = found.iter().take(LISTED_MAX);
    let shown: Vec<String> = shown.map(|request| format!("{} ({})", request.position, request.request_id)).collect();
    let more = if found.len() > LISTED_MAX { ", …" } else { "" };
    let count = found.len();
    Err(Usage(format!("{word} fits {count} requests: {}{more}; name one by its position", shown.join(", "))).into())
}

/// Why what was found cannot be decided.
fn not_a_question(word: &str, request: &PermissionRequest) -> String {
    let Some(status) = request.status else {
        return format!("request {word} is asked by the harness alone; nobody waits for a decision through the ledger");
    };
    let who = match (&request.decided_by, request.decided_via.as_deref()) {
        (Some(by), _) => format!(" by {by}"),
        (None, Some(via)) => format!(" by {via}"),
        (None, None) => String::new(),
    };
    let when = request.decided_at.map(|at| format!(" at {}", render::time(at))).unwrap_or_default();
    format!("request {word} is not to be decided: it is {status}{who}{when}")
}

/// Who settled a question, how and when.
pub(crate) fn settled_in_words(settled: &Settled) -> String {
    let who = match (&settled.by, settled.source.as_deref()) {
        (Some(by), Some("user") | None) => format!(" by {by}"),
        (Some(by), Some(source)) => format!(" by {by} ({source})"),
        (None, Some(source)) => format!(" by {source}"),
        (None, None) => String::new(),
    };
    let why = settled.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{}{who} at {} (position {}){why}", settled.status, render::time(settled.at), settled.position)
}
