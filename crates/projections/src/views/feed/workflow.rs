//! What the runner tells of a workflow run: its start, its iterations, its interruptions and its end.

use runledger_events::{
    IterationContinued, IterationDeferred, IterationEnd, IterationOutcome, IterationStart, KindFacts, ObjectText,
    RetryReason, RunState, RunStatus, WorkflowEnd, WorkflowIteration, WorkflowStart, WorkflowTransition,
};

use super::event::FeedLevel;
use super::incoming::Incoming;
use super::mapper::{Draft, Mapper};
use super::run_lifecycle::Ending;
use super::{text, titles};
use crate::error::ProjectionError;

impl Mapper<'_> {
    pub(super) fn workflow(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        // Outside of a run's own stream it is somebody's words about a run.
        let Some(run_id) = event.event.stream.run_id() else {
            return Ok(());
        };
        match &event.event.facts.data {
            KindFacts::WorkflowStart(start) => self.workflow_started(event, start),
            KindFacts::WorkflowTransition(transition) => self.workflow_moved(event, transition),
            KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) => self.iteration_started(event, start),
            KindFacts::WorkflowIteration(WorkflowIteration::Deferred(deferred)) => {
                self.close_run_of(event, run_id.as_str(), Ending::completed())?;
                let data = phase("deferred", deferred.iteration).text("request_id", deferred.request_id.as_str());
                self.emit(event, Draft::new("workflow.iteration", deferred_title(deferred), data))?;
                Ok(())
            }
            KindFacts::WorkflowIteration(WorkflowIteration::Continued(continued)) => {
                let data = phase("continued", continued.iteration).text("request_id", continued.request_id.as_str());
                self.emit(event, Draft::new("workflow.iteration", continued_title(continued), data))?;
                Ok(())
            }
            KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => {
                self.close_run_of(event, run_id.as_str(), ending_of_turn(end))?;
                self.iteration_ended(event, end)
            }
            KindFacts::WorkflowEnd(end) => {
                self.close_run_of(event, run_id.as_str(), ending_of_run(end))?;
                self.workflow_ended(event, end)
            }
            _ => Ok(()),
        }
    }

    /// With its turn, a run of the harness is over too.
    fn close_run_of(&mut self, event: &Incoming<'_>, run_id: &str, ending: Ending) -> Result<(), ProjectionError> {
        let open = self.state.lifecycle.open();
        let Some(run) = open.filter(|run| run.workflow_run_id.as_deref() == Some(run_id)) else {
            return Ok(());
        };
        let ending = run.verdict.clone().unwrap_or(ending);
        self.close_run(event, ending)
    }

    fn workflow_started(&mut self, event: &Incoming<'_>, start: &WorkflowStart) -> Result<(), ProjectionError> {
        let prompt = event.text("prompt");
        let data = ObjectText::new()
            .text("run_id", start.run_id.as_str())
            .text("workflow_name", start.workflow_name.as_deref())
            .text("harness", start.harness.as_deref())
            .raw("max_iterations", start.max_iterations.to_string().as_str())
            .text("tracker_path", start.tracker_path.as_deref())
            .text("parent_run_id", start.parent_run_id.as_ref().map(|id| id.as_str()))
            .text("forked_from", start.forked_from.as_ref().map(|id| id.as_str()))
            .raw("forked_at", start.forked_at.map(|at| at.to_string()).as_deref())
            .text("prompt", prompt.as_deref());
        self.emit(event, Draft::new("workflow.start", start_title(event, start), data))?;
        Ok(())
    }

    /// Of its moves from state to state those are shown that are no part of a plain way to the end.
    fn workflow_moved(&mut self, event: &Incoming<'_>, moved: &WorkflowTransition) -> Result<(), ProjectionError> {
        let Some(title) = move_title(moved) else {
            return Ok(());
        };
        let data = ObjectText::new()
            .text("from", moved.from.as_str())
            .text("to", moved.to.as_str())
            .text("status", moved.status.as_str())
            .text("reason", moved.reason.as_deref());
        self.emit(event, Draft::new("workflow.transition", title, data).level(FeedLevel::Warn))?;
        Ok(())
    }

    fn iteration_started(&mut self, event: &Incoming<'_>, start: &IterationStart) -> Result<(), ProjectionError> {
        let retry = start.retry.as_ref().and_then(|retry| serde_json::to_string(retry).ok());
        let data = phase("start", start.iteration)
            .raw("retry", retry.as_deref())
            .text("prompt", event.text("prompt").as_deref());
        let title = format!("{} {}", titles::WORKFLOW, iteration_title(start));
        self.emit(event, Draft::new("workflow.iteration", title, data))?;
        Ok(())
    }

    fn iteration_ended(&mut self, event: &Incoming<'_>, end: &IterationEnd) -> Result<(), ProjectionError> {
        let tokens = serde_json::to_string(&end.tokens).ok();
        let data = ObjectText::new()
            .text("phase", "end")
            .raw("iteration", end.iteration.to_string().as_str())
            .text("outcome", end.outcome.as_str())
            .raw("exit_code", end.exit_code.map(|code| code.to_string()).as_deref())
            .text("error", end.error.as_deref())
            .raw("tokens", tokens.as_deref());
        let level = if end.outcome == IterationOutcome::Failed { FeedLevel::Error } else { FeedLevel::Info };
        self.emit(event, Draft::new("workflow.iteration", iteration_end_title(end), data).level(level))?;
        Ok(())
    }

    fn workflow_ended(&mut self, event: &Incoming<'_>, end: &WorkflowEnd) -> Result<(), ProjectionError> {
        let data = ObjectText::new()
            .text("status", end.status.as_str())
            .text("stop_reason", end.stop_reason.as_deref())
            .raw("iteration", end.iteration.to_string().as_str());
        let level = match end.status {
            RunStatus::Completed => FeedLevel::Info,
            RunStatus::Failed => FeedLevel::Error,
            _ => FeedLevel::Warn,
        };
        self.emit(event, Draft::new("workflow.end", end_title(end), data).level(level))?;
        Ok(())
    }
}

