//! Forks: a new run that begins where another one stood, in a session of its own. The other one stays as it is.

use std::path::{Path, PathBuf};

use runledger_events::{
    Fields, IterationEnd, KindFacts, Metadata, Position, RecordedEvent, RunId, RunState, RunStatus, RuntimeEvent,
    SessionId, StreamName, StreamVersion, WorkflowIteration, WorkflowStart, WorkflowState, WorkflowTransition,
    event_json, readable,
};
use runledger_store::{AppendError, EventFilter, ExpectedVersion, NewEvent, Read, ReadError, Receipt, create_private};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Commands;
use crate::config::WorkflowConfig;
use crate::decide::Extra;
use crate::desk::{new_id, now};
use crate::error::{ConfigError, ForkError};
use crate::instructions::substitute;
use crate::owner::current_owner;
use crate::paths;

/// Where a run is forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkPoint {
    /// As it stood at this position of the log.
    Position(Position),
    /// As this iteration left it.
    Iteration(u32),
}

/// A run that was forked off. Nobody drives it yet: it is to be resumed.
#[derive(Debug, Clone)]
pub struct Forked {
    /// The new run.
    pub run_id: RunId,
    /// Its session.
    pub session_id: SessionId,
    /// Where the other run stood.
    pub forked_at: Position,
    /// Iterations that it takes over.
    pub iteration: u32,
    /// Its tracker, where one was written.
    pub tracker: Option<PathBuf>,
    /// Its events.
    pub receipts: Vec<Receipt>,
}

/// What of the other run's first event is told again.
struct Origin {
    start: WorkflowStart,
    json: String,
}

impl Commands {
    /// Begins a new run where `run_id` stood at a point, and writes its tracker as it was then.
    ///
    /// Of the project's files the tracker alone is brought back. Decisions that held for the other run do not hold for the
    /// new one, and no deadline does.
    ///
    /// # Errors
    /// [`ForkError`]: nothing was appended, and no file is left.
    pub fn fork(&self, run_id: &RunId, point: ForkPoint) -> Result<Forked, ForkError> {
        let events = self.reader.read_stream(&StreamName::run(run_id), StreamVersion::EMPTY, Read::Facts)?;
        let Some((now_state, _)) = WorkflowState::fold(&events) else {
            return Err(ForkError::Unknown { run_id: run_id.clone() });
        };
        let forked_at = self.resolve(&now_state, &events, point)?;
        let until: Vec<RecordedEvent> =
            events.iter().take_while(|event| event.position <= forked_at).cloned().collect();
        let outside = || ForkError::Outside { run_id: run_id.clone(), point: forked_at, begins: events[0].position };
        let (state, _) = WorkflowState::fold(&until).ok_or_else(outside)?;
        // An iteration that was open then is begun anew.
        let has_open = state.iteration_is_open || state.iteration_was_cut;
        let iteration = state.iteration - u32::from(has_open);
        let is_open_retry = has_open && state.last_end.as_ref().is_some_and(|end| end.retry.is_some());
        let retries = state.carried.retries - u32::from(is_open_retry);

        let origin = self.origin(run_id, &events[0])?;
        let text = readable(&origin.json);
        let erased = || ForkError::Erased { run_id: run_id.clone(), what: "its first event" };
        let data = Fields::parse(&text).ok().and_then(|fields| fields.object("data")).ok_or_else(erased)?;
        let project_dir = PathBuf::from(data.text("project_dir").ok_or_else(erased)?);
        let workflow = data.raw("workflow").map(WorkflowConfig::parse).transpose().map_err(|_| erased())?;

        let new_run = RunId::new(Uuid::now_v7().to_string())?;
        let session_id = SessionId::new(Uuid::now_v7().to_string())?;
        let tracker_path = match workflow.as_ref().and_then(WorkflowConfig::active_loop) {
            None => None,
            Some(config) => {
                let path = substitute(&config.tracker_path, session_id.as_str(), None);
                if Some(&path) == state.tracker_path.as_ref() {
                    return Err(ForkError::SharedTracker { run_id: run_id.clone(), path });
                }
                Some(path)
            }
        };
        let tracker_text = match &tracker_path {
            Some(_) => self.tracker_at(run_id, &events, forked_at)?,
            None => None,
        };

        let start = WorkflowStart {
            run_id: new_run.clone(),
            session_id: session_id.clone(),
            // Retries of the other run are no iterations of its limit, but they have numbers.
            max_iterations: origin.start.max_iterations.saturating_add(retries),
            tracker_path: tracker_path.clone(),
            parent_run_id: None,
            forked_at: Some(forked_at),
            attempt: origin.start.attempt.saturating_add(1),
            deadline_at: None,
            // Nobody drives it yet; but this log is where it is to be driven.
            owner: Some(current_owner(1, self.log.log_id().clone())),
            forked_from: Some(run_id.clone()),
            iteration,
            ..origin.start
        };
        let events = fork_events(start, &data)?;
        let written = match (&tracker_path, tracker_text) {
            (Some(path), Some(text)) => Some(write_tracker(&project_dir, path, &text)?),
            _ => None,
        };
        match self.log.append(&StreamName::run(&new_run), ExpectedVersion::NoStream, events) {
            Ok(receipts) => {
                Ok(Forked { run_id: new_run, session_id, forked_at, iteration, tracker: written, receipts })
            }
            Err(error) => {
                if let Some(path) = &written
                    && let Err(error) = std::fs::remove_file(path)
                {
                    tracing::warn!(path = %path.display(), %error, "the tracker of a fork that failed is left");
                }
                Err(error.into())
            }
        }
    }

