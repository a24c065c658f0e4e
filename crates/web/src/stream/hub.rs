//! The hub: the thread that reads the log for all who follow it, each batch once, and the places of those who do.
//!
//! Invariants: it reads while somebody follows, and rests otherwise. What it tells is in the ring, or was there before.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use runledger_events::{LogId, Position};
use runledger_store::{EventFilter, FileId, LogReader, Read};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::CLIENTS_MAX;
use super::ring::{Next, Ring, chunks};
use crate::failure::Failure;
use crate::ledger::Ledger;

/// How long it waits for something new before it looks whether the ledger is still the same.
const LOOK: Duration = Duration::from_millis(250);
/// How often it tells of something new, at the most: each time wakes every client.
const TELL: Duration = Duration::from_millis(20);
/// Events that are read at once, at the most.
const BATCH: usize = 1024;
/// Clients that read the log by themselves at once; the ledger answers eight questions at once.
const TURNS: usize = 2;

/// Which log is read, and how far the ring goes.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) log_id: LogId,
    /// Counts the files that were there: an older copy of a log is not the one that somebody has followed.
    pub(super) file: u64,
    pub(super) to: Position,
}

/// What clients share.
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    told: watch::Sender<Option<Told>>,
    clients: AtomicUsize,
    turns: Semaphore,
    thread: Mutex<Option<Thread>>,
}

/// The place of one client; given back when it is dropped.
pub(crate) struct Place(Arc<Hub>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            ring: Mutex::default(),
            told: watch::channel(None).0,
            clients: AtomicUsize::new(0),
            turns: Semaphore::new(TURNS),
            thread: Mutex::default(),
        }
    }

    /// A place, unless all are taken.
    pub(crate) fn enter(hub: &Arc<Self>) -> Option<Place> {
        let more = |clients: usize| (clients < CLIENTS_MAX).then_some(clients + 1);
        hub.clients.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        if let Some(thread) = &*hub.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
        Some(Place(hub.clone()))
    }

    /// Clients that follow.
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::Acquire)
    }

    /// Bytes and events in the ring.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).size()
    }

    pub(super) fn told(&self) -> watch::Receiver<Option<Told>> {
        self.told.subscribe()
    }

    pub(super) fn next(&self, after: Position) -> Next {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).next(after)
    }

    /// A turn to read the log.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }
}

/// The running thread; dropping it ends it.
pub(crate) struct Reading {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reading {
    pub(crate) fn start(ledger: Arc<Ledger>, hub: Arc<Hub>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, of) = (stop.clone(), hub.clone());
        let thread = std::thread::Builder::new().name("runledger-events".to_owned()).spawn(move || {
            let mut files = Files::default();
            while !stopped.load(Ordering::Acquire) {
                if of.clients() == 0 {
                    *of.ring.lock().unwrap_or_else(PoisonError::into_inner) = Ring::default();
                    of.told.send_replace(None);
                    std::thread::park_timeout(LOOK);
                } else if let Err(failure) = read(&ledger, &of, &mut files, &stopped) {
                    tracing::warn!(error = failure.error, "the log is not read for those who follow it");
                    std::thread::sleep(LOOK);
                }
            }
        })?;
        *hub.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread.thread().clone());
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that reads for those who follow panicked");
            }
        }
    }
}

/// The files that were there, counted.
#[derive(Debug, Default)]
struct Files {
    last: Option<FileId>,
    count: u64,
}

impl Files {
    fn number(&mut self, found: Option<FileId>) -> u64 {
        if self.last != found {
            self.last = found;
            self.count += 1;
        }
        self.count
    }
}

/// Reads the ledger that is there now for all who follow, from its head on, until it is another one or nobody follows.
fn read(ledger: &Ledger, hub: &Hub, files: &mut Files, stop: &AtomicBool) -> Result<(), Failure> {
    let opened = ledger.open()?;
    let file = FileId::of(ledger.path());
    let mut follower = match opened.log() {
        Some(log) => log.follow(Position::START)?,
        None => LogReader::open(ledger.path())?.follow(Position::START)?,
    };
    let log_id = follower.reader().log_id().clone();
    let number = files.number(file);
    let mut at = follower.reader().head()?.position;
    let tell = |to: Position| hub.told.send_replace(Some(Told { log_id: log_id.clone(), file: number, to }));
    *hub.ring.lock().unwrap_or_else(PoisonError::into_inner) = Ring::behind(at);
    tell(at);
    while !stop.load(Ordering::Acquire) && hub.clients() > 0 && FileId::of(ledger.path()) == file {
        let head = follower.wait_beyond(at, LOOK)?;
        if head <= at {
            continue;
        }
        let batch = follower.reader().read_readable(&EventFilter::default(), at, head, BATCH, Read::All)?;
        let chunks = chunks(&batch, at);
        at = batch.scanned_to;
        {
            let mut ring = hub.ring.lock().unwrap_or_else(PoisonError::into_inner);
            chunks.into_iter().for_each(|chunk| ring.push(chunk));
        }
        tell(at);
        if at >= head {
            std::thread::sleep(TELL);
        }
    }
    Ok(())
}
