//! What a run is to do, turn by turn: its prompt, its place, its tracker, its instructions; from a request or, for a run
//! that is taken up again, from its first event.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runledger_events::{
    Continuation, Fields, Owner, RecordedEvent, RetryReason, RunId, SessionId, TimestampMs, WorkflowStart,
    WorkflowState, as_text, readable,
};
use runledger_store::absolute_place;
use uuid::Uuid;

use crate::config::WorkflowConfig;
use crate::decide::{Command, Extra};
use crate::error::{ConfigError, ResumeError, RunError};
use crate::harness::{Harness, Instructions, Turn};
use crate::instructions::{compose, substitute};
use crate::{instructions, paths, tracker};

/// What a retry's prompt says where the workflow has no words of its own.
const DENIED_FEEDBACK: &str = "In the turn before, this was denied:\n{denied}\nDo not try it again in the same way: find another, or say in \
     the end what you need.";
/// What stands before the prompt of a turn that was cut off, where the harness still knows what it did.
const CUT_OFF: &str = "(This turn was cut off before it ended. Look at what is done already, and go on from there.)";
/// What stands before the prompt of another try of a turn that failed.
const FAILED: &str = "(The turn before failed. Look at what is done already, and go on from there.)";

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
    /// Whether the runner stays where a turn ended for a question, until that is answered; else it leaves.
    pub waits_for_answers: bool,
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
            waits_for_answers: false,
        }
    }
}

/// Where the tracker is.
#[derive(Debug, Clone)]
pub(crate) struct TrackerPlace {
    pub(crate) relative: String,
    pub(crate) path: PathBuf,
}

/// What a run does, whoever drives it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) run_id: RunId,
    pub(crate) session_id: SessionId,
    pub(crate) spec: RunSpec,
    pub(crate) tracker: Option<TrackerPlace>,
    pub(crate) instructions: Option<Instructions>,
}

impl Plan {
    /// Of a new run.
    ///
    /// # Errors
    /// [`ConfigError`] for a project directory that is none, a path outside it, or instructions that cannot be read.
    pub(crate) fn new(mut spec: RunSpec) -> Result<Self, RunError> {
        let run_id = RunId::new(Uuid::now_v7().to_string())?;
        let session_id = match spec.session_id.take() {
            Some(session_id) => session_id,
            None => SessionId::new(Uuid::now_v7().to_string())?,
        };
        Self::of(run_id, session_id, spec, None)
    }

    /// Of a run that is there already. `spec` says what is this process's own: the ledger, its patience.
    ///
    /// # Errors
    /// [`ResumeError`] where its first event does not say any more what it was to do; else as [`Plan::new`].
    pub(crate) fn recorded(first: &RecordedEvent, state: &WorkflowState, spec: RunSpec) -> Result<Self, RunError> {
        let run_id = state.run_id.clone();
        let erased = || ResumeError::Erased { run_id: run_id.clone() };
        let text = readable(first.content.json().ok_or_else(erased)?);
        let damaged = |source| ResumeError::Damaged { run_id: run_id.clone(), source };
        let data = Fields::parse(&text).map_err(damaged)?.object("data").ok_or_else(erased)?;
        let workflow = data.raw("workflow").map(WorkflowConfig::parse).transpose().map_err(damaged)?;
        let project_dir = data.text("project_dir").ok_or_else(erased)?;
        let spec = RunSpec {
            prompt: data.text("prompt").ok_or_else(erased)?,
            project_dir: project_dir.into(),
            workflow,
            session_id: None,
            parent_run_id: state.parent_run_id.clone(),
            continuation: data
                .raw("continuation")
                .map(serde_json::from_str)
                .transpose()
                .map_err(damaged)?
                .unwrap_or(Continuation::Fresh),
            timeout: None,
            ..spec
        };
        Self::of(run_id, state.session_id.clone(), spec, state.tracker_path.clone())
    }

