//! One run, now or as of a position: how it stands, the way it took, its time, its feed, its tokens and its tracker.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use maud::{Markup, html};
use runledger_events::words::{bytes, count, duration};
use runledger_events::{Fields, Position, RecordedEvent, RunId, RunStatus, StreamName, TimestampMs, readable};
use runledger_projections::{
    FeedCursor, FeedEvent, FeedFilter, FeedLevel, FeedPage, Iteration, PermissionRequest, Run, RunMatch, Session,
    run_at,
};
use runledger_store::{EventFilter, LogReader, Read};
use serde::Deserialize;

use crate::failure::Failure;
use crate::ledger::Opened;
use crate::pages::state_machine::{Step, way};
use crate::pages::timeline::ZOOMS;
use crate::pages::tracker::Reading;
use crate::pages::{event, feed, given, runs, state_machine, timeline, token_chart, tracker};
use crate::server::App;
use crate::show::{self, Signs};

/// Entries of the feed on a page.
const PAGE: usize = 100;
/// Entries that the timeline is drawn of, the last ones.
const DRAWN_MAX: usize = 1500;
/// Events before a position among which one can be read.
const NEAR: u64 = 100;
/// Events of a run's own that are read.
const OWN_MAX: usize = 100_000;

/// What the address says beside the run's id.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    at: String,
    q: String,
    show: String,
    before: String,
    after: String,
    zoom: String,
}

/// A run as of a moment.
struct Moment {
    run: Run,
    iterations: Vec<Iteration>,
    way: Vec<Step>,
    drawn: Vec<FeedEvent>,
    entries: Vec<FeedEvent>,
    readings: Vec<Reading>,
    sub_runs: Vec<Run>,
    /// What it asks, and nobody has answered.
    asks: Option<PermissionRequest>,
    lineage: Vec<Run>,
    /// The first position of the run, its last one so far, and the one that it is shown as of.
    first: Position,
    last: Position,
    at: Option<Position>,
    /// Where its session told something before and behind that.
    before: Option<Position>,
    behind: Option<Position>,
    /// When that was.
    moment: TimestampMs,
    session: Option<Session>,
    /// Where the pages of the feed before and behind this one end and begin.
    older: Option<String>,
    newer: Option<String>,
    /// From where on something of it cannot be read.
    left_out: Option<Position>,
}

impl Moment {
    /// Another run's page, as of the same moment.
    fn address_of(&self, run: &RunId) -> String {
        let at = self.at.map(|at| at.to_string());
        show::address(&format!("/runs/{}", show::encoded(run.as_str())), &[("at", at.as_deref())])
    }

    fn signs(&self) -> Signs {
        // A past has the time at which its events were recorded, a session that of its events.
        let session = self.session.as_ref().filter(|_| self.at.is_none());
        let silent_ms = session.map(|session| self.moment.0.saturating_sub(session.last_at.0));
        Signs { is_past: self.at.is_some(), asks: self.asks.is_some(), silent_ms }
    }
}

