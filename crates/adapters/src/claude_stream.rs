//! The standard output of `claude -p PROMPT --output-format stream-json --verbose`, line by line into RuntimeEvents.
//!
//! | line | events |
//! | --- | --- |
//! | `system/init` | `session.start` for the first, `turn.start` for each later one |
//! | `assistant` | for each block: `message.complete`, `reasoning.delta`, `tool.pre` |
//! | `user` | for each block: `tool.post`, `tool.failure`; `user.prompt` where the text is the user's own |
//! | `result` | `usage.update`, `turn.complete` |
//! | `system/permission_denied` | `permission.denied` |
//! | `system/compact_boundary` | `compact.post` |
//! | `system/task_started`, `system/task_notification` | `subagent.start`, `subagent.stop`; of a background shell `unknown` |
//! | `system/api_retry`, `system/notification`, `system/informational` | `notification` |
//! | any other line or block | `unknown` |
//!
//! Invariants: each line that is a JSON object gives at least one event. The first event of a line carries the whole
//! line in `payload`, its text unchanged. Ids: `stream:UUID` from the line's `uuid`, and `stream:UUID#1`, … for the
//! events after the first; a line without one is named by its text. Events of lines before the first `system/init` name
//! no session: with `--continue` the id that such a line carries is no session's.
//! A half of a surrogate pair that stands alone stays as it is in `payload`, and is U+FFFD in `data`.

use std::collections::{HashMap, HashSet};

use runledger_events::{AdapterSessionId, EventKind, RuntimeEvent, Source, TimestampMs, Tokens, readable};

use crate::claude_message::{ClaudeMessages, joined, prompt, words};
use crate::claude_tokens::{ClaudeTokens, Thread, tokens_json};
use crate::error::AdapterError;
use crate::line_adapter::LineAdapter;
use crate::line_names::LineNames;
use crate::told::{Envelope, LineName, Told, blocks, is_line_id, line_fields, moment};
use runledger_events::{Fields, ObjectText};

/// What a result line says about how it ended.
///
/// A process writes one result line a turn, all at its end; this is the last one's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaudeOutcome {
    /// Whether the client says that it failed. An API error comes with the subtype `success`, so look here.
    pub is_error: bool,
    /// `success`, `error_during_execution`, `error_max_turns`, …
    pub subtype: Option<String>,
    /// `completed`, `aborted_tools`, `api_error`, `hook_stopped`, `tool_deferred`, …; unknown after a slash command.
    pub terminal_reason: Option<String>,
    /// The call that waits for a decision, where a hook deferred one: the client ended, and makes it when it is resumed.
    pub deferred_tool_use_id: Option<String>,
    /// The last message's text, or an API error's.
    pub result: Option<String>,
    /// What went wrong, in the client's words.
    pub errors: Vec<String>,
}

/// Reads one process's output; a new process needs a new one.
#[derive(Debug, Clone, Default)]
pub struct ClaudeStream {
    /// Whether a `system/init` line came.
    has_begun: bool,
    /// The last time that a line named.
    time: Option<TimestampMs>,
    adapter_session_id: Option<AdapterSessionId>,
    /// The folder of the last `system/init` line, as JSON text.
    cwd_json: Option<String>,
    tokens: ClaudeTokens,
    outcome: Option<ClaudeOutcome>,
    messages: ClaudeMessages,
    /// By the subagent's id.
    agent_types: HashMap<String, String>,
    /// Background tasks that are no subagents.
    shell_tasks: HashSet<String>,
    line_names: LineNames,
}

impl LineAdapter for ClaudeStream {
    fn line(&mut self, line: &str, now: Option<TimestampMs>) -> Result<Vec<RuntimeEvent>, AdapterError> {
        ClaudeStream::line(self, line, now)
    }
}

impl ClaudeStream {
    /// Before the first line of a process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one line of standard output and gives the events it tells.
    ///
    /// Shape: 1..n events, in order. Units: `now` is the line's arrival, the time of events whose line names none.
    ///
    /// # Errors
    /// - `NotAnObject`: the line is no JSON object; nothing was taken from it, go on with the next.
    /// - `Event`: a mistake in this translator; the line's figures were taken, its events are lost.
    pub fn line(&mut self, line: &str, now: impl Into<Option<TimestampMs>>) -> Result<Vec<RuntimeEvent>, AdapterError> {
        let line = line.trim();
        let text = readable(line);
        let fields = line_fields(&text, line)?;

        let name = line_name(&fields);
        let mut told = self.tell(&name, &fields);
        if told.is_empty() {
            told.push(Told::unknown(&name));
        }

        let own_time = fields.raw_text("timestamp").and_then(moment);
        self.time = own_time.or(self.time);
        let timestamp = own_time.or(now.into()).or(self.time);

        let agent_id = fields.text("agent_id");
        let uuid = fields.text("uuid").filter(|uuid| is_line_id(uuid));
        let envelope = Envelope {
            source: Source::Stream,
            name: uuid.map_or_else(|| LineName::Digest(self.line_names.name(line)), LineName::Own),
            timestamp,
            hook_name: format!("stream:{name}"),
            // Before the first `system/init` a line may carry an id that is no session's.
            session_id: fields.text("session_id").filter(|_| self.has_begun),
            agent_type: agent_id
                .as_ref()
                .and_then(|id| fields.text("subagent_type").or_else(|| self.agent_types.get(id).cloned())),
            agent_id,
            context: ObjectText::new().raw("cwd", self.cwd_json.as_deref()),
            expects_decision: false,
            payload: line,
            recorder: None,
        };
        envelope.around(told)
    }

