//! SubagentTracker: which subagents are at work, what they were asked to do, and who acts.

use serde::{Deserialize, Serialize};

use super::agent_messages::Speaker;
use super::memory::{Memory, Seam};
use crate::error::ProjectionError;

/// The main agent.
pub(super) const ROOT: &str = "agent:root";

/// Subagents of the session.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct SubagentTracker {
    /// Those at work, the last to begin last.
    stack: Vec<String>,
    /// What the last call of the subagent tool asked for, until its subagent begins.
    asked: Option<String>,
}

impl SubagentTracker {
    /// Who acts where an event does not say: the subagent that began last.
    pub(super) fn actor(&self) -> String {
        self.stack.last().cloned().unwrap_or_else(|| ROOT.to_owned())
    }

    /// Notes a call of the tool that starts subagents.
    pub(super) fn ask(&mut self, description: Option<String>) {
        self.asked = description;
    }

    /// A subagent begins; gives what it was asked to do.
    pub(super) fn begin(
        &mut self,
        memory: &mut Memory<'_>,
        agent_id: Option<&str>,
        prompt: Option<String>,
    ) -> Result<Option<String>, ProjectionError> {
        let description = self.asked.take().or(prompt);
        if let Some(id) = agent_id {
            self.stack.push(actor_of(id));
            if let Some(description) = description.as_ref().filter(|description| !description.is_empty()) {
                memory.put(Seam::Subagent, id, description)?;
            }
        }
        Ok(description)
    }

    /// A subagent ends; gives what it was asked to do.
    pub(super) fn end(
        &mut self,
        memory: &mut Memory<'_>,
        agent_id: Option<&str>,
    ) -> Result<Option<String>, ProjectionError> {
        let Some(id) = agent_id else {
            return Ok(None);
        };
        let actor = actor_of(id);
        if let Some(at) = self.stack.iter().rposition(|known| *known == actor) {
            self.stack.remove(at);
        }
        memory.get(Seam::Subagent, id)
    }

    /// A new run begins: nobody is at work.
    pub(super) fn reset(&mut self) {
        self.stack.clear();
    }
}

/// The actor that a subagent is.
pub(super) fn actor_of(agent_id: &str) -> String {
    format!("subagent:{agent_id}")
}

/// The actor as one who speaks.
pub(super) fn speaker(actor_id: String) -> Speaker {
    let scope = if actor_id == ROOT { "root" } else { "subagent" };
    Speaker { actor_id, scope: scope.to_owned() }
}

/// Whether a tool of this name starts a subagent.
pub(super) fn starts_subagent(tool_name: &str) -> bool {
    matches!(tool_name, "Task" | "Agent")
}
