//! What ends a wait for an answer, but the answer: a signal, the end of the client, or the person at the client's terminal
//! who was quicker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runledger_events::{ProcessId, SessionId, StreamName, StreamVersion};
use runledger_store::{LogReader, Read};
use runledger_workflow::{is_process_alive, process_of};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::call::HookCall;
use super::install::TIMEOUT_OF_QUESTIONS_S;

/// How often it is looked whether the client is there.
const LIFE_LOOK: Duration = Duration::from_millis(200);

/// How long a hook waits at the most: a minute less than `install` lets the client wait.
const WAIT_MAX: Duration = Duration::from_secs(TIMEOUT_OF_QUESTIONS_S as u64 - 60);

/// Why a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WaitEnd {
    /// The client wants no answer any more.
    Signalled,
    /// There is nobody who would read an answer.
    ClientGone,
    /// The client's own limit is near.
    TooLong,
    /// The call has run: the person allowed it, or answered.
    HasRun(Option<BTreeMap<String, String>>),
}

/// Looks for what ends a wait.
pub(crate) struct Watch<'a> {
    is_signalled: Arc<AtomicBool>,
    parent: u32,
    client: Option<ProcessId>,
    began_at: Instant,
    looked_at: Instant,
    terminal: Option<Terminal<'a>>,
    end: Option<WaitEnd>,
}

/// The session of a client at whose terminal a person may be quicker.
struct Terminal<'a> {
    reader: LogReader,
    stream: StreamName,
    /// How far it was read.
    version: StreamVersion,
    call: &'a HookCall,
    tool_use_id: Option<String>,
}

impl<'a> Watch<'a> {
    /// Begins to listen for signals: from now on they do not end this process.
    pub(crate) fn new(client_pid: Option<u32>) -> Self {
        let is_signalled = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            // Without it the signal ends the process, and the question stands.
            let _ = signal_hook::flag::register(signal, is_signalled.clone());
        }
        let client = client_pid.map(process_of);
        let now = Instant::now();
        Self { is_signalled, parent: parent(), client, began_at: now, looked_at: now, terminal: None, end: None }
    }

    /// Looks into the session too, from this version on, for what the person at the terminal decides.
    pub(crate) fn with_terminal(
        mut self,
        reader: LogReader,
        session_id: &SessionId,
        version: StreamVersion,
        call: &'a HookCall,
        tool_use_id: Option<&str>,
    ) -> Self {
        let tool_use_id = tool_use_id.map(str::to_owned);
        self.terminal = Some(Terminal { reader, stream: StreamName::session(session_id), version, call, tool_use_id });
        self
    }

    /// Whether the wait is over; asked every few milliseconds.
    pub(crate) fn is_over(&mut self) -> bool {
        if self.end.is_none() {
            self.end = self.look();
        }
        self.end.is_some()
    }

    /// Why it is over.
    pub(crate) fn end(&self) -> Option<&WaitEnd> {
        self.end.as_ref()
    }

    fn look(&mut self) -> Option<WaitEnd> {
        if let Some(end) = self.terminal.as_mut().and_then(Terminal::look) {
            return Some(end);
        }
        if self.is_signalled.load(Ordering::Acquire) {
            return Some(WaitEnd::Signalled);
        }
        if self.looked_at.elapsed() >= LIFE_LOOK {
            self.looked_at = Instant::now();
            if self.began_at.elapsed() >= WAIT_MAX {
                return Some(WaitEnd::TooLong);
            }
            let is_gone = self.client.as_ref().is_some_and(|client| is_process_alive(client) == Some(false));
            if is_gone || parent() != self.parent {
                return Some(WaitEnd::ClientGone);
            }
        }
        None
    }
}

impl Terminal<'_> {
    /// A log that cannot be read now is looked at again.
    fn look(&mut self) -> Option<WaitEnd> {
        let version = self.reader.stream_version(&self.stream).ok()?;
        if version == self.version {
            return None;
        }
        let events = self.reader.read_stream(&self.stream, self.version, Read::All).ok()?;
        self.version = events.last().map_or(self.version, |event| event.stream_version);
        let run = events.iter().find_map(|event| {
            let json = event.content.json()?;
            self.call.has_run_by(&event.kind, json, self.tool_use_id.as_deref()).then_some(json)
        })?;
        Some(WaitEnd::HasRun(HookCall::answers_in(run)))
    }
}

#[cfg(unix)]
fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

#[cfg(not(unix))]
fn parent() -> u32 {
    0
}