    /// The session of the last `system/init` line.
    ///
    /// Lines before it do not count, see above.
    pub fn adapter_session_id(&self) -> Option<&AdapterSessionId> {
        self.adapter_session_id.as_ref()
    }

    /// What this process has cost so far, subagents included.
    ///
    /// `context_size` is the main thread's. Where no result line came (the process was killed), `output` is too low:
    /// messages tell their usage as it was when they began.
    pub fn tokens(&self) -> Tokens {
        self.tokens.so_far()
    }

    /// What the last result line says; none before it, and none at all where the process was killed.
    pub fn outcome(&self) -> Option<&ClaudeOutcome> {
        self.outcome.as_ref()
    }

    /// Tool calls that the model asked for, those of subagents and denied ones included.
    pub fn tool_uses(&self) -> u64 {
        self.messages.tool_uses()
    }

    fn tell(&mut self, name: &str, line: &Fields<'_>) -> Vec<Told> {
        match name {
            "system/init" => vec![self.init(line)],
            "system/permission_denied" => vec![self.permission_denied(line)],
            "system/compact_boundary" => {
                let metadata = line.object("compact_metadata");
                let trigger = metadata.and_then(|metadata| metadata.raw_text("trigger"));
                vec![Told::new(EventKind::CompactPost, ObjectText::new().raw("trigger", trigger))]
            }
            "system/task_started" => self.task_started(line),
            "system/task_notification" => self.task_notification(line),
            "system/api_retry" => vec![api_retry(line)],
            "system/notification" => vec![notification(line, "key", "notification", "text")],
            "system/informational" => vec![notification(line, "tag", "informational", "content")],
            _ => match line.text("type").as_deref() {
                Some("assistant") => self.assistant(line),
                Some("user") => self.user(line),
                Some("result") => self.result(line),
                _ => Vec::new(),
            },
        }
    }

    fn init(&mut self, line: &Fields<'_>) -> Told {
        let session = line.text("session_id").and_then(|id| AdapterSessionId::new(id).ok());
        self.adapter_session_id = session.or(self.adapter_session_id.take());
        self.cwd_json = line.raw_text("cwd").map(str::to_owned).or(self.cwd_json.take());
        if std::mem::replace(&mut self.has_begun, true) {
            return Told::new(EventKind::TurnStart, ObjectText::new());
        }
        let data = ObjectText::new().text("source", "startup").raw("model", line.raw_text("model"));
        Told::new(EventKind::SessionStart, data)
    }

    fn permission_denied(&mut self, line: &Fields<'_>) -> Told {
        let tool_use_id = line.text("tool_use_id");
        let tool_name = line.text("tool_name").or_else(|| self.messages.tool_name(tool_use_id.as_deref()));
        let reason = line.raw_text("decision_reason").or_else(|| line.raw_text("message"));
        Told::of_tool(EventKind::PermissionDenied, tool_name, tool_use_id).with("reason", reason)
    }

    fn task_started(&mut self, line: &Fields<'_>) -> Vec<Told> {
        let task_id = line.text("task_id");
        let agent_type = line.text("subagent_type");
        // A background shell is a task as well (`local_bash`).
        let is_shell = agent_type.is_none() && line.text("task_type").is_some_and(|kind| !kind.ends_with("agent"));
        if is_shell {
            self.shell_tasks.extend(task_id);
            return Vec::new();
        }
        let data = ObjectText::new()
            .text("agent_id", task_id.as_deref())
            .text("agent_type", agent_type.as_deref())
            .raw("prompt", line.raw_text("prompt"))
            .raw("tool", line.raw_text("tool_use_id"));
        self.agent_types.extend(task_id.zip(agent_type));
        vec![Told::new(EventKind::SubagentStart, data)]
    }

    fn task_notification(&mut self, line: &Fields<'_>) -> Vec<Told> {
        let task_id = line.text("task_id");
        if task_id.as_ref().is_some_and(|id| self.shell_tasks.contains(id)) {
            return Vec::new();
        }
        let agent_type = task_id.as_ref().and_then(|id| self.agent_types.get(id));
        let is_report = line.bool("summary_is_report") == Some(true);
        let summary = if is_report { "last_assistant_message" } else { "summary" };
        let data = ObjectText::new()
            .text("agent_id", task_id.as_deref())
            .text("agent_type", agent_type.map(String::as_str))
            .raw("status", line.raw_text("status"))
            .raw("tool", line.raw_text("tool_use_id"))
            .raw(summary, line.raw_text("summary"));
        vec![Told::new(EventKind::SubagentStop, data)]
    }

