//! The bench's works, done by eventsdb: append, rebuild and lag.

#[path = "../../protocol.rs"]
mod protocol;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eventsdb::sqlite::rusqlite::{Connection, OpenFlags, params};
use eventsdb::sqlite::{Projection, SqliteEventLog, SqliteEventStore, Transaction};
use eventsdb::{Error, EventStore, Position, Recorded, Result};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use crate::protocol::{Arguments, Events, FILL_BATCH, Fallible, REBUILD_STREAMS, SyncMode, batches, bytes_of, report};

/// Events a projection's transaction covers while a log is rebuilt; a live one keeps eventsdb's default.
const REBUILD_BATCH: usize = 1024;
/// Events in one call while a rate is kept.
const LAG_BATCH: u64 = 20;
/// Between two looks at what the projection has committed, as runledger's own lag is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(200);

type Event = Map<String, Value>;

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("peer-eventsdb: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Fallible<Value> {
    let arguments = Arguments::parse()?;
    let events = Events::read(&arguments.events)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let path = arguments.dir.join("events.db");
    let (sync, sqlite) = runtime.block_on(async {
        let log = SqliteEventLog::open(&path).await?;
        let found = real_sync(&log).await?;
        log.close().await?;
        Fallible::Ok(found)
    })?;
    if arguments.sync.is_some_and(|asked| asked != sync) {
        let advice = "eventsdb sets it itself: peer-eventsdb is normal, and eventsdb-full.sh builds one that is full";
        return Err(format!("this binary's sync mode is {}; {advice}", sync.word()).into());
    }
    let mut line = match arguments.work.as_str() {
        "append" => runtime.block_on(append(&arguments, &events, &path))?,
        "rebuild" => runtime.block_on(rebuild(&arguments, &events, &path))?,
        "lag" => lag(&arguments, &events, &path, &runtime)?,
        other => return Err(format!("{other}: peer-eventsdb knows append, rebuild and lag").into()),
    };
    line["sync"] = sync.word().into();
    let eventsdb = protocol::version_in(include_str!("../Cargo.lock"), "eventsdb");
    line["version"] = format!("{eventsdb}, SQLite {sqlite}").into();
    Ok(line)
}

/// The writer's sync mode, and the SQLite that it runs on. A query would be answered by a reader, whose mode says nothing.
async fn real_sync(log: &SqliteEventLog) -> Fallible<(SyncMode, String)> {
    let (mode, sqlite) = log
        .with_transaction(|tx| {
            let mode: i64 = tx.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(storage)?;
            let sqlite: String = tx.query_row("SELECT sqlite_version()", [], |row| row.get(0)).map_err(storage)?;
            Ok((mode, sqlite))
        })
        .await?;
    Ok((SyncMode::from_pragma(mode)?, sqlite))
}

async fn append(arguments: &Arguments, events: &Events, path: &Path) -> Fallible<Value> {
    let log = SqliteEventLog::open(path).await?;
    let mut first = 0;
    let mut prepared = Vec::new();
    for writer in 0..arguments.writers {
        let share = arguments.share(writer);
        let calls: Vec<Vec<Event>> = batches(first, share, arguments.batch)
            .map(|numbers| numbers.map(|number| events.at(number).clone()).collect())
            .collect();
        prepared.push((log.stream_handle(&format!("session-{writer}")), calls));
        first += share;
    }
    let began = Instant::now();
    let writers: Vec<_> = prepared.into_iter().map(|(stream, calls)| tokio::spawn(write(stream, calls))).collect();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await??);
    }
    let seconds = began.elapsed().as_secs_f64();
    // The last connection to close empties the write-ahead log into the file.
    log.close().await?;
    let mut line = report(arguments.count, seconds, &mut latencies);
    line["bytes"] = bytes_of(&arguments.dir)?.into();
    Ok(line)
}

async fn write(mut stream: SqliteEventStore, calls: Vec<Vec<Event>>) -> Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(calls.len());
    for mut call in calls {
        let began = Instant::now();
        match call.pop() {
            Some(only) if call.is_empty() => drop(stream.append(only).await?),
            Some(last) => {
                call.push(last);
                stream.append_many(call).await?;
            }
            None => {}
        }
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}

async fn rebuild(arguments: &Arguments, events: &Events, path: &Path) -> Fallible<Value> {
    let log = SqliteEventLog::open(path).await?;
    for (call, numbers) in batches(0, arguments.count, FILL_BATCH).enumerate() {
        let mut stream = log.stream_handle(&format!("session-{}", call as u64 % REBUILD_STREAMS));
        stream.append_many(numbers.map(|number| events.at(number).clone()).collect()).await?;
    }
    // Opened again: what was filled is then in the file, not in the write-ahead log.
    log.close().await?;
    let log = SqliteEventLog::open(path).await?;
    let mut runner = log.runner(Streams)?.with_batch(REBUILD_BATCH);
    let began = Instant::now();
    let applied = runner.rebuild().await?;
    let seconds = began.elapsed().as_secs_f64();
    drop(runner);
    log.close().await?;
    let sum: i64 = Connection::open(path)?.query_row("SELECT sum(events) FROM streams", [], |row| row.get(0))?;
    if applied as u64 != arguments.count || sum as u64 != arguments.count {
        return Err(format!("{applied} events were applied and {sum} counted, of {}", arguments.count).into());
    }
    Ok(report(arguments.count, seconds, &mut []))
}

