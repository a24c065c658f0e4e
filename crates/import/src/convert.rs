//! All rows of a database as events, in their order of time, each with its stream and what it belongs to.
//!
//! The order is that of the session's own events (`sequence.rs`); events of runs and the import's own stand between them
//! by their time. One clock that never goes back decides: hooks of one moment may arrive in any order.

use std::collections::{HashMap, HashSet};

use runledger_events::{
    AdapterSessionId, EventId, Fields, KindFacts, Metadata, ObjectText, RunId, RuntimeEvent, SessionId, StreamName,
    StreamVersion, Tokens, quoted, readable,
};
use runledger_store::{ExpectedVersion, NewEvent, StreamAppend};

use crate::database::OldDatabase;
use crate::error::ImportError;
use crate::hooks::kind_and_data;
use crate::json::with_fields;
use crate::notes::{self, Note};
use crate::rows::{FeedRow, RuntimeRow};
use crate::runs::{self, Known, Place, Seen, Side, Span};
use crate::sequence::{Item, Told, sequence};

/// An event with its place.
struct Planned {
    place: Place,
    stream: StreamName,
    event: NewEvent,
}

/// An error without the file.
struct Problem {
    table: &'static str,
    row: String,
    cause: String,
}

impl Problem {
    fn new(table: &'static str, row: &str, cause: impl ToString) -> Self {
        let row = if row.is_empty() { "''" } else { row };
        Self { table, row: row.to_owned(), cause: cause.to_string() }
    }
}

/// The events of `database`, for the ledger session `session`, in the order of the log; of the runs in `known` only
/// what the ledger does not have yet.
///
/// # Errors
/// [`ImportError::Row`] for the first row that cannot become an event.
pub(crate) fn convert(
    database: &OldDatabase,
    session: &SessionId,
    known: &HashMap<RunId, Known>,
) -> Result<Vec<StreamAppend>, ImportError> {
    let refused = |problem: Problem| ImportError::Row {
        file: database.file.clone(),
        table: problem.table.to_owned(),
        row: problem.row,
        cause: problem.cause,
    };
    let mut planned = plan(database, session, known).map_err(refused)?;
    planned.sort_by_key(|planned| planned.place);
    Ok(appends(planned, known))
}

/// Events of one stream that stand together are one append; those of a run expect all that were before.
fn appends(planned: Vec<Planned>, known: &HashMap<RunId, Known>) -> Vec<StreamAppend> {
    let mut versions: HashMap<StreamName, u64> =
        known.iter().map(|(run_id, known)| (StreamName::run(run_id), known.version.0)).collect();
    let mut appends: Vec<StreamAppend> = Vec::new();
    for Planned { stream, event, .. } in planned {
        let version = versions.entry(stream.clone()).or_default();
        match appends.last_mut().filter(|last| last.stream == stream) {
            Some(last) => last.events.push(event),
            None => {
                let expected = match (stream.run_id(), *version) {
                    (None, _) => ExpectedVersion::Any,
                    (Some(_), 0) => ExpectedVersion::NoStream,
                    (Some(_), version) => ExpectedVersion::Exact(StreamVersion(version)),
                };
                appends.push(StreamAppend { stream, expected, events: vec![event] });
            }
        }
        *version += 1;
    }
    appends
}

fn plan(database: &OldDatabase, session: &SessionId, known: &HashMap<RunId, Known>) -> Result<Vec<Planned>, Problem> {
    let items = sequence(database);
    let events = items.iter().map(runtime_event).collect::<Result<Vec<_>, _>>()?;
    let seen = seen(&items, &events);
    let spans = spans(database, &seen)?;
    let stream = StreamName::session(session);
    let mut planned = Vec::new();
    for (index, (item, event)) in items.iter().zip(events).enumerate() {
        let id = EventId::new(item.id.as_str()).map_err(|error| problem_of(item, error))?;
        let run = spans.iter().rfind(|span| (span.from..span.to).contains(&index));
        let causation_id = match &event.facts().data {
            KindFacts::Decision(decision) => Some(decision.event_id.clone()),
            _ => None,
        };
        let metadata = Metadata {
            causation_id,
            session_id: Some(session.clone()),
            run_id: run.map(|span| span.id.clone()),
            ..Metadata::default()
        };
        let event = NewEvent::new(event, metadata).map_err(|error| problem_of(item, error))?.with_id(id);
        planned.push(Planned { place: (index, Side::Itself), stream: stream.clone(), event });
    }
    plan_notes(database, session, &seen, &mut planned)?;
    plan_runs(database, session, &seen, &spans, known, &mut planned)?;
    Ok(planned)
}

