//! Claude Code's own record of a session, or of a subagent of one, line by line into RuntimeEvents.
//!
//! | line | events |
//! | --- | --- |
//! | `user` with words of the user's own | `user.prompt`, once a prompt id |
//! | `user` with tool results | for each: `tool.post`, `tool.failure` |
//! | `assistant` | for each block: `message.complete`, `reasoning.delta`, `tool.pre`; then `usage.update` |
//! | `system/compact_boundary` | `compact.post` |
//! | a copy from the session that this one was forked from | `unknown`, named `transcript:copied` |
//! | any other line or block | `unknown` |
//!
//! Invariants: each line that is a JSON object gives at least one event. The first event of a line carries the whole
//! line in `payload`, its text unchanged. Ids: `transcript:UUID` from the line's `uuid`, and `transcript:UUID#1`, … for
//! the events after the first; a copy is `transcript:UUID@SESSION`; a line without a `uuid` is named by its text. Each
//! message id counts once in the tokens. A half of a surrogate pair that stands alone stays as it is in `payload`, and
//! is U+FFFD in `data`.

use std::collections::{HashMap, HashSet};

use runledger_events::{EventKind, RuntimeEvent, Source, TimestampMs, readable};

use crate::claude_message::{ClaudeMessages, joined, prompt};
use crate::claude_tokens::{NO_MODEL, RunningTokens, tokens_json};
use crate::error::AdapterError;
use crate::line_adapter::LineAdapter;
use crate::line_names::LineNames;
use crate::told::{Envelope, LineName, Told, blocks, is_line_id, line_fields, moment, shared};
use runledger_events::{Fields, ObjectText};

/// Marks of `user` lines that the client wrote itself.
const NO_PROMPT_MARKS: &[&str] =
    &["isMeta", "isCompactSummary", "isVisibleInTranscriptOnly", "repeatsCompactSummary", "turnCompanion"];

/// Reads one transcript; a new file needs a new one.
#[derive(Debug, Clone, Default)]
pub struct ClaudeTranscript {
    line_names: LineNames,
    messages: ClaudeMessages,
    /// Of the session (no name), and of each subagent that writes a file of its own.
    tokens: HashMap<Option<String>, RunningTokens>,
    /// What lines without a word of their own take from the ones before.
    session_id: Option<String>,
    cwd_json: Option<String>,
    time: Option<TimestampMs>,
    beginning: Beginning,
    /// Prompt ids told.
    prompt_ids: HashSet<String>,
    /// Tool calls of copied lines.
    copied_calls: HashSet<String>,
    /// Where clients do not name a subagent: the first line of each of its lines' chain, by the line's `uuid`.
    sidechains: HashMap<String, String>,
    /// By the subagent's id.
    agent_types: HashMap<String, String>,
}

/// How a transcript begins, which tells copies from the session's own lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Beginning {
    /// No line with a time came yet.
    #[default]
    Unknown,
    /// With the prompt being queued, at this time: what is older was copied from another session.
    Queued(TimestampMs),
    /// With something else, which tells nothing.
    Other,
}

