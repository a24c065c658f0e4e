//! Codex's own record of a thread (a rollout), line by line into RuntimeEvents.
//!
//! | line | events |
//! | --- | --- |
//! | `session_meta` | `session.start`; of a subagent's thread `subagent.start` |
//! | `event_msg/task_started`, `…/task_complete`, `…/turn_aborted` | `turn.start`, `turn.complete` |
//! | `event_msg/user_message`, `event_msg/item_completed/UserMessage` | `user.prompt` |
//! | `response_item/message` of the assistant | `message.complete` |
//! | `response_item/reasoning` | for each summary and text: `reasoning.delta` |
//! | `response_item/function_call`, `…/custom_tool_call`, `…/local_shell_call` | `tool.pre`; `plan.delta` too |
//! | `…_output` of these | `tool.post`, `tool.failure` |
//! | `event_msg/token_count` | `usage.update` where figures changed |
//! | `compacted` | `compact.post` |
//! | any other | `unknown` |
//!
//! Many facts stand in a rollout twice; one of the two kinds of line is told, the other is `unknown`.
//!
//! Invariants: each line that is a JSON object gives at least one event. The first event of a line carries the whole
//! line in `payload`, its text unchanged. Ids: `transcript:` and half of the BLAKE3 digest of the line's text, with
//! `#n` for the n-th line of the same text and `/n` for the events after a line's first. A half of a surrogate pair
//! that stands alone stays as it is in `payload`, and is U+FFFD in `data`.

use std::collections::HashMap;

use runledger_events::{EventKind, RuntimeEvent, Source, TimestampMs, Tokens, readable};

use crate::claude_message::joined;
use crate::claude_tokens::tokens_json;
use crate::codex_words::{beyond, codex_tokens, script};
use crate::error::AdapterError;
use crate::line_adapter::LineAdapter;
use crate::line_names::LineNames;
use crate::told::{Envelope, LineName, Told, blocks, line_fields, moment, shared};
use runledger_events::{Fields, ObjectText, as_text, quoted};

/// What hooks call the tool that runs a command, whatever the model calls it.
const SHELL: &str = "Bash";

/// What the client puts before a command's output.
const OUTPUT_BEGINS: &[&str] = &["Chunk ID: ", "Wall time: ", "Exit code: "];

/// What the client says where a tool did not run at all.
const FAILURE_BEGINS: &[&str] = &["Command blocked by ", "unsupported call: ", "exec_command failed"];

/// Reads one rollout; a new file needs a new one.
#[derive(Debug, Clone, Default)]
pub struct CodexRollout {
    line_names: LineNames,
    session_id: Option<String>,
    /// Where the thread is a subagent's: its id and type.
    agent: Option<(String, String)>,
    /// The turn that the lines belong to.
    turn_id: Option<String>,
    cwd_json: Option<String>,
    time: Option<TimestampMs>,
    /// By the call's id.
    tool_names: HashMap<String, String>,
    /// Whether the thread began with another's history, which its figures have in them.
    is_fork: bool,
    /// What the thread's figures began with, once they are known.
    tokens_before: Option<Tokens>,
    tokens: Tokens,
}

impl LineAdapter for CodexRollout {
    fn line(&mut self, line: &str, now: Option<TimestampMs>) -> Result<Vec<RuntimeEvent>, AdapterError> {
        let line = line.trim();
        let text = readable(line);
        let fields = line_fields(&text, line)?;

        self.time = fields.raw("timestamp").and_then(moment).or(self.time);
        let payload = fields.object("payload");
        let name = line_name(&fields, payload.as_ref());
        let mut told = payload.as_ref().map(|payload| self.tell(&name, payload)).unwrap_or_default();
        if told.is_empty() {
            told.push(Told::unknown(&format!("rollout:{name}")));
        }
        let turn_id = payload.as_ref().and_then(own_turn_id).or_else(|| self.turn_id.clone());
        let turn_id = shared(turn_id, told.len());
        let told = told.into_iter().map(|told| told.with_text("turn_id", turn_id.as_deref())).collect();
        if matches!(name.as_str(), "event_msg/task_complete" | "event_msg/turn_aborted") {
            self.turn_id = None;
        }

        let agent = self.agent.clone();
        let envelope = Envelope {
            source: Source::Transcript,
            name: LineName::Digest(self.line_names.name(line)),
            timestamp: self.time.or(now),
            hook_name: format!("rollout:{name}"),
            session_id: self.session_id.clone(),
            agent_id: agent.as_ref().map(|(id, _)| id.clone()),
            agent_type: agent.map(|(_, agent_type)| agent_type),
            context: ObjectText::new().raw("cwd", self.cwd_json.as_deref()),
            expects_decision: false,
            payload: line,
            recorder: None,
        };
        envelope.around(told)
    }
}

