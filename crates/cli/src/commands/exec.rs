//! `exec`: runs a workflow to its end, and tells of it while it goes on.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use clap::Args;
use runledger_events::{EventKind, KindFacts, RecordedEvent, RunId, SessionId, WorkflowIteration};
use runledger_projections::{ProjectionError, Projector, Run};
use runledger_store::{EventFilter, Follower, Read};
use runledger_workflow::{
    CancelHandle, ClaudeHarness, CodexHarness, CommandHarness, Harness, LedgerJournal, RunError, RunOutcome, RunSpec,
    Runner, WorkflowConfig,
};
use serde::Serialize;
use serde_json::json;

use crate::commands::SessionArg;
use crate::commands::runs::RunView;
use crate::exit_code::{Exit, Usage};
use crate::ledger::LedgerArg;
use crate::narrator::{EventLine, summary};
use crate::output::{Output, message};
use crate::render;

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
6 timed out, 8 blocked, 9 exhausted, 130 cancelled")]
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
    fn place(&self) -> anyhow::Result<(Option<SessionId>, Option<RunId>)> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = SessionArg::id(self.session.as_ref());
        if let Some(parent) = variable("RUNLEDGER_RUN_ID") {
            return Ok((named, Some(RunId::new(parent).map_err(|error| Usage(format!("RUNLEDGER_RUN_ID: {error}")))?)));
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
        let path = ledger.path()?;
        let (session_id, parent_run_id) = self.place()?;
        let spec = RunSpec {
            workflow: self.workflow.as_deref().map(WorkflowConfig::load).transpose()?,
            session_id,
            parent_run_id,
            timeout: self.timeout_ms.map(Duration::from_millis),
            ledger: Some(path.clone()),
            ..RunSpec::new(self.prompt.clone(), self.project_dir.clone())
        };
        let mut runner = Runner::new(self.harness()?, spec)?;
        // A ledger that is there is looked at before anything is written, one that is not is made last.
        let existing = if path.exists() { Some(ledger.open_for_writing()?) } else { None };
        runner.prepare()?;
        let log = Arc::new(match existing {
            Some(log) => log,
            None => ledger.open_for_writing()?,
        });
        let head = log.reader()?.head()?.position;
        let filter = EventFilter { run: Some(runner.run_id().clone()), ..EventFilter::default() };
        let follower = log.follow(head)?.with_filter(filter).with_read(Read::All);
        let mut teller = Teller { output, follower, failed: None, told_in_pieces: HashSet::new() };
        teller.started(self, &runner);
        // The read models are a cache: that they cannot be kept stops no run.
        let projector = log.follow(head).map_err(ProjectionError::from);
        let projector = projector.and_then(|follower| Projector::start(&path, follower));

        let cancel = runner.cancel_handle();
        end_on_signals(cancel.clone())?;
        let journal = Box::new(LedgerJournal::open(log.clone())?);
        let running = std::thread::Builder::new()
            .name("runledger-runner".to_owned())
            .spawn(move || runner.run(journal))
            .context("starting the runner")?;
        let result = teller.tell_until_over(running, &cancel)?;
        if let Err(error) = projector.and_then(Projector::stop) {
            teller.warning(&format!("the read models were not kept up to date: {error}"));
        }
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                teller.error(&error);
                return Err(error.into());
            }
        };
        let run = Run::new(outcome.state, outcome.first_position);
        let exit = Exit::of_run(run.status, run.stop_reason.as_deref());
        teller.completed(RunView::new(run));
        teller.failed.map_or(Ok(exit), Err)
    }

    fn harness(&self) -> anyhow::Result<Box<dyn Harness>> {
        let name = self.harness.as_deref().unwrap_or(if self.program.is_empty() { "claude" } else { "command" });
        match (name, self.program.split_first()) {
            ("command", Some((program, arguments))) => {
                Ok(Box::new(CommandHarness::new(program, arguments.to_vec(), &self.project_dir)?))
            }
            ("command", None) => {
                Err(Usage("the command harness needs its program: … -- PROGRAM ARG…".to_owned()).into())
            }
            ("claude" | "claude-code", None) => Ok(Box::new(ClaudeHarness::new(&self.project_dir)?)),
            ("codex", None) => Ok(Box::new(CodexHarness::new(&self.project_dir)?)),
            ("claude" | "claude-code" | "codex", Some(_)) => {
                Err(Usage("only the command harness takes a program after `--`".to_owned()).into())
            }
            (other, _) => {
                Err(Usage(format!("there is no harness {other}; there are claude, codex and command")).into())
            }
        }
    }
}

/// Whether whoever started us wants the signal ignored, as `nohup` does for SIGHUP; told by Linux alone.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The first signal asks the run to end, the second ends its harness at once.
fn end_on_signals(cancel: CancelHandle) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut wanted = vec![SIGINT, SIGTERM];
    // Under `nohup` a run outlives its terminal.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(wanted).context("listening for signals")?;
    std::thread::Builder::new()
        .name("runledger-signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if cancel.is_killed() {
                    // Whatever holds us, such as an output that nobody reads: the run stays open in the log.
                    std::process::exit(i32::from(Exit::Cancelled as u8));
                } else if cancel.is_cancelled() {
                    cancel.kill();
                } else {
                    message("cancelling; once more to end the harness at once");
                    cancel.cancel();
                }
            }
        })
        .context("listening for signals")?;
    Ok(())
}

/// Tells what happens to the run, as the log has it: as JSON lines, or in words on standard error.
///
/// The run goes on when the output cannot be written; the exit status says so at the end.
struct Teller<'a> {
    output: &'a mut Output,
    follower: Follower,
    failed: Option<anyhow::Error>,
    /// Messages that were told while they grew.
    told_in_pieces: HashSet<String>,
}

