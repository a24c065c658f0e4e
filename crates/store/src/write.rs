//! The append itself, within one transaction: identity, version, position, digest and chain. What does not depend on the
//! log's head is sealed before.
//!
//! Invariants, under the write lock: `position` is the head's plus one; `stream_version` is the stream's plus one; the
//! digest takes in the stream predecessor's, the chain the row's before. What was read before counts only while no other
//! connection has written since, and nothing was rolled back. A request is checked before anything of it is written, so
//! that one that is refused leaves nothing to undo. What comes without its content is told of in the same transaction, so that an
//! erasure that nothing tells of is never the log's own doing.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use runledger_events::{
    Codec, Digest, EventId, LogId, Metadata, Position, Salt, StreamName, StreamVersion, TimestampMs, chain, chain_seed,
    commitment, event_digest,
};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::{AppendError, StorageError, WrongExpectedVersion};
use crate::expected_version::ExpectedVersion;
use crate::exported::exported_line;
use crate::new_event::{Receipt, StreamAppend};
use crate::redact::told;
use crate::row::{Proof, RawEvent};
use crate::schema::NEWEST;
use crate::seal::{SealedAppend, SealedEvent, seal};

/// The wall clock.
pub(crate) fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Streams whose heads are kept; beyond them they are read again.
const STREAMS_KEPT: usize = 10_000;

/// The heads of the log and of streams, as the last transaction of this connection has left them.
#[derive(Default)]
pub(crate) struct Heads {
    /// What they are as of: the number that changes when another connection commits. None where nothing is known.
    data_version: Option<i64>,
    log: Option<Mark>,
    streams: HashMap<StreamName, StreamHead>,
}

impl Heads {
    /// Forgets everything, after a transaction that did not come to its end.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// One transaction's appends.
pub(crate) struct AppendTransaction<'a> {
    path: &'a Path,
    log_id: &'a LogId,
    codec: Codec,
    now: TimestampMs,
    head: Mark,
    first: Position,
    heads: &'a mut Heads,
    /// Streams whose version is to be written.
    touched: HashSet<StreamName>,
    /// Where events stand that came without their content.
    arrived: Vec<u64>,
    /// Lines of what was written, where that is a draft for another engine.
    drafted: Option<Vec<Drafted>>,
}

/// An event as it would be written.
pub(crate) struct Drafted {
    pub(crate) stream: StreamName,
    pub(crate) version: StreamVersion,
    pub(crate) id: EventId,
    pub(crate) digest: Digest,
    /// As `export` writes it, at position 0.
    pub(crate) line: String,
}

/// The log's head.
#[derive(Clone, Copy)]
struct Mark {
    position: Position,
    chain: Digest,
}

struct StreamHead {
    key: i64,
    version: StreamVersion,
    digest: Digest,
}

/// An event of the stream that has the id in question.
struct Stored {
    receipt: Receipt,
    kind: String,
    facts: Vec<u8>,
    salt: Option<Vec<u8>>,
    commitment: Vec<u8>,
}

impl<'a> AppendTransaction<'a> {
    /// Begins within an open transaction that has the write lock.
    pub(crate) fn begin(
        path: &'a Path,
        log_id: &'a LogId,
        connection: &Connection,
        heads: &'a mut Heads,
    ) -> Result<Self, StorageError> {
        let failed = |source: rusqlite::Error| StorageError::sqlite(path, "reading the head", &source);
        let data_version = connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(failed)?;
        if heads.data_version != Some(data_version) || heads.streams.len() > STREAMS_KEPT {
            heads.forget();
            check_schema(path, connection)?;
            heads.data_version = Some(data_version);
        }
        let head = match heads.log {
            Some(head) => head,
            None => connection
                .prepare_cached("SELECT position, chain FROM runtime_events ORDER BY position DESC LIMIT 1")
                .and_then(|mut statement| {
                    statement
                        .query_row([], |row| {
                            Ok(Mark { position: Position(row.get(0)?), chain: digest_column(row, 1)? })
                        })
                        .optional()
                })
                .map_err(failed)?
                .unwrap_or_else(|| Mark { position: Position::START, chain: chain_seed(log_id) }),
        };
        Ok(Self {
            path,
            log_id,
            codec: Codec::default(),
            now: now(),
            head,
            first: head.position,
            heads,
            touched: HashSet::new(),
            arrived: Vec::new(),
            drafted: None,
        })
    }

