//! What came of a turn: the iteration's outcome, the run's end with it or another try, and the pause before the next one.

use runledger_events::{
    FailureRetry, IterationEnd, IterationOutcome, KindFacts, Retry, RetryReason, RunStatus, Timer, TimerKind,
    TimestampMs, Tokens, WorkflowIteration, WorkflowState,
};

use super::{Decided, Extra, StopCause, TurnReport, cut, end};
use crate::tracker::Verdict;

/// The longest pause before a retry, in milliseconds: an hour.
const BACKOFF_MS_MAX: u64 = 3_600_000;

/// The events that end an iteration, and the run with it where it was the last.
pub(super) fn end_iteration(state: &WorkflowState, report: &TurnReport) -> Result<Vec<Decided>, serde_json::Error> {
    // Who asked for the run's end before the turn's is not told that it was completed after all.
    let stopped = report.stopped.or(state.cancel_requested.then_some(StopCause::Cancelled));
    let Judged { outcome, ending, retry } = judge(state, report, stopped);
    let is_cancelled = outcome == IterationOutcome::Cancelled;
    // A cancelled turn's figures and tracker are of a moment in the middle of it, and do not count.
    let tracker = report.tracker.as_ref().filter(|_| !is_cancelled);
    let pause = pause(state, outcome, ending.is_some(), retry.as_ref());
    let facts = IterationEnd {
        iteration: state.iteration,
        outcome,
        exit_code: report.exit_code,
        error: failure(report).map(|reason| cut(&reason)),
        tokens: if is_cancelled { Tokens::default() } else { report.tokens },
        tracker: tracker.map(|tracker| tracker.facts.clone()),
        adapter_session_id: report.adapter_session_id.clone(),
        retry,
    };
    let mut extra = Extra::default();
    if let Some(tracker) = tracker {
        extra = extra.with("tracker_text", &tracker.text)?;
    }
    if let Some(stderr) = &report.last_stderr {
        extra = extra.with("last_stderr", stderr)?;
    }
    if !report.denied.is_empty() {
        // What the next prompt says; it stands here, so that whoever takes the run over says the same.
        let denied: Vec<&str> = report.denied.iter().map(|denial| denial.words.as_str()).collect();
        extra = extra.with("denied", &denied)?;
    }
    let mut events = stopped.map(|cause| cause.timer(state)).unwrap_or_default();
    events.push(Decided { facts: KindFacts::WorkflowIteration(WorkflowIteration::End(facts)), extra });
    if let Some((timer, pause_ms)) = pause {
        let pause_ms = i64::try_from(pause_ms).unwrap_or(i64::MAX);
        let due_at = TimestampMs(report.at.0.saturating_add(pause_ms));
        events.push(Decided::of(KindFacts::TimerScheduled(Timer { timer, due_at, iteration: state.iteration })));
    }
    if let Some((status, reason)) = ending {
        events.extend(end(state, status, reason));
    }
    Ok(events)
}

/// What the next iteration waits for, and how long in milliseconds.
fn pause(
    state: &WorkflowState,
    outcome: IterationOutcome,
    is_over: bool,
    retry: Option<&Retry>,
) -> Option<(TimerKind, u64)> {
    let policy = state.policy.as_deref().filter(|_| !is_over)?;
    let (timer, pause_ms) = match (retry.map(|retry| retry.why), &policy.retry) {
        (Some(RetryReason::Failed), Some(FailureRetry { backoff_ms, .. })) => {
            let doubled = backoff_ms.saturating_mul(1 << state.carried.retries_in_a_row.min(20));
            (TimerKind::Backoff, doubled.min(BACKOFF_MS_MAX.max(*backoff_ms)))
        }
        (Some(_), _) => return None,
        (None, _) if outcome == IterationOutcome::Continue => (TimerKind::Delay, policy.iteration_delay_ms),
        (None, _) => return None,
    };
    (pause_ms > 0).then_some((timer, pause_ms))
}

/// What came of an iteration.
struct Judged {
    outcome: IterationOutcome,
    /// How the run ends with it, if it does.
    ending: Option<(RunStatus, Option<String>)>,
    /// What the next iteration is another try of.
    retry: Option<Retry>,
}

