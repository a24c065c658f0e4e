//! Workflow runs: the events of a run, made of its one row and of the harness sessions that began while it ran.
//!
//! A row has a number of iterations, but not when each began. A turn of the old design is one process of a harness, and
//! that tells its start (or that it was resumed): so the n-th such start within the run's time begins the n-th iteration.
//! What the row says counts: there are as many iterations as it has, whatever the harness told. A row that still says
//! `running` was left by a process that is gone; its last iteration recorded has ended, and the run is interrupted.

use runledger_events::{
    AdapterSessionId, Carried, Continuation, EventId, IterationEnd, IterationOutcome, IterationSession, IterationStart,
    KindFacts, ObjectText, RunId, RunState, RunStatus, SessionId, StreamVersion, TimestampMs, Tokens, WorkflowEnd,
    WorkflowIteration, WorkflowStart, WorkflowTransition, event_json,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::rows::WorkflowRunRow;

/// Iterations of one run, at the most: each becomes two events or more.
const ITERATIONS_MAX: i64 = 100_000;

/// One event of the session, as far as runs ask for it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// When, by a clock that never goes back.
    pub(crate) at: i64,
    pub(crate) adapter_session_id: Option<String>,
    /// For a harness session's start: whether it was taken up again.
    pub(crate) start: Option<bool>,
}

/// Before or after an event of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Where runs and iterations begin.
    Before,
    JustBefore,
    Itself,
    JustAfter,
    /// Where iterations and runs end.
    After,
    /// Behind those too.
    Last,
}

/// A place in the session's order.
pub(crate) type Place = (usize, Side);

/// A run and the events of the session that happened while it ran.
#[derive(Debug, Clone)]
pub(crate) struct Span<'a> {
    pub(crate) row: &'a WorkflowRunRow,
    pub(crate) id: RunId,
    pub(crate) status: RunStatus,
    /// The first of these events, and the one behind the last.
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Where its iterations begin, the first of them with the run.
    iterations: Vec<usize>,
    /// The same, and the end of the last one.
    bounds: Vec<usize>,
}

/// One event of a run.
pub(crate) struct RunEvent {
    pub(crate) place: Place,
    pub(crate) id: EventId,
    pub(crate) json: String,
}

/// What stands beside the facts in an imported run's events.
#[derive(Serialize)]
struct Content<'a> {
    imported: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_dir: Option<&'a str>,
}

/// Why a row cannot become a run.
pub(crate) type Cause = String;

impl<'a> Span<'a> {
    /// The span of a run, which ends before `next` begins where its own end is not known.
    pub(crate) fn new(row: &'a WorkflowRunRow, next: Option<&WorkflowRunRow>, seen: &[Seen]) -> Result<Self, Cause> {
        let status = RunStatus::parse(&row.status)
            .filter(|status| *status != RunStatus::Interrupted)
            .ok_or_else(|| format!("no status of a run: {}", row.status))?;
        if !(0..=ITERATIONS_MAX).contains(&row.iteration) {
            return Err(format!("{} iterations; from 0 to {ITERATIONS_MAX} are taken", row.iteration));
        }
        let from = seen.partition_point(|event| event.at < row.started_at);
        let to = match (row.ended_at, next) {
            (Some(ended_at), _) => seen.partition_point(|event| event.at <= ended_at),
            (None, Some(next)) => seen.partition_point(|event| event.at < next.started_at),
            (None, None) => seen.len(),
        };
        let to = to.max(from);
        let starts: Vec<usize> = (from..to).filter(|index| seen[*index].start.is_some()).collect();
        let count = usize::try_from(row.iteration).unwrap_or(0);
        let mut bounds: Vec<usize> = starts.iter().copied().skip(1).chain(std::iter::repeat(to)).take(count).collect();
        // The run's end is that of its last iteration; a turn beyond those of a row that runs on is in none of them.
        if let Some(last) = bounds.last_mut().filter(|_| status != RunStatus::Running) {
            *last = to;
        }
        let mut iterations: Vec<usize> = bounds.iter().copied().take(count.saturating_sub(1)).collect();
        if count > 0 {
            iterations.insert(0, from);
        }
        let id = RunId::new(row.id.as_str()).map_err(|error| error.to_string())?;
        Ok(Self { row, id, status, from, to, iterations, bounds })
    }

    /// The events of the session that each iteration has.
    pub(crate) fn iterations(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.iterations.iter().zip(&self.bounds).map(|(from, to)| *from..*to)
    }

    /// When the run ended, or was left.
    fn left_at(&self, seen: &[Seen]) -> i64 {
        let last = self.to.checked_sub(1).filter(|last| *last >= self.from).map(|last| seen[last].at);
        self.row.ended_at.or(last).unwrap_or(self.row.started_at)
    }
}

/// How far the ledger knows a run that is imported again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Events of its stream.
    pub(crate) version: StreamVersion,
    /// For a run that was interrupted and went on: its iterations. Without them there is nothing to add.
    pub(crate) goes_on_after: Option<u32>,
}

