//! A run as a hook has to know it: read from its first event, the start of its last iteration and what came since, so at
//! a cost that does not grow with the run.

use std::path::PathBuf;

use runledger_events::{
    AdapterSessionId, AskContext, Fields, Grant, KindFacts, PermissionPolicy, RecordedEvent, RunId, StandingGrants,
    StreamName, StreamVersion, WorkflowIteration, WorkflowState, readable,
};
use runledger_store::{LogReader, Read, ReadError};

/// Events that are looked at in one step back from the end of the run's stream.
const STEP: usize = 16;

/// A run's permissions: its state, and what holds beside its own rules.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// The run's state, as far as a decision on a permission needs it: see [`WorkflowState::at`].
    pub state: WorkflowState,
    /// What was decided for every run of its workflow, the latest last. Empty where the run has no rules.
    pub standing: Vec<Grant>,
    /// Where its harness works; none where that was erased, or the run has no rules.
    pub project_dir: Option<PathBuf>,
}

impl RunContext {
    /// The context of a run at the head of the log; `None` where there is no such run.
    ///
    /// # Errors
    /// [`ReadError`]: what the run's rules say is not known.
    pub fn read(reader: &LogReader, run_id: &RunId) -> Result<Option<Self>, ReadError> {
        let stream = StreamName::run(run_id);
        let Some(state) = state(reader, &stream)? else {
            return Ok(None);
        };
        let has_rules = state.policy.as_deref().is_some_and(|policy| policy.permissions.is_some());
        let (mut standing, mut project_dir) = (Vec::new(), None);
        if has_rules {
            if let Ok(rules) = StreamName::rules(state.workflow_name.as_deref()) {
                let events = reader.read_stream(&rules, StreamVersion::EMPTY, Read::Facts)?;
                standing = StandingGrants::fold(&events).into_grants();
            }
            project_dir = project_dir_of(reader, &stream)?;
        }
        Ok(Some(Self { state, standing, project_dir }))
    }

    /// What its workflow says of permissions.
    pub fn policy(&self) -> Option<&PermissionPolicy> {
        self.state.policy.as_deref().and_then(|policy| policy.permissions.as_ref())
    }

    /// What was decided for the run, the latest last.
    pub fn grants(&self) -> &[Grant] {
        &self.state.carried.grants
    }

    /// Where the run stands, as a question and a decision record it.
    pub fn ask_context(&self) -> AskContext {
        AskContext::of(&self.state)
    }
}

/// The run that a call belongs to: the one that the harness's environment names, else the one whose iteration started the
/// adapter session.
///
/// # Errors
/// [`ReadError`] when the log cannot be read.
pub fn find_run(
    reader: &LogReader,
    named: Option<&RunId>,
    adapter_session_id: Option<&AdapterSessionId>,
) -> Result<Option<RunId>, ReadError> {
    match (named, adapter_session_id) {
        (Some(run_id), _) => Ok(Some(run_id.clone())),
        (None, Some(id)) => reader.run_of_adapter_session(id),
        (None, None) => Ok(None),
    }
}

/// The run's state, folded from its last state-carrying event on.
fn state(reader: &LogReader, stream: &StreamName) -> Result<Option<WorkflowState>, ReadError> {
    // What came since the last iteration began, and that event; the newest first.
    let mut since: Vec<RecordedEvent> = Vec::new();
    let mut before: Option<StreamVersion> = None;
    loop {
        let step = reader.read_stream_back(stream, before, STEP, Read::Facts)?;
        let is_first = step.len() < STEP;
        before = step.last().map(|event| event.stream_version);
        for event in step {
            let carries = matches!(&event.facts.data, KindFacts::WorkflowIteration(WorkflowIteration::Start(_)));
            since.push(event);
            if carries {
                return from_iteration(reader, stream, since);
            }
        }
        if is_first {
            since.reverse();
            return Ok(WorkflowState::fold(&since).map(|(state, _)| state));
        }
    }
}

/// The state out of the run's first event, an iteration's start and what came since; the newest first.
fn from_iteration(
    reader: &LogReader,
    stream: &StreamName,
    since: Vec<RecordedEvent>,
) -> Result<Option<WorkflowState>, ReadError> {
    let first = reader.read_stream_back(stream, Some(StreamVersion(2)), 1, Read::Facts)?;
    let mut events = since.into_iter().rev();
    let state = first.first().zip(events.next()).and_then(|(first, start)| WorkflowState::at(first, &start));
    Ok(state.map(|mut state| {
        for event in events {
            if let Err(illegal) = state.evolve(&event) {
                tracing::debug!(%illegal, "an event that cannot follow was left out");
            }
        }
        state
    }))
}

/// Where the run's harness works, out of its first event.
pub(crate) fn project_dir_of(reader: &LogReader, stream: &StreamName) -> Result<Option<PathBuf>, ReadError> {
    let first = reader.read_stream_back(stream, Some(StreamVersion(2)), 1, Read::All)?;
    let json = first.first().and_then(|event| event.content.json()).unwrap_or("{}");
    let text = readable(json);
    let data = Fields::parse(&text).ok().and_then(|fields| fields.object("data"));
    Ok(data.and_then(|data| data.text("project_dir")).map(PathBuf::from))
}
