//! The standard output of `codex exec --json PROMPT`, line by line into RuntimeEvents.
//!
//! | line | events |
//! | --- | --- |
//! | `thread.started`, `turn.started` | `session.start`, `turn.start` |
//! | `turn.completed` | `usage.update`, `turn.complete` |
//! | `turn.failed` | `turn.complete` with the status `failed` |
//! | item `agent_message`, `reasoning`, completed | `message.complete`, `reasoning.delta` |
//! | item `command_execution`, `file_change`, `mcp_tool_call`, `web_search` | `tool.pre`, then `tool.post` or `tool.failure` |
//! | item `todo_list` | `plan.delta` |
//! | item `collab_tool_call`, completed | `subagent.start` for `spawn_agent`, `subagent.stop` for an agent that ended |
//! | `error`, item `error` | `notification` |
//! | any other | `unknown` |
//!
//! Invariants: each line that is a JSON object gives at least one event. The first event of a line carries the whole
//! line in `payload`, its text unchanged. Lines have no ids, and the same line may come again: a line is named by half
//! of the BLAKE3 digest of the name before it and its text, with `/n` for the events after its first. Items are
//! numbered anew in each process, so an item's id is joined with the thread's and with the name of the line that began
//! it.

use std::collections::{HashMap, HashSet};

use runledger_events::{AdapterSessionId, EventKind, RuntimeEvent, Source, TimestampMs, Tokens, readable};

use crate::claude_message::joined;
use crate::claude_tokens::tokens_json;
use crate::codex_words::{beyond, codex_tokens, shell_script};
use crate::error::AdapterError;
use crate::line_adapter::LineAdapter;
use crate::line_names::digest_name;
use crate::told::{BLOCKS_MAX, Envelope, LineName, Told, blocks, line_fields, shared};
use runledger_events::{Fields, ObjectText, as_text};

/// Digits of a line's name that tell an item from one of the same number in another process.
const ITEM_DIGITS: usize = 8;

/// How a turn ended, as far as the lines say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodexOutcome {
    /// Whether the turn failed, or the last word is an error.
    pub is_error: bool,
    /// The last message's text.
    pub last_message: Option<String>,
    /// What went wrong, in the client's words.
    pub error: Option<String>,
}

/// Reads one process's output; a new process needs a new one.
#[derive(Debug, Clone, Default)]
pub struct CodexJson {
    /// The last line's name, or the process's.
    name: String,
    thread_id: Option<AdapterSessionId>,
    /// What items are called in events, by their id in the lines.
    item_names: HashMap<String, String>,
    /// Items whose `tool.pre` was told.
    begun: HashSet<String>,
    tool_uses: u64,
    /// Agents whose end was told.
    ended_agents: HashSet<String>,
    last_message: Option<String>,
    tokens: Tokens,
    outcome: Option<CodexOutcome>,
}

impl LineAdapter for CodexJson {
    fn line(&mut self, line: &str, now: Option<TimestampMs>) -> Result<Vec<RuntimeEvent>, AdapterError> {
        let line = line.trim();
        let text = readable(line);
        let fields = line_fields(&text, line)?;

        self.name = digest_name(format!("{}\n{line}", self.name).as_bytes());
        let item = fields.object("item");
        let kind = fields.text("type").unwrap_or_else(|| String::from("untyped"));
        let name = joined(&kind, item.as_ref().and_then(|item| item.text("type")).as_deref());
        let mut told = match &item {
            Some(item) => self.item(&kind, item),
            None => self.tell(&kind, &fields),
        };
        if told.is_empty() {
            told.push(Told::unknown(&format!("exec:{name}")));
        }
        let envelope = Envelope {
            source: Source::Stream,
            name: LineName::Digest(self.name.clone()),
            timestamp: now,
            hook_name: format!("exec:{name}"),
            session_id: self.thread_id.as_ref().map(|id| id.as_str().to_owned()),
            agent_id: None,
            agent_type: None,
            context: ObjectText::new(),
            expects_decision: false,
            payload: line,
            recorder: None,
        };
        envelope.around(told)
    }
}

