//! What several tests of the read models need: stories to tell a log, dumps of every row, and a way to tamper.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use runledger_events::{
    AdapterSessionId, Carried, Content, Continuation, EventId, EventKind, FailureRetry, IterationContinued,
    IterationDeferred, IterationEnd, IterationOutcome, IterationProcess, IterationSession, IterationStart, KindFacts,
    LogId, Metadata, Owner, PermissionPolicy, PermissionRule, Position, ProcessId, RecordedEvent, RequestId, Retry,
    RetryReason, RuleAction, RuleConditions, RunId, RunPolicy, RunState, RunStatus, RuntimeEvent, SessionId,
    StreamName, StreamVersion, SubagentCondition, Timer, TimerKind, TimestampMs, Tokens, TrackerFacts, WorkflowEnd,
    WorkflowIteration, WorkflowStart, WorkflowState, WorkflowTransition, event_json,
};
use runledger_projections::{
    Fold, Kinds, Projection, ProjectionError, Projections, Queries, Table, Target, projections_path, registered,
};
use runledger_store::{EventFilter, EventLog, ExpectedVersion, LogReader, NewEvent, Read, StreamAppend};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// The read models of this release.
pub(crate) const NAMES: [&str; 6] =
    ["workflow_runs", "workflow_iterations", "sessions", "permission_requests", "feed_events", "feed_search"];

/// The version that a read model of this release has.
pub(crate) fn version_of(name: &str) -> u32 {
    registered().iter().find(|projection| projection.name() == name).unwrap().version()
}

/// Their tables, without a generation.
pub(crate) fn tables() -> Vec<&'static str> {
    registered().iter().flat_map(|projection| projection.tables()).map(|table| table.name).collect()
}

/// Numbers from a seed (SplitMix64), the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// One event, ready to be told to any log.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) stream: StreamName,
    pub(crate) metadata: Metadata,
    pub(crate) json: String,
}

impl Told {
    pub(crate) fn append(&self) -> StreamAppend {
        let event = RuntimeEvent::from_json(self.json.as_str()).unwrap();
        StreamAppend {
            stream: self.stream.clone(),
            expected: ExpectedVersion::Any,
            events: vec![NewEvent::new(event, self.metadata.clone()).unwrap()],
        }
    }
}

/// Appends events in order, in one transaction; returns the last one's position.
pub(crate) fn tell(log: &dyn EventLog, events: &[Told]) -> Position {
    let receipts = log.append_all(events.iter().map(Told::append).collect()).unwrap();
    receipts.last().map_or(Position::START, |receipt| receipt.position)
}

/// Makes up events: ids and times count on, and each run's state is known, so that legal ones can be told.
#[derive(Default)]
pub(crate) struct Story {
    runs: BTreeMap<String, WorkflowState>,
    count: u64,
}

impl Story {
    /// One whose ids and times go on behind a number, so that several of them can be told to one log.
    pub(crate) fn behind(count: u64) -> Self {
        Self { count, ..Self::default() }
    }

    /// The session that a run is of.
    pub(crate) fn session_of(run: &str) -> String {
        format!("s{}", run.bytes().map(u64::from).sum::<u64>() % 2)
    }

    /// The next legal event of a run; `choice` decides where there are several. After its end: a second start.
    pub(crate) fn next_of_run(&mut self, run: &str, choice: u8) -> Told {
        let facts = match self.runs.get(run) {
            None => start(run, &Self::session_of(run), choice),
            Some(state) => legal(state, choice),
        };
        self.workflow(run, &facts)
    }