    /// Tells of each event that it writes, for another engine to take in.
    pub(crate) fn draft(&mut self) {
        self.drafted = Some(Vec::new());
    }

    /// What was drafted, with what has to be told beside it.
    pub(crate) fn drafted(mut self, connection: &Connection) -> Result<Vec<Drafted>, StorageError> {
        self.tell_arrived(connection)?;
        Ok(self.drafted.unwrap_or_default())
    }

    /// Writes what is left to write of a copy, which tells of nothing that its original does not tell.
    pub(crate) fn finish_copy(mut self, connection: &Connection) -> Result<(), StorageError> {
        self.store_versions(connection)?;
        self.heads.log = Some(self.head);
        Ok(())
    }

    /// Appends one request; after an error that is none of storage nothing of it is there.
    pub(crate) fn append(
        &mut self,
        connection: &Connection,
        appends: Vec<SealedAppend>,
    ) -> Result<Vec<Receipt>, AppendError> {
        let mut receipts = Vec::new();
        if depends_on_itself(&appends) {
            return self.append_step_by_step(connection, appends);
        }
        let known: Vec<_> =
            appends.iter().map(|append| self.check(connection, append)).collect::<Result<_, AppendError>>()?;
        for (append, known) in appends.into_iter().zip(known) {
            self.write(connection, append, known, false, &mut receipts)?;
        }
        Ok(receipts)
    }

    /// The same for a request in which one event may depend on another: undone as a whole where it is refused.
    fn append_step_by_step(
        &mut self,
        connection: &Connection,
        appends: Vec<SealedAppend>,
    ) -> Result<Vec<Receipt>, AppendError> {
        // What the requests before have to tell is written first: undoing this one forgets it.
        self.store_versions(connection)?;
        self.execute(connection, "SAVEPOINT request")?;
        let (before, arrived) = (self.head, self.arrived.len());
        let mut receipts = Vec::new();
        let result = appends.into_iter().try_for_each(|append| {
            let known = self.check(connection, &append)?;
            self.write(connection, append, known, true, &mut receipts)
        });
        match result {
            Err(AppendError::Storage(error)) => Err(error.into()),
            Err(refused) => {
                self.execute(connection, "ROLLBACK TO request; RELEASE request")?;
                self.head = before;
                self.arrived.truncate(arrived);
                self.heads.streams.clear();
                self.touched.clear();
                Err(refused)
            }
            Ok(()) => {
                self.execute(connection, "RELEASE request")?;
                Ok(receipts)
            }
        }
    }

    fn execute(&self, connection: &Connection, sql: &str) -> Result<(), StorageError> {
        connection.execute_batch(sql).map_err(|source| self.storage(&source))
    }

    /// Which of the events are there already, with their receipts; or why the append is refused. Nothing is written.
    fn check(&mut self, connection: &Connection, append: &SealedAppend) -> Result<Vec<Option<Receipt>>, AppendError> {
        let SealedAppend { stream, expected, events } = append;
        self.find_stream(connection, stream)?;
        let version = self.heads.streams.get(stream).map_or(StreamVersion::EMPTY, |head| head.version);
        let known: Vec<_> =
            events.iter().map(|event| self.stored(connection, stream, event)).collect::<Result<_, AppendError>>()?;
        let is_wholly_known = !events.is_empty() && known.iter().all(Option::is_some);
        let is_partly_known = known.iter().any(Option::is_some);
        if !is_wholly_known && (!expected.holds(version) || (is_partly_known && !expected.is_loose())) {
            return Err(WrongExpectedVersion { stream: stream.clone(), expected: *expected, actual: version }.into());
        }
        Ok(known)
    }

