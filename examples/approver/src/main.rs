//! Approves permissions of running workflows: commands that begin so are allowed, for the rest you are asked.
//!
//! `cargo run -p runledger-example-approver -- LEDGER [PREFIX…]`
//!
//! It looks at what waits through the read half (`Queries::permission_requests`), decides through the write half
//! (`Commands::decide`), and sleeps until something is committed (`Follower::wait_beyond`). It knows no socket and no
//! process: a hook, a terminal or another approver may decide the same request, the first decision counts, and whoever
//! comes second is told who was first. It ends when no run is running any more.
//!
//! A workflow to try it with has a rule that asks: `{"tool": "Bash", "action": "ask"}` under `permissions.rules`.

use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use runledger_events::{Fields, Position, RelayQuestion, RequestId, RequestStatus, RunStatus};
use runledger_projections::{PermissionRequest, Projections, Queries, RequestFilter, RunFilter};
use runledger_store::{EventLog, OpenOptions, SqliteLog};
use runledger_workflow::{Commands, DecideError, RelayVerdict, current_user};

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let ledger = arguments.next().ok_or("usage: approver LEDGER [PREFIX…]")?;
    let prefixes: Vec<String> = arguments.collect();

    // A ledger that is not there has nothing to approve; this makes none.
    let log = Arc::new(SqliteLog::open_with(&ledger, &OpenOptions { create: false, ..OpenOptions::default() })?);
    let commands = Commands::open(log.clone())?;
    let mut projections = Projections::open(&ledger)?;
    let mut news = log.follow(Position::START)?;
    let mut left_alone = HashSet::new();
    loop {
        let seen = projections.catch_up()?;
        let queries = Queries::open(&ledger)?;
        let pending = RequestFilter { status: Some(RequestStatus::Pending), ..RequestFilter::default() };
        // The oldest has waited longest.
        for request in queries.permission_requests(&pending)?.iter().rev() {
            if !left_alone.contains(&request.request_id) {
                answer(&commands, request, &prefixes, &mut left_alone)?;
            }
        }
        let running = RunFilter { status: Some(RunStatus::Running), ..RunFilter::default() };
        if queries.runs(&running)?.is_empty() {
            return Ok(());
        }
        // Woken by a commit of any process.
        news.wait_beyond(seen, Duration::from_secs(5))?;
    }
}

/// Decides one request, by the policy or by asking.
fn answer(
    commands: &Commands,
    request: &PermissionRequest,
    prefixes: &[String],
    left_alone: &mut HashSet<RequestId>,
) -> Result<(), Failed> {
    let input = request.tool_input.as_ref().map(|json| Fields::parse(json.get())).transpose()?.unwrap_or_default();
    let call = input
        .text("command")
        .unwrap_or_else(|| request.tool_input.as_ref().map(ToString::to_string).unwrap_or_default());
    let is_known =
        request.tool_name.as_deref() == Some("Bash") && prefixes.iter().any(|prefix| call.starts_with(prefix));
    let verdict = match request.question {
        RelayQuestion::Permission if is_known => Some(RelayVerdict::allow()),
        RelayQuestion::Permission => ask(request, &call)?,
        // What the agent wants to know of its user is no permission.
        RelayQuestion::Question => None,
    };
    let Some(verdict) = verdict else {
        left_alone.insert(request.request_id.clone());
        return Ok(());
    };
    match commands.decide(&request.request_id, &RelayVerdict { by: Some(current_user()), ..verdict }) {
        Ok(decided) => println!("{}: {} {call:?}", request.request_id, decided.settled.status),
        // Somebody else was first, or the time was up: the log has what counts.
        Err(
            error @ (DecideError::AlreadyDecided { .. } | DecideError::Expired { .. } | DecideError::Withdrawn { .. }),
        ) => println!("{error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Asks on standard input; at its end, or where nothing is said, the request is left to others.
fn ask(request: &PermissionRequest, call: &str) -> Result<Option<RelayVerdict>, Failed> {
    let workflow = request.workflow_name.as_deref().unwrap_or("a run");
    let tool = request.tool_name.as_deref().unwrap_or("a tool");
    // Quoted, so that the words of an agent cannot drive the terminal.
    print!("{workflow:?}, iteration {}: {tool} {call:?}? [y, n REASON] ", request.iteration.unwrap_or_default());
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let (word, reason) = line.trim().split_once(' ').unwrap_or((line.trim(), "the approver said no"));
    Ok(match word {
        "y" => Some(RelayVerdict::allow()),
        "n" => Some(RelayVerdict::deny(reason)),
        _ => None,
    })
}
