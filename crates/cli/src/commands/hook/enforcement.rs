//! Whether a harness will be held to a workflow's permission rules: whether our hook stands in the settings that it reads,
//! and may take as long there as the workflow's questions wait.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use runledger_events::PermissionPolicy;
use serde_json::Value;

use super::install::{Client, TIMEOUT_OF_QUESTIONS_S, TIMEOUT_S, own_program};
use super::settings_file::{Scope, read_by};

/// How long a client waits for a hook whose entry does not say, in seconds.
const TIMEOUT_OF_CLIENTS_S: f64 = 600.0;
/// Matchers that fit every tool.
const EVERY_TOOL: [&str; 3] = ["", "*", ".*"];

/// Why nothing would hold a harness to the rules.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotEnforced {
    #[error(
        "the workflow has permissions, and nothing would hold {client} to them: there is no PreToolUse hook of runledger \
         for every tool in {files}; run `{install}`"
    )]
    Missing { client: &'static str, files: String, install: &'static str },
    #[error(
        "{path}: {client} ends the PreToolUse hook of runledger after {limit_s} s, and then runs the tool, while a \
         question of this workflow takes up to {needed_s} s; {remedy}"
    )]
    TooShort { path: String, client: &'static str, limit_s: f64, needed_s: u32, remedy: String },
    #[error(
        "{path}: its PreToolUse hook is to run {program}, which is not there, so nothing would hold {client} to the \
         workflow's permissions; {remedy}"
    )]
    NoProgram { path: String, program: String, client: &'static str, remedy: String },
    #[error(
        "{path}: `disableAllHooks` is on, so nothing would hold {client} to the workflow's permissions; take it out, then \
         try again"
    )]
    Off { path: String, client: &'static str },
    #[error(
        "{path}: {reason}, so it cannot be told whether {client} would be held to the workflow's permissions; mend it and \
         try again"
    )]
    Unreadable { path: String, reason: String, client: &'static str },
    #[error("{0}, so the settings of {1} cannot be found, and whether it would be held to the workflow's permissions")]
    Homeless(String, &'static str),
}

/// Checks that a harness which works in `project_dir`, with `env` beside this process's environment, asks our hook before
/// every tool and waits until a question was answered. One that calls `runledger hook` itself is not checked.
///
/// It cannot see whether Codex's user trusts the hook, nor settings that an administrator imposes.
pub(crate) fn check(
    harness: &str,
    project_dir: &Path,
    env: &BTreeMap<String, String>,
    permissions: &PermissionPolicy,
) -> Result<(), NotEnforced> {
    let (client, name) = match harness {
        "claude" | "claude-code" => (Client::Claude, "Claude Code"),
        "codex" => (Client::Codex, "Codex"),
        _ => return Ok(()),
    };
    let variable = |name: &str| env.get(name).map(OsString::from).or_else(|| std::env::var_os(name));
    let folder = std::path::absolute(project_dir).unwrap_or_else(|_| project_dir.to_owned());
    let files = read_by(client, &folder, &variable).map_err(|error| NotEnforced::Homeless(error.0, name))?;
    let mut entries = Vec::new();
    let mut off = None;
    for (scope, path) in &files {
        let Some(settings) = read(path, name)? else {
            continue;
        };
        // Where several say so, the last one counts.
        if let Some(is_off) = settings.get("disableAllHooks").and_then(Value::as_bool) {
            off = is_off.then_some(path);
        }
        entries.extend(Entry::all(*scope, path, &settings));
    }
    if let Some(path) = off.filter(|_| client == Client::Claude) {
        return Err(NotEnforced::Off { path: path.display().to_string(), client: name });
    }
    let (there, gone): (Vec<&Entry<'_>>, Vec<&Entry<'_>>) = entries.iter().partition(|entry| entry.program_is_there());
    if there.is_empty() {
        return Err(match gone.first() {
            Some(entry) => NotEnforced::NoProgram {
                path: entry.path.display().to_string(),
                program: entry.program.display().to_string(),
                client: name,
                remedy: entry.remedy(client),
            },
            None => {
                let files: Vec<String> = files.iter().map(|(_, path)| path.display().to_string()).collect();
                let files = files.join(" or ");
                NotEnforced::Missing { client: name, files, install: client.install_command() }
            }
        });
    }
    // Of equal commands a client runs one, and which limit it takes is not known: each has to do.
    let needed_s = needed_s(permissions);
    match there.iter().find(|entry| entry.limit_s < f64::from(needed_s)) {
        Some(entry) => Err(NotEnforced::TooShort {
            path: entry.path.display().to_string(),
            client: name,
            limit_s: entry.limit_s,
            needed_s,
            remedy: entry.remedy(client),
        }),
        None => Ok(()),
    }
}

/// How long a hook may have to take, in seconds: as long as a question waits, and what it takes beside that; a day at
/// the most, which is what `install` gives it.
fn needed_s(permissions: &PermissionPolicy) -> u32 {
    let rules = permissions.rules.iter().map(|rule| permissions.ask_timeout_ms(Some(rule)));
    let waits = rules.chain([permissions.ask_timeout_ms(None)]);
    let longest_ms = waits.map(|wait_ms| wait_ms.unwrap_or(u64::MAX)).max().unwrap_or_default();
    let with_rest_s = longest_ms.div_ceil(1000).saturating_add(u64::from(TIMEOUT_S));
    u32::try_from(with_rest_s).unwrap_or(u32::MAX).min(TIMEOUT_OF_QUESTIONS_S)
}

/// The settings in a file, where there is one.
fn read(path: &Path, client: &'static str) -> Result<Option<Value>, NotEnforced> {
    let unreadable = |reason: String| NotEnforced::Unreadable { path: path.display().to_string(), reason, client };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(unreadable(format!("it cannot be read: {error}"))),
    };
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text).map(Some).map_err(|error| unreadable(format!("it is no JSON: {error}")))
}

