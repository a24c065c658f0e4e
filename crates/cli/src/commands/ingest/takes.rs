//! What becomes of each line: which stream it belongs to, whether it may go there, and the receipt or the reason.

use std::collections::HashMap;

use runledger_events::{
    EventId, EventKind, KindFacts, Metadata, RunId, RuntimeEvent, SessionId, StreamName, StreamVersion, WorkflowState,
    content_digest,
};
use runledger_store::{
    AppendError, EventLog, ExpectedVersion, LogReader, NewEvent, Read, Receipt, StreamAppend, new_event_from_exported,
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
    /// The runs met so far, and whether a runner of this log drives them.
    driven_here: HashMap<RunId, bool>,
}

impl Intake {
    pub(crate) fn new(log: EventLog, session: Option<SessionId>) -> anyhow::Result<Self> {
        let reader = log.reader()?;
        Ok(Self { log, reader, session, driven_here: HashMap::new() })
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
    fn refusal(&mut self, run_id: &RunId, stream: &StreamName, event: &NewEvent) -> anyhow::Result<Option<String>> {
        let is_driven_here = match self.driven_here.get(run_id) {
            Some(known) => *known,
            None => {
                // What this ingest itself adds to a run does not give it a runner here.
                let events = self.reader.read_stream(stream, StreamVersion::EMPTY, Read::Facts)?;
                let owner = WorkflowState::fold(&events).and_then(|(state, _)| state.owner);
                let is_driven_here = owner.is_some_and(|owner| owner.log_id == *self.log.log_id());
                self.driven_here.insert(run_id.clone(), is_driven_here);
                is_driven_here
            }
        };
        if !is_driven_here {
            return Ok(None);
        }
        // One that is there already changes nothing: the append answers with its receipt.
        let is_known = match event.id() {
            Some(id) => self.reader.position_of(stream, id)?.is_some(),
            None => false,
        };
        let reason = || format!("run {run_id} is driven by its own runner; ingest does not change it");
        Ok((!is_known).then(reason))
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

    /// Appends what is waiting, all in one transaction; one by one where they do not all fit.
    fn append(&self, waiting: &mut Vec<(u64, Taken)>, answers: &mut Vec<(u64, Answer)>) -> anyhow::Result<()> {
        let waiting = std::mem::take(waiting);
        let one = |taken: &Taken| StreamAppend {
            stream: taken.stream.clone(),
            expected: taken.expected,
            events: vec![taken.event.clone()],
        };
        match self.log.append_all(waiting.iter().map(|(_, taken)| one(taken)).collect()) {
            Ok(receipts) => {
                let numbers = waiting.iter().map(|(number, _)| *number);
                answers.extend(numbers.zip(receipts.iter().map(answer)));
            }
            Err(AppendError::Storage(error)) => return Err(error.into()),
            Err(_) => {
                for (number, Taken { stream, expected, event }) in waiting {
                    answers.push((number, self.append_one(&stream, expected, event)?));
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

/// Whether a line is one of `export`, or of `events --json`.
fn is_exported(line: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Exported {
        #[serde(rename = "stream")]
        _stream: serde::de::IgnoredAny,
        #[serde(rename = "stream_version")]
        _stream_version: serde::de::IgnoredAny,
        #[serde(rename = "event")]
        _event: serde::de::IgnoredAny,
        #[serde(rename = "recorded_at")]
        _recorded_at: serde::de::IgnoredAny,
    }
    line.contains("\"stream_version\"") && serde_json::from_str::<Exported>(line).is_ok()
}

/// The id of a decision that has none: made of its text, so that the same line again is the same event.
fn decision_id(json: &str) -> Option<EventId> {
    let digest = content_digest(json.as_bytes()).to_string();
    EventId::new(format!("decision-{}", digest.get(..32)?)).ok()
}
