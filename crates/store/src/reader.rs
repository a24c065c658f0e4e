//! Reading the log: by stream, by position, by kind. A reader cannot write.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runledger_events::{
    Codec, Digest, EventId, EventKind, LogId, Metadata, Position, RecordedEvent, RunId, Salt, SessionId, StreamName,
    StreamVersion, TimestampMs, chain_seed,
};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::connection;
use crate::error::{OpenError, ReadError, StorageError};
use crate::follow::Follower;
use crate::names::{NamedStream, Names};
use crate::row::{Proof, RawEvent, Unreadable};

/// Bytes of content in one answer, about, at the most; a single larger event is still one answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Those of this stream alone.
    pub stream: Option<StreamName>,
    /// Those of this ledger session alone.
    pub session: Option<SessionId>,
    /// Those of this workflow run alone.
    pub run: Option<RunId>,
    /// Those of these kinds alone.
    pub kinds: Option<Vec<EventKind>>,
}

/// How much of each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<'a> {
    /// All but the content: the quick way, and enough for most folds.
    Facts,
    /// The content of these kinds, and the facts of all.
    ContentOf(&'a [EventKind]),
    /// Everything.
    All,
}

impl Read<'_> {
    /// Whether it reads the content of an event of this kind.
    fn takes_content_of(self, kind: &EventKind) -> bool {
        match self {
            Self::Facts => false,
            Self::ContentOf(kinds) => kinds.contains(kind),
            Self::All => true,
        }
    }
}

/// Events, and how far the log was searched for them.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order of the log.
    pub events: Vec<RecordedEvent>,
    /// Payloads that do not decode, in the same order; none unless [`LogReader::read_readable`] was asked.
    pub unreadable: Vec<Unreadable>,
    /// Every event up to and with this position that the filter takes was in this answer, or in one before.
    pub scanned_to: Position,
}

/// The end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The last event's position; 0 for an empty log.
    pub position: Position,
    /// The chain there.
    pub chain: Digest,
}

/// The log, for reading.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    connection: Connection,
    log_id: LogId,
    codec: Codec,
    names: RefCell<Names>,
}

impl LogReader {
    /// Opens the ledger at `path`, which has to be there.
    ///
    /// # Errors
    /// [`OpenError`]; the file is not touched.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = connection::absolute(path.as_ref())?;
        let connection = connection::open_read_only(&path)?;
        let log_id = log_id(&path, &connection)?;
        Ok(Self { path, connection, log_id, codec: Codec::default(), names: RefCell::default() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log's UUID.
    pub fn log_id(&self) -> &LogId {
        &self.log_id
    }

    /// The schema version of the file.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn schema_version(&self) -> Result<i64, StorageError> {
        self.connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|source| self.storage(&source))
    }

