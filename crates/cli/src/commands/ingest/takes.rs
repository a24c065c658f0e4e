//! What becomes of each line: which stream it belongs to, whether it may go there, and the receipt or the reason.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use runledger_adapters::{LineAdapter, redact_secrets};
use runledger_events::{
    EventId, EventKind, KindFacts, Metadata, RuntimeEvent, SessionId, StreamName, StreamVersion, content_digest,
};
use runledger_store::{
    AppendError, EventLog, ExpectedVersion, LogReader, NewEvent, Receipt, StreamAppend, new_event_from_exported,
};

use serde_json::value::RawValue;

use super::homes::Homes;
use super::lines::Line;
use super::refusals::Refusals;

/// Events that may wait for a file to name its session, at the most.
const HELD_MAX: usize = 4096;

/// What became of a line: its events, counted.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Appended now.
    pub(crate) appended: u64,
    /// There already.
    pub(crate) duplicates: u64,
    /// Where the last of its events stands.
    pub(crate) position: Option<u64>,
    /// Why the line, or one of its events, was not taken.
    pub(crate) rejected: Option<String>,
}

/// An event that has been understood.
struct Taken {
    stream: StreamName,
    expected: ExpectedVersion,
    event: NewEvent,
}

/// What becomes of the lines of a batch, by their numbers.
type Answers = BTreeMap<u64, Answer>;

/// Takes lines into a log.
pub(crate) struct Intake {
    log: Arc<dyn EventLog>,
    reader: LogReader,
    session: Option<SessionId>,
    homes: Homes,
    /// Whether secrets are taken out of every line.
    redacts_secrets: bool,
    /// What translates the lines of the file at hand; none for RuntimeEvents as they are.
    adapter: Option<Box<dyn LineAdapter>>,
    /// The session that the file at hand named last.
    named: Option<SessionId>,
    /// Events from before the file named its session.
    held: Vec<(u64, RuntimeEvent)>,
    waiting: Vec<(u64, Taken)>,
    refusals: Refusals,
}

