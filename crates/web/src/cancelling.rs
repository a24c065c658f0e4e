//! Ending a run and the runs within it: one command each, and the question which they are.

use std::collections::HashSet;

use runledger_events::RunId;
use runledger_projections::{ProjectionError, Queries};
use runledger_store::Receipt;
use runledger_workflow::{CommandError, Commands};

/// Why not every run was asked to end; those before it were.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// A run could not be asked.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The runs within a run cannot be read.
    #[error(transparent)]
    Read(#[from] ProjectionError),
}

/// Asks a run to end, and every run within it; whether it is over already, and the events of all.
///
/// # Errors
/// [`CancelError`]; where it is of the run itself, nothing was appended.
pub fn cancel_all(
    commands: &Commands,
    queries: &Queries,
    run_id: &RunId,
    by: &str,
) -> Result<(bool, Vec<Receipt>), CancelError> {
    let cancelled = commands.cancel(run_id, by)?;
    let mut receipts = cancelled.receipts;
    receipts.extend(cancel_below(commands, queries, run_id, by)?);
    Ok((cancelled.is_over, receipts))
}

/// Asks every run within a run to end.
///
/// # Errors
/// [`CancelError`]; those before it were asked.
pub fn cancel_below(
    commands: &Commands,
    queries: &Queries,
    run_id: &RunId,
    by: &str,
) -> Result<Vec<Receipt>, CancelError> {
    let mut receipts = Vec::new();
    let mut seen = HashSet::from([run_id.clone()]);
    let mut open = vec![run_id.clone()];
    while let Some(parent) = open.pop() {
        for child in queries.children(&parent)? {
            if !seen.insert(child.id.clone()) {
                continue;
            }
            open.push(child.id.clone());
            match commands.cancel(&child.id, by) {
                Ok(cancelled) => receipts.extend(cancelled.receipts),
                Err(CommandError::Over { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(receipts)
}
