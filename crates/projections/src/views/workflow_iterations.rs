//! `workflow_iterations`: the iterations of runs, as their `workflow.iteration` events tell it, and the transition that
//! cuts off those that are open.

use std::collections::{BTreeSet, HashMap};

use runledger_events::{
    AdapterSessionId, EventId, EventKind, IterationState, KindFacts, Position, RecordedEvent, RequestId, RunId,
    RunState, TimestampMs, WorkflowIteration,
};
use rusqlite::{Connection, OptionalExtension, Row};

use super::kept_rows::KeptRows;
use super::{TOKEN_COLUMNS, damaged, figure, from_json, optional_from_json, sqlite, to_json, tokens};
use crate::error::ProjectionError;
use crate::objects::Iteration;
use crate::projection::{Fold, Kinds, Projection, Table, Target};

/// The read model.
pub(crate) struct WorkflowIterations;

pub(crate) const NAME: &str = "workflow_iterations";

impl Projection for WorkflowIterations {
    fn name(&self) -> &'static str {
        NAME
    }

    /// 2: attempts, retries, questions that are waited for, interruptions.
    fn version(&self) -> u32 {
        2
    }

    fn kinds(&self) -> Kinds {
        Kinds::Only(&[EventKind::WorkflowIteration, EventKind::WorkflowTransition])
    }

    fn tables(&self) -> &'static [Table] {
        &[Table { name: NAME, key: &["run_id", "iteration"] }]
    }

    fn schema(&self) -> &'static str {
        include_str!("../../../../migrations/projections/workflow_iterations.sql")
    }

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(IterationsFold::default())
    }

    fn reset_run(&self, target: &Target<'_>, run_id: &str) -> Result<bool, ProjectionError> {
        target
            .connection
            .execute(&format!("DELETE FROM {} WHERE run_id = ?1", target.table(NAME)), [run_id])
            .map_err(|source| sqlite(target, NAME, &source))?;
        Ok(true)
    }
}

/// Iterations under way, by run and number.
#[derive(Default)]
struct IterationsFold {
    iterations: KeptRows<(RunId, u32), IterationState>,
    /// The numbers of those that are open, by run.
    open: HashMap<RunId, BTreeSet<u32>>,
}

impl IterationsFold {
    /// Notes whether an iteration is open now.
    fn note(&mut self, key: &(RunId, u32)) {
        let is_open = self.iterations.kept_value(key).is_some_and(|state| state.ended_at.is_none());
        if is_open {
            self.open.entry(key.0.clone()).or_default().insert(key.1);
        } else if let Some(open) = self.open.get_mut(&key.0) {
            open.remove(&key.1);
        }
    }
}

/// Bytes of an iteration in memory, about.
const ITERATION_BYTES: usize = 1024;

impl Fold for IterationsFold {
    fn take(&mut self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
        for event in events {
            let Some(run_id) = event.stream.run_id() else {
                continue;
            };
            if cuts_off(event) {
                for state in load_open(target, &run_id).map_err(failed)? {
                    let key = (run_id.clone(), state.iteration);
                    self.iterations.get(&key, || Ok(Some(state)))?;
                    self.note(&key);
                }
                for iteration in self.open.remove(&run_id).unwrap_or_default() {
                    let key = (run_id.clone(), iteration);
                    if let Some(state) = self.iterations.change(&key, || Ok(None))? {
                        state.evolve(event);
                    }
                    self.note(&key);
                }
                continue;
            }
            let Some(iteration) = iteration_of(event) else {
                continue;
            };
            let key = (run_id, iteration);
            match self.iterations.change(&key, || load(target, &key.0, iteration).map_err(failed))? {
                row @ None => *row = IterationState::initial(event),
                Some(state) => state.evolve(event),
            }
            self.note(&key);
        }
        Ok(())
    }

    fn flush(&mut self, target: &Target<'_>, mut rows: usize) -> Result<bool, ProjectionError> {
        self.iterations.flush(&mut rows, |(run_id, _), state| store(target, run_id, state))
    }

    fn kept_bytes(&self) -> usize {
        self.iterations.len() * ITERATION_BYTES
    }
}

/// Whether it interrupts what is open of its run.
fn cuts_off(event: &RecordedEvent) -> bool {
    matches!(&event.facts.data, KindFacts::WorkflowTransition(transition) if transition.to == RunState::Idle)
}

fn iteration_of(event: &RecordedEvent) -> Option<u32> {
    match &event.facts.data {
        KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) => Some(start.iteration),
        KindFacts::WorkflowIteration(WorkflowIteration::Session(session)) => Some(session.iteration),
        KindFacts::WorkflowIteration(WorkflowIteration::Deferred(deferred)) => Some(deferred.iteration),
        KindFacts::WorkflowIteration(WorkflowIteration::Continued(continued)) => Some(continued.iteration),
        KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => Some(end.iteration),
        _ => None,
    }
}