impl CodexJson {
    /// Before the first line of a recorded process: events are named by the lines alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Before the first line of a live process. `name` tells it from every other one: a process that takes up the same
    /// thread again may write the same lines, and tells other facts with them.
    pub fn of_process(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// The thread.
    pub fn adapter_session_id(&self) -> Option<&AdapterSessionId> {
        self.thread_id.as_ref()
    }

    /// What the thread has cost so far, as the last turn's end says; unknown before it.
    ///
    /// A process that took up a thread, or forked one, counts what it cost before as well: see `tokens_beyond`.
    pub fn tokens(&self) -> Tokens {
        self.tokens
    }

    /// What the thread has cost since it had cost `before`.
    pub fn tokens_beyond(&self, before: &Tokens) -> Tokens {
        beyond(&self.tokens, before)
    }

    /// How the last turn ended; none before, and none at all where the process was killed.
    pub fn outcome(&self) -> Option<&CodexOutcome> {
        self.outcome.as_ref()
    }

    /// Tool calls that ran.
    pub fn tool_uses(&self) -> u64 {
        self.tool_uses
    }

    /// The events of a line without an item; none where it has no kind of its own.
    fn tell(&mut self, kind: &str, line: &Fields<'_>) -> Vec<Told> {
        match kind {
            "thread.started" => {
                let thread_id = line.text("thread_id").and_then(|id| AdapterSessionId::new(id).ok());
                self.thread_id = thread_id.or(self.thread_id.take());
                vec![Told::new(EventKind::SessionStart, ObjectText::new())]
            }
            "turn.started" => vec![Told::new(EventKind::TurnStart, ObjectText::new())],
            "turn.completed" => {
                let tokens = line.object("usage").map(|usage| codex_tokens(&usage)).unwrap_or_default();
                self.end(None);
                let mut told = Vec::new();
                if tokens.has_sums() {
                    self.tokens = tokens;
                    let usage = ObjectText::new().raw("usage", tokens_json(&tokens).as_str());
                    told.push(Told::new(EventKind::UsageUpdate, usage));
                }
                told.push(Told::new(EventKind::TurnComplete, ObjectText::new().text("status", "completed")));
                told
            }
            "turn.failed" => {
                let message = line.object("error").and_then(|error| error.text("message"));
                self.end(Some(message.or_else(|| line.text("error")).unwrap_or_default()));
                let data = ObjectText::new().text("status", "failed").fields(line, &["error"]);
                vec![Told::new(EventKind::TurnComplete, data)]
            }
            // A stream that broke and is tried again is told in the same way, so this ends no turn.
            "error" => {
                self.end(Some(line.text("message").unwrap_or_default()));
                vec![error_notification(line)]
            }
            _ => Vec::new(),
        }
    }

    fn end(&mut self, error: Option<String>) {
        let last_message = self.last_message.clone();
        self.outcome = Some(CodexOutcome { is_error: error.is_some(), last_message, error });
    }

    fn item(&mut self, kind: &str, item: &Fields<'_>) -> Vec<Told> {
        let is_completed = kind == "item.completed";
        let item_type = item.text("type").unwrap_or_default();
        let item_id = self.item_name(item);
        match item_type.as_str() {
            "command_execution" | "file_change" | "mcp_tool_call" | "web_search" => {
                let is_new = item_id.as_ref().is_none_or(|id| self.begun.insert(id.clone()));
                let mut told = Vec::new();
                if is_new {
                    self.tool_uses = self.tool_uses.saturating_add(1);
                    told.push(tool_pre(&item_type, item, item_id.clone()));
                }
                told.extend(is_completed.then(|| tool_end(&item_type, item, item_id)));
                told
            }
            "todo_list" => vec![plan(item, item_id.as_deref())],
            "agent_message" if is_completed => {
                self.last_message = item.text("text").or(self.last_message.take());
                let data = ObjectText::new().raw("message", item.raw_text("text")).text("item_id", item_id.as_deref());
                vec![Told::new(EventKind::MessageComplete, data)]
            }
            "reasoning" if is_completed => {
                let data = ObjectText::new().raw("delta", item.raw_text("text")).text("item_id", item_id.as_deref());
                vec![Told::new(EventKind::ReasoningDelta, data.raw("summary_index", "0").text("phase", "summary"))]
            }
            "collab_tool_call" if is_completed => self.collaboration(item),
            "error" if is_completed => vec![error_notification(item)],
            _ => Vec::new(),
        }
    }

    /// `THREAD/ITEM/DIGITS`, the same for all lines of one item.
    fn item_name(&mut self, item: &Fields<'_>) -> Option<String> {
        let id = item.text("id")?;
        let thread_id = self.thread_id.as_ref().map_or("", |id| id.as_str());
        let digits = self.name.get(..ITEM_DIGITS).unwrap_or_default();
        Some(self.item_names.entry(id.clone()).or_insert_with(|| format!("{thread_id}/{id}/{digits}")).clone())
    }

    /// What a call that concerns other agents tells of them.
    fn collaboration(&mut self, item: &Fields<'_>) -> Vec<Told> {
        let mut told = Vec::new();
        let receivers = blocks(item, "receiver_thread_ids");
        let states = item.object("agents_states").unwrap_or_default();
        let states: Vec<(&str, &str)> = states.iter().collect();
        let agents = receivers.len() + states.len();
        if agents > BLOCKS_MAX {
            return told;
        }
        let (tool, sender) = (shared(item.raw("tool"), agents), shared(item.raw("sender_thread_id"), agents));
        let of_agent = |kind, agent_id: &str| {
            let data = ObjectText::new().text("agent_id", agent_id).raw("tool", tool).raw("sender_thread_id", sender);
            Told::new(kind, data.text("receiver_thread_id", agent_id))
        };
        if item.text("tool").as_deref() == Some("spawn_agent") {
            let prompt = shared(item.raw_text("prompt"), agents);
            let receivers = receivers.into_iter().filter_map(as_text);
            told.extend(receivers.map(|id| of_agent(EventKind::SubagentStart, &id).with("prompt", prompt)));
        }
        for (agent_id, state) in states {
            let Ok(state) = Fields::parse(state) else { continue };
            let status = state.text("status").unwrap_or_default();
            let is_end = matches!(status.as_str(), "completed" | "errored" | "interrupted" | "shutdown");
            if is_end && self.ended_agents.insert(agent_id.to_owned()) {
                let stop = of_agent(EventKind::SubagentStop, agent_id).with_text("status", status.as_str());
                told.push(stop.with("last_assistant_message", state.raw_text("message")));
            }
        }
        told
    }
}

fn tool_pre(item_type: &str, item: &Fields<'_>, item_id: Option<String>) -> Told {
    let input = match item_type {
        "command_execution" => {
            let command = item.text("command").map(|line| script_of_line(&line));
            ObjectText::new().text("command", command.as_deref()).finish()
        }
        "mcp_tool_call" => item.raw("arguments").unwrap_or("{}").to_owned(),
        _ => ObjectText::new().fields(item, &["changes", "query"]).finish(),
    };
    Told::of_tool(EventKind::ToolPre, tool_name(item_type, item), item_id).with("tool_input", input.as_str())
}

/// The end of a tool. A command that failed ran all the same: Codex's hooks tell it so too.
fn tool_end(item_type: &str, item: &Fields<'_>, item_id: Option<String>) -> Told {
    let name = tool_name(item_type, item);
    let status = item.text("status");
    let error = match (item_type, status.as_deref()) {
        (_, Some("declined")) => Some("declined".to_owned()),
        ("mcp_tool_call", Some("failed")) => {
            Some(item.object("error").and_then(|error| error.text("message")).unwrap_or_default())
        }
        _ => None,
    };
    if let Some(error) = error {
        let told = Told::of_tool(EventKind::ToolFailure, name, item_id).with_text("error", error.as_str());
        return told.with("is_interrupt", "false");
    }
    let told = Told::of_tool(EventKind::ToolPost, name, item_id);
    match item_type {
        "command_execution" => {
            told.with("tool_response", item.raw("aggregated_output")).with("exit_code", item.raw("exit_code"))
        }
        "mcp_tool_call" => told.with("tool_response", item.raw("result")),
        _ => told.with("tool_response", ObjectText::new().fields(item, &["status"]).finish().as_str()),
    }
}

/// What hooks call the tool.
fn tool_name(item_type: &str, item: &Fields<'_>) -> Option<String> {
    Some(match item_type {
        "command_execution" => String::from("Bash"),
        "file_change" => String::from("apply_patch"),
        "mcp_tool_call" => format!("mcp__{}__{}", item.text("server")?, item.text("tool")?),
        other => other.to_owned(),
    })
}

fn plan(item: &Fields<'_>, item_id: Option<&str>) -> Told {
    let items = item.list("items").unwrap_or_default();
    let steps = items.into_iter().filter_map(|item| Fields::parse(item).ok()).map(|item| {
        let status = if item.bool("completed") == Some(true) { "completed" } else { "pending" };
        ObjectText::new().raw("step", item.raw_text("text")).text("status", status).finish()
    });
    let steps = format!("[{}]", steps.collect::<Vec<_>>().join(","));
    Told::new(EventKind::PlanDelta, ObjectText::new().raw("plan", steps.as_str()).text("item_id", item_id))
}

fn error_notification(of: &Fields<'_>) -> Told {
    let data = ObjectText::new().text("notification_type", "codex.error").raw("message", of.raw_text("message"));
    Told::new(EventKind::Notification, data)
}

/// The script of a command line as Codex shows it: `/bin/bash -lc 'SCRIPT'`, or the line itself.
fn script_of_line(line: &str) -> String {
    let words = shell_words(line).unwrap_or_default();
    shell_script(&words).unwrap_or(line).to_owned()
}

/// The words of a command line, without their quotes; none where a quote does not end.
fn shell_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => loop {
                let within = word.get_or_insert_default();
                match chars.next()? {
                    '\'' => break,
                    char => within.push(char),
                }
            },
            '"' => loop {
                let within = word.get_or_insert_default();
                match chars.next()? {
                    '"' => break,
                    '\\' => match chars.next()? {
                        '\n' => {}
                        escaped @ ('$' | '`' | '"' | '\\') => within.push(escaped),
                        other => within.extend(['\\', other]),
                    },
                    char => within.push(char),
                }
            },
            '\\' => word.get_or_insert_default().push(chars.next()?),
            char => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_of_a_shell_is_taken_out_of_its_quotes() {
        let script = |line: &str| script_of_line(line);
        assert_eq!(script("/bin/bash -lc 'echo hello; ls'"), "echo hello; ls");
        assert_eq!(script("bash -lc ls"), "ls");
        assert_eq!(script(r#"/bin/bash -lc 'it'\''s'"#), "it's");
        assert_eq!(script(r#"/bin/bash -lc "echo \"it's\" \$HOME \n""#), r#"echo "it's" $HOME \n"#);
        assert_eq!(script("/usr/bin/zsh -c 'a\nb'"), "a\nb");
        for line in
            ["ls -l 'a b'", "/bin/bash -lc", "/bin/bash -lc 'torn", "/bin/bash -lc a b", "", "a\\", "python -c 'x'"]
        {
            assert_eq!(script(line), line);
        }
    }
}
