//! Puts a question to the log and to every channel, and waits for the first verdict.
//!
//! Invariants: what counts is what the question's stream says, so two coordinators, or any other process, cannot both
//! win; each channel that still asks when the question is settled is told to stop, once; the end of a wait ends nothing
//! of the question itself, which whoever asks again takes up.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use runledger_events::{OnTimeout, ProcessId, RequestId, RequestStatus, StreamName, StreamVersion, TimestampMs};

use super::ask::Ask;
use super::channel::{Channel, ChannelRequest, StopToken, Stopper};
use super::error::{AskError, DecideError, ExpireError, RelayLogError};
use super::settled::Settled;
use super::verdict::RelayVerdict;
use crate::commands::{Commands, Withdrawer};
use crate::owner::current_process;

/// How often the log is looked at: what another process commits is seen this soon.
const TICK: Duration = Duration::from_millis(10);
/// How long a log that fails is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long channels that were told to stop are waited for.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What a question came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayOutcome {
    /// Somebody decided.
    Decided(Settled),
    /// Nobody decided in time.
    Expired {
        /// What that comes to.
        on_timeout: OnTimeout,
        /// The same in words.
        settled: Settled,
    },
    /// It needs no answer any more.
    Withdrawn(Settled),
    /// There is nobody who could answer.
    NoRelay,
    /// Whoever waited did not want to any longer; the question stands.
    Stopped,
}

/// Why a question was not brought to an outcome.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// It was not put.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// There is no such question.
    #[error("there is no request {request_id}")]
    Unknown {
        /// The name.
        request_id: RequestId,
    },
    /// The log kept failing. The question stands, as far as the log could tell.
    #[error("request {request_id}: {source}")]
    Log {
        /// The question.
        request_id: RequestId,
        /// The last failure.
        source: RelayLogError,
    },
}

/// An outcome, and the channels that are ending.
///
/// Use the outcome first: dropping this waits for the channels that were told to stop, a moment at the most.
#[derive(Debug)]
pub struct Relayed {
    /// What the question came to.
    pub outcome: RelayOutcome,
    #[expect(dead_code, reason = "it is held, and dropped")]
    asked: Asking,
}

/// Puts questions to the log and to channels.
pub struct RelayCoordinator {
    commands: Commands,
    channels: Vec<Arc<dyn Channel>>,
    hears_log: bool,
}

impl RelayCoordinator {
    /// One that hears what anybody decides through the log.
    pub fn new(commands: Commands) -> Self {
        Self { commands, channels: Vec::new(), hears_log: true }
    }

    /// Asks this channel too.
    #[must_use]
    pub fn with_channel(mut self, channel: impl Channel + 'static) -> Self {
        self.channels.push(Arc::new(channel));
        self
    }

    /// Where channels are all there is: once none of them asks any more, there is nobody who could answer.
    #[must_use]
    pub fn without_log(mut self) -> Self {
        self.hears_log = false;
        self
    }

    /// The commands behind it.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Puts a question, or takes up the same one that was put before, and waits for what it comes to.
    ///
    /// Without any channel there is [`RelayOutcome::NoRelay`], and nothing is appended. `is_over` is asked every few
    /// milliseconds; once it says so the wait ends with [`RelayOutcome::Stopped`].
    ///
    /// # Errors
    /// [`RelayError`]; once the question is put, a log that fails is tried again for a while first.
    pub fn relay(&self, ask: &Ask, is_over: impl FnMut() -> bool) -> Result<Relayed, RelayError> {
        if self.has_nobody() {
            return Ok(Relayed { outcome: RelayOutcome::NoRelay, asked: Asking::default() });
        }
        self.commands.ask(ask)?;
        self.wait(&ask.request_id, is_over)
    }

