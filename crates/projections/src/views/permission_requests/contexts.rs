//! Workflow runs as they stand while events are taken, and which of them an event belongs to: the one that its metadata
//! name, else the one whose iteration used its adapter session last.

use runledger_events::{
    AdapterSessionId, AppliedRule, AskContext, Fields, KindFacts, Position, RecordedEvent, RunId, RunState, ToolCall,
    WorkflowIteration, WorkflowState, readable,
};
use rusqlite::OptionalExtension;

use super::rows::NewRow;
use super::{ADAPTERS, NAME, RUNS};
use crate::error::ProjectionError;
use crate::projection::Target;
use crate::views::kept_rows::KeptRows;
use crate::views::{damaged, from_json, sqlite, to_json};

/// A run, and where its last iteration begins.
#[derive(Clone)]
struct Known {
    state: WorkflowState,
    iteration_from: Position,
    project_dir: Option<String>,
}

/// Which workflow run something belongs to. Where its start is not in this log, nothing else is known of it.
#[derive(Debug, Clone)]
pub(super) struct Belonging {
    pub(super) run_id: RunId,
    pub(super) context: Option<AskContext>,
}

impl Belonging {
    pub(super) fn of(context: AskContext) -> Self {
        Self { run_id: context.run_id.clone(), context: Some(context) }
    }
}

/// The iteration that uses an adapter session, and where it begins.
pub(super) struct Linked {
    pub(super) adapter_session_id: AdapterSessionId,
    pub(super) belonging: Belonging,
    pub(super) iteration_from: Position,
}

/// What is known of runs, and of the adapter sessions that they used last.
#[derive(Default)]
pub(super) struct Contexts {
    runs: KeptRows<RunId, Known>,
    adapters: KeptRows<AdapterSessionId, RunId>,
}

impl Contexts {
    /// Takes an event of a run's own stream; says which adapter session the run uses now, where the event tells it.
    pub(super) fn take(
        &mut self,
        target: &Target<'_>,
        event: &RecordedEvent,
    ) -> Result<Option<Linked>, ProjectionError> {
        let Some(run_id) = event.stream.run_id() else {
            return Ok(None);
        };
        let row = self.runs.change(&run_id, || load_run(target, &run_id))?;
        match row {
            None => {
                *row = WorkflowState::initial(event).map(|state| Known {
                    state,
                    iteration_from: event.position,
                    project_dir: project_dir(event),
                });
            }
            Some(known) => {
                // What cannot follow is reported where the runs are kept.
                let is_taken = known.state.evolve(event).is_ok();
                if is_taken && matches!(event.facts.data, KindFacts::WorkflowIteration(WorkflowIteration::Start(_))) {
                    known.iteration_from = event.position;
                }
            }
        }
        let adapter = match &event.facts.data {
            KindFacts::WorkflowIteration(WorkflowIteration::Session(session)) => Some(&session.adapter_session_id),
            KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => end.adapter_session_id.as_ref(),
            _ => None,
        };
        let Some(adapter) = adapter else {
            return Ok(None);
        };
        *self.adapters.change(adapter, || load_adapter(target, adapter))? = Some(run_id.clone());
        let known = self.runs.kept_value(&run_id);
        Ok(Some(Linked {
            adapter_session_id: adapter.clone(),
            iteration_from: known.map_or(event.position, |known| known.iteration_from),
            belonging: Belonging { run_id, context: known.map(|known| AskContext::of(&known.state)) },
        }))
    }

