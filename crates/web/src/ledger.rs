//! The ledger behind the server: opened when it is asked for, again after it was gone, and asked on threads of its own.
//!
//! Invariants: so many questions at once as the queries have connections; who waits longer than [`PATIENCE`] is told so. A file
//! that was replaced is another ledger: what was opened before is not asked again.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use runledger_events::{Position, SessionId};
use runledger_projections::{AsOf, Projections, Queries};
use runledger_store::{EventLog, FileId, LogReader, OpenOptions, SqliteLog};
use runledger_workflow::Commands;
use tokio::sync::Semaphore;

use crate::failure::Failure;
use crate::pasts::{self, Pasts};

/// Questions that are answered at once; the pool of queries has as many connections.
const ASKED_MAX: usize = 8;
/// How long a question waits for others.
const PATIENCE: Duration = Duration::from_secs(10);
/// Readers that are kept for the next question.
const READERS_KEPT: usize = ASKED_MAX;

/// The ledger.
pub(crate) struct Ledger {
    path: PathBuf,
    is_read_only: bool,
    /// The log, where another engine keeps it.
    kept_elsewhere: Option<Arc<dyn EventLog>>,
    opened: Mutex<Option<(FileId, Arc<Opened>)>>,
    places: Semaphore,
}

/// A ledger that was there when it was looked for.
pub(crate) struct Opened {
    path: PathBuf,
    pub(crate) queries: Queries,
    readers: Mutex<Vec<LogReader>>,
    pasts: Mutex<Pasts>,
    /// Held while a session is folded: one at a time.
    folding: Mutex<()>,
    log: Option<Arc<dyn EventLog>>,
}

/// Whoever asks; once it is gone, so is who waits for the answer.
#[derive(Default)]
struct Asker(Arc<AtomicBool>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

thread_local! {
    /// Whether nobody waits any more for what this thread answers.
    static GIVEN_UP: RefCell<Arc<AtomicBool>> = RefCell::default();
}

fn is_given_up() -> bool {
    GIVEN_UP.with_borrow(|given_up| given_up.load(Ordering::Acquire))
}

impl Ledger {
    /// The ledger at an absolute path; nothing is opened yet.
    pub(crate) fn new(path: PathBuf, is_read_only: bool, kept_elsewhere: Option<Arc<dyn EventLog>>) -> Self {
        Self { path, is_read_only, kept_elsewhere, opened: Mutex::new(None), places: Semaphore::new(ASKED_MAX) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Answers a question on a thread that may wait for the disk.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Opened) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let busy = || {
            let error = "too many questions at once";
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, error, "try again in a moment")
        };
        let place = tokio::time::timeout(PATIENCE, self.places.acquire()).await;
        let _place = place.map_err(|_| busy())?.map_err(|_| busy())?;
        let ledger = self.clone();
        let asker = Asker::default();
        let given_up = asker.0.clone();
        let answer = tokio::task::spawn_blocking(move || {
            GIVEN_UP.set(given_up);
            question(&*ledger.open()?)
        })
        .await;
        answer.unwrap_or_else(|error| {
            tracing::error!(%error, "a question was not answered");
            let next = "please report this; the server goes on";
            Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "something here broke", next))
        })
    }

    /// The ledger as it is now.
    pub(crate) fn open(&self) -> Result<Arc<Opened>, Failure> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let found = FileId::of(&self.path);
        let Some(found) = found else {
            *opened = None;
            return Err(Failure::unavailable(format!("the ledger {} is not there", self.path.display())));
        };
        if let Some((file, opened)) = &*opened
            && *file == found
        {
            return Ok(opened.clone());
        }
        let new = Arc::new(Opened::open(&self.path, self.is_read_only, self.kept_elsewhere.as_ref())?);
        *opened = Some((found, new.clone()));
        Ok(new)
    }
}

impl Opened {
    fn open(path: &Path, is_read_only: bool, log: Option<&Arc<dyn EventLog>>) -> Result<Self, Failure> {
        let options = OpenOptions { create: false, ..OpenOptions::default() };
        let log: Option<Arc<dyn EventLog>> = match (is_read_only, log) {
            (true, _) => None,
            (false, Some(log)) => Some(log.clone()),
            (false, None) => Some(Arc::new(SqliteLog::open_with(path, &options)?)),
        };
        // Built where they never were; kept current from then on by the projector.
        Projections::open(path)?.catch_up()?;
        Ok(Self {
            path: path.to_owned(),
            queries: Queries::open(path)?,
            readers: Mutex::default(),
            pasts: Mutex::default(),
            folding: Mutex::default(),
            log,
        })
    }

    /// Reads the log.
    pub(crate) fn read<T>(&self, question: impl FnOnce(&LogReader) -> Result<T, Failure>) -> Result<T, Failure> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match kept {
            Some(reader) => reader,
            None => LogReader::open(&self.path)?,
        };
        let answer = question(&reader);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.is_ok() && readers.len() < READERS_KEPT {
            readers.push(reader);
        }
        answer
    }

    /// A session as it was at a position; `None` when it had not begun. Goes on from the nearest past before it that is kept,
    /// as long as nothing was erased since, and keeps where it comes by.
    pub(crate) fn past(&self, reader: &LogReader, session: &SessionId, at: Position) -> Result<Option<AsOf>, Failure> {
        let (at, erased) = (at.min(reader.head()?.position), reader.last_redaction()?);
        let lock = || self.pasts.lock().unwrap_or_else(PoisonError::into_inner);
        let nearest = || {
            let mut pasts = lock();
            pasts.forget_erased(erased);
            pasts.nearest(session, at)
        };
        if let Some(found) = nearest().filter(|past| past.position() == at) {
            return Ok(Some(found));
        }
        let _one = self.folding.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have asked for the same meanwhile, or for what is nearer.
        let mut found = nearest();
        while found.as_ref().is_none_or(|past| past.position() < at) {
            // A slider that is drawn asks for many positions, of which the last one counts.
            if is_given_up() {
                let next = "ask again";
                return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "nobody waits for this any more", next));
            }
            let (up_to, events_max) = pasts::step(found.as_ref(), at);
            let later = found.map(|past| past.forward_some(reader, up_to, events_max)).transpose()?.flatten();
            let anew = || AsOf::fold_some(reader, session, at, events_max);
            let Some(next) = later.map_or_else(anew, |past| Ok(Some(past)))? else {
                return Ok(None);
            };
            lock().keep(&next);
            found = Some(next);
        }
        Ok(found)
    }

    /// The write half, where there is one.
    pub(crate) fn commands(&self) -> Result<Commands, Failure> {
        match &self.log {
            Some(log) => Ok(Commands::open(log.clone())?),
            None => Err(Failure::new(
                StatusCode::FORBIDDEN,
                "this server only reads",
                "start it without --read-only, or decide in a terminal",
            )),
        }
    }

    /// The log, where it may be written.
    pub(crate) fn log(&self) -> Option<&Arc<dyn EventLog>> {
        self.log.as_ref()
    }
}
