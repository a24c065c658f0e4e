//! `exec`: runs a workflow to its end, and tells of it while it goes on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use runledger_events::{Continuation, RunId, SessionId, StreamName, StreamVersion};
use runledger_projections::RunFilter;
use runledger_workflow::{Harness, RunSpec, Runner, WorkflowConfig};
use serde_json::json;

use crate::commands::SessionArg;
use crate::commands::drive::{drive, harness};
use crate::commands::hook::enforcement;
use crate::commands::sweep::sweep_before;
use crate::exit_code::{CouldNotStart, Exit, Usage};
use crate::ledger::{LedgerArg, one_run};
use crate::output::{Output, message};

/// Run a workflow to its end
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  One turn of Claude Code:
    runledger exec 'Say hello'
  The same of Codex:
    runledger exec --harness codex 'Say hello'
  Turns of Claude Code until the tracker says done:
    runledger exec --workflow tidy.json 'Tidy the changelog'
  The same with a program of your own:
    runledger exec --workflow tidy.json 'Tidy it' -- ./agent.sh

Exit status: 0 completed, 3 could not start, 4 failed, 5 fenced off,
6 timed out, 8 blocked, 9 exhausted, 10 waits for an answer, 130 cancelled")]
pub(crate) struct Exec {
    /// The workflow, a JSON file; without one, a single turn with the prompt as it is
    #[arg(long, value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// `claude`, `codex`, or `command` for the program after `--`
    #[arg(long, value_name = "NAME")]
    harness: Option<String>,
    /// The session that the run belongs to, also RUNLEDGER_SESSION; without one, and for a run within a run, a new session
    #[arg(long, value_name = "ID")]
    session: Option<SessionArg>,
    /// Where the harness works
    #[arg(long, value_name = "DIR", default_value = ".")]
    project_dir: PathBuf,
    /// Time limit for the whole run, in milliseconds
    #[arg(long, value_name = "N")]
    timeout_ms: Option<u64>,
    /// Stay where a turn ended for a question, until somebody has answered it
    #[arg(long)]
    watch: bool,
    /// Begin a new conversation with the harness, where --session has one already
    #[arg(long)]
    fresh: bool,
    /// The run that this one is a part of, or the beginning of its id; also RUNLEDGER_RUN_ID
    #[arg(long, value_name = "RUN")]
    parent: Option<String>,
    /// What is to be done
    #[arg(allow_hyphen_values = true)]
    prompt: String,
    /// The program of the `command` harness, and its arguments
    #[arg(last = true, value_name = "PROGRAM ARG")]
    program: Vec<String>,
}