    /// The position of the point, which has to be of the run.
    fn resolve(
        &self,
        state: &WorkflowState,
        events: &[RecordedEvent],
        point: ForkPoint,
    ) -> Result<Position, ForkError> {
        let run_id = || state.run_id.clone();
        let begins = events[0].position;
        match point {
            ForkPoint::Position(position) => {
                // What is open goes on: any moment up to now is one of the run.
                let last = match state.state {
                    RunState::Done => state.last_position,
                    _ => self.reader.head().map_err(ReadError::from)?.position,
                };
                if position < begins || position > last {
                    return Err(ForkError::Outside { run_id: run_id(), point: position, begins });
                }
                Ok(position)
            }
            ForkPoint::Iteration(iteration) => {
                let own = events.iter().filter_map(|event| Some((event, end_of(event)?)));
                let ended =
                    own.filter(|(_, end)| end.iteration == iteration).map(|(event, _)| event.position).next_back();
                if let Some(position) = ended {
                    return Ok(position);
                }
                let inherited = match &events[0].facts.data {
                    KindFacts::WorkflowStart(start) => start.iteration,
                    _ => 0,
                };
                match &state.forked_from {
                    Some(origin) if (1..=inherited).contains(&iteration) => {
                        Err(ForkError::OfOrigin { run_id: run_id(), iteration, origin: origin.clone() })
                    }
                    _ => Err(ForkError::NoIteration { run_id: run_id(), iteration, last: state.iteration }),
                }
            }
        }
    }

    /// The run's first event, whole.
    fn origin(&self, run_id: &RunId, first: &RecordedEvent) -> Result<Origin, ForkError> {
        let erased = || ForkError::Erased { run_id: run_id.clone(), what: "its first event" };
        let KindFacts::WorkflowStart(start) = &first.facts.data else {
            return Err(ForkError::Unknown { run_id: run_id.clone() });
        };
        let json = self.content(first)?.ok_or_else(erased)?;
        Ok(Origin { start: start.as_ref().clone(), json })
    }

    fn content(&self, event: &RecordedEvent) -> Result<Option<String>, ReadError> {
        let before = Position(event.position.0.saturating_sub(1));
        let batch = self.reader.read(&EventFilter::default(), before, event.position, 1, Read::All)?;
        Ok(batch.events.into_iter().next().and_then(|event| event.content.json().map(str::to_owned)))
    }