/// What came of the iteration; where it may be tried again, the run does not end with it.
fn judge(state: &WorkflowState, report: &TurnReport, stopped: Option<StopCause>) -> Judged {
    if let Some(cause) = stopped {
        return Judged { outcome: cause.outcome(), ending: Some(cause.end()), retry: None };
    }
    let (outcome, ending) = outcome(state, report);
    let retry = retry(state, report, outcome);
    match retry {
        None => Judged { outcome, ending, retry: None },
        Some(retry) => {
            let outcome = if outcome == IterationOutcome::Failed { outcome } else { IterationOutcome::Continue };
            Judged { outcome, ending: None, retry: Some(retry) }
        }
    }
}

/// Whether another try follows, by what the workflow says of denials and failures.
fn retry(state: &WorkflowState, report: &TurnReport, outcome: IterationOutcome) -> Option<Retry> {
    let policy = state.policy.as_deref()?;
    let is_left = |max: u32| state.carried.retries_in_a_row < max;
    let on_deny = policy.permissions.as_ref().and_then(|permissions| permissions.on_deny.as_ref());
    if let (Some(on_deny), Some(denial)) = (on_deny, report.denied.first())
        && is_left(on_deny.retry.max)
    {
        return Some(Retry { why: RetryReason::Denied, cause: Some(denial.event_id.clone()) });
    }
    let is_failed = outcome == IterationOutcome::Failed;
    let may_retry = policy.retry.as_ref().is_some_and(|retry| is_left(retry.max));
    (is_failed && may_retry).then_some(Retry { why: RetryReason::Failed, cause: None })
}

/// What came of the iteration, and how the run ends with it, if it does.
fn outcome(state: &WorkflowState, report: &TurnReport) -> (IterationOutcome, Option<(RunStatus, Option<String>)>) {
    if let Some(reason) = failure(report) {
        return (IterationOutcome::Failed, Some((RunStatus::Failed, Some(reason))));
    }
    if state.tracker_path.is_none() {
        return (IterationOutcome::Completed, Some((RunStatus::Completed, None)));
    }
    let Some(tracker) = &report.tracker else {
        let reason = "Loop stopped: missing_tracker".to_owned();
        return (IterationOutcome::TrackerMissing, Some((RunStatus::Failed, Some(reason))));
    };
    match &tracker.verdict {
        Verdict::Complete => (IterationOutcome::Completed, Some((RunStatus::Completed, None))),
        Verdict::Blocked(reason) => (IterationOutcome::Blocked, Some((RunStatus::Blocked, reason.clone()))),
        Verdict::Open if tracker.is_skeleton => {
            let reason = "tracker skeleton was never replaced — Claude did not bootstrap the tracker".to_owned();
            (IterationOutcome::TrackerUntouched, Some((RunStatus::Failed, Some(reason))))
        }
        Verdict::Open if state.counted_iterations() >= state.max_iterations => {
            (IterationOutcome::Continue, Some((RunStatus::Exhausted, None)))
        }
        Verdict::Open => (IterationOutcome::Continue, None),
    }
}

/// Why the turn failed, if it did.
fn failure(report: &TurnReport) -> Option<String> {
    let behind = |reason: String| match report.last_stderr.as_deref().filter(|stderr| !stderr.is_empty()) {
        Some(stderr) => format!("{reason}: {stderr}"),
        None => reason,
    };
    let exit_code = report.exit_code.filter(|code| *code != 0);
    if let Some(message) = &report.error {
        return Some(match (message.as_str(), exit_code, &report.last_stderr) {
            ("", Some(code), _) => behind(format!("Process exited with code {code}")),
            ("", None, Some(stderr)) if !stderr.is_empty() => stderr.clone(),
            ("", None, _) => "Turn failed".to_owned(),
            (message, _, _) => behind(message.to_owned()),
        });
    }
    if let Some(code) = exit_code {
        return Some(behind(format!("Process exited with code {code}")));
    }
    let transport = report.transport?;
    (transport.stream_tool_uses > 0 && transport.pre_tool_use_events == 0).then(|| {
        format!(
            "Hook transport broken: observed {} tool use(s) in Claude stream but received no PreToolUse events.",
            transport.stream_tool_uses
        )
    })
}