/// The events of a run, in order, from where the ledger knows it on. `tokens` has what each iteration cost, where that
/// can be told.
pub(crate) fn events(
    span: &Span<'_>,
    session: &SessionId,
    project_dir: &str,
    seen: &[Seen],
    tokens: &[Tokens],
    goes_on_after: Option<u32>,
) -> Result<Vec<RunEvent>, Cause> {
    let mut writer = Writer { events: Vec::new(), project_dir: None };
    let mut state = RunState::Starting;
    match goes_on_after {
        None => {
            let begin = (span.from, Side::Before);
            let row = span.row;
            writer.project_dir = Some(project_dir);
            writer.write("start", begin, row.started_at, &start(span, session)?, None)?;
            writer.project_dir = None;
            if row.iteration > 0 {
                let facts = transition(state, RunState::Running, RunStatus::Running, None);
                writer.write("running", begin, row.started_at, &facts, None)?;
                state = RunState::Running;
            }
        }
        Some(known) => {
            resume(&mut writer, span, known, seen)?;
            state = RunState::Running;
        }
    }
    let known = usize::try_from(goes_on_after.unwrap_or_default()).unwrap_or(usize::MAX);
    for (index, range) in span.iterations().enumerate().skip(known) {
        iteration(&mut writer, span, index, range, seen, tokens.get(index).copied().unwrap_or_default())?;
    }
    end(&mut writer, span, state, seen)?;
    Ok(writer.events)
}

/// The run went on after all: what leads from its interruption to its next iteration, or its end.
fn resume(writer: &mut Writer<'_>, span: &Span<'_>, known: u32, seen: &[Seen]) -> Result<(), Cause> {
    let next = span.iterations.get(usize::try_from(known).unwrap_or(usize::MAX)).copied();
    let place = next.map_or_else(|| end_place(span.to), |next| (next, Side::Before));
    let at = next.and_then(|next| seen.get(next)).map_or_else(|| span.left_at(seen), |event| event.at);
    let reason = "imported again; it went on after the first time";
    let facts = transition(RunState::Idle, RunState::Starting, RunStatus::Running, Some(reason));
    writer.write(&format!("resumed-{known}"), place, at, &facts, None)?;
    let facts = transition(RunState::Starting, RunState::Running, RunStatus::Running, None);
    writer.write(&format!("resumed-{known}-running"), place, at, &facts, None)
}

fn start(span: &Span<'_>, session: &SessionId) -> Result<KindFacts, Cause> {
    let max_iterations = u32::try_from(span.row.max_iterations)
        .map_err(|_| format!("{} is no limit of iterations", span.row.max_iterations))?;
    Ok(KindFacts::WorkflowStart(Box::new(WorkflowStart {
        run_id: span.id.clone(),
        session_id: session.clone(),
        workflow_name: span.row.workflow_name.clone(),
        harness: None,
        max_iterations,
        tracker_path: span.row.tracker_path.clone(),
        parent_run_id: None,
        forked_at: None,
        attempt: 1,
        deadline_at: None,
        // Nobody drives it here.
        owner: None,
        forked_from: None,
        iteration: 0,
        policy: None,
    })))
}

fn transition(from: RunState, to: RunState, status: RunStatus, reason: Option<&str>) -> KindFacts {
    KindFacts::WorkflowTransition(WorkflowTransition {
        from,
        to,
        status,
        reason: reason.map(str::to_owned),
        owner: None,
    })
}

/// One iteration: its start, the harness sessions that it used, its end.
fn iteration(
    writer: &mut Writer<'_>,
    span: &Span<'_>,
    index: usize,
    range: std::ops::Range<usize>,
    seen: &[Seen],
    tokens: Tokens,
) -> Result<(), Cause> {
    let number = u32::try_from(index + 1).map_err(|error| error.to_string())?;
    // An iteration that no harness told of has no place of its own: it stands where the run ends.
    let is_told = !range.is_empty();
    let place = if index == 0 { (span.from, Side::Before) } else { (range.start, Side::Before) };
    let place = if is_told || index == 0 { place } else { end_place(span.to) };
    let at = match index {
        0 => span.row.started_at,
        _ if is_told => seen[range.start].at,
        _ => span.left_at(seen),
    };
    let adapters = adapter_sessions(&seen[range.clone()])?;
    let is_resumed = seen[range.clone()].iter().find_map(|event| event.start).unwrap_or(false);
    let continuation = match adapters.first().filter(|_| is_resumed) {
        Some(handle) => Continuation::Resume { handle: handle.to_string() },
        None => Continuation::Fresh,
    };
    let facts = KindFacts::WorkflowIteration(WorkflowIteration::Start(IterationStart {
        iteration: number,
        continuation,
        retry: None,
        carried: Carried::default(),
    }));
    writer.write(&format!("iteration-{number}"), place, at, &facts, None)?;

    name_sessions(writer, number, range.clone(), &adapters, seen)?;

    let is_last = index + 1 == span.iterations.len();
    let outcome = match span.status {
        RunStatus::Completed if is_last => IterationOutcome::Completed,
        RunStatus::Blocked if is_last => IterationOutcome::Blocked,
        RunStatus::Failed if is_last => IterationOutcome::Failed,
        RunStatus::Cancelled if is_last => IterationOutcome::Cancelled,
        _ => IterationOutcome::Continue,
    };
    let at = match range.end.checked_sub(1).filter(|last| is_told && *last >= range.start) {
        Some(last) if !is_last || span.status == RunStatus::Running => seen[last].at,
        _ => span.left_at(seen),
    };
    let facts = KindFacts::WorkflowIteration(WorkflowIteration::End(IterationEnd {
        iteration: number,
        outcome,
        exit_code: None,
        error: None,
        tokens,
        tracker: None,
        adapter_session_id: adapters.last().cloned(),
        retry: None,
    }));
    let place = end_place(if is_told { range.end } else { span.to });
    writer.write(&format!("iteration-{number}-end"), place, at, &facts, None)
}