    /// The tracker's text as the run had it at a position; none where it had none yet, or it was gone.
    fn tracker_at(&self, run_id: &RunId, events: &[RecordedEvent], at: Position) -> Result<Option<String>, ForkError> {
        let ended = events.iter().take_while(|event| event.position <= at).filter(|event| end_of(event).is_some());
        let Some(last) = ended.last() else {
            // A fork that has not ended an iteration of its own has the tracker that it began with.
            let KindFacts::WorkflowStart(start) = &events[0].facts.data else {
                return Ok(None);
            };
            let (Some(origin), Some(forked_at)) = (&start.forked_from, start.forked_at) else {
                return Ok(None);
            };
            let events = self.reader.read_stream(&StreamName::run(origin), StreamVersion::EMPTY, Read::Facts)?;
            return match events.is_empty() {
                true => Err(ForkError::Unknown { run_id: origin.clone() }),
                false => self.tracker_at(origin, &events, forked_at),
            };
        };
        let Some((iteration, tracker)) = end_of(last).and_then(|end| Some((end.iteration, end.tracker.as_ref()?)))
        else {
            return Ok(None);
        };
        if !tracker.is_whole {
            return Err(ForkError::LongTracker { run_id: run_id.clone(), iteration, bytes: tracker.bytes });
        }
        let erased = || ForkError::Erased { run_id: run_id.clone(), what: "the tracker" };
        let json = self.content(last)?.ok_or_else(erased)?;
        let text = readable(&json);
        let data = Fields::parse(&text).ok().and_then(|fields| fields.object("data"));
        Ok(Some(data.and_then(|data| data.text("tracker_text")).ok_or_else(erased)?))
    }
}

fn end_of(event: &RecordedEvent) -> Option<&IterationEnd> {
    match &event.facts.data {
        KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => Some(end),
        _ => None,
    }
}

/// The first two events of a fork: it began, and nobody drives it.
fn fork_events(start: WorkflowStart, of: &Fields<'_>) -> Result<Vec<NewEvent>, ForkError> {
    let mut extra = Extra::default();
    for name in ["prompt", "project_dir", "program", "workflow"] {
        if let Some(json) = of.raw(name) {
            let json: &RawValue = serde_json::from_str(json)?;
            extra = extra.with(name, json)?;
        }
    }
    let metadata = Metadata {
        session_id: Some(start.session_id.clone()),
        run_id: Some(start.run_id.clone()),
        ..Metadata::default()
    };
    let transition = WorkflowTransition {
        from: RunState::Starting,
        to: RunState::Idle,
        status: RunStatus::Interrupted,
        reason: Some("forked; `runledger resume` begins it".to_owned()),
        owner: None,
    };
    let mut events = Vec::new();
    let mut cause = None;
    let facts = [
        (KindFacts::WorkflowStart(Box::new(start)), extra),
        (KindFacts::WorkflowTransition(transition), Extra::default()),
    ];
    for (facts, extra) in facts {
        let id = new_id().map_err(|error| ForkError::Event(error.to_string()))?;
        let json = event_json(&id, now(), &facts, &extra)?;
        let event = RuntimeEvent::from_json(&json).map_err(|error| ForkError::Event(error.to_string()))?;
        let metadata = Metadata { causation_id: cause.replace(id), ..metadata.clone() };
        events.push(NewEvent::new(event, metadata).map_err(|error| ForkError::Event(error.to_string()))?);
    }
    Ok(events)
}

/// Writes the tracker where there is none.
fn write_tracker(project_dir: &Path, relative: &str, text: &str) -> Result<PathBuf, ForkError> {
    let path = paths::inside(project_dir, relative, "trackerPath")?;
    let failed = |source| ConfigError::Write { what: "tracker", path: path.clone(), source };
    let mut file = create_private(&path).map_err(failed)?;
    if let Err(source) = std::io::Write::write_all(&mut file, text.as_bytes()) {
        // Half a tracker would pass for a whole one.
        let _ = std::fs::remove_file(&path);
        return Err(failed(source).into());
    }
    Ok(path)
}

impl From<AppendError> for ForkError {
    fn from(source: AppendError) -> Self {
        Self::Append(source)
    }
}
