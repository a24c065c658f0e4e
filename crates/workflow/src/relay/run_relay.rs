//! Asks the channels of this process whatever a run asks, while its runner is here: beside the hook that waits, or in its
//! stead where none does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use runledger_events::{EventKind, OnAsk, Position, RequestId, RequestStatus, RunId};
use runledger_store::{EventFilter, EventLog, Follower, Read};

use super::channel::{Channel, ChannelRequest, StopToken};
use super::coordinator::{RelayCoordinator, RelayOutcome};
use super::verdict::RelayVerdict;
use crate::commands::Commands;
use crate::error::CommandError;

/// How long it may take to see that it should end.
const STOP_LOOK: Duration = Duration::from_millis(50);
/// Questions looked at in one go.
const BATCH_MAX: usize = 64;

/// Who can be asked in this process.
#[derive(Clone, Default)]
pub struct RunChannels {
    /// Those that are asked every question.
    pub always: Vec<Arc<dyn Channel>>,
    /// Those that a hook asks itself while it waits: asked here where none does.
    pub deferred: Vec<Arc<dyn Channel>>,
}

impl RunChannels {
    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.always.is_empty() && self.deferred.is_empty()
    }
}

/// Asking for a run. Dropping it ends it: channels that still ask are told to stop, and the questions stand.
#[derive(Debug)]
pub struct RunRelay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RunRelay {
    /// Asks these channels what `run_id` asks from now on, and what it has asked before and still waits for.
    ///
    /// # Errors
    /// [`CommandError::Open`] where the log cannot be read; [`CommandError::Thread`] where no thread can be started.
    pub fn start(log: &Arc<dyn EventLog>, run_id: &RunId, channels: RunChannels) -> Result<Self, CommandError> {
        let filter = EventFilter {
            run: Some(run_id.clone()),
            kinds: Some(vec![EventKind::RelayRequest]),
            ..EventFilter::default()
        };
        let follower = log.follow(Position::START)?.with_filter(filter).with_read(Read::Facts);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, log) = (stop.clone(), log.clone());
        let thread = std::thread::Builder::new()
            .name("runledger-relay".to_owned())
            .spawn(move || follow(&log, follower, &channels, &stopped))
            .map_err(CommandError::Thread)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for RunRelay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("what asks for a run panicked");
        }
    }
}

fn follow(log: &Arc<dyn EventLog>, mut follower: Follower, channels: &RunChannels, stop: &Arc<AtomicBool>) {
    let mut asking: Vec<JoinHandle<()>> = Vec::new();
    while !stop.load(Ordering::Acquire) {
        asking.retain(|thread| !thread.is_finished());
        let events = match follower.next(BATCH_MAX, STOP_LOOK) {
            Ok(batch) => batch.events,
            Err(error) => {
                tracing::warn!(%error, "what the run asks cannot be read; it is tried again");
                std::thread::sleep(STOP_LOOK);
                continue;
            }
        };
        for request_id in events.iter().filter_map(|event| event.stream.request_id()) {
            let (log, channels, stop) = (log.clone(), channels.clone(), stop.clone());
            let thread = std::thread::Builder::new().name("runledger-relay-one".to_owned());
            match thread.spawn(move || ask(log, &request_id, channels, &stop)) {
                Ok(thread) => asking.push(thread),
                Err(error) => tracing::warn!(%error, "a question cannot be asked here"),
            }
        }
    }
    for thread in asking {
        if thread.join().is_err() {
            tracing::error!("what asks for a run panicked");
        }
    }
}

/// Asks one question, where it still waits.
fn ask(log: Arc<dyn EventLog>, request_id: &RequestId, channels: RunChannels, stop: &AtomicBool) {
    let commands = match Commands::open(log) {
        Ok(commands) => commands,
        Err(error) => return tracing::warn!(request = %request_id, %error, "a question cannot be asked here"),
    };
    let state = match commands.relay_state(request_id) {
        Ok(Some(state)) if state.status == RequestStatus::Pending => state,
        Ok(_) => return,
        Err(error) => return tracing::warn!(request = %request_id, %error, "a question cannot be asked here"),
    };
    let deferred = channels.deferred.into_iter().filter(|_| state.request.mode == OnAsk::Defer);
    let wanted: Vec<_> = channels.always.into_iter().chain(deferred).collect();
    if wanted.is_empty() {
        return;
    }
    let coordinator = wanted.into_iter().fold(RelayCoordinator::new(commands), RelayCoordinator::with_channel);
    match coordinator.wait(request_id, || stop.load(Ordering::Acquire)) {
        Ok(relayed) if relayed.outcome == RelayOutcome::NoRelay => {
            tracing::debug!(request = %request_id, "nobody here could answer");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(request = %request_id, %error, "a question could not be asked to its end"),
    }
}

impl<C: Channel + ?Sized> Channel for Arc<C> {
    fn name(&self) -> &str {
        self.as_ref().name()
    }

    fn ask(&self, request: &ChannelRequest, stop: &StopToken) -> Option<RelayVerdict> {
        self.as_ref().ask(request, stop)
    }
}
