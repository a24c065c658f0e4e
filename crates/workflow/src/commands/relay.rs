//! Questions: put, decided, ended by their time, withdrawn.
//!
//! Invariants: whatever settles a question was appended under the version that its stream had while it was pending, so
//! one wins; a decision that does not count leaves nothing behind, but one that came too late, which is recorded as such.

use std::path::Path;

use runledger_events::{
    EXPIRED, EventId, Fields, Metadata, OnTimeout, ProcessId, RecordedEvent, RelayQuestion, RelayState, RequestId,
    RequestStatus, RuleAction, RunId, RunState, StreamName, StreamVersion, TimestampMs, ToolCall, ToolPattern,
    WorkflowState, readable,
};
use runledger_store::{AppendError, ExpectedVersion, NewEvent, Read, ReadError, StreamAppend};

use super::Commands;
use crate::owner::is_process_alive;
use crate::permissions::project_dir_of;
use crate::relay::decision_event::{DecisionEvent, answers_json, intent, new_event_id, request_event, withdrawn_event};
use crate::relay::error::{AskError, DecideError, ExpireError, RelayLogError, UnfitVerdict, WithdrawError};
use crate::relay::questions::{UserQuestion, answers_in_order};
use crate::relay::{Ask, Asked, ChannelRequest, GrantScope, RelayAnswer, RelayVerdict, Settled};

/// A decision that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedRequest {
    /// How the question stands now.
    pub state: RelayState,
    /// The same in words.
    pub settled: Settled,
}

/// Who wants a question withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withdrawer {
    /// A process, which has to be the one that waits, unless that one is gone.
    Process(ProcessId),
    /// The runner of the question's run, in its term.
    Runner {
        /// The run.
        run_id: RunId,
        /// The runner's term.
        term: u64,
    },
}

/// A question as its stream has it.
struct Question {
    state: RelayState,
    events: Vec<RecordedEvent>,
}

impl Question {
    /// The event that asks.
    fn first(&self) -> &RecordedEvent {
        // There is a state only where there is a first event.
        &self.events[0]
    }

    fn settled(&self) -> Option<Settled> {
        let position = self.state.settled_position?;
        Settled::read(&self.state, self.events.iter().find(|event| event.position == position)?)
    }

    /// What everything that follows on the question belongs to.
    fn metadata(&self) -> Metadata {
        let first = self.first();
        Metadata { causation_id: Some(first.id.clone()), ..first.metadata.clone() }
    }

    /// The input of the tool, as JSON text; `None` where it was erased.
    fn tool_input(&self) -> Option<String> {
        let text = readable(self.first().content.json()?);
        let data = Fields::parse(&text).ok()?.object("data")?;
        data.raw("tool_input").map(str::to_owned)
    }

    fn user_questions(&self) -> Vec<UserQuestion> {
        self.tool_input().map(|input| UserQuestion::of_input(&input)).unwrap_or_default()
    }

    /// The call that it is about; `None` where that was erased.
    fn call(&self, project_dir: Option<&Path>) -> Option<ToolCall> {
        let text = readable(self.first().content.json()?);
        let data = Fields::parse(&text).ok()?.object("data")?;
        let cwd = data.text("cwd").unwrap_or_default();
        Some(ToolCall {
            tool_name: self.state.request.tool_name.clone()?,
            tool_input: data.raw("tool_input")?.to_owned(),
            project_dir: project_dir.map_or_else(|| cwd.clone(), |folder| folder.to_string_lossy().into_owned()),
            cwd,
            home: std::env::home_dir().map(|home| home.to_string_lossy().into_owned()),
            agent_id: data.text("agent_id"),
            agent_type: data.text("agent_type"),
            state: RunState::Running,
            iteration: 0,
        })
    }
}

