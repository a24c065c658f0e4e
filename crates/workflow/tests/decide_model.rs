//! Random commands and crashes: the state folded from the log is what a naive model says, and nothing that was decided is
//! illegal to the fold.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use runledger_events::{
    AdapterSessionId, Continuation, DenyRetry, EventId, FailureRetry, LogId, Metadata, OnDeny, Owner, PermissionPolicy,
    ProcessId, RequestId, RunId, RunPolicy, RunState, RunStatus, RuntimeEvent, SessionId, StreamName, StreamVersion,
    TimestampMs, Tokens, TrackerFacts, WorkflowStart, WorkflowState, event_json,
};
use runledger_store::{ExpectedVersion, NewEvent, Read};
use runledger_testkit::TempLedger;
use runledger_workflow::{
    Command, Decided, Deferral, Denial, Extra, RunContext, StopCause, TakeOver, TrackerReading, TurnReport, Verdict,
    decide,
};

/// What somebody does.
#[derive(Debug, Clone)]
enum Step {
    /// The runner does the next thing, and the log takes it.
    Do(Command),
    /// It decides and dies before the log has it.
    DieDeciding(Command),
    /// Somebody decides something for the whole run.
    Grant(bool),
    Cancel,
}

/// A run as one would keep it in one's head.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    state: RunState,
    status: RunStatus,
    iteration: u32,
    /// A turn of the iteration runs.
    turn: bool,
    /// The iteration waits for an answer.
    waits: bool,
    /// The last iteration was cut off.
    cut: bool,
    /// The last iteration's end leads to another try.
    retry: bool,
    retries: u32,
    in_a_row: u32,
    /// What iterations cost.
    input: u64,
    /// When the next turn is due; turns end at 0.
    timer: Option<i64>,
    term: u64,
    sessions: usize,
    grants: Vec<bool>,
    cancel: bool,
}

const BACKOFF_MS: i64 = 7;
const DELAY_MS: i64 = 5;
const MAX_ITERATIONS: u32 = 3;
const MAX_DENY_RETRIES: u32 = 2;
const MAX_FAIL_RETRIES: u32 = 3;

impl Model {
    fn new() -> Self {
        Self {
            state: RunState::Starting,
            status: RunStatus::Running,
            iteration: 0,
            turn: false,
            waits: false,
            cut: false,
            retry: false,
            retries: 0,
            in_a_row: 0,
            input: 0,
            timer: None,
            term: 1,
            sessions: 0,
            grants: Vec::new(),
            cancel: false,
        }
    }

    fn end(&mut self, status: RunStatus) {
        (self.state, self.status, self.timer) = (RunState::Done, status, None);
        (self.turn, self.waits) = (false, false);
    }

    /// Does what is asked; false where it does not fit.
    fn apply(&mut self, command: &Command) -> bool {
        use RunState::{Idle, Running, Starting};
        let is_driven = matches!(self.state, Starting | Running);
        match command {
            Command::Start { .. } => return false,
            Command::BeginIteration { .. } => {
                if !is_driven || self.turn || self.waits {
                    return false;
                }
                self.state = Running;
                if !self.cut {
                    self.iteration += 1;
                    self.in_a_row = if self.retry { self.in_a_row + 1 } else { 0 };
                    self.retries += u32::from(self.retry);
                }
                (self.turn, self.cut, self.timer) = (true, false, None);
            }
            Command::NameSession(_) => {
                self.sessions = self.sessions.max(usize::from(self.turn));
                return self.turn;
            }
            Command::NoteProcess(_) => return self.turn,
            Command::Defer(deferral) => {
                if !self.turn {
                    return false;
                }
                (self.turn, self.waits) = (false, true);
                self.input += deferral.tokens.input.unwrap();
            }
            Command::Continue => {
                if !self.waits {
                    return false;
                }
                (self.turn, self.waits) = (true, false);
            }
            Command::EndIteration(report) => {
                if !self.turn {
                    return false;
                }
                self.turn = false;
                self.judge(report);
            }
            Command::Stop(cause) => {
                if !is_driven || self.turn {
                    return false;
                }
                // An iteration that waited ends with the run.
                self.retry &= !self.waits;
                self.end(if *cause == StopCause::Cancelled { RunStatus::Cancelled } else { RunStatus::Failed });
            }
            Command::Interrupt(_) => {
                if !is_driven {
                    return false;
                }
                self.interrupt();
            }
            Command::TakeOver(take_over) => {
                if self.state == RunState::Done || take_over.owner.term <= self.term {
                    return false;
                }
                if take_over.is_forced && self.state != Idle {
                    self.interrupt();
                }
                if self.state == Idle {
                    (self.state, self.status) = (Starting, RunStatus::Running);
                }
                self.term = take_over.owner.term;
            }
        }
        true
    }

    fn interrupt(&mut self) {
        self.cut |= self.turn || self.waits;
        (self.turn, self.waits) = (false, false);
        (self.state, self.status) = (RunState::Idle, RunStatus::Interrupted);
    }

