//! What becomes of each line: which stream it belongs to, whether it may go there, and the receipt or the reason.

use runledger_events::{
    EventId, EventKind, KindFacts, LogId, Metadata, RunId, RuntimeEvent, SessionId, StreamName, StreamVersion,
    WorkflowState, content_digest,
};
use runledger_store::{
    AppendError, EventLog, ExpectedVersion, LogReader, NewEvent, Read, Receipt, new_event_from_exported,
};

use super::lines::Line;

/// What became of a line.
pub(crate) enum Answer {
    Appended(u64),
    Duplicate(u64),
    Rejected(String),
}

/// A line that has been understood.
struct Taken {
    stream: StreamName,
    expected: ExpectedVersion,
    event: NewEvent,
}

/// Takes lines into a log.
pub(crate) struct Intake {
    log: EventLog,
    reader: LogReader,
    session: Option<SessionId>,
}

impl Intake {
    pub(crate) fn new(log: EventLog, session: Option<SessionId>) -> anyhow::Result<Self> {
        let reader = log.reader()?;
        Ok(Self { log, reader, session })
    }

    /// Takes a batch of lines, in order; each gets an answer.
    pub(crate) fn take(&mut self, batch: Vec<(u64, Line)>) -> anyhow::Result<Vec<(u64, Answer)>> {
        let mut answers = Vec::with_capacity(batch.len());
        let mut waiting: Vec<(u64, Taken)> = Vec::new();
        for (number, line) in batch {
            let line = match line {
                Line::Text(line) => line,
                Line::Bad(reason) => {
                    answers.push((number, Answer::Rejected(reason)));
                    continue;
                }
            };
            match self.understand(&line, &mut waiting, &mut answers)? {
                Ok(taken) => waiting.push((number, taken)),
                Err(reason) => answers.push((number, Answer::Rejected(reason))),
            }
        }
        self.append(&mut waiting, &mut answers)?;
        answers.sort_by_key(|(number, _)| *number);
        Ok(answers)
    }