impl Commands {
    /// Puts a question, or finds the same one there already: then this is one more who waits for its answer.
    ///
    /// # Errors
    /// [`AskError::Different`] when another question has the name; nothing was appended.
    pub fn ask(&self, ask: &Ask) -> Result<Asked, AskError> {
        let id = &ask.request_id;
        let stream = StreamName::request(id);
        loop {
            if let Some(state) = self.relay_state(id).map_err(|error| AskError::log(id, error))? {
                return self.attach(ask, state);
            }
            let now = self.clock.now();
            let facts = ask.facts(self.log.log_id().clone(), now);
            let event = request_event(ask, &facts, now).map_err(|error| AskError::log(id, error))?;
            match self.log.append(&stream, ExpectedVersion::NoStream, vec![event]) {
                Ok(_) => {
                    let state = self.relay_state(id).map_err(|error| AskError::log(id, error))?;
                    let state = state.ok_or_else(|| AskError::NoQuestion { request_id: id.clone() })?;
                    return Ok(Asked { state, is_new: true });
                }
                Err(AppendError::WrongExpectedVersion(_)) => {
                    // Somebody was there in between, with a question or with what is none.
                    if self.relay_state(id).map_err(|error| AskError::log(id, error))?.is_none() {
                        return Err(AskError::NoQuestion { request_id: id.clone() });
                    }
                }
                Err(error) => return Err(AskError::log(id, error)),
            }
        }
    }

    fn attach(&self, ask: &Ask, state: RelayState) -> Result<Asked, AskError> {
        let request = &state.request;
        let request_id = request.request_id.clone();
        if request.fingerprint != ask.fingerprint() {
            let tool = request.tool_name.clone().unwrap_or_else(|| "something".to_owned());
            return Err(AskError::Different { request_id, tool, position: state.position });
        }
        if request.log_id != *self.log.log_id() && state.status == RequestStatus::Pending {
            return Err(AskError::Elsewhere { request_id, log_id: request.log_id.clone() });
        }
        Ok(Asked { state, is_new: false })
    }

    /// How a question stands; `None` where nobody has put it.
    ///
    /// # Errors
    /// As [`LogReader::read_stream`](runledger_store::LogReader::read_stream).
    pub fn relay_state(&self, id: &RequestId) -> Result<Option<RelayState>, ReadError> {
        let events = self.reader.read_stream(&StreamName::request(id), StreamVersion::EMPTY, Read::Facts)?;
        Ok(RelayState::fold(&events))
    }

    /// What settled a question, in words; `None` while nothing has, or where nobody has put it.
    ///
    /// # Errors
    /// As [`Commands::relay_state`].
    pub fn relay_settled(&self, id: &RequestId) -> Result<Option<Settled>, ReadError> {
        Ok(self.question(id)?.and_then(|question| question.settled()))
    }

    /// What a channel is told of a question; `None` where nobody has put it.
    pub(crate) fn channel_request(&self, id: &RequestId) -> Result<Option<ChannelRequest>, ReadError> {
        Ok(self.question(id)?.map(|question| ChannelRequest::read(&question.state, question.first())))
    }

    fn question(&self, id: &RequestId) -> Result<Option<Question>, ReadError> {
        let events = self.reader.read_stream(&StreamName::request(id), StreamVersion::EMPTY, Read::All)?;
        Ok(RelayState::fold(&events).map(|state| Question { state, events }))
    }