/// A PreToolUse entry of ours that is asked before every tool.
struct Entry<'a> {
    scope: Scope,
    path: &'a Path,
    program: PathBuf,
    limit_s: f64,
}

impl<'a> Entry<'a> {
    fn all(scope: Scope, path: &'a Path, settings: &Value) -> Vec<Self> {
        let groups = settings.pointer("/hooks/PreToolUse").and_then(Value::as_array);
        let groups = groups.into_iter().flatten().filter(|group| match group.get("matcher") {
            None | Some(Value::Null) => true,
            Some(matcher) => matcher.as_str().is_some_and(|matcher| EVERY_TOOL.contains(&matcher)),
        });
        let hooks = groups.filter_map(|group| group.get("hooks")?.as_array()).flatten();
        hooks.filter_map(|hook| Self::of(scope, path, hook)).collect()
    }

    fn of(scope: Scope, path: &'a Path, hook: &Value) -> Option<Self> {
        let is_set = |name: &str| hook.get(name).is_some_and(|value| *value != Value::Bool(false));
        // Nobody waits for the first two, and the last is asked about some calls only.
        if hook.get("type")? != "command" || is_set("async") || is_set("asyncRewake") || is_set("if") {
            return None;
        }
        let program = own_program(hook.get("command")?.as_str()?)?;
        let limit_s = hook.get("timeout").and_then(Value::as_f64).unwrap_or(TIMEOUT_OF_CLIENTS_S);
        Some(Self { scope, path, program, limit_s })
    }

    /// Whether its program is where the entry says; a bare name is the shell's to find.
    fn program_is_there(&self) -> bool {
        !self.program.is_absolute() || self.program.exists()
    }

    /// What to do about it.
    fn remedy(&self, client: Client) -> String {
        let install = client.install_command();
        match self.scope {
            Scope::User => format!("run `{install}`"),
            Scope::Project => format!("run `{install} --project` in the project"),
            Scope::Local => format!("take it out there, and run `{install}`"),
        }
    }
}
