//! `context`: the workflow context of one permission request: who asks for what, in which run, by which rule, and what was
//! asked and decided before.

use clap::Args;
use runledger_events::LogId;
use runledger_projections::{PermissionRequest, RequestContext};

use crate::commands::pending::{actor, input_in_lines, list, standing};
use crate::exit_code::{Exit, No};
use crate::ledger::LedgerArg;
use crate::output::{Output, message};
use crate::render;

/// Show the workflow context of a permission request
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger context 120                   by its position
  runledger context toolu_01AbC           by the harness's own name of the call
  runledger context 120 --json | jq .before")]
pub(crate) struct Context {
    /// A position of the log, the harness's request id, or a request's whole name
    #[arg(value_name = "REQUEST")]
    request: String,
}

impl Context {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let queries = ledger.queries()?;
        let mut found = queries.requests_named(&self.request)?;
        let log_id = ledger.open_for_reading()?.log_id().clone();
        let none = || No(format!("there is no request {}; `runledger pending --all` lists them", self.request));
        if found.len() > 1 {
            message(&format!("{} fits {} requests; name one by its position", self.request, found.len()));
            if output.is_json() {
                for request in found {
                    output.json(&request)?;
                }
            } else {
                list(&found, &log_id, output)?;
            }
            return Ok(Exit::Usage);
        }
        let request = found.pop().ok_or_else(none)?;
        let context = queries.context(request.position)?.ok_or_else(none)?;
        if output.is_json() {
            output.json(&context)?;
        } else {
            tell(&context, &log_id, output)?;
        }
        Ok(Exit::Done)
    }
}

fn tell(context: &RequestContext, log_id: &LogId, output: &mut Output) -> anyhow::Result<()> {
    let request = &context.request;
    let mut facts = vec![
        ("request", request.request_id.to_string()),
        ("status", decided(request, log_id)),
        ("tool", request.tool_name.clone().unwrap_or_else(|| "–".to_owned())),
        ("input", input_in_lines(request)),
        ("actor", actor(request)),
    ];
    if let Some(cwd) = &request.cwd {
        facts.push(("folder", cwd.clone()));
    }
    match (&request.run_id, request.iteration, request.max_iterations) {
        (Some(run), Some(iteration), Some(max)) => {
            let name = request.workflow_name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
            let state = request.state.map_or("–", |state| state.as_str());
            facts.push(("run", format!("{run}{name}")));
            facts.push(("iteration", format!("{iteration} of {max}, {state}")));
        }
        (Some(run), ..) => facts.push(("run", format!("{run}, of which this ledger knows nothing"))),
        (None, ..) => facts.push(("run", "none: no workflow run is known to have asked".to_owned())),
    }
    if let Some(rule) = &request.rule {
        let why = rule.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        facts.push(("rule", format!("{} of {}, {}{why}", rule.number, rule.origin.as_str(), rule.tool)));
    }
    if let Some(session) = &request.session_id {
        facts.push(("session", session.to_string()));
    }
    if let Some(adapter) = &request.adapter_session_id {
        facts.push(("harness session", adapter.to_string()));
    }
    facts.push(("asked", format!("{} at position {}", render::time(request.asked_at), request.position)));
    if let Some(due_at) = request.due_at {
        let then = request.on_timeout.map_or("–", |then| then.as_str()).replace('_', " ");
        facts.push(("due", format!("{}, then {then}", render::time(due_at))));
    }
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in &facts {
        for (at, line) in value.split('\n').enumerate() {
            // Nothing within a value looks like the name of another.
            output.line(&format!("{:width$}  {}", if at == 0 { name } else { "" }, render::plain(line)))?;
        }
    }
    if context.before_count > 0 {
        output.line("")?;
        let shown = context.before.len();
        let cut = if u64::try_from(shown).is_ok_and(|shown| shown < context.before_count) {
            format!(", the latest {shown}")
        } else {
            String::new()
        };
        output.line(&format!("before in this run: {}{cut}", context.before_count))?;
        list(&context.before, log_id, output)?;
    }
    Ok(())
}

/// How it stands, who decided, and why.
fn decided(request: &PermissionRequest, log_id: &LogId) -> String {
    let mut words = standing(request, log_id);
    match (&request.decided_by, &request.decided_via) {
        (Some(by), Some(via)) => words.push_str(&format!(" by {by} ({via})")),
        (Some(who), None) | (None, Some(who)) => words.push_str(&format!(" by {who}")),
        (None, None) => {}
    }
    if let Some(scope) = request.scope.as_deref().filter(|scope| *scope != "once") {
        let pattern = request.pattern.as_deref().unwrap_or("–");
        words.push_str(&format!(", {scope}: {pattern}"));
    }
    if let Some(reason) = &request.reason {
        words.push_str(&format!(": {reason}"));
    }
    if let Some(at) = request.decided_at {
        words.push_str(&format!(" ({})", render::time(at)));
    }
    if request.late_decisions > 0 {
        words.push_str(&format!(", {} too late", request.late_decisions));
    }
    words
}
