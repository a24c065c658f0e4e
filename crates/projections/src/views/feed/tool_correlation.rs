//! ToolCorrelation: which feed event began a tool call, where its streamed output begins, and which call a permission is for.
//!
//! All of it is of the open run: a new one forgets it. A feed row holds its own piece of a tool's output; the output so far
//! is put together when it is read, so a long output is stored once.

use serde::{Deserialize, Serialize};

use super::memory::{Memory, Seam};
use crate::error::ProjectionError;

/// A tool call.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Call {
    /// The feed event of its beginning.
    event_id: Option<String>,
    /// The feed event with the first piece of its output.
    output_from: Option<u64>,
}

/// Notes that a feed event began a call.
pub(super) fn begun(memory: &mut Memory<'_>, tool_use_id: &str, event_id: &str) -> Result<(), ProjectionError> {
    let mut call: Call = memory.get(Seam::Tool, tool_use_id)?.unwrap_or_default();
    call.event_id = Some(event_id.to_owned());
    memory.put(Seam::Tool, tool_use_id, &call)
}

/// Gives what is known of a call to another id of it.
pub(super) fn rename(memory: &mut Memory<'_>, from: &str, to: &str) -> Result<(), ProjectionError> {
    if let Some(call) = memory.get::<Call>(Seam::Tool, from)? {
        memory.remove(Seam::Tool, from);
        memory.put(Seam::Tool, to, &call)?;
    }
    Ok(())
}

/// The feed event that began a call.
pub(super) fn parent(memory: &mut Memory<'_>, tool_use_id: Option<&str>) -> Result<Option<String>, ProjectionError> {
    let Some(id) = tool_use_id else {
        return Ok(None);
    };
    Ok(memory.get::<Call>(Seam::Tool, id)?.and_then(|call| call.event_id))
}

/// The feed event with the first piece of a call's output; `seq` when this is the first.
pub(super) fn output_from(memory: &mut Memory<'_>, tool_use_id: &str, seq: u64) -> Result<u64, ProjectionError> {
    let mut call: Call = memory.get(Seam::Tool, tool_use_id)?.unwrap_or_default();
    if let Some(from) = call.output_from {
        return Ok(from);
    }
    call.output_from = Some(seq);
    memory.put(Seam::Tool, tool_use_id, &call)?;
    Ok(seq)
}

/// Notes that a call is over: what streams afterwards begins anew.
pub(super) fn ended(memory: &mut Memory<'_>, tool_use_id: &str) -> Result<(), ProjectionError> {
    if let Some(mut call) = memory.get::<Call>(Seam::Tool, tool_use_id)?
        && call.output_from.take().is_some()
    {
        memory.put(Seam::Tool, tool_use_id, &call)?;
    }
    Ok(())
}

/// Notes a call that a permission request without its id may be for.
pub(super) fn may_ask(memory: &mut Memory<'_>, ask: &Ask<'_>, tool_use_id: &str) -> Result<(), ProjectionError> {
    let key = ask.key();
    let mut calls: Vec<String> = memory.get(Seam::ToolJoin, &key)?.unwrap_or_default();
    if !calls.iter().any(|known| known == tool_use_id) {
        calls.push(tool_use_id.to_owned());
        memory.put(Seam::ToolJoin, &key, &calls)?;
    }
    Ok(())
}

/// The call that a permission request is for: the first of those it fits that is not over and not asked for yet.
pub(super) fn asked_for(
    memory: &mut Memory<'_>,
    ask: &Ask<'_>,
    mut is_over: impl FnMut(&mut Memory<'_>, &str) -> Result<bool, ProjectionError>,
) -> Result<Option<String>, ProjectionError> {
    let key = ask.key();
    let mut calls: Vec<String> = memory.get(Seam::ToolJoin, &key)?.unwrap_or_default();
    while !calls.is_empty() {
        let id = calls.remove(0);
        if !is_over(memory, &id)? {
            memory.put(Seam::ToolJoin, &key, &calls)?;
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// What a permission request and its tool call have in common.
pub(super) struct Ask<'a> {
    pub(super) turn: &'a str,
    pub(super) tool_name: &'a str,
    /// The input's JSON text; the order of its fields does not matter.
    pub(super) input_json: &'a str,
}

impl Ask<'_> {
    fn key(&self) -> String {
        let canonical = serde_json::from_str::<serde_json::Value>(self.input_json).map(|value| value.to_string());
        let input = runledger_events::content_digest(canonical.as_deref().unwrap_or(self.input_json).as_bytes());
        format!("{}\n{}\n{input}", self.turn, self.tool_name)
    }
}

/// A new run begins.
pub(super) fn reset(memory: &mut Memory<'_>) {
    memory.clear(Seam::Tool);
    memory.clear(Seam::ToolJoin);
}
