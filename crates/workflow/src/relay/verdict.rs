//! What somebody decides on a question.

use std::collections::BTreeMap;

/// What is said to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayAnswer {
    /// The tool may run.
    Allow,
    /// It may not.
    Deny,
    /// The user's answers, by question: its text, its header or its number from 1.
    Answers(BTreeMap<String, String>),
}

/// How far a decision reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GrantScope {
    /// This call.
    #[default]
    Once,
    /// Such calls in this workflow run.
    Run,
    /// Such calls in every run of this workflow.
    Always,
}

impl GrantScope {
    /// The word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Run => "run",
            Self::Always => "always",
        }
    }

    /// The one of this word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Once, Self::Run, Self::Always].into_iter().find(|scope| scope.as_str() == text)
    }
}

/// Who decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VerdictSource {
    /// A person or program, through the ledger.
    #[default]
    User,
    /// A program that was asked.
    Channel,
    /// A person at a terminal that was asked.
    Terminal,
}

impl VerdictSource {
    /// The word, as JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Channel => "channel",
            Self::Terminal => "terminal",
        }
    }
}

/// A decision on a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayVerdict {
    /// What it says.
    pub answer: RelayAnswer,
    /// Why, in words: told to the agent with a denial.
    pub reason: Option<String>,
    /// How far it reaches.
    pub scope: GrantScope,
    /// The calls that it is on beyond the one, as a rule's pattern; the call alone where nothing is said.
    pub pattern: Option<String>,
    /// Who decides.
    pub source: VerdictSource,
    /// The same by name: [`current_user`], a channel's name.
    pub by: Option<String>,
}

impl RelayVerdict {
    /// What somebody says through the ledger, on this call alone.
    pub fn new(answer: RelayAnswer) -> Self {
        Self { answer, reason: None, scope: GrantScope::Once, pattern: None, source: VerdictSource::User, by: None }
    }

    /// Yes.
    pub fn allow() -> Self {
        Self::new(RelayAnswer::Allow)
    }

    /// No, and why.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(RelayAnswer::Deny) }
    }
}

/// The person that this process works for, and where: `dev@host`.
pub fn current_user() -> String {
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let user = named.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}
