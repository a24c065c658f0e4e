//! The runner: carries one run to its end, turn by turn, and writes every step as it happens.
//!
//! Invariants: every event of the run's stream is appended under `Exact`, so a step that does not follow on what is
//! there is decided anew; a newer owner's term ends this runner; a step is done once it is on disk, never before; what
//! comes next follows from the folded state alone, so a run that is taken up goes on as it would have.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use runledger_events::{
    Position, RecordedEvent, RequestId, RequestStatus, RunId, RunState, RunStatus, SessionId, StreamName,
    StreamVersion, TimestampMs, WorkflowState,
};
use runledger_store::{EventFilter, Lease};

use crate::asked::Which;
use crate::cancel::CancelHandle;
use crate::config::WorkflowConfig;
use crate::decide::{Command, Deferral, Extra, StopCause, TakeOver, TurnReport};
use crate::desk::{Desk, RunWriter, now};
use crate::error::{HarnessError, ResumeError, RunError};
use crate::harness::{Harness, Turn, TurnResult};
use crate::journal::Journal;
use crate::owner::{current_owner, end_left_behind, is_alive};
use crate::plan::{Plan, RunSpec, recorded_program};
use crate::{asked, paths, tracker};

/// How often a runner that waits looks at its run.
const WAIT_LOOK: Duration = Duration::from_millis(50);

/// How a run that is there already is to be taken up.
#[derive(Debug, Clone)]
pub struct ResumeSpec {
    /// The ledger, for the harness's environment.
    pub ledger: Option<PathBuf>,
    /// How long appends may keep failing before the run is stopped.
    pub append_patience: Duration,
    /// Whether the runner stays where a turn ended for a question, until that is answered.
    pub waits_for_answers: bool,
    /// Whether the run is taken from an owner that is at work, or of which nothing can be known from here.
    pub takes_over: bool,
}

impl Default for ResumeSpec {
    fn default() -> Self {
        Self { ledger: None, append_patience: Duration::from_secs(30), waits_for_answers: false, takes_over: false }
    }
}

/// How a run ended, or where it waits for an answer.
#[derive(Debug, Clone)]
pub struct RunOutcome {
    /// The run's state.
    pub state: WorkflowState,
    /// The position of its first event.
    pub first_position: Position,
}

/// A run that is ready to begin, or to be taken up. Nothing was written to the log yet.
pub struct Runner {
    harness: Box<dyn Harness>,
    plan: Plan,
    is_prepared: bool,
    /// How it is to be taken up, where it is there already.
    takes_up: Option<ResumeSpec>,
    cancel: CancelHandle,
}

impl Runner {
    /// Checks what can be checked without writing anything: paths, ids, and the workflow's instructions.
    ///
    /// # Errors
    /// [`RunError::Config`] for a project directory that is none, a path outside it, or instructions that cannot be read.
    pub fn new(harness: Box<dyn Harness>, spec: RunSpec) -> Result<Self, RunError> {
        let plan = Plan::new(spec)?;
        Ok(Self { harness, plan, is_prepared: false, takes_up: None, cancel: CancelHandle::default() })
    }