    /// The end of the log at this moment.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn head(&self) -> Result<Head, StorageError> {
        self.query_optional("SELECT position, chain FROM runtime_events ORDER BY position DESC LIMIT 1", [], |row| {
            Ok(Head { position: Position(row.get(0)?), chain: Digest(row.get(1)?) })
        })
        .map(|head| head.unwrap_or_else(|| Head { position: Position::START, chain: chain_seed(&self.log_id) }))
    }

    /// The chain at a position; before the first event what the log's UUID gives, `None` beyond the head.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn chain_at(&self, position: Position) -> Result<Option<Digest>, StorageError> {
        if position == Position::START {
            return Ok(Some(chain_seed(&self.log_id)));
        }
        self.query_optional("SELECT chain FROM runtime_events WHERE position = ?1", [position.0], |row| {
            Ok(Digest(row.get(0)?))
        })
    }

    /// The number of events in a stream; 0 for one that nobody has written to.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn stream_version(&self, stream: &StreamName) -> Result<StreamVersion, StorageError> {
        self.query_optional("SELECT version FROM streams WHERE name = ?1", [stream.as_str()], |row| {
            Ok(StreamVersion(row.get(0)?))
        })
        .map(Option::unwrap_or_default)
    }

    /// The number of streams with events.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn streams(&self) -> Result<u64, StorageError> {
        self.query_optional("SELECT count(*) FROM streams WHERE version > 0", [], |row| row.get(0))
            .map(Option::unwrap_or_default)
    }

    /// The streams with events whose names begin so, in the order of their names.
    ///
    /// # Errors
    /// [`ReadError`] when the file cannot be read.
    pub fn stream_names(&self, beginning: &StreamName) -> Result<Vec<StreamName>, ReadError> {
        // No character comes after this one, so the names between stand together in the index.
        let end = format!("{beginning}\u{10ffff}");
        let names: Vec<String> = self
            .connection
            .prepare_cached("SELECT name FROM streams WHERE name >= ?1 AND name < ?2 AND version > 0 ORDER BY name")
            .and_then(|mut statement| {
                statement.query_map([beginning.as_str(), end.as_str()], |row| row.get(0))?.collect()
            })
            .map_err(|source| self.storage(&source))?;
        let name = |name| StreamName::new(name).map_err(|source| ReadError::Name { position: Position::START, source });
        names.into_iter().map(name).collect()
    }

    /// A whole stream, or the rest of it after a version, in order.
    ///
    /// # Errors
    /// [`ReadError`] names the position that cannot be read.
    pub fn read_stream(
        &self,
        stream: &StreamName,
        after: StreamVersion,
        read: Read<'_>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let filter = EventFilter { stream: Some(stream.clone()), ..EventFilter::default() };
        let after = match after {
            StreamVersion::EMPTY => Position::START,
            version => self
                .query_optional(
                    "SELECT position FROM runtime_events
                     WHERE stream_key = (SELECT stream_key FROM streams WHERE name = ?1) AND stream_version = ?2",
                    (stream.as_str(), version.0),
                    |row| Ok(Position(row.get(0)?)),
                )?
                .unwrap_or(Position(i64::MAX.unsigned_abs())),
        };
        let mut events = Vec::new();
        let mut after = after;
        loop {
            let batch = self.read(&filter, after, Position(i64::MAX.unsigned_abs()), usize::MAX, read)?;
            let Some(last) = batch.events.last() else {
                return Ok(events);
            };
            after = last.position;
            events.extend(batch.events);
        }
    }

    /// Events after a position, up to and with another, in the order of the log.
    ///
    /// At most `limit` events, and fewer where their content is large: read on after `scanned_to`.
    ///
    /// # Errors
    /// [`ReadError`] names the position that cannot be read.
    pub fn read(
        &self,
        filter: &EventFilter,
        after: Position,
        up_to: Position,
        limit: usize,
        read: Read<'_>,
    ) -> Result<Batch, ReadError> {
        self.read_with(filter, (after, up_to), limit, read, |raw| Ok((Some(raw.decode(&self.codec)?), None)))
    }

    /// The same, where payloads that do not decode are told beside the events that do.
    ///
    /// # Errors
    /// [`ReadError`] names the position whose row is damaged beyond its payloads.
    pub fn read_readable(
        &self,
        filter: &EventFilter,
        after: Position,
        up_to: Position,
        limit: usize,
        read: Read<'_>,
    ) -> Result<Batch, ReadError> {
        self.read_with(filter, (after, up_to), limit, read, |raw| Ok(raw.decode_readable(&self.codec)))
    }

    fn read_with(
        &self,
        filter: &EventFilter,
        (after, up_to): (Position, Position),
        limit: usize,
        read: Read<'_>,
        decode: impl Fn(RawEvent<'_>) -> Result<(Option<RecordedEvent>, Option<Unreadable>), ReadError>,
    ) -> Result<Batch, ReadError> {
        let mut bytes = 0;
        // Beyond the head nothing can be searched yet: what comes there later has to be in a later answer.
        let up_to = up_to.min(self.head()?.position).max(after);
        let mut batch = Batch { scanned_to: up_to, ..Batch::default() };
        self.scan(filter, after, up_to, read, false, |raw| {
            let position = raw.position;
            let (event, unreadable) = decode(raw)?;
            // What it takes in memory, which may be far more than it takes in the file.
            bytes += event.as_ref().and_then(|event| event.content.json()).map_or(0, str::len);
            batch.events.extend(event);
            batch.unreadable.extend(unreadable);
            let is_cut = batch.events.len() + batch.unreadable.len() >= limit || bytes >= ANSWER_BYTES_MAX;
            if is_cut {
                batch.scanned_to = position;
            }
            Ok(!is_cut)
        })?;
        Ok(batch)
    }

    /// The events with this id, in all streams or in those of one session.
    ///
    /// # Errors
    /// [`ReadError`] names the position that cannot be read.
    pub fn find(&self, id: &EventId, session: Option<&SessionId>) -> Result<Vec<RecordedEvent>, ReadError> {
        let stream = session.map(StreamName::session);
        let keys: Vec<i64> = self
            .connection
            .prepare_cached("SELECT stream_key FROM streams WHERE version > 0 AND (?1 IS NULL OR name = ?1)")
            .and_then(|mut statement| {
                statement.query_map([stream.as_ref().map(StreamName::as_str)], |row| row.get(0))?.collect()
            })
            .map_err(|source| self.storage(&source))?;
        let mut found = Vec::new();
        for key in keys {
            if let Some(position) = self.position_by_key(key, id)? {
                let before = Position(position.saturating_sub(1));
                found.extend(self.read(&EventFilter::default(), before, Position(position), 1, Read::All)?.events);
            }
        }
        Ok(found)
    }

    /// Where the event with this id stands in a stream, if it is there.
    ///
    /// # Errors
    /// [`StorageError`] when the file cannot be read.
    pub fn position_of(&self, stream: &StreamName, id: &EventId) -> Result<Option<Position>, StorageError> {
        let key: Option<i64> =
            self.query_optional("SELECT stream_key FROM streams WHERE name = ?1", [stream.as_str()], |row| row.get(0))?;
        match key {
            Some(key) => Ok(self.position_by_key(key, id)?.map(Position)),
            None => Ok(None),
        }
    }

    fn position_by_key(&self, stream_key: i64, id: &EventId) -> Result<Option<u64>, StorageError> {
        self.query_optional(
            "SELECT position FROM runtime_events WHERE stream_key = ?1 AND event_id = ?2",
            (stream_key, id.as_str()),
            |row| row.get(0),
        )
    }

    /// Follows the log from `after` on. Commits of other processes are seen within 20 ms.
    ///
    /// # Errors
    /// As [`LogReader::open`]: the follower has a reader of its own.
    pub fn follow(&self, after: Position) -> Result<Follower, OpenError> {
        Ok(Follower::new(Self::open(&self.path)?, after, None))
    }

    /// A number that changes when another connection has committed.
    pub(crate) fn data_version(&self) -> Result<i64, StorageError> {
        self.connection
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .map_err(|source| self.storage(&source))
    }

    /// Hands each row to `take` until it says false.
    pub(crate) fn scan(
        &self,
        filter: &EventFilter,
        after: Position,
        up_to: Position,
        read: Read<'_>,
        with_proof: bool,
        mut take: impl FnMut(RawEvent<'_>) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        let (sql, parameters) = select(filter, after, up_to, read, with_proof);
        let mut statement = self.connection.prepare_cached(&sql).map_err(|source| self.storage(&source))?;
        let mut rows =
            statement.query(rusqlite::params_from_iter(parameters)).map_err(|source| self.storage(&source))?;
        while let Some(row) = rows.next().map_err(|source| self.storage(&source))? {
            if !take(self.raw(row, read, with_proof)?)? {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn raw<'row>(
        &self,
        row: &'row Row<'_>,
        read: Read<'_>,
        with_proof: bool,
    ) -> Result<RawEvent<'row>, ReadError> {
        let position = Position(row.get(0).map_err(|source| self.storage(&source))?);
        let column = |column: &'static str| move |_: rusqlite::Error| ReadError::Column { position, column };
        let name = |source| ReadError::Name { position, source };
        let text = |index: usize, name: &'static str| {
            let text = row.get_ref(index).and_then(|text| Ok(text.as_str_or_null()?));
            text.map_err(column(name))
        };
        let blob = |index: usize, name: &'static str| {
            let blob = row.get_ref(index).and_then(|blob| Ok(blob.as_blob_or_null()?));
            blob.map_err(column(name))
        };
        let stream_of = |index: usize, name: &'static str| {
            let key: Option<i64> = row.get(index).map_err(column(name))?;
            key.map(|key| self.stream(key, position)).transpose()
        };
        let missing = |column: &'static str| ReadError::Column { position, column };
        let stream = stream_of(1, "stream_key")?.ok_or_else(|| missing("stream_key"))?.name.clone();
        // A key that leads to a stream of another sort is no session, and no run.
        let session = stream_of(7, "session_key")?
            .map(|stream| stream.session_id.clone().ok_or_else(|| missing("session_key")))
            .transpose()?;
        let run = stream_of(8, "run_key")?
            .map(|stream| stream.run_id.clone().ok_or_else(|| missing("run_key")))
            .transpose()?;
        let adapter_session = text(9, "adapter_session_id")?.map(|id| self.names.borrow_mut().adapter_session(id));
        let metadata = Metadata {
            causation_id: text(10, "causation_id")?.map(EventId::new).transpose().map_err(name)?,
            correlation_id: text(11, "correlation_id")?.map(str::to_owned),
            session_id: session,
            adapter_session_id: adapter_session.transpose().map_err(name)?,
            run_id: run,
        };
        let proof = with_proof
            .then(|| {
                let digest =
                    |index: usize, name: &'static str| row.get::<_, [u8; 32]>(index).map(Digest).map_err(column(name));
                Ok::<_, ReadError>(Proof {
                    digest: digest(13, "digest")?,
                    chain: digest(14, "chain")?,
                    commitment: digest(15, "commitment")?,
                    salt: row.get::<_, Option<Salt>>(16).map_err(column("salt"))?,
                })
            })
            .transpose()?;
        let content_index = if with_proof { 17 } else { 13 };
        let kind = EventKind::parse(text(4, "kind")?.ok_or_else(|| missing("kind"))?);
        let content_was_read = read.takes_content_of(&kind);
        Ok(RawEvent {
            position,
            stream,
            stream_version: StreamVersion(row.get(2).map_err(column("stream_version"))?),
            id: EventId::new(text(3, "event_id")?.ok_or_else(|| missing("event_id"))?).map_err(name)?,
            kind,
            occurred_at: TimestampMs(row.get(5).map_err(column("occurred_at"))?),
            recorded_at: TimestampMs(row.get(6).map_err(column("recorded_at"))?),
            metadata,
            facts: blob(12, "facts")?.ok_or_else(|| missing("facts"))?,
            proof,
            content: if content_was_read { blob(content_index, "content")? } else { None },
            sealed: if content_was_read {
                let index = if with_proof { 15 } else { 14 };
                // A damaged salt is one that does not fit.
                let salt = row.get::<_, Option<Salt>>(index + 1).unwrap_or_default();
                Some((row.get::<_, [u8; 32]>(index).map(Digest).map_err(column("commitment"))?, salt))
            } else {
                None
            },
            content_was_read,
        })
    }

    pub(crate) fn stream_name(&self, key: i64, position: Position) -> Result<StreamName, ReadError> {
        self.stream(key, position).map(|stream| stream.name.clone())
    }

    fn stream(&self, key: i64, position: Position) -> Result<Arc<NamedStream>, ReadError> {
        if let Some(stream) = self.names.borrow_mut().stream(key) {
            return Ok(stream);
        }
        let name: Option<String> =
            self.query_optional("SELECT name FROM streams WHERE stream_key = ?1", [key], |row| row.get(0))?;
        let name = name.ok_or(ReadError::Column { position, column: "stream_key" })?;
        let stream = NamedStream::new(StreamName::new(name).map_err(|source| ReadError::Name { position, source })?);
        Ok(self.names.borrow_mut().keep(key, stream))
    }

    /// Every stream's name and recorded version.
    pub(crate) fn stream_versions(&self) -> Result<Vec<(String, u64)>, StorageError> {
        self.connection
            .prepare("SELECT name, version FROM streams ORDER BY stream_key")
            .and_then(|mut statement| statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(|source| self.storage(&source))
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn codec(&self) -> &Codec {
        &self.codec
    }

    pub(crate) fn storage(&self, source: &rusqlite::Error) -> StorageError {
        StorageError::sqlite(&self.path, "reading", source)
    }

    pub(crate) fn query_optional<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StorageError> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(parameters, read).optional())
            .map_err(|source| self.storage(&source))
    }
}