    fn judge(&mut self, report: &TurnReport) {
        let stopped = report.stopped.or(self.cancel.then_some(StopCause::Cancelled));
        if stopped != Some(StopCause::Cancelled) {
            self.input += report.tokens.input.unwrap();
        }
        self.retry = false;
        match stopped {
            Some(StopCause::Cancelled) => return self.end(RunStatus::Cancelled),
            Some(StopCause::TimedOut) => return self.end(RunStatus::Failed),
            None => {}
        }
        let failed = report.error.is_some();
        if !report.denied.is_empty() && self.in_a_row < MAX_DENY_RETRIES {
            self.retry = true;
            self.timer = None;
        } else if failed && self.in_a_row < MAX_FAIL_RETRIES {
            self.retry = true;
            // Each in a row waits twice as long.
            self.timer = Some(BACKOFF_MS << self.in_a_row);
        } else if failed {
            self.end(RunStatus::Failed);
        } else {
            match &report.tracker.as_ref().unwrap().verdict {
                Verdict::Complete => self.end(RunStatus::Completed),
                Verdict::Blocked(_) => self.end(RunStatus::Blocked),
                Verdict::Open if self.iteration - self.retries >= MAX_ITERATIONS => self.end(RunStatus::Exhausted),
                Verdict::Open => self.timer = Some(DELAY_MS),
            }
        }
    }

    fn of(state: &WorkflowState) -> Self {
        Self {
            state: state.state,
            status: state.status,
            iteration: state.iteration,
            turn: state.iteration_is_open && state.waiting_for.is_none(),
            waits: state.waiting_for.is_some(),
            cut: state.iteration_was_cut,
            retry: state.last_end.as_ref().is_some_and(|end| end.retry.is_some()),
            retries: state.carried.retries,
            in_a_row: state.carried.retries_in_a_row,
            input: state.tokens.input.unwrap_or(0),
            timer: state.timer.as_ref().map(|timer| timer.due_at.0),
            term: state.term(),
            sessions: state.adapter_session_ids.len(),
            grants: state.carried.grants.iter().map(|grant| grant.is_allowed).collect(),
            cancel: state.cancel_requested,
        }
    }
}

fn owner(term: u64) -> Owner {
    Owner {
        term,
        log_id: LogId::new("log").unwrap(),
        host: "host".to_owned(),
        boot_id: None,
        pid: 1,
        pid_started_at: None,
    }
}

fn start() -> Command {
    let permissions = PermissionPolicy {
        on_deny: Some(OnDeny { retry: DenyRetry { max: MAX_DENY_RETRIES, feedback: None } }),
        ..PermissionPolicy::default()
    };
    let policy = RunPolicy {
        permissions: Some(permissions),
        retry: Some(FailureRetry { max: MAX_FAIL_RETRIES, backoff_ms: BACKOFF_MS as u64 }),
        iteration_delay_ms: DELAY_MS as u64,
    };
    Command::Start {
        start: Box::new(WorkflowStart {
            run_id: RunId::new("r").unwrap(),
            session_id: SessionId::new("s").unwrap(),
            workflow_name: None,
            harness: None,
            max_iterations: MAX_ITERATIONS,
            tracker_path: Some("tracker.md".to_owned()),
            parent_run_id: None,
            forked_at: None,
            attempt: 1,
            deadline_at: Some(TimestampMs(9)),
            owner: Some(owner(1)),
            forked_from: None,
            iteration: 0,
            policy: Some(policy),
        }),
        extra: Extra::default(),
    }
}

fn reports() -> impl Strategy<Value = TurnReport> {
    let verdict =
        prop_oneof![6 => Just(Verdict::Open), 1 => Just(Verdict::Complete), 1 => Just(Verdict::Blocked(None))];
    let stopped = proptest::option::weighted(0.08, prop_oneof![Just(StopCause::Cancelled), Just(StopCause::TimedOut)]);
    (verdict, stopped, any::<bool>(), any::<bool>(), 0_u64..9).prop_map(|(verdict, stopped, fails, denies, input)| {
        let denial = Denial { event_id: EventId::new("d").unwrap(), words: "Bash(git push)".to_owned() };
        TurnReport {
            error: fails.then(|| "broken".to_owned()),
            tokens: Tokens { input: Some(input), ..Tokens::default() },
            tracker: Some(TrackerReading {
                facts: TrackerFacts { digest: String::new(), bytes: 0, is_whole: true },
                text: String::new(),
                is_skeleton: false,
                verdict,
            }),
            stopped,
            denied: denies.then_some(denial).into_iter().collect(),
            ..TurnReport::default()
        }
    })
}

