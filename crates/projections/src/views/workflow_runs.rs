//! `workflow_runs`: what the runs are, as their `workflow.*` events tell it.

use std::collections::HashMap;

use runledger_events::{
    EventKind, Position, RecordedEvent, RunId, RunState, RunStatus, SessionId, TimestampMs, WorkflowState,
};
use rusqlite::{Connection, OptionalExtension, Row};

use super::{TOKEN_COLUMNS, damaged, figure, from_json, sqlite, to_json, tokens};
use crate::error::ProjectionError;
use crate::objects::Run;
use crate::projection::{Kinds, Projection, Table, Target};

/// The read model.
pub(crate) struct WorkflowRuns;

pub(crate) const NAME: &str = "workflow_runs";

/// The four kinds that the runner writes.
pub(crate) const WORKFLOW_KINDS: &[EventKind] =
    &[EventKind::WorkflowStart, EventKind::WorkflowTransition, EventKind::WorkflowIteration, EventKind::WorkflowEnd];

impl Projection for WorkflowRuns {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn kinds(&self) -> Kinds {
        Kinds::Only(WORKFLOW_KINDS)
    }

    fn tables(&self) -> &'static [Table] {
        &[Table { name: NAME, key: &["run_id"] }]
    }

    fn schema(&self) -> &'static str {
        include_str!("../../../../migrations/projections/workflow_runs.sql")
    }

    fn apply(&self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        let mut touched: HashMap<RunId, Option<(WorkflowState, Position)>> = HashMap::new();
        for event in events {
            // A run's facts stand in its own stream; the same kind elsewhere is somebody's words about it.
            let Some(run_id) = event.stream.run_id() else {
                continue;
            };
            if !touched.contains_key(&run_id) {
                let stored = load(target, &run_id).map_err(|source| sqlite(target, NAME, &source))?;
                touched.insert(run_id.clone(), stored);
            }
            let Some(row) = touched.get_mut(&run_id) else {
                continue;
            };
            match row {
                None => *row = WorkflowState::initial(event).map(|state| (state, event.position)),
                Some((state, _)) => {
                    if let Err(illegal) = state.evolve(event) {
                        tracing::warn!(run = %run_id, %illegal, "an event that cannot follow was left out");
                    }
                }
            }
        }
        for (state, first_position) in touched.into_values().flatten() {
            store(target, &Run::new(state, first_position))?;
        }
        Ok(())
    }

    fn reset_run(&self, target: &Target<'_>, run_id: &str) -> Result<bool, ProjectionError> {
        target
            .connection
            .execute(&format!("DELETE FROM {} WHERE run_id = ?1", target.table(NAME)), [run_id])
            .map_err(|source| sqlite(target, NAME, &source))?;
        Ok(true)
    }
}

const COLUMNS: &str = "run_id, session_id, workflow_name, harness, status, state, iteration, iteration_is_open, \
                       max_iterations, started_at, ended_at, stop_reason, tracker_path, adapter_session_ids, \
                       parent_run_id, forked_at, attempt, deadline_at, owner, first_position, last_position";

fn load(target: &Target<'_>, run_id: &RunId) -> rusqlite::Result<Option<(WorkflowState, Position)>> {
    let sql = format!("SELECT {COLUMNS}, {TOKEN_COLUMNS} FROM {} WHERE run_id = ?1", target.table(NAME));
    target.connection.prepare_cached(&sql)?.query_row([run_id.as_str()], state).optional()
}

/// Runs that `condition` takes, read from the view.
pub(crate) fn select(
    connection: &Connection,
    condition: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Run>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS}, {TOKEN_COLUMNS} FROM {NAME} {condition}"))?
        .query_map(parameters, |row| state(row).map(|(state, first)| Run::new(state, first)))?
        .collect()
}

fn state(row: &Row<'_>) -> rusqlite::Result<(WorkflowState, Position)> {
    let run = |index: usize| -> rusqlite::Result<Option<RunId>> {
        row.get::<_, Option<String>>(index)?.map(RunId::new).transpose().map_err(|error| damaged(index, error))
    };
    let state = WorkflowState {
        run_id: RunId::new(row.get::<_, String>(0)?).map_err(|error| damaged(0, error))?,
        session_id: SessionId::new(row.get::<_, String>(1)?).map_err(|error| damaged(1, error))?,
        workflow_name: row.get(2)?,
        harness: row.get(3)?,
        status: RunStatus::parse(row.get_ref(4)?.as_str()?).ok_or_else(|| damaged(4, "no status"))?,
        state: RunState::parse(row.get_ref(5)?.as_str()?).ok_or_else(|| damaged(5, "no state"))?,
        iteration: row.get(6)?,
        iteration_is_open: row.get(7)?,
        max_iterations: row.get(8)?,
        started_at: TimestampMs(row.get(9)?),
        ended_at: row.get::<_, Option<i64>>(10)?.map(TimestampMs),
        stop_reason: row.get(11)?,
        tracker_path: row.get(12)?,
        adapter_session_ids: from_json(row, 13)?,
        parent_run_id: run(14)?,
        forked_at: row.get::<_, Option<u64>>(15)?.map(Position),
        attempt: row.get(16)?,
        deadline_at: row.get::<_, Option<i64>>(17)?.map(TimestampMs),
        owner: if row.get_ref(18)? == rusqlite::types::ValueRef::Null { None } else { Some(from_json(row, 18)?) },
        // A request to end is the runner's business, and no column here.
        cancel_requested: false,
        pause_requested: false,
        forked_from: None,
        policy: None,
        carried: runledger_events::Carried::default(),
        iteration_was_cut: false,
        iteration_session: None,
        waiting_for: None,
        harness_process: None,
        last_end: None,
        timer: None,
        last_position: Position(row.get(20)?),
        tokens: tokens(row, 21)?,
    };
    Ok((state, Position(row.get(19)?)))
}

fn store(target: &Target<'_>, run: &Run) -> Result<(), ProjectionError> {
    let sql = format!(
        "INSERT OR REPLACE INTO {} ({COLUMNS}, {TOKEN_COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
             ?23, ?24, ?25, ?26, ?27, ?28)",
        target.table(NAME)
    );
    let adapter_session_ids = to_json(NAME, &run.adapter_session_ids)?;
    let owner = run.owner.as_ref().map(|owner| to_json(NAME, owner)).transpose()?;
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                run.id.as_str(),
                run.session_id.as_str(),
                run.workflow_name,
                run.harness,
                run.status.as_str(),
                run.state.as_str(),
                run.iteration,
                run.iteration_is_open,
                run.max_iterations,
                run.started_at.0,
                run.ended_at.map(|at| at.0),
                run.stop_reason,
                run.tracker_path,
                adapter_session_ids,
                run.parent_run_id.as_ref().map(RunId::as_str),
                figure(run.forked_at.map(|position| position.0)),
                run.attempt,
                run.deadline_at.map(|at| at.0),
                owner,
                run.first_position.0,
                run.last_position.0,
                figure(run.tokens.input),
                figure(run.tokens.output),
                figure(run.tokens.cache_read),
                figure(run.tokens.cache_write),
                figure(run.tokens.total),
                figure(run.tokens.context_size),
                figure(run.tokens.context_window_size),
            ])
        })
        .map_err(|source| sqlite(target, NAME, &source))?;
    Ok(())
}