/// The log's UUID, out of its one row.
pub(crate) fn log_id(path: &Path, connection: &Connection) -> Result<LogId, StorageError> {
    let text: String = connection
        .query_row("SELECT log_id FROM ledger", [], |row| row.get(0))
        .map_err(|source| StorageError::sqlite(path, "reading the log's identity", &source))?;
    LogId::new(text).map_err(|source| StorageError::Damaged {
        path: path.to_owned(),
        doing: "reading the log's identity",
        detail: source.to_string(),
    })
}

/// The beginning of a statement whose rows [`LogReader::raw`] reads.
pub(crate) fn columns(read: Read<'_>, with_proof: bool) -> String {
    let mut sql =
        "SELECT position, stream_key, stream_version, event_id, kind, occurred_at, recorded_at, session_key, \
                   run_key, adapter_session_id, causation_id, correlation_id, facts"
            .to_owned();
    if with_proof {
        sql.push_str(", digest, chain, commitment, salt");
    }
    match read {
        Read::Facts => {}
        // Large content stands on pages of its own, which are not read where nobody asks for it.
        Read::ContentOf(kinds) => {
            let kinds: Vec<String> =
                kinds.iter().map(|kind| format!("'{}'", kind.as_str().replace('\'', "''"))).collect();
            // Writing to a String cannot fail.
            let _ = write!(sql, ", CASE WHEN kind IN ({}) THEN content END", kinds.join(", "));
        }
        Read::All => sql.push_str(", content"),
    }
    if !with_proof && !matches!(read, Read::Facts) {
        sql.push_str(", commitment, salt");
    }
    sql
}

