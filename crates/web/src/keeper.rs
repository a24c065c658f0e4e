//! The keeper: the thread that keeps a ledger's read models current while it is served, tells how far they are, and does
//! what is left to do: what hooks kept aside is taken in, requests whose time is up come to their end.
//!
//! Invariants: it never ends because of the ledger. Where that is gone, or another one lies in its place, it looks again until it
//! can go on. What it tells is a position that every read model has applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use runledger_events::{Position, RequestStatus};
use runledger_projections::{ProjectionError, Projector, RequestFilter};
use runledger_store::{EventLog, FileId};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::ledger::{Ledger, Opened};
use crate::show;

/// How long it waits for something new before it looks whether the ledger is still the same.
const LOOK: Duration = Duration::from_millis(250);
/// How often it tells of something new, at the most: pages are drawn anew each time.
const TELL: Duration = Duration::from_millis(100);
/// How often it does what is left to do.
const HOUSEKEEPING: Duration = Duration::from_secs(2);

/// Requests that are told at once that their time is up.
const EXPIRED_AT_ONCE: usize = 100;

/// What is done with the log now and then: events that hooks could only keep aside are taken in.
pub(crate) type Housekeeping = Box<dyn Fn(&dyn EventLog) + Send>;

/// The running keeper; dropping it ends the thread.
pub(crate) struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread, and gives what it tells.
    pub(crate) fn start(
        ledger: Arc<Ledger>,
        housekeeping: Option<Housekeeping>,
    ) -> std::io::Result<(Self, watch::Receiver<Position>)> {
        let (tell, told) = watch::channel(Position::START);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("runledger-keeper".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                if let Err(failure) = keep(&ledger, housekeeping.as_ref(), &tell, &stopped) {
                    tracing::warn!(error = failure.error, "the ledger is not kept current");
                    std::thread::sleep(LOOK);
                }
            }
        })?;
        Ok((Self { stop, thread: Some(thread) }, told))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the keeper's thread panicked");
        }
    }
}

/// Says of requests whose time is up that it is, where nobody waits who would.
fn expire(opened: &Opened) -> Result<(), Failure> {
    let overdue = RequestFilter {
        status: Some(RequestStatus::Pending),
        due_by: Some(show::now()),
        limit: Some(EXPIRED_AT_ONCE),
        ..RequestFilter::default()
    };
    let overdue = opened.queries.permission_requests(&overdue)?;
    if overdue.is_empty() {
        return Ok(());
    }
    let commands = opened.commands()?;
    for request in overdue {
        // What one question's stream is wrong with keeps no other one pending.
        if let Err(error) = commands.expire(&request.request_id) {
            tracing::warn!(%error, "a request whose time is up stays pending");
        }
    }
    Ok(())
}

/// Keeps the ledger that is there now, until it is another one.
fn keep(
    ledger: &Ledger,
    housekeeping: Option<&Housekeeping>,
    tell: &watch::Sender<Position>,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let opened = ledger.open()?;
    let file = FileId::of(ledger.path());
    let reader = || runledger_store::LogReader::open(ledger.path());
    let follow = || match opened.log() {
        Some(log) => log.follow(Position::START),
        None => reader()?.follow(Position::START),
    };
    let projector = Projector::start(ledger.path(), follow()?)?;
    let mut follower = follow()?;
    let mut told = Position::START;
    let mut kept_at: Option<Instant> = None;
    while !stop.load(Ordering::Acquire) && projector.is_running() && FileId::of(ledger.path()) == file {
        if let Some(log) = opened.log().filter(|log| !log.is_cut_off())
            && kept_at.is_none_or(|at| at.elapsed() >= HOUSEKEEPING)
        {
            if let Some(keep) = housekeeping {
                keep(&**log);
            }
            expire(&opened)?;
            kept_at = Some(Instant::now());
        }
        let head = follower.wait_beyond(told, LOOK)?;
        if head <= told {
            continue;
        }
        match opened.queries.wait_for(head, LOOK) {
            Ok(()) => told = head,
            Err(ProjectionError::TimedOut { reached, .. }) if reached > told => told = reached,
            Err(ProjectionError::TimedOut { .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        tell.send_replace(told);
        std::thread::sleep(TELL);
    }
    match projector.is_running() {
        true => Ok(()),
        false => Ok(projector.stop()?),
    }
}
