//! This machine's copy of a log that another engine keeps: what an append would come to, and what the engine has, taken in.
//!
//! Invariants: nothing gets in but what the engine has, in its order, at its positions; each event has to come to the digest that
//! it has there. So the file is the log as every other machine has it, and is read as one that SQLite keeps.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use runledger_events::{Digest, EventId, LogId, Position, StreamName, StreamVersion};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::connection;
use crate::copied_erasure::erase_told;
use crate::error::{AppendError, OpenError, StorageError};
use crate::expected_version::ExpectedVersion;
use crate::exported::{ExportedError, copied_event};
use crate::file_id::FileId;
use crate::follow::Follower;
use crate::group_commit::notify;
use crate::ledger_events::refuse_foreign;
use crate::new_event::{Receipt, StreamAppend};
use crate::reader::LogReader;
use crate::seal::{SealedAppend, new_id, seal};
use crate::sqlite_log::{Listeners, OpenOptions, SyncMode};
use crate::stray::{Stray, stream_of_strays};
use crate::write::{AppendTransaction, Heads};
use crate::write_back::WriteBack;

/// Pages of the write-ahead log before it is written into the file.
const WAL_PAGES: u32 = 4000;

/// A copy of a log, for the engine that keeps the log.
#[derive(Debug)]
pub struct CopiedLog {
    pub(crate) path: PathBuf,
    pub(crate) log_id: LogId,
    /// The file that was opened.
    file: Option<FileId>,
    writer: Mutex<Writer>,
    listeners: Listeners,
}

struct Writer {
    connection: Connection,
    heads: Heads,
    write_back: WriteBack,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// What an append comes to, if the log is as the copy has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The copy's head when it was made.
    head: Position,
    /// One for each event of the request, in order. Those of events that are to be appended stand behind the head.
    receipts: Vec<Receipt>,
    /// What is to be appended: the events that are not there yet, in order, and what the log tells of them.
    pub events: Vec<DraftedEvent>,
}

/// An event that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftedEvent {
    /// Its stream.
    pub stream: StreamName,
    /// The version that it gets.
    pub version: StreamVersion,
    /// Where the event before it in its stream stands, 0 where it is the first; `None` where that is one of the draft too.
    pub after: Option<Position>,
    /// Its id, which is its alone in its stream.
    pub id: EventId,
    /// Its digest.
    pub digest: Digest,
    /// The event, as `export` writes it, at position 0.
    pub line: String,
}

impl Draft {
    /// The head that the log has to be at, where that matters: what comes without its content is told of by its position.
    pub fn only_at(&self) -> Option<Position> {
        let is_told = self.events.iter().any(|event| event.stream == StreamName::arrivals());
        is_told.then_some(self.head)
    }

    /// Whether it tells of an erasure.
    pub fn tells_of_erasure(&self) -> bool {
        self.events.iter().any(|event| event.stream == StreamName::redactions())
    }

    /// The receipts, once it is known where each of [`Draft::events`] stands; as they are where nothing is to be appended.
    #[must_use]
    pub fn receipts(self, positions: &[Position]) -> Vec<Receipt> {
        let place = |receipt: Receipt| {
            let number = receipt.position.0.checked_sub(self.head.0 + 1);
            let position = number.and_then(|number| positions.get(usize::try_from(number).ok()?)).copied();
            Receipt { position: position.unwrap_or(receipt.position), ..receipt }
        };
        self.receipts.into_iter().map(place).collect()
    }
}

