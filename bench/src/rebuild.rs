//! Rebuilding read models, beside a bare SELECT of the same columns; and what is read at a cost that should not grow.

use std::path::Path;
use std::time::Instant;

use runledger_events::{KindFacts, Position, SessionId, WorkflowState};
use runledger_projections::{FeedFilter, FeedPage, Projections, Queries, RunFilter};
use runledger_store::{EventFilter, LogReader, Read};

use crate::Context;
use crate::events::{self, PENDING, checkpoint, make_log};
use crate::figure::{Figure, Floor};
use crate::raw;
use crate::table::Table;

/// The read model that has a row an event, and the one that is searched.
const OF_THE_FEED: [&str; 2] = ["feed_events", "feed_search"];

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(&context.dir)?;
    let path = folder.path().join("ledger.db");
    let count = context.sizes.log;
    drop(make_log(&path, count)?);
    checkpoint(&path)?;
    let settings = format!("{count} events, 1 % of workflows");
    Projections::open(&path)?.catch_up()?;
    for _ in 0..context.repetitions {
        let one = raw::rows_per_second(&path, 1, count)?;
        table.add(Figure::new("bare SELECT, one connection", "rows/s", settings.clone()), one, None);
        let two = raw::rows_per_second(&path, 2, count)?;
        table.add(Figure::new("bare SELECT, two connections", "rows/s", settings.clone()), two, None);
        let full = full_fold(&path, count)?;
        let figure =
            Figure::new("fold of workflow_runs over every event", "events/s", format!("{settings}, one thread"));
        table.add(figure.against("bare SELECT", Floor::None), full, Some(one));

        let runs = rebuild(&path, &["workflow_runs"], count)?;
        let figure = Figure::new("rebuild workflow_runs", "events of the log/s", settings.clone());
        table.add(figure.against("fold over every event", Floor::Ratio(10.0)), runs, Some(full));
        let names = Projections::open(&path)?.names();
        let but_feed: Vec<&str> = names.into_iter().filter(|name| !OF_THE_FEED.contains(name)).collect();
        let all = rebuild(&path, &but_feed, count)?;
        let figure = Figure::new("rebuild all but the feed's", "events/s", settings.clone());
        table.add(figure.against("bare SELECT", Floor::Ratio(0.75)), all, Some(one));
        let feed = rebuild(&path, &["feed_events"], count)?;
        let figure = Figure::new("rebuild feed", "events/s", settings.clone());
        table.add(figure.against("bare SELECT", Floor::Ratio(0.125)), feed, Some(one));
        let search = rebuild(&path, &["feed_search"], count)?;
        let figure = Figure::new("rebuild feed_search", "events/s", settings.clone());
        table.add(figure.against("bare SELECT", Floor::None), search, Some(one));
        queries(&path, &settings, table)?;
    }
    Ok(())
}

/// Events of the log a second, while these read models are built anew together.
pub(crate) fn rebuild(path: &Path, names: &[&str], count: u64) -> anyhow::Result<f64> {
    let mut projections = Projections::open(path)?;
    let began = Instant::now();
    projections.rebuild_together(names, &mut |_| {})?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// The fold as it would be without an index of kinds: every event read and decoded, those of runs folded.
fn full_fold(path: &Path, count: u64) -> anyhow::Result<f64> {
    let reader = LogReader::open(path)?;
    let began = Instant::now();
    let mut states = std::collections::HashMap::new();
    let mut after = Position::START;
    while after.0 < count {
        let batch = reader.read(&EventFilter::default(), after, Position(count), 2048, Read::Facts)?;
        for event in &batch.events {
            if let KindFacts::WorkflowStart(_) = &event.facts.data {
                states.extend(WorkflowState::initial(event).map(|state| (event.stream.clone(), state)));
            } else if let Some(state) = states.get_mut(&event.stream) {
                let _ = state.evolve(event);
            }
        }
        after = batch.scanned_to;
    }
    std::hint::black_box(states.len());
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// What people and programs ask, each by a connection that is open.
fn queries(path: &Path, settings: &str, table: &mut Table) -> anyhow::Result<()> {
    let queries = Queries::open(path)?;
    let session = SessionId::new("session-7")?;
    let mut timed = |name: &str, ask: &mut dyn FnMut() -> anyhow::Result<()>| -> anyhow::Result<()> {
        let began = Instant::now();
        ask()?;
        table.add(Figure::new(name, "ms", settings), began.elapsed().as_secs_f64() * 1e3, None);
        Ok(())
    };
    timed("query: the latest 20 runs", &mut || {
        queries.runs(&RunFilter { limit: Some(20), ..RunFilter::default() })?;
        Ok(())
    })?;
    timed("query: a session's last page of the feed", &mut || {
        let filter = FeedFilter { session: Some(session.clone()), ..FeedFilter::default() };
        queries.feed(&filter, &FeedPage::Last, 50)?;
        Ok(())
    })?;
    // In three of four events; in one of a hundred; in one.
    for (name, words) in [("a common", "tests"), ("a less common", "continue"), ("a rare", "pending-0")] {
        timed(&format!("query: a session's feed, searched for {name} word"), &mut || {
            let (session, search) = (Some(session.clone()), Some(words.to_owned()));
            queries.feed(&FeedFilter { session, search, ..FeedFilter::default() }, &FeedPage::Last, 50)?;
            Ok(())
        })?;
    }
    timed("query: what waits for an answer", &mut || {
        let waiting = queries.permission_requests(&events::waiting())?;
        anyhow::ensure!(waiting.len() == PENDING, "{} requests wait, of {PENDING}", waiting.len());
        Ok(())
    })?;
    timed("query: the context of a request", &mut || events::context_of_pending(&queries))
}