    /// Writes what is not known yet; where an id `may_repeat`, what was written just now counts too.
    fn write(
        &mut self,
        connection: &Connection,
        append: SealedAppend,
        known: Vec<Option<Receipt>>,
        may_repeat: bool,
        receipts: &mut Vec<Receipt>,
    ) -> Result<(), AppendError> {
        let SealedAppend { stream, events, .. } = append;
        for (event, known) in events.into_iter().zip(known) {
            let known = match known {
                None if may_repeat => self.stored(connection, &stream, &event)?,
                known => known,
            };
            receipts.push(match known {
                Some(receipt) => receipt,
                None => self.insert(connection, &stream, event)?,
            });
        }
        Ok(())
    }

    /// The first receipt of an event that is there already.
    fn stored(
        &self,
        connection: &Connection,
        stream: &StreamName,
        event: &SealedEvent,
    ) -> Result<Option<Receipt>, AppendError> {
        let SealedEvent { id, is_new_id: false, .. } = event else {
            return Ok(None);
        };
        let key = match self.heads.streams.get(stream) {
            Some(StreamHead { key, version, .. }) if *version > StreamVersion::EMPTY => key,
            _ => return Ok(None),
        };
        let stored = connection
            .prepare_cached(
                "SELECT position, stream_version, recorded_at, kind, facts, salt, commitment
                 FROM runtime_events WHERE stream_key = ?1 AND event_id = ?2",
            )
            .and_then(|mut statement| statement.query_row((key, id.as_str()), |row| Stored::read(row, id)).optional())
            .map_err(|source| self.storage(&source))?;
        match stored {
            None => Ok(None),
            Some(stored) if self.is_same(&stored, event)? => Ok(Some(stored.receipt)),
            Some(stored) => {
                Err(AppendError::IdTaken { stream: stream.clone(), id: id.clone(), position: stored.receipt.position })
            }
        }
    }

    fn is_same(&self, stored: &Stored, event: &SealedEvent) -> Result<bool, StorageError> {
        if stored.kind != event.kind.as_str() {
            return Ok(false);
        }
        let stored_salt = stored.salt.as_deref().and_then(|salt| Salt::try_from(salt).ok());
        Ok(match (&event.content, stored_salt) {
            // Sealed with another salt than the stored one; the text is still in the payload.
            (Some(content), Some(salt)) => {
                let json =
                    self.codec.decode_content(&content.payload).map_err(|error| self.refused(error.to_string()))?;
                commitment(&salt, json.as_bytes()).0[..] == stored.commitment[..]
            }
            (None, _) => event.commitment.0[..] == stored.commitment[..],
            // The stored content was erased: the facts are what is left to compare.
            (Some(_), None) => match (self.codec.decode_facts(&stored.facts), self.codec.decode_facts(&event.facts)) {
                (Ok(stored), Ok(new)) => stored == new,
                _ => false,
            },
        })
    }