    /// A runner that takes up a run which is there already: one that was interrupted, whose owner is gone, or that waits
    /// for an answer. `harness` makes the harness from the name and the program that the run recorded.
    ///
    /// Nothing is written. [`Runner::run`] makes this process the owner first, and then ends what the owner before left
    /// behind.
    ///
    /// # Errors
    /// - [`RunError::Resume`]: there is no such run, it is over, its owner is at work, or what it was to do was erased.
    /// - [`RunError::Config`], [`RunError::Harness`]: its project directory or harness is not there any more.
    pub fn resume(
        journal: &dyn Journal,
        run_id: &RunId,
        spec: ResumeSpec,
        harness: impl FnOnce(&str, Vec<String>, &std::path::Path) -> Result<Box<dyn Harness>, HarnessError>,
    ) -> Result<Self, RunError> {
        let read = |source| RunError::Read { run_id: run_id.clone(), source };
        let filter = EventFilter { stream: Some(StreamName::run(run_id)), ..EventFilter::default() };
        let events = journal.read_stream(&StreamName::run(run_id), StreamVersion::EMPTY).map_err(read)?;
        let Some((state, _)) = WorkflowState::fold(&events) else {
            return Err(ResumeError::Unknown { run_id: run_id.clone() }.into());
        };
        may_be_taken_up(&state, spec.takes_over, journal)?;
        let first = first_event(journal, &filter, &events).map_err(read)?;
        let first = first.ok_or_else(|| ResumeError::Unknown { run_id: run_id.clone() })?;
        let own = RunSpec {
            ledger: spec.ledger.clone(),
            append_patience: spec.append_patience,
            waits_for_answers: spec.waits_for_answers,
            ..RunSpec::new("", ".")
        };
        let plan = Plan::recorded(&first, &state, own)?;
        let name = state.harness.as_deref().unwrap_or("command");
        let harness = harness(name, recorded_program(&first), &plan.spec.project_dir)?;
        Ok(Self { harness, plan, is_prepared: false, takes_up: Some(spec), cancel: CancelHandle::default() })
    }

    /// The run's id.
    pub fn run_id(&self) -> &RunId {
        &self.plan.run_id
    }

    /// The run's session.
    pub fn session_id(&self) -> &SessionId {
        &self.plan.session_id
    }

    /// The tracker's path, relative to the project directory.
    pub fn tracker_path(&self) -> Option<&str> {
        self.plan.tracker.as_ref().map(|tracker| tracker.relative.as_str())
    }

    /// Where the harness works.
    pub fn project_dir(&self) -> &std::path::Path {
        &self.plan.spec.project_dir
    }

    /// The workflow, where there is one.
    pub fn workflow(&self) -> Option<&WorkflowConfig> {
        self.plan.spec.workflow.as_ref()
    }

    /// What the run's permissions are, where it has any.
    pub fn permissions(&self) -> Option<runledger_events::PermissionPolicy> {
        self.plan.spec.workflow.as_ref().and_then(WorkflowConfig::policy).and_then(|policy| policy.permissions)
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
        if !self.is_prepared {
            self.plan.write_files()?;
            self.is_prepared = true;
        }
        Ok(())
    }

    /// Carries the run to its end, or to a question that nobody is to wait for, and writes every step to the journal.
    ///
    /// # Errors
    /// - [`RunError::Config`]: tracker or instructions cannot be written; nothing is in the log.
    /// - [`RunError::Fenced`]: another owner has the run.
    /// - [`RunError::Resume`]: it may not be taken up any more; nothing was written.
    /// - [`RunError::Append`]: the log took no more; what was acknowledged is there, and the run can be resumed.
    pub fn run(mut self, journal: Box<dyn Journal>) -> Result<RunOutcome, RunError> {
        let writer = match self.takes_up.take() {
            None => self.begin(journal)?,
            Some(spec) => self.take_up(journal, &spec)?,
        };
        // Held until the run is over here, for those who cannot see this process.
        let _lease = writer.state().and_then(|state| hold(&writer, state));
        let deadline = writer.state().and_then(|state| state.deadline_at).map(until);
        Carrier { plan: self.plan, harness: self.harness, cancel: self.cancel, deadline }.carry(writer)
    }

    fn begin(&mut self, journal: Box<dyn Journal>) -> Result<RunWriter, RunError> {
        self.prepare()?;
        let owner = current_owner(1, journal.log_id());
        let mut writer = RunWriter::begin(
            journal,
            self.plan.run_id.clone(),
            self.plan.session_id.clone(),
            owner.term,
            self.plan.spec.append_patience,
        );
        writer.step(&self.plan.start(self.harness.as_ref(), owner)?)?;
        Ok(writer)
    }

