//! Putting a call's question to whoever can answer it, and waiting for the answer, or for nobody.
//!
//! | where | `PreToolUse` | `PermissionRequest` |
//! | --- | --- | --- |
//! | nobody at a terminal (`claude -p`, Codex) | waits, and answers allow or deny; or answers `defer` | the same question |
//! | Claude Code in a terminal | answers `ask`, so that its dialog comes | waits beside the dialog |

use std::path::Path;
use std::time::{Duration, Instant};

use runledger_events::{
    AdapterSessionId, OnAsk, Position, RelayQuestion, RequestId, RequestStatus, SessionId, StreamName, StreamVersion,
};
use runledger_store::{LogReader, Read, SpoolRecord};
use runledger_workflow::{
    Ask, CommandChannel, Commands, RelayAnswer, RelayCoordinator, RelayOutcome, RelayVerdict, Relayed, Settled,
    VerdictSource,
};

use super::answer::{Answer, answered_input};
use super::call::{Asking, HookCall};
use super::install::Client;
use super::judge::{Question, words};
use super::place::Place;
use super::record::say;
use super::watch::{WaitEnd, Watch};
use crate::spools::Spools;

/// How long what waits in spools is taken in before a question is put.
const TAKE_TIME: Duration = Duration::from_millis(500);
/// Events of a session looked at, from its end, for the call that a PermissionRequest is about.
const LOOK_BACK: usize = 500;
/// The same at a time.
const CHUNK: usize = 50;

/// Something of ours that failed, in words.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Whether a question that another call put was taken up.
enum TakenUp {
    Done,
    /// It is settled without an answer for this call.
    Gone,
}

/// Answers what can be answered at once; else puts the question and waits. What is answered is printed.
pub(crate) fn ask(place: &Place, record: &SpoolRecord, question: &Question) -> Result<(), Failure> {
    let call = &question.call;
    if call.is_attended && call.asking == Asking::PreToolUse {
        // A question's own dialog comes anyway.
        if let Some(rule) = question.rule.as_ref().filter(|_| !call.is_question()) {
            let reason = words(rule, "asked", &question.context.ask_context());
            Answer::Ask { reason }.print(call.asking);
        }
        return Ok(());
    }
    let watch = Watch::new(call.client_pid);
    let path = &place.path;
    let log = place.open_to_ask()?;
    if !place.is_file() {
        // The event that is asked about may wait in a spool; what is asked comes behind it.
        let until = Instant::now() + TAKE_TIME;
        if let Err(error) = Spools::of(path).take_in(&*log, Duration::ZERO, Some(until)) {
            say(&format!("what waits is taken in later: {error}"));
        }
    }
    let commands = Commands::open(log)?;
    let stream = StreamName::session(&record.session_id);
    let version = commands.reader().stream_version(&stream)?;
    let (tool_use_id, told_at) = match &call.tool_use_id {
        Some(name) => (Some(name.clone()), commands.reader().head()?.position),
        None => match name_of_call(commands.reader(), &stream, call)? {
            Some((name, told_at)) => (Some(name), told_at),
            None => (None, commands.reader().head()?.position),
        },
    };
    let watch = match call.is_attended {
        true => {
            let reader = LogReader::open(path)?;
            watch.with_terminal(reader, &record.session_id, version, call, tool_use_id.as_deref())
        }
        false => watch,
    };
    let asker = Asker { question, session_id: &record.session_id, tool_use_id, told_at };
    asker.run(commands, watch)
}

/// The client's name of the call, and where the log was told of it: a PermissionRequest does not have the name, the
/// PreToolUse before it does.
fn name_of_call(
    reader: &LogReader,
    stream: &StreamName,
    call: &HookCall,
) -> Result<Option<(String, Position)>, Failure> {
    let mut before: Option<StreamVersion> = None;
    for _ in 0..LOOK_BACK / CHUNK {
        let events = reader.read_stream_back(stream, before, CHUNK, Read::All)?;
        let of_client = |event: &&runledger_events::RecordedEvent| {
            event.kind == runledger_events::EventKind::ToolPre
                && event.metadata.adapter_session_id == call.adapter_session_id
        };
        let mut of_client = events.iter().filter(of_client);
        let name = of_client.find_map(|event| Some((call.name_in(event.content.json()?)?, event.position)));
        match (name, events.last()) {
            (Some(name), _) => return Ok(Some(name)),
            (None, Some(last)) => before = Some(last.stream_version),
            (None, None) => break,
        }
    }
    Ok(None)
}

struct Asker<'a> {
    question: &'a Question,
    session_id: &'a SessionId,
    tool_use_id: Option<String>,
    /// Where the log was when it was told of the call: what was settled before was on another one.
    told_at: Position,
}

