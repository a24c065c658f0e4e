//! Taking a run up: whatever was there when its runner died, it ends as an undisturbed run does; an owner that is at work
//! keeps it, one that was only slow is shut out.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runledger_events::{
    AdapterSessionId, Continuation, EventKind, IterationState, KindFacts, LogId, Metadata, Position, ProcessId,
    RecordedEvent, RunId, RunState, RunStatus, RuntimeEvent, StreamName, StreamVersion, Tokens, WorkflowState,
};
use runledger_store::{EventFilter, ExpectedVersion, NewEvent, Read};
use runledger_testkit::TempLedger;
use runledger_workflow::{
    Commands, Harness, HarnessError, Journal, LedgerJournal, ResumeError, ResumeSpec, RunError, RunOutcome, RunSpec,
    Runner, Signal, Stop, Turn, TurnDesk, TurnResult, WorkflowConfig,
};

/// A harness with sessions, tokens and a tracker, whose turns depend on their iteration alone.
struct Worker {
    /// The iteration in which the work is complete.
    completes_in: u32,
    /// Iterations whose turn fails, so often.
    fails: Arc<Mutex<Vec<u32>>>,
    turns: Arc<Mutex<Vec<Turn>>>,
}

impl Worker {
    fn new(completes_in: u32) -> Self {
        Self { completes_in, fails: Arc::default(), turns: Arc::default() }
    }

    fn again(&self) -> Self {
        Self { completes_in: self.completes_in, fails: self.fails.clone(), turns: self.turns.clone() }
    }
}

impl Harness for Worker {
    fn name(&self) -> &str {
        "worker"
    }

    fn resumes_sessions(&self) -> bool {
        true
    }

    fn run_turn(&mut self, turn: &Turn, desk: &mut dyn TurnDesk) -> Result<TurnResult, HarnessError> {
        self.turns.lock().unwrap().push(turn.clone());
        let stopped = TurnResult::default();
        let session = AdapterSessionId::new(format!("adapter-{}", turn.iteration)).unwrap();
        let process = ProcessId { host: "elsewhere".to_owned(), boot_id: None, pid: 1, pid_started_at: None };
        if desk.note_process(process).is_err() || desk.name_session(&session).is_err() {
            return Ok(stopped);
        }
        let said = format!(r#"{{"kind":"message.complete","data":{{"message":"turn {}"}}}}"#, turn.iteration);
        if desk.record(vec![RuntimeEvent::from_json(&said).unwrap()]).is_err() {
            return Ok(stopped);
        }
        let mut fails = self.fails.lock().unwrap();
        if let Some(at) = fails.iter().position(|iteration| *iteration == turn.iteration) {
            fails.remove(at);
            return Err(HarnessError::Turn("out of breath".to_owned()));
        }
        let last = if turn.iteration >= self.completes_in { "<!-- WORKFLOW_COMPLETE -->" } else { "more to do" };
        std::fs::write(&turn.env["RUNLEDGER_TRACKER"], format!("# Plan\nturn {}\n{last}\n", turn.iteration)).unwrap();
        let input = Some(u64::from(turn.iteration) * 10);
        Ok(TurnResult { exit_code: Some(0), tokens: Tokens { input, ..Tokens::default() }, ..TurnResult::default() })
    }
}

fn workflow(more: &str) -> WorkflowConfig {
    let json = format!(r#"{{"name":"tidy","loop":{{"maxIterations":9,"trackerPath":"{{sessionId}}.md"}}{more}}}"#);
    WorkflowConfig::parse(&json).unwrap()
}

fn journal(ledger: &TempLedger) -> Box<LedgerJournal> {
    Box::new(LedgerJournal::open(ledger.log.clone()).unwrap())
}

fn begin(ledger: &TempLedger, project: &Path, worker: Worker, config: WorkflowConfig) -> RunOutcome {
    let spec = RunSpec { workflow: Some(config), ..RunSpec::new("do it", project) };
    Runner::new(Box::new(worker), spec).unwrap().run(journal(ledger)).unwrap()
}

fn resume(ledger: &TempLedger, run_id: &RunId, worker: Worker, spec: ResumeSpec) -> Result<RunOutcome, RunError> {
    let reading = journal(ledger);
    Runner::resume(reading.as_ref(), run_id, spec, |_, _, _| Ok(Box::new(worker)))?.run(journal(ledger))
}

fn stream(ledger: &TempLedger, run_id: &RunId) -> Vec<RecordedEvent> {
    ledger.log.reader().unwrap().read_stream(&StreamName::run(run_id), StreamVersion::EMPTY, Read::All).unwrap()
}

/// The run's events as a runner that is gone would have left them.
fn copy(events: &[RecordedEvent], into: &TempLedger) {
    for event in events {
        let json = event.content.json().unwrap();
        let at = json.find("\"pid_started_at\":").map(|at| at + "\"pid_started_at\":".len());
        let json = match at {
            Some(at) => {
                let end = at + json[at..].find(['}', ',']).unwrap();
                format!("{}1{}", &json[..at], &json[end..])
            }
            None => json.to_owned(),
        };
        let new = NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), event.metadata.clone()).unwrap();
        into.log.append(&event.stream, ExpectedVersion::Any, vec![new]).unwrap();
    }
}

