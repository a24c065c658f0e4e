//! Signals to a run, from any process: to end, to wait, to go on, or by any other name.

use runledger_events::{
    EventId, Metadata, ObjectText, RunId, RunState, RunStatus, RuntimeEvent, StreamName, WorkflowState,
};
use runledger_store::{ExpectedVersion, NewEvent, Read, Receipt};

use super::Commands;
use crate::asked;
use crate::decide::{Command, StopCause, TakeOver};
use crate::desk::{RunWriter, new_id, now};
use crate::error::{CommandError, RunError};
use crate::journal::LedgerJournal;
use crate::owner::{current_owner, end_left_behind, is_alive};

/// What a run is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// End.
    Cancel,
    /// Rest: the harness is stopped where it is, and no other turn begins.
    Pause,
    /// Go on.
    Resume,
    /// Anything else: the next turn's prompt tells it.
    Named {
        /// Its name.
        name: String,
        /// What belongs to it, as JSON text.
        data: Option<String>,
    },
}

impl Signal {
    /// The signal of this name, with `data` as JSON text; `pause` and `resume` take none.
    pub fn of(name: &str, data: Option<String>) -> Self {
        match name {
            "cancel" => Self::Cancel,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            name => Self::Named { name: name.to_owned(), data },
        }
    }

    /// The signal as the event that tells it.
    fn json(&self, id: &EventId, run_id: &RunId, by: &str) -> String {
        let intent = match self {
            Self::Cancel => ObjectText::new().text("kind", "workflow_cancel"),
            Self::Pause => ObjectText::new().text("kind", "workflow_pause"),
            Self::Resume => ObjectText::new().text("kind", "workflow_resume"),
            Self::Named { name, data } => ObjectText::new()
                .text("kind", "workflow_signal")
                .text("name", name.as_str())
                .raw("data", data.as_deref()),
        };
        let decision = ObjectText::new()
            .text("type", "json")
            .text("source", "user")
            .text("by", by)
            .raw("intent", intent.finish().as_str());
        let data = ObjectText::new().text("eventId", run_id.as_str()).raw("decision", decision.finish().as_str());
        ObjectText::new()
            .text("id", id.as_str())
            .raw("timestamp", now().to_string().as_str())
            .text("kind", "decision")
            .raw("data", data.finish().as_str())
            .finish()
    }
}

/// What became of a request to end a run.
#[derive(Debug, Clone)]
pub struct Cancelled {
    /// The events that ask for it, or that tell the end.
    pub receipts: Vec<Receipt>,
    /// Whether the run is over; else the process that drives it ends it now.
    pub is_over: bool,
}

impl Commands {
    /// Tells a run something. The process that drives it acts on it within 200 ms; one that takes it up later does too.
    ///
    /// # Errors
    /// [`CommandError`]: there is no such run, or it is over; nothing was appended.
    pub fn signal(&self, run_id: &RunId, signal: &Signal, by: &str) -> Result<Receipt, CommandError> {
        let state = self.open_run(run_id)?;
        let id = new_id().map_err(CommandError::Run)?;
        let event = RuntimeEvent::from_json(&signal.json(&id, run_id, by))?;
        let metadata = Metadata {
            session_id: Some(state.session_id.clone()),
            run_id: Some(run_id.clone()),
            ..Metadata::default()
        };
        let event = NewEvent::new(event, metadata)?;
        let mut receipts = self.log.append(&StreamName::run(run_id), ExpectedVersion::StreamExists, vec![event])?;
        receipts.pop().ok_or_else(|| CommandError::Unknown { run_id: run_id.clone() })
    }