impl Teller<'_> {
    fn started(&mut self, exec: &Exec, runner: &Runner) {
        if self.output.is_json() {
            self.json(
                "exec.started",
                json!({
                    "run_id": runner.run_id(),
                    "session_id": runner.session_id(),
                    "workflow": exec.workflow,
                    "tracker_path": runner.tracker_path(),
                    "project_dir": exec.project_dir,
                }),
            );
        } else {
            let session = render::plain(runner.session_id().as_str());
            message(&format!("run {} in session {session}", runner.run_id()));
        }
    }

    /// Tells until the runner has ended and all that it wrote is told.
    fn tell_until_over(
        &mut self,
        running: JoinHandle<Result<RunOutcome, RunError>>,
        cancel: &CancelHandle,
    ) -> anyhow::Result<Result<RunOutcome, RunError>> {
        let told = self.tell_while(&running);
        if told.is_err() {
            // No harness is left behind by a program that can no longer see what it does.
            cancel.kill();
        }
        let result = running.join().map_err(|_| anyhow!("the runner panicked; what was acknowledged is in the log"))?;
        told.map(|()| result)
    }

    fn tell_while(&mut self, running: &JoinHandle<Result<RunOutcome, RunError>>) -> anyhow::Result<()> {
        loop {
            // Looked at first: what was written before the end is then in the batch.
            let is_over = running.is_finished();
            let wait = if is_over { Duration::ZERO } else { Duration::from_millis(100) };
            let batch = self.follower.next(256, wait)?;
            for event in &batch.events {
                self.event(event);
            }
            if is_over && batch.events.is_empty() {
                return Ok(());
            }
        }
    }

    fn event(&mut self, event: &RecordedEvent) {
        if self.output.is_json() {
            match EventLine::new(event) {
                Ok(line) if matches!(event.facts.data, KindFacts::Decision(_)) => self.json("runtime.decision", line),
                Ok(line) => self.json("runtime.event", line),
                Err(error) => self.warning(&error.to_string()),
            }
        } else if !self.is_told(event) {
            tell(event);
        }
        if let KindFacts::WorkflowIteration(WorkflowIteration::End(end)) = &event.facts.data
            && self.output.is_json()
        {
            self.json(
                "iteration.complete",
                json!({"run_id": event.metadata.run_id, "iteration": end.iteration, "outcome": end.outcome,
                    "exit_code": end.exit_code, "tokens": end.tokens, "position": event.position}),
            );
        }
    }

    /// Whether a person has read this message already, piece by piece.
    fn is_told(&mut self, event: &RecordedEvent) -> bool {
        let KindFacts::Message { item_id: Some(item_id), .. } = &event.facts.data else {
            return false;
        };
        if event.kind == EventKind::MessageDelta {
            self.told_in_pieces.insert(item_id.clone());
            return false;
        }
        self.told_in_pieces.contains(item_id)
    }

    fn warning(&mut self, text: &str) {
        if self.output.is_json() {
            self.json("exec.warning", json!({"message": text}));
        }
        message(&format!("warning: {}", render::plain(text)));
    }

    fn error(&mut self, error: &RunError) {
        if self.output.is_json() {
            self.json("exec.error", json!({"message": error.to_string()}));
        }
    }

    fn completed(&mut self, run: RunView) {
        if self.output.is_json() {
            self.json("exec.completed", run);
            return;
        }
        let reason = run.run.stop_reason.as_ref().map(|reason| format!(": {}", render::plain(reason)));
        let told = format!("{} {}{}", run.run.id, run.run.status, reason.unwrap_or_default());
        let result = self.output.line(&told).and_then(|()| self.output.flush());
        self.keep(result);
    }

    fn json<T: Serialize>(&mut self, kind: &str, data: T) {
        #[derive(Serialize)]
        struct Line<'a, T> {
            #[serde(rename = "type")]
            kind: &'a str,
            ts: i64,
            data: T,
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ts = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let result = self.output.json(&Line { kind, ts, data }).and_then(|()| self.output.flush());
        self.keep(result);
    }

    fn keep(&mut self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }
}

/// Tells a person of an event while the run goes on; a message keeps its lines.
fn tell(event: &RecordedEvent) {
    if matches!(event.facts.data, KindFacts::Message { .. }) {
        for line in summary(event).lines().filter(|line| !line.trim().is_empty()) {
            message(&format!("  │ {}", render::short(line, 160)));
        }
    } else if let Some(line) = line(event) {
        message(&line);
    }
}

/// What a person wants to see of an event while the run goes on, in one line.
fn line(event: &RecordedEvent) -> Option<String> {
    let text = render::short(&summary(event), 160);
    match &event.facts.data {
        KindFacts::WorkflowIteration(WorkflowIteration::Start(_)) => Some(format!("● iteration {text}")),
        KindFacts::WorkflowIteration(WorkflowIteration::End(_)) => Some(format!("  iteration {text}")),
        KindFacts::WorkflowStart(_) | KindFacts::WorkflowTransition(_) | KindFacts::WorkflowEnd(_) => None,
        KindFacts::Tool { .. } if text.trim().is_empty() => None,
        KindFacts::Tool { .. } if event.kind == EventKind::ToolPre => Some(format!("  ▸ {text}")),
        KindFacts::Permission { .. } => Some(format!("  ? {} {text}", event.kind)),
        KindFacts::Decision(_) => Some(format!("  ! {text}")),
        _ => None,
    }
}
