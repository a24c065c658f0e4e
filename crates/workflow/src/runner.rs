//! The runner: carries one run from start to end, turn by turn, and writes every step as it happens.
//!
//! Invariants: every event of the run's stream is appended under `Exact`, so a step that does not follow on what is
//! there is decided anew; a newer owner's term ends this runner; a step is done once it is on disk, never before.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runledger_events::{
    Continuation, Owner, Position, RunId, RunStatus, SessionId, TimestampMs, WorkflowStart, WorkflowState,
};
use uuid::Uuid;

use crate::cancel::CancelHandle;
use crate::config::WorkflowConfig;
use crate::decide::{Command, Extra, StopCause, TurnReport};
use crate::desk::{Desk, RunWriter};
use crate::error::{ConfigError, HarnessError, RunError};
use crate::harness::{Harness, Instructions, Turn, TurnResult};
use crate::instructions::{compose, substitute};
use crate::journal::Journal;
use crate::owner::current_owner;
use crate::{instructions, paths, tracker};

/// What a run is to be.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The user's prompt.
    pub prompt: String,
    /// Where the harness works.
    pub project_dir: PathBuf,
    /// The workflow; none for a single turn with the prompt as it is.
    pub workflow: Option<WorkflowConfig>,
    /// The ledger session; a new one where there is none.
    pub session_id: Option<SessionId>,
    /// The run whose harness started this one. A sub-run is best given a session of its own.
    pub parent_run_id: Option<RunId>,
    /// How the first turn continues what the harness did before; later ones begin anew.
    pub continuation: Continuation,
    /// How long the run may take.
    pub timeout: Option<Duration>,
    /// The ledger, for the harness's environment.
    pub ledger: Option<PathBuf>,
    /// How long appends may keep failing before the run is stopped.
    pub append_patience: Duration,
}

