//! The payloads of hooks, Claude Code's and Codex's, one event each.
//!
//! | hook | event |
//! | --- | --- |
//! | SessionStart, SessionEnd, UserPromptSubmit | `session.start`, `session.end`, `user.prompt` |
//! | PreToolUse, PostToolUse, PostToolUseFailure | `tool.pre`, `tool.post`, `tool.failure` |
//! | PermissionRequest, PermissionDenied | `permission.request`, `permission.denied` |
//! | Stop, StopFailure; Interrupt | `stop.request`, `stop.failure`; `turn.complete` with the status `interrupted` |
//! | SubagentStart, SubagentStop; TaskCreated, TaskCompleted, TeammateIdle | `subagent.…`; `task.…`, `teammate.idle` |
//! | MessageDisplay | `message.delta`, and `message.complete` for the last piece |
//! | PreCompact, PostCompact, Setup, Notification | `compact.pre`, `compact.post`, `setup`, `notification` |
//! | ConfigChange, CwdChanged, FileChanged | `config.change`, `cwd.changed`, `file.changed` |
//! | Elicitation, ElicitationResult | `elicitation.request`, `elicitation.result` |
//! | any other | `unknown` with `hook_event_name` and the payload in `data` |
//!
//! Invariants: each payload that is a JSON object gives one event, with the whole payload in `payload`, its text
//! unchanged. A half of a surrogate pair that stands alone stays as it is in `payload`, and is U+FFFD in `data`.

use runledger_events::{EventKind, RuntimeEvent, Source, TimestampMs, readable};

use crate::error::AdapterError;
use crate::line_adapter::LineAdapter;
use crate::line_names::LineNames;
use crate::told::{Envelope, LineName, Told, line_fields, moment, original};
use runledger_events::{Fields, ObjectText};

const TOOL_FIELDS: &[&str] =
    &["tool_input", "tool_response", "error", "output", "is_interrupt", "exit_code", "error_code"];
const PERMISSION_FIELDS: &[&str] = &["tool_input", "permission_suggestions", "network_context", "reason"];
const SUBAGENT_FIELDS: &[&str] = &[
    "agent_id",
    "agent_type",
    "prompt",
    "tool",
    "last_assistant_message",
    "agent_transcript_path",
    "status",
    "stop_hook_active",
];
const TEAM_FIELDS: &[&str] = &["task_id", "task_subject", "task_description", "teammate_name", "team_name"];

/// Recorded hook payloads, one a line, bare or wrapped: `{"ts": …, "type": …, "data": {payload}}`.
///
/// Ids: `hook:` and half of the BLAKE3 digest of the line's text, and `#n` for the n-th line of the same text. Where a
/// line is wrapped, everything that the recorder put around the payload is in the event's `recorder`, and `ts` is the
/// event's time: ISO-8601 (UTC, where it names no zone) or Unix milliseconds.
#[derive(Debug, Clone, Default)]
pub struct HookLines {
    names: LineNames,
    /// The last time that a line named.
    time: Option<TimestampMs>,
}

impl HookLines {
    /// Before the first line of a file.
    pub fn new() -> Self {
        Self::default()
    }
}

impl LineAdapter for HookLines {
    fn line(&mut self, line: &str, now: Option<TimestampMs>) -> Result<Vec<RuntimeEvent>, AdapterError> {
        let line = line.trim();
        let text = readable(line);
        let fields = line_fields(&text, line)?;
        let name = self.names.name(line);
        // A payload may have a `data` of its own; a wrapper names no hook event but in `type`.
        let inner = fields.raw("data").filter(|_| fields.raw("hook_event_name").is_none());
        let Some((inner, payload)) = inner.and_then(|inner| Some((inner, Fields::parse(inner).ok()?))) else {
            let hook = Hook { fields: &fields, readable: &text, payload: line, wrapper: None };
            return hook.events(&name, None, now);
        };

        let around = fields.iter().filter(|(name, _)| *name != "data");
        let around = around.map(|(name, json)| (name, original(json, &text, line)));
        let recorder = around.fold(ObjectText::new(), |object, (name, json)| object.raw(name, json)).finish();
        let own_time = fields.raw("ts").and_then(moment);
        self.time = own_time.or(self.time);
        let time = own_time.or(now).or(self.time);
        let payload_text = original(inner, &text, line);
        let hook = Hook { fields: &payload, readable: inner, payload: payload_text, wrapper: Some(&fields) };
        hook.events(&name, Some(recorder), time)
    }
}

