//! `pending`: permission requests and questions that wait for an answer; and how a request looks.

use clap::Args;
use comfy_table::{Cell, Color};
use runledger_events::words::call_parts;
use runledger_events::{LogId, RequestStatus, SessionId};
use runledger_projections::{PermissionRequest, RequestFilter};

use crate::exit_code::Exit;
use crate::ledger::{LedgerArg, one_run};
use crate::output::{Output, message};
use crate::render;

/// List permission requests and questions that wait for an answer, the newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger pending
  runledger pending --all --run 0199      whatever was asked in this run, and what came of it
  runledger pending --json | jq -r .request_id")]
pub(crate) struct Pending {
    /// Those of this session alone
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Those of this workflow run alone
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Those that do not wait any more too, and what rules decided
    #[arg(long, conflicts_with = "status")]
    all: bool,
    /// Those of this status: pending, allowed, denied, expired, withdrawn
    #[arg(long, value_name = "S", value_parser = status)]
    status: Option<RequestStatus>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

fn status(word: &str) -> Result<RequestStatus, String> {
    RequestStatus::parse(word).ok_or_else(|| {
        let words: Vec<&str> = RequestStatus::ALL.iter().map(|status| status.as_str()).collect();
        format!("the statuses are {}", words.join(", "))
    })
}

impl Pending {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let queries = ledger.queries()?;
        let run = self.run.as_deref().map(|run| one_run(&queries, run)).transpose()?.map(|(run, _)| run.id);
        let status = if self.all { None } else { self.status.or(Some(RequestStatus::Pending)) };
        let filter =
            RequestFilter { status, session: self.session.clone(), run, limit: self.limit, ..RequestFilter::default() };
        let requests = queries.permission_requests(&filter)?;
        if output.is_json() {
            for request in requests {
                output.json(&request)?;
            }
            return Ok(Exit::Done);
        }
        if requests.is_empty() {
            message(if status == Some(RequestStatus::Pending) {
                "nothing waits for an answer"
            } else {
                "no such requests"
            });
            return Ok(Exit::Done);
        }
        list(&requests, ledger.open_for_reading()?.log_id(), output)?;
        Ok(Exit::Done)
    }
}

/// Prints requests, one a line.
pub(crate) fn list(requests: &[PermissionRequest], log_id: &LogId, output: &mut Output) -> anyhow::Result<()> {
    let heads = ["POSITION", "STATUS", "ASKED", "DUE", "RUN", "ITER", "ACTOR", "TOOL", "INPUT"];
    let mut table = render::table(&heads, output.is_terminal());
    let is_narrow = render::is_narrow(&table);
    if is_narrow {
        table = render::table(&["POSITION", "STATUS", "ASKED", "RUN", "TOOL", "INPUT"], output.is_terminal());
    }
    let input_max = match (output.is_terminal(), is_narrow) {
        (false, _) => 200,
        (true, false) => 60,
        (true, true) => 36,
    };
    for request in requests {
        let run = request.run_id.as_ref().map_or("–", |id| id.as_str().get(..13).unwrap_or(id.as_str()));
        let time = |at| {
            let time = render::time(at);
            // Whoever looks at it knows the year.
            if output.is_terminal() { time.get(5..).unwrap_or(&time).to_owned() } else { time }
        };
        let due = request.due_at.map_or_else(|| "–".to_owned(), time);
        let iteration = request.iteration.map_or_else(|| "–".to_owned(), |iteration| iteration.to_string());
        let cells = [
            Some(request.position.to_string().into()),
            Some(status_cell(request, log_id)),
            Some(time(request.asked_at).into()),
            (!is_narrow).then(|| due.into()),
            Some(render::plain(run).into()),
            (!is_narrow).then(|| iteration.into()),
            (!is_narrow).then(|| render::short(short_actor(request), 24).into()),
            Some(render::short(request.tool_name.as_deref().unwrap_or("–"), 24).into()),
            Some(Cell::new(render::short(&input(request), input_max))),
        ];
        table.add_row(cells.into_iter().flatten().collect::<Vec<Cell>>());
    }
    for line in render::lines(&table, output.is_terminal()) {
        output.line(&line)?;
    }
    Ok(())
}

/// How a request stands, in words.
pub(crate) fn standing(request: &PermissionRequest, log_id: &LogId) -> String {
    match request.status {
        None => "asked".to_owned(),
        Some(RequestStatus::Pending) if request.log_id.as_ref() != Some(log_id) => "pending elsewhere".to_owned(),
        Some(status) => status.to_string(),
    }
}

fn status_cell(request: &PermissionRequest, log_id: &LogId) -> Cell {
    let cell = Cell::new(standing(request, log_id));
    match request.status {
        Some(RequestStatus::Pending) => cell.fg(Color::Cyan),
        Some(RequestStatus::Allowed) => cell.fg(Color::Green),
        Some(RequestStatus::Denied) => cell.fg(Color::Red),
        Some(RequestStatus::Expired) => cell.fg(Color::Yellow),
        Some(RequestStatus::Withdrawn) | None => cell,
    }
}

/// Who wants to act.
pub(crate) fn actor(request: &PermissionRequest) -> String {
    match &request.agent_type {
        Some(agent_type) => format!("{} ({agent_type})", request.actor_id),
        None => request.actor_id.clone(),
    }
}

/// The same in a word: the subagent's type, where one acts.
fn short_actor(request: &PermissionRequest) -> &str {
    request.agent_type.as_deref().unwrap_or_else(|| request.actor_id.rsplit(':').next().unwrap_or(&request.actor_id))
}

/// What a tool is to do, all of it, in one line: its command or file where it has one, then each other field of its input.
fn input(request: &PermissionRequest) -> String {
    request.tool_input.as_ref().map_or_else(|| "–".to_owned(), |input| input_in_line(input.get()))
}

/// The same in lines of its own: those of its command or file, then those of each other field.
pub(crate) fn input_in_lines(request: &PermissionRequest) -> String {
    let parts = request.tool_input.as_ref().map_or_else(|| vec!["–".to_owned()], |input| call_parts(input.get()));
    parts.join("\n")
}

fn input_in_line(json: &str) -> String {
    call_parts(json).iter().map(|part| render::one_line(part)).collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_an_input_shows_where_its_lines_end_and_has_every_field() {
        let shown = [
            r#"{"command":"echo hi # ok\r\nrm -rf ~","dangerouslyDisableSandbox":true}"#,
            r#"{"content":"one\ntwo","file_path":"a.txt"}"#,
            r#"{"command":"ls"}"#,
            r#"{"depth":1}"#,
            r#"{"questions":[{"question":"Which?","options":[]}]}"#,
        ]
        .map(input_in_line);
        assert_eq!(
            shown,
            [
                "echo hi # ok⏎rm -rf ~ · dangerouslyDisableSandbox: true",
                "a.txt · content: one⏎two",
                "ls",
                r#"{"depth":1}"#,
                r#"Which? · questions: [{"question":"Which?","options":[]}]"#,
            ]
        );
        assert_eq!(render::short(&shown[0], 16), "echo hi # ok⏎rm…");
    }
}
