//! The bench's works, done by cqrs-es on sqlite-es: append and rebuild.

#[path = "../../protocol.rs"]
mod protocol;

use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{GenericQuery, PersistedEventRepository, PersistenceError, QueryReplay, SerializedEvent};
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, View};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlite_es::{SqliteEventRepository, SqliteViewRepository};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Pool, Sqlite};

use crate::protocol::{Arguments, Events, FILL_BATCH, Fallible, REBUILD_STREAMS, SyncMode, batches, bytes_of, report};

/// For the rebuild, as sqlite-es' own `default_sqlite_pool` has.
const CONNECTIONS: u32 = 10;
/// For appends: with ten, writers sleep for SQLite's lock; in one pool queue they are two to three times as fast.
const APPEND_CONNECTIONS: u32 = 1;
/// Many writers wait for long: that is not to be an error.
const WAIT: Duration = Duration::from_secs(120);

/// From sqlite-es' migrations/20221114171845_init.sql: the table of events, and that of a view.
const SCHEMA: &str = "
    CREATE TABLE events (
      aggregate_type text                          NOT NULL,
      aggregate_id   text                          NOT NULL,
      sequence       integer CHECK (sequence >= 0) NOT NULL,
      event_type     text                          NOT NULL,
      event_version  text                          NOT NULL,
      payload        text                          NOT NULL,
      metadata       text                          NOT NULL,
      PRIMARY KEY (aggregate_type, aggregate_id, sequence)
    ) STRICT;
    CREATE TABLE streams (
      view_id text                         NOT NULL,
      version integer CHECK (version >= 0) NOT NULL,
      payload text                         NOT NULL,
      PRIMARY KEY (view_id)
    ) STRICT;";

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("peer-cqrs-es: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Fallible<Value> {
    let arguments = Arguments::parse()?;
    let events = Events::read(&arguments.events)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let path = arguments.dir.join("events.db");
    runtime.block_on(async {
        // The mode that `default_sqlite_pool` has.
        let sync = arguments.sync.unwrap_or(SyncMode::Normal);
        let connections = if arguments.work == "append" { APPEND_CONNECTIONS } else { CONNECTIONS };
        let pool = open(&path, sync, connections).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        let mode: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&pool).await?;
        let real = SyncMode::from_pragma(mode)?;
        if real != sync {
            return Err(format!("asked for {}, SQLite is at {}", sync.word(), real.word()).into());
        }
        let sqlite: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&pool).await?;
        let mut line = match arguments.work.as_str() {
            "append" => append(&arguments, &events, pool).await?,
            "rebuild" => rebuild(&arguments, &events, pool, &path, sync).await?,
            other => return Err(format!("{other}: peer-cqrs-es knows append and rebuild").into()),
        };
        let version = |name| protocol::version_in(include_str!("../Cargo.lock"), name);
        line["sync"] = real.word().into();
        line["version"] = format!("{}, {}, SQLite {sqlite}", version("cqrs-es"), version("sqlite-es")).into();
        Fallible::Ok(line)
    })
}

/// What `default_sqlite_pool` does, with a sync mode.
async fn open(path: &Path, sync: SyncMode, connections: u32) -> Fallible<Pool<Sqlite>> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match sync {
            SyncMode::Full => SqliteSynchronous::Full,
            SyncMode::Normal => SqliteSynchronous::Normal,
        })
        .busy_timeout(WAIT)
        .foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(connections).acquire_timeout(WAIT);
    Ok(pool.connect_with(options).await?)
}

/// Empties the write-ahead log into the file first: a pool may be closed before its last connection is.
async fn close(pool: Pool<Sqlite>) -> Fallible<()> {
    let is_busy: bool = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&pool).await?;
    pool.close().await;
    if is_busy { Err("the write-ahead log could not be emptied".into()) } else { Ok(()) }
}

/// Appends by the repository itself: the framework's `execute` would load the aggregate for each call.
async fn append(arguments: &Arguments, events: &Events, pool: Pool<Sqlite>) -> Fallible<Value> {
    let mut first = 0;
    let mut prepared = Vec::new();
    for writer in 0..arguments.writers {
        let share = arguments.share(writer);
        let stream = format!("session-{writer}");
        let calls: Vec<Vec<SerializedEvent>> = batches(first, share, arguments.batch)
            .map(|numbers| numbers.map(|number| serialized(&stream, number - first, events.at(number))).collect())
            .collect::<Fallible<_>>()?;
        prepared.push(calls);
        first += share;
    }
    let repository = Arc::new(SqliteEventRepository::new(pool.clone()));
    let began = Instant::now();
    let writers: Vec<_> =
        prepared.into_iter().map(|calls| tokio::spawn(write(Arc::clone(&repository), calls))).collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await??);
    }
    let seconds = began.elapsed().as_secs_f64();
    close(pool).await?;
    let mut line = report(arguments.count, seconds, &mut latencies);
    line["bytes"] = bytes_of(&arguments.dir)?.into();
    Ok(line)
}