impl RunSpec {
    /// A run of `prompt` in `project_dir`: one turn, no time limit, a new session.
    pub fn new(prompt: impl Into<String>, project_dir: impl Into<PathBuf>) -> Self {
        Self {
            prompt: prompt.into(),
            project_dir: project_dir.into(),
            workflow: None,
            session_id: None,
            parent_run_id: None,
            continuation: Continuation::Fresh,
            timeout: None,
            ledger: None,
            append_patience: Duration::from_secs(30),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct RunOutcome {
    /// The run's final state.
    pub state: WorkflowState,
    /// The position of its first event.
    pub first_position: Position,
}

/// A run that is ready to begin. Nothing was written to the log yet.
pub struct Runner {
    harness: Box<dyn Harness>,
    spec: RunSpec,
    run_id: RunId,
    session_id: SessionId,
    tracker: Option<TrackerPlace>,
    instructions: Option<Instructions>,
    is_prepared: bool,
    cancel: CancelHandle,
}

/// Where the tracker is.
struct TrackerPlace {
    relative: String,
    path: PathBuf,
}

impl Runner {
    /// Checks what can be checked without writing anything: paths, ids, and the workflow's instructions.
    ///
    /// # Errors
    /// [`RunError::Config`] for a project directory that is none, a path outside it, or instructions that cannot be read.
    pub fn new(harness: Box<dyn Harness>, mut spec: RunSpec) -> Result<Self, RunError> {
        spec.project_dir = spec
            .project_dir
            .canonicalize()
            .map_err(|source| ConfigError::ProjectDir { path: spec.project_dir.clone(), source })?;
        if !spec.project_dir.is_dir() {
            let source = std::io::ErrorKind::NotADirectory.into();
            return Err(ConfigError::ProjectDir { path: spec.project_dir, source }.into());
        }
        let run_id = RunId::new(Uuid::now_v7().to_string())?;
        let session_id = match spec.session_id.take() {
            Some(session_id) => session_id,
            None => SessionId::new(Uuid::now_v7().to_string())?,
        };
        let tracker = match spec.workflow.as_ref().and_then(WorkflowConfig::active_loop) {
            None => None,
            Some(config) => {
                let relative = substitute(&config.tracker_path, session_id.as_str(), None);
                let path = paths::inside(&spec.project_dir, &relative, "trackerPath")?;
                Some(TrackerPlace { relative, path })
            }
        };
        let instructions = match &spec.workflow {
            None => None,
            Some(workflow) => {
                let tracker_path = tracker.as_ref().map(|place| place.relative.as_str());
                compose(workflow, &spec.project_dir, session_id.as_str(), tracker_path)?
            }
        };
        Ok(Self {
            harness,
            spec,
            run_id,
            session_id,
            tracker,
            instructions,
            is_prepared: false,
            cancel: CancelHandle::default(),
        })
    }

    /// The run's id.
    pub fn run_id(&self) -> &RunId {
        &self.run_id
    }

    /// The run's session.
    pub fn session_id(&self) -> &SessionId {
        &self.session_id
    }

    /// The tracker's path, relative to the project directory.
    pub fn tracker_path(&self) -> Option<&str> {
        self.tracker.as_ref().map(|tracker| tracker.relative.as_str())
    }

    /// Ends this run from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Writes what the harness will need: the tracker's skeleton, where there is no tracker yet, and the instructions.
    /// [`Runner::run`] does it where it was not done before; nothing is in the log yet.
    ///
    /// # Errors
    /// [`RunError::Config`] names the file that cannot be written.
    pub fn prepare(&mut self) -> Result<(), RunError> {
        if self.is_prepared {
            return Ok(());
        }
        if let Some(place) = &self.tracker {
            tracker::create(&place.path, &place.relative, self.session_id.as_str(), &self.spec.prompt)?;
        }
        if let Some(instructions) = &self.instructions {
            instructions::write(instructions)?;
        }
        self.is_prepared = true;
        Ok(())
    }

    /// Carries the run to its end, and writes every step to the journal.
    ///
    /// # Errors
    /// - [`RunError::Config`]: tracker or instructions cannot be written; nothing is in the log.
    /// - [`RunError::Fenced`]: another owner has the run.
    /// - [`RunError::Append`]: the log took no more; what was acknowledged is there, and the run can be resumed.
    pub fn run(mut self, journal: Box<dyn Journal>) -> Result<RunOutcome, RunError> {
        self.prepare()?;
        let instructions = self.instructions.take();
        let deadline = self.spec.timeout.map(|timeout| Instant::now() + timeout);
        let owner = current_owner(1, journal.log_id());
        let mut writer = RunWriter::begin(
            journal,
            self.run_id.clone(),
            self.session_id.clone(),
            owner.term,
            self.spec.append_patience,
        );
        writer.step(&start(
            &self.spec,
            &self.run_id,
            &self.session_id,
            self.tracker.as_ref(),
            self.harness.name(),
            owner,
        )?)?;

        let mut continuation = self.spec.continuation.clone();
        loop {
            if let Some(cause) = stop_cause(&writer, &self.cancel, deadline) {
                writer.step(&Command::Stop(cause))?;
            }
            if writer.is_over() {
                return writer.into_outcome();
            }
            let iteration = writer.iteration() + 1;
            let turn = Turn {
                iteration,
                prompt: prompt(&self.spec, self.tracker.as_ref(), iteration),
                continuation: std::mem::replace(&mut continuation, Continuation::Fresh),
                instructions: instructions.clone(),
                model: self.spec.workflow.as_ref().and_then(|workflow| workflow.model.clone()),
                env: environment(&self.spec, &self.run_id, &self.session_id, self.tracker.as_ref(), iteration),
                project_dir: self.spec.project_dir.clone(),
            };
            writer.step(&begin_iteration(&turn, instructions.as_ref())?)?;
            if writer.is_over() {
                continue;
            }
            let mut desk = Desk::new(&mut writer, &self.cancel, deadline);
            let result = self.harness.run_turn(&turn, &mut desk);
            let (stopped, adapter_session_id) = desk.finish()?;
            let mut report = report(result, stopped, adapter_session_id);
            if let (Some(place), Some(workflow)) = (&self.tracker, &self.spec.workflow)
                && let Some(config) = workflow.active_loop()
            {
                // The agent may have put a link in its place.
                let reading = paths::inside(&self.spec.project_dir, &place.relative, "trackerPath")
                    .map_err(|error| error.to_string())
                    .and_then(|_| {
                        tracker::read(&place.path, config)
                            .map_err(|error| format!("tracker {}: {error}", place.relative))
                    });
                match reading {
                    Ok(reading) => report.tracker = reading,
                    Err(unreadable) => {
                        report.error.get_or_insert(unreadable);
                    }
                }
            }
            writer.step(&Command::EndIteration(Box::new(report)))?;
        }
    }
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("run_id", &self.run_id).field("spec", &self.spec).finish_non_exhaustive()
    }
}

fn stop_cause(writer: &RunWriter, cancel: &CancelHandle, deadline: Option<Instant>) -> Option<StopCause> {
    if writer.is_over() {
        None
    } else if cancel.is_cancelled() || writer.cancel_requested() {
        Some(StopCause::Cancelled)
    } else if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        Some(StopCause::TimedOut)
    } else {
        None
    }
}

fn start(
    spec: &RunSpec,
    run_id: &RunId,
    session_id: &SessionId,
    tracker: Option<&TrackerPlace>,
    harness: &str,
    owner: Owner,
) -> Result<Command, RunError> {
    let workflow = spec.workflow.as_ref();
    let deadline_at = spec.timeout.map(|timeout| {
        let timeout = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        TimestampMs(crate::desk::now().0.saturating_add(timeout))
    });
    let start = WorkflowStart {
        run_id: run_id.clone(),
        session_id: session_id.clone(),
        workflow_name: workflow.map(|workflow| workflow.name.clone()),
        harness: Some(harness.to_owned()),
        // The limit as it is written, though a loop that is off makes one turn.
        max_iterations: workflow
            .and_then(|workflow| workflow.loop_config.as_ref())
            .map_or(1, |config| config.max_iterations),
        tracker_path: tracker.map(|place| place.relative.clone()),
        parent_run_id: spec.parent_run_id.clone(),
        forked_at: None::<Position>,
        attempt: 1,
        deadline_at,
        owner: Some(owner),
        forked_from: None,
        iteration: 0,
        policy: None,
    };
    let mut extra =
        Extra::default().with("prompt", &spec.prompt)?.with("project_dir", &spec.project_dir.to_string_lossy())?;
    if let Some(json) = workflow.and_then(|workflow| workflow.json.as_ref()) {
        extra = extra.with("workflow", json)?;
    }
    Ok(Command::Start { start: Box::new(start), extra })
}

fn begin_iteration(turn: &Turn, instructions: Option<&Instructions>) -> Result<Command, RunError> {
    let mut extra = Extra::default().with("prompt", &turn.prompt)?;
    // They are the same in every turn, so the first one tells them.
    if let Some(instructions) = instructions.filter(|_| turn.iteration == 1) {
        extra = extra.with("instructions", &instructions.text)?;
    }
    Ok(Command::BeginIteration { continuation: turn.continuation.clone(), extra })
}

fn prompt(spec: &RunSpec, tracker: Option<&TrackerPlace>, iteration: u32) -> String {
    let Some(workflow) = &spec.workflow else {
        return spec.prompt.clone();
    };
    match (tracker, workflow.active_loop()) {
        (Some(place), Some(config)) if iteration > 1 => {
            config.continue_prompt.replace("{trackerPath}", &place.relative)
        }
        _ => workflow.prompt_template.replace("{input}", &spec.prompt),
    }
}

fn environment(
    spec: &RunSpec,
    run_id: &RunId,
    session_id: &SessionId,
    tracker: Option<&TrackerPlace>,
    iteration: u32,
) -> std::collections::BTreeMap<String, String> {
    let mut env = spec.workflow.as_ref().map(|workflow| workflow.env.clone()).unwrap_or_default();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("RUNLEDGER_RUN_ID", run_id.to_string());
    set("RUNLEDGER_SESSION", session_id.to_string());
    set("RUNLEDGER_ITERATION", iteration.to_string());
    if let Some(place) = tracker {
        set("RUNLEDGER_TRACKER", place.path.to_string_lossy().into_owned());
    }
    if let Some(ledger) = &spec.ledger {
        set("RUNLEDGER_DB", absolute(ledger).to_string_lossy().into_owned());
    }
    env
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn report(
    result: Result<TurnResult, HarnessError>,
    stopped: Option<StopCause>,
    adapter_session_id: Option<runledger_events::AdapterSessionId>,
) -> TurnReport {
    match result {
        Ok(result) => TurnReport {
            exit_code: result.exit_code,
            error: result.error,
            last_stderr: result.last_stderr,
            tokens: result.tokens,
            transport: result.transport,
            adapter_session_id,
            tracker: None,
            stopped,
        },
        Err(error) => {
            TurnReport { error: Some(error.to_string()), adapter_session_id, stopped, ..TurnReport::default() }
        }
    }
}

impl RunOutcome {
    /// The final status.
    pub fn status(&self) -> RunStatus {
        self.state.status
    }
}
