//! What no line may change: runs that are driven in this log, questions that were put in it, and what was decided in it for
//! all runs of a workflow.

use std::collections::HashMap;

use runledger_events::{
    EventId, EventKind, KindFacts, LogId, Position, RelayState, RequestId, RequestStatus, RunId, StreamName,
    StreamVersion, WorkflowState,
};
use runledger_store::{EventFilter, LogReader, NewEvent, Read};

/// Questions read at once.
const BATCH: usize = 1024;

/// What was found out of the log so far.
#[derive(Default)]
pub(crate) struct Refusals {
    /// The runs met so far, and whether a runner of this log drives them.
    driven_here: HashMap<RunId, bool>,
    /// Whether this log drives runs at all; none while nobody asked.
    drives_runs: Option<bool>,
    /// The questions that were put in this log, by the event that they are about.
    questions: HashMap<EventId, Vec<RequestId>>,
    /// How far they are known.
    known_to: Position,
}

impl Refusals {
    /// Why an exported line may not go where it says; none where it may.
    pub(crate) fn of_exported(
        &mut self,
        reader: &LogReader,
        stream: &StreamName,
        version: StreamVersion,
        event: &NewEvent,
    ) -> anyhow::Result<Option<String>> {
        // What is there already changes nothing: the append answers with its receipt.
        if let Some(id) = event.id()
            && reader.position_of(stream, id)?.is_some()
        {
            return Ok(None);
        }
        if let Some(run_id) = stream.run_id() {
            return self.of_run(reader, stream, &run_id);
        }
        if let Some(request_id) = stream.request_id() {
            return of_question(reader, stream, &request_id, version, event);
        }
        if stream.is_rules() {
            return self.of_rules(reader, stream);
        }
        match event.facts().map(|facts| facts.data) {
            Ok(KindFacts::Decision(decision)) => self.of_decision(reader, &decision.event_id),
            _ => Ok(None),
        }
    }

    /// Why an event may not go into a run's stream: the run has a runner of its own in this log.
    fn of_run(&mut self, reader: &LogReader, stream: &StreamName, run_id: &RunId) -> anyhow::Result<Option<String>> {
        let is_driven_here = match self.driven_here.get(run_id) {
            Some(known) => *known,
            None => {
                // What this ingest itself adds to a run does not give it a runner here.
                let events = reader.read_stream(stream, StreamVersion::EMPTY, Read::Facts)?;
                let owner = WorkflowState::fold(&events).and_then(|(state, _)| state.owner);
                let is_driven_here = owner.is_some_and(|owner| owner.log_id == *reader.log_id());
                self.driven_here.insert(run_id.clone(), is_driven_here);
                is_driven_here
            }
        };
        let reason = || format!("run {run_id} is driven by its own runner; ingest does not change it");
        Ok(is_driven_here.then(reason))
    }

    /// Why a decision for all runs of a workflow is not taken in: this log has runs of its own, which it would reach.
    fn of_rules(&mut self, reader: &LogReader, stream: &StreamName) -> anyhow::Result<Option<String>> {
        let drives_runs = match self.drives_runs {
            Some(known) => known,
            None => drives_runs(reader)?,
        };
        self.drives_runs = Some(drives_runs);
        let reason = || {
            format!(
                "{stream} holds for runs of this ledger; ingest adds no decision to it: `runledger allow` and `deny` do, \
                 with --always"
            )
        };
        Ok(drives_runs.then(reason))
    }

    /// Why a decision is not taken in: it is on what was asked here, and waits for an answer.
    pub(crate) fn of_decision(&mut self, reader: &LogReader, event_id: &EventId) -> anyhow::Result<Option<String>> {
        self.learn(reader)?;
        for id in self.questions.get(event_id).into_iter().flatten() {
            let events = reader.read_stream(&StreamName::request(id), StreamVersion::EMPTY, Read::Facts)?;
            if RelayState::fold(&events).is_some_and(|state| state.status == RequestStatus::Pending) {
                return Ok(Some(format!(
                    "{event_id} waits for an answer as request {id}; ingest does not answer it: `runledger allow` and \
                     `runledger deny` do"
                )));
            }
        }
        Ok(None)
    }

    /// Reads on what was asked in this log.
    fn learn(&mut self, reader: &LogReader) -> anyhow::Result<()> {
        let filter = EventFilter { kinds: Some(vec![EventKind::RelayRequest]), ..EventFilter::default() };
        let head = reader.head()?.position;
        while self.known_to < head {
            let batch = reader.read(&filter, self.known_to, head, BATCH, Read::Facts)?;
            for state in batch.events.iter().filter_map(RelayState::initial) {
                if state.request.log_id == *reader.log_id() {
                    self.questions.entry(state.request.event_id).or_default().push(state.request.request_id);
                }
            }
            self.known_to = batch.scanned_to;
        }
        Ok(())
    }
}

/// Why an event may not go into a question's stream: it was put in this log, or nothing was put there.
fn of_question(
    reader: &LogReader,
    stream: &StreamName,
    id: &RequestId,
    version: StreamVersion,
    event: &NewEvent,
) -> anyhow::Result<Option<String>> {
    let is_of_this_log = |log_id: &LogId| log_id == reader.log_id();
    let own = || format!("request {id} was put in this ledger; ingest neither puts nor answers it");
    if version == StreamVersion(1) {
        return Ok(match event.facts().map(|facts| facts.data) {
            Ok(KindFacts::RelayRequest(request)) => is_of_this_log(&request.log_id).then(own),
            _ => Some(format!("the stream of request {id} has to begin with the question, a relay.request")),
        });
    }
    let first = reader.read_stream(stream, StreamVersion::EMPTY, Read::Facts)?;
    let state = first.first().and_then(RelayState::initial);
    Ok(state.filter(|state| is_of_this_log(&state.request.log_id)).map(|_| own()))
}

/// Whether a runner of this log ever drove a run.
fn drives_runs(reader: &LogReader) -> anyhow::Result<bool> {
    let kinds = Some(vec![EventKind::WorkflowStart, EventKind::WorkflowTransition]);
    let filter = EventFilter { kinds, ..EventFilter::default() };
    let (mut after, head) = (Position::START, reader.head()?.position);
    while after < head {
        let batch = reader.read(&filter, after, head, BATCH, Read::Facts)?;
        let is_here = batch.events.iter().any(|event| {
            let owner = match &event.facts.data {
                KindFacts::WorkflowStart(start) => start.owner.as_ref(),
                KindFacts::WorkflowTransition(transition) => transition.owner.as_ref(),
                _ => None,
            };
            owner.is_some_and(|owner| owner.log_id == *reader.log_id())
        });
        if is_here {
            return Ok(true);
        }
        after = batch.scanned_to;
    }
    Ok(false)
}
