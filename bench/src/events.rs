//! Events for the bench: of about 425 bytes, always the same, and a log of all sorts with 1 % of workflow kinds.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use runledger_events::{Metadata, RequestStatus, RunId, RuntimeEvent, SessionId, StreamName};
use runledger_projections::{Queries, RequestFilter};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, SqliteLog, StreamAppend};

/// Ledger sessions of a log.
const SESSIONS: u64 = 50;
/// Events in one transaction while a log is made.
const BATCH: u64 = 1000;
/// Every so many-th event is one of a workflow.
const WORKFLOW_EVERY: u64 = 100;
/// In every so many-th call somebody is asked for permission, and the run goes on.
const ASKED_EVERY: u64 = 100;
/// Questions that wait for an answer, however long the log is.
pub(crate) const PENDING: usize = 10;
/// The name of the call that the first of them is about.
pub(crate) const PENDING_CALL: &str = "pending-0";

/// A tool's result of about 425 bytes.
pub(crate) fn json(number: u64) -> String {
    let noise = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!(
        r#"{{"id":"e-{number:010}-{noise:016x}","timestamp":{at},"kind":"tool.post","sessionId":"adapter-{adapter}","data":{{"tool_name":"Bash","tool_use_id":"toolu_{noise:016x}{number:08}","tool_input":{{"command":"cargo test -p runledger-store --test append -- case_{noise:08x}","description":"Runs the tests of the append path"}},"tool_response":{{"stdout":"running 12 tests\ntest result: ok. 12 passed; 0 failed; finished in 0.{noise:06}s","stderr":"","interrupted":false}},"cwd":"/home/dev/work/runledger"}}}}"#,
        at = 1_760_000_000_000_u64 + number * 7,
        adapter = number % SESSIONS,
        noise = noise,
    )
}

/// The same, ready to be appended.
pub(crate) fn event(number: u64) -> anyhow::Result<RuntimeEvent> {
    Ok(RuntimeEvent::from_json(&json(number))?)
}

/// The session that an event of a writer goes to.
pub(crate) fn session(number: u64) -> anyhow::Result<(StreamName, Metadata)> {
    let session = SessionId::new(format!("session-{number}"))?;
    Ok((StreamName::session(&session), Metadata { session_id: Some(session), ..Metadata::default() }))
}

/// What a log has at `number`: calls and results of tools, prompts and messages of so many sessions, and
/// among a hundred events one of a workflow run.
pub(crate) fn mixed(number: u64, sessions: u64) -> anyhow::Result<StreamAppend> {
    let session = number / 20 % sessions;
    if number.is_multiple_of(WORKFLOW_EVERY) {
        return workflow(number / WORKFLOW_EVERY, session);
    }
    let noise = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let at = 1_760_000_000_000_u64 + number * 7;
    let call = number / 4;
    let (kind, data) = match number % 4 {
        0 => (
            "message.complete",
            format!(
                r#"{{"message":"Step {number}: the tests of the append path pass; next come those of the reader. Nothing else was touched, and what is left is in the tracker. {noise:016x}","usage":{{"input_tokens":{},"output_tokens":{}}}}}"#,
                noise % 5000,
                noise % 700
            ),
        ),
        1 => (
            "tool.pre",
            format!(
                r#"{{"tool_name":"Bash","tool_use_id":"toolu_{call:016x}","tool_input":{{"command":"cargo test -p runledger-store --test append -- case_{noise:08x}","description":"Runs the tests of the append path"}},"cwd":"/home/dev/work/runledger","permission_mode":"default"}}"#
            ),
        ),
        2 if call.is_multiple_of(ASKED_EVERY) => (
            "permission.request",
            format!(
                r#"{{"tool_name":"Bash","tool_use_id":"toolu_{call:016x}","tool_input":{{"command":"cargo test -p runledger-store --test append -- case_{noise:08x}","description":"Runs the tests of the append path"}},"cwd":"/home/dev/work/runledger","permission_mode":"default"}}"#
            ),
        ),
        2 => (
            "tool.post",
            format!(
                r#"{{"tool_name":"Bash","tool_use_id":"toolu_{call:016x}","tool_input":{{"command":"cargo test -p runledger-store --test append -- case_{noise:08x}","description":"Runs the tests of the append path"}},"tool_response":{{"stdout":"running 12 tests\ntest result: ok. 12 passed; 0 failed; finished in 0.{noise:06}s","stderr":"","interrupted":false}}}}"#
            ),
        ),
        _ => (
            "user.prompt",
            format!(
                r#"{{"prompt":"Go on with case {noise:016x}, and keep the tracker at .runledger/tracker.md true. Look at what the reviewer wrote before you touch the reader, and run the whole suite in the end.","cwd":"/home/dev/work/runledger"}}"#
            ),
        ),
    };
    let json = format!(
        r#"{{"id":"e-{number:010}","timestamp":{at},"kind":"{kind}","sessionId":"adapter-{session}","data":{data}}}"#
    );
    let (stream, metadata) = self::session(session)?;
    let events = vec![NewEvent::new(RuntimeEvent::from_json(&json)?, metadata)?];
    Ok(StreamAppend { stream, expected: ExpectedVersion::Any, events })
}