fn problem_of(item: &Item<'_>, cause: impl ToString) -> Problem {
    match &item.told {
        Told::Runtime(row) => Problem::new("runtime_events", &row.id, cause),
        Told::Lost { shown: row, .. } | Told::Decision { row, .. } | Told::Feed(row) => {
            Problem::new("feed_events", &row.event_id, cause)
        }
    }
}

/// The RuntimeEvent of an item.
fn runtime_event(item: &Item<'_>) -> Result<RuntimeEvent, Problem> {
    let failed = |cause: &dyn ToString| problem_of(item, cause.to_string());
    let json = match &item.told {
        Told::Runtime(row) => completed(row).map_err(|cause| failed(&cause))?,
        Told::Lost { shown, all } => lost(shown, all).map_err(|error| failed(&error))?,
        Told::Decision { row, on, decision } => {
            let data = ObjectText::new().text("eventId", on.as_str()).raw("decision", decision.as_str()).finish();
            kept(&item.id, row, "decision", Some(&data)).map_err(|error| failed(&error))?
        }
        Told::Feed(row) => kept(&item.id, row, &row.kind, None).map_err(|error| failed(&error))?,
    };
    let event = RuntimeEvent::from_json(&json).map_err(|error| failed(&error))?;
    if event.kind().is_workflow() {
        return Err(failed(&format!("{} belongs to a run's own stream", event.kind())));
    }
    Ok(event)
}

/// The payload of a row, its text unchanged. What an event needs and the text lacks is added at its end.
fn completed(row: &RuntimeRow) -> Result<String, String> {
    let text = readable(&row.payload);
    let event = Fields::parse(&text).map_err(|error| format!("column payload is no JSON object: {error}"))?;
    let mut more = Vec::new();
    if event.raw("id").is_none() {
        more.push(("id", quoted(&row.id)));
    }
    if event.raw("timestamp").is_none() {
        more.push(("timestamp", row.timestamp.to_string()));
    }
    if event.raw("kind").is_none() {
        let (kind, data) = kind_and_data(&row.hook_name, &event);
        more.push(("kind", quoted(kind)));
        if event.raw("data").is_none() {
            more.push(("data", data));
        }
    }
    if let Some(id) = row.adapter_session_id.as_deref().filter(|_| event.raw("sessionId").is_none()) {
        more.push(("sessionId", quoted(id)));
    }
    Ok(with_fields(&row.payload, &more))
}

/// What an event says of the feed events that it comes from: all of their text.
fn imported(rows: &[&FeedRow]) -> String {
    let feed_events: Vec<&str> = rows.iter().map(|row| row.data.trim()).collect();
    let feed_events = format!("[{}]", feed_events.join(","));
    ObjectText::new().text("table", "feed_events").raw("feed_events", feed_events.as_str()).finish()
}

