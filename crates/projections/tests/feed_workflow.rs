//! The feed of workflow runs: which run, iteration and state each entry belongs to, and how the harness's runs ended.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod feed_support;
mod support;

use feed_support::{Scene, call, data, hook, of_session, shown, stream, told, transcript, with};
use runledger_events::{
    Continuation, IterationEnd, IterationOutcome, KindFacts, RunState, RunStatus, Source, Tokens, WorkflowEnd,
    WorkflowIteration, WorkflowTransition,
};
use runledger_projections::{AgentRun, FeedEvent, FeedFilter, FeedPage};
use serde_json::{Value, json};
use support::{Story, into_running, iteration_session, iteration_start, run_id, start, tell};

/// A workflow run in ledger session `s`, in its first iteration.
struct Workflow {
    scene: Scene,
    story: Story,
}

const RUN: &str = "run-1";

impl Workflow {
    fn begun() -> Self {
        let mut workflow = Self { scene: Scene::new(), story: Story::default() };
        workflow.says(&start(RUN, "s", 1));
        workflow.says(&into_running());
        workflow.says(&iteration_start(1, Continuation::Fresh));
        workflow
    }

    /// The runner appends to its run's stream.
    fn says(&mut self, facts: &KindFacts) {
        let told = self.story.workflow_in(RUN, "s", facts);
        tell(&*self.scene.ledger.log, &[told]);
    }

    fn iteration_ends(&mut self, outcome: IterationOutcome, error: Option<&str>) {
        self.says(&KindFacts::WorkflowIteration(WorkflowIteration::End(IterationEnd {
            iteration: 1,
            outcome,
            exit_code: None,
            error: error.map(str::to_owned),
            tokens: Tokens::default(),
            tracker: None,
            adapter_session_id: None,
            retry: None,
        })));
    }

    fn ends(&mut self, status: RunStatus, reason: Option<&str>) {
        let (from, to) = (RunState::Running, RunState::Completing);
        self.says(&KindFacts::WorkflowTransition(WorkflowTransition {
            from,
            to,
            status: RunStatus::Running,
            reason: None,
            owner: None,
        }));
        let stop_reason = reason.map(str::to_owned);
        self.says(&KindFacts::WorkflowEnd(WorkflowEnd { status, stop_reason, iteration: 1 }));
    }
}

/// The workflow context of an entry, in short.
fn context(event: &FeedEvent) -> Option<String> {
    let context = event.workflow.as_ref()?;
    Some(format!("{} {} {}", context.run_id, context.iteration, context.state))
}

fn prompt(at: i64) -> Value {
    hook("prompt", at, "user.prompt", json!({"prompt": "Go", "prompt_id": "p1"}))
}

fn last_run(scene: &Scene) -> AgentRun {
    scene.session().runs.pop().expect("a run")
}

fn ending(run: &AgentRun) -> (&str, Option<&str>) {
    (run.status.as_str(), run.reason.as_deref())
}

#[test]
fn every_entry_within_a_run_has_its_workflow_run_iteration_and_state() {
    // Given events that name the run in their metadata
    let mut workflow = Workflow::begun();
    for event in [prompt(10), hook("pre", 20, "tool.pre", call("t1", "ls"))] {
        workflow.scene.tell_within("s", RUN, &event);
    }
    workflow.iteration_ends(IterationOutcome::Continue, None);
    workflow.says(&iteration_start(2, Continuation::Fresh));
    workflow.scene.tell_within("s", RUN, &hook("pre-2", 30, "tool.pre", call("t2", "ls")));
    workflow.ends(RunStatus::Completed, None);
    workflow.scene.catch_up();
    // Then
    let feed = workflow.scene.feed();
    let told: Vec<String> =
        feed.iter().map(|event| format!("{}: {}", event.kind, context(event).unwrap_or_default())).collect();
    let expected = [
        "workflow.start: run-1 0 starting",
        "workflow.iteration: run-1 1 running",
        "run.start: run-1 1 running",
        "user.prompt: run-1 1 running",
        "tool.pre: run-1 1 running",
        "run.end: run-1 1 running",
        "workflow.iteration: run-1 1 running",
        "workflow.iteration: run-1 2 running",
        "run.start: run-1 2 running",
        "tool.pre: run-1 2 running",
        "run.end: run-1 2 done",
        "workflow.end: run-1 2 done",
    ];
    assert_eq!(told, expected);
    assert!(feed.iter().all(|event| event.workflow.as_ref().unwrap().workflow_name.is_some()));
    // And the agent's runs know theirs
    assert!(workflow.scene.session().runs.iter().all(|run| run.workflow_run_id.as_deref() == Some(RUN)));
    // And a timeline of the workflow run has them all
    let filter = FeedFilter { run: Some(run_id(RUN)), ..FeedFilter::default() };
    let of_run = workflow.scene.page(&filter, &FeedPage::First, 100);
    assert_eq!(shown(&of_run), shown(&feed));
}