    fn insert(
        &mut self,
        connection: &Connection,
        stream: &StreamName,
        event: SealedEvent,
    ) -> Result<Receipt, AppendError> {
        let SealedEvent { id, kind, occurred_at, metadata, session, run, facts, commitment, content, .. } = event;
        let recorded_at = event.recorded_at.unwrap_or(self.now);
        let occurred_at = occurred_at.unwrap_or(recorded_at);
        let session_key = session.map(|session| self.make_stream(connection, &session)).transpose()?;
        let run_key = run.map(|run| self.make_stream(connection, &run)).transpose()?;

        let position = self.head.position.next();
        let previous_chain = self.head.chain;
        self.make_stream(connection, stream)?;
        let head = self.heads.streams.get_mut(stream).ok_or_else(|| StorageError::Sqlite {
            path: self.path.to_owned(),
            doing: "appending",
            detail: format!("the head of stream {stream} was not read"),
        })?;
        let version = head.version.next();
        let digest = event_digest(
            &head.digest,
            stream,
            version,
            &id,
            &kind,
            occurred_at,
            recorded_at,
            &metadata,
            &facts,
            &commitment,
        );
        if event.digest.is_some_and(|told| told != digest) {
            return Err(AppendError::OtherDigest { stream: stream.clone(), version, id });
        }
        let chain = chain(&previous_chain, &digest);
        let Metadata { causation_id, correlation_id, adapter_session_id, .. } = &metadata;
        connection
            .prepare_cached(
                "INSERT OR ROLLBACK INTO runtime_events (position, stream_key, stream_version, event_id, kind, occurred_at,
                     recorded_at, session_key, run_key, adapter_session_id, causation_id, correlation_id, facts, digest,
                     chain, commitment, salt, content)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            )
            .and_then(|mut statement| {
                statement.execute(rusqlite::params![
                    position.0,
                    head.key,
                    version.0,
                    id.as_str(),
                    kind.as_str(),
                    occurred_at.0,
                    recorded_at.0,
                    session_key,
                    run_key,
                    adapter_session_id.as_ref().map(|id| id.as_str()),
                    causation_id.as_ref().map(|id| id.as_str()),
                    correlation_id,
                    facts,
                    digest.0,
                    chain.0,
                    commitment.0,
                    content.as_ref().map(|content| content.salt),
                    content.as_ref().map(|content| &content.payload),
                ])
            })
            .map_err(|source| StorageError::sqlite(self.path, "appending", &source))?;
        head.version = version;
        head.digest = digest;
        self.head = Mark { position, chain };
        if let Some(drafted) = &mut self.drafted {
            let proof = Proof { digest, chain, commitment, salt: content.as_ref().map(|content| content.salt) };
            let raw = RawEvent {
                position: Position::START,
                stream: stream.clone(),
                stream_version: version,
                id: id.clone(),
                kind,
                occurred_at,
                recorded_at,
                metadata,
                facts: &facts,
                proof: Some(proof),
                content: content.as_ref().map(|content| content.payload.as_slice()),
                content_was_read: true,
                sealed: None,
            };
            let line = exported_line(&self.codec, &raw).map_err(|error| StorageError::Sqlite {
                path: self.path.to_owned(),
                doing: "appending",
                detail: error.to_string(),
            })?;
            drafted.push(Drafted { stream: stream.clone(), version, id: id.clone(), digest, line });
        }
        if content.is_none() {
            self.arrived.push(position.0);
        }
        if !self.touched.contains(stream) {
            self.touched.insert(stream.clone());
        }
        Ok(Receipt { position, stream_version: version, event_id: id, recorded_at, is_duplicate: false })
    }

    /// Reads a stream's head, where there is such a stream and it is not known yet.
    fn find_stream(&mut self, connection: &Connection, stream: &StreamName) -> Result<(), StorageError> {
        if self.heads.streams.contains_key(stream) {
            return Ok(());
        }
        let read = || -> rusqlite::Result<Option<StreamHead>> {
            let key = connection
                .prepare_cached("SELECT stream_key FROM streams WHERE name = ?1")?
                .query_row([stream.as_str()], |row| row.get(0))
                .optional()?;
            let Some(key) = key else {
                return Ok(None);
            };
            let last = connection
                .prepare_cached(
                    "SELECT stream_version, digest FROM runtime_events WHERE stream_key = ?1
                     ORDER BY stream_version DESC LIMIT 1",
                )?
                .query_row([key], |row| Ok((row.get::<_, u64>(0)?, digest_column(row, 1)?)))
                .optional()?;
            let (version, digest) = last.unwrap_or((0, Digest::ZERO));
            Ok(Some(StreamHead { key, version: StreamVersion(version), digest }))
        };
        if let Some(head) = read().map_err(|source| self.storage(&source))? {
            self.heads.streams.insert(stream.clone(), head);
        }
        Ok(())
    }

    /// The key of a stream, which gets one where it has none.
    fn make_stream(&mut self, connection: &Connection, stream: &StreamName) -> Result<i64, StorageError> {
        self.find_stream(connection, stream)?;
        if let Some(head) = self.heads.streams.get(stream) {
            return Ok(head.key);
        }
        let key = connection
            .prepare_cached("INSERT INTO streams (name) VALUES (?1)")
            .and_then(|mut statement| statement.insert([stream.as_str()]))
            .map_err(|source| self.storage(&source))?;
        let head = StreamHead { key, version: StreamVersion::EMPTY, digest: Digest::ZERO };
        self.heads.streams.insert(stream.clone(), head);
        Ok(key)
    }

    /// Writes the versions of the streams that were appended to.
    fn store_versions(&mut self, connection: &Connection) -> Result<(), StorageError> {
        for stream in std::mem::take(&mut self.touched) {
            let Some(head) = self.heads.streams.get(&stream) else {
                continue;
            };
            connection
                .prepare_cached("UPDATE OR ROLLBACK streams SET version = ?2 WHERE stream_key = ?1")
                .and_then(|mut statement| statement.execute((head.key, head.version.0)))
                .map_err(|source| self.storage(&source))?;
        }
        Ok(())
    }

    /// Writes what is left to write before the commit; false where there is nothing to commit.
    pub(crate) fn finish(mut self, connection: &Connection) -> Result<bool, StorageError> {
        self.tell_arrived(connection)?;
        self.store_versions(connection)?;
        self.heads.log = Some(self.head);
        Ok(self.head.position > self.first)
    }

    /// Tells which events came without their content.
    fn tell_arrived(&mut self, connection: &Connection) -> Result<(), StorageError> {
        if self.arrived.is_empty() {
            return Ok(());
        }
        let by = concat!("runledger ", env!("CARGO_PKG_VERSION"));
        let event = told(self.log_id, &[], &self.arrived, &[], "came without its content", by)
            .map_err(|error| self.refused(error.to_string()))?;
        let append =
            StreamAppend { stream: StreamName::arrivals(), expected: ExpectedVersion::Any, events: vec![event] };
        match self.append(connection, seal(self.path, vec![append])?) {
            Ok(_) => Ok(()),
            Err(AppendError::Storage(error)) => Err(error),
            Err(error) => Err(self.refused(error.to_string())),
        }
    }

    fn storage(&self, source: &rusqlite::Error) -> StorageError {
        StorageError::sqlite(self.path, "appending", source)
    }

    fn refused(&self, detail: String) -> StorageError {
        StorageError::Sqlite { path: self.path.to_owned(), doing: "appending", detail }
    }
}