    /// Some event of a run, which hardly ever follows on what it is; no run begins with it.
    pub(crate) fn stray_of_run(&mut self, run: &str, choice: u8, more: u8) -> Told {
        if !self.runs.contains_key(run) {
            return self.next_of_run(run, choice);
        }
        let pick = |n: usize, of: u8| usize::from(of) % n;
        let iteration = u32::from(more % 4);
        let facts = match choice % 9 {
            6 => deferred(iteration, more),
            7 => continued(iteration, more),
            8 => KindFacts::TimerFired(timer(iteration, more)),
            0 => start(run, &Self::session_of(run), more),
            1 => KindFacts::WorkflowTransition(WorkflowTransition {
                from: RunState::ALL[pick(5, more)],
                to: RunState::ALL[pick(5, more / 5)],
                status: RunStatus::ALL[pick(7, more / 25)],
                reason: None,
                owner: more.is_multiple_of(3).then(|| owner(u64::from(more % 4))),
            }),
            2 => iteration_start(iteration, Continuation::ReuseCurrent),
            3 => iteration_session(iteration, "stray"),
            4 => iteration_end(iteration, more, more.is_multiple_of(2).then_some("a1")),
            _ => KindFacts::WorkflowEnd(WorkflowEnd {
                status: RunStatus::ALL[pick(7, more)],
                stop_reason: Some("stray".to_owned()),
                iteration,
            }),
        };
        self.workflow(run, &facts)
    }

