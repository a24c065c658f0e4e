//! The runner beside others: a log that refuses, a stranger's event in its stream, a newer owner; and `decide` under
//! random commands.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use runledger_events::{
    Content, Continuation, EventId, EventKind, Facts, IterationOutcome, KindFacts, LogId, Metadata, Position,
    RecordedEvent, RunId, RunState, RunStatus, RuntimeEvent, SessionId, StreamName, StreamVersion, TimestampMs, Tokens,
    TrackerFacts, WorkflowStart, WorkflowState, WorkflowTransition, event_json,
};
use runledger_store::{
    AppendError, EventFilter, EventLog, ExpectedVersion, NewEvent, Read, ReadError, Receipt, StorageError,
};
use runledger_testkit::{ScriptedHarness, TempLedger};
use runledger_workflow::{
    Command, Extra, Journal, LedgerJournal, RunError, RunSpec, Runner, Stop, StopCause, TrackerReading, Turn, TurnDesk,
    TurnReport, TurnResult, Verdict, current_owner, decide,
};

type Script = dyn FnMut(&Turn, &mut dyn TurnDesk) -> Result<TurnResult, runledger_workflow::HarnessError> + Send;

/// A runner of one turn, in a project directory of its own.
fn runner(patience: Duration, script: Box<Script>) -> (Runner, tempfile::TempDir) {
    let project = tempfile::tempdir().unwrap();
    let spec = RunSpec { append_patience: patience, ..RunSpec::new("do it", project.path()) };
    (Runner::new(Box::new(ScriptedHarness(script)), spec).unwrap(), project)
}

fn journal(ledger: &TempLedger) -> Box<LedgerJournal> {
    Box::new(LedgerJournal::open(ledger.log.clone()).unwrap())
}

fn stream(ledger: &TempLedger, run_id: &RunId) -> Vec<RecordedEvent> {
    ledger.log.reader().unwrap().read_stream(&StreamName::run(run_id), StreamVersion::EMPTY, Read::All).unwrap()
}