impl Stored {
    fn read(row: &Row<'_>, id: &EventId) -> rusqlite::Result<Self> {
        Ok(Self {
            receipt: Receipt {
                position: Position(row.get(0)?),
                stream_version: StreamVersion(row.get(1)?),
                event_id: id.clone(),
                recorded_at: TimestampMs(row.get(2)?),
                is_duplicate: true,
            },
            kind: row.get(3)?,
            facts: row.get(4)?,
            salt: row.get(5)?,
            commitment: row.get(6)?,
        })
    }
}

/// A newer program may have taken the ledger over since it was opened; only another connection's commit does that.
fn check_schema(path: &Path, connection: &Connection) -> Result<(), StorageError> {
    const DOING: &str = "appending";
    let found: i64 = connection
        .prepare_cached("PRAGMA user_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(|source| StorageError::sqlite(path, DOING, &source))?;
    if found > NEWEST {
        return Err(StorageError::Newer { path: path.to_owned(), doing: DOING, found, newest: NEWEST });
    }
    Ok(())
}

/// Whether one request has the same id twice.
fn has_repeated_ids(events: &[SealedEvent]) -> bool {
    let mut seen = HashSet::new();
    events.len() > 1 && !events.iter().all(|event| seen.insert(&event.id))
}

/// Whether what comes of an event may depend on another one of the request.
fn depends_on_itself(appends: &[SealedAppend]) -> bool {
    let mut seen = HashSet::new();
    let is_repeated = appends.len() > 1 && !appends.iter().all(|append| seen.insert(&append.stream));
    is_repeated || appends.iter().any(|append| has_repeated_ids(&append.events))
}

fn digest_column(row: &Row<'_>, index: usize) -> rusqlite::Result<Digest> {
    Ok(Digest(row.get(index)?))
}
