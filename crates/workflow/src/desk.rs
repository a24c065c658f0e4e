//! Writing a run: steps under `Exact`, decided anew on a conflict, retried while the log does not take them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use runledger_events::{
    AdapterSessionId, EventId, KindFacts, Metadata, Position, ProcessId, RunId, RunState, RuntimeEvent, SessionId,
    StreamName, StreamVersion, TimestampMs, WorkflowIteration, WorkflowState, event_json,
};
use runledger_store::{AppendError, ExpectedVersion, NewEvent, Receipt};
use uuid::Uuid;

use crate::cancel::CancelHandle;
use crate::decide::{Command, Decided, Rejected, StopCause, TakeOver, decide};
use crate::error::RunError;
use crate::harness::{Stop, TurnDesk};
use crate::journal::Journal;
use crate::runner::RunOutcome;

/// How often the run's stream is looked at for what others wrote to it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The first pause after a failed append; each next one is twice as long, up to a second.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// The wall clock.
pub(crate) fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The run's stream, and the state that it folds to.
pub(crate) struct RunWriter {
    journal: Box<dyn Journal>,
    run_id: RunId,
    session_id: SessionId,
    stream: StreamName,
    version: StreamVersion,
    state: Option<WorkflowState>,
    first_position: Position,
    term: u64,
    patience: Duration,
    /// The event that the harness's events follow from: the iteration's start.
    cause: Option<EventId>,
    /// The last iteration begun, and where it began first.
    iteration_start: (u32, Position),
    /// Where the iteration before began first.
    previous_start: Position,
    /// How far the last turn's prompt told what was signalled, where this process began that turn.
    told_to: Option<Position>,
}

impl RunWriter {
    pub(crate) fn begin(
        journal: Box<dyn Journal>,
        run_id: RunId,
        session_id: SessionId,
        term: u64,
        patience: Duration,
    ) -> Self {
        let stream = StreamName::run(&run_id);
        Self {
            journal,
            run_id,
            session_id,
            stream,
            version: StreamVersion::EMPTY,
            state: None,
            first_position: Position::START,
            term,
            patience,
            cause: None,
            iteration_start: (0, Position::START),
            previous_start: Position::START,
            told_to: None,
        }
    }

    /// A run that is there already, as a process finds it that is to drive it from now on. Its owner is still another's.
    pub(crate) fn load(journal: Box<dyn Journal>, run_id: RunId, patience: Duration) -> Result<Self, RunError> {
        let unknown = SessionId::new(run_id.as_str())?;
        let mut writer = Self::begin(journal, run_id, unknown, u64::MAX, patience);
        writer.catch_up()?;
        if let Some(state) = &writer.state {
            writer.session_id = state.session_id.clone();
            writer.term = state.term();
        }
        Ok(writer)
    }

    /// Makes it this process's, from the decision in `take_over` on.
    ///
    /// # Errors
    /// [`RunError::Fenced`] where another process was quicker; else as [`RunWriter::step`].
    pub(crate) fn take_over(&mut self, take_over: TakeOver) -> Result<(), RunError> {
        let term_before = self.term;
        self.term = take_over.owner.term;
        let result = self.step(&Command::TakeOver(Box::new(take_over)));
        match (result, &self.state) {
            (Err(RunError::Rejected { run_id, .. }), Some(state)) if state.term() > term_before => {
                Err(RunError::Fenced { run_id, term: state.term() })
            }
            (result, _) => result,
        }
    }

    pub(crate) fn state(&self) -> Option<&WorkflowState> {
        self.state.as_ref()
    }

    pub(crate) fn journal(&self) -> &dyn Journal {
        self.journal.as_ref()
    }

    pub(crate) fn run_id(&self) -> &RunId {
        &self.run_id
    }

    /// Where the last iteration begun began first: what it asked came since.
    pub(crate) fn asked_since(&self) -> Position {
        self.iteration_start.1
    }

    /// Notes how far a turn's prompt has told what was signalled.
    pub(crate) fn has_told(&mut self, told_to: Position) {
        self.told_to = Some(told_to);
    }