    /// Decides a question. The first decision counts.
    ///
    /// One that is to hold for the run, or for every run of the workflow, is written there too, in the same moment.
    ///
    /// # Errors
    /// - [`DecideError::AlreadyDecided`], [`DecideError::Withdrawn`], [`DecideError::Unknown`], [`DecideError::Unfit`]:
    ///   nothing was appended.
    /// - [`DecideError::Expired`]: its time was up, which the log says now; the decision stands there as one of type
    ///   `expired`.
    pub fn decide(&self, id: &RequestId, verdict: &RelayVerdict) -> Result<DecidedRequest, DecideError> {
        let failed = |error: RelayLogError| DecideError::log(id, error);
        loop {
            let question = self.question(id).map_err(|error| failed(error.into()))?;
            let question = question.ok_or_else(|| DecideError::Unknown { request_id: id.clone() })?;
            let state = &question.state;
            let now = self.clock.now();
            match (state.status, question.settled()) {
                (RequestStatus::Allowed | RequestStatus::Denied, Some(settled)) => {
                    return Err(DecideError::AlreadyDecided { request_id: id.clone(), settled: Box::new(settled) });
                }
                (RequestStatus::Withdrawn, Some(settled)) => {
                    return Err(DecideError::Withdrawn { request_id: id.clone(), settled: Box::new(settled) });
                }
                _ => {}
            }
            if state.request.log_id != *self.log.log_id() {
                return Err(DecideError::Elsewhere { request_id: id.clone(), log_id: state.request.log_id.clone() });
            }
            let unfit = |source| DecideError::Unfit { request_id: id.clone(), source };
            let run = question.first().metadata.run_id.as_ref().filter(|_| verdict.scope != GrantScope::Once);
            let project_dir = run.map(|run| project_dir_of(&self.reader, &StreamName::run(run))).transpose();
            let project_dir = project_dir.map_err(|error| failed(error.into()))?.flatten();
            let answers = fitting_answers(&question, verdict, project_dir.as_deref()).map_err(unfit)?;
            if verdict.scope == GrantScope::Run
                && let Some(run_id) = self.unknown_run(&question).map_err(|error| failed(error.into()))?
            {
                return Err(unfit(UnfitVerdict::UnknownRun(run_id)));
            }
            let wish = Wish { question: &question, verdict, answers_json: answers.as_deref(), now };
            let is_late = state.status == RequestStatus::Expired || state.is_overdue(now);
            let appends = if is_late { wish.too_late().map_err(failed)? } else { wish.in_time()? };
            if !self.append_first(appends).map_err(failed)? {
                continue;
            }
            let question = self.question(id).map_err(|error| failed(error.into()))?;
            let Some((settled, question)) = question.and_then(|question| Some((question.settled()?, question))) else {
                return Err(DecideError::Unknown { request_id: id.clone() });
            };
            if is_late {
                let due_at = question.state.request.due_at;
                return Err(DecideError::Expired { request_id: id.clone(), due_at, settled: Box::new(settled) });
            }
            return Ok(DecidedRequest { state: question.state, settled });
        }
    }

    /// Says in the log that a question's time is up, if it is and nobody has said so.
    ///
    /// # Errors
    /// [`ExpireError::Unknown`] when nobody has put it.
    pub fn expire(&self, id: &RequestId) -> Result<RelayState, ExpireError> {
        let failed = |error: RelayLogError| ExpireError::log(id, error);
        loop {
            let question = self.question(id).map_err(|error| failed(error.into()))?;
            let question = question.ok_or_else(|| ExpireError::Unknown { request_id: id.clone() })?;
            let now = self.clock.now();
            // What was put in another log comes to its end there.
            if !question.state.is_overdue(now) || question.state.request.log_id != *self.log.log_id() {
                return Ok(question.state);
            }
            let event = timeout_event(&question, now).map_err(failed)?;
            self.append_first(vec![append(&question, vec![event])]).map_err(failed)?;
        }
    }

    /// Withdraws a question: it needs no answer any more.
    ///
    /// Its owner alone may: the process that waits for it, or the runner of its run. Where the process that waited is
    /// gone, or there was none and no run, anybody may.
    ///
    /// # Errors
    /// [`WithdrawError::NotYours`], [`WithdrawError::Settled`], [`WithdrawError::Unknown`]: nothing was appended.
    pub fn withdraw(&self, id: &RequestId, reason: &str, by: &Withdrawer) -> Result<RelayState, WithdrawError> {
        let failed = |error: RelayLogError| WithdrawError::log(id, error);
        loop {
            let question = self.question(id).map_err(|error| failed(error.into()))?;
            let question = question.ok_or_else(|| WithdrawError::Unknown { request_id: id.clone() })?;
            if let Some(settled) = question.settled() {
                return Err(WithdrawError::Settled { request_id: id.clone(), settled: Box::new(settled) });
            }
            if !self.owns(by, &question).map_err(|error| failed(error.into()))? {
                let waiter = question.state.request.waiter.clone();
                return Err(WithdrawError::NotYours { request_id: id.clone(), waiter });
            }
            let now = self.clock.now();
            let event = withdrawn_event(id, reason, now, question.metadata()).map_err(failed)?;
            if self.append_first(vec![append(&question, vec![event])]).map_err(failed)? {
                let state = self.relay_state(id).map_err(|error| failed(error.into()))?;
                return state.ok_or_else(|| WithdrawError::Unknown { request_id: id.clone() });
            }
        }
    }