    /// Waits for what a question comes to that was put already.
    ///
    /// # Errors
    /// As [`RelayCoordinator::relay`].
    pub fn wait(&self, id: &RequestId, mut is_over: impl FnMut() -> bool) -> Result<Relayed, RelayError> {
        let mut wait = Wait::new(self, id);
        let mut failing_since: Option<Instant> = None;
        let outcome = loop {
            match wait.step() {
                Ok(Some(outcome)) => break outcome,
                Ok(None) => failing_since = None,
                Err(RelayError::Log { source, .. })
                    if failing_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE =>
                {
                    tracing::warn!(request = %id, error = %source, "the log fails; it is tried again");
                    std::thread::sleep(TICK * 10);
                }
                Err(error) => return Err(error),
            }
            if is_over() {
                break RelayOutcome::Stopped;
            }
            wait.listen();
        };
        let Wait { mut asking, .. } = wait;
        asking.tell_to_stop();
        Ok(Relayed { outcome, asked: asking })
    }

    fn has_nobody(&self) -> bool {
        !self.hears_log && self.channels.is_empty()
    }
}

/// One wait for one question.
struct Wait<'a> {
    coordinator: &'a RelayCoordinator,
    id: &'a RequestId,
    stream: StreamName,
    /// The version of the stream at which it was last seen to be pending.
    version: StreamVersion,
    due_at: Option<TimestampMs>,
    /// Whether the question was read, and the channels asked where it was pending.
    is_begun: bool,
    asking: Asking,
    /// A verdict that is not in the log yet.
    verdict: Option<RelayVerdict>,
    waiter: ProcessId,
}

impl<'a> Wait<'a> {
    fn new(coordinator: &'a RelayCoordinator, id: &'a RequestId) -> Self {
        Self {
            coordinator,
            id,
            stream: StreamName::request(id),
            version: StreamVersion::EMPTY,
            due_at: None,
            is_begun: false,
            asking: Asking::default(),
            verdict: None,
            waiter: current_process(),
        }
    }

    /// Reads the question, and asks the channels where it is pending: once, after as many tries as the log needs.
    fn begin(&mut self) -> Result<(), RelayError> {
        if self.is_begun {
            return Ok(());
        }
        let request = self.coordinator.commands.channel_request(self.id).map_err(|error| self.failed(error))?;
        let request = request.ok_or_else(|| RelayError::Unknown { request_id: self.id.clone() })?;
        if request.state.status == RequestStatus::Pending {
            self.asking.start(&self.coordinator.channels, &Arc::new(request));
        }
        self.is_begun = true;
        Ok(())
    }

    fn failed(&self, error: impl Into<RelayLogError>) -> RelayError {
        RelayError::Log { request_id: self.id.clone(), source: error.into() }
    }

    /// Looks at the log, the clock and the channels; gives the outcome, once there is one.
    fn step(&mut self) -> Result<Option<RelayOutcome>, RelayError> {
        self.begin()?;
        if let Some(outcome) = self.look()? {
            return Ok(Some(outcome));
        }
        if let Some(verdict) = &self.verdict {
            match self.coordinator.commands.decide(self.id, verdict) {
                // Whoever was first: the log has it.
                Ok(_)
                | Err(
                    DecideError::AlreadyDecided { .. } | DecideError::Expired { .. } | DecideError::Withdrawn { .. },
                ) => {}
                Err(DecideError::Log { source, .. }) => return Err(self.failed(source)),
                Err(error) => tracing::warn!(by = verdict.by, %error, "a channel's verdict is of no use"),
            }
            self.verdict = None;
            return self.look();
        }
        let is_alone = !self.coordinator.hears_log && self.asking.is_over();
        if is_alone {
            return self.give_up().map(Some);
        }
        Ok(None)
    }

    /// What the log says, where it says more than before; and that the time is up, where it is.
    fn look(&mut self) -> Result<Option<RelayOutcome>, RelayError> {
        let commands = &self.coordinator.commands;
        let version = commands.reader().stream_version(&self.stream).map_err(|error| self.failed(error))?;
        if version != self.version || self.is_due() {
            let state = match commands.expire(self.id) {
                Ok(state) => state,
                Err(ExpireError::Unknown { request_id }) => return Err(RelayError::Unknown { request_id }),
                Err(ExpireError::Log { source, .. }) => return Err(self.failed(source)),
            };
            if let Some(settled) = commands.relay_settled(self.id).map_err(|error| self.failed(error))? {
                return Ok(Some(match settled.status {
                    RequestStatus::Expired => RelayOutcome::Expired { on_timeout: state.request.on_timeout, settled },
                    RequestStatus::Withdrawn => RelayOutcome::Withdrawn(settled),
                    _ => RelayOutcome::Decided(settled),
                }));
            }
            self.due_at = state.request.due_at;
            self.version = state.version;
        }
        Ok(None)
    }