    /// Where the turn before the next one began: what it was not told came since.
    pub(crate) fn untold_since(&self) -> Position {
        if let Some(told_to) = self.told_to {
            return told_to;
        }
        let is_again = self.state.as_ref().is_some_and(|state| state.iteration_was_cut);
        if is_again { self.previous_start } else { self.iteration_start.1 }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.state == RunState::Done)
    }

    pub(crate) fn cancel_requested(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.cancel_requested)
    }

    pub(crate) fn pause_requested(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.pause_requested)
    }

    /// Reads what others have written to the run since, if they have.
    pub(crate) fn look(&mut self) -> Result<(), RunError> {
        match self.journal.stream_version(&self.stream) {
            Ok(version) if version > self.version => self.catch_up(),
            Ok(_) => Ok(()),
            // The log can be looked at again; what has to be written will tell if it cannot.
            Err(error) => {
                tracing::debug!(%error, "the run's stream cannot be looked at");
                Ok(())
            }
        }
    }

    pub(crate) fn into_outcome(self) -> Result<RunOutcome, RunError> {
        let state = self.state.ok_or(RunError::Rejected { run_id: self.run_id, source: Rejected::NotBegun })?;
        Ok(RunOutcome { state, first_position: self.first_position })
    }

    /// Decides and appends, until it is on disk, or nothing is left to do because the run is over.
    pub(crate) fn step(&mut self, command: &Command) -> Result<(), RunError> {
        loop {
            let rejected = |source| RunError::Rejected { run_id: self.run_id.clone(), source };
            let decided = match decide(self.state.as_ref(), command) {
                Ok(decided) => decided,
                // Somebody else has ended the run in between; that is an answer, not a fault.
                Err(_) if self.is_over() => return Ok(()),
                Err(source) => return Err(rejected(source)),
            };
            let events = self.events(&decided)?;
            match self.append_patiently(&self.stream.clone(), ExpectedVersion::Exact(self.version), events) {
                Ok(_) => return self.catch_up(),
                Err(RunError::Append { source: AppendError::WrongExpectedVersion(_), .. }) => {
                    self.catch_up()?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what the stream has beyond what this writer knows.
    pub(crate) fn catch_up(&mut self) -> Result<(), RunError> {
        let began = Instant::now();
        let events = loop {
            match self.journal.read_stream(&self.stream, self.version) {
                Ok(events) => break events,
                Err(source) if began.elapsed() >= self.patience => {
                    return Err(RunError::Read { run_id: self.run_id.clone(), source });
                }
                Err(error) => {
                    tracing::warn!(run = %self.run_id, %error, "reading the run is tried again");
                    std::thread::sleep(RETRY_FIRST);
                }
            }
        };
        for event in &events {
            self.version = event.stream_version;
            match &mut self.state {
                None => {
                    self.state = WorkflowState::initial(event);
                    self.first_position = event.position;
                }
                Some(state) => {
                    if let Err(illegal) = state.evolve(event) {
                        tracing::warn!(run = %self.run_id, %illegal, "an event that cannot follow was left out");
                    }
                }
            }
            if let KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) = &event.facts.data {
                self.cause = Some(event.id.clone());
                if start.iteration != self.iteration_start.0 {
                    self.previous_start = self.iteration_start.1;
                    self.iteration_start = (start.iteration, event.position);
                }
            }
        }
        match &self.state {
            Some(state) if state.term() > self.term => {
                Err(RunError::Fenced { run_id: self.run_id.clone(), term: state.term() })
            }
            _ => Ok(()),
        }
    }

    /// Appends what a harness tells to the session's stream.
    fn record(
        &mut self,
        events: Vec<RuntimeEvent>,
        adapter_session_id: Option<&AdapterSessionId>,
    ) -> Result<(), RunError> {
        let stream = StreamName::session(&self.session_id);
        let new = events
            .into_iter()
            .map(|event| {
                let metadata = Metadata {
                    causation_id: self.cause.clone(),
                    correlation_id: None,
                    session_id: Some(self.session_id.clone()),
                    adapter_session_id: event.adapter_session_id().or(adapter_session_id).cloned(),
                    run_id: Some(self.run_id.clone()),
                };
                let id = new_id()?;
                Ok(NewEvent::new(event, metadata)?.or_id(|| id))
            })
            .collect::<Result<Vec<_>, RunError>>()?;
        match self.append_patiently(&stream, ExpectedVersion::Any, new.clone()) {
            // A harness that uses an id twice for different things: both are kept, the later under an id of ours.
            Err(RunError::Append { source: AppendError::IdTaken { id, .. }, .. }) => {
                tracing::warn!(run = %self.run_id, %id, "the harness used an id twice");
                for event in new {
                    self.record_one(&stream, event)?;
                }
                Ok(())
            }
            result => result.map(|_| ()),
        }
    }

    fn record_one(&mut self, stream: &StreamName, event: NewEvent) -> Result<(), RunError> {
        match self.append_patiently(stream, ExpectedVersion::Any, vec![event.clone()]) {
            Err(RunError::Append { source: AppendError::IdTaken { .. }, .. }) => {
                let id = new_id()?;
                self.append_patiently(stream, ExpectedVersion::Any, vec![event.with_id(id)]).map(|_| ())
            }
            result => result.map(|_| ()),
        }
    }

    /// Appends, again and again while storage refuses, within this writer's patience. The ids stay, so a try whose
    /// outcome was unknown is not doubled by the next.
    fn append_patiently(
        &mut self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Receipt>, RunError> {
        let began = Instant::now();
        let mut pause = RETRY_FIRST;
        loop {
            let source = match self.journal.append(stream, expected, events.clone()) {
                Ok(receipts) => return Ok(receipts),
                Err(source) => source,
            };
            let seconds = began.elapsed().as_secs();
            // Before the run's first event there is nothing to lose by giving up on a file that cannot be written.
            let is_hopeless = self.state.is_none()
                && matches!(source, AppendError::Storage(runledger_store::StorageError::ReadOnly { .. }));
            let is_of_storage = matches!(source, AppendError::Storage(_));
            if !is_of_storage || is_hopeless || began.elapsed() + pause > self.patience {
                return Err(RunError::Append { run_id: self.run_id.clone(), seconds, source });
            }
            tracing::warn!(run = %self.run_id, error = %source, "appending is tried again");
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    fn events(&self, decided: &[Decided]) -> Result<Vec<NewEvent>, RunError> {
        let mut previous = self.cause.clone();
        let mut events = Vec::with_capacity(decided.len());
        for Decided { facts, extra } in decided {
            let id = new_id()?;
            let json = event_json(&id, now(), facts, extra)?;
            let adapter_session_id = match facts {
                KindFacts::WorkflowIteration(WorkflowIteration::Session(session)) => {
                    Some(session.adapter_session_id.clone())
                }
                KindFacts::WorkflowIteration(WorkflowIteration::Deferred(deferred)) => {
                    deferred.adapter_session_id.clone()
                }
                KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => end.adapter_session_id.clone(),
                _ => None,
            };
            let metadata = Metadata {
                causation_id: previous.replace(id),
                correlation_id: None,
                session_id: Some(self.session_id.clone()),
                adapter_session_id,
                run_id: Some(self.run_id.clone()),
            };
            events.push(NewEvent::new(RuntimeEvent::from_json(&json)?, metadata)?);
        }
        Ok(events)
    }
}

pub(crate) fn new_id() -> Result<EventId, RunError> {
    Ok(EventId::new(Uuid::now_v7().to_string())?)
}

/// The desk of one turn.
pub(crate) struct Desk<'a> {
    writer: &'a mut RunWriter,
    cancel: &'a CancelHandle,
    deadline: Option<Instant>,
    looked_at: Instant,
    adapter_session_id: Option<AdapterSessionId>,
    stopped: Option<StopCause>,
    failed: Option<RunError>,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(writer: &'a mut RunWriter, cancel: &'a CancelHandle, deadline: Option<Instant>) -> Self {
        Self {
            writer,
            cancel,
            deadline,
            looked_at: Instant::now(),
            adapter_session_id: None,
            stopped: None,
            failed: None,
        }
    }

    /// The desk of a turn that goes on in a harness session which the run knows already.
    pub(crate) fn in_session(mut self, adapter_session_id: Option<AdapterSessionId>) -> Self {
        self.adapter_session_id = adapter_session_id;
        self
    }

    /// Why the turn was ended, if it was, and the harness session that it used.
    pub(crate) fn finish(mut self) -> Result<(Option<StopCause>, Option<AdapterSessionId>), RunError> {
        // What was asked for while the harness was ending counts too.
        if self.failed.is_none() && self.stopped.is_none() && self.cancel.is_cancelled() {
            self.stopped = Some(StopCause::Cancelled);
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok((self.stopped, self.adapter_session_id)),
        }
    }

    fn done(&mut self, result: Result<(), RunError>) -> Result<(), Stop> {
        result.map_err(|error| {
            self.failed.get_or_insert(error);
            Stop::Now
        })
    }

    /// Looks at the run's stream for a request to end, or another owner.
    fn look(&mut self) -> Result<(), Stop> {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let result = self.writer.look();
        self.done(result)
    }
}

impl TurnDesk for Desk<'_> {
    fn record(&mut self, events: Vec<RuntimeEvent>) -> Result<(), Stop> {
        if !events.is_empty() {
            let result = self.writer.record(events, self.adapter_session_id.as_ref());
            self.done(result)?;
        }
        self.check()
    }

    fn name_session(&mut self, id: &AdapterSessionId) -> Result<(), Stop> {
        if self.adapter_session_id.as_ref() == Some(id) {
            return Ok(());
        }
        self.adapter_session_id = Some(id.clone());
        let result = self.writer.step(&Command::NameSession(id.clone()));
        self.done(result)
    }

    fn note_process(&mut self, process: ProcessId) -> Result<(), Stop> {
        let result = self.writer.step(&Command::NoteProcess(process));
        self.done(result)?;
        self.check()
    }

    fn is_paused(&self) -> bool {
        self.writer.pause_requested()
    }

    fn check(&mut self) -> Result<(), Stop> {
        if self.failed.is_some() {
            return Err(Stop::Now);
        }
        self.look()?;
        if self.writer.is_over() {
            return Err(Stop::Now);
        }
        if self.cancel.is_cancelled() || self.writer.cancel_requested() {
            self.stopped = Some(StopCause::Cancelled);
            return Err(if self.cancel.is_killed() { Stop::Now } else { Stop::Cancelled });
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.stopped = Some(StopCause::TimedOut);
            return Err(Stop::TimedOut);
        }
        Ok(())
    }
}