    fn owns(&self, by: &Withdrawer, question: &Question) -> Result<bool, ReadError> {
        let asked_in = question.first().metadata.run_id.as_ref();
        match (by, &question.state.request.waiter) {
            (Withdrawer::Process(process), Some(waiter)) => {
                Ok(process == waiter || is_process_alive(waiter) == Some(false))
            }
            (Withdrawer::Process(_), None) => Ok(asked_in.is_none()),
            (Withdrawer::Runner { run_id, term }, _) => {
                if asked_in != Some(run_id) {
                    return Ok(false);
                }
                let stream = StreamName::run(run_id);
                let events = self.reader.read_stream(&stream, StreamVersion::EMPTY, Read::Facts)?;
                Ok(WorkflowState::fold(&events).is_some_and(|(state, _)| state.term() == *term))
            }
        }
    }

    /// The question's run, where the log does not have it: a decision must not be what a run's stream begins with.
    fn unknown_run(&self, question: &Question) -> Result<Option<RunId>, ReadError> {
        let Some(run_id) = &question.first().metadata.run_id else {
            return Ok(None);
        };
        let is_known = self.reader.stream_version(&StreamName::run(run_id))? != StreamVersion::EMPTY;
        Ok((!is_known).then(|| run_id.clone()))
    }

    /// Appends what a question leads to; false when somebody was first.
    fn append_first(&self, appends: Vec<StreamAppend>) -> Result<bool, RelayLogError> {
        match self.log.append_all(appends) {
            Ok(_) => Ok(true),
            Err(AppendError::WrongExpectedVersion(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Under the version that the question was read at: whoever is first, wins.
fn append(question: &Question, events: Vec<NewEvent>) -> StreamAppend {
    StreamAppend {
        stream: StreamName::request(&question.state.request.request_id),
        expected: ExpectedVersion::Exact(question.state.version),
        events,
    }
}

/// That nobody answered in time, and what that comes to.
fn timeout_event(question: &Question, now: TimestampMs) -> Result<NewEvent, RelayLogError> {
    let request = &question.state.request;
    let id = new_event_id()?;
    let intent = match request.on_timeout {
        OnTimeout::Allow => Some(intent(&RelayAnswer::Allow)),
        OnTimeout::Deny => Some(intent(&RelayAnswer::Deny)),
        OnTimeout::NoOpinion => None,
    };
    let event = DecisionEvent {
        request_id: Some(&request.request_id),
        decision_type: if intent.is_some() { "json" } else { "passthrough" },
        intent,
        reason: Some("nobody answered in time"),
        ..DecisionEvent::new(&id, now, &request.event_id, "timeout")
    };
    event.into_event(question.metadata())
}

/// The answers as the log has them, where the verdict has some; or why it does not fit.
fn fitting_answers(
    question: &Question,
    verdict: &RelayVerdict,
    project_dir: Option<&Path>,
) -> Result<Option<String>, UnfitVerdict> {
    let request = &question.state.request;
    match (&verdict.answer, request.question) {
        (RelayAnswer::Answers(_), RelayQuestion::Permission) => return Err(UnfitVerdict::NoQuestion),
        (RelayAnswer::Allow, RelayQuestion::Question) => {
            let asked = question.user_questions();
            let asked: Vec<&str> = asked.iter().map(|asked| asked.question.as_str()).collect();
            let asked = if asked.is_empty() { "the user something".to_owned() } else { asked.join(" / ") };
            return Err(UnfitVerdict::NotAnswered(asked));
        }
        _ => {}
    }
    if verdict.scope != GrantScope::Once {
        if request.question == RelayQuestion::Question {
            return Err(UnfitVerdict::OnceOnly);
        }
        if question.first().metadata.run_id.is_none() {
            return Err(UnfitVerdict::NoRun);
        }
        match verdict.pattern.as_ref().or(request.pattern.as_ref()) {
            None => return Err(UnfitVerdict::NoPattern),
            Some(text) => {
                let pattern = ToolPattern::parse(text).map_err(UnfitVerdict::BadPattern)?;
                let action = match verdict.answer {
                    RelayAnswer::Deny => RuleAction::Deny,
                    _ => RuleAction::Allow,
                };
                let is_on = |call: ToolCall| pattern.is_on_part_of(&call, action);
                // The call's own pattern was made where the call was.
                if verdict.pattern.is_some() && !question.call(project_dir).is_none_or(is_on) {
                    let fitting = request.pattern.clone();
                    return Err(UnfitVerdict::PatternElsewhere { pattern: text.clone(), fitting });
                }
            }
        }
    }
    match &verdict.answer {
        RelayAnswer::Answers(answers) => {
            Ok(Some(answers_json(&answers_in_order(&question.user_questions(), answers)?)))
        }
        RelayAnswer::Allow | RelayAnswer::Deny => Ok(None),
    }
}

/// What somebody wants a question to come to, now.
struct Wish<'a> {
    question: &'a Question,
    verdict: &'a RelayVerdict,
    answers_json: Option<&'a str>,
    now: TimestampMs,
}

impl Wish<'_> {
    fn event(&self, id: &EventId, decision_type: &str, metadata: Metadata) -> Result<NewEvent, RelayLogError> {
        let request = &self.question.state.request;
        let pattern = self.verdict.pattern.as_deref().or(request.pattern.as_deref());
        let event = DecisionEvent {
            request_id: Some(&request.request_id),
            decision_type,
            pattern: pattern.filter(|_| self.verdict.scope != GrantScope::Once),
            ..DecisionEvent::of_verdict(id, self.now, &request.event_id, self.verdict, self.answers_json)
        };
        event.into_event(metadata)
    }

    /// The decision that counts, and its copy where it reaches further.
    fn in_time(&self) -> Result<Vec<StreamAppend>, DecideError> {
        let request = &self.question.state.request;
        let failed = |error: RelayLogError| DecideError::log(&request.request_id, error);
        let id = new_event_id().map_err(failed)?;
        let decision = self.event(&id, "json", self.question.metadata()).map_err(failed)?;
        let mut appends = vec![append(self.question, vec![decision])];
        let beyond = match self.verdict.scope {
            GrantScope::Once => None,
            GrantScope::Run => {
                let run_id = self.question.first().metadata.run_id.as_ref();
                // That it exists was looked at before, and no stream ends.
                run_id.map(|run_id| (StreamName::run(run_id), ExpectedVersion::StreamExists))
            }
            GrantScope::Always => {
                let workflow_name = request.context.as_ref().and_then(|context| context.workflow_name.as_deref());
                let stream = StreamName::rules(workflow_name).map_err(|error| failed(error.into()))?;
                Some((stream, ExpectedVersion::Any))
            }
        };
        if let Some((stream, expected)) = beyond {
            let metadata = Metadata { causation_id: Some(id), ..self.question.metadata() };
            let copy = self.event(&new_event_id().map_err(failed)?, "json", metadata).map_err(failed)?;
            appends.push(StreamAppend { stream, expected, events: vec![copy] });
        }
        Ok(appends)
    }

    /// That the time is up, where nobody has said so, and what was wanted too late.
    fn too_late(&self) -> Result<Vec<StreamAppend>, RelayLogError> {
        let mut events = Vec::new();
        if self.question.state.status == RequestStatus::Pending {
            events.push(timeout_event(self.question, self.now)?);
        }
        events.push(self.event(&new_event_id()?, EXPIRED, self.question.metadata())?);
        Ok(vec![append(self.question, events)])
    }
}
