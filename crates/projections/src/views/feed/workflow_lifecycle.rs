//! WorkflowLifecycle: which workflow run, iteration and state an event belongs to.
//!
//! An event belongs to the run that its metadata name, else to the run whose iteration started its adapter session. What is
//! known of workflow runs is known to all ledger sessions: a hook may not know the session that its harness was started in.

use runledger_events::{
    KindFacts, RecordedEvent, RunId, RunState, WorkflowIteration, WorkflowState, transition_is_legal,
};
use serde::{Deserialize, Serialize};

use super::event::WorkflowContext;
use super::memory::{Memory, Seam};
use crate::error::ProjectionError;

/// A workflow run, as far as the feed has to know it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    workflow_name: Option<String>,
    iteration: u32,
    state: RunState,
}

/// The workflow context of an event.
pub(super) fn context(
    memory: &mut Memory<'_>,
    event: &RecordedEvent,
) -> Result<Option<WorkflowContext>, ProjectionError> {
    let named = event.stream.run_id().or_else(|| event.metadata.run_id.clone());
    let run_id = match (named, &event.metadata.adapter_session_id) {
        (Some(run_id), _) => run_id,
        (None, Some(adapter)) => match memory.get::<RunId>(Seam::WorkflowOfAdapter, adapter.as_str())? {
            Some(run_id) => run_id,
            None => return Ok(None),
        },
        (None, None) => return Ok(None),
    };
    let known: Option<Known> = memory.get(Seam::Workflow, run_id.as_str())?;
    Ok(Some(match known {
        Some(known) => WorkflowContext {
            run_id,
            workflow_name: known.workflow_name,
            iteration: known.iteration,
            state: known.state.as_str().to_owned(),
        },
        // A run whose start is not in this log.
        None => WorkflowContext { run_id, workflow_name: None, iteration: 0, state: "unknown".to_owned() },
    }))
}

/// Takes a `workflow.*` event of a run's own stream; events that its fold refuses change nothing.
pub(super) fn take(memory: &mut Memory<'_>, event: &RecordedEvent) -> Result<(), ProjectionError> {
    let Some(run_id) = event.stream.run_id() else {
        return Ok(());
    };
    let known: Option<Known> = memory.get(Seam::Workflow, run_id.as_str())?;
    let next = match (&event.facts.data, known) {
        (KindFacts::WorkflowStart(start), None) => WorkflowState::initial(event).map(|initial| Known {
            workflow_name: start.workflow_name.clone(),
            iteration: initial.iteration,
            state: initial.state,
        }),
        (KindFacts::WorkflowTransition(transition), Some(known)) => {
            let is_taken = transition.from == known.state && transition_is_legal(known.state, transition.to);
            is_taken.then_some(Known { state: transition.to, ..known })
        }
        (KindFacts::WorkflowIteration(WorkflowIteration::Start(start)), Some(known)) => {
            Some(Known { iteration: start.iteration, ..known })
        }
        (KindFacts::WorkflowEnd(_), Some(known)) => Some(Known { state: RunState::Done, ..known }),
        _ => None,
    };
    let adapter = match &event.facts.data {
        KindFacts::WorkflowIteration(WorkflowIteration::Session(session)) => Some(&session.adapter_session_id),
        KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => end.adapter_session_id.as_ref(),
        _ => None,
    };
    if let Some(adapter) = adapter {
        memory.put(Seam::WorkflowOfAdapter, adapter.as_str(), &run_id)?;
    }
    match next {
        Some(next) => memory.put(Seam::Workflow, run_id.as_str(), &next),
        None => Ok(()),
    }
}
