//! Whether an answer reached the harness: each is used once, also when the process that waited for it was killed.
//!
//! Whoever is about to give an answer to a harness first writes `relay.delivered` behind it, under the version of the
//! question's stream. So of two calls that could take an answer up one does; and an answer without that word was never
//! given: the next call of the same run that asks the same takes it up, or the question itself while it is pending.

use runledger_events::{
    AdapterSessionId, AskContext, EventId, EventKind, Fields, KindFacts, Metadata, OnAsk, Position, RecordedEvent,
    RelayDelivered, RelayRequest, RelayState, RequestId, RequestStatus, RunId, RuntimeEvent, StreamName, StreamVersion,
    WorkflowIteration, event_json, readable,
};
use runledger_store::{AppendError, EventFilter, ExpectedVersion, NewEvent, Read, ReadError, StreamAppend};

use crate::commands::Commands;
use crate::owner::is_process_alive;
use crate::relay::decision_event::new_event_id;
use crate::relay::{Ask, RelayLogError};

/// Events of a run that are looked at in one step back.
const STEP: usize = 16;

impl Commands {
    /// The latest question of the same iteration on the same call that nobody waits with any more and whose answer, if it
    /// has one, never reached the harness. What the turn of now has put off is waited for, and not left behind.
    ///
    /// The same call is that of the same tool with the same input, by the same actor in the same folder: what was approved
    /// for one is nothing that another may use.
    ///
    /// # Errors
    /// [`ReadError`] names the position that cannot be read.
    pub fn left_behind(&self, ask: &Ask) -> Result<Option<RelayState>, ReadError> {
        let (Some(run_id), Some(context)) = (&ask.run_id, &ask.context) else {
            return Ok(None);
        };
        let fingerprint = ask.fingerprint();
        let is_same = |request: &RelayRequest| {
            let iteration = request.context.as_ref().map(|context| context.iteration);
            request.fingerprint == fingerprint
                && request.request_id != ask.request_id
                && iteration == Some(context.iteration)
        };
        for (state, events) in self.questions_of(run_id, is_same)?.into_iter().rev() {
            let request = &state.request;
            let is_open =
                matches!(state.status, RequestStatus::Pending | RequestStatus::Allowed | RequestStatus::Denied);
            // One whose time is up is answered by that, and nobody was asked about the call of now.
            if !is_open || state.is_overdue(self.now()) || events.iter().any(is_delivered) {
                continue;
            }
            if !self.is_of_same_actor(&events, ask)? {
                continue;
            }
            let is_left = match &request.waiter {
                Some(waiter) => is_process_alive(waiter) == Some(false),
                None => state.position < self.turn_began_at(run_id)?,
            };
            if is_left && request.log_id == *self.log().log_id() {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Whether what became of a question is no answer to a call under the same name that the log was told of at `told_at`:
    /// the question was put in another run or iteration, or it was settled before, and the answer, if there was one, given.
    /// A different call of the same iteration is none that may have the name: [`Commands::ask`] refuses it.
    ///
    /// # Errors
    /// As [`Commands::left_behind`].
    pub fn is_spent(&self, state: &RelayState, ask: &Ask, told_at: Position) -> Result<bool, ReadError> {
        let iteration =
            |context: &Option<AskContext>| context.as_ref().map(|context| (context.run_id.clone(), context.iteration));
        if iteration(&state.request.context) != iteration(&ask.context) {
            return Ok(true);
        }
        if state.request.fingerprint != ask.fingerprint() {
            return Ok(false);
        }
        if state.is_overdue(self.now()) && state.request.mode == OnAsk::Wait {
            return Ok(true);
        }
        if state.settled_position.is_none_or(|settled| settled > told_at) {
            return Ok(false);
        }
        match state.status {
            RequestStatus::Pending => Ok(false),
            // Who waited was told; what was put off is told by the turn that makes the call again.
            RequestStatus::Expired | RequestStatus::Withdrawn => Ok(state.request.mode == OnAsk::Wait),
            RequestStatus::Allowed | RequestStatus::Denied => {
                let stream = StreamName::request(&state.request.request_id);
                let events = self.reader().read_stream(&stream, StreamVersion::EMPTY, Read::Facts)?;
                Ok(events.iter().any(is_delivered))
            }
        }
    }

    /// Whether a question was put by the same actor, in the same folder.
    fn is_of_same_actor(&self, question: &[RecordedEvent], ask: &Ask) -> Result<bool, ReadError> {
        let Some(first) = question.first().filter(|first| first.facts.agent_id == ask.agent_id) else {
            return Ok(false);
        };
        let whole = self.reader().read_stream_back(&first.stream, Some(StreamVersion(2)), 1, Read::All)?;
        let json = whole.first().and_then(|event| event.content.json()).unwrap_or("{}");
        let text = readable(json);
        let data = Fields::parse(&text).ok().and_then(|event| event.object("data"));
        Ok(data.is_some_and(|data| data.text("cwd") == ask.cwd))
    }

    /// Where the last turn of a run began; the log's begin where none has.
    fn turn_began_at(&self, run_id: &RunId) -> Result<Position, ReadError> {
        let stream = StreamName::run(run_id);
        let mut before: Option<StreamVersion> = None;
        loop {
            let events = self.reader().read_stream_back(&stream, before, STEP, Read::Facts)?;
            let is_begin = |event: &&RecordedEvent| {
                use WorkflowIteration::{Continued, Start};
                matches!(event.facts.data, KindFacts::WorkflowIteration(Start(_) | Continued(_)))
            };
            match (events.iter().find(is_begin), events.last()) {
                (Some(begin), _) => return Ok(begin.position),
                (None, Some(last)) => before = Some(last.stream_version),
                (None, None) => return Ok(Position::START),
            }
        }
    }

    /// Whether a harness session has put off another question, before this position, that is pending.
    ///
    /// # Errors
    /// As [`Commands::left_behind`].
    pub fn has_deferred(
        &self,
        run_id: &RunId,
        adapter_session: &AdapterSessionId,
        before: Position,
    ) -> Result<bool, ReadError> {
        let questions = self.questions_of(run_id, |request| request.mode == OnAsk::Defer)?;
        Ok(questions.iter().any(|(state, events)| {
            let is_of_session =
                events.first().is_some_and(|first| first.metadata.adapter_session_id.as_ref() == Some(adapter_session));
            is_of_session && state.status == RequestStatus::Pending && state.position < before
        }))
    }

    /// Says that an answer goes to the harness now, for the call that this event tells of. False where it went there
    /// before, or there is none.
    ///
    /// # Errors
    /// [`RelayLogError`] when the log fails: nobody has the answer then, as far as can be known.
    pub fn deliver(&self, id: &RequestId, call: &EventId) -> Result<bool, RelayLogError> {
        let stream = StreamName::request(id);
        loop {
            let events = self.reader().read_stream(&stream, StreamVersion::EMPTY, Read::Facts)?;
            let Some(state) = RelayState::fold(&events) else {
                return Ok(false);
            };
            let is_answered = matches!(state.status, RequestStatus::Allowed | RequestStatus::Denied);
            if !is_answered || events.iter().any(is_delivered) {
                return Ok(false);
            }
            let of_first = events.first().map(|first| first.metadata.clone()).unwrap_or_default();
            let append = StreamAppend {
                stream: stream.clone(),
                expected: ExpectedVersion::Exact(state.version),
                events: vec![self.delivered_event(id, call, of_first)?],
            };
            match self.log().append_all(vec![append]) {
                Ok(_) => return Ok(true),
                Err(AppendError::WrongExpectedVersion(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn delivered_event(&self, id: &RequestId, call: &EventId, of_first: Metadata) -> Result<NewEvent, RelayLogError> {
        let facts = RelayDelivered { request_id: id.clone(), event_id: call.clone() };
        let facts = KindFacts::RelayDelivered(facts);
        let json = event_json(&new_event_id()?, self.now(), &facts, &serde_json::Map::new())?;
        let metadata = Metadata { causation_id: Some(call.clone()), ..of_first };
        Ok(NewEvent::new(RuntimeEvent::from_json(&json)?, metadata)?)
    }

    /// Questions of a run with their streams, in the order in which they were put.
    fn questions_of(
        &self,
        run_id: &RunId,
        is_wanted: impl Fn(&RelayRequest) -> bool,
    ) -> Result<Vec<(RelayState, Vec<RecordedEvent>)>, ReadError> {
        let kinds = Some(vec![EventKind::RelayRequest]);
        let filter = EventFilter { run: Some(run_id.clone()), kinds, ..EventFilter::default() };
        let (mut after, up_to) = (Position::START, Position(i64::MAX.unsigned_abs()));
        let mut questions = Vec::new();
        loop {
            let batch = self.reader().read(&filter, after, up_to, usize::MAX, Read::Facts)?;
            let Some(last) = batch.events.last() else {
                return Ok(questions);
            };
            after = last.position;
            for event in &batch.events {
                if matches!(&event.facts.data, KindFacts::RelayRequest(request) if is_wanted(request)) {
                    let events = self.reader().read_stream(&event.stream, StreamVersion::EMPTY, Read::Facts)?;
                    questions.extend(RelayState::fold(&events).map(|state| (state, events)));
                }
            }
        }
    }
}

fn is_delivered(event: &RecordedEvent) -> bool {
    matches!(event.facts.data, KindFacts::RelayDelivered(_))
}
