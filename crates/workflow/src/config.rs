//! Workflow files: JSON with the reference's fields, and our own beside them.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use runledger_events::{FailureRetry, PermissionPolicy, RunPolicy, ToolPattern};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::bounded;
use crate::error::ConfigError;

/// Fields that the reference's files do not have.
const OURS: [&str; 3] = ["permissions", "retry", "iteration_delay_ms"];
/// The longest workflow file, in bytes; the log keeps it whole.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The longest that a question may wait for, where it does not wait for as long as it takes: a year, in milliseconds.
const ASK_TIMEOUT_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

/// A workflow, as its file describes it. Fields that this version does not know are kept in [`WorkflowConfig::json`].
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowConfig {
    /// Its name.
    pub name: String,
    /// The first prompt; `{input}` stands for the user's.
    #[serde(default = "default_prompt_template")]
    pub prompt_template: String,
    /// The loop; none for a single turn.
    #[serde(default, rename = "loop")]
    pub loop_config: Option<LoopConfig>,
    /// Instructions for the harness: a file in the project directory.
    #[serde(default)]
    pub workflow_file: Option<String>,
    /// The model that the harness is to use.
    #[serde(default)]
    pub model: Option<String>,
    /// Environment variables for the harness.
    #[serde(default, deserialize_with = "environment")]
    pub env: BTreeMap<String, String>,
    /// What its tools may do, and who is asked.
    #[serde(default)]
    pub permissions: Option<PermissionPolicy>,
    /// What follows on a failed turn.
    #[serde(default)]
    pub retry: Option<FailureRetry>,
    /// The pause between two iterations, in milliseconds.
    #[serde(default, rename = "iteration_delay_ms")]
    pub iteration_delay_ms: Option<u64>,
    /// The whole file, as it was.
    #[serde(skip)]
    pub json: Option<Box<RawValue>>,
}

/// How a workflow loops.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoopConfig {
    /// Whether it loops at all.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
    /// The iteration limit; at least one turn is made.
    #[serde(default = "default_max_iterations", deserialize_with = "whole_number")]
    pub max_iterations: u32,
    /// The tracker's last line when the work is complete.
    #[serde(default = "default_completion_marker")]
    pub completion_marker: String,
    /// How the tracker's last line begins when the work is blocked.
    #[serde(default = "default_blocked_marker")]
    pub blocked_marker: String,
    /// The tracker's path in the project directory; `{sessionId}` stands for the session.
    #[serde(default = "default_tracker_path")]
    pub tracker_path: String,
    /// The prompt from the second turn on; `{trackerPath}` stands for the tracker's path.
    #[serde(default = "default_continue_prompt")]
    pub continue_prompt: String,
}

fn default_prompt_template() -> String {
    "{input}".to_owned()
}

fn default_enabled() -> bool {
    true
}

fn default_max_iterations() -> u32 {
    10
}

fn default_completion_marker() -> String {
    "<!-- WORKFLOW_COMPLETE -->".to_owned()
}

fn default_blocked_marker() -> String {
    "<!-- WORKFLOW_BLOCKED".to_owned()
}

fn default_tracker_path() -> String {
    ".runledger/{sessionId}/tracker.md".to_owned()
}

fn default_continue_prompt() -> String {
    "Continue the task. Read the tracker at {trackerPath} for current progress.".to_owned()
}

/// A limit as JSON writers write it: `3`, or `3.0`.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        // Checked to be one of its values.
        Ok(number as u32)
    } else {
        Err(D::Error::custom("maxIterations is a whole number from 0"))
    }
}

/// Variables that the operating system takes; `null` is none.
fn environment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let env = Option::<BTreeMap<String, String>>::deserialize(deserializer)?.unwrap_or_default();
    match env.iter().find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')) {
        Some((name, _)) => Err(D::Error::custom(format!("env {name:?} is no environment variable"))),
        None => Ok(env),
    }
}

