//! Taking spools in: their events into the log, in order, once, and the spools empty afterwards.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{LOCK, SPOOL_BYTES_MAX, Spool, SpoolError, SpoolRecord, TAKE_LOCK};
use crate::error::{AppendError, StorageError};
use crate::log::EventLog;
use crate::new_event::StreamAppend;

/// Events in one transaction, at the most.
const BATCH_EVENTS_MAX: usize = 256;
/// Bytes of events in one transaction, about, at the most; a single larger one is still one transaction.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How long a process that appends to a spool is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

/// What was taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Events that are in the log now; those are counted, too, that a process had appended before it was killed.
    pub events: u64,
    /// Records that no log takes, torn ones among them; each is in its spool's `rejected`.
    pub rejected: u64,
    /// Whether something is left: another process takes in, or the time was up.
    pub is_left: bool,
}

/// Why taking in stopped. What is not in the log yet is in the spool.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The log.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Takes what is in `spools` now into `log`: each in its own order, and several by the times at which their events came.
///
/// One process does so at a time; another waits as long as `patience`, then leaves it. It stops at `until`. Before
/// anything is appended `is_sound` is asked, with what is taken in settled: whether these are all the spools with
/// events that came before. A record that no log takes goes to its spool's `rejected`, and costs nothing but itself.
///
/// # Errors
/// [`TakeError`]; what is not in the log is still in the spool.
pub fn take_in(
    log: &dyn EventLog,
    spools: &[Spool],
    patience: Duration,
    until: Option<Instant>,
    is_sound: &dyn Fn() -> bool,
) -> Result<Taken, TakeError> {
    let mut taken = Taken { is_left: true, ..Taken::default() };
    let mut locks = Vec::new();
    for spool in spools {
        match spool.lock(TAKE_LOCK, patience)? {
            Some(lock) => locks.push(lock),
            None => return Ok(taken),
        }
    }
    let result = take_once(log, spools, until, is_sound, &mut taken);
    if !matches!(result, Ok(true)) {
        for spool in spools {
            // A fault that stays would else leave a file for each try.
            let _ = spool.unseal(PATIENCE);
        }
    }
    taken.is_left = !result?;
    Ok(taken)
}

/// Whether nothing is left of what was there.
fn take_once(
    log: &dyn EventLog,
    spools: &[Spool],
    until: Option<Instant>,
    is_sound: &dyn Fn() -> bool,
    taken: &mut Taken,
) -> Result<bool, TakeError> {
    let sources = seal(spools)?;
    if !is_sound() {
        return Ok(false);
    }
    let mut taking = Taking { log, sources, batch: Vec::new(), bytes: 0, taken };
    taking.run(until)
}

/// Settles what is taken in, of all spools at one moment: of two events that were spooled one after the other, not the
/// later one alone.
fn seal(spools: &[Spool]) -> Result<Vec<Source<'_>>, SpoolError> {
    let mut locks = Vec::new();
    for spool in spools {
        let lock = spool.lock(LOCK, PATIENCE)?;
        locks.push(lock.ok_or_else(|| SpoolError::Busy { folder: spool.folder.clone() })?);
    }
    let mut sources = Vec::with_capacity(spools.len());
    for spool in spools {
        spool.seal_locked()?;
        let files = spool.segments()?.into_iter().map(|(_, path)| path).collect();
        sources.push(Source { spool, files, lines: None, head: None, done: Vec::new(), rejected: Vec::new() });
    }
    Ok(sources)
}

/// The files of one spool on their way into the log.
struct Source<'a> {
    spool: &'a Spool,
    files: VecDeque<PathBuf>,
    /// The rest of the first of `files`, where it was read.
    lines: Option<VecDeque<Vec<u8>>>,
    head: Option<SpoolRecord>,
    /// Files without anything left that is not in the log, in the batch, or rejected.
    done: Vec<PathBuf>,
    /// What no log takes, and why. It is put aside with the batch, so that a batch that fails puts nothing aside twice.
    rejected: Vec<(Vec<u8>, String)>,
}