    /// Makes this process the owner, then ends the harness that the owner before may have left behind.
    fn take_up(&mut self, journal: Box<dyn Journal>, spec: &ResumeSpec) -> Result<RunWriter, RunError> {
        let log_id = journal.log_id();
        let mut writer = RunWriter::load(journal, self.plan.run_id.clone(), spec.append_patience)?;
        let unknown = || ResumeError::Unknown { run_id: self.plan.run_id.clone() };
        let before = writer.state().ok_or_else(unknown)?.clone();
        may_be_taken_up(&before, spec.takes_over, writer.journal())?;
        self.prepare()?;
        let owner = current_owner(before.term() + 1, log_id);
        let waits = before.waiting_for.is_some();
        let reason = format!("taken up by process {} on {}", owner.pid, owner.host);
        // What an owner that is gone had open is begun again; one that waits for an answer is left to wait.
        if let Err(error) = writer.take_over(TakeOver { owner, is_forced: !waits, reason }) {
            // Who was quicker may be at work now, which says more.
            if let (RunError::Fenced { .. }, Some(state)) = (&error, writer.state()) {
                may_be_taken_up(state, spec.takes_over, writer.journal())?;
            }
            return Err(error);
        }
        end_left_behind(&before);
        Ok(writer)
    }
}

/// The name that the owner of a run holds in this term.
fn lease_of(state: &WorkflowState) -> String {
    format!("{}.{}", state.run_id, state.term())
}

/// Holds it. Who cannot be seen to be at work may be taken for gone, and is shut out then by the log, so that is no reason to end.
fn hold(writer: &RunWriter, state: &WorkflowState) -> Option<Lease> {
    let who = state.owner.as_ref().map(|owner| format!("process {} on {}", owner.pid, owner.host)).unwrap_or_default();
    writer.journal().hold(&lease_of(state), &who).unwrap_or_else(|error| {
        tracing::warn!(%error, "other machines cannot see that this run is at work");
        None
    })
}

/// Whether the run is one to take up: neither over, nor driven by a process that is at work. That of another host is at work as long
/// as it holds its lease, where the log's engine has such.
fn may_be_taken_up(state: &WorkflowState, takes_over: bool, journal: &dyn Journal) -> Result<(), ResumeError> {
    let run_id = || state.run_id.clone();
    if state.state == RunState::Done {
        return Err(ResumeError::Over { run_id: run_id(), status: state.status });
    }
    let owner = state.owner.as_ref().filter(|_| state.state != RunState::Idle && !takes_over);
    let is_at_work = |owner| {
        is_alive(owner).or_else(|| {
            journal.is_held(&lease_of(state)).unwrap_or_else(|error| {
                tracing::warn!(%error, "whether the run is at work on another machine cannot be known");
                None
            })
        })
    };
    match owner.map(|owner| (owner, is_at_work(owner))) {
        Some((owner, Some(true))) => {
            Err(ResumeError::Alive { run_id: run_id(), host: owner.host.clone(), pid: owner.pid })
        }
        Some((owner, None)) => {
            Err(ResumeError::OwnerUnknown { run_id: run_id(), host: owner.host.clone(), pid: owner.pid })
        }
        Some((_, Some(false))) | None => Ok(()),
    }
}

/// A stream's first event, whole.
fn first_event(
    journal: &dyn Journal,
    filter: &EventFilter,
    events: &[RecordedEvent],
) -> Result<Option<RecordedEvent>, runledger_store::ReadError> {
    let Some(first) = events.first() else {
        return Ok(None);
    };
    let before = Position(first.position.0.saturating_sub(1));
    Ok(journal.read(filter, before)?.into_iter().next())
}

/// The moment as this process's own clock has it, which never goes back.
fn until(deadline_at: TimestampMs) -> Instant {
    let left = u64::try_from(deadline_at.0.saturating_sub(now().0)).unwrap_or(0);
    Instant::now() + Duration::from_millis(left)
}