/// A runtime event whose row is not there, made of what its feed events say; they are kept in it.
fn lost(shown: &FeedRow, all: &[&FeedRow]) -> Result<String, serde_json::Error> {
    let text = readable(&shown.data);
    let feed_event = Fields::parse(&text)?;
    let raw = feed_event.object("raw").unwrap_or_default();
    let cause = feed_event.object("cause").unwrap_or_default();
    let context = ObjectText::new()
        .raw("cwd", raw.raw("cwd"))
        .raw("transcriptPath", cause.raw("transcript_path"))
        .raw("permissionMode", raw.raw("permission_mode"));
    let json = ObjectText::new()
        .text("id", shown.runtime_event_id.as_deref().unwrap_or(&shown.event_id))
        .raw("timestamp", shown.timestamp.to_string().as_str())
        .text("kind", shown.kind.as_str())
        .raw("data", feed_event.raw("data").unwrap_or("{}"))
        .raw("hookName", raw.raw("hook_event_name"))
        .raw("sessionId", feed_event.raw("session_id"))
        .raw("context", context.finish().as_str())
        .raw("payload", feed_event.raw("raw"))
        .raw("imported", imported(all).as_str());
    Ok(json.finish())
}

/// A feed event that is kept in an event of the import; without `data`, its own.
fn kept(id: &str, row: &FeedRow, kind: &str, data: Option<&str>) -> Result<String, serde_json::Error> {
    let text = readable(&row.data);
    let feed_event = Fields::parse(&text)?;
    let json = ObjectText::new()
        .text("id", id)
        .raw("timestamp", row.timestamp.to_string().as_str())
        .text("kind", kind)
        .raw("sessionId", feed_event.raw("session_id"))
        .raw("data", data.or(feed_event.raw("data")).unwrap_or("{}"))
        .raw("imported", imported(&[row]).as_str());
    Ok(json.finish())
}

/// What runs need to know of each event.
fn seen(items: &[Item<'_>], events: &[RuntimeEvent]) -> Vec<Seen> {
    let mut clock = i64::MIN;
    let seen_one = |(item, event): (&Item<'_>, &RuntimeEvent)| {
        clock = clock.max(item.at);
        let start = match &event.facts().data {
            KindFacts::SessionStart { source, .. } => match source.as_deref() {
                // The same process goes on, in a session that was emptied.
                Some("clear" | "compact") => None,
                source => Some(source == Some("resume")),
            },
            _ => None,
        };
        let adapter_session_id = event.adapter_session_id().map(|id| id.as_str().to_owned());
        Seen { at: clock, adapter_session_id, start }
    };
    items.iter().zip(events).map(seen_one).collect()
}

fn spans<'a>(database: &'a OldDatabase, seen: &[Seen]) -> Result<Vec<Span<'a>>, Problem> {
    let rows = &database.workflow_runs;
    let span = |(index, row)| {
        Span::new(row, rows.get(index + 1), seen).map_err(|cause| Problem::new("workflow_runs", &row.id, cause))
    };
    rows.iter().enumerate().map(span).collect()
}

fn plan_notes(
    database: &OldDatabase,
    session: &SessionId,
    seen: &[Seen],
    planned: &mut Vec<Planned>,
) -> Result<(), Problem> {
    let stream = StreamName::session(session);
    let mut add = |place: Place, note: Note, table: &'static str, row: &str| {
        let failed = |error: &dyn ToString| Problem::new(table, row, error.to_string());
        let event = RuntimeEvent::from_json(&note.json).map_err(|error| failed(&error))?;
        let adapter_session_id =
            note.adapter_session_id.map(AdapterSessionId::new).transpose().map_err(|error| failed(&error))?;
        let metadata = Metadata { session_id: Some(session.clone()), adapter_session_id, ..Metadata::default() };
        let event = NewEvent::new(event, metadata).map_err(|error| failed(&error))?;
        planned.push(Planned { place, stream: stream.clone(), event });
        Ok(())
    };
    let last = seen.partition_point(|event| event.at <= database.session.updated_at).saturating_sub(1);
    let end = (last, Side::JustAfter);
    let mut used: HashMap<&str, (usize, usize)> = HashMap::new();
    for (index, event) in seen.iter().enumerate() {
        if let Some(id) = event.adapter_session_id.as_deref() {
            used.entry(id).or_insert((index, index)).1 = index;
        }
    }
    add((0, Side::Before), notes::session(database), "session", &database.session.id)?;
    for row in &database.adapter_sessions {
        let by_time = seen.partition_point(|event| event.at < row.started_at);
        let (first, last) = used.get(row.session_id.as_str()).copied().unwrap_or((by_time, by_time));
        add((first, Side::JustBefore), notes::adapter_session(row), "adapter_sessions", &row.session_id)?;
        let at = seen.get(last).map_or(row.started_at, |event| event.at.max(row.started_at));
        if let Some(note) = notes::usage(row, at) {
            add((last, Side::Last), note, "adapter_sessions", &row.session_id)?;
        }
    }
    for row in &database.others {
        add(end, notes::other(row, database.session.updated_at), "a gateway table", &row.table)?;
    }
    for note in notes::session_end(database) {
        add(end, note, "session", &database.session.id)?;
    }
    Ok(())
}

