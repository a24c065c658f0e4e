//! `sessions`: ledger sessions with their harness sessions and what they cost.

use clap::Args;

use crate::exit_code::Exit;
use crate::ledger::LedgerArg;
use crate::output::{Output, message};
use crate::render;

/// List sessions with their harness sessions and tokens
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger sessions
  runledger sessions --json | jq '.adapter_sessions[].id'")]
pub(crate) struct Sessions {}

impl Sessions {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let sessions = ledger.queries()?.sessions()?;
        if output.is_json() {
            for session in sessions {
                output.json(&session)?;
            }
            return Ok(Exit::Done);
        }
        if sessions.is_empty() {
            message("no sessions yet");
            return Ok(Exit::Done);
        }
        let heads = ["SESSION", "FIRST", "LAST", "RUNS", "EVENTS", "TOKENS", "HARNESS SESSIONS"];
        let mut table = render::table(&heads, output.is_terminal());
        let is_narrow = render::is_narrow(&table);
        if is_narrow {
            table = render::table(&["SESSION", "LAST", "RUNS", "TOKENS", "HARNESS"], output.is_terminal());
        }
        for session in sessions {
            let adapters: Vec<String> = session
                .adapter_sessions
                .iter()
                .map(|adapter| match &adapter.model {
                    Some(model) => format!("{} ({model})", adapter.id),
                    None => adapter.id.to_string(),
                })
                .collect();
            let id = render::plain(session.id.as_str());
            let last = render::time_in(&table, session.last_at);
            let (runs, tokens) = (render::count(session.runs), render::tokens(&session.tokens));
            if is_narrow {
                let harness =
                    if adapters.len() == 1 { "1 session".to_owned() } else { format!("{} sessions", adapters.len()) };
                table.add_row([id, last, runs, tokens, harness]);
            } else {
                let first = render::time(session.first_at);
                let events = render::count(session.events);
                table.add_row([id, first, last, runs, events, tokens, render::plain(&adapters.join(", "))]);
            }
        }
        for line in render::lines(&table, output.is_terminal()) {
            output.line(&line)?;
        }
        Ok(Exit::Done)
    }
}
