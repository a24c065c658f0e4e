//! The append itself, within one transaction: identity, version, position, digests.
//!
//! Invariants, under the write lock: `position` is the head's plus one; `stream_version` is the stream's plus one; the
//! digest takes in the stream predecessor's, the chain the row's before. All are read anew in each transaction, since
//! another process may have written in between.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use runledger_events::{
    Codec, Digest, EventId, LogId, Metadata, Position, SALT_BYTES, Salt, StreamName, StreamVersion, TimestampMs, chain,
    chain_seed, commitment, event_digest,
};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::error::{AppendError, StorageError, WrongExpectedVersion};
use crate::new_event::{NewContent, NewEvent, Receipt, StreamAppend};

/// The wall clock.
pub(crate) fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The head of the log and of each stream touched, as this transaction has left them.
pub(crate) struct AppendTransaction<'a> {
    path: &'a Path,
    codec: Codec,
    now: TimestampMs,
    head: Mark,
    first: Position,
    streams: HashMap<StreamName, StreamHead>,
}

/// The log's head, to come back to when a request is undone.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
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
    pub(crate) fn begin(path: &'a Path, log_id: &LogId, connection: &Connection) -> Result<Self, StorageError> {
        let head = connection
            .prepare_cached("SELECT position, chain FROM runtime_events ORDER BY position DESC LIMIT 1")
            .and_then(|mut statement| {
                statement.query_row([], |row| Ok((row.get::<_, i64>(0)?, digest_column(row, 1)?))).optional()
            })
            .map_err(|source| StorageError::sqlite(path, "reading the head", &source))?
            .map_or_else(
                || Mark { position: Position::START, chain: chain_seed(log_id) },
                |(position, chain)| Mark { position: Position(position.unsigned_abs()), chain },
            );
        Ok(Self { path, codec: Codec::default(), now: now(), head, first: head.position, streams: HashMap::new() })
    }

    pub(crate) fn mark(&self) -> Mark {
        self.head
    }

    /// Goes back to `mark`, after the savepoint was rolled back.
    pub(crate) fn reset(&mut self, mark: Mark) {
        self.head = mark;
        self.streams.clear();
    }

    pub(crate) fn wrote(&self) -> bool {
        self.head.position > self.first
    }

    /// Appends one request; after an error the caller rolls back to its savepoint.
    pub(crate) fn append(
        &mut self,
        connection: &Connection,
        appends: Vec<StreamAppend>,
    ) -> Result<Vec<Receipt>, AppendError> {
        let mut receipts = Vec::new();
        for append in appends {
            self.append_stream(connection, append, &mut receipts)?;
        }
        Ok(receipts)
    }

    fn append_stream(
        &mut self,
        connection: &Connection,
        append: StreamAppend,
        receipts: &mut Vec<Receipt>,
    ) -> Result<(), AppendError> {
        let StreamAppend { stream, expected, events } = append;
        let (key, version) = self.stream_head(connection, &stream)?;

        let mut known = Vec::with_capacity(events.len());
        for event in &events {
            known.push(self.stored(connection, &stream, key, event)?);
        }
        if !events.is_empty() && known.iter().all(Option::is_some) {
            receipts.extend(known.into_iter().flatten());
            return Ok(());
        }
        let is_partly_known = known.iter().any(Option::is_some);
        if !expected.holds(version) || (is_partly_known && !expected.is_loose()) {
            return Err(WrongExpectedVersion { stream, expected, actual: version }.into());
        }
        let has_repeats = has_repeated_ids(&events);
        for (event, known) in events.into_iter().zip(known) {
            let known = match known {
                None if has_repeats => self.stored(connection, &stream, key, &event)?,
                known => known,
            };
            receipts.push(match known {
                Some(receipt) => receipt,
                None => self.insert(connection, &stream, event)?,
            });
        }
        self.store_version(connection, &stream)?;
        Ok(())
    }

    /// The first receipt of an event that is there already.
    fn stored(
        &self,
        connection: &Connection,
        stream: &StreamName,
        key: i64,
        event: &NewEvent,
    ) -> Result<Option<Receipt>, AppendError> {
        let Some(id) = &event.id else {
            return Ok(None);
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
            Some(stored) if self.is_same(&stored, event) => Ok(Some(stored.receipt)),
            Some(stored) => {
                Err(AppendError::IdTaken { stream: stream.clone(), id: id.clone(), position: stored.receipt.position })
            }
        }
    }

    fn is_same(&self, stored: &Stored, event: &NewEvent) -> bool {
        if stored.kind != event.kind.as_str() {
            return false;
        }
        match (&event.content, stored.salt.as_deref().and_then(|salt| Salt::try_from(salt).ok())) {
            (NewContent::Json { json, .. }, Some(salt)) => {
                commitment(&salt, json.as_bytes()).0[..] == stored.commitment[..]
            }
            (NewContent::Erased { commitment }, _) => commitment.0[..] == stored.commitment[..],
            // The stored content was erased: the facts are what is left to compare.
            (NewContent::Json { .. }, None) => {
                match (self.codec.decode_facts(&stored.facts), self.codec.decode_facts(&event.facts)) {
                    (Ok(stored), Ok(new)) => stored == new,
                    _ => false,
                }
            }
        }
    }

    fn insert(
        &mut self,
        connection: &Connection,
        stream: &StreamName,
        event: NewEvent,
    ) -> Result<Receipt, AppendError> {
        let NewEvent { id, kind, occurred_at, recorded_at, metadata, facts, content } = event;
        let id = match id {
            Some(id) => id,
            None => EventId::new(uuid::Uuid::now_v7().to_string()).map_err(|error| self.refused(error.to_string()))?,
        };
        let recorded_at = recorded_at.unwrap_or(self.now);
        let occurred_at = occurred_at.unwrap_or(recorded_at);
        let (commitment, salt, content) = match content {
            NewContent::Erased { commitment } => (commitment, None, None),
            NewContent::Json { json, salt } => {
                let salt = match salt {
                    Some(salt) => salt,
                    None => self.new_salt()?,
                };
                let payload = self.codec.encode_content(&json).map_err(|error| self.refused(error.to_string()))?;
                (commitment(&salt, json.as_bytes()), Some(salt), Some(payload))
            }
        };
        let session_key = self.named_key(connection, metadata.session_id.as_ref().map(StreamName::session))?;
        let run_key = self.named_key(connection, metadata.run_id.as_ref().map(StreamName::run))?;

        let position = self.head.position.next();
        let previous_chain = self.head.chain;
        let head = self.streams.get_mut(stream).ok_or_else(|| StorageError::Sqlite {
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
        let chain = chain(&previous_chain, &digest);
        let Metadata { causation_id, correlation_id, adapter_session_id, .. } = &metadata;
        connection
            .prepare_cached(
                "INSERT INTO runtime_events (position, stream_key, stream_version, event_id, kind, occurred_at,
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
                    salt,
                    content,
                ])
            })
            .map_err(|source| StorageError::sqlite(self.path, "appending", &source))?;
        head.version = version;
        head.digest = digest;
        self.head = Mark { position, chain };
        Ok(Receipt { position, stream_version: version, event_id: id, recorded_at, is_duplicate: false })
    }

    /// The stream's key and version; the stream gets a key where it has none.
    fn stream_head(
        &mut self,
        connection: &Connection,
        stream: &StreamName,
    ) -> Result<(i64, StreamVersion), StorageError> {
        if let Some(head) = self.streams.get(stream) {
            return Ok((head.key, head.version));
        }
        let read = || -> rusqlite::Result<StreamHead> {
            let key = stream_key(connection, stream)?;
            let last = connection
                .prepare_cached(
                    "SELECT stream_version, digest FROM runtime_events WHERE stream_key = ?1
                     ORDER BY stream_version DESC LIMIT 1",
                )?
                .query_row([key], |row| Ok((row.get::<_, u64>(0)?, digest_column(row, 1)?)))
                .optional()?;
            let (version, digest) = last.unwrap_or((0, Digest::ZERO));
            Ok(StreamHead { key, version: StreamVersion(version), digest })
        };
        let head = read().map_err(|source| self.storage(&source))?;
        let found = (head.key, head.version);
        self.streams.insert(stream.clone(), head);
        Ok(found)
    }

    /// The key of a stream that is only named.
    fn named_key(&self, connection: &Connection, stream: Option<StreamName>) -> Result<Option<i64>, StorageError> {
        stream
            .map(|stream| match self.streams.get(&stream) {
                Some(head) => Ok(head.key),
                None => stream_key(connection, &stream),
            })
            .transpose()
            .map_err(|source| self.storage(&source))
    }

    fn store_version(&self, connection: &Connection, stream: &StreamName) -> Result<(), StorageError> {
        let Some(head) = self.streams.get(stream) else {
            return Ok(());
        };
        connection
            .prepare_cached("UPDATE streams SET version = ?2 WHERE stream_key = ?1")
            .and_then(|mut statement| statement.execute((head.key, head.version.0)))
            .map_err(|source| self.storage(&source))?;
        Ok(())
    }

    fn new_salt(&self) -> Result<Salt, StorageError> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| self.refused(format!("no random bytes: {error}")))?;
        Ok(salt)
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

/// Whether one request has the same id twice.
fn has_repeated_ids(events: &[NewEvent]) -> bool {
    let mut seen = HashSet::new();
    events.len() > 1 && !events.iter().filter_map(NewEvent::id).all(|id| seen.insert(id))
}

fn stream_key(connection: &Connection, stream: &StreamName) -> rusqlite::Result<i64> {
    let known = connection
        .prepare_cached("SELECT stream_key FROM streams WHERE name = ?1")?
        .query_row([stream.as_str()], |row| row.get(0))
        .optional()?;
    match known {
        Some(key) => Ok(key),
        None => {
            connection.prepare_cached("INSERT INTO streams (name) VALUES (?1)")?.execute([stream.as_str()])?;
            Ok(connection.last_insert_rowid())
        }
    }
}

fn digest_column(row: &Row<'_>, index: usize) -> rusqlite::Result<Digest> {
    Ok(Digest(row.get(index)?))
}