/// The event of one live hook invocation, from the payload on its standard input.
///
/// `name` is what follows `hook:` in the event's id: the same name is the same invocation. Units: `now` is when it
/// came.
///
/// # Errors
/// - `NotAnObject`: the payload is no JSON object.
/// - `Event`: `name` is too long for an id.
pub fn hook_event(payload: &str, name: &str, now: TimestampMs) -> Result<RuntimeEvent, AdapterError> {
    let payload = payload.trim();
    let text = readable(payload);
    let fields = line_fields(&text, payload)?;
    let hook = Hook { fields: &fields, readable: &text, payload, wrapper: None };
    // One event for one invocation.
    hook.events(name, None, Some(now)).map(|mut events| events.swap_remove(0))
}

/// One payload.
struct Hook<'a> {
    fields: &'a Fields<'a>,
    /// The payload's text in the form that `fields` were read from.
    readable: &'a str,
    /// The payload's text as it came.
    payload: &'a str,
    /// The fields of the recorder's line around it.
    wrapper: Option<&'a Fields<'a>>,
}

impl Hook<'_> {
    /// The one event, with this name in its id.
    fn events(
        &self,
        name: &str,
        recorder: Option<String>,
        time: Option<TimestampMs>,
    ) -> Result<Vec<RuntimeEvent>, AdapterError> {
        let fields = self.fields;
        let hook_name = fields.text("hook_event_name");
        let recorded_name = self.wrapper.and_then(|wrapper| wrapper.text("type"));
        let told = match (&hook_name, &recorded_name) {
            (Some(name), _) => self.tell(name).unwrap_or_else(|| self.tell_unknown("hook_event_name", name)),
            (None, Some(name)) => self.tell(name).unwrap_or_else(|| self.tell_unknown("source_event_name", name)),
            (None, None) => self.tell_unknown("source_event_name", "hook"),
        };
        let told = told.with("prompt_id", fields.raw("prompt_id")).with("turn_id", fields.raw("turn_id"));

        let agent_id = fields.text("agent_id");
        let session_id = fields.text("session_id").filter(|id| !id.is_empty());
        let envelope = Envelope {
            source: Source::Hook,
            name: LineName::Own(name.to_owned()),
            timestamp: time,
            hook_name: hook_name.or(recorded_name).unwrap_or_else(|| String::from("hook")),
            session_id: session_id.or_else(|| self.wrapper.and_then(|wrapper| wrapper.text("session_id"))),
            // `agent_type` alone is the session's own.
            agent_type: agent_id.as_ref().and_then(|_| fields.text("agent_type")),
            agent_id,
            context: ObjectText::new()
                .raw("cwd", fields.raw_text("cwd"))
                .raw("transcriptPath", fields.raw_text("transcript_path"))
                .raw("permissionMode", fields.raw_text("permission_mode")),
            expects_decision: told.kind == EventKind::PermissionRequest,
            payload: self.payload,
            recorder,
        };
        envelope.around(vec![told])
    }

    /// The event of a hook that has a kind of its own.
    fn tell(&self, hook_name: &str) -> Option<Told> {
        use EventKind as K;
        let fields = self.fields;
        let plain = |kind, names: &[&str]| Told::new(kind, ObjectText::new().fields(fields, names));
        let of_tool = |kind, names: &[&str]| {
            let told = Told::of_tool(kind, fields.text("tool_name"), fields.text("tool_use_id"));
            names.iter().fold(told, |told, name| told.with(name, fields.raw(name)))
        };
        Some(match hook_name {
            "SessionStart" => plain(K::SessionStart, &["source", "model", "agent_type"]),
            "SessionEnd" => plain(K::SessionEnd, &["reason"]),
            "UserPromptSubmit" => plain(K::UserPrompt, &["prompt", "permission_mode"]),
            "PreToolUse" => of_tool(K::ToolPre, TOOL_FIELDS),
            "PostToolUse" => of_tool(K::ToolPost, TOOL_FIELDS),
            "PostToolUseFailure" => of_tool(K::ToolFailure, TOOL_FIELDS),
            "PermissionRequest" => of_tool(K::PermissionRequest, PERMISSION_FIELDS),
            "PermissionDenied" => of_tool(K::PermissionDenied, PERMISSION_FIELDS),
            "Stop" => plain(K::StopRequest, &["stop_hook_active", "last_assistant_message"]),
            "StopFailure" => plain(K::StopFailure, &[])
                .with("error_type", fields.raw("error_type").or_else(|| fields.raw("error")))
                .with("error_message", fields.raw("error_message").or_else(|| fields.raw("last_assistant_message"))),
            "Interrupt" => plain(K::TurnComplete, &[]).with_text("status", "interrupted"),
            "SubagentStart" => plain(K::SubagentStart, SUBAGENT_FIELDS),
            "SubagentStop" => plain(K::SubagentStop, SUBAGENT_FIELDS),
            "TaskCreated" => plain(K::TaskCreated, TEAM_FIELDS),
            "TaskCompleted" => plain(K::TaskCompleted, TEAM_FIELDS),
            "TeammateIdle" => plain(K::TeammateIdle, TEAM_FIELDS),
            "Notification" => plain(K::Notification, &["notification_type", "title", "message", "request_id"]),
            "PreCompact" => plain(K::CompactPre, &["trigger", "custom_instructions"]),
            "PostCompact" => plain(K::CompactPost, &["trigger"]),
            "Setup" => plain(K::Setup, &["trigger"]),
            "ConfigChange" => plain(K::ConfigChange, &["source", "file_path"]),
            "CwdChanged" => plain(K::CwdChanged, &[]).with("cwd", fields.raw("new_cwd").or_else(|| fields.raw("cwd"))),
            "FileChanged" => plain(K::FileChanged, &["file_path"]),
            "Elicitation" => plain(K::ElicitationRequest, &["action"])
                .with("mcp_server", fields.raw("mcp_server").or_else(|| fields.raw("mcp_server_name")))
                .with("form", fields.raw("form").or_else(|| fields.raw("requested_schema"))),
            "ElicitationResult" => plain(K::ElicitationResult, &["action", "content"])
                .with("mcp_server", fields.raw("mcp_server").or_else(|| fields.raw("mcp_server_name"))),
            "MessageDisplay" => self.tell_display(),
            _ => return None,
        })
    }

    /// A piece of a message: only a message of one piece is told whole.
    fn tell_display(&self) -> Told {
        let fields = self.fields;
        let item = |kind| Told::new(kind, ObjectText::new().raw("item_id", fields.raw("message_id")));
        match (fields.bool("final"), fields.count("index")) {
            (Some(true), Some(0)) => item(EventKind::MessageComplete).with("message", fields.raw("delta")),
            (Some(true), _) => {
                let piece = item(EventKind::MessageComplete);
                piece.with("delta", fields.raw("delta")).with("index", fields.raw("index"))
            }
            _ => item(EventKind::MessageDelta).with("delta", fields.raw("delta")).with("index", fields.raw("index")),
        }
    }

    /// An event without a kind of its own, named by this field of `data`.
    fn tell_unknown(&self, name_field: &str, hook_name: &str) -> Told {
        Told::new(EventKind::Unknown, ObjectText::new().text(name_field, hook_name))
            // The calls of a PostToolBatch: some of them ended without any other word.
            .with("tool_calls", self.fields.raw("tool_calls"))
            .with("payload", self.readable)
    }
}