    /// Reads a line. The inner error is the reason why it is not taken.
    fn understand(
        &mut self,
        line: &str,
        waiting: &mut Vec<(u64, Taken)>,
        answers: &mut Vec<(u64, Answer)>,
    ) -> anyhow::Result<Result<Taken, String>> {
        if is_exported(line) {
            // What may go into a run's stream depends on what is in it.
            self.append(waiting, answers)?;
            return self.exported(line);
        }
        let event = match RuntimeEvent::from_json(line) {
            Ok(event) => event,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if event.kind().is_workflow() {
            let reason =
                format!("{} belongs to a run's own stream; ingest the lines of `export` to copy a run", event.kind());
            return Ok(Err(reason));
        }
        let decided = match &event.facts().data {
            KindFacts::Decision(decision) => Some(decision.event_id.clone()),
            _ => None,
        };
        let own_session = || event.adapter_session_id().and_then(|id| SessionId::new(id.as_str()).ok());
        let session = match (&self.session, &decided) {
            (Some(session), _) => Some(session.clone()),
            (None, None) => own_session(),
            (None, Some(decided)) => match own_session() {
                Some(session) => Some(session),
                None => {
                    self.append(waiting, answers)?;
                    match self.session_of(decided)? {
                        Ok(session) => Some(session),
                        Err(reason) => return Ok(Err(reason)),
                    }
                }
            },
        };
        let Some(session) = session else {
            return Ok(Err("no `sessionId`: say with --session which session it belongs to".to_owned()));
        };
        let has_id = event.id().is_some();
        let metadata = Metadata { causation_id: decided, session_id: Some(session.clone()), ..Metadata::default() };
        let is_decision = event.kind() == &EventKind::Decision;
        let line_id = is_decision.then(|| decision_id(event.json())).flatten();
        let event = match NewEvent::new(event, metadata) {
            Ok(event) => event,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let event = match line_id {
            Some(line_id) if !has_id => event.with_id(line_id),
            _ => event,
        };
        Ok(Ok(Taken { stream: StreamName::session(&session), expected: ExpectedVersion::Any, event }))
    }

    /// A line of `export`: it keeps its stream, its id and its times.
    fn exported(&mut self, line: &str) -> anyhow::Result<Result<Taken, String>> {
        let (stream, version, event) = match new_event_from_exported(line) {
            Ok(exported) => exported,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let Some(run_id) = stream.run_id() else {
            return Ok(Ok(Taken { stream, expected: ExpectedVersion::Any, event }));
        };
        if let Some(reason) = self.refusal(&run_id, &stream, &event)? {
            return Ok(Err(reason));
        }
        let before = StreamVersion(version.0.saturating_sub(1));
        Ok(Ok(Taken { stream, expected: ExpectedVersion::Exact(before), event }))
    }

    /// Why an event may not go into a run's stream: the run has a runner of its own in this log.
    fn refusal(&self, run_id: &RunId, stream: &StreamName, event: &NewEvent) -> anyhow::Result<Option<String>> {
        let events = self.reader.read_stream(stream, StreamVersion::EMPTY, Read::Facts)?;
        let is_known = event.id().is_some_and(|id| events.iter().any(|known| known.id == *id));
        let owner = WorkflowState::fold(&events).and_then(|(state, _)| state.owner);
        let is_ours = |log_id: &LogId| log_id == self.log.log_id();
        // One that is there already changes nothing: the append answers with its receipt.
        if is_known || !owner.is_some_and(|owner| is_ours(&owner.log_id)) {
            return Ok(None);
        }
        Ok(Some(format!("run {run_id} is driven by its own runner; ingest does not change it")))
    }

    /// The session of the event that a decision names.
    fn session_of(&self, id: &EventId) -> anyhow::Result<Result<SessionId, String>> {
        let mut sessions: Vec<SessionId> =
            self.reader.find(id, None)?.into_iter().filter_map(|event| event.stream.session_id()).collect();
        sessions.dedup();
        Ok(match sessions.len() {
            1 => Ok(sessions.remove(0)),
            0 => Err(format!("no session has an event {id}: say with --session which one it belongs to")),
            count => Err(format!("{count} sessions have an event {id}: say with --session which one is meant")),
        })
    }

    /// Appends what is waiting: neighbours of one stream together, and one by one where they do not all fit.
    fn append(&self, waiting: &mut Vec<(u64, Taken)>, answers: &mut Vec<(u64, Answer)>) -> anyhow::Result<()> {
        let mut rest = std::mem::take(waiting).into_iter().peekable();
        while let Some((number, first)) = rest.next() {
            let (stream, expected) = (first.stream, first.expected);
            let mut numbers = vec![number];
            let mut events = vec![first.event];
            while expected == ExpectedVersion::Any
                && let Some((number, next)) =
                    rest.next_if(|(_, next)| next.stream == stream && next.expected == expected)
            {
                numbers.push(number);
                events.push(next.event);
            }
            match self.log.append(&stream, expected, events.clone()) {
                Ok(receipts) => answers.extend(numbers.into_iter().zip(receipts.iter().map(answer))),
                Err(AppendError::Storage(error)) => return Err(error.into()),
                Err(error) if events.len() == 1 => answers.push((numbers[0], Answer::Rejected(error.to_string()))),
                Err(_) => {
                    for (number, event) in numbers.into_iter().zip(events) {
                        answers.push((number, self.append_one(&stream, expected, event)?));
                    }
                }
            }
        }
        Ok(())
    }

    fn append_one(&self, stream: &StreamName, expected: ExpectedVersion, event: NewEvent) -> anyhow::Result<Answer> {
        match self.log.append(stream, expected, vec![event]) {
            Ok(receipts) => {
                Ok(receipts.first().map_or_else(|| Answer::Rejected("nothing was appended".to_owned()), answer))
            }
            Err(AppendError::Storage(error)) => Err(error.into()),
            Err(error) => Ok(Answer::Rejected(error.to_string())),
        }
    }
}

fn answer(receipt: &Receipt) -> Answer {
    let position = receipt.position.0;
    if receipt.is_duplicate { Answer::Duplicate(position) } else { Answer::Appended(position) }
}

/// Whether a line is one of `export` (or `events --json`), which no RuntimeEvent looks like.
fn is_exported(line: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Exported {
        #[serde(rename = "stream")]
        _stream: serde::de::IgnoredAny,
        #[serde(rename = "stream_version")]
        _stream_version: serde::de::IgnoredAny,
        #[serde(rename = "event")]
        _event: serde::de::IgnoredAny,
    }
    line.contains("\"stream_version\"") && serde_json::from_str::<Exported>(line).is_ok()
}

/// The id of a decision that has none: made of its text, so that the same line again is the same event.
fn decision_id(json: &str) -> Option<EventId> {
    let digest = content_digest(json.as_bytes()).to_string();
    EventId::new(format!("decision-{}", digest.get(..32)?)).ok()
}
