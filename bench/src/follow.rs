//! Following: how long after its commit an event is in the read models, at a steady rate of appends.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runledger_events::{Position, RuntimeEvent};
use runledger_projections::{Projections, Projector};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, OpenOptions, SqliteLog, StreamAppend, SyncMode};

use crate::Context;
use crate::events::{event, session};
use crate::figure::{Figure, Floor};
use crate::streams;
use crate::table::{Table, percentile};

/// How long the read models may stand still before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How fast events are appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: u64,
    /// Events in a transaction.
    pub(crate) batch: u64,
}

impl Pace {
    /// What a ledger of many busy sessions gets.
    pub(crate) const FAST: Self = Self { per_second: 20_000, batch: 20 };
    /// What leaves a machine time for something else.
    pub(crate) const MODEST: Self = Self { per_second: 500, batch: 5 };

    pub(crate) fn words(self) -> String {
        format!("{}/s, {} a transaction", self.per_second, self.batch)
    }
}

/// The read models that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Models {
    /// None: the log is appended to alone.
    None,
    /// All of the release.
    All,
    /// The one that the peers keep too.
    Streams,
}

impl Models {
    fn open(self, ledger: &Path) -> anyhow::Result<Projections> {
        Ok(if self == Self::Streams { streams::open(ledger)? } else { Projections::open(ledger)? })
    }
}

/// One run at a rate.
pub(crate) struct Followed {
    pub(crate) events: u64,
    /// Milliseconds from the end of an append to the moment at which the read models have its events.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// Events that the writer could append in a second with nothing to wait for.
    pub(crate) per_second: f64,
}

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let count = context.sizes.followed;
    let settings = format!("FULL, {count} events at {}", Pace::FAST.words());
    for _ in 0..context.repetitions {
        let alone = at_rate(&context.dir, SyncMode::Full, count, Models::None)?;
        let followed = at_rate(&context.dir, SyncMode::Full, count, Models::All)?;
        table.add(
            Figure::new("lag of the read models: p50", "ms", settings.clone()).at_most(1.0),
            followed.p50_ms,
            None,
        );
        table.add(
            Figure::new("lag of the read models: p99", "ms", settings.clone()).at_most(7.0),
            followed.p99_ms,
            None,
        );
        let figure = Figure::new("appends beside the projector", "events/s of busy time", settings.clone());
        let figure = figure.against("without a projector", Floor::Ratio(0.95));
        table.add(figure, followed.per_second, Some(alone.per_second));
    }
    Ok(())
}

/// Appends so many events to a new ledger, at the fast pace.
pub(crate) fn at_rate(dir: &Path, sync: SyncMode, count: u64, models: Models) -> anyhow::Result<Followed> {
    let folder = tempfile::tempdir_in(dir)?;
    let log = SqliteLog::open_with(folder.path().join("ledger.db"), &OpenOptions { sync, ..OpenOptions::default() })?;
    let prepared: Vec<_> = (0..count).map(event).collect::<anyhow::Result<_>>()?;
    follow(&log, prepared.into_iter().map(Ok), Pace::FAST, models)
}

/// What was acknowledged, and when; the looker takes off what the read models have.
type Acknowledged = Mutex<VecDeque<(Position, Instant)>>;

/// Appends the events at a pace to one session, while the read models follow and somebody looks at how far they are.
pub(crate) fn follow(
    log: &dyn EventLog,
    events: impl Iterator<Item = anyhow::Result<RuntimeEvent>>,
    pace: Pace,
    models: Models,
) -> anyhow::Result<Followed> {
    let path = log.path();
    if models != Models::None {
        models.open(path)?.catch_up()?;
    }
    let projector = (models != Models::None)
        .then(|| anyhow::Ok(Projector::start_with(models.open(path)?, log.follow(Position::START)?)?))
        .transpose()?;
    let (stream, metadata) = session(1)?;
    let acknowledged = Acknowledged::default();
    let is_over = AtomicBool::new(false);
    let (mut busy, mut count) = (Duration::ZERO, 0);
    let lags = std::thread::scope(|scope| {
        // Without read models too, for what looking costs the writer.
        let looker = scope.spawn(|| look(path, models, &acknowledged, &is_over));
        let appended = keep(pace, events, |events| {
            let began = Instant::now();
            let events: Vec<NewEvent> =
                events.into_iter().map(|event| NewEvent::new(event, metadata.clone())).collect::<Result<_, _>>()?;
            let append = StreamAppend { stream: stream.clone(), expected: ExpectedVersion::Any, events };
            let receipts = log.append_all(vec![append])?;
            busy += began.elapsed();
            count += receipts.len() as u64;
            if let (Some(last), Ok(mut acknowledged)) = (receipts.last(), acknowledged.lock()) {
                acknowledged.push_back((last.position, Instant::now()));
            }
            Ok(())
        });
        is_over.store(true, Ordering::Release);
        let lags = looker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")));
        appended?;
        lags
    })?;
    if let Some(projector) = projector {
        projector.stop()?;
    }
    Ok(Followed {
        events: count,
        p50_ms: percentile(&lags, 0.5),
        p99_ms: percentile(&lags, 0.99),
        max_ms: percentile(&lags, 1.0),
        per_second: count as f64 / busy.as_secs_f64(),
    })
}

/// Hands over the events in batches, each at its moment.
fn keep(
    pace: Pace,
    mut events: impl Iterator<Item = anyhow::Result<RuntimeEvent>>,
    mut append: impl FnMut(Vec<RuntimeEvent>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    for batch in 0.. {
        let due = Duration::from_secs_f64((batch * pace.batch) as f64 / pace.per_second as f64);
        if let Some(left) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(left);
        }
        let next: Vec<_> = events.by_ref().take(usize::try_from(pace.batch)?).collect::<anyhow::Result<_>>()?;
        if next.is_empty() {
            break;
        }
        append(next)?;
    }
    Ok(())
}

/// Looks every so often how far every read model is, as a query does that waits; milliseconds for each append.
fn look(ledger: &Path, models: Models, acknowledged: &Acknowledged, is_over: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let projections = models.open(ledger)?;
    let names = projections.names();
    let mut lags = Vec::new();
    let (mut before, mut came_further) = (Position::START, Instant::now());
    loop {
        let is_last = is_over.load(Ordering::Acquire);
        let mut reached = None;
        for name in &names {
            let at = projections.checkpoint(name)?.map_or(Position::START, |checkpoint| checkpoint.position);
            reached = Some(reached.map_or(at, |reached: Position| reached.min(at)));
        }
        let reached = reached.unwrap_or(Position::START);
        let now = Instant::now();
        if let Ok(mut acknowledged) = acknowledged.lock() {
            while let Some((position, at)) = acknowledged.front().copied()
                && position <= reached
            {
                lags.push(now.saturating_duration_since(at).as_secs_f64() * 1e3);
                acknowledged.pop_front();
            }
            if models == Models::None {
                acknowledged.clear();
            }
            if is_last && acknowledged.is_empty() {
                return Ok(lags);
            }
            if reached > before || acknowledged.is_empty() {
                (before, came_further) = (reached, now);
            }
        }
        anyhow::ensure!(came_further.elapsed() < PATIENCE, "the read models stand at {reached}, and come no further");
        std::thread::sleep(Duration::from_micros(200));
    }
}