#[test]
fn an_adapter_session_that_an_iteration_names_belongs_to_its_run_in_whatever_ledger_session() {
    let mut workflow = Workflow::begun();
    // Given what came before the run knew its harness session
    workflow.scene.tell(&prompt(10));
    workflow.says(&iteration_session(1, "a"));
    // When it does, and hooks and record come by ways that know nothing of the run
    workflow.scene.tell(&hook("pre", 20, "tool.pre", call("t1", "ls")));
    workflow.scene.tell_in("elsewhere", &transcript("pre-2", 21, "tool.pre", call("t2", "ls")));
    workflow.scene.tell_in("elsewhere", &with(hook("pre-3", 22, "tool.pre", call("t3", "ls")), "sessionId", "other"));
    workflow.scene.catch_up();
    // Then
    let contexts = |session: &str, kind: &str| -> Vec<String> {
        let feed = workflow.scene.page(&of_session(session), &FeedPage::First, 100);
        feed.iter().filter(|event| event.kind == kind).map(|event| context(event).unwrap_or_default()).collect()
    };
    assert_eq!(contexts("s", "user.prompt"), [""]);
    assert_eq!(contexts("s", "tool.pre"), ["run-1 1 running"]);
    assert_eq!(contexts("elsewhere", "tool.pre"), ["run-1 1 running", ""]);
    // And the run's own timeline has those of both sessions, in the order of the log
    let filter = FeedFilter { run: Some(run_id(RUN)), ..FeedFilter::default() };
    let of_run = workflow.scene.page(&filter, &FeedPage::First, 100);
    let sessions: Vec<&str> = of_run.iter().map(|event| event.ledger_session_id.as_str()).collect();
    assert_eq!(sessions, ["s", "s", "s", "elsewhere", "elsewhere"], "{:#?}", shown(&of_run));
}

#[test]
fn a_run_whose_start_is_not_in_this_log_is_named_all_the_same() {
    let scene = Scene::new();
    scene.tell_within("s", "gone", &prompt(10));
    scene.catch_up();
    assert_eq!(context(&scene.one("user.prompt")).unwrap(), "gone 0 unknown");
}

#[test]
fn a_turn_that_failed_or_was_cancelled_says_so_in_the_end_of_its_run() {
    for (outcome, error, expected) in [
        (IterationOutcome::Continue, None, ("completed", None)),
        (IterationOutcome::Completed, None, ("completed", None)),
        (IterationOutcome::Blocked, None, ("completed", None)),
        (IterationOutcome::Failed, Some("it broke"), ("failed", Some("it broke"))),
        (IterationOutcome::Failed, None, ("failed", Some("the turn failed"))),
        (IterationOutcome::Cancelled, None, ("aborted", Some("cancelled"))),
        (IterationOutcome::TimedOut, None, ("aborted", Some("timeout"))),
    ] {
        let mut workflow = Workflow::begun();
        workflow.scene.tell_within("s", RUN, &prompt(10));
        workflow.iteration_ends(outcome, error);
        workflow.scene.catch_up();
        let run = last_run(&workflow.scene);
        assert_eq!(ending(&run), expected, "{outcome:?}");
        let end = workflow.scene.one("run.end");
        assert_eq!((end.run_id.as_str(), &data(&end)["status"]), (run.run_id.as_str(), &json!(expected.0)));
        assert_eq!(data(&end).get("reason").and_then(Value::as_str), expected.1);
    }
}

#[test]
fn the_end_of_a_workflow_run_closes_what_its_turns_left_open() {
    for (status, reason, expected) in [
        (RunStatus::Completed, None, ("completed", None)),
        (RunStatus::Failed, Some("no more"), ("failed", Some("no more"))),
        (RunStatus::Failed, None, ("failed", Some("failed"))),
        (RunStatus::Cancelled, Some("by the user"), ("aborted", Some("cancelled"))),
        (RunStatus::Exhausted, None, ("completed", None)),
    ] {
        let mut workflow = Workflow::begun();
        workflow.scene.tell_within("s", RUN, &prompt(10));
        workflow.ends(status, reason);
        workflow.scene.catch_up();
        assert_eq!(ending(&last_run(&workflow.scene)), expected, "{status:?}");
    }
    // And nothing of another run
    let mut workflow = Workflow::begun();
    workflow.scene.tell_within("s", "run-2", &prompt(10));
    workflow.iteration_ends(IterationOutcome::Failed, Some("it broke"));
    workflow.scene.catch_up();
    assert_eq!(ending(&last_run(&workflow.scene)), ("running", None));
}