/// Why something was not taken in. The copy is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A position is missing between the copy's head and what comes.
    #[error("{path}: nothing stands at position {missing} (up to {last}) of the log that it is a copy of, nor in its stead; where a machine's copy has it, `runledger redact --event {missing} --reason WHY` there tells of it, and this one goes on", last = .next.0 - 1)]
    Missing {
        /// The copy.
        path: PathBuf,
        /// The first position that is missing.
        missing: Position,
        /// The next that is there.
        next: Position,
    },
    /// What stands at a position is no event.
    #[error("{path}: what stands at position {position} cannot be taken in: {source}")]
    NoEvent {
        /// The copy.
        path: PathBuf,
        /// Where.
        position: Position,
        /// Why.
        source: ExportedError,
    },
    /// What stands at a position does not follow on what the copy has.
    #[error(
        "{path}: what stands at position {position} does not follow on what stands before it: {detail}; move the copy away, and it is made anew"
    )]
    Apart {
        /// The copy.
        path: PathBuf,
        /// Where.
        position: Position,
        /// What is wrong.
        detail: String,
    },
    /// The file failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What an engine has at a position.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// An event: a line of `export`.
    Event(&'a str),
    /// What somebody else put there.
    Stray(Stray<'a>),
}

impl CopiedLog {
    /// Opens the copy of the log of this id; makes it, and its folder, where they are missing.
    ///
    /// What was taken in may be gone again after a loss of power, and is taken in once more: it is the engine that keeps it.
    ///
    /// # Errors
    /// [`OpenError`]; a file that is something else is not touched.
    pub fn open(path: impl AsRef<Path>, log_id: &LogId) -> Result<Self, OpenError> {
        Self::open_within(path, log_id, OpenOptions::default().busy_timeout)
    }

    /// The same, where another process that writes to the copy is waited for so long.
    ///
    /// # Errors
    /// As [`CopiedLog::open`].
    pub fn open_within(path: impl AsRef<Path>, log_id: &LogId, busy_timeout: Duration) -> Result<Self, OpenError> {
        let path = connection::absolute(path.as_ref())?;
        let options =
            OpenOptions { busy_timeout, wal_pages: WAL_PAGES, sync: SyncMode::Normal, ..OpenOptions::default() };
        let connection = connection::open_writable(&path, &options, Some(log_id))?;
        let found = crate::reader::log_id(&path, &connection)?;
        if found != *log_id {
            return Err(OpenError::CopyOfAnother { path, found, wanted: log_id.clone() });
        }
        let writer = Writer { connection, heads: Heads::default(), write_back: WriteBack::new(&path) };
        let file = FileId::of(&path);
        Ok(Self { path, log_id: found, file, writer: Mutex::new(writer), listeners: Listeners::default() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log that it is a copy of.
    pub fn log_id(&self) -> &LogId {
        &self.log_id
    }

    /// How far it goes.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn head(&self) -> Result<Position, StorageError> {
        last_position(&self.writer().connection).map_err(self.failed("reading the head"))
    }

    /// A reader of the copy.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    pub fn reader(&self) -> Result<LogReader, OpenError> {
        LogReader::open(&self.path)
    }

    /// Follows the copy from `after` on, woken at once by what this process takes in.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    pub fn follow(&self, after: Position) -> Result<Follower, OpenError> {
        Ok(Follower::new(self.reader()?, after, Some(self.commits())))
    }

    fn commits(&self) -> Receiver<()> {
        let (sender, receiver) = bounded(1);
        // The list is only ever pushed to and swept, so it is whole even if a holder of the lock panicked.
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> StorageError + '_ {
        move |source| StorageError::sqlite(&self.path, doing, &source)
    }

    /// The same appends, in which each event has an id: whoever sends one again then sends the same.
    ///
    /// # Errors
    /// [`StorageError`] where no id can be made.
    pub fn identified(&self, mut appends: Vec<StreamAppend>) -> Result<Vec<StreamAppend>, StorageError> {
        for event in appends.iter_mut().flat_map(|append| &mut append.events).filter(|event| event.id.is_none()) {
            event.id = Some(new_id(&self.path)?);
        }
        Ok(appends)
    }

    /// What an append comes to by the log as the copy has it: the very same append, which is then undone.
    ///
    /// # Errors
    /// As [`EventLog::append`](crate::EventLog::append), as far as the copy can tell: it may be behind.
    pub fn draft(&self, appends: Vec<StreamAppend>) -> Result<Draft, AppendError> {
        refuse_foreign(&self.path, &self.log_id, &appends)?;
        self.draft_own(appends)
    }

    /// The same, also of what was done to this log, as the engine itself tells it.
    ///
    /// # Errors
    /// As [`CopiedLog::draft`].
    pub fn draft_own(&self, appends: Vec<StreamAppend>) -> Result<Draft, AppendError> {
        let sealed = seal(&self.path, appends)?;
        let mut writer = self.writer();
        let Writer { connection, heads, .. } = &mut *writer;
        let draft = self.draft_in(connection, heads, sealed);
        // Everything was rolled back, so nothing is as the heads have it.
        heads.forget();
        draft
    }

    fn draft_in(
        &self,
        connection: &mut Connection,
        heads: &mut Heads,
        sealed: Vec<SealedAppend>,
    ) -> Result<Draft, AppendError> {
        let failed = self.failed("drafting an append");
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let head = last_position(&transaction).map_err(&failed)?;
        let mut append = AppendTransaction::begin(&self.path, &self.log_id, &transaction, heads)?;
        append.draft();
        let receipts = append.append(&transaction, sealed)?;
        let drafted = append.drafted(&transaction)?;
        let mut events = Vec::with_capacity(drafted.len());
        for event in drafted {
            let before = transaction
                .prepare_cached(
                    "SELECT position FROM runtime_events
                     WHERE stream_key = (SELECT stream_key FROM streams WHERE name = ?1) AND stream_version = ?2",
                )
                .and_then(|mut statement| {
                    let version = event.version.0.saturating_sub(1);
                    statement.query_row((event.stream.as_str(), version), |row| row.get(0).map(Position)).optional()
                })
                .map_err(&failed)?
                .unwrap_or(Position::START);
            events.push(DraftedEvent {
                stream: event.stream,
                version: event.version,
                after: (before <= head).then_some(before),
                id: event.id,
                digest: event.digest,
                line: event.line,
            });
        }
        Ok(Draft { head, receipts, events })
    }

    /// Where the last message of each of these subjects stands that is no event, of those that have one.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn last_strays(&self, subjects: &[String]) -> Result<HashMap<String, Position>, StorageError> {
        let failed = self.failed("looking for what is no event");
        let writer = self.writer();
        // Hardly ever there is one at all.
        let has_any: bool = writer
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM streams WHERE name >= 'stray/' AND name < 'stray0')")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(&failed)?;
        let mut found = HashMap::new();
        for subject in subjects.iter().filter(|_| has_any) {
            let Some(stream) = stream_of_strays(subject) else {
                continue;
            };
            let last = writer
                .connection
                .prepare_cached(
                    "SELECT max(position) FROM runtime_events
                     WHERE stream_key = (SELECT stream_key FROM streams WHERE name = ?1)",
                )
                .and_then(|mut statement| statement.query_row([stream.as_str()], |row| row.get::<_, Option<u64>>(0)))
                .map_err(&failed)?;
            found.extend(last.map(|last| (subject.clone(), Position(last))));
        }
        Ok(found)
    }

    /// Whether one of these drafted events stands at a position, and no other one that only says the same.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn has_any(&self, position: Position, events: &[DraftedEvent]) -> Result<bool, StorageError> {
        let found = digest_at(&self.writer().connection, position).map_err(self.failed("looking for an event"))?;
        Ok(events.iter().any(|event| found == Some(event.digest.0)))
    }

    /// Takes in what the engine has: lines of `export`, each with its position, in order. What the copy has already is passed
    /// over. Returns the head.
    ///
    /// # Errors
    /// [`CopyError`]; none of it was taken in.
    pub fn take(&self, events: &[(Position, &str)]) -> Result<Position, CopyError> {
        let found: Vec<_> = events.iter().map(|(position, line)| (*position, Found::Event(line))).collect();
        self.take_found(&found)
    }

    /// The same, where some of it is no event: an event tells of that.
    ///
    /// # Errors
    /// As [`CopiedLog::take`].
    pub fn take_found(&self, events: &[(Position, Found<'_>)]) -> Result<Position, CopyError> {
        let mut writer = self.writer();
        if FileId::of(&self.path) != self.file {
            return Err(StorageError::Sqlite {
                path: self.path.clone(),
                doing: "taking in events",
                detail: "the copy is gone from its place; put it back, or begin again".to_owned(),
            }
            .into());
        }
        let Writer { connection, heads, write_back } = &mut *writer;
        let taken = self.take_in(connection, heads, events);
        match &taken {
            Ok(_) => write_back.look(connection),
            Err(_) => heads.forget(),
        }
        drop(writer);
        notify(&self.listeners);
        taken
    }

    /// What the engine has is less than the copy.
    pub fn is_beyond(&self, last: Position) -> Result<Option<CopyError>, StorageError> {
        let head = self.head()?;
        let detail =
            format!("the log ends at position {last} by now, and the copy goes on to {head}: something was lost there");
        Ok((head > last).then(|| CopyError::Apart { path: self.path.clone(), position: last.next(), detail }))
    }

    fn take_in(
        &self,
        connection: &mut Connection,
        heads: &mut Heads,
        events: &[(Position, Found<'_>)],
    ) -> Result<Position, CopyError> {
        let failed = self.failed("copying");
        // What another process has taken in meanwhile is seen here, before anything is decoded.
        let head = last_position(connection).map_err(&failed)?;
        let new: Vec<_> = events.iter().filter(|(position, _)| *position > head).collect();
        // What it ends with has to be what the engine has there: else the engine has lost something, and told other events since.
        if let Some((_, Found::Event(line))) = events.iter().find(|(position, _)| *position == head) {
            let found = copied_event(line).ok().and_then(|(_, _, event)| event.digest);
            let own = digest_at(connection, head).map_err(&failed)?;
            if found.is_some() && found.map(|digest| digest.0) != own {
                let detail = "another event stands there than was copied".to_owned();
                return Err(CopyError::Apart { path: self.path.clone(), position: head, detail });
            }
        }
        let mut next = head;
        let mut appends = Vec::with_capacity(new.len());
        let mut redactions = Vec::new();
        for (position, found) in &new {
            next = next.next();
            if *position != next {
                return Err(CopyError::Missing { path: self.path.clone(), missing: next, next: *position });
            }
            let no_event = |source| CopyError::NoEvent { path: self.path.clone(), position: *position, source };
            let (stream, expected, event) = match found {
                Found::Event(line) => {
                    let (stream, version, event) = copied_event(line).map_err(no_event)?;
                    if event.digest.is_none() {
                        let expected = "there: it is what a copy goes by";
                        return Err(no_event(ExportedError::Field { field: "digest", expected }));
                    }
                    (stream, ExpectedVersion::Exact(StreamVersion(version.0.saturating_sub(1))), event)
                }
                Found::Stray(stray) => {
                    let expected = "one that a stream can be named after";
                    let field = || no_event(ExportedError::Field { field: "subject", expected });
                    let (stream, event) = stray.event(*position).ok_or_else(field)?;
                    (stream, ExpectedVersion::Any, event)
                }
            };
            if stream == StreamName::redactions()
                && let Some(json) = event.json()
            {
                redactions.push((*position, json.to_owned()));
            }
            appends.push(StreamAppend { stream, expected, events: vec![event] });
        }
        if appends.is_empty() {
            return Ok(head);
        }
        let places: Vec<_> = new.iter().map(|(position, _)| *position).zip(&appends).map(place_of).collect();
        let sealed = seal(&self.path, appends)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let mut append = AppendTransaction::begin(&self.path, &self.log_id, &transaction, heads)?;
        let apart = |position: Position, detail: String| CopyError::Apart { path: self.path.clone(), position, detail };
        let receipts = append.append(&transaction, sealed).map_err(|error| match error {
            AppendError::Storage(error) => error.into(),
            error => apart(found_at(&places, &error).unwrap_or(head.next()), error.to_string()),
        })?;
        for (receipt, (position, _)) in receipts.iter().zip(&new) {
            if receipt.position != *position {
                return Err(apart(*position, format!("the copy has its event at position {}", receipt.position)));
            }
        }
        append.finish_copy(&transaction)?;
        for (position, json) in redactions {
            erase_told(&transaction, &self.log_id, position, &json).map_err(&failed)?;
        }
        transaction.commit().map_err(&failed)?;
        Ok(next)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let path = self.connection.path().map(PathBuf::from);
        if let Some(path) = path {
            crate::sqlite::shorten_wal(&self.connection, &path, WAL_PAGES);
        }
    }
}

/// Where an event is to stand, and in which stream at which version.
type Place = (Position, StreamName, StreamVersion);

fn place_of((position, append): (Position, &StreamAppend)) -> Place {
    let version = match append.expected {
        ExpectedVersion::Exact(version) => version.next(),
        _ => StreamVersion::EMPTY,
    };
    (position, append.stream.clone(), version)
}

/// Which of the events an append was refused for, where that is told.
fn found_at(places: &[Place], error: &AppendError) -> Option<Position> {
    let is_meant = |(_, stream, version): &&Place| match error {
        AppendError::OtherDigest { stream: of, version: at, .. } => (stream, version) == (of, at),
        AppendError::WrongExpectedVersion(wrong) => {
            *stream == wrong.stream
                && wrong.expected == ExpectedVersion::Exact(StreamVersion(version.0.saturating_sub(1)))
        }
        AppendError::IdTaken { stream: of, .. } => stream == of,
        _ => false,
    };
    places.iter().find(is_meant).map(|(position, ..)| *position)
}

fn last_position(connection: &Connection) -> rusqlite::Result<Position> {
    connection
        .prepare_cached("SELECT coalesce(max(position), 0) FROM runtime_events")?
        .query_row([], |row| row.get(0).map(Position))
}

fn digest_at(connection: &Connection, position: Position) -> rusqlite::Result<Option<[u8; 32]>> {
    connection
        .prepare_cached("SELECT digest FROM runtime_events WHERE position = ?1")?
        .query_row([position.0], |row| row.get(0))
        .optional()
}
