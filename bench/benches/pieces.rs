//! The inner pieces, each alone: encode, decode, digest, append, fold, query.

#[path = "../src/events.rs"]
#[allow(dead_code, reason = "the bench itself needs more of it")]
mod events;

use divan::Bencher;
use divan::counter::ItemsCount;
use runledger_events::{
    Codec, Digest, EventId, Metadata, Position, RecordedEvent, RuntimeEvent, SessionId, StreamName, StreamVersion,
    TimestampMs, chain, commitment, event_digest,
};
use runledger_projections::{FeedFilter, FeedPage, Projections, Queries, RunFilter, Target, registered};
use runledger_store::{
    EventFilter, EventLog, ExpectedVersion, LogReader, NewEvent, OpenOptions, Read, SqliteLog, StreamAppend, SyncMode,
};
use rusqlite::Connection;
use tempfile::TempDir;

/// Events of the log that is folded and queried.
const LOG_EVENTS: u64 = 5_000;

/// A tool's result of about 425 bytes.
const JSON: &str = r#"{"id":"e-1","timestamp":1760000000000,"kind":"tool.post","sessionId":"adapter-1","data":{"tool_name":"Bash","tool_use_id":"toolu_0123456789abcdef","tool_input":{"command":"cargo test -p runledger-store --test append","description":"Runs the tests of the append path"},"tool_response":{"stdout":"running 12 tests\ntest result: ok. 12 passed; 0 failed; finished in 0.31s","stderr":"","interrupted":false},"cwd":"/home/dev/work"}}"#;

fn main() {
    divan::main();
}

fn event() -> RuntimeEvent {
    RuntimeEvent::from_json(JSON).expect("an event")
}

#[divan::bench]
fn read_json(bencher: Bencher) {
    bencher.bench(event);
}

#[divan::bench]
fn encode_facts(bencher: Bencher) {
    let (codec, event) = (Codec::default(), event());
    bencher.bench(|| codec.encode_facts(event.facts()));
}

#[divan::bench]
fn decode_facts(bencher: Bencher) {
    let codec = Codec::default();
    let payload = codec.encode_facts(event().facts()).expect("facts");
    bencher.bench(|| codec.decode_facts(&payload));
}

#[divan::bench]
fn encode_content(bencher: Bencher) {
    let codec = Codec::default();
    bencher.bench(|| codec.encode_content(JSON));
}

#[divan::bench]
fn decode_content(bencher: Bencher) {
    let codec = Codec::default();
    let payload = codec.encode_content(JSON).expect("content");
    bencher.bench(|| codec.decode_content(&payload));
}

#[divan::bench]
fn commit_to_content(bencher: Bencher) {
    bencher.bench(|| commitment(&[7; 16], divan::black_box(JSON.as_bytes())));
}

#[divan::bench]
fn digest_and_chain(bencher: Bencher) {
    let event = event();
    let facts = Codec::default().encode_facts(event.facts()).expect("facts");
    let (stream, id) = (StreamName::new("session/s").expect("a name"), EventId::new("e-1").expect("an id"));
    let (at, metadata) = (TimestampMs(1_760_000_000_000), Metadata::default());
    let content = commitment(&[7; 16], JSON.as_bytes());
    bencher.bench(|| {
        let version = StreamVersion(9);
        let digest =
            event_digest(&Digest::ZERO, &stream, version, &id, event.kind(), at, at, &metadata, &facts, &content);
        chain(&Digest::ZERO, &digest)
    });
}

/// A folder on the disk that this is built on: what is in memory alone needs no sync.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn append(bencher: Bencher, batch: u64, sync: SyncMode) {
    let folder = folder();
    let options = OpenOptions { sync, ..OpenOptions::default() };
    let log = SqliteLog::open_with(folder.path().join("ledger.db"), &options).expect("a log");
    let (stream, metadata) = events::session(1).expect("a session");
    let mut numbers = 0..;
    let next = || {
        let events = numbers.by_ref().take(usize::try_from(batch).expect("a count"));
        let events = events.map(|number| NewEvent::new(events::event(number).expect("an event"), metadata.clone()));
        let events = events.collect::<Result<_, _>>().expect("events");
        vec![StreamAppend { stream: stream.clone(), expected: ExpectedVersion::Any, events }]
    };
    bencher
        .counter(ItemsCount::new(batch))
        .with_inputs(next)
        .bench_local_values(|appends| log.append_all(appends).expect("appended"));
}

#[divan::bench(args = [1, 100])]
fn append_full(bencher: Bencher, batch: u64) {
    append(bencher, batch, SyncMode::Full);
}

#[divan::bench(args = [1, 100])]
fn append_normal(bencher: Bencher, batch: u64) {
    append(bencher, batch, SyncMode::Normal);
}

/// One batch, from nothing, into tables in memory.
#[divan::bench(args = ["workflow_runs", "sessions", "feed_events"], sample_count = 20)]
fn fold(bencher: Bencher, name: &str) {
    let folder = folder();
    let path = folder.path().join("ledger.db");
    drop(events::make_log(&path, LOG_EVENTS).expect("a log"));
    let reader = LogReader::open(&path).expect("a reader");
    let head = Position(LOG_EVENTS);
    let count = usize::try_from(LOG_EVENTS).expect("a count");
    let batch = reader.read(&EventFilter::default(), Position::START, head, count, Read::All).expect("a batch");
    let projection = registered().into_iter().find(|projection| projection.name() == name).expect("a read model");
    let events: Vec<&RecordedEvent> =
        batch.events.iter().filter(|event| projection.kinds().takes(&event.kind)).collect();
    let empty = || {
        let connection = Connection::open_in_memory().expect("a connection");
        connection.execute_batch(&projection.schema().replace("{generation}", "1")).expect("tables");
        connection
    };
    bencher.counter(ItemsCount::new(events.len())).with_inputs(empty).bench_local_values(|connection| {
        connection.execute_batch("BEGIN").expect("begun");
        let target = Target { connection: &connection, generation: 1 };
        let mut fold = projection.fold();
        fold.take(&target, &events).expect("taken");
        fold.flush(&target, usize::MAX).expect("written");
        connection.execute_batch("COMMIT").expect("committed");
        connection
    });
}

/// A ledger whose read models are at its head.
fn queried() -> (TempDir, Queries) {
    let folder = folder();
    let path = folder.path().join("ledger.db");
    drop(events::make_log(&path, LOG_EVENTS).expect("a log"));
    Projections::open(&path).expect("read models").catch_up().expect("caught up");
    let queries = Queries::open(&path).expect("queries");
    (folder, queries)
}

#[divan::bench]
fn query_latest_runs(bencher: Bencher) {
    let (_folder, queries) = queried();
    let filter = RunFilter { limit: Some(20), ..RunFilter::default() };
    bencher.bench_local(|| queries.runs(&filter).expect("runs"));
}

#[divan::bench]
fn query_last_feed_page(bencher: Bencher) {
    let (_folder, queries) = queried();
    let filter = FeedFilter { session: Some(SessionId::new("session-7").expect("an id")), ..FeedFilter::default() };
    bencher.bench_local(|| queries.feed(&filter, &FeedPage::Last, 50).expect("a page"));
}

#[divan::bench]
fn query_what_waits(bencher: Bencher) {
    let (_folder, queries) = queried();
    let filter = events::waiting();
    bencher.bench_local(|| queries.permission_requests(&filter).expect("requests"));
}

#[divan::bench]
fn query_context_of_a_request(bencher: Bencher) {
    let (_folder, queries) = queried();
    bencher.bench_local(|| events::context_of_pending(&queries).expect("a context"));
}