impl Intake {
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        session: Option<SessionId>,
        homes: Homes,
        redacts_secrets: bool,
    ) -> anyhow::Result<Self> {
        let reader = log.reader()?;
        Ok(Self {
            log,
            reader,
            session,
            homes,
            redacts_secrets,
            adapter: None,
            named: None,
            held: Vec::new(),
            waiting: Vec::new(),
            refusals: Refusals::default(),
        })
    }

    /// Begins a file.
    pub(crate) fn begin_file(&mut self, adapter: Option<Box<dyn LineAdapter>>) {
        self.adapter = adapter;
        self.named = None;
    }

    /// Takes a batch of lines, in order; answers those that are decided: one that has to wait is answered later.
    pub(crate) fn take(&mut self, batch: Vec<(u64, Line)>) -> anyhow::Result<Answers> {
        let mut answers = Answers::new();
        for (number, line) in batch {
            let line = match line {
                Line::Text(line) if self.redacts_secrets => without_secrets(line),
                Line::Text(line) => line,
                Line::Bad(reason) => {
                    reject(&mut answers, number, reason);
                    continue;
                }
            };
            if self.adapter.is_some() {
                self.translate(number, &line, &mut answers)?;
                continue;
            }
            match self.understand(&line, &mut answers)? {
                Ok(taken) => self.waiting.push((number, taken)),
                Err(reason) => reject(&mut answers, number, reason),
            }
        }
        self.give_times();
        self.append(&mut answers)?;
        Ok(answers)
    }

    /// Lines at the beginning of a recording that name no time are as old as the first line that does, where it is near.
    fn give_times(&mut self) {
        let first = self.waiting.iter().find_map(|(_, taken)| taken.event.occurred_at());
        if let Some(first) = first.filter(|_| self.adapter.is_some()) {
            let waiting = std::mem::take(&mut self.waiting);
            let timed =
                |(number, taken): (u64, Taken)| (number, Taken { event: taken.event.or_occurred_at(first), ..taken });
            self.waiting = waiting.into_iter().map(timed).collect();
        }
    }

    /// Ends a file: what still waits for its session never learns it.
    pub(crate) fn end_file(&mut self) -> Answers {
        let mut answers = Answers::new();
        for (number, _) in std::mem::take(&mut self.held) {
            let reason = "nothing in this file names a session: say with --session which one it belongs to";
            reject(&mut answers, number, reason.to_owned());
        }
        answers
    }

    /// Takes a harness's line.
    fn translate(&mut self, number: u64, line: &str, answers: &mut Answers) -> anyhow::Result<()> {
        let Some(adapter) = &mut self.adapter else {
            return Ok(());
        };
        let events = match adapter.line(line, None) {
            Ok(events) => events,
            Err(error) => {
                reject(answers, number, error.to_string());
                return Ok(());
            }
        };
        for event in events {
            let session = match (&self.session, event.adapter_session_id(), &self.named) {
                (Some(session), ..) => session.clone(),
                (None, Some(adapter_session), _) => self.homes.of(adapter_session)?,
                (None, None, Some(named)) => named.clone(),
                (None, None, None) if self.held.len() < HELD_MAX => {
                    self.held.push((number, event));
                    continue;
                }
                (None, None, None) => {
                    reject(answers, number, "no session is named up to here: say with --session which".to_owned());
                    continue;
                }
            };
            self.named = Some(session.clone());
            for (number, event) in std::mem::take(&mut self.held) {
                self.wait(number, event, &session, answers);
            }
            self.wait(number, event, &session, answers);
        }
        Ok(())
    }

    fn wait(&mut self, number: u64, event: RuntimeEvent, session: &SessionId, answers: &mut Answers) {
        let metadata = Metadata { session_id: Some(session.clone()), ..Metadata::default() };
        match NewEvent::new(event, metadata) {
            Ok(event) => {
                let stream = StreamName::session(session);
                self.waiting.push((number, Taken { stream, expected: ExpectedVersion::Any, event }));
            }
            Err(error) => reject(answers, number, error.to_string()),
        }
    }

    /// Reads a line of RuntimeEvents. The inner error is the reason why it is not taken.
    fn understand(&mut self, line: &str, answers: &mut Answers) -> anyhow::Result<Result<Taken, String>> {
        if is_exported(line) {
            return self.exported(line);
        }
        let event = match RuntimeEvent::from_json(line) {
            Ok(event) => event,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if let Some(owner) = owner_of(event.kind()) {
            let reason =
                format!("{} belongs to {owner}'s own stream; ingest the lines of `export` to copy one", event.kind());
            return Ok(Err(reason));
        }
        let decided = match &event.facts().data {
            KindFacts::Decision(decision) => Some(decision.event_id.clone()),
            _ => None,
        };
        if let Some(decided) = &decided
            && let Some(reason) = self.refusals.of_decision(&self.reader, decided)?
        {
            return Ok(Err(reason));
        }
        let own_session = || event.adapter_session_id().and_then(|id| SessionId::new(id.as_str()).ok());
        let session = match (&self.session, &decided) {
            (Some(session), _) => Some(session.clone()),
            (None, None) => own_session(),
            (None, Some(decided)) => match own_session() {
                Some(session) => Some(session),
                None => {
                    self.append(answers)?;
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
        if let Some(reason) = self.refusals.of_exported(&self.reader, &stream, version, &event)? {
            return Ok(Err(reason));
        }
        // What a run or a question comes to hangs on the order of its events.
        let expected = if stream.run_id().is_some() || stream.request_id().is_some() {
            ExpectedVersion::Exact(StreamVersion(version.0.saturating_sub(1)))
        } else {
            ExpectedVersion::Any
        };
        Ok(Ok(Taken { stream, expected, event }))
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
    fn append(&mut self, answers: &mut Answers) -> anyhow::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let one = |taken: &Taken| StreamAppend {
            stream: taken.stream.clone(),
            expected: taken.expected,
            events: vec![taken.event.clone()],
        };
        match self.log.append_all(waiting.iter().map(|(_, taken)| one(taken)).collect()) {
            Ok(receipts) => {
                for ((number, _), receipt) in waiting.iter().zip(&receipts) {
                    accept(answers, *number, receipt);
                }
            }
            Err(AppendError::Storage(error)) => return Err(error.into()),
            Err(_) => {
                for (number, Taken { stream, expected, event }) in waiting {
                    match self.log.append(&stream, expected, vec![event]) {
                        Ok(receipts) => receipts.iter().for_each(|receipt| accept(answers, number, receipt)),
                        Err(AppendError::Storage(error)) => return Err(error.into()),
                        Err(error) => reject(answers, number, error.to_string()),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The line without secrets. A copy of an event is bound to its text by its commitment, so one that has a secret comes without
/// its text, as one that was erased.
fn without_secrets(line: String) -> String {
    let redacted = match redact_secrets(&line) {
        Cow::Borrowed(_) => return line,
        Cow::Owned(redacted) => redacted,
    };
    let Ok(mut fields) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(&line) else {
        return redacted;
    };
    let is_bound = fields.get("commitment").is_some_and(|commitment| commitment.get() != "null");
    if !is_exported(&line) || !is_bound {
        return redacted;
    }
    for field in ["event", "salt"] {
        fields.insert(field.to_owned(), RawValue::NULL.to_owned());
    }
    serde_json::to_string(&fields).unwrap_or(redacted)
}

fn accept(answers: &mut Answers, number: u64, receipt: &Receipt) {
    let answer = answers.entry(number).or_default();
    answer.position = answer.position.max(Some(receipt.position.0));
    if receipt.is_duplicate {
        answer.duplicates += 1;
    } else {
        answer.appended += 1;
    }
}

fn reject(answers: &mut Answers, number: u64, reason: String) {
    answers.entry(number).or_default().rejected.get_or_insert(reason);
}

/// Whose own stream events of this kind stand in; none where they stand in a session's.
fn owner_of(kind: &EventKind) -> Option<&'static str> {
    match kind {
        EventKind::RelayRequest | EventKind::RelayWithdrawn | EventKind::RelayDelivered => Some("a question"),
        EventKind::TimerScheduled | EventKind::TimerFired => Some("a run"),
        kind if kind.is_workflow() => Some("a run"),
        _ => None,
    }
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
