//! Group commit: whoever comes first writes for all who wait, so that many appends share one sync.
//!
//! One caller at a time leads: it writes its own request and all that wait, in one transaction, hands the lead to whoever
//! waits first, and answers the others. So a lone caller writes by itself, with no thread in between, and nobody leads for
//! longer than one batch.
//!
//! Invariants: a request is answered after its commit, never before; a request that conflicts leaves no trace and does not
//! harm the others of its batch; when the commit fails, every request of the batch learns it; whoever waits is answered,
//! or leads, or learns that the writer is gone.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::TrySendError;
use runledger_events::LogId;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::{AppendError, StorageError};
use crate::failpoint;
use crate::new_event::Receipt;
use crate::seal::SealedAppend;
use crate::sqlite_log::Listeners;
use crate::write::{AppendTransaction, Heads};
use crate::write_back::WriteBack;

/// Requests in one transaction, at the most.
const BATCH_REQUESTS_MAX: usize = 512;
/// Bytes in one transaction, about, at the most; a single larger request is still one transaction.
const BATCH_BYTES_MAX: usize = 8 << 20;

type Answer = Result<Vec<Receipt>, AppendError>;

/// What a caller that waits hears.
enum Turn {
    /// What came of its request.
    Answer(Answer),
    /// It leads now, with its request.
    Lead(Vec<SealedAppend>),
    /// Whoever led did not come to an end.
    Gone,
}

/// Where a caller that waits hears what comes next.
#[derive(Default)]
struct Seat {
    turn: Mutex<Option<Turn>>,
    is_set: Condvar,
}

impl Seat {
    fn set(&self, turn: Turn) {
        *lock(&self.turn) = Some(turn);
        self.is_set.notify_one();
    }

    fn wait(&self) -> Turn {
        let mut turn = lock(&self.turn);
        loop {
            match turn.take() {
                Some(turn) => return turn,
                None => turn = self.is_set.wait(turn).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// A caller that waits: its request, and where it sits.
struct Waiting {
    appends: Vec<SealedAppend>,
    seat: Arc<Seat>,
}

/// Those who wait, and whether somebody leads.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    is_led: bool,
    /// Whoever led panicked: what the connection is in the middle of is not known.
    is_gone: bool,
}

/// Appends from any number of threads, over one connection.
pub(crate) struct GroupCommit {
    path: PathBuf,
    queue: Mutex<Queue>,
    /// The leader's; nobody waits for it.
    writer: Mutex<Writer>,
}

impl std::fmt::Debug for GroupCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupCommit").field("path", &self.path).finish_non_exhaustive()
    }
}

impl GroupCommit {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { path: writer.path.clone(), queue: Mutex::default(), writer: Mutex::new(writer) }
    }

    /// Appends to several streams, all or nothing, and returns once that is on disk.
    pub(crate) fn append(&self, appends: Vec<SealedAppend>) -> Answer {
        let appends = match self.turn_of(appends) {
            Turn::Lead(appends) => appends,
            Turn::Answer(answer) => return answer,
            Turn::Gone => return Err(self.gone().into()),
        };
        let mut lead = Lead { group: self, is_done: false };
        let (batch, seats) = self.batch_with(appends);
        let mut results = lock(&self.writer).commit(batch).into_iter();
        let own = results.next();
        // The next one may begin while the others are woken.
        lead.is_done = true;
        drop(lead);
        for (seat, result) in seats.iter().zip(results) {
            seat.set(Turn::Answer(result));
        }
        failpoint::pass("append.others_answered");
        own.unwrap_or_else(|| Err(self.gone().into()))
    }

    /// Leads where nobody does; else waits for what comes.
    fn turn_of(&self, appends: Vec<SealedAppend>) -> Turn {
        let seat = Arc::new(Seat::default());
        {
            let mut queue = lock(&self.queue);
            if queue.is_gone {
                return Turn::Gone;
            }
            if !queue.is_led {
                queue.is_led = true;
                return Turn::Lead(appends);
            }
            queue.waiting.push_back(Waiting { appends, seat: seat.clone() });
        }
        seat.wait()
    }

    /// The leader's own request, and as many of those that wait as one transaction takes.
    fn batch_with(&self, own: Vec<SealedAppend>) -> (Vec<Vec<SealedAppend>>, Vec<Arc<Seat>>) {
        let mut bytes = bytes_of(&own);
        let (mut batch, mut seats) = (vec![own], Vec::new());
        let mut queue = lock(&self.queue);
        while batch.len() < BATCH_REQUESTS_MAX
            && bytes < BATCH_BYTES_MAX
            && let Some(next) = queue.waiting.pop_front()
        {
            bytes += bytes_of(&next.appends);
            batch.push(next.appends);
            seats.push(next.seat);
        }
        (batch, seats)
    }

    fn gone(&self) -> StorageError {
        StorageError::WriterGone { path: self.path.clone() }
    }
}