/// Whether the index of runs and permissions has events of this kind.
fn is_of_runs_or_permissions(kind: &EventKind) -> bool {
    use EventKind as K;
    let is_other = matches!(
        kind,
        K::Decision
            | K::RelayRequest
            | K::RelayWithdrawn
            | K::RelayDelivered
            | K::TimerScheduled
            | K::TimerFired
            | K::PermissionRequest
            | K::PermissionDenied
    );
    is_other || kind.is_workflow()
}

fn select(
    filter: &EventFilter,
    after: Position,
    up_to: Position,
    read: Read<'_>,
    with_proof: bool,
) -> (String, Vec<Value>) {
    let integer = |position: Position| Value::Integer(i64::try_from(position.0).unwrap_or(i64::MAX));
    let mut sql = columns(read, with_proof);
    sql.push_str(" FROM runtime_events WHERE position > ?1 AND position <= ?2");
    let mut parameters = vec![integer(after), integer(up_to)];
    let mut stream = |column: &str, name: Option<String>| {
        if let Some(name) = name {
            parameters.push(Value::Text(name));
            // Writing to a String cannot fail.
            let _ = write!(sql, " AND {column} = (SELECT stream_key FROM streams WHERE name = ?{})", parameters.len());
        }
    };
    stream("stream_key", filter.stream.as_ref().map(StreamName::to_string));
    stream("session_key", filter.session.as_ref().map(|id| StreamName::session(id).to_string()));
    stream("run_key", filter.run.as_ref().map(|id| StreamName::run(id).to_string()));
    if let Some(kinds) = &filter.kinds {
        sql.push_str(" AND kind IN (");
        for (index, kind) in kinds.iter().enumerate() {
            parameters.push(Value::Text(kind.to_string()));
            let _ = write!(sql, "{}?{}", if index == 0 { "" } else { ", " }, parameters.len());
        }
        sql.push(')');
        // With the very words of an index it applies.
        let is_of_all = filter.stream.is_none() && filter.session.is_none() && filter.run.is_none();
        if kinds.iter().all(EventKind::is_workflow) {
            sql.push_str(" AND kind GLOB 'workflow.*'");
        } else if is_of_all && kinds.iter().all(is_of_runs_or_permissions) {
            sql.push_str(
                " AND (kind GLOB 'workflow.*' OR kind = 'decision' OR kind GLOB 'relay.*' OR kind GLOB 'timer.*' \
                 OR kind GLOB 'permission.*')",
            );
        }
    }
    let order = if filter.stream.is_some() { " ORDER BY stream_version" } else { " ORDER BY position" };
    sql.push_str(order);
    (sql, parameters)
}