impl LineAdapter for ClaudeTranscript {
    fn line(&mut self, line: &str, now: Option<TimestampMs>) -> Result<Vec<RuntimeEvent>, AdapterError> {
        let line = line.trim();
        let text = readable(line);
        let fields = line_fields(&text, line)?;

        let name = line_name(&fields);
        self.session_id = fields.text("sessionId").filter(|id| !id.is_empty()).or(self.session_id.take());
        self.cwd_json = fields.raw_text("cwd").map(str::to_owned).or(self.cwd_json.take());
        let own_time = fields.raw("timestamp").and_then(moment);
        self.time = own_time.or(self.time);
        let agent_id = fields.text("agentId").or_else(|| self.sidechain(&fields));
        if let (Some(id), Some(agent_type)) = (&agent_id, fields.text("attributionAgent")) {
            self.agent_types.insert(id.clone(), agent_type);
        }

        let is_copied = self.is_copied(&fields, &name, own_time);
        let told = if is_copied {
            self.remember_calls(&fields);
            vec![Told::unknown("transcript:copied")]
        } else {
            self.tell(&name, &fields, agent_id.is_some())
        };
        let prompt_id = shared(fields.raw_text("promptId"), told.len());
        let told = told.into_iter().map(|told| told.with("prompt_id", prompt_id)).collect();
        let uuid = fields.text("uuid").map(|uuid| match &self.session_id {
            // The line that this is a copy of has the same `uuid`.
            Some(session_id) if is_copied => format!("{uuid}@{session_id}"),
            _ => uuid,
        });
        let uuid = uuid.filter(|uuid| is_line_id(uuid));
        let envelope = Envelope {
            source: Source::Transcript,
            name: uuid.map_or_else(|| LineName::Digest(self.line_names.name(line)), LineName::Own),
            timestamp: self.time.or(now),
            hook_name: format!("transcript:{name}"),
            session_id: self.session_id.clone(),
            agent_type: agent_id.as_ref().and_then(|id| self.agent_types.get(id).cloned()),
            agent_id,
            context: ObjectText::new()
                .raw("cwd", self.cwd_json.as_deref())
                .raw("permissionMode", fields.raw_text("permissionMode")),
            expects_decision: false,
            payload: line,
            recorder: None,
        };
        envelope.around(told)
    }
}

impl ClaudeTranscript {
    /// Before the first line of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// The events of a line that is the session's own: at least one.
    fn tell(&mut self, name: &str, line: &Fields<'_>, is_of_subagent: bool) -> Vec<Told> {
        let told = match (name, line.object("message")) {
            ("system/compact_boundary", _) => {
                let metadata = line.object("compactMetadata");
                let trigger = metadata.and_then(|metadata| metadata.raw_text("trigger"));
                vec![Told::new(EventKind::CompactPost, ObjectText::new().raw("trigger", trigger))]
            }
            ("assistant", Some(message)) => self.assistant(line, &message),
            ("user", Some(message)) => self.user(line, &message, is_of_subagent),
            _ => Vec::new(),
        };
        if told.is_empty() { vec![Told::unknown(&format!("transcript:{name}"))] } else { told }
    }

    fn assistant(&mut self, line: &Fields<'_>, message: &Fields<'_>) -> Vec<Told> {
        let is_of_model = message.text("model").is_none_or(|model| model != NO_MODEL);
        // A filler between the user's words; an API error is a message that the user sees.
        if !is_of_model && line.bool("isApiErrorMessage") != Some(true) {
            return Vec::new();
        }
        let mut told = self.messages.assistant(message, "transcript:assistant");
        let thread = line.text("agentId");
        let tokens = self.tokens.entry(thread.clone()).or_default();
        let is_main = line.bool("isSidechain") != Some(true) || thread.is_some();
        if is_of_model && tokens.message(message, is_main) {
            let usage = tokens_json(&tokens.so_far());
            let data = ObjectText::new().raw("usage", usage.as_str()).text("thread_id", thread.as_deref());
            told.push(Told::new(EventKind::UsageUpdate, data));
        }
        told
    }