fn kinds(events: &[RecordedEvent]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

fn message(text: &str) -> RuntimeEvent {
    let json = format!(r#"{{"kind":"message.complete","data":{{"message":"{text}"}}}}"#);
    RuntimeEvent::from_json(&json).unwrap()
}

/// A journal that takes so many appends, then refuses so many.
struct RefusingJournal {
    inner: LedgerJournal,
    appends: AtomicU64,
    takes: u64,
    refuses: u64,
    /// Whether a refused append was made all the same, as when the answer is lost.
    is_made_all_the_same: bool,
}

impl Journal for RefusingJournal {
    fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Receipt>, AppendError> {
        let number = self.appends.fetch_add(1, Ordering::Relaxed);
        if number >= self.takes && number - self.takes < self.refuses {
            if self.is_made_all_the_same {
                self.inner.append(stream, expected, events)?;
            }
            let path = PathBuf::from("ledger.db");
            return Err(AppendError::Storage(StorageError::Full { path, doing: "appending" }));
        }
        self.inner.append(stream, expected, events)
    }

    fn read_stream(&self, stream: &StreamName, after: StreamVersion) -> Result<Vec<RecordedEvent>, ReadError> {
        self.inner.read_stream(stream, after)
    }

    fn read(&self, filter: &EventFilter, after: Position) -> Result<Vec<RecordedEvent>, ReadError> {
        self.inner.read(filter, after)
    }

    fn stream_version(&self, stream: &StreamName) -> Result<StreamVersion, StorageError> {
        self.inner.stream_version(stream)
    }

    fn log_id(&self) -> LogId {
        self.inner.log_id()
    }
}

#[test]
fn a_log_that_keeps_refusing_while_a_turn_runs_stops_the_run_and_loses_nothing_acknowledged() {
    let ledger = TempLedger::new();
    let (runner, _project) = runner(
        Duration::from_millis(60),
        Box::new(|_, desk| {
            assert_eq!(desk.record(vec![message("acknowledged")]), Ok(()));
            assert_eq!(desk.record(vec![message("refused")]), Err(Stop::Now), "the harness is to end at once");
            assert_eq!(desk.check(), Err(Stop::Now), "and is told so again");
            Ok(TurnResult::default())
        }),
    );
    let run_id = runner.run_id().clone();
    let inner = LedgerJournal::open(ledger.log.clone()).unwrap();
    // The start, the iteration's start, and one message are taken.
    let refusing =
        RefusingJournal { inner, appends: AtomicU64::new(0), takes: 3, refuses: u64::MAX, is_made_all_the_same: false };

    let error = runner.run(Box::new(refusing)).unwrap_err();

    assert!(matches!(&error, RunError::Append { source: AppendError::Storage(_), .. }), "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    let reader = ledger.log.reader().unwrap();
    let events = reader
        .read(&runledger_store::EventFilter::default(), Position::START, Position(99), 99, Read::All)
        .unwrap()
        .events;
    assert_eq!(kinds(&events), ["workflow.start", "workflow.transition", "workflow.iteration", "message.complete"]);
    let (state, _) = WorkflowState::fold(&stream(&ledger, &run_id)).unwrap();
    assert_eq!((state.status, state.iteration, state.iteration_is_open), (RunStatus::Running, 1, true));
}

#[test]
fn an_append_whose_answer_was_lost_is_tried_again_and_not_doubled() {
    for takes in 0..6 {
        let ledger = TempLedger::new();
        let (runner, _project) = runner(
            Duration::from_secs(30),
            Box::new(|_, desk| {
                desk.record(vec![message("one"), message("two")]).unwrap();
                Ok(TurnResult { exit_code: Some(0), ..TurnResult::default() })
            }),
        );
        let inner = LedgerJournal::open(ledger.log.clone()).unwrap();
        let refusing =
            RefusingJournal { inner, appends: AtomicU64::new(0), takes, refuses: 2, is_made_all_the_same: true };

        let outcome = runner.run(Box::new(refusing)).unwrap();

        assert_eq!(outcome.status(), RunStatus::Completed);
        assert_eq!(ledger.log.reader().unwrap().head().unwrap().position, Position(8), "lost answer {takes}");
    }
}

/// Appends to a run's stream as another process would.
fn append_to_run(log: &dyn EventLog, run_id: &RunId, json: &str) {
    let metadata = Metadata { run_id: Some(run_id.clone()), ..Metadata::default() };
    let event = NewEvent::new(RuntimeEvent::from_json(json).unwrap(), metadata).unwrap();
    log.append(&StreamName::run(run_id), ExpectedVersion::Any, vec![event]).unwrap();
}

#[test]
fn a_strangers_event_in_the_stream_is_read_and_the_step_decided_anew() {
    let ledger = TempLedger::new();
    let log = ledger.log.clone();
    let (runner, _project) = runner(
        Duration::from_secs(30),
        Box::new(move |turn, _| {
            let run_id = RunId::new(turn.env["RUNLEDGER_RUN_ID"].clone()).unwrap();
            append_to_run(&*log, &run_id, r#"{"kind":"note.of.a.stranger","data":{}}"#);
            Ok(TurnResult { exit_code: Some(0), ..TurnResult::default() })
        }),
    );
    let run_id = runner.run_id().clone();

    let outcome = runner.run(journal(&ledger)).unwrap();

    assert_eq!(outcome.status(), RunStatus::Completed);
    let events = stream(&ledger, &run_id);
    assert_eq!(
        kinds(&events),
        [
            "workflow.start",
            "workflow.transition",
            "workflow.iteration",
            "note.of.a.stranger",
            "workflow.iteration",
            "workflow.transition",
            "workflow.end"
        ]
    );
    let (state, illegal) = WorkflowState::fold(&events).unwrap();
    assert_eq!((state.state, illegal), (RunState::Done, vec![]));
}

#[test]
fn a_request_to_cancel_in_the_stream_ends_the_run_in_the_middle_of_a_turn() {
    let ledger = TempLedger::new();
    let log = ledger.log.clone();
    let (runner, _project) = runner(
        Duration::from_secs(30),
        Box::new(move |turn, desk| {
            let run_id = RunId::new(turn.env["RUNLEDGER_RUN_ID"].clone()).unwrap();
            let signal =
                r#"{"eventId":"any","decision":{"type":"json","source":"user","intent":{"kind":"workflow_cancel"}}}"#;
            append_to_run(&*log, &run_id, signal);
            while desk.check().is_ok() {
                std::thread::yield_now();
            }
            assert_eq!(desk.check(), Err(Stop::Cancelled));
            Ok(TurnResult::default())
        }),
    );

    let outcome = runner.run(journal(&ledger)).unwrap();

    assert_eq!(outcome.status(), RunStatus::Cancelled);
}

#[test]
fn a_newer_owner_fences_the_runner_off_and_it_writes_nothing_more() {
    let ledger = TempLedger::new();
    let log = ledger.log.clone();
    let (runner, _project) = runner(
        Duration::from_secs(30),
        Box::new(move |turn, desk| {
            let run_id = RunId::new(turn.env["RUNLEDGER_RUN_ID"].clone()).unwrap();
            let facts = KindFacts::WorkflowTransition(WorkflowTransition {
                from: RunState::Running,
                to: RunState::Running,
                status: RunStatus::Running,
                reason: Some("taken over".to_owned()),
                owner: Some(current_owner(2, log.log_id().clone())),
            });
            let id = EventId::new("takeover").unwrap();
            let json = event_json(&id, TimestampMs(1), &facts, &Extra::default()).unwrap();
            append_to_run(&*log, &run_id, &json);
            while desk.check().is_ok() {
                std::thread::yield_now();
            }
            assert_eq!(desk.check(), Err(Stop::Now), "the harness is to end at once");
            Ok(TurnResult { exit_code: Some(0), ..TurnResult::default() })
        }),
    );
    let run_id = runner.run_id().clone();

    let error = runner.run(journal(&ledger)).unwrap_err();

    assert!(matches!(error, RunError::Fenced { term: 2, .. }), "{error}");
    assert_eq!(stream(&ledger, &run_id).last().unwrap().id.as_str(), "takeover");
}

#[test]
fn a_harness_that_uses_an_id_twice_loses_neither_event() {
    let ledger = TempLedger::new();
    let event = |text: &str| {
        let json = format!(r#"{{"id":"same","timestamp":1,"kind":"message.complete","data":{{"message":"{text}"}}}}"#);
        RuntimeEvent::from_json(&json).unwrap()
    };
    let (runner, _project) = runner(
        Duration::from_secs(30),
        Box::new(move |_, desk| {
            desk.record(vec![event("one"), message("between"), event("two")]).unwrap();
            desk.record(vec![event("three")]).unwrap();
            Ok(TurnResult { exit_code: Some(0), ..TurnResult::default() })
        }),
    );
    let session = StreamName::session(runner.session_id());

    runner.run(journal(&ledger)).unwrap();

    let reader = ledger.log.reader().unwrap();
    let told = reader.read_stream(&session, StreamVersion::EMPTY, Read::All).unwrap();
    let texts: Vec<String> = told
        .iter()
        .map(|event| serde_json::from_str::<serde_json::Value>(event.content.json().unwrap()).unwrap())
        .map(|json| json["data"]["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["one", "between", "two", "three"]);
}

/// The events of a decision, as the log would hand them back.
fn record(facts: KindFacts, position: &mut u64) -> RecordedEvent {
    *position += 1;
    let kind = match &facts {
        KindFacts::WorkflowStart(_) => EventKind::WorkflowStart,
        KindFacts::WorkflowTransition(_) => EventKind::WorkflowTransition,
        KindFacts::WorkflowIteration(_) => EventKind::WorkflowIteration,
        _ => EventKind::WorkflowEnd,
    };
    RecordedEvent {
        position: Position(*position),
        stream: StreamName::new("run/r").unwrap(),
        stream_version: StreamVersion(*position),
        id: EventId::new(format!("e{position}")).unwrap(),
        kind,
        occurred_at: TimestampMs(i64::try_from(*position).unwrap()),
        recorded_at: TimestampMs(0),
        metadata: Metadata::default(),
        facts: Facts { data: facts, ..Facts::default() },
        content: Content::NotRead,
    }
}

fn start(max_iterations: u32, has_tracker: bool) -> Command {
    Command::Start {
        start: Box::new(WorkflowStart {
            run_id: RunId::new("r").unwrap(),
            session_id: SessionId::new("s").unwrap(),
            workflow_name: None,
            harness: None,
            max_iterations,
            tracker_path: has_tracker.then(|| "tracker.md".to_owned()),
            parent_run_id: None,
            forked_at: None,
            attempt: 1,
            deadline_at: None,
            owner: None,
            forked_from: None,
            iteration: 0,
            policy: None,
        }),
        extra: Extra::default(),
    }
}

fn reports() -> impl Strategy<Value = TurnReport> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Open),
        1 => Just(Verdict::Complete),
        1 => Just(Verdict::Blocked(None)),
    ];
    let tracker = proptest::option::weighted(0.9, (verdict, any::<bool>()));
    let stopped = proptest::option::weighted(0.1, prop_oneof![Just(StopCause::Cancelled), Just(StopCause::TimedOut)]);
    let exit_code = prop_oneof![5 => Just(Some(0)), 1 => Just(Some(3)), 1 => Just(None)];
    (tracker, stopped, exit_code, proptest::option::weighted(0.1, ".{0,5000}")).prop_map(
        |(tracker, stopped, exit_code, error)| TurnReport {
            exit_code,
            error,
            tokens: Tokens { input: Some(1), ..Tokens::default() },
            tracker: tracker.map(|(verdict, is_skeleton)| TrackerReading {
                facts: TrackerFacts { digest: String::new(), bytes: 0, is_whole: true },
                text: String::new(),
                is_skeleton: is_skeleton && verdict == Verdict::Open,
                verdict,
            }),
            stopped,
            ..TurnReport::default()
        },
    )
}

fn commands() -> impl Strategy<Value = Command> {
    let begin = || Command::BeginIteration { continuation: Continuation::Fresh, extra: Extra::default() };
    prop_oneof![
        4 => Just(()).prop_map(move |()| begin()),
        4 => reports().prop_map(|report| Command::EndIteration(Box::new(report))),
        1 => Just(()).prop_map(|()| Command::NameSession("a".parse().unwrap())),
        1 => Just(Command::Stop(StopCause::Cancelled)),
        1 => Just(Command::Stop(StopCause::TimedOut)),
        1 => Just(()).prop_map(|()| start(3, true)),
    ]
}

proptest! {
    #[test]
    fn whatever_is_asked_the_events_decided_follow_on_the_state_and_an_end_is_final(
        max_iterations in 0_u32..4,
        has_tracker in any::<bool>(),
        asked in proptest::collection::vec(commands(), 0..40),
    ) {
        let mut position = 0;
        let begun = decide(None, &start(max_iterations, has_tracker)).unwrap();
        let first = record(begun[0].facts.clone(), &mut position);
        let mut state = WorkflowState::initial(&first).unwrap();
        for command in asked {
            let before = state.clone();
            match decide(Some(&state), &command) {
                Err(_) => prop_assert_eq!(&state, &before),
                Ok(decided) => {
                    prop_assert!(before.state != RunState::Done, "nothing follows on an end");
                    for event in decided {
                        let event = record(event.facts, &mut position);
                        prop_assert_eq!(state.evolve(&event), Ok(()));
                    }
                }
            }
            prop_assert!(state.iteration <= max_iterations.max(1), "the limit holds");
            prop_assert_eq!(state.state == RunState::Done, state.status.is_final());
            if state.status == RunStatus::Exhausted {
                prop_assert_eq!(state.iteration, max_iterations.max(1));
            }
            prop_assert!(state.stop_reason.as_ref().is_none_or(|reason| reason.len() <= 2048), "facts are small");
        }
    }
}

#[test]
fn a_report_of_each_sort_has_its_outcome() {
    let tracker = |verdict| TrackerReading {
        facts: TrackerFacts { digest: String::new(), bytes: 0, is_whole: true },
        text: String::new(),
        is_skeleton: false,
        verdict,
    };
    let table = [
        (TurnReport { tracker: Some(tracker(Verdict::Open)), ..TurnReport::default() }, IterationOutcome::Continue),
        (
            TurnReport { tracker: Some(tracker(Verdict::Complete)), ..TurnReport::default() },
            IterationOutcome::Completed,
        ),
        (
            TurnReport { tracker: Some(tracker(Verdict::Blocked(None))), ..TurnReport::default() },
            IterationOutcome::Blocked,
        ),
        (TurnReport::default(), IterationOutcome::TrackerMissing),
        (TurnReport { exit_code: Some(1), ..TurnReport::default() }, IterationOutcome::Failed),
        (TurnReport { stopped: Some(StopCause::TimedOut), ..TurnReport::default() }, IterationOutcome::TimedOut),
        (TurnReport { stopped: Some(StopCause::Cancelled), ..TurnReport::default() }, IterationOutcome::Cancelled),
    ];
    for (report, expected) in table {
        let mut position = 0;
        let begun = decide(None, &start(5, true)).unwrap();
        let mut state = WorkflowState::initial(&record(begun[0].facts.clone(), &mut position)).unwrap();
        let begin = Command::BeginIteration { continuation: Continuation::Fresh, extra: Extra::default() };
        for event in decide(Some(&state), &begin).unwrap() {
            state.evolve(&record(event.facts, &mut position)).unwrap();
        }
        let ended = decide(Some(&state), &Command::EndIteration(Box::new(report))).unwrap();
        let KindFacts::WorkflowIteration(runledger_events::WorkflowIteration::End(end)) = &ended[0].facts else {
            panic!("the first event ends the iteration");
        };
        assert_eq!(end.outcome, expected);
    }
}

#[test]
fn a_tracker_outside_the_project_is_refused_before_anything_is_written() {
    let place = tempfile::tempdir().unwrap();
    let project = place.path().join("project");
    std::fs::create_dir(&project).unwrap();
    std::os::unix::fs::symlink(place.path(), project.join("out")).unwrap();
    std::os::unix::fs::symlink(place.path().join("nowhere"), project.join("dangling")).unwrap();
    let paths = ["../t.md", "/tmp/t.md", "a/../../t.md", "out/t.md", "dangling", "dangling/t.md", ".", "a/.."];
    for path in paths {
        let workflow = format!(r#"{{"name":"w","loop":{{"trackerPath":"{path}"}}}}"#);
        let spec = RunSpec {
            workflow: Some(runledger_workflow::WorkflowConfig::parse(&workflow).unwrap()),
            ..RunSpec::new("x", &project)
        };
        let error = Runner::new(Box::new(ScriptedHarness(Box::new(|_, _| unreachable!()))), spec).unwrap_err();
        assert!(error.to_string().contains("leads out of the project directory"), "{path}: {error}");
        assert_eq!(std::fs::read_dir(&project).unwrap().count(), 2, "{path}: nothing is written");
    }
}
