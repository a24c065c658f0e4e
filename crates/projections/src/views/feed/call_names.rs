//! CallNames: which call of `codex exec --json` is which call of Codex's hooks and rollout.
//!
//! Hooks and rollout have the model's ids for calls, the output has items with numbers of its own. So an item is known by
//! what it is: the tool, and the command, the patched files or the input of the call (its likeness), in the order in which
//! calls that are alike were told. Once they have found each other, the call's id is the name of both.
//!
//! The output tells of the main agent alone, and only of calls that ran; a call that was refused is no item's. Where a hook
//! changed a call's input, what ran is unlike what was asked for: then the item is the call that was running when it began,
//! or the one whose end tells the same input.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use runledger_events::{Fields, Source, as_text, content_digest};
use serde::{Deserialize, Serialize};

use super::incoming::Incoming;
use super::memory::{Memory, Seam};
use crate::error::ProjectionError;

/// Whose id an event has for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namer {
    /// `codex exec --json`: an item.
    Output,
    /// A hook of Codex, or its rollout: a call.
    Others { is_hook: bool },
}

impl Namer {
    /// Of an event of a call; none where all who tell of it have one id, and for subagents, of whom the output tells no
    /// calls.
    pub(super) fn of(event: &Incoming<'_>) -> Option<Self> {
        if event.envelope("agentId").is_some() {
            return None;
        }
        let is_named = |prefix: &str| event.envelope("hookName").is_some_and(|name| name.starts_with(prefix));
        match event.source {
            Source::Stream if is_named("exec:") => Some(Self::Output),
            // Claude Code's hooks tell the prompt's id, Codex's the turn's.
            Source::Hook if event.text("turn_id").is_some() => Some(Self::Others { is_hook: true }),
            Source::Transcript if is_named("rollout:") => Some(Self::Others { is_hook: false }),
            _ => None,
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CallEnd {
    Ran,
    /// It did not run at all.
    Refused,
}

/// A call as the output tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Item {
    likeness: String,
    /// Its id with the others.
    call: Option<String>,
    has_succeeded: bool,
}

/// A call as the others tell it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Call {
    likeness: String,
    item: Option<String>,
    end: Option<CallEnd>,
}

/// Items and calls that are alike and have not found each other, in the order in which they were told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Alike {
    items: Vec<String>,
    calls: Vec<String>,
}

/// The call that a hook said begins, of which nothing else was heard yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Running {
    tool_name: String,
    call: String,
}

/// The names of the calls of one adapter session.
pub(super) struct CallNames<'m, 'a> {
    memory: &'m mut Memory<'a>,
    adapter_session: String,
}

impl<'m, 'a> CallNames<'m, 'a> {
    pub(super) fn new(memory: &'m mut Memory<'a>, adapter_session: &str) -> Self {
        Self { memory, adapter_session: adapter_session.to_owned() }
    }

    /// An item begins; gives the id of the call that it is, its own where that is not known.
    pub(super) fn item_begins(
        &mut self,
        item: &str,
        tool_name: &str,
        likeness: &str,
    ) -> Result<String, ProjectionError> {
        if self.item(item)?.is_some() {
            return self.id_of_item(item);
        }
        let told = Item { likeness: likeness.to_owned(), call: None, has_succeeded: false };
        self.put("item", item, &told)?;
        let mut alike = self.alike(likeness)?;
        let found = self.call_for_item(&mut alike)?;
        let found = match found {
            Some(call) => Some(call),
            None => self.running_call(tool_name)?,
        };
        if found.is_none() {
            alike.items.push(item.to_owned());
        }
        self.put("alike", likeness, &alike)?;
        match found {
            Some(call) => self.join(item, &call).map(|()| call),
            None => Ok(item.to_owned()),
        }
    }

    /// An item ended; gives the id of the call that it is.
    pub(super) fn item_ends(&mut self, item: &str, has_succeeded: bool) -> Result<String, ProjectionError> {
        if let Some(mut told) = self.item(item)? {
            told.has_succeeded = has_succeeded;
            self.put("item", item, &told)?;
        }
        self.id_of_item(item)
    }