impl CodexRollout {
    /// Before the first line of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// The events of a line with this payload; none where it has no kind of its own.
    fn tell(&mut self, name: &str, payload: &Fields<'_>) -> Vec<Told> {
        match name {
            "session_meta" => self.session_meta(payload),
            "turn_context" => {
                self.turn_id = payload.text("turn_id").or(self.turn_id.take());
                self.cwd_json = payload.raw_text("cwd").map(str::to_owned).or(self.cwd_json.take());
                Vec::new()
            }
            "compacted" => vec![Told::new(EventKind::CompactPost, ObjectText::new())],
            "event_msg/task_started" => {
                self.turn_id = payload.text("turn_id").or(self.turn_id.take());
                vec![Told::new(EventKind::TurnStart, ObjectText::new())]
            }
            "event_msg/task_complete" => {
                let status = if payload.raw("error").is_some() { "failed" } else { "completed" };
                let data = ObjectText::new().text("status", status).fields(payload, &["last_agent_message", "error"]);
                vec![Told::new(EventKind::TurnComplete, data)]
            }
            "event_msg/turn_aborted" => {
                let data = ObjectText::new().text("status", "interrupted").fields(payload, &["reason"]);
                vec![Told::new(EventKind::TurnComplete, data)]
            }
            "event_msg/user_message" => prompt(payload.text("message")),
            "event_msg/item_completed/UserMessage" => {
                prompt(payload.object("item").and_then(|item| texts(&item, "content", "text")))
            }
            "event_msg/token_count" => self.token_count(payload),
            "response_item/message" => message(payload),
            "response_item/reasoning" => reasoning(payload),
            "response_item/function_call" | "response_item/custom_tool_call" | "response_item/local_shell_call" => {
                self.call(payload)
            }
            _ if name.ends_with("_call_output") && name.starts_with("response_item/") => self.call_output(payload),
            _ => Vec::new(),
        }
    }

    fn session_meta(&mut self, payload: &Fields<'_>) -> Vec<Told> {
        let thread_id = payload.text("id");
        // A fork of an older client begins with a copy of the other thread, which has a line of this kind too.
        if self.session_id.is_some() {
            return Vec::new();
        }
        let spawn = payload.object("source").and_then(|source| source.object("subagent"));
        let spawn = spawn.and_then(|subagent| subagent.object("thread_spawn"));
        let parent_id = payload.text("parent_thread_id");
        let parent_id = parent_id.or_else(|| spawn.as_ref().and_then(|spawn| spawn.text("parent_thread_id")));
        let session_id = payload.text("session_id").or_else(|| parent_id.clone()).or_else(|| thread_id.clone());
        self.session_id = session_id.filter(|id| !id.is_empty());
        self.cwd_json = payload.raw_text("cwd").map(str::to_owned);
        self.is_fork = payload.raw("forked_from_id").is_some();
        if let (Some(_), Some(agent_id)) = (parent_id, thread_id) {
            let role = spawn.and_then(|spawn| spawn.text("agent_role"));
            let agent_type = role.unwrap_or_else(|| String::from("default"));
            let data = ObjectText::new().text("agent_id", agent_id.as_str()).text("agent_type", agent_type.as_str());
            self.agent = Some((agent_id, agent_type));
            return vec![Told::new(EventKind::SubagentStart, data)];
        }
        let instructions = payload.object("base_instructions").and_then(|it| it.object("provenance"));
        let model = instructions.and_then(|provenance| provenance.text("model"));
        let source = if self.is_fork { "fork" } else { "startup" };
        let data = ObjectText::new().text("source", source).text("model", model.as_deref());
        vec![Told::new(EventKind::SessionStart, data)]
    }

