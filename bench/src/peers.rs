//! The peers, each in a process of its own: the same work, with the same events, in the same run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use runledger_events::RuntimeEvent;
use runledger_store::{EventLog, ExpectedVersion, NewEvent, SqliteLog, StreamAppend, SyncMode};
use serde_json::Value;

use crate::Context;
use crate::append::append;
use crate::events::{checkpoint, event, session};
use crate::figure::{Figure, Floor};
use crate::follow::{self, Models, Pace};
use crate::peer::{Peer, Told};
use crate::streams;
use crate::table::Table;

/// Different events that the peers get; then they come again.
const EVENTS: u64 = 10_000;
/// Appended at the least where nobody waits for the disk: less would be over too soon to measure.
const NORMAL_MIN: u64 = 4_000;
/// Streams of the log that is rebuilt, and events in one call while it is filled: as the peers have it.
const STREAMS: u64 = 50;
const FILL_BATCH: u64 = 100;

/// One run of the group: where it is, and what there is to do.
struct Beside<'a> {
    context: &'a Context,
    /// The events, as the peers read them.
    events: PathBuf,
    /// The logs that are rebuilt, with their sizes: that of most peers, and that of one which takes long.
    filled: [(PathBuf, u64); 2],
}

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let Some(programs) = &context.peers else {
        table.leave_out("peers", "no --peers");
        return Ok(());
    };
    let folder = tempfile::tempdir_in(&context.dir)?;
    let events = folder.path().join("events.jsonl");
    write_events(&events)?;
    let peers = Peer::found(programs, &context.dir, &events, table)?;
    let sizes = context.sizes;
    let filled = [sizes.batched, sizes.batched / 5].map(|count| (folder.path().join(format!("{count}.db")), count));
    if peers.iter().any(|peer| peer.floors.rebuild.is_some()) {
        for (path, count) in &filled {
            fill(path, *count)?;
        }
    }
    let beside = Beside { context, events, filled };
    let works = [
        ("one at a time", 1, 1, sizes.lone),
        ("8 writers", 8, 1, sizes.per_writer * 8),
        ("64 writers", 64, 1, sizes.per_writer * 64),
        ("batches of 100", 1, 100, sizes.batched),
    ];
    for _ in 0..context.repetitions {
        for (index, work) in works.into_iter().enumerate() {
            for peer in &peers {
                if peer.floors.appends[index].is_some() {
                    beside.append(peer, index, work, table)?;
                }
            }
        }
        for peer in &peers {
            beside.rebuild(peer, table)?;
            beside.lag(peer, table)?;
        }
    }
    Ok(())
}