fn commands() -> impl Strategy<Value = Command> {
    let begin = || Command::BeginIteration { continuation: Continuation::Fresh, extra: Extra::default() };
    let process = ProcessId { host: "h".to_owned(), boot_id: None, pid: 2, pid_started_at: None };
    prop_oneof![
        5 => Just(()).prop_map(move |()| begin()),
        5 => reports().prop_map(|report| Command::EndIteration(Box::new(report))),
        1 => Just(Command::NameSession(AdapterSessionId::new("a").unwrap())),
        1 => Just(Command::NoteProcess(process)),
        2 => (0_u64..9).prop_map(|input| Command::Defer(Box::new(Deferral {
            request_id: RequestId::new("a:t").unwrap(),
            tokens: Tokens { input: Some(input), ..Tokens::default() },
            adapter_session_id: None,
        }))),
        2 => Just(Command::Continue),
        1 => prop_oneof![Just(StopCause::Cancelled), Just(StopCause::TimedOut)].prop_map(Command::Stop),
        1 => Just(Command::Interrupt("its owner is gone".to_owned())),
        3 => (1_u64..12, any::<bool>()).prop_map(|(term, is_forced)| Command::TakeOver(Box::new(TakeOver {
            owner: owner(term),
            is_forced,
            reason: "taken up".to_owned(),
        }))),
        1 => Just(start()),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let command = (commands(), proptest::bool::weighted(0.15))
        .prop_map(|(command, dies)| if dies { Step::DieDeciding(command) } else { Step::Do(command) });
    prop_oneof![24 => command, 2 => any::<bool>().prop_map(Step::Grant), 1 => Just(Step::Cancel)]
}

/// Appends what was decided, as the runner does.
fn append(ledger: &TempLedger, version: &mut StreamVersion, decided: &[Decided]) {
    let events = decided.iter().map(|decided| {
        let id = EventId::new(uuid::Uuid::now_v7().to_string()).unwrap();
        let json = event_json(&id, TimestampMs(1), &decided.facts, &decided.extra).unwrap();
        NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), Metadata::default()).unwrap()
    });
    let stream = StreamName::new("run/r").unwrap();
    let receipts = ledger.log.append(&stream, ExpectedVersion::Exact(*version), events.collect()).unwrap();
    *version = receipts.last().unwrap().stream_version;
}

/// Appends a decision that holds for the run, as somebody else does.
fn tell(ledger: &TempLedger, version: &mut StreamVersion, intent: &str) {
    let json = format!(
        r#"{{"kind":"decision","data":{{"eventId":"e","decision":{{"source":"user","scope":"run","pattern":"Bash(make:*)","intent":{{"kind":"{intent}"}}}}}}}}"#
    );
    let event = NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), Metadata::default()).unwrap();
    let stream = StreamName::new("run/r").unwrap();
    *version = ledger.log.append(&stream, ExpectedVersion::Any, vec![event]).unwrap()[0].stream_version;
}

/// The state as the log has it.
fn fold(ledger: &TempLedger) -> WorkflowState {
    let stream = StreamName::new("run/r").unwrap();
    let events = ledger.log.reader().unwrap().read_stream(&stream, StreamVersion::EMPTY, Read::Facts).unwrap();
    let (state, illegal) = WorkflowState::fold(&events).unwrap();
    assert_eq!(illegal, [], "nothing that was decided is illegal");
    // A hook reads a bounded part of the stream, and knows of permissions what the whole tells.
    let bounded = RunContext::read(&ledger.log.reader().unwrap(), &RunId::new("r").unwrap()).unwrap().unwrap().state;
    let known = |state: &WorkflowState| {
        let iteration = (state.iteration, state.iteration_is_open, state.waiting_for.clone(), state.max_iterations);
        (state.state, state.status, iteration, state.carried.clone(), state.policy.clone())
    };
    assert_eq!(known(&bounded), known(&state));
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_and_whenever_the_runner_dies_the_log_folds_to_what_a_naive_model_says(
        steps in proptest::collection::vec(steps(), 0..40),
    ) {
        let ledger = TempLedger::new();
        let mut version = StreamVersion::EMPTY;
        append(&ledger, &mut version, &decide(None, &start()).unwrap());
        let mut model = Model::new();
        for step in steps {
            let state = fold(&ledger);
            prop_assert_eq!(&Model::of(&state), &model);
            let command = match &step {
                Step::Do(command) | Step::DieDeciding(command) => command,
                Step::Grant(is_allowed) => {
                    let intent = if *is_allowed { "permission_allow" } else { "permission_deny" };
                    tell(&ledger, &mut version, intent);
                    model.grants.push(*is_allowed);
                    continue;
                }
                Step::Cancel => {
                    tell(&ledger, &mut version, "workflow_cancel");
                    model.cancel = true;
                    continue;
                }
            };
            let decided = decide(Some(&state), command);
            let mut after = model.clone();
            prop_assert_eq!(decided.is_ok(), after.apply(command), "{:?} in {:?}", command, model);
            if let (Step::Do(_), Ok(decided)) = (&step, decided) {
                append(&ledger, &mut version, &decided);
                model = after;
            }
        }
        let state = fold(&ledger);
        prop_assert_eq!(&Model::of(&state), &model);
        prop_assert!(state.counted_iterations() <= MAX_ITERATIONS);
        prop_assert_eq!(state.state == RunState::Done, state.status.is_final());
    }
}
