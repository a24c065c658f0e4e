//! Events as they come: nobody misses one or gets one twice, whoever is slow, gone and back, or stuck.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]
#![allow(clippy::print_stdout, reason = "the figures are for who looks at them")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runledger_events::{Metadata, RuntimeEvent, StreamName};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, SqliteLog};
use support::{Following, Served, bearer};

const CLIENTS: usize = 200;
const EVENTS: u64 = 5000;

fn event(number: u64, session: &str, words: &str) -> NewEvent {
    let json = format!(
        r#"{{"id":"e{number}","timestamp":{},"kind":"message.delta","data":{{"delta":"{words}"}}}}"#,
        1_700_000_000_000 + number
    );
    let metadata = Metadata { session_id: session.parse().ok(), ..Metadata::default() };
    NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), metadata).unwrap()
}

fn append(log: &dyn EventLog, session: &str, numbers: std::ops::Range<u64>, words: &str) {
    let stream = StreamName::new(format!("session/{session}")).unwrap();
    let events = numbers.map(|number| event(number, session, words)).collect();
    log.append(&stream, ExpectedVersion::Any, events).unwrap();
}

/// Reads on until a position; each one that comes is the one behind the last.
fn read_to(following: &mut Following, mut last: u64, until: u64) -> u64 {
    while last < until {
        let told = following.next().expect("the stream goes on");
        assert_eq!(told.id, last + 1);
        assert!(told.data.starts_with(&format!("{{\"position\":{},", told.id)), "{}", told.data);
        last = told.id;
    }
    last
}

#[test]
fn of_two_hundred_clients_nobody_misses_an_event_while_one_is_stuck() {
    // Given a log with events, of which some follow from the beginning, and one that never reads
    let served = Arc::new(Served::new());
    append(&*served.ledger.log, "s1", 0..500, "before");
    let bearer = bearer();
    let _stuck = served.send("GET", "/api/v1/events", &["accept: text/event-stream", &bearer], "");
    let until = 500 + EVENTS;
    let started = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (served, started) = (served.clone(), started.clone());
            let client = move || {
                let begin = if number % 4 == 0 { 0 } else { 500 };
                let mut following = served.follow(&format!("/api/v1/events?after={begin}"), None);
                started.fetch_add(1, Ordering::Release);
                let mut last = begin;
                if number % 3 == 0 {
                    // Some go in the middle of it, and come back where they were.
                    for part in 1..4 {
                        last = read_to(&mut following, last, 500 + part * (EVENTS / 5) + number as u64);
                        drop(following);
                        following = served.follow("/api/v1/events?after=3", Some(last));
                    }
                }
                read_to(&mut following, last, until)
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn(client).unwrap()
        })
        .collect();
    while started.load(Ordering::Acquire) < CLIENTS as u64 {
        std::thread::yield_now();
    }
    // When events are appended, in batches of any size
    let is_over = Arc::new(AtomicBool::new(false));
    let (watched, over) = (served.clone(), is_over.clone());
    let watch = std::thread::spawn(move || {
        let (mut most, mut times) = (0, 0);
        while !over.load(Ordering::Acquire) {
            let bytes = watched.figure("event_stream_ring_bytes");
            assert!(bytes <= watched.figure("event_stream_ring_bytes_max"));
            assert!(watched.figure("event_stream_ring_events") <= watched.figure("event_stream_ring_events_max"));
            (most, times) = (most.max(bytes), times + 1);
        }
        (most, times)
    });
    let begun = std::time::Instant::now();
    let (mut number, words) = (500, "x".repeat(300));
    while number < until {
        let next = (number + 1 + number % 40).min(until);
        append(&*served.ledger.log, "s1", number..next, &words);
        number = next;
    }
    let appended = begun.elapsed();
    // Then each client has every event, in order, once
    for client in clients {
        assert_eq!(client.join().unwrap(), until);
    }
    let all = begun.elapsed();
    is_over.store(true, Ordering::Release);
    let (most, times) = watch.join().unwrap();
    assert!(most > 0, "the ring was used");
    println!(
        "{EVENTS} events appended in {appended:?}, all {CLIENTS} clients had them after {all:?}; ring at most {most} bytes, {times} looks"
    );
}

#[test]
fn json_of_several_lines_is_one_line_of_the_stream() {
    let served = Served::new();
    let json = "{\"id\":\"e1\",\n\"timestamp\":1,\r\n\"kind\":\"message.delta\",\"data\":{\n\"delta\":\"a\\nb\"}}";
    served.ledger.append("session/s1", json);
    let told: serde_json::Value =
        serde_json::from_str(&served.follow("/api/v1/events", None).next().unwrap().data).unwrap();
    assert_eq!(told["event"]["data"]["delta"], "a\nb");
    assert_eq!(told, served.get("/api/v1/events/1").json());
}

#[test]
fn a_filtered_client_gets_what_fits_alone() {
    let served = Served::new();
    for round in 0..30 {
        append(&*served.ledger.log, "s1", round * 10..round * 10 + 5, "one");
        append(&*served.ledger.log, "s2", round * 10 + 5..round * 10 + 10, "two");
    }
    let mut following = served.follow("/api/v1/events?session=s2", None);
    let expected = |round: u64| (6..=10).map(move |number| round * 10 + number);
    for position in (0..30).flat_map(expected) {
        assert_eq!(following.next().unwrap().id, position);
    }
    append(&*served.ledger.log, "s1", 300..301, "one");
    append(&*served.ledger.log, "s2", 301..302, "two");
    assert_eq!(following.next().unwrap().id, 302);
}

