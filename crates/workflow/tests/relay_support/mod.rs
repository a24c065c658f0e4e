//! What several tests of questions need: a ledger, a clock that stands until it is moved, and a call to ask about.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use runledger_events::{
    AdapterSessionId, AskContext, EventId, Position, RecordedEvent, RequestId, RunId, RunState, SessionId, StreamName,
    StreamVersion, TimestampMs,
};
use runledger_store::Read;
use runledger_testkit::TempLedger;
use runledger_workflow::{Ask, Clock, Commands};

/// How long anything may take before a test gives up; far beyond what it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// When the clock begins.
pub(crate) const BEGIN_MS: i64 = 1_761_000_000_000;

/// A ledger, and commands on it by a clock of their own.
pub(crate) struct Place {
    pub(crate) ledger: TempLedger,
    pub(crate) commands: Commands,
    now: Arc<AtomicI64>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let ledger = TempLedger::new();
        let now = Arc::new(AtomicI64::new(BEGIN_MS));
        let commands = commands(&ledger, &now);
        Self { ledger, commands, now }
    }

    /// Commands of somebody else, by the same clock.
    pub(crate) fn others(&self) -> Commands {
        commands(&self.ledger, &self.now)
    }

    pub(crate) fn set_clock(&self, ms: i64) {
        self.now.store(ms, Ordering::SeqCst);
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn head(&self) -> Position {
        self.commands.reader().head().unwrap().position
    }

    pub(crate) fn stream(&self, stream: &StreamName) -> Vec<RecordedEvent> {
        self.commands.reader().read_stream(stream, StreamVersion::EMPTY, Read::All).unwrap()
    }

    pub(crate) fn request(&self, id: &RequestId) -> Vec<RecordedEvent> {
        self.stream(&StreamName::request(id))
    }
}

fn commands(ledger: &TempLedger, now: &Arc<AtomicI64>) -> Commands {
    let now = now.clone();
    let clock = Clock::new(move || TimestampMs(now.load(Ordering::SeqCst)));
    Commands::open(ledger.log.clone()).unwrap().with_clock(clock)
}

pub(crate) fn run_id() -> RunId {
    RunId::new("0199aaaa-0000-7000-8000-000000000001").unwrap()
}

/// A question about a call of this name, in a run of the workflow `tidy`.
pub(crate) fn ask(call: &str) -> Ask {
    let adapter = AdapterSessionId::new("a1").unwrap();
    let id = RequestId::of_call(&adapter, call).unwrap();
    let event_id = EventId::new(format!("event-{call}")).unwrap();
    let input = format!(r#"{{"command":"git push {call}"}}"#);
    Ask {
        adapter_session_id: Some(adapter),
        tool_use_id: Some(call.to_owned()),
        pattern: Some(format!("Bash(git push {call})")),
        cwd: Some("/srv/demo".to_owned()),
        context: Some(AskContext {
            run_id: run_id(),
            workflow_name: Some("tidy".to_owned()),
            state: RunState::Running,
            iteration: 2,
            max_iterations: 5,
        }),
        ..Ask::new(id, event_id, SessionId::new("s1").unwrap(), "Bash", input)
    }
}

/// A question of the agent to its user.
pub(crate) fn ask_user(call: &str) -> Ask {
    let input = r#"{"questions":[{"question":"Which colour?","header":"Colour","multiSelect":false,
        "options":[{"label":"Red","description":"r"},{"label":"Blue","description":"b"}]}]}"#;
    let asked = ask(call);
    Ask {
        pattern: None,
        adapter_session_id: asked.adapter_session_id.clone(),
        context: asked.context.clone(),
        ..Ask::new(asked.request_id, asked.event_id, asked.session_id, "AskUserQuestion", input)
    }
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
