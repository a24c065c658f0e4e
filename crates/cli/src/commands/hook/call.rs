//! The call that a hook asks about, and who asks: read from the payload and from what the client sets in the environment.

use std::collections::BTreeMap;

use runledger_events::{
    AdapterSessionId, EventId, EventKind, Fields, QUESTION_TOOL, RunState, Source, ToolCall, readable,
};
use runledger_store::SpoolRecord;

use super::install::Client;

/// The hooks that take an answer on permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    PreToolUse,
    PermissionRequest,
}

impl Asking {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PreToolUse => "PreToolUse",
            Self::PermissionRequest => "PermissionRequest",
        }
    }
}

/// One call of a tool that a hook asks about.
#[derive(Debug, Clone)]
pub(crate) struct HookCall {
    pub(crate) asking: Asking,
    pub(crate) client: Client,
    /// Whether a person sits at the client's terminal, and can be asked there.
    pub(crate) is_attended: bool,
    /// The client's process, where it says so.
    pub(crate) client_pid: Option<u32>,
    /// The event that tells of the call.
    pub(crate) event_id: EventId,
    pub(crate) adapter_session_id: Option<AdapterSessionId>,
    pub(crate) tool_use_id: Option<String>,
    /// The prompt, or Codex's turn, that it belongs to.
    pub(crate) turn: Option<String>,
    /// The call as rules look at it; where its run stands is filled in once that is known.
    pub(crate) call: ToolCall,
}

impl HookCall {
    /// The call that this event tells of, if it is one that a hook asks about.
    pub(crate) fn of(record: &SpoolRecord) -> Option<Self> {
        let event = &record.event;
        let asking = match event.kind() {
            EventKind::ToolPre => Asking::PreToolUse,
            EventKind::PermissionRequest => Asking::PermissionRequest,
            _ => return None,
        };
        let event_id = event.id().filter(|id| Source::of(id) == Source::Hook)?.clone();
        let text = readable(event.json());
        let payload = Fields::parse(&text).ok()?.object("payload")?;
        let client = if payload.text("turn_id").is_some() { Client::Codex } else { Client::Claude };
        // A client that runs inside another one's tool has that one's variables, until it sets its own.
        let is_own = |id: &str| payload.text("session_id").is_none_or(|own| own == id);
        let is_claude = client == Client::Claude && variable("CLAUDE_CODE_SESSION_ID").is_none_or(|id| is_own(&id));
        let of_claude = |name: &str| variable(name).filter(|_| is_claude);
        let cwd = payload.text("cwd").unwrap_or_else(|| "/".to_owned());
        Some(Self {
            asking,
            client,
            is_attended: of_claude("CLAUDE_CODE_SESSION_ATTENDED").as_deref() == Some("1"),
            client_pid: of_claude("CLAUDE_PID").and_then(|pid| pid.parse().ok()),
            event_id,
            adapter_session_id: event.adapter_session_id().cloned(),
            tool_use_id: payload.text("tool_use_id"),
            turn: turn_of(&payload),
            call: ToolCall {
                tool_name: payload.text("tool_name").unwrap_or_default(),
                tool_input: payload.raw("tool_input").unwrap_or("{}").to_owned(),
                project_dir: of_claude("CLAUDE_PROJECT_DIR").unwrap_or_else(|| cwd.clone()),
                cwd,
                home: variable("HOME"),
                agent_id: payload.text("agent_id"),
                agent_type: payload.text("agent_type"),
                state: RunState::Running,
                iteration: 0,
            },
        })
    }

    /// Whether the agent asks its user something.
    pub(crate) fn is_question(&self) -> bool {
        self.call.tool_name == QUESTION_TOOL
    }

    /// The harness's name of the call that this event tells of, where it is this call.
    pub(crate) fn name_in(&self, event_json: &str) -> Option<String> {
        let text = readable(event_json);
        let payload = Fields::parse(&text).ok()?.object("payload")?;
        let is_same = payload.text("tool_name").as_deref() == Some(&self.call.tool_name)
            && turn_of(&payload) == self.turn
            && payload.raw("tool_input").is_some_and(|input| is_same_json(input, &self.call.tool_input));
        payload.text("tool_use_id").filter(|_| is_same)
    }

    /// Whether an event tells that this call has run.
    pub(crate) fn has_run_by(&self, event: &EventKind, event_json: &str, tool_use_id: Option<&str>) -> bool {
        if !matches!(event, EventKind::ToolPost | EventKind::ToolFailure) {
            return false;
        }
        let told = self.name_in(event_json);
        match tool_use_id {
            // A question's input has its answers by then.
            Some(name) => name_of(event_json).as_deref() == Some(name),
            None => told.is_some(),
        }
    }

    /// The answers that the person gave at the terminal, as the event that tells of them has them.
    pub(crate) fn answers_in(event_json: &str) -> Option<BTreeMap<String, String>> {
        let text = readable(event_json);
        let payload = Fields::parse(&text).ok()?.object("payload")?;
        let of = |name: &str| payload.object(name)?.raw("answers").and_then(|json| serde_json::from_str(json).ok());
        of("tool_response").or_else(|| of("tool_input"))
    }
}

fn name_of(event_json: &str) -> Option<String> {
    let text = readable(event_json);
    Fields::parse(&text).ok()?.object("payload")?.text("tool_use_id")
}

fn turn_of(payload: &Fields<'_>) -> Option<String> {
    payload.text("prompt_id").or_else(|| payload.text("turn_id"))
}

fn is_same_json(one: &str, other: &str) -> bool {
    let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
    one == other || read(one).is_some_and(|value| read(other) == Some(value))
}

/// A variable of the environment that says something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