/// What drives a run whose owner this process is.
struct Carrier {
    plan: Plan,
    harness: Box<dyn Harness>,
    cancel: CancelHandle,
    deadline: Option<Instant>,
}

/// What comes next.
enum Next {
    /// A turn.
    Turn(Box<Turn>),
    /// Look again.
    Again,
    /// Nothing, until somebody answers a question.
    Leave,
}

impl Carrier {
    fn carry(mut self, mut writer: RunWriter) -> Result<RunOutcome, RunError> {
        loop {
            if let Some(cause) = self.stop_cause(&writer) {
                writer.step(&Command::Stop(cause))?;
            }
            if writer.is_over() {
                asked::withdraw(&mut writer, Which::All, "its run is over")?;
                return writer.into_outcome();
            }
            match self.next(&mut writer)? {
                Next::Turn(turn) => self.turn(&mut writer, &turn)?,
                Next::Again => {}
                Next::Leave => return writer.into_outcome(),
            }
        }
    }

    fn stop_cause(&self, writer: &RunWriter) -> Option<StopCause> {
        if writer.is_over() {
            None
        } else if self.cancel.is_cancelled() || writer.cancel_requested() {
            Some(StopCause::Cancelled)
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Some(StopCause::TimedOut)
        } else {
            None
        }
    }

    fn has_permissions(&self, writer: &RunWriter) -> bool {
        let policy = writer.state().and_then(|state| state.policy.as_deref());
        policy.is_some_and(|policy| policy.permissions.is_some())
    }

    /// What comes next, by the state that the run's events fold to.
    fn next(&mut self, writer: &mut RunWriter) -> Result<Next, RunError> {
        let Some(state) = writer.state().cloned() else {
            return Ok(Next::Leave);
        };
        if let Some(request_id) = &state.waiting_for {
            return self.after_question(writer, &state, request_id);
        }
        let is_due = state.timer.as_ref().is_none_or(|timer| timer.due_at <= now());
        if state.pause_requested || !is_due {
            return wait(writer);
        }
        let read = |source| RunError::Read { run_id: state.run_id.clone(), source };
        let retry = state.last_end.as_ref().filter(|end| end.retry.is_some());
        let denied = match retry {
            Some(end) => asked::denied_before(writer, end.position).map_err(read)?,
            None => Vec::new(),
        };
        let (signals, told_to) = asked::signals(writer).map_err(read)?;
        let turn = self.plan.turn(&state, self.harness.as_ref(), &denied, &signals);
        writer.step(&begin_iteration(&turn)?)?;
        // What comes between the look and the start is for the turn after this one.
        writer.has_told(told_to);
        // The run may have ended in between, or with this step.
        let has_begun = writer.state().is_some_and(|state| state.iteration_is_open);
        Ok(if has_begun { Next::Turn(Box::new(turn)) } else { Next::Again })
    }

    /// Once a question is answered, or cannot be any more, the harness makes the call: its hook hears the answer.
    fn after_question(
        &mut self,
        writer: &mut RunWriter,
        state: &WorkflowState,
        request_id: &RequestId,
    ) -> Result<Next, RunError> {
        let read = |source| RunError::Read { run_id: state.run_id.clone(), source };
        let question = asked::question(writer, request_id).map_err(read)?;
        let waits =
            question.is_some_and(|question| question.status == RequestStatus::Pending && !question.is_overdue(now()));
        if waits || state.pause_requested {
            return if self.plan.spec.waits_for_answers { wait(writer) } else { Ok(Next::Leave) };
        }
        let turn = self.plan.deferred_turn(state);
        writer.step(&Command::Continue)?;
        Ok(Next::Turn(Box::new(turn)))
    }

