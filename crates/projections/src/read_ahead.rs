//! Reading the log ahead of who folds it: a thread of its own reads and decodes.

use std::path::Path;
use std::sync::mpsc::{SendError, SyncSender, sync_channel};

use runledger_events::Position;
use runledger_store::{Batch, EventFilter, LogReader, Read, StorageError};

use crate::error::ProjectionError;

/// Events in one batch.
const BATCH_EVENTS: usize = 4096;
/// Batches that the thread is ahead, beside the one that it reads.
const BATCHES_AHEAD: usize = 1;

/// Hands batch after batch of the events behind a position, up to and with another one, to `take`.
///
/// # Errors
/// [`ProjectionError`]: what `take` gives, or why the log cannot be read.
pub(crate) fn read_ahead(
    log: &Path,
    filter: &EventFilter,
    (after, up_to): (Position, Position),
    read: Read,
    mut take: impl FnMut(Batch) -> Result<(), ProjectionError>,
) -> Result<(), ProjectionError> {
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(BATCHES_AHEAD);
        scope.spawn(move || {
            // Where nobody listens any more the fold has failed, which says more.
            let _ = send_batches(log, filter, (after, up_to), read, &sender);
        });
        batches.into_iter().try_for_each(|batch| take(batch?))
    })
}

type Answer = Result<Batch, ProjectionError>;

fn send_batches(
    log: &Path,
    filter: &EventFilter,
    (mut after, up_to): (Position, Position),
    read: Read,
    batches: &SyncSender<Answer>,
) -> Result<(), SendError<Answer>> {
    let reader = match LogReader::open(log) {
        Ok(reader) => reader,
        Err(error) => return batches.send(Err(error.into())),
    };
    while after < up_to {
        let mut batch = reader.read(filter, after, up_to, BATCH_EVENTS, read).map_err(ProjectionError::from);
        if batch.as_ref().is_ok_and(|batch| batch.scanned_to <= after) {
            let detail = format!("position {up_to} was there a moment ago, and is gone");
            batch = Err(StorageError::Damaged { path: log.to_owned(), doing: "reading ahead", detail }.into());
        }
        let is_failed = batch.is_err();
        if let Ok(batch) = &batch {
            after = batch.scanned_to;
        }
        batches.send(batch)?;
        if is_failed {
            break;
        }
    }
    Ok(())
}