    fn token_count(&mut self, payload: &Fields<'_>) -> Vec<Told> {
        let Some(info) = payload.object("info") else {
            return Vec::new();
        };
        let (Some(sums), last) = (info.object("total_token_usage"), info.object("last_token_usage")) else {
            return Vec::new();
        };
        let sums = codex_tokens(&sums);
        let delta = last.as_ref().map(codex_tokens);
        let is_fork = self.is_fork;
        let of_other = || if is_fork { beyond(&sums, &delta.unwrap_or_default()) } else { Tokens::default() };
        let before = *self.tokens_before.get_or_insert_with(of_other);
        let tokens = Tokens {
            context_size: last.and_then(|last| last.count("input_tokens")),
            context_window_size: info.count("model_context_window"),
            ..beyond(&sums, &before)
        };
        // The line comes again where only the account's limits changed.
        if !tokens.has_sums() || tokens == self.tokens {
            return Vec::new();
        }
        self.tokens = tokens;
        let (usage, delta) = (tokens_json(&tokens), delta.as_ref().map(tokens_json));
        let data = ObjectText::new().raw("usage", usage.as_str()).raw("delta", delta.as_deref());
        let thread_id = self.agent.as_ref().map(|(id, _)| id.as_str());
        vec![Told::new(EventKind::UsageUpdate, data.text("thread_id", thread_id))]
    }

    fn call(&mut self, payload: &Fields<'_>) -> Vec<Told> {
        let name = payload.text("name").unwrap_or_else(|| String::from("local_shell"));
        let tool_name = match name.as_str() {
            "exec_command" | "shell" | "shell_command" | "local_shell" | "container.exec" => SHELL.to_owned(),
            _ => match payload.text("namespace") {
                // A server's tool; the client's own namespaces are not part of a name.
                Some(namespace) if namespace.starts_with("mcp__") => {
                    format!("{}__{name}", namespace.trim_end_matches('_'))
                }
                _ => name,
            },
        };
        let call_id = payload.text("call_id").or_else(|| payload.text("id"));
        if let Some(call_id) = &call_id {
            self.tool_names.insert(call_id.clone(), tool_name.clone());
        }
        let arguments = payload.text("arguments").map(|text| readable(&text).into_owned());
        let input = tool_input(&tool_name, payload, arguments.as_deref());
        let told =
            Told::of_tool(EventKind::ToolPre, Some(tool_name.clone()), call_id).with("tool_input", input.as_str());
        let mut told = vec![told];
        if tool_name == "update_plan"
            && let Some(arguments) = arguments.as_deref().and_then(|arguments| Fields::parse(arguments).ok())
        {
            let data = ObjectText::new().fields(&arguments, &["plan", "explanation"]);
            told.push(Told::new(EventKind::PlanDelta, data));
        }
        told
    }

    fn call_output(&mut self, payload: &Fields<'_>) -> Vec<Told> {
        let call_id = payload.text("call_id");
        let tool_name = call_id.as_ref().and_then(|id| self.tool_names.get(id).cloned());
        let output = Output::read(payload);
        let kind = if output.is_failure { EventKind::ToolFailure } else { EventKind::ToolPost };
        let is_shell = tool_name.as_deref() == Some(SHELL);
        let told = Told::of_tool(kind, tool_name, call_id);
        let exit_code = output.exit_code.filter(|_| is_shell).map(|code| code.to_string());
        let words = if is_shell { &output.words } else { &output.whole };
        let field = if output.is_failure { "error" } else { "tool_response" };
        let told = told.with(field, words.as_str()).with("exit_code", exit_code.as_deref());
        let is_interrupt = output.is_failure.then_some(if output.is_interrupt { "true" } else { "false" });
        vec![told.with("is_interrupt", is_interrupt)]
    }
}

/// What a tool gave back.
struct Output {
    /// As it stands in the rollout, as JSON text.
    whole: String,
    /// The command's own output alone, as JSON text.
    words: String,
    exit_code: Option<i64>,
    is_failure: bool,
    is_interrupt: bool,
}

impl Output {
    fn read(payload: &Fields<'_>) -> Self {
        let whole = payload.raw("output").unwrap_or("null");
        let mut output = Self {
            whole: whole.to_owned(),
            words: whole.to_owned(),
            exit_code: None,
            is_failure: payload.object("output").is_some_and(|output| output.bool("success") == Some(false)),
            is_interrupt: false,
        };
        let Some(text) = as_text(whole) else {
            return output;
        };
        let is_of_client = OUTPUT_BEGINS.iter().any(|begin| text.starts_with(begin));
        let (head, words) = match text.split_once("Output:\n") {
            Some((head, words)) if is_of_client && (head.is_empty() || head.ends_with('\n')) => (head, Some(words)),
            _ => (text.as_str(), None),
        };
        if let Some(words) = words {
            output.words = quoted(words);
            output.exit_code = head.lines().find_map(|line| {
                let code = line.strip_prefix("Process exited with code ").or_else(|| line.strip_prefix("Exit code: "));
                code?.trim().parse().ok()
            });
            return output;
        }
        // Clients of 2025 wrote an object as text.
        if let Ok(object) = Fields::parse(&readable(&text))
            && let (Some(words), Some(metadata)) = (object.raw_text("output"), object.object("metadata"))
        {
            output.words = words.to_owned();
            output.exit_code = metadata.raw("exit_code").and_then(|code| code.parse().ok());
            return output;
        }
        output.is_interrupt = text.lines().any(|line| line.starts_with("aborted by user"))
            && (is_of_client || text.starts_with("aborted by user"));
        output.is_failure |= output.is_interrupt || FAILURE_BEGINS.iter().any(|begin| text.starts_with(begin));
        output
    }
}

