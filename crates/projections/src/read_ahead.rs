//! Reading the log ahead of who folds it: threads of their own read and decode, each a part of the log at a time.
//!
//! Invariant: batches are handed on in the order of the log. Whoever takes the next part takes a place in the queue of
//! parts with it.

use std::path::Path;
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use runledger_events::Position;
use runledger_store::{Batch, EventFilter, LogReader, Read, StorageError};

use crate::error::ProjectionError;

/// Threads that read: more than two are ahead of any fold.
const READERS: usize = 2;
/// Events in one batch, at the most, and positions in the first parts.
const BATCH_EVENTS: usize = 4096;
/// Positions in one part, at the most, where few of the events are wanted.
const PART_MAX: u64 = 1 << 18;

/// Hands batch after batch of the events behind a position, up to and with another one, to `take`.
///
/// # Errors
/// [`ProjectionError`]: what `take` gives, or why the log cannot be read.
pub(crate) fn read_ahead(
    log: &Path,
    filter: &EventFilter,
    (after, up_to): (Position, Position),
    read: Read<'_>,
    mut take: impl FnMut(Batch) -> Result<(), ProjectionError>,
) -> Result<(), ProjectionError> {
    let (sender, parts) = sync_channel(READERS);
    let rest = Mutex::new(Rest { next: after, up_to, width: BATCH_EVENTS as u64, parts: Some(sender) });
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            // Where nobody listens any more the fold has failed, which says more.
            scope.spawn(|| {
                let _ = read_parts(log, filter, read, &rest);
            });
        }
        parts.into_iter().try_for_each(|(up_to, batches)| {
            let mut scanned_to = Position::START;
            for batch in batches {
                let batch = batch?;
                scanned_to = batch.scanned_to;
                take(batch)?;
            }
            // Its reader panicked; what comes behind the gap must not be folded.
            if scanned_to < up_to { Err(ended_early(log, up_to).into()) } else { Ok(()) }
        })
    })
}

type Answer = Result<Batch, ProjectionError>;

/// What nobody has taken yet.
struct Rest {
    next: Position,
    up_to: Position,
    /// Positions in the next part.
    width: u64,
    /// Where each part's end and its batches go, in the order of the log; none once nothing is left.
    parts: Option<SyncSender<(Position, Receiver<Answer>)>>,
}

/// Ends the queue of parts with the first reader that ends, however it does.
struct Reader<'a>(&'a Mutex<Rest>);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        lock(self.0).parts = None;
    }
}

fn lock(rest: &Mutex<Rest>) -> MutexGuard<'_, Rest> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended_early(log: &Path, at: Position) -> StorageError {
    let detail = format!("position {at} was there a moment ago, and cannot be read");
    StorageError::Damaged { path: log.to_owned(), doing: "reading ahead", detail }
}

/// A part of the log, and where its batches go.
struct Part {
    after: Position,
    up_to: Position,
    batches: SyncSender<Answer>,
}

/// The next part, and its place in the queue; none where nothing is left.
fn take_part(rest: &Mutex<Rest>) -> Option<Part> {
    let mut rest = lock(rest);
    let after = rest.next;
    if after >= rest.up_to {
        return None;
    }
    let up_to = Position(after.0.saturating_add(rest.width)).min(rest.up_to);
    rest.next = up_to;
    let (batches, receiver) = sync_channel(1);
    // This may wait, and whoever wants the part behind it with it: so nobody is ahead by more than a few batches.
    rest.parts.as_ref()?.send((up_to, receiver)).ok()?;
    Some(Part { after, up_to, batches })
}

