//! Who can be asked: the trait of a channel, what it is told of a question, and how it is told to stop.

use std::convert::Infallible;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use runledger_events::{Fields, ObjectText, RecordedEvent, RelayState, SessionId, readable};

use super::questions::UserQuestion;
use super::verdict::RelayVerdict;

/// Somebody who can be asked. Each question runs on a thread of its own.
pub trait Channel: Send + Sync {
    /// Its name, as the log has it.
    fn name(&self) -> &str;

    /// Asks, and gives what was said; `None` where nothing was.
    ///
    /// Once the token tells it to stop, nobody waits for it any more: it has to return soon, and clean up.
    fn ask(&self, request: &ChannelRequest, stop: &StopToken) -> Option<RelayVerdict>;
}

/// Whether a channel is still wanted.
///
/// It is told to stop by the end of what the other side holds, so it cannot be told twice.
#[derive(Debug, Clone)]
pub struct StopToken(Receiver<Infallible>);

/// The other side of a [`StopToken`]: dropping it tells to stop.
#[derive(Debug)]
pub struct Stopper(#[expect(dead_code, reason = "it is held, and dropped")] Sender<Infallible>);

impl StopToken {
    /// A token, and what tells it to stop.
    pub fn new() -> (Stopper, Self) {
        let (sender, receiver) = bounded(0);
        (Stopper(sender), Self(receiver))
    }

    /// Whether it was told to stop.
    pub fn is_told(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits so long, or until it is told to stop; true when it was.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.0.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }
}

/// What a channel is told of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRequest {
    /// The question.
    pub state: RelayState,
    /// Its ledger session.
    pub session_id: Option<SessionId>,
    /// The tool's input, as JSON text; none where it was erased.
    pub tool_input_json: Option<String>,
    /// Where the call is made.
    pub cwd: Option<String>,
    json: String,
}

impl ChannelRequest {
    /// Reads it out of the event that asks.
    pub(crate) fn read(state: &RelayState, first: &RecordedEvent) -> Self {
        let text = readable(first.content.json().unwrap_or("{}"));
        let data = Fields::parse(&text).ok().and_then(|fields| fields.object("data"));
        let field = |name: &str| data.as_ref().and_then(|data| data.raw(name));
        let metadata = &first.metadata;
        let names = [
            "request_id",
            "event_id",
            "question",
            "tool_name",
            "tool_use_id",
            "tool_input",
            "cwd",
            "pattern",
            "mode",
            "due_at",
            "on_timeout",
            "rule",
            "context",
        ];
        let fields = names.iter().fold(ObjectText::new(), |object, name| object.raw(name, field(name)));
        let json = fields
            .text("session_id", metadata.session_id.as_ref().map(|id| id.as_str()))
            .text("adapter_session_id", metadata.adapter_session_id.as_ref().map(|id| id.as_str()))
            .text("run_id", metadata.run_id.as_ref().map(|id| id.as_str()))
            .text("agent_id", first.facts.agent_id.as_deref())
            .text("agent_type", first.facts.agent_type.as_deref())
            .raw("asked_at", state.asked_at.to_string().as_str())
            .raw("position", state.position.to_string().as_str())
            .finish();
        Self {
            state: state.clone(),
            session_id: metadata.session_id.clone(),
            tool_input_json: field("tool_input").map(str::to_owned),
            cwd: data.as_ref().and_then(|data| data.text("cwd")),
            json,
        }
    }

    /// It as one JSON object in a line.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// What the agent asks its user, where it does.
    pub fn user_questions(&self) -> Vec<UserQuestion> {
        self.tool_input_json.as_deref().map(UserQuestion::of_input).unwrap_or_default()
    }
}
