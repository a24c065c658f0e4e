//! Group commit: one thread drains the channel into one transaction, so that many appends share one sync.
//!
//! Invariants: a request is answered after its commit, never before; a request that conflicts leaves no trace and does
//! not harm the others of its batch; when the commit fails, every request of the batch learns it.

use std::path::PathBuf;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use runledger_events::LogId;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::{AppendError, StorageError};
use crate::log::Listeners;
use crate::new_event::{NewEvent, Receipt, StreamAppend};
use crate::write::AppendTransaction;

/// Requests in one transaction, at the most.
const BATCH_REQUESTS_MAX: usize = 512;
/// Bytes in one transaction, about, at the most; a single larger request is still one transaction.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// One append, and where its answer goes.
pub(crate) struct Request {
    pub(crate) appends: Vec<StreamAppend>,
    pub(crate) reply: Sender<Result<Vec<Receipt>, AppendError>>,
}

impl Request {
    fn bytes(&self) -> usize {
        self.appends.iter().flat_map(|append| &append.events).map(NewEvent::bytes).sum()
    }
}

/// The thread that writes.
pub(crate) struct Writer {
    path: PathBuf,
    log_id: LogId,
    connection: Connection,
    listeners: Listeners,
    wal_pages: u32,
}

impl Writer {
    pub(crate) fn new(
        path: PathBuf,
        log_id: LogId,
        connection: Connection,
        listeners: Listeners,
        wal_pages: u32,
    ) -> Self {
        Self { path, log_id, connection, listeners, wal_pages }
    }

    /// Works until every sender is gone and the channel is empty.
    pub(crate) fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut bytes = first.bytes();
            let mut batch = vec![first];
            while batch.len() < BATCH_REQUESTS_MAX
                && bytes < BATCH_BYTES_MAX
                && let Ok(next) = requests.try_recv()
            {
                bytes += next.bytes();
                batch.push(next);
            }
            self.commit(batch);
        }
        crate::sqlite::shorten_wal(&self.connection, &self.path, self.wal_pages);
    }

    fn commit(&mut self, batch: Vec<Request>) {
        let (appends, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|request| (request.appends, request.reply)).unzip();
        let results = match self.write(appends) {
            Ok(results) => results,
            Err(error) => replies.iter().map(|_| Err(AppendError::Storage(error.clone()))).collect(),
        };
        for (reply, result) in replies.iter().zip(results) {
            // Whoever asked may be gone; the events are there all the same.
            let _ = reply.send(result);
        }
        self.notify();
    }

    fn write(&mut self, batch: Vec<Vec<StreamAppend>>) -> Result<Vec<Result<Vec<Receipt>, AppendError>>, StorageError> {
        let path = &self.path;
        let storage = |doing: &'static str| move |source: rusqlite::Error| StorageError::sqlite(path, doing, &source);
        let mut transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(storage("waiting for the write lock"))?;
        let mut append = AppendTransaction::begin(path, &self.log_id, &transaction)?;
        let mut results = Vec::with_capacity(batch.len());
        for appends in batch {
            let savepoint = transaction.savepoint().map_err(storage("appending"))?;
            let before = append.mark();
            let result = append.append(&savepoint, appends);
            match &result {
                Ok(_) => savepoint.commit().map_err(storage("appending"))?,
                Err(AppendError::Storage(error)) => return Err(error.clone()),
                Err(_) => {
                    savepoint.finish().map_err(storage("rolling back"))?;
                    append.reset(before);
                }
            }
            results.push(result);
        }
        if append.wrote() {
            transaction.commit().map_err(storage("committing"))?;
        }
        Ok(results)
    }

    fn notify(&self) {
        let mut listeners = match self.listeners.lock() {
            Ok(listeners) => listeners,
            Err(poisoned) => poisoned.into_inner(),
        };
        listeners.retain(|listener| !matches!(listener.try_send(()), Err(TrySendError::Disconnected(()))));
    }
}
