//! `workflow_runs`: what the runs are, as their own events tell it. All that the fold knows survives in a row, so that a
//! new fold goes on where another one ended.

use runledger_events::{
    AdapterSessionId, Carried, Continuation, EventKind, LastEnd, Position, ProcessId, RecordedEvent, RequestId, RunId,
    RunPolicy, RunState, RunStatus, SessionId, Timer, TimestampMs, WorkflowState,
};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::kept_rows::KeptRows;
use super::{TOKEN_COLUMNS, damaged, figure, from_json, optional_from_json, sqlite, to_json, tokens};
use crate::error::ProjectionError;
use crate::objects::Run;
use crate::projection::{Fold, Kinds, Projection, Table, Target};

/// The read model.
pub(crate) struct WorkflowRuns;

pub(crate) const NAME: &str = "workflow_runs";

/// The kinds that say something of a run's state: signals to it and grants for it are decisions.
pub(crate) const RUN_KINDS: &[EventKind] = &[
    EventKind::WorkflowStart,
    EventKind::WorkflowTransition,
    EventKind::WorkflowIteration,
    EventKind::WorkflowEnd,
    EventKind::Decision,
    EventKind::TimerScheduled,
    EventKind::TimerFired,
];

impl Projection for WorkflowRuns {
    fn name(&self) -> &'static str {
        NAME
    }

    /// 2: signals, grants, timers, retries and forks; all that the fold knows.
    fn version(&self) -> u32 {
        2
    }

    fn kinds(&self) -> Kinds {
        Kinds::Only(RUN_KINDS)
    }

    fn tables(&self) -> &'static [Table] {
        &[Table { name: NAME, key: &["run_id"] }]
    }

    fn schema(&self) -> &'static str {
        include_str!("../../../../migrations/projections/workflow_runs.sql")
    }

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(RunsFold::default())
    }

    fn reset_run(&self, target: &Target<'_>, run_id: &str) -> Result<bool, ProjectionError> {
        target
            .connection
            .execute(&format!("DELETE FROM {} WHERE run_id = ?1", target.table(NAME)), [run_id])
            .map_err(|source| sqlite(target, NAME, &source))?;
        Ok(true)
    }
}

/// Runs under way, each with the position of its first event.
#[derive(Default)]
struct RunsFold(KeptRows<RunId, (WorkflowState, Position)>);

/// Bytes of a run in memory, about.
const RUN_BYTES: usize = 2048;

impl Fold for RunsFold {
    fn take(&mut self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        for event in events {
            // A run's facts stand in its own stream; the same kind elsewhere is somebody's words about it.
            let Some(run_id) = event.stream.run_id() else {
                continue;
            };
            let load = || load(target, &run_id).map_err(|source| sqlite(target, NAME, &source));
            match self.0.change(&run_id, load)? {
                row @ None => *row = WorkflowState::initial(event).map(|state| (state, event.position)),
                Some((state, _)) => {
                    if let Err(illegal) = state.evolve(event) {
                        tracing::warn!(run = %run_id, %illegal, "an event that cannot follow was left out");
                    }
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, target: &Target<'_>, mut rows: usize) -> Result<bool, ProjectionError> {
        self.0.flush(&mut rows, |_, (state, first_position)| store(target, state.clone(), *first_position))
    }

    fn kept_bytes(&self) -> usize {
        self.0.len() * RUN_BYTES
    }
}

/// What the fold of a run knows beside what the other columns hold.
#[derive(Serialize, Deserialize)]
struct More {
    cancel_requested: bool,
    policy: Option<Box<RunPolicy>>,
    carried: Carried,
    iteration_was_cut: bool,
    iteration_continuation: Continuation,
    iteration_session: Option<AdapterSessionId>,
    harness_process: Option<ProcessId>,
    last_end: Option<LastEnd>,
    timer: Option<Timer>,
}

const COLUMNS: &str = "run_id, session_id, workflow_name, harness, status, state, iteration, iteration_is_open, \
                       max_iterations, started_at, ended_at, stop_reason, tracker_path, adapter_session_ids, \
                       parent_run_id, forked_at, attempt, deadline_at, owner, first_position, last_position, \
                       forked_from, waiting_for, is_paused, more";
/// The first of the token columns, which stand behind these.
const TOKENS: usize = 25;

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
    let waiting_for = row.get::<_, Option<String>>(22)?.map(RequestId::new).transpose();
    let more: More = from_json(row, 24)?;
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
        owner: optional_from_json(row, 18)?,
        cancel_requested: more.cancel_requested,
        pause_requested: row.get(23)?,
        forked_from: run(21)?,
        policy: more.policy,
        carried: more.carried,
        iteration_was_cut: more.iteration_was_cut,
        iteration_continuation: more.iteration_continuation,
        iteration_session: more.iteration_session,
        waiting_for: waiting_for.map_err(|error| damaged(22, error))?,
        harness_process: more.harness_process,
        last_end: more.last_end,
        timer: more.timer,
        last_position: Position(row.get(20)?),
        tokens: tokens(row, TOKENS)?,
    };
    Ok((state, Position(row.get(19)?)))
}

fn store(target: &Target<'_>, run: WorkflowState, first_position: Position) -> Result<(), ProjectionError> {
    let places: Vec<String> = (1..=33).map(|number| format!("?{number}")).collect();
    let sql = format!(
        "INSERT OR REPLACE INTO {} ({COLUMNS}, {TOKEN_COLUMNS}, retries) VALUES ({})",
        target.table(NAME),
        places.join(", ")
    );
    let adapter_session_ids = to_json(NAME, &run.adapter_session_ids)?;
    let owner = run.owner.as_ref().map(|owner| to_json(NAME, owner)).transpose()?;
    let retries = run.carried.retries;
    let more = More {
        cancel_requested: run.cancel_requested,
        policy: run.policy,
        carried: run.carried,
        iteration_was_cut: run.iteration_was_cut,
        iteration_continuation: run.iteration_continuation,
        iteration_session: run.iteration_session,
        harness_process: run.harness_process,
        last_end: run.last_end,
        timer: run.timer,
    };
    let more = to_json(NAME, &more)?;
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.execute(rusqlite::params![
                run.run_id.as_str(),
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
                first_position.0,
                run.last_position.0,
                run.forked_from.as_ref().map(RunId::as_str),
                run.waiting_for.as_ref().map(RequestId::as_str),
                run.pause_requested,
                more,
                figure(run.tokens.input),
                figure(run.tokens.output),
                figure(run.tokens.cache_read),
                figure(run.tokens.cache_write),
                figure(run.tokens.total),
                figure(run.tokens.context_size),
                figure(run.tokens.context_window_size),
                retries,
            ])
        })
        .map_err(|source| sqlite(target, NAME, &source))?;
    Ok(())
}