impl Source<'_> {
    /// Brings the next record to `head`; without one the source is at its end.
    fn advance(&mut self) -> Result<(), SpoolError> {
        while self.head.is_none() {
            let Some(lines) = &mut self.lines else {
                let Some(file) = self.files.front() else {
                    break;
                };
                let bytes = std::fs::metadata(file).map_err(SpoolError::io(file))?.len();
                if bytes > SPOOL_BYTES_MAX {
                    return Err(SpoolError::TooLong { path: file.clone(), bytes, bytes_max: SPOOL_BYTES_MAX });
                }
                let bytes = std::fs::read(file).map_err(SpoolError::io(file))?;
                let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                self.lines = Some(lines.map(<[u8]>::to_vec).collect());
                continue;
            };
            match lines.pop_front() {
                Some(line) => match SpoolRecord::from_line(&line) {
                    Ok(record) => self.head = Some(record),
                    Err(reason) => self.rejected.push((line, reason)),
                },
                None => {
                    self.lines = None;
                    self.done.extend(self.files.pop_front());
                }
            }
        }
        Ok(())
    }

    /// Puts aside what was rejected, then removes the files that are done with. Gives how much was put aside.
    fn clear(&mut self) -> Result<u64, SpoolError> {
        let count = self.rejected.len() as u64;
        for (record, reason) in self.rejected.drain(..) {
            reject(self.spool, &record, &reason)?;
        }
        for file in self.done.drain(..) {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(SpoolError::io(&file)(error)),
                _ => {}
            }
        }
        Ok(count)
    }
}

/// Puts a record aside. Where there is no more room for such, it does not keep the others out.
fn reject(spool: &Spool, record: &[u8], reason: &str) -> Result<(), SpoolError> {
    match spool.reject(record, reason, PATIENCE) {
        Err(SpoolError::Full { .. }) => {
            tracing::error!(spool = %spool.folder.display(), reason, "a record is lost: there are too many like it");
            Ok(())
        }
        result => result,
    }
}

/// One pass over the files that were there when it began.
struct Taking<'a> {
    log: &'a dyn EventLog,
    sources: Vec<Source<'a>>,
    /// What waits for a transaction, and which source it came from.
    batch: Vec<(usize, StreamAppend)>,
    bytes: usize,
    taken: &'a mut Taken,
}

impl Taking<'_> {
    /// Whether all was taken in before the time was up.
    fn run(&mut self, until: Option<Instant>) -> Result<bool, TakeError> {
        loop {
            for source in &mut self.sources {
                source.advance()?;
            }
            let heads = self.sources.iter().enumerate();
            let heads = heads.filter_map(|(at, source)| Some((source.head.as_ref()?.arrived_at_ns, at)));
            let Some((_, at)) = heads.min() else {
                self.flush()?;
                return Ok(true);
            };
            let Some(record) = self.sources[at].head.take() else {
                continue;
            };
            let json = record.event.json().to_owned();
            match record.into_append() {
                Ok(append) => {
                    self.bytes += json.len();
                    self.batch.push((at, append));
                }
                Err(reason) => self.sources[at].rejected.push((json.into_bytes(), reason)),
            }
            if self.batch.len() >= BATCH_EVENTS_MAX || self.bytes >= BATCH_BYTES_MAX {
                self.flush()?;
                if until.is_some_and(|until| Instant::now() >= until) {
                    return Ok(false);
                }
            }
        }
    }

    /// Appends the batch, then removes the files that are done with.
    fn flush(&mut self) -> Result<(), TakeError> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        match self.log.append_all(batch.iter().map(|(_, append)| append.clone()).collect()) {
            Ok(receipts) => self.taken.events += receipts.len() as u64,
            Err(AppendError::Storage(error)) => return Err(error.into()),
            // One of them is refused: the others are not.
            Err(_) => {
                for (at, append) in batch {
                    self.append_one(at, append)?;
                }
            }
        }
        for source in &mut self.sources {
            self.taken.rejected += source.clear()?;
        }
        Ok(())
    }

    fn append_one(&mut self, at: usize, append: StreamAppend) -> Result<(), TakeError> {
        let json = append.events.first().and_then(|event| event.json()).unwrap_or_default().to_owned();
        match self.log.append_all(vec![append]) {
            Ok(_) => self.taken.events += 1,
            Err(AppendError::Storage(error)) => return Err(error.into()),
            Err(error) => self.sources[at].rejected.push((json.into_bytes(), error.to_string())),
        }
        Ok(())
    }
}
