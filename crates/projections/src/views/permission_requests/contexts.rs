//! Workflow runs as they stand while events are taken, and which of them an event belongs to: the one that its metadata
//! name, else the one whose iteration used its adapter session last.

use std::collections::HashMap;

use runledger_events::{
    AdapterSessionId, AppliedRule, AskContext, Fields, KindFacts, Position, RecordedEvent, RunId, RunState, ToolCall,
    WorkflowIteration, WorkflowState, readable,
};
use rusqlite::OptionalExtension;

use super::rows::NewRow;
use super::{ADAPTERS, NAME, RUNS};
use crate::error::ProjectionError;
use crate::projection::Target;
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

/// What is known of runs, during one batch.
pub(super) struct Contexts<'a> {
    target: Target<'a>,
    runs: HashMap<RunId, Option<Known>>,
    changed: Vec<RunId>,
}

impl<'a> Contexts<'a> {
    pub(super) fn new(target: Target<'a>) -> Self {
        Self { target, runs: HashMap::new(), changed: Vec::new() }
    }

    /// Takes an event of a run's own stream; says which adapter session the run uses now, where the event tells it.
    pub(super) fn take(&mut self, event: &RecordedEvent) -> Result<Option<Linked>, ProjectionError> {
        let Some(run_id) = event.stream.run_id() else {
            return Ok(None);
        };
        self.load(&run_id)?;
        let Some(row) = self.runs.get_mut(&run_id) else {
            return Ok(None);
        };
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
        if !self.changed.contains(&run_id) {
            self.changed.push(run_id.clone());
        }
        let adapter = match &event.facts.data {
            KindFacts::WorkflowIteration(WorkflowIteration::Session(session)) => Some(&session.adapter_session_id),
            KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => end.adapter_session_id.as_ref(),
            _ => None,
        };
        let Some(adapter) = adapter else {
            return Ok(None);
        };
        let sql = format!(
            "INSERT OR REPLACE INTO {} (adapter_session_id, run_id) VALUES (?1, ?2)",
            self.target.table(ADAPTERS)
        );
        self.target
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.execute((adapter.as_str(), run_id.as_str())))
            .map_err(|source| self.failed(&source))?;
        let known = self.runs.get(&run_id).and_then(Option::as_ref);
        Ok(Some(Linked {
            adapter_session_id: adapter.clone(),
            iteration_from: known.map_or(event.position, |known| known.iteration_from),
            belonging: Belonging { run_id, context: known.map(|known| AskContext::of(&known.state)) },
        }))
    }

    /// Where the workflow run of an event stands.
    pub(super) fn of(&mut self, event: &RecordedEvent) -> Result<Option<Belonging>, ProjectionError> {
        let run_id = match (&event.metadata.run_id, &event.metadata.adapter_session_id) {
            (Some(run_id), _) => run_id.clone(),
            (None, Some(adapter)) => match self.run_of(adapter)? {
                Some(run_id) => run_id,
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        self.load(&run_id)?;
        let known = self.runs.get(&run_id).and_then(Option::as_ref);
        Ok(Some(Belonging { context: known.map(|known| AskContext::of(&known.state)), run_id }))
    }

    /// The rule of its run that a call falls under, where the run goes on and has one.
    pub(super) fn rule(&self, row: &NewRow) -> Option<AppliedRule> {
        let known = self.runs.get(&row.belonging.as_ref()?.run_id)?.as_ref()?;
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

    fn run_of(&self, adapter: &AdapterSessionId) -> Result<Option<RunId>, ProjectionError> {
        let sql = format!("SELECT run_id FROM {} WHERE adapter_session_id = ?1", self.target.table(ADAPTERS));
        let read = |row: &rusqlite::Row<'_>| RunId::new(row.get::<_, String>(0)?).map_err(|error| damaged(0, error));
        self.target
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_row([adapter.as_str()], read).optional())
            .map_err(|source| self.failed(&source))
    }

    fn load(&mut self, run_id: &RunId) -> Result<(), ProjectionError> {
        if self.runs.contains_key(run_id) {
            return Ok(());
        }
        let sql =
            format!("SELECT state, iteration_from, project_dir FROM {} WHERE run_id = ?1", self.target.table(RUNS));
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Known { state: from_json(row, 0)?, iteration_from: Position(row.get(1)?), project_dir: row.get(2)? })
        };
        let known = self
            .target
            .connection
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_row([run_id.as_str()], read).optional())
            .map_err(|source| self.failed(&source))?;
        self.runs.insert(run_id.clone(), known);
        Ok(())
    }

    /// Writes what changed.
    pub(super) fn flush(self) -> Result<(), ProjectionError> {
        let sql = format!(
            "INSERT OR REPLACE INTO {} (run_id, state, iteration_from, project_dir) VALUES (?1, ?2, ?3, ?4)",
            self.target.table(RUNS)
        );
        for run_id in &self.changed {
            let Some(Some(known)) = self.runs.get(run_id) else {
                continue;
            };
            let state = to_json(NAME, &known.state)?;
            self.target
                .connection
                .prepare_cached(&sql)
                .and_then(|mut statement| {
                    statement.execute((run_id.as_str(), state, known.iteration_from.0, known.project_dir.as_deref()))
                })
                .map_err(|source| self.failed(&source))?;
        }
        Ok(())
    }

    fn failed(&self, source: &rusqlite::Error) -> ProjectionError {
        sqlite(&self.target, NAME, source)
    }
}

/// The project directory that a run's start tells.
fn project_dir(start: &RecordedEvent) -> Option<String> {
    let text = readable(start.content.json()?);
    Fields::parse(&text).ok()?.object("data")?.text("project_dir")
}