fn read_parts(log: &Path, filter: &EventFilter, read: Read<'_>, rest: &Mutex<Rest>) -> Result<(), SendError<Answer>> {
    let _reader = Reader(rest);
    let mut reader = None;
    while let Some(Part { mut after, up_to, batches }) = take_part(rest) {
        let reader = match &mut reader {
            Some(reader) => reader,
            none => match LogReader::open(log) {
                Ok(opened) => none.insert(opened),
                Err(error) => return batches.send(Err(error.into())),
            },
        };
        let mut events = 0;
        while after < up_to {
            let batch = match reader.read_readable(filter, after, up_to, BATCH_EVENTS, read) {
                Ok(batch) if batch.scanned_to > after => batch,
                Ok(_) => return batches.send(Err(ended_early(log, up_to).into())),
                Err(error) => return batches.send(Err(error.into())),
            };
            after = batch.scanned_to;
            events += batch.events.len();
            batches.send(Ok(batch))?;
        }
        // Whoever holds the lock may wait for this part to end.
        drop(batches);
        let mut rest = lock(rest);
        if events < BATCH_EVENTS / 4 {
            rest.width = (rest.width * 2).min(PART_MAX);
        } else if events > BATCH_EVENTS {
            rest.width = BATCH_EVENTS as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use runledger_events::{EventKind, Metadata, RuntimeEvent, SessionId, StreamName};
    use runledger_store::{EventLog, ExpectedVersion, NewEvent, SqliteLog, StreamAppend};

    use super::*;

    const EVENTS: u64 = 30_000;

    /// Every hundredth event is a prompt, and some are long.
    fn log_in(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("ledger.db");
        let log = SqliteLog::open(&path).unwrap();
        let stream = StreamName::session(&SessionId::new("s").unwrap());
        for first in (1..=EVENTS).step_by(5000) {
            let event = |number: u64| {
                let kind = if number.is_multiple_of(100) { "user.prompt" } else { "x.other" };
                let text = "long ".repeat(if number.is_multiple_of(3000) { 500_000 } else { 1 });
                let json = format!(r#"{{"id":"e{number}","timestamp":1,"kind":"{kind}","data":{{"text":"{text}"}}}}"#);
                NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), Metadata::default()).unwrap()
            };
            let events = (first..first + 5000).map(event).collect();
            log.append_all(vec![StreamAppend { stream: stream.clone(), expected: ExpectedVersion::Any, events }])
                .unwrap();
        }
        path
    }

    #[test]
    fn batches_come_in_the_order_of_the_log_and_nothing_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = log_in(folder.path());
        let reader = LogReader::open(&path).unwrap();
        let few = EventFilter { kinds: Some(vec![EventKind::UserPrompt]), ..EventFilter::default() };
        for filter in [EventFilter::default(), few] {
            for (after, up_to) in [(0, EVENTS), (4095, 4097), (7, 12_345), (EVENTS, EVENTS)] {
                for read in [Read::Facts, Read::All] {
                    let range = (Position(after), Position(up_to));
                    let mut scanned_to = range.0;
                    let mut events = Vec::new();
                    read_ahead(&path, &filter, range, read, |batch| {
                        assert!(batch.scanned_to > scanned_to);
                        scanned_to = batch.scanned_to;
                        events.extend(batch.events);
                        Ok(())
                    })
                    .unwrap();
                    assert_eq!(scanned_to, range.1);
                    let plain = reader.read(&filter, range.0, range.1, usize::MAX, Read::Facts).unwrap().events;
                    let ids = |events: &[runledger_events::RecordedEvent]| -> Vec<Position> {
                        events.iter().map(|event| event.position).collect()
                    };
                    assert_eq!(ids(&events), ids(&plain));
                }
            }
        }
    }

    #[test]
    fn a_reader_that_panics_ends_the_queue() {
        let (sender, parts) = sync_channel(READERS);
        let rest = Mutex::new(Rest { next: Position(0), up_to: Position(9), width: 1, parts: Some(sender) });
        let panicked = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let _reader = Reader(&rest);
                let _part = take_part(&rest);
                std::panic::resume_unwind(Box::new(()));
            });
            reader.join().is_err()
        });
        assert!(panicked);
        assert_eq!(
            parts.into_iter().map(|(up_to, batches)| (up_to, batches.iter().count())).collect::<Vec<_>>(),
            [(Position(1), 0)]
        );
        assert!(take_part(&rest).is_none());
    }

    #[test]
    fn a_fold_that_fails_ends_the_reading_and_so_does_a_log_that_got_shorter() {
        let folder = tempfile::tempdir().unwrap();
        let path = log_in(folder.path());
        let failed = || ProjectionError::Unknown { name: "x".to_owned(), known: String::new() };
        let mut taken = 0;
        let range = (Position::START, Position(EVENTS));
        let result = read_ahead(&path, &EventFilter::default(), range, Read::Facts, |_| {
            taken += 1;
            if taken == 3 { Err(failed()) } else { Ok(()) }
        });
        assert!(matches!(result, Err(ProjectionError::Unknown { .. })));
        assert_eq!(taken, 3);
        let beyond = (Position::START, Position(EVENTS + 5));
        let result = read_ahead(&path, &EventFilter::default(), beyond, Read::Facts, |_| Ok(()));
        assert!(matches!(result, Err(ProjectionError::Storage(StorageError::Damaged { .. }))), "{result:?}");
    }
}