    /// A call begins, or is told again with its input; gives the item that turns out to be this call.
    pub(super) fn call_begins(
        &mut self,
        call: &str,
        tool_name: &str,
        likeness: &str,
        is_hook: bool,
    ) -> Result<Option<String>, ProjectionError> {
        match self.call(call)? {
            // A hook may tell another input at the end than at the beginning.
            Some(told) if told.item.is_some() || told.likeness == likeness => return Ok(None),
            Some(told) => self.put("call", call, &Call { likeness: likeness.to_owned(), ..told })?,
            None => {
                self.put("call", call, &Call { likeness: likeness.to_owned(), item: None, end: None })?;
                if is_hook {
                    let running = Running { tool_name: tool_name.to_owned(), call: call.to_owned() };
                    self.put("running", "", &running)?;
                }
            }
        }
        let mut alike = self.alike(likeness)?;
        let item = (!alike.items.is_empty()).then(|| alike.items.remove(0));
        if item.is_none() {
            alike.calls.push(call.to_owned());
        }
        self.put("alike", likeness, &alike)?;
        if let Some(item) = &item {
            self.join(item, call)?;
        }
        Ok(item)
    }

    /// A call ended; gives the item that was taken for this call and cannot be, since it ran and the call did not.
    pub(super) fn call_ends(&mut self, call: &str, end: CallEnd) -> Result<Option<String>, ProjectionError> {
        let Some(mut told) = self.call(call)? else {
            return Ok(None);
        };
        if told.end.is_none() {
            told.end = Some(end);
        }
        let mut parted = None;
        if let Some(id) = told.item.clone().filter(|_| end == CallEnd::Refused)
            && let Some(mut item) = self.item(&id)?
            && item.has_succeeded
        {
            item.call = None;
            told.item = None;
            let mut alike = self.alike(&item.likeness)?;
            alike.items.insert(0, id.clone());
            self.put("alike", &item.likeness, &alike)?;
            self.put("item", &id, &item)?;
            parted = Some(id);
        }
        self.put("call", call, &told)?;
        Ok(parted)
    }

    /// A turn begins or ends: no call of it is running.
    pub(super) fn turn_changes(&mut self) -> Result<(), ProjectionError> {
        if self.get::<Running>("running", "")?.is_some() {
            self.memory.remove(Seam::CallName, &self.key("running", ""));
        }
        Ok(())
    }

    /// The call that an item like these calls is: the last one where it is not over, else the first that ran.
    fn call_for_item(&mut self, alike: &mut Alike) -> Result<Option<String>, ProjectionError> {
        let mut open: Vec<(String, Option<CallEnd>)> = Vec::new();
        for id in std::mem::take(&mut alike.calls) {
            if let Some(call) = self.call(&id)?.filter(|call| call.item.is_none()) {
                open.push((id, call.end));
            }
        }
        let is_refused = |end: &Option<CallEnd>| *end == Some(CallEnd::Refused);
        let last = open.iter().rposition(|(_, end)| !is_refused(end));
        let at = last.map(|last| match open[last].1 {
            None => last,
            Some(_) => open.iter().position(|(_, end)| *end == Some(CallEnd::Ran)).unwrap_or(last),
        });
        let found = at.map(|at| open.remove(at).0);
        alike.calls = open.into_iter().map(|(id, _)| id).collect();
        Ok(found)
    }

    fn running_call(&mut self, tool_name: &str) -> Result<Option<String>, ProjectionError> {
        let running: Option<Running> = self.get("running", "")?;
        let Some(running) = running.filter(|running| running.tool_name == tool_name) else {
            return Ok(None);
        };
        let call = self.call(&running.call)?;
        Ok(call.filter(|call| call.item.is_none() && call.end.is_none()).map(|_| running.call))
    }

    fn join(&mut self, item: &str, call: &str) -> Result<(), ProjectionError> {
        if let (Some(told_item), Some(told_call)) = (self.item(item)?, self.call(call)?) {
            self.put("item", item, &Item { call: Some(call.to_owned()), ..told_item })?;
            self.put("call", call, &Call { item: Some(item.to_owned()), ..told_call })?;
        }
        Ok(())
    }

    fn id_of_item(&mut self, item: &str) -> Result<String, ProjectionError> {
        Ok(self.item(item)?.and_then(|told| told.call).unwrap_or_else(|| item.to_owned()))
    }

    fn item(&mut self, id: &str) -> Result<Option<Item>, ProjectionError> {
        self.get("item", id)
    }

    fn call(&mut self, id: &str) -> Result<Option<Call>, ProjectionError> {
        self.get("call", id)
    }

    fn alike(&mut self, likeness: &str) -> Result<Alike, ProjectionError> {
        Ok(self.get("alike", likeness)?.unwrap_or_default())
    }

    fn get<T: serde::de::DeserializeOwned>(&mut self, what: &str, id: &str) -> Result<Option<T>, ProjectionError> {
        let key = self.key(what, id);
        self.memory.get(Seam::CallName, &key)
    }