/// The events as JSON Lines. Kind and data alone: ids and times are the peers' own.
fn write_events(path: &Path) -> anyhow::Result<()> {
    let lines = (0..EVENTS).map(|number| {
        let event: Value = serde_json::from_str(&crate::events::json(number))?;
        // In this order: the script for PostgreSQL cuts the line at its words.
        Ok(format!(r#"{{"kind":{},"data":{}}}"#, event["kind"], event["data"]))
    });
    let lines: Vec<String> = lines.collect::<Result<_, serde_json::Error>>()?;
    Ok(std::fs::write(path, lines.join("\n"))?)
}

/// A log of the events that the peers rebuild theirs from, in as many streams.
fn fill(path: &Path, count: u64) -> anyhow::Result<()> {
    let log = SqliteLog::open(path)?;
    let numbers: Vec<u64> = (0..count).collect();
    for (call, numbers) in (0..).zip(numbers.chunks(usize::try_from(FILL_BATCH)?)) {
        let (stream, metadata) = session(call % STREAMS)?;
        let events: Vec<RuntimeEvent> = numbers.iter().copied().map(event).collect::<anyhow::Result<_>>()?;
        let events = events.into_iter().map(|event| NewEvent::new(event, metadata.clone()));
        let events = events.collect::<Result<_, _>>()?;
        log.append_all(vec![StreamAppend { stream, expected: ExpectedVersion::Any, events }])?;
    }
    drop(log);
    checkpoint(path)?;
    streams::open(path)?.catch_up()?;
    Ok(())
}

impl Beside<'_> {
    fn theirs(&self, peer: &Peer, work: &str, arguments: &[(&str, u64)]) -> anyhow::Result<Told> {
        peer.run(work, &self.context.dir, &self.events, arguments)
    }

    fn append(
        &self,
        peer: &Peer,
        index: usize,
        (name, writers, batch, count): (&str, u64, u64, u64),
        table: &mut Table,
    ) -> anyhow::Result<()> {
        let count = if peer.sync == SyncMode::Normal { count.max(NORMAL_MIN) } else { count };
        let arguments = [("--count", count), ("--writers", writers), ("--batch", batch)];
        let theirs = self.theirs(peer, "append", &arguments)?;
        let folder = tempfile::tempdir_in(&self.context.dir)?;
        let path = folder.path().join("ledger.db");
        let ours = append(&path, &peer.options(), writers, count, batch)?;
        let settings = peer.settings(&format!("{count} events"), &theirs);
        let row = Row { peer, name, unit: "events/s", settings: &settings };
        row.add(peer.floors.appends[index], ours.per_second, theirs.per_second()?, table);
        if batch > 1 {
            checkpoint(&path)?;
            let ours = std::fs::metadata(&path)?.len() as f64 / count as f64;
            let theirs = theirs.number("bytes")? / theirs.number("events")?;
            let row = Row { peer, name: "a log's size", unit: "bytes/event", settings: &settings };
            row.add(peer.floors.size, ours, theirs, table);
        }
        Ok(())
    }

    /// The read model that the peers keep, built anew of the same log.
    fn rebuild(&self, peer: &Peer, table: &mut Table) -> anyhow::Result<()> {
        if peer.floors.rebuild.is_none() {
            return Ok(());
        }
        // One that commits for each event would take the bench's whole time.
        let (path, count) = &self.filled[usize::from(peer.floors.lag.is_none())];
        let theirs = self.theirs(peer, "rebuild", &[("--count", *count)])?;
        let mut projections = streams::open(path)?;
        let began = Instant::now();
        projections.rebuild(streams::NAME, &mut |_| {})?;
        let ours = *count as f64 / began.elapsed().as_secs_f64();
        let counted = streams::events(path)?;
        anyhow::ensure!(u64::try_from(counted)? == *count, "{counted} events were counted, of {count}");
        let settings = peer.settings(&format!("{count} events, a row for each of {STREAMS} streams"), &theirs);
        let row = Row { peer, name: "rebuild", unit: "events/s", settings: &settings };
        row.add(peer.floors.rebuild, ours, theirs.per_second()?, table);
        Ok(())
    }

    /// The lag of that read model, and beside it that of all that runledger has, which is more work than the peer's.
    fn lag(&self, peer: &Peer, table: &mut Table) -> anyhow::Result<()> {
        let Some([p50, p99]) = peer.floors.lag else {
            return Ok(());
        };
        let count = self.context.sizes.followed / 2;
        let theirs = self.theirs(peer, "lag", &[("--count", count), ("--rate", Pace::FAST.per_second)])?;
        let (their_p50, their_p99) = (theirs.number("p50_us")? / 1e3, theirs.number("p99_us")? / 1e3);
        let settings = peer.settings(&format!("{count} events at {}", Pace::FAST.words()), &theirs);
        let row = |name| Row { peer, name, unit: "ms", settings: &settings };
        let same = follow::at_rate(&self.context.dir, peer.sync, count, Models::Streams)?;
        row("lag p50").add(Some(p50), same.p50_ms, their_p50, table);
        row("lag p99").add(Some(p99), same.p99_ms, their_p99, table);
        let all = follow::at_rate(&self.context.dir, peer.sync, count, Models::All)?;
        row("lag p50 of all six read models").add_ours(Some(p50), all.p50_ms, their_p50, table);
        row("lag p99 of all six read models").add_ours(Some(p99), all.p99_ms, their_p99, table);
        Ok(())
    }
}

/// Two rows of the table: the peer's, and runledger's beside it.
struct Row<'a> {
    peer: &'a Peer,
    name: &'a str,
    unit: &'static str,
    settings: &'a str,
}

impl Row<'_> {
    fn add(&self, floor: Option<Floor>, ours: f64, theirs: f64, table: &mut Table) {
        let name = format!("{}, {}", self.peer.name, self.name);
        table.add(Figure::new(name, self.unit, self.settings), theirs, None);
        self.add_ours(floor, ours, theirs, table);
    }

    fn add_ours(&self, floor: Option<Floor>, ours: f64, theirs: f64, table: &mut Table) {
        let name = format!("runledger beside {}, {}", self.peer.name, self.name);
        let figure = Figure::new(name, self.unit, self.settings);
        table.add(figure.against("the peer", floor.unwrap_or(Floor::None)), ours, Some(theirs));
    }
}