impl Asker<'_> {
    fn run(&self, commands: Commands, mut watch: Watch<'_>) -> Result<(), Failure> {
        let run_id = &self.question.context.state.run_id;
        let adapter_session = match &self.question.call.adapter_session_id {
            Some(id) => id.clone(),
            None => AdapterSessionId::new(self.session_id.as_str())?,
        };
        let event_id = self.question.call.event_id.as_str();
        let mut id = RequestId::of_call(&adapter_session, self.tool_use_id.as_deref().unwrap_or(event_id))?;
        let mut is_there = false;
        if let Some(state) = commands.relay_state(&id)? {
            let ask = self.ask(id.clone(), adapter_session.clone(), OnAsk::Wait);
            is_there = !commands.is_spent(&state, &ask, self.told_at)?;
            if !is_there {
                // A client may give a name again; what became of the call before is no answer to this one.
                commands.expire(&id)?;
                id = RequestId::of_call(&adapter_session, event_id)?;
            }
        }
        let mode = if is_there { self.wanted_mode() } else { self.mode(&commands, &adapter_session)? };
        let ask = self.ask(id.clone(), adapter_session.clone(), mode);
        let mut coordinator = self.coordinator(commands);
        if !is_there {
            let left = coordinator.commands().left_behind(&ask)?;
            // Who puts a call off puts off that very call.
            let left = left.filter(|left| mode == OnAsk::Wait || left.status != RequestStatus::Pending);
            if let Some(left) = left
                && let TakenUp::Done = self.wait(&coordinator, &left.request.request_id, &id, &mut watch)?
            {
                return Ok(());
            }
        }
        let asked = coordinator.commands().ask(&ask)?;
        if mode == OnAsk::Defer && asked.state.request.mode == OnAsk::Defer {
            let state = coordinator.commands().expire(&id)?;
            if state.status == RequestStatus::Pending {
                if !coordinator.commands().has_deferred(run_id, &adapter_session, state.position)? {
                    self.defer(state.position);
                    return Ok(());
                }
                self.cannot_defer("another call of this harness session is put off already");
            }
        }
        if asked.state.request.mode == OnAsk::Defer {
            // The run's runner asks the channels of what was put off.
            coordinator = RelayCoordinator::new(Commands::open(coordinator.commands().log().clone())?);
        }
        self.wait(&coordinator, &id, &id, &mut watch)?;
        Ok(())
    }

    fn ask(&self, id: RequestId, adapter_session: AdapterSessionId, mode: OnAsk) -> Ask {
        let Question { call, context, rule, timeout_ms, on_timeout } = self.question;
        let tool = call.call.tool_name.clone();
        let input = call.call.tool_input.clone();
        let ask = Ask::new(id, call.event_id.clone(), self.session_id.clone(), tool, input);
        Ask {
            adapter_session_id: Some(adapter_session),
            run_id: Some(context.state.run_id.clone()),
            agent_id: call.call.agent_id.clone(),
            agent_type: call.call.agent_type.clone(),
            tool_use_id: self.tool_use_id.clone(),
            cwd: Some(call.call.cwd.clone()),
            pattern: call.call.pattern(),
            mode,
            timeout_ms: *timeout_ms,
            on_timeout: *on_timeout,
            rule: rule.clone(),
            context: Some(context.ask_context()),
            waiter: if mode == OnAsk::Defer { None } else { ask.waiter },
            ..ask
        }
    }

    /// How the workflow wants questions to wait.
    fn on_ask(&self) -> OnAsk {
        self.question.context.policy().map_or(OnAsk::Wait, |policy| policy.on_ask)
    }

    /// The same, where this client can.
    fn wanted_mode(&self) -> OnAsk {
        let can_defer = self.why_not_deferred().is_none();
        if self.on_ask() == OnAsk::Defer && can_defer { OnAsk::Defer } else { OnAsk::Wait }
    }

    fn why_not_deferred(&self) -> Option<&'static str> {
        let Question { call, context, .. } = self.question;
        if context.state.harness.as_deref() != Some("claude") {
            return Some("the run's harness cannot put a call off");
        }
        match call.client {
            Client::Codex => Some("Codex cannot put a call off"),
            Client::Claude if call.asking == Asking::PermissionRequest => Some("the client's dialog is open"),
            Client::Claude if call.is_attended => Some("Claude Code puts nothing off in a terminal"),
            Client::Claude if call.call.agent_id.is_some() => Some("a subagent's call would be lost"),
            Client::Claude if call.is_question() => Some("a question to the user is waited for"),
            Client::Claude => None,
        }
    }

    /// The same for a new question, said where it is not as the workflow wants it.
    fn mode(&self, commands: &Commands, adapter_session: &AdapterSessionId) -> Result<OnAsk, Failure> {
        if self.on_ask() != OnAsk::Defer {
            return Ok(OnAsk::Wait);
        }
        if let Some(why) = self.why_not_deferred() {
            self.cannot_defer(why);
            return Ok(OnAsk::Wait);
        }
        let everywhere = Position(u64::MAX);
        if commands.has_deferred(&self.question.context.state.run_id, adapter_session, everywhere)? {
            self.cannot_defer("another call of this harness session is put off already");
            return Ok(OnAsk::Wait);
        }
        Ok(OnAsk::Defer)
    }

    fn cannot_defer(&self, why: &str) {
        say(&format!("{why}: `on_ask: defer` waits instead"));
    }

    fn defer(&self, position: Position) {
        let reason = format!(
            "waits for a decision: `runledger allow {position}` or `runledger deny {position} --reason TEXT`, then \
             `runledger resume {}`",
            self.question.context.state.run_id
        );
        Answer::Defer { reason }.print(self.question.call.asking);
    }

    fn coordinator(&self, commands: Commands) -> RelayCoordinator {
        let project_dir = Path::new(&self.question.call.call.project_dir);
        let mut coordinator = RelayCoordinator::new(commands);
        for config in self.question.context.policy().map(|policy| policy.channels.as_slice()).unwrap_or_default() {
            match CommandChannel::new(config, project_dir) {
                Ok(channel) => coordinator = coordinator.with_channel(channel),
                Err(error) => say(&error.to_string()),
            }
        }
        coordinator
    }

    /// Waits for what the question `id` comes to, and answers the call `own` with it.
    fn wait(
        &self,
        coordinator: &RelayCoordinator,
        id: &RequestId,
        own: &RequestId,
        watch: &mut Watch<'_>,
    ) -> Result<TakenUp, Failure> {
        let call = &self.question.call;
        // Dropped last: then the channels have been told to stop, and the answer is out already.
        let Relayed { outcome, .. } = &coordinator.wait(id, || watch.is_over())?;
        match outcome {
            RelayOutcome::Decided(settled) => {
                match coordinator.commands().deliver(id, &call.event_id) {
                    Ok(false) if id != own => return Ok(TakenUp::Gone),
                    Ok(_) => {}
                    // A denial holds whether that it was told can be written down or not.
                    Err(error) if settled.is_allowed() == Some(false) => say(&error.to_string()),
                    Err(error) => return Err(error.into()),
                }
                self.answer(settled);
            }
            // What became of another call's question while it was taken up is no answer to this one.
            RelayOutcome::Expired { .. } | RelayOutcome::Withdrawn(_) if id != own => return Ok(TakenUp::Gone),
            RelayOutcome::Expired { settled, .. } => self.answer(settled),
            RelayOutcome::Withdrawn(settled) if !call.is_attended => {
                let reason = settled.reason.clone().unwrap_or_else(|| "the question was withdrawn".to_owned());
                Answer::Deny { reason }.print(call.asking);
            }
            RelayOutcome::Withdrawn(_) | RelayOutcome::NoRelay => {}
            RelayOutcome::Stopped => self.stopped(coordinator.commands(), id, watch),
        }
        Ok(TakenUp::Done)
    }

    /// Prints what was decided; nothing where the client is to decide.
    fn answer(&self, settled: &Settled) {
        let call = &self.question.call;
        let by = settled.by.as_deref().or(settled.source.as_deref()).unwrap_or("somebody");
        let is_question = call.is_question();
        let answer = match settled.is_allowed() {
            Some(true) if is_question && settled.answers.is_empty() => return,
            Some(true) => Answer::Allow {
                reason: Some(settled.reason.clone().unwrap_or_else(|| format!("allowed by {by}"))),
                updated_input: is_question.then(|| answered_input(&call.call.tool_input, &settled.answers)),
            },
            Some(false) => {
                let is_late = settled.status == RequestStatus::Expired;
                let words = if is_late { "nobody answered in time".to_owned() } else { format!("denied by {by}") };
                Answer::Deny { reason: settled.reason.clone().unwrap_or(words) }
            }
            None => return,
        };
        answer.print(call.asking);
    }

    /// What the person at the client's terminal did is told to the log; else the question stands.
    fn stopped(&self, commands: &Commands, id: &RequestId, watch: &Watch<'_>) {
        let call = &self.question.call;
        if watch.end() == Some(&WaitEnd::TooLong) && !call.is_attended {
            // The client would end this process, and then run the tool.
            let reason = "nobody has answered within a day; the question stands, ask again".to_owned();
            return Answer::Deny { reason }.print(call.asking);
        }
        if !call.is_attended {
            return;
        }
        let answer = match watch.end() {
            Some(WaitEnd::HasRun(Some(answers))) if self.kind() == RelayQuestion::Question => {
                RelayAnswer::Answers(answers.clone())
            }
            Some(WaitEnd::HasRun(_)) => RelayAnswer::Allow,
            Some(WaitEnd::Signalled) => RelayAnswer::Deny,
            Some(WaitEnd::ClientGone | WaitEnd::TooLong) | None => return,
        };
        let by = Some("the client's terminal".to_owned());
        let verdict = RelayVerdict { source: VerdictSource::Terminal, by, ..RelayVerdict::new(answer) };
        if let Err(error) = commands.decide(id, &verdict) {
            say(&error.to_string());
        }
    }

    fn kind(&self) -> RelayQuestion {
        if self.question.call.is_question() { RelayQuestion::Question } else { RelayQuestion::Permission }
    }
}
