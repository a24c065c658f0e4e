//! Following: how long after its commit an event is in the read models, at a steady rate of appends.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use runledger_projections::{Projections, Projector, Queries};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, StreamAppend};

use crate::Context;
use crate::events::{event, session};
use crate::figure::{Figure, Floor};
use crate::table::{Table, percentile};

/// Appended in a second, in transactions of [`BATCH`].
pub(crate) const RATE: u64 = 20_000;
const BATCH: u64 = 20;

/// One run at the rate.
pub(crate) struct Followed {
    /// Milliseconds from the end of an append to the moment at which the read models have its events.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Events that the writer could append in a second with nothing to wait for.
    pub(crate) per_second: f64,
}

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let count = context.sizes.followed;
    let settings = format!("FULL, {count} events at {RATE}/s, {BATCH} a transaction");
    for _ in 0..context.repetitions {
        let alone = at_rate(&context.dir, count, false)?;
        let followed = at_rate(&context.dir, count, true)?;
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

pub(crate) fn at_rate(dir: &Path, count: u64, with_projector: bool) -> anyhow::Result<Followed> {
    let folder = tempfile::tempdir_in(dir)?;
    let path = folder.path().join("ledger.db");
    let log = EventLog::open(&path)?;
    Projections::open(&path)?.catch_up()?;
    let projector =
        with_projector.then(|| Projector::start(&path, log.follow(runledger_events::Position::START)?)).transpose()?;
    let (stream, metadata) = session(1)?;
    let prepared: Vec<_> = (0..count).map(event).collect::<anyhow::Result<_>>()?;
    // What was acknowledged, and when; the looker takes off what the read models have.
    let appended: Mutex<std::collections::VecDeque<(u64, Instant)>> = Mutex::default();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let mut busy = Duration::ZERO;
    let lags = std::thread::scope(|scope| {
        let looker = with_projector.then(|| scope.spawn(|| look(&path, &appended, &is_over)));
        let result = pace(prepared, |events| {
            let began = Instant::now();
            let events: Vec<NewEvent> =
                events.map(|event| NewEvent::new(event, metadata.clone())).collect::<Result<_, _>>()?;
            let append = StreamAppend { stream: stream.clone(), expected: ExpectedVersion::Any, events };
            let receipts = log.append_all(vec![append])?;
            busy += began.elapsed();
            if let (Some(last), Ok(mut appended)) = (receipts.last(), appended.lock()) {
                appended.push_back((last.position.0, Instant::now()));
            }
            Ok(())
        });
        is_over.store(true, std::sync::atomic::Ordering::Release);
        let lags = match looker.map(std::thread::ScopedJoinHandle::join) {
            None => Ok(vec![0.0]),
            Some(Ok(lags)) => lags,
            Some(Err(_)) => Err(anyhow::anyhow!("the looker panicked")),
        };
        result.and(lags)
    })?;
    if let Some(projector) = projector {
        projector.stop()?;
    }
    Ok(Followed {
        p50_ms: percentile(&lags, 0.5),
        p99_ms: percentile(&lags, 0.99),
        per_second: count as f64 / busy.as_secs_f64(),
    })
}

/// Hands over the events in batches, each at its moment.
fn pace<T>(
    events: Vec<T>,
    mut append: impl FnMut(&mut dyn Iterator<Item = T>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut events = events.into_iter();
    let mut batch = 0;
    while events.len() > 0 {
        let due = Duration::from_secs_f64((batch * BATCH) as f64 / RATE as f64);
        if let Some(left) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(left);
        }
        append(&mut events.by_ref().take(BATCH as usize))?;
        batch += 1;
    }
    Ok(())
}

/// Looks every so often how far every read model is, as a query does that waits; milliseconds for each append.
fn look(
    path: &Path,
    appended: &Mutex<std::collections::VecDeque<(u64, Instant)>>,
    is_over: &std::sync::atomic::AtomicBool,
) -> anyhow::Result<Vec<f64>> {
    let queries = Queries::open(path)?;
    let mut lags = Vec::new();
    loop {
        let is_last = is_over.load(std::sync::atomic::Ordering::Acquire);
        let reached = queries
            .status()?
            .iter()
            .map(|status| status.position.map_or(0, |position| position.0))
            .min()
            .unwrap_or_default();
        let now = Instant::now();
        if let Ok(mut appended) = appended.lock() {
            while let Some((position, at)) = appended.front().copied()
                && position <= reached
            {
                lags.push(now.saturating_duration_since(at).as_secs_f64() * 1e3);
                appended.pop_front();
            }
            if is_last && appended.is_empty() {
                return Ok(lags);
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