fn iterations(events: &[RecordedEvent]) -> Vec<IterationState> {
    let mut iterations: Vec<IterationState> = Vec::new();
    for event in events {
        match IterationState::initial(event) {
            Some(begun) if iterations.iter().all(|known| known.iteration != begun.iteration) => iterations.push(begun),
            _ => iterations.iter_mut().for_each(|iteration| iteration.evolve(event)),
        }
    }
    iterations
}

#[test]
fn a_runner_that_died_after_any_event_is_taken_up_to_the_end_of_an_undisturbed_run() {
    let undisturbed = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let expected = begin(&undisturbed, project.path(), Worker::new(3), workflow(""));
    let run_id = expected.state.run_id.clone();
    let events = stream(&undisturbed, &run_id);
    let mut states = std::collections::HashSet::new();
    for count in 1..events.len() {
        let ledger = TempLedger::new();
        copy(&events[..count], &ledger);
        let (state, _) = WorkflowState::fold(&events[..count]).unwrap();
        states.insert(state.state);

        let outcome = resume(&ledger, &run_id, Worker::new(3), ResumeSpec::default()).unwrap();

        let told = stream(&ledger, &run_id);
        let (folded, illegal) = WorkflowState::fold(&told).unwrap();
        assert_eq!(illegal, [], "after {count} events");
        assert_eq!(folded, outcome.state);
        assert_eq!(outcome.state.status, RunStatus::Completed, "after {count} events");
        assert_eq!(outcome.state.iteration, expected.state.iteration, "after {count} events");
        assert_eq!(outcome.state.tokens, expected.state.tokens, "after {count} events");
        assert_eq!(outcome.state.adapter_session_ids, expected.state.adapter_session_ids);
        assert_eq!(outcome.state.term(), 2);
        let of_each: Vec<_> = iterations(&told).iter().map(|it| (it.iteration, it.outcome, it.tokens)).collect();
        let expected: Vec<_> = iterations(&events).iter().map(|it| (it.iteration, it.outcome, it.tokens)).collect();
        assert_eq!(of_each, expected, "after {count} events");
    }
    let all = [RunState::Starting, RunState::Running, RunState::Completing];
    assert!(all.iter().all(|state| states.contains(state)), "{states:?}");
}

#[test]
fn a_turn_that_was_cut_off_goes_on_in_its_harness_session_and_says_so() {
    let undisturbed = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let run_id = begin(&undisturbed, project.path(), Worker::new(2), workflow("")).state.run_id;
    let events = stream(&undisturbed, &run_id);
    // Up to where the second iteration has named its session.
    let cut = events.iter().rposition(|event| {
        matches!(&event.facts.data, KindFacts::WorkflowIteration(runledger_events::WorkflowIteration::Session(_)))
    });
    let ledger = TempLedger::new();
    copy(&events[..=cut.unwrap()], &ledger);
    let worker = Worker::new(2);
    let turns = worker.turns.clone();

    resume(&ledger, &run_id, worker, ResumeSpec::default()).unwrap();

    let turns = turns.lock().unwrap();
    assert_eq!(turns.len(), 1);
    assert_eq!(
        (turns[0].iteration, &turns[0].continuation),
        (2, &Continuation::Resume { handle: "adapter-2".to_owned() })
    );
    assert!(turns[0].prompt.starts_with("(This turn was cut off"), "{}", turns[0].prompt);
    let attempts: Vec<u32> = iterations(&stream(&ledger, &run_id)).iter().map(|iteration| iteration.attempt).collect();
    assert_eq!(attempts, [1, 2]);
}