fn plan_runs(
    database: &OldDatabase,
    session: &SessionId,
    seen: &[Seen],
    spans: &[Span<'_>],
    known: &HashMap<RunId, Known>,
    planned: &mut Vec<Planned>,
) -> Result<(), Problem> {
    let costs = Costs::new(database, seen, spans);
    for span in spans {
        let goes_on_after = match known.get(&span.id) {
            None => None,
            Some(Known { goes_on_after: None, .. }) => continue,
            Some(known) => known.goes_on_after,
        };
        let failed = |error: &dyn ToString| Problem::new("workflow_runs", &span.row.id, error.to_string());
        // The figures of a run that goes on may be in the ledger already, and would be counted on top of those.
        let cost = |range: std::ops::Range<usize>| match goes_on_after {
            None => costs.of(&seen[range]),
            Some(_) => Tokens::default(),
        };
        let tokens: Vec<Tokens> = span.iterations().map(cost).collect();
        let events = runs::events(span, session, &database.session.project_dir, seen, &tokens, goes_on_after)
            .map_err(|cause| failed(&cause))?;
        for event in events {
            let metadata =
                Metadata { session_id: Some(session.clone()), run_id: Some(span.id.clone()), ..Metadata::default() };
            let told = RuntimeEvent::from_json(&event.json).map_err(|error| failed(&error))?;
            let new = NewEvent::new(told, metadata).map_err(|error| failed(&error))?.with_id(event.id);
            planned.push(Planned { place: event.place, stream: StreamName::run(&span.id), event: new });
        }
    }
    Ok(())
}

/// What harness sessions cost, for those that one iteration of one run used alone: only then is it that iteration's.
struct Costs<'a>(HashMap<&'a str, Tokens>);

impl<'a> Costs<'a> {
    fn new(database: &'a OldDatabase, seen: &[Seen], spans: &[Span<'_>]) -> Self {
        let mut uses: HashMap<&str, usize> = HashMap::new();
        let mut in_iterations = vec![false; seen.len()];
        for range in spans.iter().flat_map(Span::iterations) {
            let used: HashSet<&str> = seen[range.clone()].iter().filter_map(Self::adapter).collect();
            for adapter in used {
                *uses.entry(adapter).or_default() += 1;
            }
            in_iterations[range].fill(true);
        }
        for (event, _) in seen.iter().zip(in_iterations).filter(|(_, is_in)| !is_in) {
            // Used outside of any iteration too.
            uses.extend(Self::adapter(event).map(|adapter| (adapter, usize::MAX)));
        }
        let is_used_once = |id: &str| uses.get(id) == Some(&1);
        let rows = database.adapter_sessions.iter().filter(|row| is_used_once(&row.session_id));
        Self(rows.map(|row| (row.session_id.as_str(), notes::tokens(row))).collect())
    }

    fn adapter(event: &Seen) -> Option<&str> {
        event.adapter_session_id.as_deref()
    }

    /// What an iteration with these events cost; unknown where several harness sessions took part.
    fn of(&self, seen: &[Seen]) -> Tokens {
        let used: HashSet<&str> = seen.iter().filter_map(Self::adapter).collect();
        let mut used = used.into_iter();
        match (used.next(), used.next()) {
            (Some(adapter), None) => self.0.get(adapter).copied().unwrap_or_default(),
            _ => Tokens::default(),
        }
    }
}