    /// Asks a run to end. One that nobody drives is ended at once, and so is the harness that its owner left behind.
    ///
    /// # Errors
    /// As [`Commands::signal`]; [`CommandError::Run`] where it could be asked, but not be ended.
    pub fn cancel(&self, run_id: &RunId, by: &str) -> Result<Cancelled, CommandError> {
        let mut receipts = vec![self.signal(run_id, &Signal::Cancel, by)?];
        let (mut writer, state) = self.writer(run_id)?;
        if state.state == RunState::Done || !is_unowned(&state) {
            return Ok(Cancelled { receipts, is_over: state.state == RunState::Done });
        }
        let owner = current_owner(state.term() + 1, self.log.log_id().clone());
        let reason = "nobody drives it; ended by a request to cancel".to_owned();
        match writer.take_over(TakeOver { owner, is_forced: true, reason }) {
            Ok(()) => {}
            // Somebody drives it after all, and hears of the request.
            Err(RunError::Fenced { .. }) => return Ok(Cancelled { receipts, is_over: writer.is_over() }),
            Err(error) => return Err(error.into()),
        }
        end_left_behind(&state);
        writer.step(&Command::Stop(StopCause::Cancelled))?;
        asked::withdraw(&mut writer, asked::Which::All, "its run is over")?;
        let told = self.reader.read_stream(&StreamName::run(run_id), receipts[0].stream_version, Read::Facts)?;
        receipts.extend(told.into_iter().map(|event| Receipt {
            position: event.position,
            stream_version: event.stream_version,
            event_id: event.id,
            recorded_at: event.recorded_at,
            is_duplicate: false,
        }));
        Ok(Cancelled { receipts, is_over: true })
    }

    /// Tells of a run whose owner is gone that it was interrupted. Gives the event, or nothing where the run is driven, is
    /// over, waits for an answer that nobody has to wait for, or where nothing can be known of its owner from here.
    ///
    /// # Errors
    /// [`CommandError`]; nothing was appended.
    pub fn interrupt_if_abandoned(&self, run_id: &RunId) -> Result<Option<WorkflowState>, CommandError> {
        let (mut writer, state) = self.writer(run_id)?;
        let owner = state.owner.as_ref().filter(|owner| is_alive(owner) == Some(false));
        let (Some(owner), None, false) = (owner, &state.waiting_for, is_at_rest(&state)) else {
            return Ok(None);
        };
        let reason = format!("its owner, process {} on {}, is gone", owner.pid, owner.host);
        match writer.step(&Command::Interrupt(reason)) {
            Ok(()) => Ok(writer.state().cloned()),
            // Somebody was quicker.
            Err(RunError::Fenced { .. } | RunError::Rejected { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The state of a run that is not over.
    fn open_run(&self, run_id: &RunId) -> Result<WorkflowState, CommandError> {
        let state = self.run_state(run_id)?;
        if state.state == RunState::Done {
            return Err(CommandError::Over { run_id: run_id.clone(), status: state.status });
        }
        Ok(state)
    }

    /// The state of a run.
    ///
    /// # Errors
    /// [`CommandError::Unknown`] where there is none.
    pub fn run_state(&self, run_id: &RunId) -> Result<WorkflowState, CommandError> {
        let events =
            self.reader.read_stream(&StreamName::run(run_id), runledger_events::StreamVersion::EMPTY, Read::Facts)?;
        let state = WorkflowState::fold(&events).map(|(state, _)| state);
        state.ok_or_else(|| CommandError::Unknown { run_id: run_id.clone() })
    }

    /// A writer of a run, in the term that it is in: who takes it over meanwhile shuts it out.
    fn writer(&self, run_id: &RunId) -> Result<(RunWriter, WorkflowState), CommandError> {
        let journal = Box::new(LedgerJournal::open(self.log.clone())?);
        let writer = RunWriter::load(journal, run_id.clone(), std::time::Duration::ZERO)?;
        let state = writer.state().cloned().ok_or_else(|| CommandError::Unknown { run_id: run_id.clone() })?;
        Ok((writer, state))
    }
}

/// Whether the run is over, or known to be driven by nobody.
fn is_at_rest(state: &WorkflowState) -> bool {
    matches!(state.state, RunState::Idle | RunState::Done) || state.status == RunStatus::Interrupted
}

/// Whether nobody drives the run, as far as can be known from here.
fn is_unowned(state: &WorkflowState) -> bool {
    is_at_rest(state) || state.owner.as_ref().is_none_or(|owner| is_alive(owner) == Some(false))
}