    fn is_due(&self) -> bool {
        self.due_at.is_some_and(|due_at| due_at <= self.coordinator.commands.now())
    }

    /// Nobody is left who could answer.
    fn give_up(&mut self) -> Result<RelayOutcome, RelayError> {
        let by = Withdrawer::Process(self.waiter.clone());
        match self.coordinator.commands.withdraw(self.id, "no channel gave a verdict", &by) {
            Ok(_) => Ok(RelayOutcome::NoRelay),
            // Another process waits for it too, or it was settled in this moment.
            Err(error) => {
                tracing::debug!(request = %self.id, %error, "a question that no channel answers stands");
                self.version = StreamVersion::EMPTY;
                Ok(self.look()?.unwrap_or(RelayOutcome::NoRelay))
            }
        }
    }

    /// Waits a moment for a channel's verdict.
    fn listen(&mut self) {
        if self.verdict.is_none() {
            self.verdict = self.asking.listen(TICK);
        }
    }
}

/// The channels that are asked.
#[derive(Debug, Default)]
struct Asking {
    threads: Vec<(String, JoinHandle<()>)>,
    /// What tells each to stop, while it has not been told.
    stoppers: Vec<Stopper>,
    verdicts: Option<Receiver<RelayVerdict>>,
}

impl Asking {
    fn start(&mut self, channels: &[Arc<dyn Channel>], request: &Arc<ChannelRequest>) {
        let (sender, verdicts) = unbounded();
        for channel in channels {
            let name = channel.name().to_owned();
            let (stopper, stop) = StopToken::new();
            match ask(channel.clone(), request.clone(), stop, sender.clone()) {
                Ok(thread) => {
                    self.threads.push((name, thread));
                    self.stoppers.push(stopper);
                }
                Err(error) => tracing::warn!(channel = name, %error, "it cannot be asked"),
            }
        }
        self.verdicts = Some(verdicts);
    }

    /// Whether no channel asks any more, and all that they said was heard.
    fn is_over(&self) -> bool {
        let is_ended = self.threads.iter().all(|(_, thread)| thread.is_finished());
        is_ended && self.verdicts.as_ref().is_none_or(Receiver::is_empty)
    }

    fn listen(&self, timeout: Duration) -> Option<RelayVerdict> {
        let verdicts = self.verdicts.as_ref()?;
        match verdicts.recv_timeout(timeout) {
            Ok(verdict) => Some(verdict),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(timeout);
                None
            }
        }
    }

    fn tell_to_stop(&mut self) {
        self.stoppers.clear();
    }
}

impl Drop for Asking {
    /// Waits for the channels, a moment at the most.
    fn drop(&mut self) {
        self.tell_to_stop();
        let told = Instant::now();
        for (name, thread) in self.threads.drain(..) {
            while !thread.is_finished() && told.elapsed() < STOP_PATIENCE {
                std::thread::sleep(Duration::from_millis(2));
            }
            if !thread.is_finished() {
                tracing::warn!(channel = name, "it was told to stop, and goes on");
            } else if thread.join().is_err() {
                tracing::warn!(channel = name, "it panicked");
            }
        }
    }
}

/// Asks a channel on a thread of its own.
fn ask(
    channel: Arc<dyn Channel>,
    request: Arc<ChannelRequest>,
    stop: StopToken,
    verdicts: Sender<RelayVerdict>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("runledger-ask-{}", channel.name())).spawn(move || {
        if let Some(verdict) = channel.ask(&request, &stop) {
            // Nobody may be left to hear it.
            let _ = verdicts.send(verdict);
        }
    })
}