    /// A harness event of a session, within a run or not.
    pub(crate) fn harness(&mut self, session: &str, adapter: Option<&str>, run: Option<&str>, choice: u8) -> Told {
        let figure = u64::from(choice);
        let (kind, data) = match choice % 8 {
            0 => ("session.start", format!(r#"{{"source":"startup","model":"m{}"}}"#, choice / 8)),
            1 => ("session.end", r#"{"reason":"other"}"#.to_owned()),
            2 => ("usage.update", format!(r#"{{"usage":{{"input":{figure},"output":7,"contextSize":{figure}}}}}"#)),
            3 => ("usage.update", format!(r#"{{"delta":{{"input":{figure},"cacheRead":3}}}}"#)),
            4 => ("usage.update", format!(r#"{{"usage":{{"contextWindowSize":{figure}}}}}"#)),
            5 => ("user.prompt", r#"{"prompt":"secret"}"#.to_owned()),
            6 => ("tool.pre", r#"{"tool_name":"Bash","tool_use_id":"t1","tool_input":{}}"#.to_owned()),
            _ if choice & 8 != 0 => {
                let call = choice / 16;
                let data = format!(r#"{{"tool_name":"Bash","tool_use_id":"t{call}","tool_input":{{"a":"secret"}}}}"#);
                ("permission.request", data)
            }
            _ => ("x.not-yet-known", r#"{"b":1}"#.to_owned()),
        };
        self.told_of_harness(session, adapter, run, kind, &data)
    }

    /// A harness event with this data.
    pub(crate) fn told_of_harness(
        &mut self,
        session: &str,
        adapter: Option<&str>,
        run: Option<&str>,
        kind: &str,
        data: &str,
    ) -> Told {
        let (id, at) = self.next();
        let json = format!(r#"{{"id":"{id}","timestamp":{at},"kind":"{kind}","data":{data}}}"#);
        let session = SessionId::new(session).unwrap();
        let metadata = Metadata {
            adapter_session_id: adapter.map(|id| AdapterSessionId::new(id).unwrap()),
            run_id: run.map(|id| RunId::new(id).unwrap()),
            session_id: Some(session.clone()),
            ..Metadata::default()
        };
        Told { stream: StreamName::session(&session), metadata, json }
    }

    /// A decision that stands in a run's own stream: a signal, or what was decided for all of it.
    pub(crate) fn decision_of_run(&mut self, run: &str, choice: u8) -> Told {
        let (id, at) = self.next();
        let intent = ["workflow_cancel", "workflow_pause", "workflow_resume", "permission_allow", "permission_deny"]
            [usize::from(choice % 5)];
        let pattern = if intent.starts_with("permission") { r#","scope":"run","pattern":"Bash(ls:*)""# } else { "" };
        let json = format!(
            r#"{{"id":"{id}","eventId":"x","decision":{{"type":"json","source":"user","intent":{{"kind":"{intent}"}}{pattern}}},"now":{at}}}"#
        );
        let told = Told { stream: stream_of(run), metadata: of_run(run, &Self::session_of(run)), json };
        self.take(run, &told);
        told
    }

    /// A run from its start to its end.
    pub(crate) fn whole_run(&mut self, run: &str, session: &str, iterations: u32, status: RunStatus) -> Vec<Told> {
        let mut told = vec![self.workflow_in(run, session, &start(run, session, 1))];
        let transition = |from, to| {
            let status = RunStatus::Running;
            KindFacts::WorkflowTransition(WorkflowTransition { from, to, status, reason: None, owner: None })
        };
        told.push(self.workflow_in(run, session, &transition(RunState::Starting, RunState::Running)));
        for iteration in 1..=iterations {
            let adapter = format!("adapter-{run}");
            told.push(self.workflow_in(run, session, &iteration_start(iteration, Continuation::Fresh)));
            told.push(self.workflow_in(run, session, &iteration_session(iteration, &adapter)));
            told.push(self.workflow_in(run, session, &iteration_end(iteration, 8, Some(&adapter))));
        }
        told.push(self.workflow_in(run, session, &transition(RunState::Running, RunState::Completing)));
        let end = WorkflowEnd { status, stop_reason: None, iteration: iterations };
        told.push(self.workflow_in(run, session, &KindFacts::WorkflowEnd(end)));
        told
    }

    /// `count` events of several runs and sessions, legal ones mostly, in an order that the seed decides.
    pub(crate) fn mixed(&mut self, count: usize, runs: u64, seed: u64) -> Vec<Told> {
        let mut random = Random(seed);
        (0..count)
            .map(|_| {
                let run = format!("run-{}", random.below(runs));
                let (choice, more) = (random.byte(), random.byte());
                match random.below(10) {
                    0..=4 => self.next_of_run(&run, choice),
                    5 => self.stray_of_run(&run, choice, more),
                    6 => self.decision_of_run_or_start(&run, choice),
                    _ => {
                        let session = format!("s{}", more % 3);
                        let adapter = format!("a{}", more % 4);
                        let run = more.is_multiple_of(5).then_some(run.as_str());
                        self.harness(&session, (!more.is_multiple_of(7)).then_some(adapter.as_str()), run, choice)
                    }
                }
            })
            .collect()
    }

    pub(crate) fn decision_of_run_or_start(&mut self, run: &str, choice: u8) -> Told {
        if self.runs.contains_key(run) { self.decision_of_run(run, choice) } else { self.next_of_run(run, 0) }
    }

    /// Any workflow facts, in the stream of the run.
    pub(crate) fn workflow(&mut self, run: &str, facts: &KindFacts) -> Told {
        self.workflow_in(run, &Self::session_of(run), facts)
    }

    pub(crate) fn workflow_in(&mut self, run: &str, session: &str, facts: &KindFacts) -> Told {
        let (id, at) = self.next();
        let content = serde_json::json!({ "prompt": "secret" });
        let json = event_json(&id, TimestampMs(at), facts, &content).unwrap();
        let told = Told { stream: stream_of(run), metadata: of_run(run, session), json };
        self.take(run, &told);
        told
    }

    fn take(&mut self, run: &str, told: &Told) {
        let event = RuntimeEvent::from_json(told.json.as_str()).unwrap();
        let recorded = RecordedEvent {
            position: Position(self.count),
            stream: told.stream.clone(),
            // Only the first one of a stream matters to the fold.
            stream_version: if self.runs.contains_key(run) { StreamVersion(self.count + 1) } else { StreamVersion(1) },
            id: event.id().unwrap().clone(),
            kind: event.kind().clone(),
            occurred_at: event.occurred_at().unwrap(),
            recorded_at: event.occurred_at().unwrap(),
            metadata: told.metadata.clone(),
            facts: event.facts().clone(),
            content: Content::NotRead,
        };
        match self.runs.get_mut(run) {
            // What cannot follow leaves the state as it was.
            Some(state) => drop(state.evolve(&recorded)),
            None => self.runs.extend(WorkflowState::initial(&recorded).map(|state| (run.to_owned(), state))),
        }
    }

    fn next(&mut self) -> (EventId, i64) {
        self.count += 1;
        // Times go up and down a little: nothing may hang on their order.
        let at = 1_761_000_000_000 + i64::try_from(self.count ^ 5).unwrap() * 10;
        (EventId::new(format!("e{}", self.count)).unwrap(), at)
    }
}

pub(crate) fn stream_of(run: &str) -> StreamName {
    StreamName::run(&RunId::new(run).unwrap())
}

pub(crate) fn of_run(run: &str, session: &str) -> Metadata {
    Metadata {
        session_id: Some(SessionId::new(session).unwrap()),
        run_id: Some(RunId::new(run).unwrap()),
        ..Metadata::default()
    }
}

fn owner(term: u64) -> Owner {
    Owner {
        term,
        log_id: LogId::new("0199f000-0000-7000-8000-000000000001").unwrap(),
        host: "host \"quoted\"".to_owned(),
        boot_id: Some("boot".to_owned()),
        pid: 7,
        pid_started_at: Some(70),
    }
}

pub(crate) fn start(run: &str, session: &str, choice: u8) -> KindFacts {
    let has = |bit: u8| choice & bit != 0;
    KindFacts::WorkflowStart(Box::new(WorkflowStart {
        run_id: RunId::new(run).unwrap(),
        session_id: SessionId::new(session).unwrap(),
        workflow_name: has(1).then(|| "naïve 'work'\u{0}flow".to_owned()),
        harness: has(2).then(|| "command".to_owned()),
        max_iterations: u32::from(choice),
        tracker_path: has(4).then(|| "tracker.md".to_owned()),
        parent_run_id: has(8).then(|| RunId::new("parent").unwrap()),
        forked_at: has(8).then_some(Position(3)),
        attempt: 1 + u32::from(choice % 3),
        deadline_at: has(16).then_some(TimestampMs(-5)),
        owner: has(32).then(|| owner(1)),
        forked_from: has(64).then(|| RunId::new("origin").unwrap()),
        iteration: if has(64) { 2 } else { 0 },
        policy: has(128).then(policy),
    }))
}

fn policy() -> RunPolicy {
    let rule = PermissionRule {
        tool: "Bash(git push:*)".to_owned(),
        action: RuleAction::Ask,
        when: RuleConditions { subagent: Some(SubagentCondition::Any(true)), ..RuleConditions::default() },
        reason: Some("it is public".to_owned()),
        ask_timeout_ms: Some(None),
        on_timeout: None,
    };
    let permissions = PermissionPolicy { rules: vec![rule], ask_timeout_ms: None, ..PermissionPolicy::default() };
    let retry = Some(FailureRetry { max: 2, backoff_ms: 10 });
    RunPolicy { permissions: Some(permissions), retry, iteration_delay_ms: 5 }
}

fn request(choice: u8) -> RequestId {
    RequestId::new(format!("a1:t{}", choice % 3)).unwrap()
}

fn deferred(iteration: u32, choice: u8) -> KindFacts {
    let tokens = Tokens { input: Some(u64::from(choice)), ..Tokens::default() };
    let adapter_session_id = AdapterSessionId::new("a1").ok();
    let deferred = IterationDeferred { iteration, request_id: request(choice), tokens, adapter_session_id };
    KindFacts::WorkflowIteration(WorkflowIteration::Deferred(deferred))
}

fn continued(iteration: u32, choice: u8) -> KindFacts {
    let continued = IterationContinued { iteration, request_id: request(choice) };
    KindFacts::WorkflowIteration(WorkflowIteration::Continued(continued))
}

fn timer(iteration: u32, choice: u8) -> Timer {
    let kind = [TimerKind::Delay, TimerKind::Backoff, TimerKind::Deadline][usize::from(choice % 3)];
    Timer { timer: kind, due_at: TimestampMs(1_761_000_000_000 + i64::from(choice)), iteration }
}

pub(crate) fn into_running() -> KindFacts {
    let (from, to, status) = (RunState::Starting, RunState::Running, RunStatus::Running);
    KindFacts::WorkflowTransition(WorkflowTransition { from, to, status, reason: None, owner: None })
}

pub(crate) fn iteration_start(iteration: u32, continuation: Continuation) -> KindFacts {
    KindFacts::WorkflowIteration(WorkflowIteration::Start(IterationStart {
        iteration,
        continuation,
        retry: None,
        carried: Carried::default(),
    }))
}

pub(crate) fn iteration_session(iteration: u32, adapter: &str) -> KindFacts {
    let adapter_session_id = AdapterSessionId::new(adapter).unwrap();
    KindFacts::WorkflowIteration(WorkflowIteration::Session(IterationSession { iteration, adapter_session_id }))
}

pub(crate) fn iteration_end(iteration: u32, choice: u8, adapter: Option<&str>) -> KindFacts {
    let has = |bit: u8| choice & bit != 0;
    let figure = u64::from(choice);
    let tokens = Tokens {
        input: has(8).then_some(figure),
        output: has(16).then_some(2),
        cache_read: has(32).then_some(3),
        cache_write: None,
        total: has(8).then_some(figure),
        context_size: has(64).then_some(figure),
        context_window_size: has(128).then_some(200_000),
    };
    KindFacts::WorkflowIteration(WorkflowIteration::End(IterationEnd {
        iteration,
        outcome: if has(1) { IterationOutcome::Failed } else { IterationOutcome::Continue },
        exit_code: has(1).then_some(-1),
        error: has(1).then(|| "it \"failed\"".to_owned()),
        tokens,
        tracker: has(2).then(|| TrackerFacts { digest: "ab".repeat(32), bytes: figure, is_whole: has(4) }),
        adapter_session_id: adapter.map(|id| AdapterSessionId::new(id).unwrap()),
        retry: None,
    }))
}

fn process(iteration: u32) -> KindFacts {
    let process = ProcessId { host: "host".to_owned(), boot_id: None, pid: 8, pid_started_at: Some(80) };
    KindFacts::WorkflowIteration(WorkflowIteration::Process(IterationProcess { iteration, process }))
}

/// An iteration that is another try.
fn retried(iteration: u32, carried: &Carried, choice: u8) -> KindFacts {
    let why = if choice.is_multiple_of(2) { RetryReason::Denied } else { RetryReason::Failed };
    let carried = Carried {
        retries: carried.retries + 1,
        retries_in_a_row: carried.retries_in_a_row + 1,
        grants: carried.grants.clone(),
    };
    KindFacts::WorkflowIteration(WorkflowIteration::Start(IterationStart {
        iteration,
        continuation: Continuation::ReuseCurrent,
        retry: Some(Retry { why, cause: EventId::new("e1").ok() }),
        carried,
    }))
}

/// What may follow on this state.
fn legal(state: &WorkflowState, choice: u8) -> KindFacts {
    let transition = |from, to, status, owner| {
        let reason = (choice & 1 != 0).then(|| "because".to_owned());
        KindFacts::WorkflowTransition(WorkflowTransition { from, to, status, reason, owner })
    };
    let on = |to| transition(state.state, to, RunStatus::Running, None);
    let takes_over = |to| transition(state.state, to, RunStatus::Running, Some(owner(state.term() + 1)));
    let breaks_off = transition(state.state, RunState::Idle, RunStatus::Interrupted, None);
    let adapter = format!("a{}", choice % 4);
    let next = if state.iteration_was_cut { state.iteration } else { state.iteration + 1 };
    match state.state {
        RunState::Idle => takes_over(RunState::Starting),
        RunState::Starting => on(RunState::Running),
        RunState::Running if state.iteration_is_open => match choice % 8 {
            0 => breaks_off,
            1 => takes_over(RunState::Running),
            _ if state.waiting_for.is_some() => {
                let request_id = state.waiting_for.clone().unwrap();
                let continued = IterationContinued { iteration: state.iteration, request_id };
                KindFacts::WorkflowIteration(WorkflowIteration::Continued(continued))
            }
            2 => process(state.iteration),
            3 if choice & 8 != 0 => deferred(state.iteration, choice),
            3 => iteration_session(state.iteration, &adapter),
            4 => iteration_end(state.iteration, choice, None),
            _ => iteration_end(state.iteration, choice, Some(&adapter)),
        },
        RunState::Running => match choice % 8 {
            0 => breaks_off,
            1 => on(RunState::Completing),
            2 => iteration_start(next, Continuation::Resume { handle: adapter }),
            3 => retried(next, &state.carried, choice / 8),
            4 if state.timer.is_some() => KindFacts::TimerFired(state.timer.clone().unwrap()),
            4 => KindFacts::TimerScheduled(timer(state.iteration, choice / 8)),
            _ => iteration_start(next, Continuation::Fresh),
        },
        RunState::Completing => KindFacts::WorkflowEnd(WorkflowEnd {
            status: RunStatus::ALL[1 + usize::from(choice % 5)],
            stop_reason: (choice & 1 != 0).then(|| "over".to_owned()),
            iteration: state.iteration,
        }),
        RunState::Done => start(state.run_id.as_str(), state.session_id.as_str(), choice),
    }
}

/// A plain connection to the projections' file, past the library.
pub(crate) fn sqlite(ledger: &Path) -> Connection {
    let connection = Connection::open(projections_path(ledger)).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection
}

/// A plain connection to the log, past the library.
pub(crate) fn sqlite_of_log(ledger: &Path) -> Connection {
    let connection = Connection::open(ledger).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection
}

/// Every row of every read model, as text, in the order of their keys.
pub(crate) fn dump(ledger: &Path) -> String {
    dump_of(&sqlite(ledger))
}

pub(crate) fn dump_of(connection: &Connection) -> String {
    let snapshot = connection.unchecked_transaction().unwrap();
    tables().into_iter().map(|table| dump_of_table(&snapshot, table)).collect()
}

/// The rows of one read model's view, or of any table.
pub(crate) fn dump_of_table(connection: &Connection, table: &str) -> String {
    let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut rows = statement.query([]).unwrap();
    let mut text = format!("{table}\n");
    while let Some(row) = rows.next().unwrap() {
        for (index, name) in names.iter().enumerate() {
            match row.get_ref(index).unwrap() {
                ValueRef::Text(value) => write!(text, " {name}={:?}", std::str::from_utf8(value).unwrap()).unwrap(),
                value => write!(text, " {name}={value:?}").unwrap(),
            }
        }
        text.push('\n');
    }
    text
}

/// What a fresh fold of the log gives: the dump of read models built from nothing in a file of their own.
pub(crate) fn fresh_dump(ledger: &Path) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("ledger.db");
    sqlite_of_log(ledger).execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    let mut projections = Projections::open(&copy).unwrap();
    projections.catch_up().unwrap();
    dump(&copy)
}

/// The tables of generations, of whatever age, in the file.
pub(crate) fn generation_tables(ledger: &Path) -> Vec<String> {
    let names: Vec<String> = sqlite(ledger)
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    // Behind the name of a table of FTS5's own stands a word.
    let is_generation = |name: &String| name.rsplit('_').next().is_some_and(|end| end.parse::<i64>().is_ok());
    names.into_iter().filter(is_generation).collect()
}

/// Only the tables that are read are there, and no rebuild is under way.
pub(crate) fn assert_no_leftovers(ledger: &Path) {
    let connection = sqlite(ledger);
    let generation = |projection: &str| -> i64 {
        connection
            .query_row("SELECT generation FROM checkpoints WHERE projection = ?1", [projection], |row| row.get(0))
            .unwrap()
    };
    let tables = |projection: &dyn Projection| -> Vec<String> {
        let generation = generation(projection.name());
        projection.tables().iter().map(|table| format!("{}_{generation}", table.name)).collect()
    };
    let mut expected: Vec<String> = registered().iter().flat_map(|projection| tables(projection.as_ref())).collect();
    expected.sort();
    assert_eq!(generation_tables(ledger), expected);
    let rebuilds: i64 = connection.query_row("SELECT count(*) FROM rebuilds", [], |row| row.get(0)).unwrap();
    assert_eq!(rebuilds, 0, "rebuilds under way");
}

/// Every read model is what a fresh fold says, as `verify` sees it.
pub(crate) fn assert_verifies(projections: &mut Projections) {
    for name in NAMES {
        let verified = projections.verify(name, &mut |_| {}).unwrap();
        assert_eq!((verified.different, &verified.differences[..]), (0, &[][..]), "{name}: {verified:?}");
    }
}

pub(crate) fn open(ledger: &Path) -> Projections {
    Projections::open(ledger).unwrap()
}

/// Opens the read models and brings them to the head.
pub(crate) fn caught_up(ledger: &Path) -> Projections {
    let mut projections = open(ledger);
    projections.catch_up().unwrap();
    projections
}

pub(crate) fn queries(ledger: &Path) -> Queries {
    Queries::open(ledger).unwrap()
}

pub(crate) fn run_id(text: &str) -> RunId {
    RunId::new(text).unwrap()
}

/// Everything, in order, facts alone.
pub(crate) fn all(reader: &LogReader) -> Vec<RecordedEvent> {
    let (mut events, mut after, head) = (Vec::new(), Position::START, reader.head().unwrap().position);
    while after < head {
        let batch = reader.read(&EventFilter::default(), after, head, 1000, Read::Facts).unwrap();
        after = batch.scanned_to;
        events.extend(batch.events);
    }
    events
}

/// The main file of the projections, and those that SQLite keeps beside it.
pub(crate) fn files(ledger: &Path) -> [PathBuf; 3] {
    let main = projections_path(ledger);
    let beside = |end: &str| {
        let mut name = main.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    [main.clone(), beside("-wal"), beside("-shm")]
}

/// A read model that says it is of another version.
pub(crate) struct Versioned {
    pub(crate) inner: Box<dyn Projection>,
    pub(crate) version: u32,
}

impl Projection for Versioned {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn kinds(&self) -> Kinds {
        self.inner.kinds()
    }

    fn reads(&self) -> Read<'static> {
        self.inner.reads()
    }

    fn tables(&self) -> &'static [Table] {
        self.inner.tables()
    }

    fn schema(&self) -> &'static str {
        self.inner.schema()
    }

    fn fold(&self) -> Box<dyn Fold> {
        self.inner.fold()
    }

    fn reset_run(&self, target: &Target<'_>, run_id: &str) -> Result<bool, ProjectionError> {
        self.inner.reset_run(target, run_id)
    }
}

/// The read models of this release, one of them under another version.
pub(crate) fn registered_with(name: &str, version: u32) -> Vec<Box<dyn Projection>> {
    registered()
        .into_iter()
        .map(
            |inner| {
                if inner.name() == name { Box::new(Versioned { inner, version }) as Box<dyn Projection> } else { inner }
            },
        )
        .collect()
}

/// Whether it may say something of a run's state: of one of these kinds, in its stream.
pub(crate) fn is_of_run(event: &RecordedEvent) -> bool {
    let is_workflow = event.kind.is_workflow();
    let is_other = matches!(event.kind, EventKind::Decision | EventKind::TimerScheduled | EventKind::TimerFired);
    event.stream.run_id().is_some() && (is_workflow || is_other)
}