impl WorkflowConfig {
    /// Reads a workflow file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = bounded::read_text(path, FILE_BYTES_MAX)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|source| ConfigError::Shape { path: path.to_owned(), source })
    }

    /// Reads a workflow's JSON.
    ///
    /// A field that is not known is kept, but for those within `permissions` and `retry`: a rule that is not read as it
    /// was meant would let through what it was to stop.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        check_shape("workflow", &serde_json::from_str(json)?)?;
        let mut track = serde_path_to_error::Track::new();
        let mut unknown = Vec::new();
        let mut reader = serde_json::Deserializer::from_str(json);
        let config = serde_ignored::deserialize(
            serde_path_to_error::Deserializer::new(&mut reader, &mut track),
            |path: serde_ignored::Path<'_>| unknown.push(path.to_string().replace(".?", "")),
        );
        let config: Result<Self, serde_json::Error> = config.and_then(|config: Self| reader.end().map(|()| config));
        let mut config = config.map_err(|error| match track.path().to_string().as_str() {
            "." => error,
            path => serde_json::Error::custom(format!("{path}: {error}")),
        })?;
        let strict = unknown.iter().find(|path| path.starts_with("permissions.") || path.starts_with("retry."));
        if let Some(path) = strict {
            let help = "see docs/permissions.md for the fields that there are";
            return Err(serde_json::Error::custom(format!("{path}: there is no such field; {help}")));
        }
        unknown.iter().try_for_each(|name| not_misspelt(name))?;
        config.permissions.iter().try_for_each(check)?;
        config.json = Some(serde_json::from_str(json)?);
        Ok(config)
    }

    /// Permissions, retries and delays, where it says anything of them.
    pub fn policy(&self) -> Option<RunPolicy> {
        let Self { permissions, retry, iteration_delay_ms, .. } = self;
        let is_said = permissions.is_some() || retry.is_some() || iteration_delay_ms.is_some();
        is_said.then(|| RunPolicy {
            permissions: permissions.clone(),
            retry: retry.clone(),
            iteration_delay_ms: iteration_delay_ms.unwrap_or(0),
        })
    }

    /// The loop, where there is one and it is on.
    pub fn active_loop(&self) -> Option<&LoopConfig> {
        self.loop_config.as_ref().filter(|config| config.enabled)
    }
}

/// Refuses a field that is one of ours but for a letter or two: what it says would be kept, and not heeded.
fn not_misspelt(name: &str) -> Result<(), serde_json::Error> {
    let lowercase = name.to_lowercase();
    let meant = OURS.iter().find(|ours| strsim::osa_distance(&lowercase, ours) <= ours.len() / 4);
    match meant {
        Some(ours) => Err(serde_json::Error::custom(format!("{name}: there is no such field; did you mean {ours}?"))),
        None => Ok(()),
    }
}

