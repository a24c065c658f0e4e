//! Driving a run in this process, and telling of it while it goes on: what `exec` and `resume` share.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use runledger_events::{EventKind, KindFacts, RecordedEvent, WorkflowIteration};
use runledger_projections::{ProjectionError, Projector, Run};
use runledger_store::{EventFilter, EventLog, Follower, Read};
use runledger_web::objects::{EventLine, RunView};
use runledger_workflow::{
    CancelHandle, ClaudeHarness, CodexHarness, CommandChannel, CommandHarness, Harness, HarnessError, LedgerJournal,
    RunChannels, RunError, RunOutcome, RunRelay, Runner, TerminalChannel,
};
use serde::Serialize;
use serde_json::json;

use crate::commands::cancel::cancel_below;
use crate::exit_code::Exit;
use crate::narrator::summary;
use crate::output::{Output, message};
use crate::render;

/// Carries a run to its end, or to where it waits for an answer.
pub(crate) fn drive(
    runner: Runner,
    log: &Arc<dyn EventLog>,
    path: &Path,
    started: serde_json::Value,
    output: &mut Output,
) -> anyhow::Result<Exit> {
    let head = log.reader()?.head()?.position;
    let filter = EventFilter { run: Some(runner.run_id().clone()), ..EventFilter::default() };
    let follower = log.follow(head)?.with_filter(filter).with_read(Read::All);
    let mut teller = Teller { output, follower, failed: None, told_in_pieces: HashSet::new() };
    teller.started(started, &runner);
    // The read models are a cache: that they cannot be kept stops no run.
    let projector = log.follow(head).map_err(ProjectionError::from);
    let projector = projector.and_then(|follower| Projector::start(path, follower));

    // Somebody at this terminal can answer, too; a program that the workflow names does where no hook waits with it.
    let channels = channels(&runner, teller.output.is_json());
    let relay = if channels.is_empty() { None } else { Some(RunRelay::start(log, runner.run_id(), channels)?) };

    let cancel = runner.cancel_handle();
    end_on_signals(cancel.clone())?;
    let journal = Box::new(LedgerJournal::open(log.clone())?);
    let running = std::thread::Builder::new()
        .name("runledger-runner".to_owned())
        .spawn(move || runner.run(journal))
        .context("starting the runner")?;
    let result = teller.tell_until_over(running, &cancel)?;
    drop(relay);
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
    if run.status == runledger_events::RunStatus::Cancelled
        && let Err(error) = cancel_below(log, path, &run.id)
    {
        teller.warning(&format!("its sub-runs could not be cancelled: {error}"));
    }
    let exit = match run.waiting_for {
        Some(_) => Exit::Waiting,
        None => Exit::of_run(run.status, run.stop_reason.as_deref()),
    };
    teller.completed(RunView::new(run));
    teller.failed.map_or(Ok(exit), Err)
}

/// Who can be asked in this process what the run asks.
fn channels(runner: &Runner, is_json: bool) -> RunChannels {
    let Some(permissions) = runner.permissions() else {
        return RunChannels::default();
    };
    let mut channels = RunChannels::default();
    if !is_json && let Some(terminal) = TerminalChannel::open(std::io::stdin(), std::io::stderr()) {
        channels.always.push(Arc::new(terminal));
    }
    for config in &permissions.channels {
        match CommandChannel::new(config, runner.project_dir()) {
            Ok(channel) => channels.deferred.push(Arc::new(channel)),
            Err(error) => message(&format!("warning: {error}")),
        }
    }
    channels
}

/// The harness of this name; `program` is the `command` harness's own.
pub(crate) fn harness(name: &str, program: &[String], project_dir: &Path) -> Result<Box<dyn Harness>, HarnessError> {
    match (name, program.split_first()) {
        ("claude" | "claude-code", None) => Ok(Box::new(ClaudeHarness::new(project_dir)?)),
        ("codex", None) => Ok(Box::new(CodexHarness::new(project_dir)?)),
        (_, Some((program, arguments))) => Ok(Box::new(CommandHarness::new(program, arguments.to_vec(), project_dir)?)),
        (name, None) => {
            Err(HarnessError::NotFound { harness: name.to_owned(), program: "(none was recorded)".to_owned() })
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
    fn started(&mut self, started: serde_json::Value, runner: &Runner) {
        if self.output.is_json() {
            self.json("exec.started", started);
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
        if let Some(request) = &run.run.waiting_for {
            let request = render::plain(request.as_str());
            message(&format!(
                "it waits for an answer: `runledger allow {request}` or `runledger deny {request} --reason …`, then \
                 `runledger resume {}`",
                run.run.id
            ));
            let result = self.output.line(&format!("{} waiting", run.run.id)).and_then(|()| self.output.flush());
            return self.keep(result);
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
        // What holds for the run was told where it was decided.
        KindFacts::Decision(decision) if decision.pattern.is_some() && event.stream.run_id().is_some() => None,
        KindFacts::Decision(_) => Some(format!("  ! {text}")),
        _ => None,
    }
}
