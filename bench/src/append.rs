//! Appending: alone, from many writers at once, in batches; and what the digests cost of it.

use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use runledger_events::{Codec, Digest, EventId, StreamVersion, TimestampMs, chain, commitment, event_digest};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, OpenOptions, SqliteLog, StreamAppend};

use crate::Context;
use crate::events::{event, session};
use crate::figure::{Figure, Floor};
use crate::raw;
use crate::table::{Table, percentile};

const BATCH: u64 = 100;
/// Pages that an append of one event writes: the event's, those of three indexes, the stream's.
const PAGES: usize = 5;

/// What some writers came to.
pub(crate) struct Appended {
    pub(crate) per_second: f64,
    /// Of single calls, in microseconds.
    pub(crate) p99_us: f64,
}

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let sizes = context.sizes;
    for _ in 0..context.repetitions {
        let folder = tempfile::tempdir_in(&context.dir)?;
        let raw = raw::syncs_per_second(folder.path(), sizes.lone, 1)?;
        table.add(Figure::new("raw write + fdatasync", "syncs/s", "4 KiB each, file kept"), raw, None);
        let of_append = raw::syncs_per_second(folder.path(), sizes.lone, PAGES)?;
        let figure =
            Figure::new("raw write of an append's pages + fdatasync", "syncs/s", format!("{PAGES} of 4 KiB each"));
        table.add(figure.against("raw sync", Floor::None), of_append, Some(raw));

        let at = |name: &str| folder.path().join(format!("{name}.db"));
        let lone = append(&at("lone"), &OpenOptions::default(), 1, sizes.lone, 1)?;
        let figure = Figure::new("append, one at a time", "events/s", format!("FULL, {} events", sizes.lone));
        table.add(figure.against("raw sync", Floor::Ratio(0.65)), lone.per_second, Some(raw));
        for (writers, floor) in [(8, Floor::None), (64, Floor::Ratio(7.0))] {
            let many =
                append(&at(&format!("of-{writers}")), &OpenOptions::default(), writers, sizes.per_writer * writers, 1)?;
            let settings = format!("FULL, {} events each", sizes.per_writer);
            let figure = Figure::new(format!("append, {writers} writers"), "events/s", settings.clone());
            table.add(figure.against("raw sync", floor), many.per_second, Some(raw));
            let figure = Figure::new(format!("append, {writers} writers: p99"), "ms", settings);
            let figure = if writers == 64 { figure.at_most(5.0) } else { figure };
            table.add(figure, many.p99_us / 1000.0, None);
        }
        let batched = append(&at("batched"), &OpenOptions::default(), 1, sizes.batched, BATCH)?;
        let settings = format!("FULL, {} events", sizes.batched);
        let figure = Figure::new("append, batches of 100", "events/s", settings.clone());
        table.add(figure.against("lone append", Floor::Ratio(16.0)), batched.per_second, Some(lone.per_second));
        table.add(Figure::new("append, batches of 100: p99", "ms", settings), batched.p99_us / 1000.0, None);
        let each = digest_seconds(sizes.batched)?;
        let figure = Figure::new("digest and chain", "µs/event", format!("{} events", sizes.batched));
        let of_append = 1e6 / batched.per_second;
        table.add(figure.against("an event of a batch", Floor::RatioAtMost(0.1)), each * 1e6, Some(of_append));
    }
    Ok(())
}

/// Appends `count` events from this many writers, each to a session of its own, `batch` in one call.
pub(crate) fn append(
    path: &Path,
    options: &OpenOptions,
    writers: u64,
    count: u64,
    batch: u64,
) -> anyhow::Result<Appended> {
    append_to(&SqliteLog::open_with(path, options)?, writers, count, batch)
}

/// The same to any log.
pub(crate) fn append_to(log: &dyn EventLog, writers: u64, count: u64, batch: u64) -> anyhow::Result<Appended> {
    let each = count / writers;
    let barrier = Barrier::new(usize::try_from(writers)? + 1);
    let (seconds, latencies) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let prepared = prepare(writer, each);
                    barrier.wait();
                    let prepared = prepared?;
                    write(log, writer, prepared, batch)
                })
            })
            .collect();
        barrier.wait();
        let began = Instant::now();
        let mut latencies = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(of_thread) => latencies.extend(of_thread?),
                Err(_) => anyhow::bail!("a writer panicked"),
            }
        }
        Ok((began.elapsed().as_secs_f64(), latencies))
    })?;
    Ok(Appended { per_second: (each * writers) as f64 / seconds, p99_us: percentile(&latencies, 0.99) })
}

fn prepare(writer: u64, count: u64) -> anyhow::Result<Vec<runledger_events::RuntimeEvent>> {
    (0..count).map(|number| event(writer * 100_000_000 + number)).collect()
}

/// The call as a user makes it, encoding included; gives the microseconds of each.
fn write(
    log: &dyn EventLog,
    writer: u64,
    events: Vec<runledger_events::RuntimeEvent>,
    batch: u64,
) -> anyhow::Result<Vec<f64>> {
    let (stream, metadata) = session(writer)?;
    let mut latencies = Vec::with_capacity(events.len());
    let mut events = events.into_iter();
    loop {
        let began = Instant::now();
        let next: Vec<NewEvent> = events
            .by_ref()
            .take(usize::try_from(batch)?)
            .map(|event| NewEvent::new(event, metadata.clone()))
            .collect::<Result<_, _>>()?;
        if next.is_empty() {
            return Ok(latencies);
        }
        let append = StreamAppend { stream: stream.clone(), expected: ExpectedVersion::Any, events: next };
        log.append_all(vec![append])?;
        latencies.push(began.elapsed().as_secs_f64() * 1e6);
    }
}

/// Seconds that commitment, digest and chain of one event take.
fn digest_seconds(count: u64) -> anyhow::Result<f64> {
    let (stream, metadata) = session(1)?;
    let events: Vec<_> = (0..count).map(event).collect::<anyhow::Result<_>>()?;
    let codec = Codec::default();
    let encoded: Vec<_> =
        events.iter().map(|event| Ok((codec.encode_facts(event.facts())?, event))).collect::<anyhow::Result<_>>()?;
    let id = EventId::new("0123456789abcdef0123456789abcdef")?;
    let (mut digest, mut chained) = (Digest::ZERO, Digest::ZERO);
    let began = Instant::now();
    for (number, (facts, event)) in encoded.iter().enumerate() {
        let commitment = commitment(&[7; 16], event.json().as_bytes());
        let version = StreamVersion(number as u64);
        let at = TimestampMs(1_760_000_000_000);
        digest = event_digest(&digest, &stream, version, &id, event.kind(), at, at, &metadata, facts, &commitment);
        chained = chain(&chained, &digest);
    }
    std::hint::black_box(chained);
    Ok(began.elapsed().as_secs_f64() / count as f64)
}