#[test]
fn a_large_event_is_left_out_and_counted() {
    let served = Served::new();
    let (long, short) = ("y".repeat(300 << 10), "y".repeat(200 << 10));
    append(&*served.ledger.log, "s1", 0..1, &long);
    append(&*served.ledger.log, "s1", 1..2, &short);
    let mut following = served.follow("/api/v1/events", None);
    let told: serde_json::Value = serde_json::from_str(&following.next().unwrap().data).unwrap();
    assert!(told["event"].is_null() && told["left_out_bytes"].as_u64() > Some(300 << 10), "{told}");
    let whole = served.get("/api/v1/events/1").json();
    assert_eq!(whole["event"]["data"]["delta"].as_str().unwrap().len(), 300 << 10);
    let told: serde_json::Value = serde_json::from_str(&following.next().unwrap().data).unwrap();
    assert_eq!(told["event"]["data"]["delta"].as_str().unwrap().len(), 200 << 10);
}

#[test]
fn a_place_outside_the_log_is_refused_and_so_is_no_place() {
    let served = Served::new();
    append(&*served.ledger.log, "s1", 0..3, "one");
    let stream = |path: &str, last: &str| {
        served.ask("GET", path, &["accept: text/event-stream", &bearer(), &format!("last-event-id: {last}")], "")
    };
    assert_eq!(stream("/api/v1/events", "4").status, 404);
    assert_eq!(stream("/api/v1/events", "four").status, 400);
    assert_eq!(served.get("/api/v1/events?after=4").status, 404);
    assert_eq!(served.get("/api/v1/events?after=3").status, 200);
}

#[test]
fn a_stream_outlives_a_ledger_that_is_gone_for_a_while_and_ends_where_another_one_comes() {
    let served = Served::new();
    append(&*served.ledger.log, "s1", 0..3, "one");
    let mut following = served.follow("/api/v1/events", None);
    assert_eq!(read_to(&mut following, 0, 3), 3);
    let aside = served.ledger.folder.path().join("aside.db");
    std::fs::rename(&served.ledger.path, &aside).unwrap();
    assert_eq!(served.get("/api/v1/status").status, 503);
    std::fs::rename(&aside, &served.ledger.path).unwrap();
    append(&*served.ledger.log, "s1", 3..5, "one");
    assert_eq!(read_to(&mut following, 3, 5), 5);
    // Another ledger in its place has positions of its own.
    for suffix in ["", "-wal", "-shm", ".projections", ".projections-wal", ".projections-shm"] {
        let path = |name: &str| served.ledger.folder.path().join(format!("{name}{suffix}"));
        _ = std::fs::rename(path("ledger.db"), path("aside.db"));
    }
    append(&SqliteLog::open(&served.ledger.path).unwrap(), "s1", 0..9, "another");
    assert!(following.next().is_none());
}

/// 5,000 events a second, in as many batches of 100 as `RUNLEDGER_FOLLOW_BATCHES` says: a few, or the 500 of the figures in
/// docs/api.md. It asserts what came, and prints how late.
#[test]
fn two_hundred_clients_miss_nothing_of_what_is_appended_at_a_steady_pace() {
    let served = Arc::new(Served::new());
    let batches = std::env::var("RUNLEDGER_FOLLOW_BATCHES").map_or(10, |batches| batches.parse().unwrap());
    let (batch, pace) = (100, std::time::Duration::from_millis(20));
    let until = batches * batch;
    let begun = std::time::Instant::now();
    // When each batch was appended, in microseconds since the beginning; 0 where it was not.
    let appended: Arc<Vec<AtomicU64>> = Arc::new((0..batches).map(|_| AtomicU64::new(0)).collect());
    let started = Arc::new(AtomicU64::new(0));
    let stuck: Vec<_> =
        (0..10).map(|_| served.send("GET", "/api/v1/events", &["accept: text/event-stream", &bearer()], "")).collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (served, started, appended) = (served.clone(), started.clone(), appended.clone());
            let client = move || {
                let mut following = served.follow("/api/v1/events?after=0", None);
                started.fetch_add(1, Ordering::Release);
                (1..=batches)
                    .map(|number| {
                        read_to(&mut following, (number - 1) * batch, number * batch);
                        let at = appended[usize::try_from(number - 1).unwrap()].load(Ordering::Acquire);
                        u64::try_from(begun.elapsed().as_micros()).unwrap().saturating_sub(at)
                    })
                    .collect::<Vec<u64>>()
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn(client).unwrap()
        })
        .collect();
    while started.load(Ordering::Acquire) < CLIENTS as u64 {
        std::thread::yield_now();
    }
    let (first, words) = (std::time::Instant::now(), "x".repeat(300));
    for number in 0..batches {
        let due = first + pace * u32::try_from(number).unwrap();
        std::thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
        append(&*served.ledger.log, "s1", number * batch..(number + 1) * batch, &words);
        let at = u64::try_from(begun.elapsed().as_micros()).unwrap();
        appended[usize::try_from(number).unwrap()].store(at, Ordering::Release);
    }
    let took = first.elapsed();
    let mut late: Vec<u64> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    late.sort_unstable();
    let part = |part: usize| late[(late.len() - 1) * part / 100] / 1000;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!(
        "{until} events in {took:.1?}, {:.0} a second, to {CLIENTS} clients beside {} that are stuck: had after {} ms (p50), \
         {} ms (p99), {} ms at the most; server and clients together {memory}",
        until as f64 / took.as_secs_f64(),
        stuck.len(),
        part(50),
        part(99),
        part(100)
    );
}