async fn write(
    repository: Arc<SqliteEventRepository>,
    calls: Vec<Vec<SerializedEvent>>,
) -> Result<Vec<Duration>, PersistenceError> {
    let mut latencies = Vec::with_capacity(calls.len());
    for call in calls {
        let began = Instant::now();
        repository.persist::<Session>(&call, None).await?;
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}

async fn rebuild(
    arguments: &Arguments,
    events: &Events,
    pool: Pool<Sqlite>,
    path: &Path,
    sync: SyncMode,
) -> Fallible<Value> {
    let repository = SqliteEventRepository::new(pool.clone());
    let mut lengths = vec![0; REBUILD_STREAMS as usize];
    for (call, numbers) in batches(0, arguments.count, FILL_BATCH).enumerate() {
        let number = call % lengths.len();
        let stream = format!("session-{number}");
        let batch: Vec<_> = numbers
            .zip(lengths[number]..)
            .map(|(number, sequence)| serialized(&stream, sequence, events.at(number)))
            .collect::<Fallible<_>>()?;
        lengths[number] += batch.len() as u64;
        repository.persist::<Session>(&batch, None).await?;
    }
    // Opened again: what was filled is then in the file, not in the write-ahead log.
    close(pool).await?;
    let pool = open(path, sync, CONNECTIONS).await?;

    let failure = Arc::new(Mutex::new(None));
    let keep = |failure: &Arc<Mutex<Option<String>>>| {
        let failure = Arc::clone(failure);
        Box::new(move |error: PersistenceError| {
            failure.lock().expect("no holder panics").get_or_insert(error.to_string());
        })
    };
    let views = Arc::new(SqliteViewRepository::<StreamView, Session>::new("streams", pool.clone()));
    let mut query = GenericQuery::new(views);
    query.use_error_handler(keep(&failure));
    // Room for all events: else the reader waits for the views and, being open, keeps the write-ahead log from being
    // used again, whose growth then makes each view slower: 110 seconds instead of 14 for 100,000 events.
    let source = SqliteEventRepository::new(pool.clone()).with_streaming_channel_size(arguments.count as usize);
    let mut replay = QueryReplay::new(source, query);
    replay.use_error_handler(keep(&failure));
    let began = Instant::now();
    replay.replay_all().await?;
    let seconds = began.elapsed().as_secs_f64();
    if let Some(error) = failure.lock().expect("no holder panics").take() {
        return Err(error.into());
    }
    let sum: i64 =
        sqlx::query_scalar("SELECT sum(json_extract(payload, '$.events')) FROM streams").fetch_one(&pool).await?;
    close(pool).await?;
    if sum as u64 != arguments.count {
        return Err(format!("{sum} events were counted, of {}", arguments.count).into());
    }
    Ok(report(arguments.count, seconds, &mut []))
}

fn serialized(stream: &str, sequence: u64, event: &Map<String, Value>) -> Fallible<SerializedEvent> {
    let event = Recorded {
        kind: event.get("kind").and_then(Value::as_str).ok_or("an event has no kind")?.to_owned(),
        data: event.get("data").cloned().ok_or("an event has no data")?,
    };
    Ok(SerializedEvent::new(
        stream.to_owned(),
        // The first event has 1.
        sequence as usize + 1,
        Session::TYPE.to_owned(),
        event.event_type(),
        event.event_version(),
        serde_json::to_value(event)?,
        json!({}),
    ))
}

/// One stream. Nothing is decided here, so it has no state.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Session {}

impl Aggregate for Session {
    const TYPE: &'static str = "session";
    type Command = ();
    type Event = Recorded;
    type Error = Infallible;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Infallible> {
        Ok(())
    }

    fn apply(&mut self, _: Recorded) {}
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Recorded {
    kind: String,
    data: Value,
}

impl DomainEvent for Recorded {
    fn event_type(&self) -> String {
        self.kind.clone()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

/// Events of each stream, and the kind of its last.
#[derive(Debug, Default, Serialize, Deserialize)]
struct StreamView {
    events: u64,
    last_kind: String,
}

impl View<Session> for StreamView {
    fn update(&mut self, event: &EventEnvelope<Session>) {
        self.events += 1;
        self.last_kind.clone_from(&event.payload.kind);
    }
}
