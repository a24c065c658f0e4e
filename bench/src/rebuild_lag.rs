//! Following while every read model is rebuilt in a second handle: what a live reader notices of it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use runledger_projections::Projections;
use runledger_store::EventLog;

use crate::Context;
use crate::events::{checkpoint, event, make_log};
use crate::figure::Figure;
use crate::follow::{Models, Pace, follow};
use crate::table::Table;

/// Numbers of the events that come beside those of the log.
const FIRST: u64 = 1_000_000_000;

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(&context.dir)?;
    let path = folder.path().join("ledger.db");
    let count = context.sizes.rebuilt;
    let log = make_log(&path, count)?;
    Projections::open(&path)?.catch_up()?;
    checkpoint(&path)?;
    let settings = format!("FULL, {} beside a rebuild of {count} events", Pace::MODEST.words());
    let mut next = FIRST;
    for _ in 0..context.repetitions {
        let beside = beside_a_rebuild(&*log, &mut next)?;
        let figure = Figure::new("lag beside a rebuild of every read model: p50", "ms", settings.clone());
        table.add(figure, beside.p50_ms, None);
        let figure = Figure::new("lag beside a rebuild of every read model: max", "ms", settings.clone());
        table.add(figure.at_most(250.0), beside.max_ms, None);
        let figure = Figure::new("a rebuild of every read model beside a writer", "events/s", settings.clone());
        table.add(figure, count as f64 / beside.rebuild_seconds, None);
    }
    Ok(())
}

struct Beside {
    p50_ms: f64,
    max_ms: f64,
    rebuild_seconds: f64,
}

/// A writer at its pace and a live projector, for as long as the rebuild takes.
fn beside_a_rebuild(log: &dyn EventLog, next: &mut u64) -> anyhow::Result<Beside> {
    let is_rebuilt = AtomicBool::new(false);
    let (followed, rebuilt) = std::thread::scope(|scope| {
        let rebuild = scope.spawn(|| {
            let took = rebuild_all(log.path());
            is_rebuilt.store(true, Ordering::Release);
            took
        });
        let events = (*next..).map_while(|number| (!is_rebuilt.load(Ordering::Acquire)).then(|| event(number)));
        let followed = follow(log, events, Pace::MODEST, Models::All);
        (followed, rebuild.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the rebuild panicked"))))
    });
    let followed = followed?;
    *next += followed.events + Pace::MODEST.batch;
    Ok(Beside { p50_ms: followed.p50_ms, max_ms: followed.max_ms, rebuild_seconds: rebuilt? })
}

fn rebuild_all(ledger: &Path) -> anyhow::Result<f64> {
    let mut projections = Projections::open(ledger)?;
    let began = Instant::now();
    for name in projections.names() {
        projections.rebuild(name, &mut |_| {})?;
    }
    Ok(began.elapsed().as_secs_f64())
}