    fn user(&mut self, line: &Fields<'_>, message: &Fields<'_>, is_of_subagent: bool) -> Vec<Told> {
        let blocks = blocks(message, "content");
        let blocks: Vec<Option<Fields<'_>>> = blocks.into_iter().map(|block| Fields::parse(block).ok()).collect();
        let kind_of = |block: &Option<Fields<'_>>| block.as_ref().and_then(|block| block.text("type"));
        if !blocks.iter().any(|block| kind_of(block).as_deref() == Some("tool_result")) {
            let is_users = !is_of_subagent && !NO_PROMPT_MARKS.iter().any(|mark| line.bool(mark) == Some(true));
            return if is_users { self.prompt(line, message).into_iter().collect() } else { Vec::new() };
        }

        // The line has one structured result, whatever the number of blocks.
        let whole_result = line.raw("toolUseResult").filter(|_| blocks.len() == 1);
        let is_interrupt = line.text("toolDenialKind").as_deref() == Some("interrupted");
        let tell_block = |block: Option<Fields<'_>>| match (kind_of(&block).as_deref(), block) {
            (Some("tool_result"), Some(block)) => self.messages.tool_result(&block, whole_result, is_interrupt),
            (kind, _) => Told::unknown(&joined("transcript:user", kind)),
        };
        blocks.into_iter().map(tell_block).collect()
    }

    /// The prompt that a user message is, unless it was told before.
    fn prompt(&mut self, line: &Fields<'_>, message: &Fields<'_>) -> Option<Told> {
        let texts = match message.text("content") {
            Some(text) => text,
            None => {
                let blocks = message.list("content")?;
                let texts = blocks.into_iter().filter_map(|block| Fields::parse(block).ok()?.text("text"));
                let texts: Vec<String> = texts.collect();
                if texts.is_empty() {
                    return None;
                }
                texts.join("\n")
            }
        };
        let prompt = prompt(&texts)?;
        if line.text("promptId").is_some_and(|id| !self.prompt_ids.insert(id)) {
            return None;
        }
        let data = ObjectText::new().text("prompt", prompt.as_str());
        Some(Told::new(EventKind::UserPrompt, data).with("permission_mode", line.raw_text("permissionMode")))
    }

    /// Whether the line was copied from the session that this one was forked from.
    fn is_copied(&mut self, line: &Fields<'_>, name: &str, time: Option<TimestampMs>) -> bool {
        if let (Beginning::Unknown, Some(time)) = (self.beginning, time) {
            let is_queued = name.starts_with("queue-operation");
            self.beginning = if is_queued { Beginning::Queued(time) } else { Beginning::Other };
        }
        if line.raw("forkedFrom").is_some() {
            return true;
        }
        let requested_in = line.text("requestSessionId");
        if requested_in.is_some_and(|session| line.text("sessionId").is_some_and(|own| own != session)) {
            return true;
        }
        // Attachments are made a moment before the prompt is queued.
        let is_fact = matches!(name.split('/').next(), Some("user" | "assistant" | "system"));
        let is_older = matches!((self.beginning, time), (Beginning::Queued(began), Some(time)) if time < began);
        is_fact && (is_older || self.is_of_copied_call(line))
    }

    fn is_of_copied_call(&self, line: &Fields<'_>) -> bool {
        !self.copied_calls.is_empty()
            && blocks_of(line).iter().any(|block| {
                Fields::parse(block)
                    .is_ok_and(|block| block.text("tool_use_id").is_some_and(|id| self.copied_calls.contains(&id)))
            })
    }

    fn remember_calls(&mut self, line: &Fields<'_>) {
        let blocks = blocks_of(line);
        let blocks = blocks.into_iter().filter_map(|block| Fields::parse(block).ok());
        let calls = blocks.filter(|block| block.text("type").as_deref() == Some("tool_use"));
        self.copied_calls.extend(calls.filter_map(|block| block.text("id")));
    }

    /// The subagent of a line of a client that does not name it: the `uuid` of the first line of its chain.
    fn sidechain(&mut self, line: &Fields<'_>) -> Option<String> {
        if line.bool("isSidechain") != Some(true) {
            return None;
        }
        let uuid = line.text("uuid")?;
        let first = line
            .text("parentUuid")
            .map_or_else(|| uuid.clone(), |parent| self.sidechains.get(&parent).cloned().unwrap_or(parent));
        self.sidechains.insert(uuid, first.clone());
        Some(first)
    }
}

/// The blocks of the line's message.
fn blocks_of<'a>(line: &Fields<'a>) -> Vec<&'a str> {
    line.object("message").and_then(|message| message.list("content")).unwrap_or_default()
}

/// `type`, `type/subtype`, or `attachment/TYPE`.
fn line_name(line: &Fields<'_>) -> String {
    let kind = line.text("type").unwrap_or_else(|| String::from("untyped"));
    let attachment = line.object("attachment").and_then(|attachment| attachment.text("type"));
    joined(&kind, line.text("subtype").or(attachment).as_deref())
}