/// Refuses a list where an object belongs: serde takes it for the object's fields in their order.
fn check_shape(path: &str, value: &Value) -> Result<(), serde_json::Error> {
    let Value::Object(fields) = value else {
        return Err(serde_json::Error::custom(format!("{path}: invalid type: {}, expected an object", kind(value))));
    };
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let path = if path == "workflow" { name.clone() } else { format!("{path}.{name}") };
        match (name.as_str(), value) {
            ("permissions" | "retry" | "loop" | "when" | "on_deny", _) => check_shape(&path, value)?,
            ("rules" | "channels", Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    check_shape(&format!("{path}[{index}]"), item)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Refuses rules and channels that could never do what they were written for.
fn check(policy: &PermissionPolicy) -> Result<(), serde_json::Error> {
    let refused = |path: String, what: &str| Err(serde_json::Error::custom(format!("permissions.{path}: {what}")));
    let is_too_long = |timeout_ms: Option<u64>| timeout_ms.is_some_and(|timeout_ms| timeout_ms > ASK_TIMEOUT_MS_MAX);
    let too_long = "it is more than a year; null waits for as long as it takes";
    if is_too_long(policy.ask_timeout_ms) {
        return refused("ask_timeout_ms".to_owned(), too_long);
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        if is_too_long(rule.ask_timeout_ms.flatten()) {
            return refused(format!("rules[{index}].ask_timeout_ms"), too_long);
        }
        if let Err(error) = ToolPattern::parse(&rule.tool) {
            return refused(format!("rules[{index}].tool"), &error.to_string());
        }
        let when = &rule.when;
        if let Err(error) = rule.check() {
            return refused(format!("rules[{index}].when.cwd"), &error.to_string());
        }
        if when.iteration_from == Some(0) || when.iteration_to == Some(0) {
            return refused(format!("rules[{index}].when"), "iterations count from 1");
        }
        if let (Some(from), Some(to)) = (when.iteration_from, when.iteration_to)
            && from > to
        {
            return refused(format!("rules[{index}].when"), "iteration_from is greater than iteration_to");
        }
        if when.cwd.as_deref().is_some_and(|cwd| cwd.trim().is_empty()) {
            return refused(format!("rules[{index}].when.cwd"), "it is empty; give a folder, or a glob of folders");
        }
    }
    let mut names = HashSet::new();
    for (index, channel) in policy.channels.iter().enumerate() {
        if channel.name.as_ref().is_some_and(|name| name.trim().is_empty() || !names.insert(name)) {
            return refused(
                format!("channels[{index}].name"),
                "it is empty, or another channel's; the log tells who decided by it",
            );
        }
        if channel.command.first().is_none_or(|program| program.trim().is_empty()) {
            return refused(format!("channels[{index}].command"), "it names no program; give one, and its arguments");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use runledger_events::{OnAsk, OnTimeout, RuleAction};

    use super::*;

    fn with(more: &str) -> Result<WorkflowConfig, String> {
        WorkflowConfig::parse(&format!(r#"{{"name":"w",{more}}}"#)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_workflow_that_says_nothing_of_permissions_or_retries_has_no_policy() {
        assert_eq!(with(r#""plugins":[],"unheard_of":{"permissions":1}"#).unwrap().policy(), None);
    }

    #[test]
    fn permissions_retries_and_delays_are_read_with_their_defaults() {
        let config = with(
            r#""permissions":{"rules":[{"tool":"Bash(git push:*)","action":"ask","reason":"pushes are looked at"},
                {"tool":"Read","action":"allow","ask_timeout_ms":null,"when":{"state":["running"],"subagent":true}}]},
                "retry":{"max":3,"backoff_ms":500},"iteration_delay_ms":1000"#,
        );
        let policy = config.unwrap().policy().unwrap();
        let permissions = policy.permissions.unwrap();
        assert_eq!((permissions.ask_timeout_ms, permissions.on_timeout), (Some(300_000), OnTimeout::Deny));
        assert_eq!((permissions.on_ask, permissions.rules[0].action), (OnAsk::Wait, RuleAction::Ask));
        assert_eq!(permissions.ask_timeout_ms(Some(&permissions.rules[0])), Some(300_000));
        assert_eq!(permissions.ask_timeout_ms(Some(&permissions.rules[1])), None);
        assert_eq!((policy.retry.unwrap().max, policy.iteration_delay_ms), (3, 1000));
        let none = with(r#""permissions":{"ask_timeout_ms":null,"on_ask":"defer"}"#).unwrap();
        assert_eq!(none.permissions.unwrap().ask_timeout_ms, None);
    }

    #[test]
    fn what_is_wrong_with_permissions_is_said_with_its_place() {
        for (json, words) in [
            (
                r#""permissions":{"rules":[{"tol":"Bash","action":"allow"}]}"#,
                "permissions.rules[0]: missing field `tool`",
            ),
            (
                r#""permissions":{"rules":[{"tool":"Bash","action":"alow"}]}"#,
                "permissions.rules[0].action: unknown variant",
            ),
            (
                r#""permissions":{"rules":[{"tool":"Read","action":"allow"},{"tool":"Bash(git","action":"deny"}]}"#,
                "permissions.rules[1].tool: ",
            ),
            (r#""permissions":{"rule":[]}"#, "permissions.rule: there is no such field"),
            (
                r#""permissions":{"rules":[{"tool":"Bash","action":"allow","wen":{}}]}"#,
                "permissions.rules.0.wen: there is no such field",
            ),
            (r#""permissions":{"ask_timeout_ms":-1}"#, "permissions.ask_timeout_ms: invalid value"),
            (
                r#""permissions":{"rules":[{"tool":"Bash","action":"deny","when":{"iteration_from":3,"iteration_to":2}}]}"#,
                "permissions.rules[0].when: iteration_from is greater",
            ),
            (
                r#""permissions":{"rules":[{"tool":"Bash","action":"deny","when":{"iteration_from":0}}]}"#,
                "iterations count from 1",
            ),
            (
                r#""permissions":{"rules":[{"tool":"Read","action":"allow"},{"tool":"Bash(git","action":"deny"}]}"#,
                "permissions.rules[1].tool: pattern `Bash(git`, character 5: the parenthesis is not closed; accepted are",
            ),
            (
                r#""permissions":{"rules":[{"tool":"Bash","action":"deny","when":{"cwd":"src/["}}]}"#,
                "permissions.rules[0].when.cwd: pattern `src/[`, character 5",
            ),
            (
                r#""permissions":{"channels":[{"name":" ","command":["x"]}]}"#,
                "permissions.channels[0].name: it is empty",
            ),
            (
                r#""permissions":{"channels":[{"name":"a","command":["x"]},{"name":"a","command":["y"]}]}"#,
                "permissions.channels[1].name: it is empty, or another channel's",
            ),
            (
                r#""permissions":{"rules":[{"tool":"Bash","action":"ask","when":{"subagent":5}}]}"#,
                "permissions.rules[0].when.subagent: true, false, or a type of subagent",
            ),
            (r#""permissions":{"channels":[{"command":[]}]}"#, "permissions.channels[0].command: it names no program"),
            (r#""permissions":{"on_deny":{"retry":{"max":1,"fedback":""}}}"#, "there is no such field"),
            (r#""retry":{"max":1,"backof_ms":1}"#, "retry.backof_ms: there is no such field"),
            (r#""retry":{}"#, "retry: missing field `max`"),
            (r#""iteration_delay_ms":"1s""#, "iteration_delay_ms: invalid type"),
            (r#""permissions":[]"#, "permissions: invalid type: a list, expected an object"),
            (r#""permissions":{"rules":[["Bash","allow"]]}"#, "permissions.rules[0]: invalid type: a list"),
            (r#""permissions":{"on_deny":[[1]]}"#, "permissions.on_deny: invalid type: a list"),
            (r#""permissions":{"on_deny":{"retry":[1]}}"#, "permissions.on_deny.retry: invalid type: a list"),
            (r#""permissions":{"channels":[["x",["y"]]]}"#, "permissions.channels[0]: invalid type: a list"),
            (r#""retry":[3,100]"#, "retry: invalid type: a list, expected an object"),
            (r#""loop":[true,3]"#, "loop: invalid type: a list, expected an object"),
            (r#""permission":{"rules":[]}"#, "permission: there is no such field; did you mean permissions?"),
            (r#""Permisions":{}"#, "Permisions: there is no such field; did you mean permissions?"),
            (r#""iterationDelayMs":1"#, "iterationDelayMs: there is no such field; did you mean iteration_delay_ms?"),
            (r#""permissions":{"ask_timeout_ms":31622400001}"#, "permissions.ask_timeout_ms: it is more than a year"),
            (
                r#""permissions":{"rules":[{"tool":"Bash","action":"ask","ask_timeout_ms":18446744073709551615}]}"#,
                "permissions.rules[0].ask_timeout_ms: it is more than a year",
            ),
        ] {
            let error = with(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}