    fn assistant(&mut self, line: &Fields<'_>) -> Vec<Told> {
        let Some(message) = line.object("message") else {
            return Vec::new();
        };
        let thread = if is_of_subagent(line) { Thread::Subagent } else { Thread::Main };
        self.tokens.message(&message, thread);
        self.messages.assistant(&message, "assistant")
    }

    fn user(&mut self, line: &Fields<'_>) -> Vec<Told> {
        let Some(message) = line.object("message") else {
            return Vec::new();
        };
        // What the client put in itself is no prompt, nor is what a subagent was asked to do.
        let is_users = line.bool("isSynthetic") != Some(true) && !is_of_subagent(line);
        let tell_text = |text: Option<String>| {
            let prompt = text.filter(|_| is_users).and_then(|text| prompt(&text));
            let tell =
                |prompt: String| Told::new(EventKind::UserPrompt, ObjectText::new().text("prompt", prompt.as_str()));
            prompt.map_or_else(|| Told::unknown("user"), tell)
        };
        if let Some(text) = message.text("content") {
            return vec![tell_text(Some(text))];
        }
        let blocks = blocks(&message, "content");
        // The line has one structured result, whatever the number of blocks.
        let whole_result = line.raw("tool_use_result").filter(|_| blocks.len() == 1);
        let tell_block = |block: &str| {
            let Ok(block) = Fields::parse(block) else {
                return Told::unknown("user");
            };
            match block.text("type").as_deref() {
                Some("text") => tell_text(block.text("text")),
                Some("tool_result") => self.messages.tool_result(&block, whole_result, false),
                other => Told::unknown(&joined("user", other)),
            }
        };
        blocks.into_iter().map(tell_block).collect()
    }

    fn result(&mut self, line: &Fields<'_>) -> Vec<Told> {
        let delta = self.tokens.result(line);
        let usage = ObjectText::new()
            .raw("usage", tokens_json(&self.tokens.so_far()).as_str())
            .raw("delta", tokens_json(&delta).as_str());

        let subtype = line.text("subtype");
        let names_error = subtype.as_ref().is_some_and(|subtype| subtype.starts_with("error"));
        let outcome = ClaudeOutcome {
            is_error: line.bool("is_error").unwrap_or(names_error),
            subtype,
            terminal_reason: line.text("terminal_reason"),
            deferred_tool_use_id: line
                .object("deferred_tool_use")
                .filter(|_| line.text("stop_reason").as_deref() == Some("tool_deferred"))
                .and_then(|call| call.text("id")),
            result: line.text("result"),
            errors: line.list("errors").unwrap_or_default().into_iter().map(words).collect(),
        };
        // An API error is told as `success` with `is_error`.
        let status = match outcome.subtype.as_deref() {
            None | Some("success") if outcome.is_error => "error",
            None => "success",
            Some(subtype) => subtype,
        };
        let complete = ObjectText::new()
            .text("status", status)
            .raw("is_error", if outcome.is_error { "true" } else { "false" })
            .raw("terminal_reason", line.raw_text("terminal_reason"))
            .raw("errors", line.raw("errors"));
        self.outcome = Some(outcome);
        vec![Told::new(EventKind::UsageUpdate, usage), Told::new(EventKind::TurnComplete, complete)]
    }
}

/// Whether a subagent said this, or was told it.
fn is_of_subagent(line: &Fields<'_>) -> bool {
    line.raw("parent_tool_use_id").is_some() || line.raw("agent_id").is_some()
}

/// `type`, or `type/subtype`.
fn line_name(line: &Fields<'_>) -> String {
    let kind = line.text("type").unwrap_or_else(|| String::from("untyped"));
    joined(&kind, line.text("subtype").as_deref())
}

fn notification(line: &Fields<'_>, type_field: &str, otherwise: &str, message_field: &str) -> Told {
    let notification_type = line.text(type_field);
    let data = ObjectText::new()
        .text("notification_type", notification_type.as_deref().unwrap_or(otherwise))
        .raw("message", line.raw_text(message_field));
    Told::new(EventKind::Notification, data)
}

fn api_retry(line: &Fields<'_>) -> Told {
    let figure = |name| line.count(name).map_or_else(|| String::from("?"), |count| count.to_string());
    let (attempt, of) = (figure("attempt"), figure("max_retries"));
    let error = line.text("error").unwrap_or_else(|| String::from("unknown"));
    let status = line.count("error_status").map(|status| format!(" ({status})")).unwrap_or_default();
    let data = ObjectText::new()
        .text("notification_type", "api_retry")
        .text("message", format!("API retry {attempt} of {of} after: {error}{status}").as_str());
    Told::new(EventKind::Notification, data)
}
