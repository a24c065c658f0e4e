//! The copier: the thread that takes what is in the stream into this machine's copy, in order, and tells how far it is.
//!
//! Invariants: it never ends because of the servers; while they are away it tries again. What does not follow on what the copy has
//! ends it, and is told to everybody who waits for more; what is missing is looked for again and again.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use async_nats::jetstream::message::Message;
use async_nats::jetstream::stream::Stream;
use futures_util::{FutureExt, StreamExt};
use runledger_events::{Position, TimestampMs};
use runledger_store::{CopiedLog, CopyError, Found, StorageError, Stray};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::heard::Heard;
use crate::publish::EVENT;
use crate::stand_ins::StandIns;

/// Events that are taken in at once, at the most.
const AT_ONCE: usize = 512;
/// Their bytes, about.
const BYTES_AT_ONCE: usize = 4 << 20;
/// How long nothing may come before it is looked whether something should have: where somebody waits for it, and where nobody does.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_UNASKED: u32 = 5;
/// How long is waited before the servers are asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// What is to be done where the copy and the stream are no longer one log.
pub(crate) const APART: &str = "it and the stream are no longer the same log; move the copy away, and it is made anew";

/// How far the copy is, for those who wait.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    head: Position,
    /// The furthest that somebody has waited for.
    wanted: Position,
    /// The furthest that somebody has waited for in vain.
    missed: Position,
    /// Why it goes no further.
    stuck: Option<String>,
    /// Whether it never will.
    is_over: bool,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how far it is.
    pub(crate) fn reach(&self, head: Position) {
        let mut state = self.state();
        if head > state.head {
            state.head = head;
            // What was missing is there.
            if !state.is_over {
                state.stuck = None;
            }
            self.moved.notify_all();
        }
    }

    /// Whether somebody waits for more than there is.
    fn is_waited_for(&self) -> bool {
        let state = self.state();
        state.wanted > state.head
    }

    /// Waits until it has what somebody has waited for in vain, and is known to be there.
    pub(crate) fn go_on(&self, deadline: Instant) -> Result<(), String> {
        let missed = self.state().missed;
        self.wait_for(missed, deadline)
    }

    fn is_stopped(&self) -> bool {
        self.state().stuck.is_some()
    }

    /// Tells why it goes no further, and whether it never will.
    fn stop(&self, why: String, is_over: bool) {
        let mut state = self.state();
        (state.stuck, state.is_over) = (Some(why), is_over);
        drop(state);
        self.moved.notify_all();
    }

    /// Waits until it has come so far, as long as it goes on: where it stands still for longer than `patience`, why.
    pub(crate) fn wait_while_moving(&self, position: Position, patience: Duration) -> Result<(), String> {
        loop {
            let before = self.state().head;
            match self.wait_for(position, Instant::now() + patience) {
                Err(_) if self.state().stuck.is_none() && self.state().head > before => {}
                waited => return waited,
            }
        }
    }

    /// Waits until it has come so far; or why it has not.
    pub(crate) fn wait_for(&self, position: Position, deadline: Instant) -> Result<(), String> {
        let mut state = self.state();
        state.wanted = state.wanted.max(position);
        loop {
            // A copy that has gone apart has positions of another log.
            if let Some(why) = &state.stuck {
                return Err(why.clone());
            }
            if state.head >= position {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.missed = state.missed.max(position);
                return Err(format!(
                    "this machine's copy goes to position {} only, and {position} is wanted",
                    state.head
                ));
            }
            state = self.moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The running copier; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Copier {
    end: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    pub(crate) fn start(engine: &Engine, copy: Arc<CopiedLog>, progress: Arc<Progress>) -> std::io::Result<Self> {
        let end = Arc::new(Notify::new());
        let ended = end.clone();
        let (context, name) = (engine.context().clone(), engine.address().name().to_owned());
        let Some(handle) = engine.runtime().map(|runtime| runtime.handle().clone()) else {
            return Err(std::io::Error::other("the connection has ended"));
        };
        let thread = std::thread::Builder::new()
            .name("runledger-copier".to_owned())
            .spawn(move || run(&handle, &context, &name, &copy, &progress, &ended))?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.end.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the copier's thread panicked");
        }
    }
}

fn run(handle: &Handle, context: &Context, name: &str, copy: &CopiedLog, progress: &Progress, end: &Notify) {
    let mut gone: Option<String> = None;
    loop {
        let mut pause = PAUSE;
        let copied = handle.block_on(async {
            tokio::select! {
                // It is asked first, so that an end is an end whatever comes.
                biased;
                () = end.notified() => None,
                copied = follow(context, name, copy, progress) => Some(copied),
            }
        });
        match copied {
            None => return,
            Some(Stopped::Servers(detail)) => tracing::debug!(detail, "the stream is not followed; trying again"),
            Some(Stopped::Copy(CopyError::Storage(error @ StorageError::Busy { .. }))) => {
                tracing::debug!(%error, "the copy is busy; trying again");
            }
            Some(Stopped::Copy(CopyError::Storage(error))) => {
                tracing::warn!(%error, "the copy cannot be written; trying again");
            }
            // A server that is behind may not know yet what stands in; and somebody may tell of it later.
            Some(Stopped::Copy(error @ CopyError::Missing { .. })) => {
                let is_the_same = gone.as_deref() == Some(error.to_string().as_str());
                if is_the_same && !progress.is_stopped() {
                    tracing::error!(%error, "the copy goes no further");
                    progress.stop(error.to_string(), false);
                }
                pause = LOOK;
                gone = Some(error.to_string());
            }
            Some(Stopped::Copy(error)) => {
                tracing::error!(%error, "the copy goes no further");
                progress.stop(error.to_string(), true);
                return;
            }
        }
        let is_over = handle.block_on(async { tokio::time::timeout(pause, end.notified()).await.is_ok() });
        if is_over {
            return;
        }
    }
}

/// Why following came to its end.
enum Stopped {
    Servers(String),
    Copy(CopyError),
}

/// Follows the stream from behind the copy's head on.
async fn follow(context: &Context, name: &str, copy: &CopiedLog, progress: &Progress) -> Stopped {
    match follow_on(context, name, copy, progress).await {
        Ok(()) => Stopped::Servers("the stream has ended".to_owned()),
        Err(stopped) => stopped,
    }
}

async fn follow_on(context: &Context, name: &str, copy: &CopiedLog, progress: &Progress) -> Result<(), Stopped> {
    let servers = |error: &dyn std::fmt::Display| Stopped::Servers(error.to_string());
    let head = copy.head().map_err(|error| Stopped::Copy(error.into()))?;
    progress.reach(head);
    let stream = Engine::stream(context.clone(), name.to_owned()).await.map_err(Stopped::Servers)?;
    let last = Position(stream.get_info().await.map_err(|error| servers(&error))?.state.last_sequence);
    // A server that is behind may say so too, so it is asked again before it is believed.
    if let Some(lost) = copy.is_beyond(last).map_err(|error| Stopped::Copy(error.into()))? {
        tokio::time::sleep(LOOK).await;
        let info = stream.get_info().await.map_err(|error| servers(&error))?;
        let is_led =
            info.config.num_replicas == 1 || info.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_some());
        return Err(match is_led && Position(info.state.last_sequence) <= last {
            true => Stopped::Copy(lost),
            false => Stopped::Servers("the server that answered is behind".to_owned()),
        });
    }
    let config = OrderedConfig {
        // What it ends with comes once more, and is compared.
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: head.0.max(1) },
        ..OrderedConfig::default()
    };
    let mut stand_ins = StandIns::new(name, copy.log_id().clone());
    let consumer = stream.create_consumer(config).await.map_err(|error| servers(&error))?;
    let mut messages = consumer.messages().await.map_err(|error| servers(&error))?;
    let (mut looks, mut heard) = (0, Heard::default());
    loop {
        let Ok(next) = tokio::time::timeout(LOOK, messages.next()).await else {
            looks += 1;
            // A consumer may have been lost with a connection, and say nothing of it.
            if progress.is_waited_for() {
                return Err(Stopped::Servers("what is waited for does not come".to_owned()));
            }
            if looks >= LOOK_UNASKED {
                looks = 0;
                let last = stream.get_info().await.map_err(|error| servers(&error))?.state.last_sequence;
                if Position(last) > copy.head().map_err(|error| Stopped::Copy(error.into()))? {
                    return Err(Stopped::Servers("what is there does not come".to_owned()));
                }
                heard.note(copy);
            }
            continue;
        };
        let Some(first) = next else {
            return Ok(());
        };
        looks = 0;
        let mut taken: Vec<Message> = vec![first.map_err(|error| servers(&error))?];
        let mut bytes = taken[0].payload.len();
        let mut failed = None;
        // What has come already is taken in together.
        while taken.len() < AT_ONCE && bytes < BYTES_AT_ONCE && failed.is_none() {
            match messages.next().now_or_never() {
                Some(Some(Ok(message))) => {
                    bytes += message.payload.len();
                    taken.push(message);
                }
                Some(Some(Err(error))) => failed = Some(servers(&error)),
                Some(None) | None => break,
            }
        }
        let head = take(copy, &taken, &stream, &mut stand_ins, progress).await?;
        progress.reach(head);
        let is_last = taken.last().and_then(|message| message.info().ok()).is_some_and(|place| place.pending == 0);
        if is_last && failed.is_none() {
            heard.note(copy);
        }
        if let Some(failed) = failed {
            return Err(failed);
        }
    }
}