const COLUMNS: &str = "iteration, continuation, started_at, start_position, start_event_id, ended_at, end_position, \
                       outcome, exit_code, error, tracker, adapter_session_id, attempt, retry, waiting_for";
/// The first of the token columns, which stand behind these.
const TOKENS: usize = 15;

fn load(target: &Target<'_>, run_id: &RunId, iteration: u32) -> rusqlite::Result<Option<IterationState>> {
    let sql =
        format!("SELECT {COLUMNS}, {TOKEN_COLUMNS} FROM {} WHERE run_id = ?1 AND iteration = ?2", target.table(NAME));
    target.connection.prepare_cached(&sql)?.query_row((run_id.as_str(), iteration), state).optional()
}

fn load_open(target: &Target<'_>, run_id: &RunId) -> rusqlite::Result<Vec<IterationState>> {
    let sql =
        format!("SELECT {COLUMNS}, {TOKEN_COLUMNS} FROM {} WHERE run_id = ?1 AND ended_at IS NULL", target.table(NAME));
    target.connection.prepare_cached(&sql)?.query_map([run_id.as_str()], state)?.collect()
}

/// The iterations of a run, read from the view, in order.
pub(crate) fn select(connection: &Connection, run_id: &RunId) -> rusqlite::Result<Vec<Iteration>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS}, {TOKEN_COLUMNS} FROM {NAME} WHERE run_id = ?1 ORDER BY iteration"))?
        .query_map([run_id.as_str()], |row| state(row).map(Iteration::from))?
        .collect()
}

fn state(row: &Row<'_>) -> rusqlite::Result<IterationState> {
    let outcome: Option<String> = row.get(7)?;
    let outcome = outcome
        .map(|word| serde_json::from_value(serde_json::Value::String(word)).map_err(|error| damaged(7, error)))
        .transpose()?;
    let waiting_for = row.get::<_, Option<String>>(14)?.map(RequestId::new).transpose();
    Ok(IterationState {
        attempt: row.get(12)?,
        retry: optional_from_json(row, 13)?,
        waiting_for: waiting_for.map_err(|error| damaged(14, error))?,
        iteration: row.get(0)?,
        continuation: from_json(row, 1)?,
        started_at: TimestampMs(row.get(2)?),
        start_position: Position(row.get(3)?),
        start_event_id: EventId::new(row.get::<_, String>(4)?).map_err(|error| damaged(4, error))?,
        ended_at: row.get::<_, Option<i64>>(5)?.map(TimestampMs),
        end_position: row.get::<_, Option<u64>>(6)?.map(Position),
        outcome,
        exit_code: row.get(8)?,
        error: row.get(9)?,
        tracker: optional_from_json(row, 10)?,
        adapter_session_id: row
            .get::<_, Option<String>>(11)?
            .map(AdapterSessionId::new)
            .transpose()
            .map_err(|error| damaged(11, error))?,
        tokens: tokens(row, TOKENS)?,
    })
}

fn store(target: &Target<'_>, run_id: &RunId, state: &IterationState) -> Result<(), ProjectionError> {
    let sql = format!(
        "INSERT OR REPLACE INTO {} (run_id, {COLUMNS}, {TOKEN_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
             ?21, ?22, ?23)",
        target.table(NAME)
    );
    let continuation = to_json(NAME, &state.continuation)?;
    let tracker = state.tracker.as_ref().map(|tracker| to_json(NAME, tracker)).transpose()?;
    let retry = state.retry.as_ref().map(|retry| to_json(NAME, retry)).transpose()?;
    let tokens = &state.tokens;
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                run_id.as_str(),
                state.iteration,
                continuation,
                state.started_at.0,
                state.start_position.0,
                state.start_event_id.as_str(),
                state.ended_at.map(|at| at.0),
                state.end_position.map(|position| position.0),
                state.outcome.map(|outcome| outcome.as_str()),
                state.exit_code,
                state.error,
                tracker,
                state.adapter_session_id.as_ref().map(|id| id.as_str()),
                state.attempt,
                retry,
                state.waiting_for.as_ref().map(RequestId::as_str),
                figure(tokens.input),
                figure(tokens.output),
                figure(tokens.cache_read),
                figure(tokens.cache_write),
                figure(tokens.total),
                figure(tokens.context_size),
                figure(tokens.context_window_size),
            ])
        })
        .map_err(|source| sqlite(target, NAME, &source))?;
    Ok(())
}