/// Runs of fifty workflow events: a start, a transition, 23 iterations begun and ended, a transition and an end.
fn workflow(number: u64, session: u64) -> anyhow::Result<StreamAppend> {
    let (run, step) = (number / 50, number % 50);
    let run_id = RunId::new(format!("run-{run:08}"))?;
    let session_id = SessionId::new(format!("session-{session}"))?;
    let (kind, data) = match step {
        0 => (
            "workflow.start",
            format!(
                r#"{{"run_id":"{run_id}","session_id":"{session_id}","workflow_name":"tidy","harness":"claude","max_iterations":40,"prompt":"Tidy it"}}"#
            ),
        ),
        1 => ("workflow.transition", r#"{"from":"starting","to":"running","status":"running"}"#.to_owned()),
        48 => ("workflow.transition", r#"{"from":"running","to":"completing","status":"running"}"#.to_owned()),
        49 => ("workflow.end", r#"{"status":"completed","iteration":23}"#.to_owned()),
        step if step % 2 == 0 => (
            "workflow.iteration",
            format!(
                r#"{{"phase":"start","iteration":{},"continuation":{{"mode":"fresh"}},"prompt":"Continue the task."}}"#,
                step / 2
            ),
        ),
        step => (
            "workflow.iteration",
            format!(
                r#"{{"phase":"end","iteration":{},"outcome":"continue","tokens":{{"input":1200,"output":300}}}}"#,
                step / 2
            ),
        ),
    };
    let json = format!(
        r#"{{"id":"w-{number:010}","timestamp":{},"kind":"{kind}","data":{data}}}"#,
        1_760_000_000_000_u64 + number * 700
    );
    let metadata = Metadata { session_id: Some(session_id), run_id: Some(run_id.clone()), ..Metadata::default() };
    let events = vec![NewEvent::new(RuntimeEvent::from_json(&json)?, metadata)?];
    Ok(StreamAppend { stream: StreamName::run(&run_id), expected: ExpectedVersion::Any, events })
}

/// A question that nobody answers.
fn question(log: &dyn EventLog, number: usize) -> anyhow::Result<StreamAppend> {
    let json = format!(
        r#"{{"id":"ask-{number}","timestamp":1760000000000,"kind":"relay.request","data":{{"request_id":"pending-{number}","log_id":"{}","event_id":"e-{number}","question":"permission","tool_name":"Bash","tool_use_id":"pending-{number}","fingerprint":"f","pattern":"Bash(git push)","mode":"defer","on_timeout":"deny","tool_input":{{"command":"git push"}},"cwd":"/home/dev/work/runledger"}}}}"#,
        log.log_id()
    );
    let stream = StreamName::new(format!("request/pending-{number}"))?;
    let events = vec![NewEvent::new(RuntimeEvent::from_json(&json)?, session(0)?.1)?];
    Ok(StreamAppend { stream, expected: ExpectedVersion::Any, events })
}

/// What waits for an answer, as `runledger pending` asks for it.
pub(crate) fn waiting() -> RequestFilter {
    RequestFilter { status: Some(RequestStatus::Pending), ..RequestFilter::default() }
}

/// Asks for the context of a question, as `runledger context` does.
pub(crate) fn context_of_pending(queries: &Queries) -> anyhow::Result<()> {
    let named = queries.requests_named(PENDING_CALL)?;
    let first = named.first().with_context(|| format!("{PENDING_CALL} is not there"))?;
    queries.context(first.position)?.with_context(|| format!("{PENDING_CALL} has no context"))?;
    Ok(())
}

/// A ledger with a log of this many events of all sorts, of fifty sessions.
pub(crate) fn make_log(path: &Path, count: u64) -> anyhow::Result<Arc<dyn EventLog>> {
    make_log_of(path, count, SESSIONS)
}

/// The same, of so many sessions.
pub(crate) fn make_log_of(path: &Path, count: u64, sessions: u64) -> anyhow::Result<Arc<dyn EventLog>> {
    let log = Arc::new(SqliteLog::open(path)?);
    log.append_all((0..PENDING).map(|number| question(&*log, number)).collect::<anyhow::Result<_>>()?)?;
    let mut number = PENDING as u64;
    while number < count {
        let end = (number + BATCH).min(count);
        log.append_all((number..end).map(|number| mixed(number, sessions)).collect::<anyhow::Result<_>>()?)?;
        number = end;
    }
    Ok(log)
}

/// Empties the write-ahead logs into their files, as a ledger has them that nobody writes to.
pub(crate) fn checkpoint(path: &Path) -> anyhow::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}
