//! `rules`: decisions that hold for every run of a workflow, listed and taken back.

use clap::Args;
use runledger_events::{Position, StandingGrant, TimestampMs};
use runledger_workflow::{Commands, RulesError, WorkflowGrants, current_user};
use serde::Serialize;

use crate::exit_code::{Exit, No};
use crate::ledger::LedgerArg;
use crate::output::{Output, message};
use crate::render;

/// List decisions that hold for every run of a workflow, or take one back
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger rules --workflow tidy
  runledger rules --withdraw 140

They come from `allow --always` and `deny --always`, and count where a workflow's rule says ask.")]
pub(crate) struct Rules {
    /// Those of this workflow alone
    #[arg(long, value_name = "NAME", conflicts_with = "withdraw")]
    workflow: Option<String>,
    /// Take the decision at this position back
    #[arg(long, value_name = "POSITION")]
    withdraw: Option<u64>,
}

/// One decision, as JSON has it.
#[derive(Serialize)]
struct RuleLine<'a> {
    workflow_name: Option<&'a str>,
    position: Position,
    pattern: &'a str,
    action: &'static str,
    decision_id: &'a str,
    decided_at: TimestampMs,
    decided_by: Option<&'a str>,
}

impl<'a> RuleLine<'a> {
    fn new(workflow_name: Option<&'a str>, standing: &'a StandingGrant) -> Self {
        Self {
            workflow_name,
            position: standing.position,
            pattern: &standing.grant.pattern,
            action: if standing.grant.is_allowed { "allow" } else { "deny" },
            decision_id: standing.grant.decision_id.as_str(),
            decided_at: standing.decided_at,
            decided_by: standing.by.as_deref(),
        }
    }
}

impl Rules {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        // Where there is no ledger there is no rule; a reader makes none.
        drop(ledger.open_for_reading()?);
        let commands = Commands::open(ledger.open_for_writing()?)?;
        if let Some(position) = self.withdraw {
            return withdraw(&commands, Position(position), output);
        }
        let all = match &self.workflow {
            Some(name) => {
                let grants = commands.standing_grants(Some(name))?;
                vec![WorkflowGrants { workflow_name: Some(name.clone()), grants }]
            }
            None => commands.all_standing_grants()?,
        };
        list(&all, output)?;
        Ok(Exit::Done)
    }
}

fn withdraw(commands: &Commands, position: Position, output: &mut Output) -> anyhow::Result<Exit> {
    let (workflow_name, standing) = match commands.withdraw_grant(position, Some(&current_user())) {
        Ok(taken_back) => taken_back,
        Err(error @ RulesError::Unknown { .. }) => return Err(No(error.to_string()).into()),
        Err(error) => return Err(error.into()),
    };
    let line = RuleLine::new(workflow_name.as_deref(), &standing);
    if output.is_json() {
        output.json(&line)?;
    } else {
        output.line(&render::plain(&format!("{} {} holds no more", line.action, line.pattern)))?;
    }
    Ok(Exit::Done)
}

fn list(all: &[WorkflowGrants], output: &mut Output) -> anyhow::Result<()> {
    let lines: Vec<RuleLine<'_>> = all
        .iter()
        .flat_map(|of| of.grants.iter().map(|standing| RuleLine::new(of.workflow_name.as_deref(), standing)))
        .collect();
    if output.is_json() {
        return lines.iter().try_for_each(|line| output.json(line));
    }
    if lines.is_empty() {
        message("no decision holds for every run of a workflow");
        return Ok(());
    }
    let mut table = render::table(&["POSITION", "WORKFLOW", "ACTION", "DECIDED", "BY", "CALLS"], output.is_terminal());
    for line in lines {
        table.add_row([
            line.position.to_string(),
            render::plain(line.workflow_name.unwrap_or("–")),
            line.action.to_owned(),
            render::time_in(&table, line.decided_at),
            render::plain(line.decided_by.unwrap_or("–")),
            render::plain(line.pattern),
        ]);
    }
    render::lines(&table, output.is_terminal()).iter().try_for_each(|line| output.line(line))
}