    /// Where the workflow run of an event stands.
    pub(super) fn of(
        &mut self,
        target: &Target<'_>,
        event: &RecordedEvent,
    ) -> Result<Option<Belonging>, ProjectionError> {
        let run_id = match (&event.metadata.run_id, &event.metadata.adapter_session_id) {
            (Some(run_id), _) => run_id.clone(),
            (None, Some(adapter)) => match self.adapters.get(adapter, || load_adapter(target, adapter))? {
                Some(run_id) => run_id.clone(),
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let known = self.runs.get(&run_id, || load_run(target, &run_id))?;
        Ok(Some(Belonging { context: known.map(|known| AskContext::of(&known.state)), run_id }))
    }

    /// The rule of its run that a call falls under, where the run goes on and has one.
    pub(super) fn rule(&self, row: &NewRow) -> Option<AppliedRule> {
        let known = self.runs.kept_value(&row.belonging.as_ref()?.run_id)?;
        let state = &known.state;
        let permissions = state.policy.as_ref()?.permissions.as_ref().filter(|_| state.state != RunState::Done)?;
        let cwd = row.cwd.clone().or_else(|| known.project_dir.clone())?;
        let call = ToolCall {
            tool_name: row.tool_name.clone()?,
            tool_input: row.tool_input.clone()?,
            project_dir: known.project_dir.clone().unwrap_or_else(|| cwd.clone()),
            cwd,
            // Whose home it was then is not told.
            home: None,
            agent_id: row.agent_id.clone(),
            agent_type: row.agent_type.clone(),
            state: state.state,
            iteration: state.iteration,
        };
        permissions.ruling(&call, &state.carried.grants, &[]).map(|ruling| ruling.rule)
    }

    /// Writes what changed, at most `left` rows; says whether that was all.
    pub(super) fn flush(&mut self, target: &Target<'_>, left: &mut usize) -> Result<bool, ProjectionError> {
        let runs = self.runs.flush(left, |run_id, known| store_run(target, run_id, known))?;
        let adapters = self.adapters.flush(left, |adapter, run_id| store_adapter(target, adapter, run_id))?;
        Ok(runs && adapters)
    }

    /// Rows that are kept.
    pub(super) fn len(&self) -> usize {
        self.runs.len() + self.adapters.len()
    }
}

fn load_run(target: &Target<'_>, run_id: &RunId) -> Result<Option<Known>, ProjectionError> {
    let sql = format!("SELECT state, iteration_from, project_dir FROM {} WHERE run_id = ?1", target.table(RUNS));
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Known { state: from_json(row, 0)?, iteration_from: Position(row.get(1)?), project_dir: row.get(2)? })
    };
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row([run_id.as_str()], read).optional())
        .map_err(|source| sqlite(target, NAME, &source))
}

fn store_run(target: &Target<'_>, run_id: &RunId, known: &Known) -> Result<(), ProjectionError> {
    let sql = format!(
        "INSERT OR REPLACE INTO {} (run_id, state, iteration_from, project_dir) VALUES (?1, ?2, ?3, ?4)",
        target.table(RUNS)
    );
    let state = to_json(NAME, &known.state)?;
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.execute((run_id.as_str(), state, known.iteration_from.0, known.project_dir.as_deref()))
        })
        .map(|_| ())
        .map_err(|source| sqlite(target, NAME, &source))
}

fn load_adapter(target: &Target<'_>, adapter: &AdapterSessionId) -> Result<Option<RunId>, ProjectionError> {
    let sql = format!("SELECT run_id FROM {} WHERE adapter_session_id = ?1", target.table(ADAPTERS));
    let read = |row: &rusqlite::Row<'_>| RunId::new(row.get::<_, String>(0)?).map_err(|error| damaged(0, error));
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row([adapter.as_str()], read).optional())
        .map_err(|source| sqlite(target, NAME, &source))
}

fn store_adapter(target: &Target<'_>, adapter: &AdapterSessionId, run_id: &RunId) -> Result<(), ProjectionError> {
    let sql = format!("INSERT OR REPLACE INTO {} (adapter_session_id, run_id) VALUES (?1, ?2)", target.table(ADAPTERS));
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.execute((adapter.as_str(), run_id.as_str())))
        .map(|_| ())
        .map_err(|source| sqlite(target, NAME, &source))
}

/// The project directory that a run's start tells.
fn project_dir(start: &RecordedEvent) -> Option<String> {
    let text = readable(start.content.json()?);
    Fields::parse(&text).ok()?.object("data")?.text("project_dir")
}