/// Takes in messages; where some before them were erased on the servers, what stands in for these.
async fn take(
    copy: &CopiedLog,
    messages: &[Message],
    stream: &Stream<()>,
    stand_ins: &mut StandIns,
    progress: &Progress,
) -> Result<Position, Stopped> {
    let mut taken = Vec::with_capacity(messages.len());
    for message in messages {
        let place = message.info().map_err(|error| Stopped::Servers(error.to_string()))?;
        let is_event = message.headers.as_ref().is_some_and(|headers| headers.get(EVENT).is_some());
        let found = match is_event {
            // What is no text is no event: it is refused as such, by its position.
            true => Found::Event(std::str::from_utf8(&message.payload).unwrap_or("\u{fffd}")),
            false => {
                let at =
                    TimestampMs(i64::try_from(place.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX));
                Found::Stray(Stray { subject: &message.subject, at, bytes: message.payload.len() })
            }
        };
        taken.push((Position(place.stream_sequence), found));
    }
    loop {
        let gap = match copy.take_found(&taken) {
            Err(CopyError::Missing { missing, next, .. }) => missing..next,
            taken => return taken.map_err(Stopped::Copy),
        };
        let found = find_for(&gap, stream, stand_ins).await.map_err(Stopped::Servers)?;
        // What stands before the gap has to be there first.
        let before = taken.iter().filter(|(position, _)| *position < gap.start).copied();
        let with_found: Vec<_> =
            before.chain(found.iter().map(|(position, line)| (*position, Found::Event(line)))).collect();
        match copy.take_found(&with_found) {
            Ok(head) => progress.reach(head),
            // Somebody told of another event there; a later one may tell of this one.
            Err(CopyError::Apart { position, .. } | CopyError::NoEvent { position, .. })
                if found.iter().any(|(of, _)| *of == position) =>
            {
                stand_ins.refuse(position);
                continue;
            }
            Err(error) => return Err(Stopped::Copy(error)),
        }
        if found.is_empty() {
            return copy.take_found(&taken).map_err(Stopped::Copy);
        }
    }
}

/// What stands in for the first positions of a gap, as many as are taken in at once; less where nothing does for one of them.
async fn find_for(
    gap: &Range<Position>,
    stream: &Stream<()>,
    stand_ins: &mut StandIns,
) -> Result<Vec<(Position, String)>, String> {
    let mut found = Vec::new();
    let mut next = gap.start;
    while next < gap.end && found.len() < AT_ONCE {
        let Some(line) = stand_ins.find(stream, next).await? else {
            break;
        };
        found.push((next, line));
        next = next.next();
    }
    Ok(found)
}
