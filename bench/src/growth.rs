//! Growth: the same work on logs of ten times the size each, beside the smallest of them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use runledger_events::SessionId;
use runledger_projections::{FeedFilter, FeedPage, Projections, Queries, RunFilter, projections_path};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, SqliteLog, StreamAppend};

use crate::Context;
use crate::events::{self, checkpoint, event, make_log, session};
use crate::figure::{Figure, Floor};
use crate::follow::{Models, Pace, follow};
use crate::program;
use crate::rebuild::rebuild;
use crate::table::{Table, median, percentile};

/// What stays as it is, whatever the size, may differ by so much.
const FLAT: f64 = 1.2;
/// A rebuild of a larger log has this part of the smaller one's events a second, at least.
const LINEAR: f64 = 0.8;
/// Numbers of the events that come beside those of the logs.
const FIRST: u64 = 2_000_000_000;
/// Asked so often in one repetition.
const ASKED: usize = 101;
/// Events of a log in which there is one workflow run.
const EVENTS_A_RUN: u64 = 5_000;

/// A ledger of one size.
struct Grown {
    path: PathBuf,
    count: u64,
    /// The next event that comes beside those of the log.
    next: u64,
}

/// One kind of work.
struct Work {
    name: &'static str,
    unit: &'static str,
    floor: Floor,
    settings: String,
}

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(&context.dir)?;
    let mut ledgers = Vec::new();
    for count in context.sizes.growth.iter().copied() {
        let path = folder.path().join(format!("{count}.db"));
        drop(make_log(&path, count)?);
        Projections::open(&path)?.catch_up()?;
        ledgers.push(Grown { path, count, next: FIRST });
    }
    // The smallest has to have as many as are asked for.
    let runs = context.sizes.growth.iter().min().map_or(1, |smallest| (smallest / EVENTS_A_RUN).clamp(1, 20));
    for _ in 0..context.repetitions {
        let mut smallest: Vec<f64> = Vec::new();
        for ledger in &mut ledgers {
            let measured = measure(context, ledger, runs)?;
            for (index, (work, value)) in measured.into_iter().enumerate() {
                let name = format!("log of {}: {}", ledger.count, work.name);
                let figure = Figure::new(name, work.unit, work.settings);
                match smallest.get(index) {
                    Some(of_smallest) => {
                        table.add(figure.against("the smallest log", work.floor), value, Some(*of_smallest));
                    }
                    None => {
                        table.add(figure, value, None);
                        smallest.push(value);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Everything once, on one ledger.
fn measure(context: &Context, ledger: &mut Grown, runs: u64) -> anyhow::Result<Vec<(Work, f64)>> {
    let mut measured = Vec::new();
    let mut add = |name, unit, floor, settings: String, value| {
        measured.push((Work { name, unit, floor, settings }, value));
    };
    let flat_time = Floor::RatioAtMost(FLAT);

    // Each begins with empty write-ahead logs: they are read by whoever opens a ledger first.
    ledger.empty_wal()?;
    let count = context.sizes.lone;
    let per_second = ledger.append_alone(count)?;
    add("append, one at a time", "events/s", Floor::Ratio(0.83), format!("FULL, {count} events"), per_second);

    ledger.empty_wal()?;
    let count = context.sizes.grown_lag;
    let log = SqliteLog::open(&ledger.path)?;
    let events = (ledger.next..ledger.next + count).map(event);
    let followed = follow(&log, events, Pace::MODEST, Models::All)?;
    ledger.next += count;
    drop(log);
    let settings = format!("FULL, {count} events at {}", Pace::MODEST.words());
    add("lag of the read models: p50", "ms", flat_time, settings, followed.p50_ms);

    ledger.empty_wal()?;
    let settings = format!("median of {ASKED}, open connection");
    let [latest, page, waiting, context_of] = queries(&ledger.path, runs)?;
    add("query: the latest runs", "ms", flat_time, format!("{runs} of them, {settings}"), latest);
    add("query: a session's last page of the feed", "ms", flat_time, settings.clone(), page);
    add("query: what waits for an answer", "ms", flat_time, settings.clone(), waiting);
    add("query: the context of a request", "ms", flat_time, settings, context_of);

    if let Some(program) = &context.program {
        let hooks = program::hooks(program, &ledger.path, context.sizes.hooks)?;
        let settings = format!("{} calls, whole process", context.sizes.hooks);
        add("hook: p50", "ms", flat_time, settings, percentile(&hooks, 0.5));
    }
    Projections::open(&ledger.path)?.catch_up()?;
    ledger.empty_wal()?;
    for (name, model) in [("rebuild workflow_runs", "workflow_runs"), ("rebuild sessions", "sessions")] {
        let per_second = rebuild(&ledger.path, &[model], ledger.count)?;
        add(name, "events of the log/s", Floor::Ratio(LINEAR), "1 % of workflows".to_owned(), per_second);
    }
    Ok(measured)
}

impl Grown {
    fn empty_wal(&self) -> anyhow::Result<()> {
        checkpoint(&self.path)?;
        checkpoint(&projections_path(&self.path))
    }

    /// Events a second, each in an append of its own.
    fn append_alone(&mut self, count: u64) -> anyhow::Result<f64> {
        let log = SqliteLog::open(&self.path)?;
        let (stream, metadata) = session(1)?;
        let events: Vec<_> = (self.next..self.next + count).map(event).collect::<anyhow::Result<_>>()?;
        self.next += count;
        let began = Instant::now();
        for event in events {
            let events = vec![NewEvent::new(event, metadata.clone())?];
            let append = StreamAppend { stream: stream.clone(), expected: ExpectedVersion::Any, events };
            log.append_all(vec![append])?;
        }
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }
}

/// Milliseconds of the latest runs, of a session's last page, of what waits for an answer, and of a request's context.
fn queries(ledger: &Path, runs: u64) -> anyhow::Result<[f64; 4]> {
    let queries = Queries::open(ledger)?;
    let runs = RunFilter { limit: Some(usize::try_from(runs)?), ..RunFilter::default() };
    let of_session = FeedFilter { session: Some(SessionId::new("session-7")?), ..FeedFilter::default() };
    let waiting = events::waiting();
    Ok([
        asked(|| Ok(queries.runs(&runs)?))?,
        asked(|| Ok(queries.feed(&of_session, &FeedPage::Last, 50)?))?,
        asked(|| Ok(queries.permission_requests(&waiting)?))?,
        asked(|| events::context_of_pending(&queries))?,
    ])
}

/// The median of the milliseconds that it takes.
fn asked<T>(mut ask: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let mut took = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let began = Instant::now();
        ask()?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&took))
}