/// The lead, which goes on to whoever waits first.
struct Lead<'a> {
    group: &'a GroupCommit,
    is_done: bool,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.group.queue);
        if !self.is_done {
            queue.is_gone = true;
            queue.waiting.drain(..).for_each(|waiting| waiting.seat.set(Turn::Gone));
            return;
        }
        match queue.waiting.pop_front() {
            Some(next) => next.seat.set(Turn::Lead(next.appends)),
            None => queue.is_led = false,
        }
    }
}

fn bytes_of(appends: &[SealedAppend]) -> usize {
    appends.iter().map(SealedAppend::bytes).sum()
}

/// Tells the process's listeners of a commit.
pub(crate) fn notify(listeners: &Listeners) {
    lock(listeners).retain(|listener| !matches!(listener.try_send(()), Err(TrySendError::Disconnected(()))));
}

/// What is behind these locks is whole at every step; the writer's own panic is told by its lead.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What writes: the connection, and what is known of the log from the transaction before.
pub(crate) struct Writer {
    path: PathBuf,
    log_id: LogId,
    connection: Connection,
    heads: Heads,
    listeners: Listeners,
    wal_pages: u32,
    write_back: WriteBack,
}

impl Writer {
    pub(crate) fn new(
        path: PathBuf,
        log_id: LogId,
        connection: Connection,
        listeners: Listeners,
        wal_pages: u32,
    ) -> Self {
        let write_back = WriteBack::new(&path);
        Self { path, log_id, connection, heads: Heads::default(), listeners, wal_pages, write_back }
    }

    /// Writes the requests in one transaction; an answer for each.
    fn commit(&mut self, batch: Vec<Vec<SealedAppend>>) -> Vec<Answer> {
        let count = batch.len();
        let results = match self.write(batch) {
            Ok(results) => results,
            Err(error) => {
                self.heads.forget();
                (0..count).map(|_| Err(AppendError::Storage(error.clone()))).collect()
            }
        };
        self.notify();
        results
    }

    fn write(&mut self, batch: Vec<Vec<SealedAppend>>) -> Result<Vec<Answer>, StorageError> {
        let path = &self.path;
        let storage = |doing: &'static str| move |source: rusqlite::Error| StorageError::sqlite(path, doing, &source);
        failpoint::pass("append.before_lock");
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(storage("waiting for the write lock"))?;
        let mut append = AppendTransaction::begin(path, &self.log_id, &transaction, &mut self.heads)?;
        let mut results = Vec::with_capacity(batch.len());
        for appends in batch {
            match append.append(&transaction, appends) {
                Err(AppendError::Storage(error)) => return Err(error),
                result => results.push(result),
            }
        }
        failpoint::pass("append.inserted");
        if append.finish(&transaction)? {
            failpoint::pass("append.before_commit");
            transaction.commit().map_err(storage("committing"))?;
            failpoint::pass("append.committed");
            self.write_back.look(&self.connection);
        }
        Ok(results)
    }

    fn notify(&self) {
        notify(&self.listeners);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        crate::sqlite::shorten_wal(&self.connection, &self.path, self.wal_pages);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;
    use crate::sqlite_log::OpenOptions;

    fn group_in(folder: &std::path::Path) -> GroupCommit {
        let path = folder.join("ledger.db");
        let connection = crate::connection::open_writable(&path, &OpenOptions::default(), None).unwrap();
        let log_id = crate::reader::log_id(&path, &connection).unwrap();
        GroupCommit::new(Writer::new(path, log_id, connection, Listeners::default(), 1000))
    }

    #[test]
    fn who_waits_for_a_leader_that_panics_learns_it_and_so_does_whoever_comes() {
        let folder = tempfile::tempdir().unwrap();
        let group = group_in(folder.path());
        let is_gone = |answer: Answer| matches!(answer, Err(AppendError::Storage(StorageError::WriterGone { .. })));
        assert!(matches!(group.turn_of(Vec::new()), Turn::Lead(_)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| group.append(Vec::new()));
            while lock(&group.queue).waiting.is_empty() {
                std::thread::yield_now();
            }
            drop(Lead { group: &group, is_done: false });
            assert!(is_gone(waiting.join().unwrap()));
        });
        assert!(is_gone(group.append(Vec::new())));
    }

    #[test]
    fn the_lead_goes_to_whoever_has_waited_longest() {
        let folder = tempfile::tempdir().unwrap();
        let group = group_in(folder.path());
        assert!(matches!(group.turn_of(Vec::new()), Turn::Lead(_)));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| matches!(group.turn_of(Vec::new()), Turn::Lead(_)));
            while lock(&group.queue).waiting.is_empty() {
                std::thread::yield_now();
            }
            let second = scope.spawn(|| matches!(group.turn_of(Vec::new()), Turn::Lead(_)));
            while lock(&group.queue).waiting.len() < 2 {
                std::thread::yield_now();
            }
            drop(Lead { group: &group, is_done: true });
            assert!(first.join().unwrap());
            assert!(!second.is_finished());
            drop(Lead { group: &group, is_done: true });
            assert!(second.join().unwrap());
        });
        drop(Lead { group: &group, is_done: true });
        assert!(matches!(group.turn_of(Vec::new()), Turn::Lead(_)), "nobody leads any more");
    }
}