impl Exec {
    /// The session of the run, and the run that it is a part of.
    ///
    /// A harness passes its own run and session on. What is started there is a sub-run, with a session of its own unless one
    /// is named: a session has one agent at work, and parallel ones would close each other's runs.
    fn place(&self, ledger: &LedgerArg) -> anyhow::Result<(Option<SessionId>, Option<RunId>)> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = SessionArg::id(self.session.as_ref());
        if let Some(parent) = &self.parent {
            return Ok((named, Some(one_run(&ledger.queries()?, parent)?.0.id)));
        }
        if let Some(parent) = variable("RUNLEDGER_RUN_ID") {
            let parent = RunId::new(parent).map_err(|error| Usage(format!("RUNLEDGER_RUN_ID: {error}")))?;
            return Ok((named, known(ledger, parent)?));
        }
        let session = match (named, variable("RUNLEDGER_SESSION")) {
            (None, Some(session)) => {
                Some(SessionId::new(session).map_err(|error| Usage(format!("RUNLEDGER_SESSION: {error}")))?)
            }
            (named, _) => named,
        };
        Ok((session, None))
    }

    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        // All that can be wrong with the request is found before a ledger is made.
        let (path, place) = (ledger.path()?, ledger.place()?);
        let (session_id, parent_run_id) = self.place(ledger)?;
        let workflow = self.workflow.as_deref().map(WorkflowConfig::load).transpose()?;
        let harness = self.harness()?;
        if let Some(workflow) = &workflow {
            rules_are_enforced(harness.name(), &self.project_dir, &place, workflow)?;
        }
        let mut spec = RunSpec {
            workflow,
            session_id,
            parent_run_id,
            timeout: self.timeout_ms.map(Duration::from_millis),
            ledger: Some(place),
            waits_for_answers: self.watch,
            ..RunSpec::new(self.prompt.clone(), self.project_dir.clone())
        };
        // A ledger that is there is looked at before anything is written, one that is not is made last.
        let existing = if ledger.may_be_there() { Some(ledger.open_for_writing()?) } else { None };
        if let Some(log) = &existing {
            sweep_before(log, ledger, None);
            if let Some(session) = SessionArg::id(self.session.as_ref()).filter(|_| !self.fresh) {
                spec.continuation = last_session_of(ledger, &session, harness.as_ref())?;
            }
        }
        let mut runner = Runner::new(harness, spec)?;
        runner.prepare()?;
        let log = match existing {
            Some(log) => log,
            None => ledger.open_for_writing()?,
        };
        let started = json!({
            "run_id": runner.run_id(),
            "session_id": runner.session_id(),
            "workflow": self.workflow,
            "tracker_path": runner.tracker_path(),
            "project_dir": self.project_dir,
        });
        drive(runner, &log, &path, started, output)
    }

    fn harness(&self) -> anyhow::Result<Box<dyn Harness>> {
        let name = self.harness.as_deref().unwrap_or(if self.program.is_empty() { "claude" } else { "command" });
        match (name, self.program.is_empty()) {
            ("command", true) => {
                Err(Usage("the command harness needs its program: … -- PROGRAM ARG…".to_owned()).into())
            }
            ("claude" | "claude-code" | "codex", false) => {
                Err(Usage("only the command harness takes a program after `--`".to_owned()).into())
            }
            ("claude" | "claude-code" | "codex" | "command", _) => Ok(harness(name, &self.program, &self.project_dir)?),
            (other, _) => {
                Err(Usage(format!("there is no harness {other}; there are claude, codex and command")).into())
            }
        }
    }
}

/// The run, where the ledger has it. One of another ledger has no part in this one, which is said.
fn known(ledger: &LedgerArg, run_id: RunId) -> anyhow::Result<Option<RunId>> {
    let place = ledger.place()?;
    let is_known = ledger.may_be_there()
        && ledger.open_for_reading()?.stream_version(&StreamName::run(&run_id))? != StreamVersion::EMPTY;
    if !is_known {
        message(&format!(
            "runledger: RUNLEDGER_RUN_ID names run {run_id}, which is not in {}: this run is part of no other",
            place.display()
        ));
    }
    Ok(is_known.then_some(run_id))
}

/// The harness session that a ledger session was in last, to be taken up by the run's first turn.
fn last_session_of(ledger: &LedgerArg, session: &SessionId, harness: &dyn Harness) -> anyhow::Result<Continuation> {
    if !harness.resumes_sessions() {
        return Ok(Continuation::Fresh);
    }
    let filter = RunFilter { session: Some(session.clone()), ..RunFilter::default() };
    let runs = ledger.queries()?.runs(&filter)?;
    let mut last = runs.iter().filter(|run| run.harness.as_deref() == Some(harness.name()));
    let handle = last.find_map(|run| run.adapter_session_ids.last());
    Ok(handle.map_or(Continuation::Fresh, |handle| Continuation::Resume { handle: handle.to_string() }))
}

/// Refuses a workflow with rules where nothing would hold its harness to them.
pub(crate) fn rules_are_enforced(
    harness: &str,
    project_dir: &Path,
    ledger: &Path,
    workflow: &WorkflowConfig,
) -> anyhow::Result<()> {
    let permissions = workflow.policy().and_then(|policy| policy.permissions);
    let checked =
        permissions.map_or(Ok(()), |rules| enforcement::check(harness, project_dir, &workflow.env, ledger, &rules));
    Ok(checked.map_err(|error| CouldNotStart(error.to_string()))?)
}