/// The harness sessions that an iteration used, each where its first event is.
fn name_sessions(
    writer: &mut Writer<'_>,
    iteration: u32,
    mut range: std::ops::Range<usize>,
    adapters: &[AdapterSessionId],
    seen: &[Seen],
) -> Result<(), Cause> {
    for (nth, adapter_session_id) in adapters.iter().enumerate() {
        // They are in the order of their first events.
        let is_of_it = |at: &usize| seen[*at].adapter_session_id.as_deref() == Some(adapter_session_id.as_str());
        let Some(first) = range.find(is_of_it) else {
            continue;
        };
        let session = IterationSession { iteration, adapter_session_id: adapter_session_id.clone() };
        let facts = KindFacts::WorkflowIteration(WorkflowIteration::Session(session));
        let id = format!("iteration-{iteration}-session-{}", nth + 1);
        writer.write(&id, (first, Side::JustBefore), seen[first].at, &facts, None)?;
    }
    Ok(())
}

/// The run's end, or that it was left.
fn end(writer: &mut Writer<'_>, span: &Span<'_>, from: RunState, seen: &[Seen]) -> Result<(), Cause> {
    let at = span.left_at(seen);
    let place = end_place(span.to);
    let row = Some(span.row.row.as_str());
    if span.status == RunStatus::Running {
        let reason = "imported as running; the process that drove it is gone";
        let facts = transition(from, RunState::Idle, RunStatus::Interrupted, Some(reason));
        return writer.write(&format!("interrupted-{}", span.row.iteration), place, at, &facts, row);
    }
    let facts = transition(from, RunState::Completing, RunStatus::Running, None);
    writer.write("completing", place, at, &facts, None)?;
    let facts = KindFacts::WorkflowEnd(WorkflowEnd {
        status: span.status,
        stop_reason: span.row.stop_reason.clone(),
        iteration: u32::try_from(span.row.iteration).map_err(|error| error.to_string())?,
    });
    writer.write("end", place, at, &facts, row)
}

/// Behind the last event before this index.
fn end_place(behind: usize) -> Place {
    match behind.checked_sub(1) {
        Some(last) => (last, Side::After),
        None => (0, Side::Before),
    }
}

/// The harness sessions of these events, in the order of their appearance.
fn adapter_sessions(seen: &[Seen]) -> Result<Vec<AdapterSessionId>, Cause> {
    let mut found: Vec<AdapterSessionId> = Vec::new();
    for id in seen.iter().filter_map(|event| event.adapter_session_id.as_deref()) {
        if found.last().map(AdapterSessionId::as_str) != Some(id) && found.iter().all(|known| known.as_str() != id) {
            found.push(AdapterSessionId::new(id).map_err(|error| error.to_string())?);
        }
    }
    Ok(found)
}

/// Writes a run's events; none stands before the one written last.
struct Writer<'a> {
    events: Vec<RunEvent>,
    project_dir: Option<&'a str>,
}

impl Writer<'_> {
    /// Writes an event; with `row`, the old row that it comes from stands in it.
    fn write(&mut self, what: &str, place: Place, at: i64, facts: &KindFacts, row: Option<&str>) -> Result<(), Cause> {
        let place = self.events.last().map_or(place, |last| last.place.max(place));
        let failed = |error: &dyn ToString| error.to_string();
        let id = EventId::new(format!("import:{what}")).map_err(|error| failed(&error))?;
        let imported = ObjectText::new().text("table", "workflow_runs").raw("row", row).finish();
        let imported = RawValue::from_string(imported).map_err(|error| failed(&error))?;
        let content = Content { imported: &imported, project_dir: self.project_dir };
        let json = event_json(&id, TimestampMs(at), facts, &content).map_err(|error| failed(&error))?;
        self.events.push(RunEvent { place, id, json });
        Ok(())
    }
}
