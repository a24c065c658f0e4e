//! One run as it was at a position: a fold of its stream, with the read models' own words.

use runledger_events::{IterationState, Position, RunId, StreamName, WorkflowState};
use runledger_store::{EventFilter, LogReader, Read};

use crate::error::ProjectionError;
use crate::objects::{Iteration, Run};
use crate::views::workflow_runs::RUN_KINDS;

/// The run and its iterations as of `position`; `None` when it had not begun.
///
/// # Errors
/// [`ProjectionError::Read`] names the position that cannot be read.
pub fn run_at(
    reader: &LogReader,
    run_id: &RunId,
    position: Position,
) -> Result<Option<(Run, Vec<Iteration>)>, ProjectionError> {
    let filter = EventFilter {
        stream: Some(StreamName::run(run_id)),
        kinds: Some(RUN_KINDS.to_vec()),
        ..EventFilter::default()
    };
    let events = reader.read(&filter, Position::START, position, usize::MAX, Read::Facts)?.events;
    let Some((state, _)) = WorkflowState::fold(&events) else {
        return Ok(None);
    };
    let first_position = events.first().map_or(position, |event| event.position);
    let mut iterations: Vec<IterationState> = Vec::new();
    for event in &events {
        iterations.iter_mut().for_each(|iteration| iteration.evolve(event));
        if let Some(iteration) = IterationState::initial(event)
            && !iterations.iter().any(|known| known.iteration == iteration.iteration)
        {
            iterations.push(iteration);
        }
    }
    iterations.sort_by_key(|iteration| iteration.iteration);
    Ok(Some((Run::new(state, first_position), iterations.into_iter().map(Iteration::from).collect())))
}