#[test]
fn a_run_that_is_over_unknown_or_driven_is_not_taken_up_and_nothing_is_appended() {
    let ledger = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let over = begin(&ledger, project.path(), Worker::new(1), workflow("")).state.run_id;
    let head = ledger.log.reader().unwrap().head().unwrap();

    let error = resume(&ledger, &over, Worker::new(1), ResumeSpec::default()).unwrap_err();
    assert!(matches!(error, RunError::Resume(ResumeError::Over { .. })), "{error}");
    let unknown = RunId::new("no-such-run").unwrap();
    let error = resume(&ledger, &unknown, Worker::new(1), ResumeSpec::default()).unwrap_err();
    assert!(matches!(error, RunError::Resume(ResumeError::Unknown { .. })), "{error}");
    assert_eq!(ledger.log.reader().unwrap().head().unwrap(), head);

    // This very process drives the run that stands open here.
    let open = TempLedger::new();
    for event in &stream(&ledger, &over)[..3] {
        let new =
            NewEvent::new(RuntimeEvent::from_json(event.content.json().unwrap()).unwrap(), event.metadata.clone());
        open.log.append(&event.stream, ExpectedVersion::Any, vec![new.unwrap()]).unwrap();
    }
    let error = resume(&open, &over, Worker::new(1), ResumeSpec::default()).unwrap_err();
    assert!(matches!(error, RunError::Resume(ResumeError::Alive { .. })), "{error}");
    assert!(error.to_string().contains("--take-over"), "{error}");
    assert_eq!(open.log.reader().unwrap().head().unwrap().position, Position(3));
    let commands = Commands::open(open.log.clone()).unwrap();
    assert!(commands.interrupt_if_abandoned(&over).unwrap().is_none(), "its owner is at work");
    assert_eq!(open.log.reader().unwrap().head().unwrap().position, Position(3));
}

/// A harness whose first turn goes on until the desk says stop.
struct Slow {
    began: crossbeam_channel::Sender<()>,
    heard: Arc<Mutex<Vec<Stop>>>,
}

impl Harness for Slow {
    fn name(&self) -> &str {
        "worker"
    }