pub(crate) async fn serve(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Markup, Failure> {
    let wanted = asked.clone();
    let moment = app.ledger.ask(move |opened| load(opened, &id, &wanted)).await?;
    let title =
        format!("{} {}", moment.run.workflow_name.as_deref().unwrap_or("Run"), show::short_id(moment.run.id.as_str()));
    Ok(super::page(&app, &title, "/", &draw(&app, &asked, &moment)))
}

/// The one run that an id, or its beginning, fits.
pub(crate) fn one_run(opened: &Opened, id: &str) -> Result<(Run, Vec<Iteration>), Failure> {
    let next = "the list of runs is at /";
    match opened.queries.run(id)? {
        RunMatch::One(run, iterations) if !id.is_empty() => Ok((*run, iterations)),
        RunMatch::None | RunMatch::One(..) => Err(Failure::not_found(format!("there is no run {id}"), next)),
        RunMatch::Several(ids) => {
            let shown: Vec<&str> = ids.iter().take(5).map(RunId::as_str).collect();
            let next = format!("say more of it: {}{}", shown.join(", "), if ids.len() > 5 { ", …" } else { "" });
            Err(Failure::bad_request(format!("{id} fits {} runs", ids.len()), next))
        }
    }
}

fn load(opened: &Opened, id: &str, asked: &Asked) -> Result<Moment, Failure> {
    let at = Some(asked.at.trim()).filter(|at| !at.is_empty()).map(event::position_of).transpose()?;
    let (now, iterations_now) = one_run(opened, id)?;
    let lineage = opened.queries.lineage(&now)?;
    let sub_runs = opened.queries.children(&now.id)?;
    let first = now.first_position;
    let last = last_of(opened, &now)?;
    opened.read(|reader| {
        let head = reader.head()?.position;
        let (run, session) = (Some(now.id.clone()), Some(now.session_id.clone()));
        let filter = FeedFilter { run, session, ..FeedFilter::default() };
        let page = page_of(asked)?;
        let searched = asked.narrow(filter.clone())?;
        // The same questions to what is now, or to what was then.
        let (queries, run, iterations) = match at {
            None => (Some(opened.queries.clone()), now, iterations_now),
            Some(at) if at > head => return Err(event::outside(at, head)),
            Some(at) => {
                let not_begun = || {
                    let error = format!("run {} had not begun at position {at}", now.id);
                    Failure::not_found(error, format!("it begins at position {first}"))
                };
                let past = opened.past(reader, &now.session_id, at)?.map(|past| past.queries().clone());
                let found = past.as_ref().map(|then| then.run(now.id.as_str())).transpose()?;
                let (run, iterations) = match found {
                    Some(RunMatch::One(run, iterations)) => (*run, iterations),
                    // One whose events name no session is told by its own stream alone.
                    _ => run_at(reader, &now.id, at)?.ok_or_else(not_begun)?,
                };
                (past, run, iterations)
            }
        };
        let until = at.unwrap_or(head);
        let own = own_events(reader, &run.id, until)?;
        let moment = match at {
            None => show::now(),
            Some(at) => moment_of(reader, &run, at)?,
        };
        let sub_runs = match at {
            None => sub_runs,
            Some(at) => {
                let then = sub_runs.iter().map(|sub| run_at(reader, &sub.id, at));
                let then: Vec<_> = then.collect::<Result<_, _>>()?;
                then.into_iter().flatten().map(|(sub, _)| sub).collect()
            }
        };
        let (mut drawn, mut entries, mut asks, mut session): (_, Vec<FeedEvent>, _, _) = Default::default();
        if let Some(queries) = queries {
            drawn = queries.feed(&filter, &FeedPage::Last, DRAWN_MAX)?;
            entries = queries.feed(&searched, &page, PAGE + 1)?;
            asks = runs::questions(&queries, Some(run.id.clone()), moment)?.remove(&run.id);
            session = queries.session(&run.session_id)?;
        }
        // One more than is shown says that the page is not the last one.
        let is_more = entries.len() > PAGE;
        let is_onward = matches!(page, FeedPage::First | FeedPage::After(_));
        if is_more {
            entries.remove(if is_onward { PAGE } else { 0 });
        }
        let (older, newer) = match page {
            FeedPage::Last => (is_more, false),
            FeedPage::Before(_) => (is_more, true),
            FeedPage::First => (false, is_more),
            FeedPage::After(_) => (true, is_more),
        };
        Ok(Moment {
            older: entries.first().filter(|_| older).map(|entry| entry.cursor().to_string()),
            newer: entries.last().filter(|_| newer).map(|entry| entry.cursor().to_string()),
            left_out: parked(opened, &run)?,
            readings: readings(reader, &iterations)?,
            way: way(&own),
            drawn,
            entries,
            asks,
            sub_runs,
            lineage,
            first,
            last,
            before: before(reader, &run, first, at.unwrap_or(last))?,
            behind: behind(reader, &run, at.unwrap_or(last), last)?,
            at,
            moment,
            session,
            run,
            iterations,
        })
    })
}

fn page_of(asked: &Asked) -> Result<FeedPage, Failure> {
    let cursor = |text: &str| -> Result<FeedCursor, Failure> {
        text.parse()
            .map_err(|_| Failure::bad_request(format!("{text} is no place in the feed"), "go there from a page of it"))
    };
    match (asked.before.trim(), asked.after.trim()) {
        ("", "") => Ok(FeedPage::Last),
        ("", after) => Ok(FeedPage::After(cursor(after)?)),
        (before, _) => Ok(FeedPage::Before(cursor(before)?)),
    }
}

/// The last position at which something can have changed of a run: of one that goes on, its session's.
fn last_of(opened: &Opened, run: &Run) -> Result<Position, Failure> {
    if run.ended_at.is_some() {
        return Ok(run.last_position);
    }
    let session = opened.queries.session(&run.session_id)?;
    Ok(session.map_or(run.last_position, |session| session.last_position.max(run.last_position)))
}

/// Where a run, or its session, told something last before a position, from `first` on.
fn before(reader: &LogReader, run: &Run, first: Position, at: Position) -> Result<Option<Position>, Failure> {
    let until = Position(at.0.saturating_sub(1));
    let mut wide = NEAR;
    loop {
        // Between its events may stand many of other sessions, so it is looked for ever further away.
        let from = Position(until.0.saturating_sub(wide).max(first.0.saturating_sub(1)));
        let mut found = None;
        for filter in own(run) {
            let events = reader.read_readable(&filter, from, until, usize::MAX, Read::Facts)?.events;
            found = found.max(events.last().map(|event| event.position));
        }
        match found {
            None if from >= first => wide = wide.saturating_mul(4),
            found => return Ok(found),
        }
    }
}

/// Where it tells something next behind a position, up to `last`.
fn behind(reader: &LogReader, run: &Run, at: Position, last: Position) -> Result<Option<Position>, Failure> {
    let mut found: Option<Position> = None;
    for filter in own(run) {
        let events = reader.read_readable(&filter, at, last, 1, Read::Facts)?.events;
        let next = events.first().map(|event| event.position);
        found = found.into_iter().chain(next).min();
    }
    Ok(found)
}

/// What is of a run: its session's events, and its own stream's.
fn own(run: &Run) -> [EventFilter; 2] {
    let session = EventFilter { session: Some(run.session_id.clone()), ..EventFilter::default() };
    [session, EventFilter { stream: Some(StreamName::run(&run.id)), ..EventFilter::default() }]
}

/// The events of the run's own stream up to a position, without their texts.
fn own_events(reader: &LogReader, id: &RunId, until: Position) -> Result<Vec<RecordedEvent>, Failure> {
    let filter = EventFilter { stream: Some(StreamName::run(id)), ..EventFilter::default() };
    Ok(reader.read_readable(&filter, Position::START, until, OWN_MAX, Read::Facts)?.events)
}

/// From where on something of a run, or of its session, is left out because it cannot be read.
fn parked(opened: &Opened, run: &Run) -> Result<Option<Position>, Failure> {
    let own = [StreamName::run(&run.id), StreamName::session(&run.session_id)];
    let parked = opened.queries.parked()?.into_iter();
    Ok(parked.filter(|parked| own.contains(&parked.stream)).map(|parked| parked.position).min())
}

/// When the log stood at a position: by the clock that recorded the event there, as what agents tell may be of any time.
fn moment_of(reader: &LogReader, run: &Run, at: Position) -> Result<TimestampMs, Failure> {
    // An event that cannot be read has no time; the one before it has.
    let before = Position(at.0.saturating_sub(NEAR));
    let batch = reader.read_readable(&EventFilter::default(), before, at, usize::MAX, Read::Facts)?;
    let recorded = batch.events.last().map(|event| event.recorded_at);
    Ok(recorded.unwrap_or(run.started_at).max(run.started_at))
}

/// The tracker after each iteration, out of the events that ended them.
fn readings(reader: &LogReader, iterations: &[Iteration]) -> Result<Vec<Reading>, Failure> {
    let mut readings = Vec::new();
    for iteration in iterations.iter().filter(|iteration| iteration.tracker.is_some()) {
        let Some(end) = iteration.end_position else {
            continue;
        };
        let before = Position(end.0.saturating_sub(1));
        let batch = reader.read_readable(&EventFilter::default(), before, end, 1, Read::All)?;
        let json = batch.events.first().and_then(|event| event.content.json()).map(readable).unwrap_or_default();
        let text = Fields::parse(&json).ok().and_then(|fields| fields.object("data")?.text("tracker_text"));
        readings.extend(Reading::new(iteration, text));
    }
    Ok(readings)
}

/// What of the feed can be shown alone: a word for the address, words for people.
const SHOWN: [(&str, &str); 8] = [
    ("", "everything"),
    ("error", "errors"),
    ("agent", "messages"),
    ("user", "prompts"),
    ("tool", "tools"),
    ("permission", "permissions"),
    ("subagent", "subagents"),
    ("workflow", "workflow"),
];

impl Asked {
    /// The filter, narrowed down to what is to be shown of the feed.
    fn narrow(&self, filter: FeedFilter) -> Result<FeedFilter, Failure> {
        let kind = SHOWN.iter().map(|(word, _)| *word).find(|word| *word == self.show && !word.is_empty());
        Ok(FeedFilter {
            search: given(&self.q)?,
            level: (kind == Some("error")).then_some(FeedLevel::Error),
            kind: kind.filter(|kind| *kind != "error").map(str::to_owned),
            ..filter
        })
    }

    /// Whether less than the whole feed is shown.
    fn is_narrowed(&self) -> bool {
        !self.q.trim().is_empty() || !self.show.is_empty()
    }

    /// The address of the same with something else.
    fn address(&self, id: &RunId, changes: &[(&str, &str)]) -> String {
        let changes: HashMap<&str, &str> = changes.iter().copied().collect();
        let parameters = [
            ("at", &self.at),
            ("q", &self.q),
            ("show", &self.show),
            ("before", &self.before),
            ("after", &self.after),
            ("zoom", &self.zoom),
        ];
        let parameters = parameters.map(|(name, value)| (name, Some(*changes.get(name).unwrap_or(&value.as_str()))));
        show::address(&format!("/runs/{}", show::encoded(id.as_str())), &parameters)
    }

    fn zoom(&self) -> u32 {
        self.zoom.parse().ok().filter(|zoom| ZOOMS.contains(zoom)).unwrap_or(1)
    }
}

fn draw(app: &App, asked: &Asked, moment: &Moment) -> Markup {
    let run = &moment.run;
    html! {
        div .title-line data-live="title" {
            h1 { (run.workflow_name.as_deref().unwrap_or("Run")) " " span .id title=(run.id) { (show::short_id(run.id.as_str())) } }
            (show::run_status(run, moment.signs()))
        }
        (slider(asked, moment))
        div data-live="run" {
            (summary(moment))
            @if let Some(position) = moment.left_out {
                p .banner { "Something of this run cannot be read from position " a href={ "/events/" (position) } { (position) }
                    " on, and is left out here; " a href="/health" { "Health" } " says why." }
            }
            @if !app.ledger.is_read_only() { (actions(app, moment)) }
            section .panel { h2 { "States" } div .scroll { (state_machine::draw(&moment.way, run.status)) } }
            section .panel {
                div .head {
                    h2 { "Time" }
                    nav .zoom aria-label="Zoom" { @for zoom in ZOOMS {
                        a href=(asked.address(&run.id, &[("zoom", &zoom.to_string())])) aria-current=[(zoom == asked.zoom()).then_some("true")] { (zoom) "×" }
                    } }
                }
                @if moment.drawn.len() >= DRAWN_MAX { p .quiet { "The last " (count(DRAWN_MAX as u64)) " entries of the feed are drawn." } }
                a .skip-here href="#feed" { "Skip the timeline" }
                (timeline::draw(&moment.iterations, &moment.drawn, &moment.entries, run.ended_at, moment.moment, asked.zoom()))
            }
            div .columns {
                section .panel.wide #feed tabindex="-1" { (feed_panel(asked, moment)) }
                div {
                    section .panel { h2 { "Tokens" } (token_chart::draw(&moment.iterations)) }
                    section .panel { h2 { "Iterations" } (iterations(moment)) }
                    section .panel { h2 { "Tracker" } (tracker::draw(&moment.readings)) }
                }
            }
        }
    }
}

/// The slider over the log's positions, from the run's first one to the head.
fn slider(asked: &Asked, moment: &Moment) -> Markup {
    let id = &moment.run.id;
    let at = moment.at.unwrap_or(moment.last);
    let last = moment.last.max(at);
    let step = |to: Position| asked.address(id, &[("at", &to.to_string()), ("before", ""), ("after", "")]);
    html! {
        form .slider method="get" action={ "/runs/" (show::encoded(id.as_str())) } data-slider {
            label for="at" { "As of position" }
            // Without script the number alone says where to.
            input type="range" min=(moment.first) max=(last) value=(at) step="1" aria-label="As of position" hidden;
            input #at type="number" name="at" value=(at) min=(moment.first) max=(last) required inputmode="numeric" data-number;
            @for (name, value) in [("zoom", asked.zoom().to_string()), ("q", asked.q.clone()), ("show", asked.show.clone())] {
                input type="hidden" name=(name) value=(value);
            }
            button { "Show" }
            @if let Some(before) = moment.before { a rel="prev" href=(step(before)) title="One event of its session back" { "←" } }
            @if let Some(behind) = moment.behind { a rel="next" href=(step(behind)) title="One event of its session on" { "→" } }
            @match moment.at {
                Some(_) => {
                    span .then { "as it was at " (show::time(moment.moment, None)) }
                    a .now href=(asked.address(id, &[("at", ""), ("before", ""), ("after", "")])) { "Back to now" }
                }
                None => { span .quiet { "now" } }
            }
        }
    }
}

fn summary(moment: &Moment) -> Markup {
    let Moment { run, .. } = moment;
    let ended = run.ended_at.unwrap_or(moment.moment);
    let waits = runs::waits_for(run, moment.asks.as_ref(), moment.moment);
    html! {
        dl .facts {
            div { dt { "iteration" } dd { (run.iteration) " of " (run.max_iterations) @if run.retries > 0 { ", " (run.retries) " retries" } } }
            div { dt { "started" } dd { (show::time(run.started_at, None)) } }
            div { dt { @if run.ended_at.is_some() { "took" } @else { "has taken" } } dd { (duration(ended.0.saturating_sub(run.started_at.0))) } }
            div { dt { "tokens" } dd { (show::tokens(&run.tokens)) } }
            div { dt { "harness" } dd { (run.harness.as_deref().unwrap_or("–")) } }
            div { dt { "session" } dd {
                a href=(show::address("/", &[("session", Some(run.session_id.as_str()))])) { (run.session_id) }
                span .quiet { ", " (count(moment.session.as_ref().map_or(0, |session| session.events))) " events" }
            } }
            @if !waits.0.is_empty() { div { dt { @if run.status == RunStatus::Running { "waits for" } @else { "because" } } dd { (waits) } } }
            @if let Some(deadline) = run.deadline_at { div { dt { "deadline" } dd { (show::time(deadline, None)) } } }
            @if let Some(parent) = &run.parent_run_id { div { dt { "part of" } dd { a href=(moment.address_of(parent)) { (show::short_id(parent.as_str())) } } } }
            @if !moment.lineage.is_empty() { div { dt { "forked off" } dd { @for origin in &moment.lineage {
                a href=(moment.address_of(&origin.id)) { (show::short_id(origin.id.as_str())) } " "
            } @if let Some(at) = run.forked_at { span .quiet { "at " (at) } } } } }
            @if !moment.sub_runs.is_empty() { div { dt { "sub-runs" } dd { @for sub in &moment.sub_runs {
                a href=(moment.address_of(&sub.id)) { (sub.workflow_name.as_deref().unwrap_or("run")) } " " (show::run_status(sub, Signs { is_past: moment.at.is_some(), ..Signs::default() })) " "
            } } } }
        }
    }
}

fn actions(app: &App, moment: &Moment) -> Markup {
    let path = format!("/runs/{}", show::encoded(moment.run.id.as_str()));
    let at = moment.at.unwrap_or(moment.last);
    html! {
        div .actions {
            form method="post" action={ (path) "/fork" } {
                input type="hidden" name="form_word" value=(app.guard.form_word());
                input type="hidden" name="at" value=(at);
                button title="A new run that begins where this one stood" { "Fork from position " (at) }
            }
            @if moment.at.is_none() && moment.run.ended_at.is_none() {
                form method="post" action={ (path) "/cancel" } data-confirm="Cancel this run?" {
                    input type="hidden" name="form_word" value=(app.guard.form_word());
                    button .danger { "Cancel" }
                }
            }
        }
    }
}

fn feed_panel(asked: &Asked, moment: &Moment) -> Markup {
    let id = &moment.run.id;
    html! {
        div .head {
            h2 { "Feed" }
            form method="get" role="search" action={ "/runs/" (show::encoded(id.as_str())) "#feed" } {
                input type="hidden" name="at" value=(asked.at);
                input type="hidden" name="zoom" value=(asked.zoom());
                select name="show" aria-label="What of the feed" {
                    @for (word, words) in SHOWN { option value=(word) selected[word == asked.show] { (words) } }
                }
                input type="search" name="q" value=(asked.q) placeholder="words" aria-label="Words in the feed";
                button { "Search" }
            }
            @if asked.is_narrowed() { a href=(asked.address(id, &[("q", ""), ("show", ""), ("before", ""), ("after", "")])) { "Clear" } }
        }
        nav .pages {
            @if let Some(older) = &moment.older { a rel="prev" href={ (asked.address(id, &[("before", older), ("after", "")])) "#feed" } { "Older entries" } }
            @if moment.newer.is_some() || (moment.entries.is_empty() && !(asked.before.is_empty() && asked.after.is_empty())) {
                a href={ (asked.address(id, &[("after", ""), ("before", "")])) "#feed" } { "Latest entries" }
            }
            @if let Some(newer) = &moment.newer { a rel="next" href={ (asked.address(id, &[("after", newer), ("before", "")])) "#feed" } { "Newer entries" } }
        }
        (feed::list(&moment.entries, if !asked.is_narrowed() { "Nothing is told of this run yet." } else { "No entry fits." }))
    }
}

fn iterations(moment: &Moment) -> Markup {
    html! {
        @if moment.iterations.is_empty() { p .nothing { "None has begun." } } @else {
            table .iterations {
                thead { tr { th scope="col" .number { "#" } th scope="col" { "Outcome" } th scope="col" .number { "Took" } th scope="col" .number { "Tokens" } } }
                tbody { @for iteration in moment.iterations.iter().rev() {
                    @let outcome = iteration.outcome.map(|outcome| outcome.as_str());
                    tr {
                        th scope="row" .number { a href={ "/events/" (iteration.start_position) } { (iteration.iteration) } }
                        td {
                            span class={ "mark " (outcome.unwrap_or("running")) } { (outcome.unwrap_or("goes on")) }
                            @if iteration.retry.is_some() { span .quiet { " retry" } }
                            @if let Some(error) = &iteration.error { div .error { (error) } }
                            @if let Some(tracker) = &iteration.tracker { span .quiet { " tracker " (bytes(tracker.bytes)) } }
                        }
                        td .number { (duration(iteration.ended_at.unwrap_or(moment.moment).0.saturating_sub(iteration.started_at.0))) }
                        td .number { (show::tokens(&iteration.tokens)) }
                    }
                } }
            }
        }
    }
}
