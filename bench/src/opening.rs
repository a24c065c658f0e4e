//! Opening a session of 50,000 events, by handles that are new: what reads it, and what goes on folding it.

use std::path::Path;
use std::time::Instant;

use runledger_events::SessionId;
use runledger_projections::{FeedFilter, FeedPage, Projections, Queries, projections_path};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, SqliteLog, StreamAppend};

use crate::Context;
use crate::events::{checkpoint, event, make_log_of, mixed, session};
use crate::figure::Figure;
use crate::table::{Table, median};

const EVENTS: u64 = 50_000;
/// Sessions beside it, each of one event.
const OTHERS: u64 = 5_000;
/// Openings in one repetition, of which the median counts.
const OPENINGS: u64 = 5;
/// The most that one may take.
const MS_MAX: f64 = 5.0;

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(&context.dir)?;
    let path = folder.path().join("ledger.db");
    let log = make_log_of(&path, EVENTS, 1)?;
    for others in (1..=OTHERS).collect::<Vec<_>>().chunks(500) {
        let event_of = |number: &u64| {
            let (stream, metadata) = session(*number)?;
            let events = vec![NewEvent::new(event(*number)?, metadata)?];
            Ok(StreamAppend { stream, expected: ExpectedVersion::Any, events })
        };
        log.append_all(others.iter().map(event_of).collect::<anyhow::Result<_>>()?)?;
    }
    drop(log);
    Projections::open(&path)?.catch_up()?;
    checkpoint(&path)?;
    checkpoint(&projections_path(&path))?;
    let settings = format!("session of {EVENTS} events beside {OTHERS}, new handles, {OPENINGS} openings");
    let mut next = EVENTS;
    for _ in 0..context.repetitions {
        let (mut read, mut taken_up) = (Vec::new(), Vec::new());
        for _ in 0..OPENINGS {
            read.push(read_side(&path)?);
            next += 1;
            taken_up.push(mapper_side(&path, next)?);
        }
        let figure = Figure::new("open a session: its row and last page", "ms", settings.clone());
        table.add(figure.at_most(MS_MAX), median(&read), None);
        let figure = Figure::new("open a session: its mapper state, one event folded", "ms", settings.clone());
        table.add(figure.at_most(MS_MAX), median(&taken_up), None);
    }
    Ok(())
}

/// Milliseconds until the session's row and the last page of its feed are there.
fn read_side(ledger: &Path) -> anyhow::Result<f64> {
    let session = SessionId::new("session-0")?;
    let began = Instant::now();
    let queries = Queries::open(ledger)?;
    anyhow::ensure!(queries.session(&session)?.is_some(), "the session is not there");
    let filter = FeedFilter { session: Some(session), ..FeedFilter::default() };
    let page = queries.feed(&filter, &FeedPage::Last, 50)?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(page.len() == 50, "the page has {} entries", page.len());
    Ok(took)
}

/// Milliseconds until a new event of the session is in every read model, its mapper state taken up for it.
fn mapper_side(ledger: &Path, number: u64) -> anyhow::Result<f64> {
    let log = SqliteLog::open(ledger)?;
    log.append_all(vec![mixed(number, 1)?])?;
    let began = Instant::now();
    let mut projections = Projections::open(ledger)?;
    projections.catch_up()?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