    fn turn(&mut self, writer: &mut RunWriter, turn: &Turn) -> Result<(), RunError> {
        let known =
            writer.state().filter(|_| turn.makes_deferred_call).and_then(|state| state.iteration_session.clone());
        let mut desk = Desk::new(writer, &self.cancel, self.deadline).in_session(known);
        let result = self.harness.run_turn(turn, &mut desk);
        let (stopped, adapter_session_id) = desk.finish()?;
        let deferred = result.as_ref().ok().and_then(|result| result.deferred_tool_use_id.clone());
        let mut report = report(result, stopped, adapter_session_id);
        if let Some(name) = deferred.filter(|_| stopped.is_none() && report.error.is_none()) {
            match self.deferral(writer, &report, &name)? {
                Some(deferral) => {
                    let kept = deferral.request_id.clone();
                    writer.step(&Command::Defer(Box::new(deferral)))?;
                    return asked::withdraw(writer, Which::OfTurn(Some(&kept)), "its turn is over");
                }
                None => {
                    let error =
                        format!("a hook that is not of this ledger deferred the call {name}; nobody can answer it");
                    report.error = Some(error);
                }
            }
        }
        self.read_tracker(&mut report);
        if self.has_permissions(writer) {
            let read = |source| RunError::Read { run_id: self.plan.run_id.clone(), source };
            report.denied = asked::denied(writer).map_err(read)?;
        }
        asked::withdraw(writer, Which::OfTurn(None), "its turn is over")?;
        report.at = now();
        writer.step(&Command::EndIteration(Box::new(report)))
    }

    /// The question that the turn was ended for, where it is one of this ledger.
    fn deferral(&self, writer: &RunWriter, report: &TurnReport, name: &str) -> Result<Option<Deferral>, RunError> {
        let Some(adapter_session_id) = &report.adapter_session_id else {
            return Ok(None);
        };
        let request_id = RequestId::of_call(adapter_session_id, name)?;
        let read = |source| RunError::Read { run_id: self.plan.run_id.clone(), source };
        let question = asked::question(writer, &request_id).map_err(read)?;
        Ok(question.map(|_| Deferral {
            request_id,
            tokens: report.tokens,
            adapter_session_id: report.adapter_session_id.clone(),
        }))
    }

    fn read_tracker(&self, report: &mut TurnReport) {
        let config = self.plan.spec.workflow.as_ref().and_then(WorkflowConfig::active_loop);
        let (Some(place), Some(config)) = (&self.plan.tracker, config) else {
            return;
        };
        // The agent may have put a link in its place.
        let reading = paths::inside(&self.plan.spec.project_dir, &place.relative, "trackerPath")
            .map_err(|error| error.to_string())
            .and_then(|_| {
                tracker::read(&place.path, config).map_err(|error| format!("tracker {}: {error}", place.relative))
            });
        match reading {
            Ok(reading) => report.tracker = reading,
            Err(unreadable) => {
                report.error.get_or_insert(unreadable);
            }
        }
    }
}

/// Waits a moment, then reads what others wrote to the run.
fn wait(writer: &mut RunWriter) -> Result<Next, RunError> {
    std::thread::sleep(WAIT_LOOK);
    writer.look()?;
    Ok(Next::Again)
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("plan", &self.plan).finish_non_exhaustive()
    }
}

fn begin_iteration(turn: &Turn) -> Result<Command, RunError> {
    let mut extra = Extra::default().with("prompt", &turn.prompt)?;
    // They are the same in every turn, so the first one tells them.
    if let Some(instructions) = turn.instructions.as_ref().filter(|_| turn.iteration == 1) {
        extra = extra.with("instructions", &instructions.text)?;
    }
    Ok(Command::BeginIteration { continuation: turn.continuation.clone(), extra })
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
            stopped,
            ..TurnReport::default()
        },
        Err(error) => {
            TurnReport { error: Some(error.to_string()), adapter_session_id, stopped, ..TurnReport::default() }
        }
    }
}

impl RunOutcome {
    /// How the run stands: its final status, or running where it waits for an answer.
    pub fn status(&self) -> RunStatus {
        self.state.status
    }

    /// The question that it waits for, where it does.
    pub fn waiting_for(&self) -> Option<&RequestId> {
        self.state.waiting_for.as_ref()
    }
}