    fn of(
        run_id: RunId,
        session_id: SessionId,
        mut spec: RunSpec,
        tracker_path: Option<String>,
    ) -> Result<Self, RunError> {
        spec.project_dir = spec
            .project_dir
            .canonicalize()
            .map_err(|source| ConfigError::ProjectDir { path: spec.project_dir.clone(), source })?;
        if !spec.project_dir.is_dir() {
            let source = std::io::ErrorKind::NotADirectory.into();
            return Err(ConfigError::ProjectDir { path: spec.project_dir, source }.into());
        }
        let tracker = match spec.workflow.as_ref().and_then(WorkflowConfig::active_loop) {
            None => None,
            Some(config) => {
                let relative =
                    tracker_path.unwrap_or_else(|| substitute(&config.tracker_path, session_id.as_str(), None));
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
        Ok(Self { run_id, session_id, spec, tracker, instructions })
    }

    /// Writes what the harness will need: the tracker's skeleton, where there is no tracker yet, and the instructions.
    ///
    /// # Errors
    /// [`ConfigError`] names the file that cannot be written.
    pub(crate) fn write_files(&self) -> Result<(), ConfigError> {
        if let Some(place) = &self.tracker {
            tracker::create(&place.path, &place.relative, self.session_id.as_str(), &self.spec.prompt)?;
        }
        if let Some(instructions) = &self.instructions {
            instructions::write(instructions)?;
        }
        Ok(())
    }

    /// The command that begins the run.
    pub(crate) fn start(&self, harness: &dyn Harness, owner: Owner) -> Result<Command, RunError> {
        let workflow = self.spec.workflow.as_ref();
        let deadline_at = self.spec.timeout.map(|timeout| {
            let timeout = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
            TimestampMs(crate::desk::now().0.saturating_add(timeout))
        });
        let start = WorkflowStart {
            run_id: self.run_id.clone(),
            session_id: self.session_id.clone(),
            workflow_name: workflow.map(|workflow| workflow.name.clone()),
            harness: Some(harness.name().to_owned()),
            // The limit as it is written, though a loop that is off makes one turn.
            max_iterations: workflow
                .and_then(|workflow| workflow.loop_config.as_ref())
                .map_or(1, |config| config.max_iterations),
            tracker_path: self.tracker.as_ref().map(|place| place.relative.clone()),
            parent_run_id: self.spec.parent_run_id.clone(),
            forked_at: None,
            attempt: 1,
            deadline_at,
            owner: Some(owner),
            forked_from: None,
            iteration: 0,
            policy: workflow.and_then(WorkflowConfig::policy),
        };
        let mut extra = Extra::default()
            .with("prompt", &self.spec.prompt)?
            .with("project_dir", &self.spec.project_dir.to_string_lossy())?;
        if self.spec.continuation != Continuation::Fresh {
            extra = extra.with("continuation", &self.spec.continuation)?;
        }
        let program = harness.program();
        if !program.is_empty() {
            extra = extra.with("program", &program)?;
        }
        if let Some(json) = workflow.and_then(|workflow| workflow.json.as_ref()) {
            extra = extra.with("workflow", json)?;
        }
        Ok(Command::Start { start: Box::new(start), extra })
    }

    /// The turn that begins the next iteration. `denied` is what the iteration before was denied, where this one is
    /// another try of it; `signals` are to be told.
    pub(crate) fn turn(
        &self,
        state: &WorkflowState,
        harness: &dyn Harness,
        denied: &[String],
        signals: &[String],
    ) -> Turn {
        let iteration = if state.iteration_was_cut { state.iteration } else { state.iteration + 1 };
        let retry = state.last_end.as_ref().and_then(|end| end.retry.as_ref());
        let session = state.iteration_session.as_ref().filter(|_| harness.resumes_sessions());
        let takes_up = state.iteration_was_cut || retry.is_some();
        let continuation = match session.filter(|_| takes_up) {
            Some(session) => Continuation::Resume { handle: session.to_string() },
            // Its session had no name yet: it is begun as it was.
            None if state.iteration_was_cut => state.iteration_continuation.clone(),
            None if iteration == 1 => self.spec.continuation.clone(),
            None => Continuation::Fresh,
        };
        // A retry is told what the iteration was that it is another try of: it does not count.
        let retries = state.carried.retries + u32::from(retry.is_some() && !state.iteration_was_cut);
        let mut prompt = self.prompt(iteration.saturating_sub(retries));
        if state.iteration_was_cut && matches!(continuation, Continuation::Resume { .. }) {
            prompt = format!("{CUT_OFF}\n\n{prompt}");
        } else if let Some(retry) = retry {
            prompt = match retry.why {
                RetryReason::Denied => format!("{prompt}\n\n{}", self.feedback(denied)),
                RetryReason::Failed => format!("{FAILED}\n\n{prompt}"),
            };
        }
        if !signals.is_empty() {
            prompt = format!("{prompt}\n\nSignals that came meanwhile:\n- {}", signals.join("\n- "));
        }
        self.turn_of(iteration, prompt, continuation)
    }

    /// The turn that makes the call which the iteration's last turn was ended for.
    pub(crate) fn deferred_turn(&self, state: &WorkflowState) -> Turn {
        let continuation = match &state.iteration_session {
            Some(session) => Continuation::Resume { handle: session.to_string() },
            None => Continuation::ReuseCurrent,
        };
        Turn { makes_deferred_call: true, ..self.turn_of(state.iteration, String::new(), continuation) }
    }

    fn turn_of(&self, iteration: u32, prompt: String, continuation: Continuation) -> Turn {
        Turn {
            iteration,
            prompt,
            continuation,
            instructions: self.instructions.clone(),
            model: self.spec.workflow.as_ref().and_then(|workflow| workflow.model.clone()),
            env: self.environment(iteration),
            project_dir: self.spec.project_dir.clone(),
            makes_deferred_call: false,
        }
    }

    fn feedback(&self, denied: &[String]) -> String {
        let permissions =
            self.spec.workflow.as_ref().and_then(WorkflowConfig::policy).and_then(|policy| policy.permissions);
        let feedback =
            permissions.and_then(|permissions| permissions.on_deny).and_then(|on_deny| on_deny.retry.feedback);
        let list = match denied {
            [] => "- a call (what it was is not known any more)".to_owned(),
            denied => format!("- {}", denied.join("\n- ")),
        };
        match feedback {
            Some(words) if words.contains("{denied}") => words.replace("{denied}", &list),
            Some(words) => format!("{words}\n{list}"),
            None => DENIED_FEEDBACK.replace("{denied}", &list),
        }
    }

    /// The prompt of an iteration, counted without retries.
    fn prompt(&self, counted: u32) -> String {
        let Some(workflow) = &self.spec.workflow else {
            return self.spec.prompt.clone();
        };
        match (&self.tracker, workflow.active_loop()) {
            (Some(place), Some(config)) if counted > 1 => {
                config.continue_prompt.replace("{trackerPath}", &place.relative)
            }
            _ => workflow.prompt_template.replace("{input}", &self.spec.prompt),
        }
    }

    fn environment(&self, iteration: u32) -> BTreeMap<String, String> {
        let mut env = self.spec.workflow.as_ref().map(|workflow| workflow.env.clone()).unwrap_or_default();
        let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
        set("RUNLEDGER_RUN_ID", self.run_id.to_string());
        set("RUNLEDGER_SESSION", self.session_id.to_string());
        set("RUNLEDGER_ITERATION", iteration.to_string());
        if let Some(place) = &self.tracker {
            set("RUNLEDGER_TRACKER", place.path.to_string_lossy().into_owned());
        }
        if let Some(ledger) = &self.spec.ledger {
            set("RUNLEDGER_DB", absolute(ledger).to_string_lossy().into_owned());
        }
        env
    }
}

/// The program and its arguments that a run's first event names; none for harnesses whose name says what to run.
pub(crate) fn recorded_program(first: &RecordedEvent) -> Vec<String> {
    let text = readable(first.content.json().unwrap_or("{}"));
    let data = Fields::parse(&text).ok().and_then(|fields| fields.object("data")).unwrap_or_default();
    data.list("program").unwrap_or_default().into_iter().filter_map(as_text).collect()
}

fn absolute(path: &Path) -> PathBuf {
    absolute_place(path).unwrap_or_else(|_| path.to_owned())
}
