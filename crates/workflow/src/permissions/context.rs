//! Where a workflow run stands when a tool is about to be called, and the rules in force: read from the run's own stream.
//!
//! It is bounded: of a run of any length the first event is read, and what stands behind the start of its last iteration.

use runledger_events::{
    AdapterSessionId, AskContext, Grant, IdError, KindFacts, PatternError, PermissionPolicy, Position, RecordedEvent,
    Ruling, RunId, StandingGrants, StreamName, StreamVersion, ToolCall, WorkflowIteration, WorkflowState,
};
use runledger_store::{EventFilter, LogReader, Read, ReadError};

/// Events read at a time, going back.
const CHUNK: usize = 64;

/// Rules that there are, or may be, and cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The run's stream does not begin with its start.
    #[error("run {run_id}: its stream does not begin with its start; `verify` tells more")]
    NoStart {
        /// The run.
        run_id: RunId,
    },
    /// A rule of the run cannot be read by this program.
    #[error("run {run_id}: a rule cannot be read by this program: {source}")]
    Rule {
        /// The run.
        run_id: RunId,
        /// The pattern.
        source: PatternError,
    },
    /// The workflow's name is no stream's.
    #[error(transparent)]
    Name(#[from] IdError),
}

/// Where a run stands, and what was decided for it before.
#[derive(Debug, Clone)]
pub struct PermissionContext {
    /// The run, as far as a permission depends on it: see [`WorkflowState::at`].
    pub state: WorkflowState,
    /// What was decided for every run of its workflow, the latest last.
    pub standing: Vec<Grant>,
    /// Where the turn that runs now began, as far as the run's stream tells.
    pub turn_began_at: Position,
}

impl PermissionContext {
    /// The context of the run that is named, else of the one that this harness session belongs to. `None` where there is
    /// no such run, or it has no rules; a run that has ended has none for sessions that only belonged to it.
    ///
    /// # Errors
    /// [`ContextError`] when there may be rules.
    pub fn find(
        reader: &LogReader,
        named: Option<&RunId>,
        adapter_session: Option<&AdapterSessionId>,
    ) -> Result<Option<Self>, ContextError> {
        if let Some(run_id) = named {
            return Self::read(reader, run_id);
        }
        let Some(adapter_session) = adapter_session else {
            return Ok(None);
        };
        match reader.run_of_adapter_session(adapter_session)? {
            Some(run_id) => Ok(Self::read(reader, &run_id)?.filter(|context| !context.state.status.is_final())),
            None => Ok(None),
        }
    }

    /// The context of a run; `None` where there is no such run, or it has no rules.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn read(reader: &LogReader, run_id: &RunId) -> Result<Option<Self>, ContextError> {
        let Some((state, turn_began_at)) = read_state(reader, run_id)? else {
            return Ok(None);
        };
        let Some(policy) = state.policy.as_deref().and_then(|policy| policy.permissions.as_ref()) else {
            return Ok(None);
        };
        policy.check().map_err(|source| ContextError::Rule { run_id: run_id.clone(), source })?;
        let stream = StreamName::rules(state.workflow_name.as_deref())?;
        let standing = StandingGrants::fold(&reader.read_stream(&stream, StreamVersion::EMPTY, Read::Facts)?);
        Ok(Some(Self { state, standing: standing.into_grants(), turn_began_at }))
    }

    /// The rules in force; none were said where it is empty.
    pub fn policy(&self) -> PermissionPolicy {
        self.state.policy.as_ref().and_then(|policy| policy.permissions.clone()).unwrap_or_default()
    }

    /// What the rules say of a call, which is taken to be made where this run stands now.
    pub fn ruling(&self, call: &ToolCall) -> Option<Ruling> {
        self.policy().ruling(call, &self.state.carried.grants, &self.standing)
    }

    /// The same as a question carries it along.
    pub fn of_ask(&self) -> AskContext {
        AskContext {
            run_id: self.state.run_id.clone(),
            workflow_name: self.state.workflow_name.clone(),
            state: self.state.state,
            iteration: self.state.iteration,
            max_iterations: self.state.max_iterations,
        }
    }
}

/// The run's state, and where its turn began.
fn read_state(reader: &LogReader, run_id: &RunId) -> Result<Option<(WorkflowState, Position)>, ContextError> {
    let stream = StreamName::run(run_id);
    let filter = EventFilter { stream: Some(stream.clone()), ..EventFilter::default() };
    let first = reader.read(&filter, Position::START, Position(i64::MAX.unsigned_abs()), 1, Read::Facts)?.events.pop();
    let Some(first) = first else {
        return Ok(None);
    };
    let initial = WorkflowState::initial(&first).ok_or_else(|| ContextError::NoStart { run_id: run_id.clone() })?;
    let mut turn_began_at = None;
    // The newest first.
    let mut back: Vec<RecordedEvent> = Vec::new();
    let (start, behind) = loop {
        let before = back.last().map(|event| event.stream_version);
        let chunk = reader.read_stream_back(&stream, before, CHUNK, Read::Facts)?;
        let is_all = chunk.len() < CHUNK;
        let seen = back.len();
        back.extend(chunk);
        for event in &back[seen..] {
            if let KindFacts::WorkflowIteration(WorkflowIteration::Start(_) | WorkflowIteration::Continued(_)) =
                &event.facts.data
            {
                turn_began_at.get_or_insert(event.position);
            }
        }
        let is_start = |event: &RecordedEvent| {
            matches!(event.facts.data, KindFacts::WorkflowIteration(WorkflowIteration::Start(_)))
        };
        if let Some(at) = back.iter().position(is_start) {
            break (WorkflowState::at(&first, &back[at]), &back[..at]);
        }
        if is_all {
            break (None, back.strip_suffix(&back[back.len().saturating_sub(1)..]).unwrap_or_default());
        }
    };
    let mut state = start.unwrap_or(initial);
    for event in behind.iter().rev() {
        if let Err(illegal) = state.evolve(event) {
            tracing::warn!(%run_id, %illegal, "an event of the run was left out");
        }
    }
    let began_at = turn_began_at.unwrap_or(first.position);
    Ok(Some((state, began_at)))
}