#[test]
fn what_the_harness_says_of_its_turn_outweighs_how_the_iteration_ended() {
    let mut workflow = Workflow::begun();
    workflow.scene.tell_within("s", RUN, &prompt(10));
    workflow.scene.tell_within("s", RUN, &hook("stop", 20, "stop.request", json!({})));
    let result = json!({"status": "error_during_execution", "is_error": true, "terminal_reason": "aborted_tools"});
    workflow.scene.tell_within("s", RUN, &stream("result", 21, "turn.complete", result));
    workflow.iteration_ends(IterationOutcome::Failed, Some("claude failed"));
    workflow.scene.catch_up();
    assert_eq!(ending(&last_run(&workflow.scene)), ("aborted", Some("cancelled")));
}

#[test]
fn a_run_that_was_at_work_when_the_next_prompt_came_was_overtaken() {
    let next = || hook("next", 30, "user.prompt", json!({"prompt": "Another", "prompt_id": "p2"}));
    let work = || hook("pre", 20, "tool.pre", call("t1", "ls"));
    let first = |events: Vec<Value>| {
        let run = Scene::of(events).session().runs.remove(0);
        (run.status, run.reason)
    };
    let overtaken = ("aborted".to_owned(), Some("overtaken".to_owned()));
    let completed = ("completed".to_owned(), None);
    assert_eq!(first(vec![prompt(10), work(), next()]), overtaken);
    assert_eq!(first(vec![prompt(10), next()]), overtaken);
    let stop = || hook("stop", 25, "stop.request", json!({}));
    assert_eq!(first(vec![prompt(10), work(), stop(), next()]), completed);
    // A stop that a decision blocked is none
    let block = with(
        json!({"id": "d1", "timestamp": 26, "kind": "decision"}),
        "data",
        json!({"eventId": "hook:stop", "decision": {"type": "json", "source": "user", "data": {"decision": "block", "reason": "Not yet"}}}),
    );
    assert_eq!(first(vec![prompt(10), work(), stop(), block, next()]), overtaken);
    // A compaction cuts a run in two
    let compact = hook("compact", 28, "session.start", json!({"source": "compact"}));
    assert_eq!(first(vec![prompt(10), work(), compact]), completed);
    // What a record tells has no stops
    let recorded =
        [10, 20].map(|at| transcript(&format!("p{at}"), at, "user.prompt", json!({"prompt": at.to_string()})));
    assert_eq!(first(recorded.to_vec()), completed);
    // A failure that was told stays one
    let failed = hook("failed", 22, "stop.failure", json!({"error_type": "server_error"}));
    assert_eq!(first(vec![prompt(10), failed, next()]), ("failed".to_owned(), Some("server_error".to_owned())));
}

#[test]
fn a_run_that_ends_with_its_session_was_cut_off_unless_it_had_stopped() {
    let end = || hook("end", 40, "session.end", json!({"reason": "other"}));
    let last = |events: Vec<Value>| {
        let run = last_run(&Scene::of(events));
        (run.status, run.reason)
    };
    let cut_off = ("aborted".to_owned(), Some("the session ended".to_owned()));
    assert_eq!(last(vec![prompt(10), end()]), cut_off);
    let stop = hook("stop", 25, "stop.request", json!({}));
    assert_eq!(last(vec![prompt(10), stop, end()]), ("completed".to_owned(), None));
    for (data, expected) in [
        (json!({"status": "success"}), ("completed", None)),
        (json!({"status": "interrupted"}), ("aborted", Some("cancelled"))),
        (json!({"status": "failed", "error": "no model"}), ("failed", Some("no model"))),
        (json!({"is_error": true}), ("failed", Some("the turn failed"))),
    ] {
        let run = last(vec![prompt(10), told(Source::Stream, "result", 20, "turn.complete", data.clone()), end()]);
        assert_eq!((run.0.as_str(), run.1.as_deref()), expected, "{data}");
    }
}