/// The input of a call as hooks tell it, as JSON text.
fn tool_input(tool_name: &str, payload: &Fields<'_>, arguments: Option<&str>) -> String {
    let given = arguments.and_then(|arguments| Some((arguments, Fields::parse(arguments).ok()?)));
    let command = |text: String| ObjectText::new().text("command", text.as_str()).finish();
    let words = |of: &Fields<'_>| {
        let words = of.list("command")?.into_iter().map(as_text).collect::<Option<Vec<String>>>()?;
        Some(script(&words))
    };
    if tool_name == SHELL {
        let of_call = given
            .as_ref()
            .and_then(|(_, given)| given.text("cmd").or_else(|| given.text("command")).or_else(|| words(given)));
        if let Some(text) = of_call.or_else(|| payload.object("action").and_then(|action| words(&action))) {
            return command(text);
        }
    }
    if tool_name == "apply_patch" {
        let patch = payload.text("input").or_else(|| given.as_ref().and_then(|(_, given)| given.text("input")));
        if let Some(patch) = patch {
            return command(patch);
        }
    }
    match given {
        Some((json, _)) => json.to_owned(),
        None => ObjectText::new().fields(payload, &["input", "arguments", "action"]).finish(),
    }
}

fn prompt(text: Option<String>) -> Vec<Told> {
    let tell = |text: String| Told::new(EventKind::UserPrompt, ObjectText::new().text("prompt", text.as_str()));
    text.map(tell).into_iter().collect()
}

fn message(payload: &Fields<'_>) -> Vec<Told> {
    let text = texts(payload, "content", "text").filter(|_| payload.text("role").as_deref() == Some("assistant"));
    let tell = |text: String| {
        let data = ObjectText::new().text("message", text.as_str()).raw("item_id", payload.raw_text("id"));
        Told::new(EventKind::MessageComplete, data.fields(payload, &["phase"]))
    };
    text.map(tell).into_iter().collect()
}

/// The summaries of a piece of reasoning, and its words where the model gives them.
fn reasoning(payload: &Fields<'_>) -> Vec<Told> {
    let tell = |list: &str, index: &str, phase: &str| -> Vec<Told> {
        let blocks = blocks(payload, list);
        let item_id = shared(payload.raw_text("id"), blocks.len());
        let tell_block = |(at, block): (usize, &str)| {
            let block = Fields::parse(block).ok()?;
            let data = ObjectText::new()
                .raw("delta", Some(block.raw_text("text")?))
                .raw("item_id", item_id)
                .raw(index, at.to_string().as_str())
                .text("phase", phase);
            Some(Told::new(EventKind::ReasoningDelta, data))
        };
        blocks.into_iter().enumerate().filter_map(tell_block).collect()
    };
    let mut told = tell("summary", "summary_index", "summary");
    told.extend(tell("content", "content_index", "text"));
    told
}

/// The texts of a list of blocks, a line each; none where there is no text at all.
fn texts(of: &Fields<'_>, list: &str, field: &str) -> Option<String> {
    let blocks = of.list(list)?.into_iter().filter_map(|block| Fields::parse(block).ok()?.text(field));
    let texts: Vec<String> = blocks.collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// The turn that a line names itself.
fn own_turn_id(payload: &Fields<'_>) -> Option<String> {
    let beside = || payload.object("internal_chat_message_metadata_passthrough")?.text("turn_id");
    payload.text("turn_id").or_else(beside)
}

/// `type`, `type/subtype`, or `event_msg/item_completed/ITEM`.
fn line_name(line: &Fields<'_>, payload: Option<&Fields<'_>>) -> String {
    let kind = line.text("type").unwrap_or_else(|| String::from("untyped"));
    let Some(payload) = payload else {
        return kind;
    };
    let item = payload.object("item").and_then(|item| item.text("type"));
    joined(&joined(&kind, payload.text("type").as_deref()), item.as_deref())
}
