//! What a workflow says of permissions, retries and delays: facts of the run's start, so that a decision can be explained
//! as long as the log is there.

use serde::{Deserialize, Deserializer, Serialize};

use crate::workflow_state::RunState;

/// How long a question waits where nothing else is said: 5 minutes, in milliseconds.
const ASK_TIMEOUT_MS: u64 = 300_000;

/// What is in force for a whole run, beside its loop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct RunPolicy {
    /// What its tools may do; none where nothing was said.
    #[serde(default)]
    pub permissions: Option<PermissionPolicy>,
    /// What follows on a failed turn; none where the run fails with it.
    #[serde(default)]
    pub retry: Option<FailureRetry>,
    /// The pause between two iterations, in milliseconds.
    #[serde(default)]
    pub iteration_delay_ms: u64,
}

/// What follows on a turn that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct FailureRetry {
    /// Retries in a row, at the most.
    pub max: u32,
    /// The pause before the first, in milliseconds; each next one in a row waits twice as long.
    #[serde(default)]
    pub backoff_ms: u64,
}

/// What the tools of a run may do, and who is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct PermissionPolicy {
    /// The rules; the first that matches a call decides.
    #[serde(default)]
    pub rules: Vec<PermissionRule>,
    /// How long a question waits, in milliseconds; none for as long as it takes.
    #[serde(default = "ask_timeout_ms")]
    pub ask_timeout_ms: Option<u64>,
    /// What an unanswered question comes to.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// How a question waits.
    #[serde(default)]
    pub on_ask: OnAsk,
    /// What follows on a turn in which something was denied.
    #[serde(default)]
    pub on_deny: Option<OnDeny>,
    /// Programs that are asked too.
    #[serde(default)]
    pub channels: Vec<CommandChannelConfig>,
}

fn ask_timeout_ms() -> Option<u64> {
    Some(ASK_TIMEOUT_MS)
}

impl Default for PermissionPolicy {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            ask_timeout_ms: ask_timeout_ms(),
            on_timeout: OnTimeout::default(),
            on_ask: OnAsk::default(),
            on_deny: None,
            channels: Vec::new(),
        }
    }
}

/// One rule: which calls it is on, and what it says of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct PermissionRule {
    /// The calls, as Claude Code's users write them: `Bash`, `Bash(git push:*)`, `Edit(src/**)`, `mcp__server__*`.
    pub tool: String,
    /// What it says.
    pub action: RuleAction,
    /// When it applies; always where nothing is said.
    #[serde(default)]
    pub when: RuleConditions,
    /// Why, in words: told to the agent with a denial, and to whoever is asked.
    #[serde(default)]
    pub reason: Option<String>,
    /// How long its question waits, in milliseconds; missing: as all of them, null: for as long as it takes.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub ask_timeout_ms: Option<Option<u64>>,
    /// What its unanswered question comes to; as all of them where nothing is said.
    #[serde(default)]
    pub on_timeout: Option<OnTimeout>,
}

/// A field that is there, null or not.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(deserializer).map(Some)
}

/// The workflow context in which a rule applies; each part that is given has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct RuleConditions {
    /// One of these states.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<RunState>,
    /// From this iteration on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration_from: Option<u32>,
    /// Up to and with this iteration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration_to: Option<u32>,
    /// Whether a subagent acts, and of which type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subagent: Option<SubagentCondition>,
    /// The working directory, as a glob of the whole path; relative to the project directory where it does not begin with
    /// `/` or `~`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// Who has to act: `true` for any subagent, `false` for the main agent, a text for subagents of that type (a glob).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(untagged, expecting = "true, false, or a type of subagent as a text")]
pub enum SubagentCondition {
    /// Any subagent, or none.
    Any(bool),
    /// One of this type.
    Type(String),
}

/// What a rule says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// It may be made.
    Allow,
    /// It may not.
    Deny,
    /// Somebody decides.
    Ask,
}

impl RuleAction {
    /// The word, as workflow files have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Ask => "ask",
        }
    }
}

/// What a question comes to that nobody answers in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OnTimeout {
    /// The call may be made.
    Allow,
    /// It may not.
    #[default]
    Deny,
    /// The harness decides as it would have without us.
    NoOpinion,
}

impl OnTimeout {
    /// The word, as workflow files have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::NoOpinion => "no_opinion",
        }
    }
}

/// How a question waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OnAsk {
    /// A process waits, and the harness with it.
    #[default]
    Wait,
    /// Nobody waits: the harness ends, and is taken up again with the decision.
    Defer,
}

impl OnAsk {
    /// The word, as workflow files have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Defer => "defer",
        }
    }
}

/// What follows on a turn in which something was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct OnDeny {
    /// Another iteration that is told of it.
    pub retry: DenyRetry,
}

/// Another iteration that is told what was denied, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct DenyRetry {
    /// Retries in a row, at the most.
    pub max: u32,
    /// What its prompt says, with `{denied}` for the list of what was denied and why; words of ours where nothing is
    /// said.
    #[serde(default)]
    pub feedback: Option<String>,
}

/// A program that is asked: it gets the request as JSON on standard input and prints its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct CommandChannelConfig {
    /// Its name, as the log has it; the program's own where nothing is said.
    #[serde(default)]
    pub name: Option<String>,
    /// The program and its arguments.
    pub command: Vec<String>,
}

impl PermissionPolicy {
    /// How long a question of this rule waits, in milliseconds.
    pub fn ask_timeout_ms(&self, rule: Option<&PermissionRule>) -> Option<u64> {
        rule.and_then(|rule| rule.ask_timeout_ms).unwrap_or(self.ask_timeout_ms)
    }

    /// What an unanswered question of this rule comes to.
    pub fn on_timeout(&self, rule: Option<&PermissionRule>) -> OnTimeout {
        rule.and_then(|rule| rule.on_timeout).unwrap_or(self.on_timeout)
    }
}