/// What was acknowledged: its last position, and when.
type Acknowledged = Mutex<VecDeque<(Position, Instant)>>;

/// One thread appends, eventsdb's `follow` projects, and another thread looks at the projection's checkpoint.
fn lag(arguments: &Arguments, events: &Events, path: &Path, runtime: &Runtime) -> Fallible<Value> {
    let log = runtime.block_on(SqliteEventLog::open(path))?;
    let mut runner = log.runner(Streams)?;
    runtime.block_on(runner.init())?;
    let calls: Vec<Vec<Event>> = batches(0, arguments.count, LAG_BATCH)
        .map(|numbers| numbers.map(|number| events.at(number).clone()).collect())
        .collect();
    let follower = runtime.spawn(async move { runner.follow().await });
    let acknowledged = Acknowledged::default();
    let is_over = AtomicBool::new(false);
    let began = Instant::now();
    let mut latencies = std::thread::scope(|scope| {
        let looker = scope.spawn(|| look(path, &acknowledged, &is_over, || follower.is_finished()));
        let mut stream = log.stream_handle("session-0");
        let appended = calls.into_iter().enumerate().try_for_each(|(call, events)| {
            let due = Duration::from_secs_f64((call as u64 * LAG_BATCH) as f64 / arguments.rate as f64);
            if let Some(left) = due.checked_sub(began.elapsed()) {
                std::thread::sleep(left);
            }
            let committed = runtime.block_on(stream.append_many(events))?;
            let now = Instant::now();
            let last = committed.last().and_then(|last| last.position).ok_or("an append gave no position")?;
            acknowledged.lock().expect("no holder panics").push_back((last, now));
            Fallible::Ok(())
        });
        is_over.store(true, Ordering::Release);
        let latencies = looker.join().expect("the looker does not panic");
        appended.and(latencies)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    follower.abort();
    runtime.block_on(log.close())?;
    Ok(report(arguments.count, seconds, &mut latencies))
}

/// Looks every so often how far the projection has committed; gives the lag of each append.
fn look(
    path: &Path,
    acknowledged: &Acknowledged,
    is_over: &AtomicBool,
    has_failed: impl Fn() -> bool,
) -> Fallible<Vec<Duration>> {
    let connection = Connection::open_with_flags(PathBuf::from(path), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = connection.prepare("SELECT coalesce(max(position), 0) FROM checkpoints WHERE consumer = ?1")?;
    let mut lags = Vec::new();
    loop {
        if has_failed() {
            return Err("the projection's follow ended".into());
        }
        let is_last = is_over.load(Ordering::Acquire);
        let reached: i64 = statement.query_row([CONSUMER], |row| row.get(0))?;
        let reached = Position::new(reached as u64);
        let now = Instant::now();
        let mut waiting = acknowledged.lock().expect("no holder panics");
        while let Some((position, at)) = waiting.front().copied()
            && position <= reached
        {
            lags.push(now.saturating_duration_since(at));
            waiting.pop_front();
        }
        if is_last && waiting.is_empty() {
            return Ok(lags);
        }
        drop(waiting);
        std::thread::sleep(LOOK_EVERY);
    }
}

const CONSUMER: &str = "streams";

/// Events of each stream, and the kind of its last.
struct Streams;

impl Projection for Streams {
    fn name(&self) -> &str {
        CONSUMER
    }

    fn init(&mut self, tx: &Transaction<'_>) -> Result<()> {
        tx.execute_batch(
            "CREATE TABLE IF NOT EXISTS streams (stream TEXT PRIMARY KEY, events INTEGER NOT NULL, last_kind TEXT NOT NULL)",
        )
        .map_err(storage)
    }

    fn reset(&mut self, tx: &Transaction<'_>) -> Result<()> {
        tx.execute_batch("DROP TABLE IF EXISTS streams").map_err(storage)
    }

    fn apply(&mut self, tx: &Transaction<'_>, event: &Recorded) -> Result<()> {
        tx.prepare_cached(
            "INSERT INTO streams (stream, events, last_kind) VALUES (?1, 1, ?2)
             ON CONFLICT (stream) DO UPDATE SET events = events + 1, last_kind = excluded.last_kind",
        )
        .and_then(|mut statement| statement.execute(params![event.stream, event.kind()]))
        .map(drop)
        .map_err(storage)
    }
}

fn storage(error: eventsdb::sqlite::rusqlite::Error) -> Error {
    Error::storage(error.to_string())
}
