//! Workflow files: JSON with the reference's fields, and our own beside them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::value::RawValue;

use crate::error::ConfigError;

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
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|source| ConfigError::Shape { path: path.to_owned(), source })
    }

    /// Reads a workflow's JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let mut config: Self = serde_json::from_str(json)?;
        config.json = Some(serde_json::from_str(json)?);
        Ok(config)
    }

    /// Permissions, retries and delays, where it says anything of them.
    pub fn policy(&self) -> Option<runledger_events::RunPolicy> {
        None
    }

    /// The loop, where there is one and it is on.
    pub fn active_loop(&self) -> Option<&LoopConfig> {
        self.loop_config.as_ref().filter(|config| config.enabled)
    }
}