    fn run_turn(&mut self, _: &Turn, desk: &mut dyn TurnDesk) -> Result<TurnResult, HarnessError> {
        self.began.send(()).unwrap();
        loop {
            if let Err(stop) = desk.check() {
                self.heard.lock().unwrap().push(stop);
                return Ok(TurnResult::default());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn an_owner_that_was_only_slow_is_shut_out_by_the_newer_term_and_writes_nothing_more() {
    let ledger = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let (began, has_begun) = crossbeam_channel::bounded(1);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let spec = RunSpec { workflow: Some(workflow("")), ..RunSpec::new("do it", project.path()) };
    let slow = Runner::new(Box::new(Slow { began, heard: heard.clone() }), spec).unwrap();
    let run_id = slow.run_id().clone();
    let slow_journal = journal(&ledger);
    let slow = std::thread::spawn(move || slow.run(slow_journal));
    has_begun.recv().unwrap();

    let takes_over = ResumeSpec { takes_over: true, ..ResumeSpec::default() };
    let outcome = resume(&ledger, &run_id, Worker::new(2), takes_over).unwrap();

    let error = slow.join().unwrap().unwrap_err();
    assert!(matches!(error, RunError::Fenced { term: 2, .. }), "{error}");
    assert_eq!(*heard.lock().unwrap(), [Stop::Now]);
    assert_eq!(outcome.state.status, RunStatus::Completed);
    let events = stream(&ledger, &run_id);
    assert_eq!(events.last().unwrap().kind, EventKind::WorkflowEnd, "the slow one wrote nothing behind the end");
    let (state, illegal) = WorkflowState::fold(&events).unwrap();
    assert_eq!((state.iteration, illegal), (2, vec![]));
}

#[test]
fn of_two_that_take_a_run_up_at_once_one_drives_it() {
    let undisturbed = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let run_id = begin(&undisturbed, project.path(), Worker::new(2), workflow("")).state.run_id;
    let events = stream(&undisturbed, &run_id);
    for _ in 0..10 {
        let ledger = TempLedger::new();
        copy(&events[..4], &ledger);
        let worker = Worker::new(2);
        let turns = worker.turns.clone();
        let runners: Vec<_> = (0..2)
            .map(|_| {
                let reading = journal(&ledger);
                let again = worker.again();
                Runner::resume(reading.as_ref(), &run_id, ResumeSpec::default(), |_, _, _| Ok(Box::new(again))).unwrap()
            })
            .collect();
        let threads: Vec<_> = runners
            .into_iter()
            .map(|runner| {
                let journal = journal(&ledger);
                std::thread::spawn(move || runner.run(journal))
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();

        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        let lost = results.into_iter().find_map(Result::err).unwrap();
        assert!(
            matches!(
                lost,
                RunError::Fenced { .. } | RunError::Resume(ResumeError::Alive { .. } | ResumeError::Over { .. })
            ),
            "who lost is told of the winner: {lost}"
        );
        assert_eq!(turns.lock().unwrap().len(), 2, "no turn is made twice");
        let (state, illegal) = WorkflowState::fold(&stream(&ledger, &run_id)).unwrap();
        assert_eq!((state.status, state.iteration, illegal), (RunStatus::Completed, 2, vec![]));
    }
}

#[test]
fn a_failed_turn_is_tried_again_after_a_pause_that_is_in_the_log_and_does_not_count() {
    let ledger = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let worker = Worker::new(4);
    worker.fails.lock().unwrap().extend([1, 2]);
    let turns = worker.turns.clone();
    let config = workflow(r#","retry":{"max":2,"backoff_ms":1},"iteration_delay_ms":1"#);
    let config = WorkflowConfig {
        loop_config: config.loop_config.map(|config| runledger_workflow::LoopConfig { max_iterations: 2, ..config }),
        ..config
    };

    let outcome = begin(&ledger, project.path(), worker, config);

    assert_eq!(outcome.state.status, RunStatus::Completed);
    assert_eq!((outcome.state.iteration, outcome.state.carried.retries, outcome.state.counted_iterations()), (4, 2, 2));
    let events = stream(&ledger, &outcome.state.run_id);
    let timers: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.facts.data {
            KindFacts::TimerScheduled(timer) => Some(timer.timer.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(timers, ["backoff", "backoff", "delay"]);
    let fired = events.iter().filter(|event| event.kind == EventKind::TimerFired).count();
    assert_eq!(fired, 3);
    let turns = turns.lock().unwrap();
    assert_eq!(turns[1].continuation, Continuation::Resume { handle: "adapter-1".to_owned() });
    let prompts: Vec<&str> = turns.iter().map(|turn| turn.prompt.as_str()).collect();
    let again = "(The turn before failed. Look at what is done already, and go on from there.)\n\ndo it";
    let tracker = format!("{}.md", outcome.state.session_id);
    let next = format!("Continue the task. Read the tracker at {tracker} for current progress.");
    assert_eq!(prompts, ["do it", again, again, &next], "a retry is told what the iteration was that it is a retry of");
}

#[test]
fn failures_beyond_the_retries_in_a_row_fail_the_run() {
    let ledger = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let worker = Worker::new(9);
    worker.fails.lock().unwrap().extend([1, 3, 4]);

    let outcome = begin(&ledger, project.path(), worker, workflow(r#","retry":{"max":1}"#));

    assert_eq!(outcome.state.status, RunStatus::Failed);
    assert_eq!(outcome.state.stop_reason.as_deref(), Some("out of breath"));
    assert_eq!((outcome.state.iteration, outcome.state.carried.retries), (4, 2));
}

#[test]
fn a_pause_that_was_left_open_is_taken_up_from_the_log() {
    let ledger = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let worker = Worker::new(2);
    let run_id = begin(&ledger, project.path(), worker.again(), workflow(r#","iteration_delay_ms":1"#)).state.run_id;
    let events = stream(&ledger, &run_id);
    let scheduled = events.iter().position(|event| event.kind == EventKind::TimerScheduled).unwrap();
    let died = TempLedger::new();
    copy(&events[..=scheduled], &died);

    let outcome = resume(&died, &run_id, worker, ResumeSpec::default()).unwrap();

    assert_eq!((outcome.state.status, outcome.state.iteration), (RunStatus::Completed, 2));
    let told = stream(&died, &run_id);
    assert_eq!(told.iter().filter(|event| event.kind == EventKind::TimerFired).count(), 1);
}

#[test]
fn a_deadline_that_passed_while_nobody_drove_the_run_ends_it() {
    let ledger = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let spec = RunSpec {
        workflow: Some(workflow("")),
        timeout: Some(Duration::from_secs(3600)),
        ..RunSpec::new("do it", project.path())
    };
    let outcome = Runner::new(Box::new(Worker::new(2)), spec).unwrap().run(journal(&ledger)).unwrap();
    let events = stream(&ledger, &outcome.state.run_id);
    let died = TempLedger::new();
    let mut copied = events[..4].to_vec();
    for event in &mut copied {
        // An hour ago, not in an hour.
        let json = event.content.json().unwrap();
        let deadline = outcome.state.deadline_at.unwrap().0.to_string();
        event.content = runledger_events::Content::Json(json.replace(&deadline, "1000"));
    }
    copy(&copied, &died);
    let worker = Worker::new(2);
    let turns = worker.turns.clone();

    let outcome = resume(&died, &outcome.state.run_id, worker, ResumeSpec::default()).unwrap();

    assert_eq!((outcome.state.status, outcome.state.stop_reason.as_deref()), (RunStatus::Failed, Some("timeout")));
    assert_eq!(turns.lock().unwrap().len(), 0);
    let told = stream(&died, &outcome.state.run_id);
    assert!(told.iter().any(|event| event.kind == EventKind::TimerFired));
}

#[test]
fn a_run_that_nobody_drives_is_cancelled_at_once_and_a_signal_to_one_that_is_over_is_refused() {
    let undisturbed = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let run_id = begin(&undisturbed, project.path(), Worker::new(2), workflow("")).state.run_id;
    let events = stream(&undisturbed, &run_id);
    for count in 1..events.len() {
        let ledger = TempLedger::new();
        copy(&events[..count], &ledger);
        let commands = Commands::open(ledger.log.clone()).unwrap();

        let cancelled = commands.cancel(&run_id, "dev@host").unwrap();

        assert!(cancelled.is_over);
        let told = stream(&ledger, &run_id);
        assert_eq!(cancelled.receipts.len(), told.len() - count, "every event of it is told");
        let (state, illegal) = WorkflowState::fold(&told).unwrap();
        assert_eq!((state.status, illegal), (RunStatus::Cancelled, vec![]), "after {count} events");
        let head = ledger.log.reader().unwrap().head().unwrap();
        assert!(commands.signal(&run_id, &Signal::Pause, "dev@host").is_err());
        assert!(commands.cancel(&run_id, "dev@host").is_err());
        assert_eq!(ledger.log.reader().unwrap().head().unwrap(), head);
    }
}

#[test]
fn a_cancel_in_the_middle_of_a_busy_run_is_not_lost_to_a_version_conflict() {
    static SENT: AtomicU32 = AtomicU32::new(0);
    for at in 1..8 {
        let ledger = TempLedger::new();
        let project = tempfile::tempdir().unwrap();
        let spec = RunSpec { workflow: Some(workflow("")), ..RunSpec::new("do it", project.path()) };
        let runner = Runner::new(Box::new(Worker::new(u32::MAX)), spec).unwrap();
        let run_id = runner.run_id().clone();
        let appends = AtomicU32::new(0);
        let commands = Commands::open(ledger.log.clone()).unwrap();
        let before_append = move |_: &StreamName| {
            if appends.fetch_add(1, Ordering::Relaxed) == at {
                commands.signal(&run_id, &Signal::Cancel, "dev@host").unwrap();
            }
        };
        // Somebody cancels the run right before its n-th append.
        let busy = Meddled { inner: *journal(&ledger), before_append, after_look: || {} };

        let outcome = runner.run(Box::new(busy)).unwrap();

        SENT.fetch_add(1, Ordering::Relaxed);
        assert_eq!(outcome.state.status, RunStatus::Cancelled, "cancelled at append {at}");
        assert!(outcome.state.iteration <= 3, "it ended soon: {}", outcome.state.iteration);
    }
    assert_eq!(SENT.load(Ordering::Relaxed), 7);
}

/// A journal through which somebody else acts: before an append, or once the runner has looked at the run's stream.
struct Meddled<A, L> {
    inner: LedgerJournal,
    before_append: A,
    after_look: L,
}

impl<A: Fn(&StreamName) + Send, L: Fn() + Send> Journal for Meddled<A, L> {
    fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Vec<runledger_store::Receipt>, runledger_store::AppendError> {
        (self.before_append)(stream);
        self.inner.append(stream, expected, events)
    }

    fn read_stream(
        &self,
        stream: &StreamName,
        after: StreamVersion,
    ) -> Result<Vec<RecordedEvent>, runledger_store::ReadError> {
        self.inner.read_stream(stream, after)
    }

    fn read(&self, filter: &EventFilter, after: Position) -> Result<Vec<RecordedEvent>, runledger_store::ReadError> {
        self.inner.read(filter, after)
    }

    fn stream_version(&self, stream: &StreamName) -> Result<StreamVersion, runledger_store::StorageError> {
        let version = self.inner.stream_version(stream)?;
        (self.after_look)();
        Ok(version)
    }

    fn log_id(&self) -> LogId {
        self.inner.log_id()
    }
}

#[test]
fn a_named_signal_is_told_by_the_next_prompt_and_a_pause_holds_the_next_turn() {
    let ledger = TempLedger::new();
    let project = tempfile::tempdir().unwrap();
    let worker = Worker::new(3);
    let turns = worker.turns.clone();
    let spec = RunSpec { workflow: Some(workflow("")), ..RunSpec::new("do it", project.path()) };
    let runner = Runner::new(Box::new(worker), spec).unwrap();
    let run_id = runner.run_id().clone();
    let metadata = Metadata { run_id: Some(run_id.clone()), ..Metadata::default() };
    assert!(metadata.session_id.is_none());
    // Right before the first iteration ends, somebody tells it two things.
    let log = ledger.log.clone();
    let signal = move |signal: &Signal| {
        Commands::open(log.clone()).unwrap().signal(&run_id, signal, "dev@host").unwrap();
    };
    let signal = Arc::new(signal);
    let (is_told, told_by) = (Mutex::new(false), signal.clone());
    let before_append = move |stream: &StreamName| {
        let mut is_told = is_told.lock().unwrap();
        if stream.session_id().is_some() && !*is_told {
            *is_told = true;
            told_by(&Signal::of("reviewed", Some(r#"{"by":"jo"}"#.to_owned())));
            told_by(&Signal::Pause);
        }
    };
    // Between the turns the runner looks at its stream, again and again: then it is let go on.
    let (log, stream_of_run) = (ledger.log.clone(), StreamName::run(runner.run_id()));
    let after_look = move || {
        let events = log.reader().unwrap().read_stream(&stream_of_run, StreamVersion::EMPTY, Read::Facts).unwrap();
        let (state, _) = WorkflowState::fold(&events).unwrap();
        if state.pause_requested && !state.iteration_is_open {
            signal(&Signal::Resume);
        }
    };
    let told = Meddled { inner: *journal(&ledger), before_append, after_look };

    let outcome = runner.run(Box::new(told)).unwrap();

    assert_eq!(outcome.state.status, RunStatus::Completed);
    let turns = turns.lock().unwrap();
    assert!(
        turns[1].prompt.ends_with("Signals that came meanwhile:\n- reviewed: {\"by\":\"jo\"}"),
        "{}",
        turns[1].prompt
    );
    assert!(!turns[2].prompt.contains("Signals"), "told once: {}", turns[2].prompt);
    let events = stream(&ledger, &outcome.state.run_id);
    let resumed = events.iter().position(|event| intent(event) == Some("workflow_resume")).unwrap();
    let second = events.iter().position(|event| {
        matches!(&event.facts.data,
        KindFacts::WorkflowIteration(runledger_events::WorkflowIteration::Start(start)) if start.iteration == 2)
    });
    assert!(second.unwrap() > resumed, "no turn began while it was paused");
}

fn intent(event: &RecordedEvent) -> Option<&str> {
    match &event.facts.data {
        KindFacts::Decision(decision) => decision.intent.as_deref(),
        _ => None,
    }
}

/// A journal of an engine with leases.
struct Leased {
    journal: Box<LedgerJournal>,
    is_held: Option<bool>,
    /// What was held, and whether it was asked about.
    names: Arc<Mutex<Vec<String>>>,
}

impl Journal for Leased {
    fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Vec<runledger_store::Receipt>, runledger_store::AppendError> {
        self.journal.append(stream, expected, events)
    }

    fn read_stream(
        &self,
        stream: &StreamName,
        after: StreamVersion,
    ) -> Result<Vec<RecordedEvent>, runledger_store::ReadError> {
        self.journal.read_stream(stream, after)
    }

    fn read(&self, filter: &EventFilter, after: Position) -> Result<Vec<RecordedEvent>, runledger_store::ReadError> {
        self.journal.read(filter, after)
    }

    fn stream_version(&self, stream: &StreamName) -> Result<StreamVersion, runledger_store::StorageError> {
        self.journal.stream_version(stream)
    }

    fn log_id(&self) -> LogId {
        self.journal.log_id()
    }

    fn hold(&self, name: &str, _: &str) -> Result<Option<runledger_store::Lease>, runledger_store::StorageError> {
        self.names.lock().unwrap().push(format!("holds {name}"));
        Ok(Some(runledger_store::Lease::new(())))
    }

    fn is_held(&self, name: &str) -> Result<Option<bool>, runledger_store::StorageError> {
        self.names.lock().unwrap().push(format!("is held {name}"));
        Ok(self.is_held)
    }
}

#[test]
fn an_owner_on_another_machine_keeps_its_run_as_long_as_it_holds_its_lease() {
    let (undisturbed, project) = (TempLedger::new(), tempfile::tempdir().unwrap());
    let whole = begin(&undisturbed, project.path(), Worker::new(2), workflow(""));
    let run_id = whole.state.run_id;
    // Given a run that another machine began, and has not ended.
    let ledger = TempLedger::new();
    for event in &stream(&undisturbed, &run_id)[..3] {
        let json = event.content.json().unwrap();
        let json = match json.find("\"host\":\"") {
            Some(at) => {
                let end = at + 8 + json[at + 8..].find('"').unwrap();
                format!("{}\"host\":\"elsewhere{}", &json[..at], &json[end..])
            }
            None => json.to_owned(),
        };
        let new = NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), event.metadata.clone()).unwrap();
        ledger.log.append(&event.stream, ExpectedVersion::Any, vec![new]).unwrap();
    }
    let names: Arc<Mutex<Vec<String>>> = Arc::default();
    let leased = |is_held| Leased { journal: journal(&ledger), is_held, names: names.clone() };
    let taken_up = |is_held| {
        let runner =
            Runner::resume(&leased(is_held), &run_id, ResumeSpec::default(), |_, _, _| Ok(Box::new(Worker::new(2))))?;
        runner.run(Box::new(leased(is_held)))
    };
    // When it is looked at from here, then it is at work, or it cannot be known, or it is gone.
    assert!(
        matches!(taken_up(Some(true)), Err(RunError::Resume(ResumeError::Alive { host, .. })) if host == "elsewhere")
    );
    assert!(matches!(taken_up(None), Err(RunError::Resume(ResumeError::OwnerUnknown { .. }))));
    names.lock().unwrap().clear();
    let outcome = taken_up(Some(false)).unwrap();
    assert_eq!((outcome.state.status, outcome.state.term()), (RunStatus::Completed, 2));
    let asked = format!("is held {run_id}.1");
    assert_eq!(*names.lock().unwrap(), [asked.clone(), asked, format!("holds {run_id}.2")]);
}