    fn put<T: Serialize>(&mut self, what: &str, id: &str, value: &T) -> Result<(), ProjectionError> {
        let key = self.key(what, id);
        self.memory.put(Seam::CallName, &key, value)
    }

    fn key(&self, what: &str, id: &str) -> String {
        format!("{}\n{what} {id}", self.adapter_session)
    }
}

/// What a call is, as all who tell of it tell it: the tool, and a digest of its command, its files or its input.
pub(super) fn likeness(tool_name: &str, input_json: &str, cwd: Option<&str>) -> String {
    let input = Fields::parse(input_json).unwrap_or_default();
    let command = input.text("command");
    let patched = command.as_deref().and_then(|command| patched_files(command, cwd));
    let changed = input.list("changes").filter(|_| tool_name == "apply_patch").map(|changes| {
        let path = |change| Fields::parse(change).ok()?.text("path");
        changes.into_iter().filter_map(path).map(|path| absolute(&path, cwd)).collect()
    });
    if let Some(files) = changed.or(patched) {
        return format!("apply_patch {}", digest(&files.into_iter().collect::<Vec<_>>().join("\n")));
    }
    if let Some(command) = command {
        return format!("{tool_name} {}", digest(command.trim()));
    }
    // The order of an input's fields does not matter.
    let canonical = serde_json::from_str::<serde_json::Value>(input_json).map(|value| value.to_string());
    format!("{tool_name} {}", digest(canonical.as_deref().unwrap_or(input_json)))
}

fn digest(text: &str) -> String {
    content_digest(text.as_bytes()).to_string()
}

/// The files that a patch adds, updates and deletes; none where the text is no patch.
fn patched_files(text: &str, cwd: Option<&str>) -> Option<BTreeSet<String>> {
    let heads = ["*** Add File: ", "*** Update File: ", "*** Delete File: "];
    let (_, patch) = text.split_once("*** Begin Patch")?;
    let path =
        |line: &str| heads.iter().find_map(|head| line.strip_prefix(head)).map(|path| absolute(path.trim(), cwd));
    Some(patch.lines().filter_map(path).collect())
}

/// A path as it is seen from the root, as far as its text tells.
fn absolute(path: &str, cwd: Option<&str>) -> String {
    let mut whole = PathBuf::new();
    for component in Path::new(cwd.unwrap_or_default()).join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                whole.pop();
            }
            other => whole.push(other),
        }
    }
    whole.to_string_lossy().into_owned()
}

/// Whether an item's end says that it ran and did well.
pub(super) fn has_succeeded(event: &Incoming<'_>) -> bool {
    let status = event.data.object("tool_response").and_then(|response| response.raw("status").and_then(as_text));
    match event.data.raw("exit_code") {
        Some(code) => code == "0",
        None => status.is_some_and(|status| status == "completed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_alike_whether_it_is_told_by_its_text_or_by_its_files() {
        let patch = |text: &str| serde_json::json!({ "command": text }).to_string();
        let text = "*** Begin Patch\n*** Update File: src/b.rs\n@@\n-x\n+*** Add File: no\n*** Add File: ./a.rs\n+y\n*** End Patch";
        let told = likeness("apply_patch", &patch(text), Some("/p"));
        let files = r#"{"changes":[{"path":"/p/a.rs","kind":"add"},{"path":"/p/src/b.rs","kind":"update"}]}"#;
        assert_eq!(told, likeness("apply_patch", files, None));
        assert_eq!(told, likeness("Bash", &patch(&format!("apply_patch <<'EOF'\n{text}\nEOF")), Some("/p/x/..")));
        assert_ne!(told, likeness("apply_patch", &patch(text), Some("/q")));
        let other = r#"{"changes":[{"path":"/p/a.rs","kind":"add"}]}"#;
        assert_ne!(told, likeness("apply_patch", other, None));
    }

    #[test]
    fn a_command_is_alike_by_its_text_and_any_other_input_by_its_fields() {
        let command = r#"{"command":"ls -l\n"}"#;
        assert_eq!(likeness("Bash", command, None), likeness("Bash", r#"{"workdir":"/x","command":"ls -l"}"#, None));
        assert_ne!(likeness("Bash", command, None), likeness("Bash", r#"{"command":"ls"}"#, None));
        let input = |json| likeness("mcp__a__b", json, None);
        assert_eq!(input(r#"{"x":1,"y":[2]}"#), input(r#"{ "y":[2], "x":1 }"#));
        assert_ne!(input(r#"{"x":1}"#), input(r#"{"x":2}"#));
        assert_ne!(input("{}"), likeness("mcp__a__c", "{}", None));
        assert_eq!(input("no JSON"), input("no JSON"));
    }
}