/// The title of a workflow run's start.
pub(super) fn start_title(event: &Incoming<'_>, start: &WorkflowStart) -> String {
    let name = start.workflow_name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    if let Some(origin) = &start.forked_from {
        let at = start.forked_at.map(|at| format!(" at {at}")).unwrap_or_default();
        return titled(&format!("Workflow{name} forked from {origin}{at}"), None);
    }
    titled(&format!("Workflow{name} started"), event.text("prompt").as_deref())
}

fn phase(phase: &str, iteration: u32) -> ObjectText {
    ObjectText::new().text("phase", phase).raw("iteration", iteration.to_string().as_str())
}

/// What an iteration's start is called, without a sign.
pub(super) fn iteration_title(start: &IterationStart) -> String {
    match start.retry.as_ref().map(|retry| retry.why) {
        None => format!("Iteration {}", start.iteration),
        Some(RetryReason::Denied) => format!("Iteration {}, a retry: something was denied", start.iteration),
        Some(RetryReason::Failed) => format!("Iteration {}, a retry: the turn failed", start.iteration),
    }
}

/// The title of an iteration that waits for an answer.
pub(super) fn deferred_title(deferred: &IterationDeferred) -> String {
    titled(&format!("Iteration {} waits for an answer", deferred.iteration), Some(deferred.request_id.as_str()))
}

/// The title of an iteration that goes on with the answer.
pub(super) fn continued_title(continued: &IterationContinued) -> String {
    titled(&format!("Iteration {} goes on with the answer", continued.iteration), Some(continued.request_id.as_str()))
}

/// The title of a move from state to state; none for those that are not shown.
pub(super) fn move_title(moved: &WorkflowTransition) -> Option<String> {
    let what = match moved.to {
        RunState::Idle => "Workflow interrupted",
        _ if moved.owner.is_some() => "Workflow taken over",
        _ => return None,
    };
    Some(titled(what, moved.reason.as_deref()))
}

/// The title of an iteration's end.
pub(super) fn iteration_end_title(end: &IterationEnd) -> String {
    titled(&format!("Iteration {} over ({})", end.iteration, end.outcome.as_str()), end.error.as_deref())
}

/// The title of a workflow run's end.
pub(super) fn end_title(end: &WorkflowEnd) -> String {
    titled(&format!("Workflow {}", end.status), end.stop_reason.as_deref())
}

fn titled(what: &str, why: Option<&str>) -> String {
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    text::title(&format!("{} {what}{why}", titles::WORKFLOW))
}

/// How the harness's run ends with an iteration that ended so.
fn ending_of_turn(end: &IterationEnd) -> Ending {
    match end.outcome {
        IterationOutcome::Failed => Ending::failed(end.error.clone().unwrap_or_else(|| "the turn failed".to_owned())),
        IterationOutcome::Cancelled => Ending::aborted("cancelled"),
        IterationOutcome::TimedOut => Ending::aborted("timeout"),
        _ => Ending::completed(),
    }
}

/// How the harness's run ends with a workflow run that ended so.
fn ending_of_run(end: &WorkflowEnd) -> Ending {
    let reason = || end.stop_reason.clone().unwrap_or_else(|| end.status.to_string());
    match end.status {
        RunStatus::Failed => Ending::failed(reason()),
        RunStatus::Cancelled => Ending::aborted("cancelled"),
        _ => Ending::completed(),
    }
}
