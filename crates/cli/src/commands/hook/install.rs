//! `hook install`: writes a client's settings so that it runs `runledger hook` at every event that may be observed.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::settings::{Observed, with_entries};
use super::settings_file::{Scope, SettingsFile};
use crate::exit_code::{CouldNotStart, Exit};
use crate::ledger::LedgerArg;
use crate::output::{Output, message};

/// How long a client waits for a hook, in seconds. It takes milliseconds, and seldom more than 0.3 s in trouble.
pub(crate) const TIMEOUT_S: u32 = 10;
/// The same where a question may be answered by somebody else: a day. A client that ends its hook lets the tool run.
pub(crate) const TIMEOUT_OF_QUESTIONS_S: u32 = 86_400;
/// The same at a session's end, where a client waits for all hooks 1.5 s unless a hook asks for more.
const TIMEOUT_AT_END_S: u32 = 5;

/// The events at which a hook decides.
const DECIDED: [&str; 2] = ["PreToolUse", "PermissionRequest"];

/// Claude Code's events but WorktreeCreate: a hook on that one replaces the client's own deed.
const CLAUDE_EVENTS: [&str; 32] = [
    "SessionStart",
    "SessionEnd",
    "Setup",
    "UserPromptSubmit",
    "UserPromptExpansion",
    "PreToolUse",
    "PermissionRequest",
    "PermissionDenied",
    "PostToolUse",
    "PostToolUseFailure",
    "PostToolBatch",
    "SubagentStart",
    "SubagentStop",
    "Stop",
    "StopFailure",
    "MessageDisplay",
    "Notification",
    "PreCompact",
    "PostCompact",
    "PreModelSwitch",
    "PostModelSwitch",
    "TaskCreated",
    "TaskCompleted",
    "TeammateIdle",
    "InstructionsLoaded",
    "ConfigChange",
    "CwdChanged",
    "FileChanged",
    "DirectoryAdded",
    "WorktreeRemove",
    "Elicitation",
    "ElicitationResult",
];

const CODEX_EVENTS: [&str; 13] = [
    "SessionStart",
    "SessionEnd",
    "UserPromptSubmit",
    "PreModelRequest",
    "PreToolUse",
    "PermissionRequest",
    "PostToolUse",
    "PreCompact",
    "PostCompact",
    "SubagentStart",
    "SubagentStop",
    "Stop",
    "Interrupt",
];

/// The option of `hook` that makes its own failures a denial.
const FAIL_CLOSED: &str = "--fail-closed";
const REDACT_SECRETS: &str = "--redact-secrets";

/// Whose settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// Claude Code
    Claude,
    /// Codex
    Codex,
}

impl Client {
    fn observed(self, commands: &Commands) -> Vec<Observed<'_>> {
        let events: &[&'static str] = match self {
            Self::Claude => &CLAUDE_EVENTS,
            Self::Codex => &CODEX_EVENTS,
        };
        let observed = |event: &'static str| {
            let decides = DECIDED.contains(&event);
            let timeout_s = match event {
                _ if decides => TIMEOUT_OF_QUESTIONS_S,
                "SessionEnd" => TIMEOUT_AT_END_S,
                _ => TIMEOUT_S,
            };
            let command = if decides { &commands.deciding } else { &commands.recording };
            Observed { event, command, timeout_s, raises_limit: decides }
        };
        events.iter().map(|event| observed(event)).collect()
    }

    /// The command that writes its entries.
    pub(crate) fn install_command(self) -> &'static str {
        match self {
            Self::Claude => "runledger hook install",
            Self::Codex => "runledger hook install --harness codex",
        }
    }
}

/// What the client is to run.
struct Commands {
    /// Where a hook only records.
    recording: String,
    /// Where it decides.
    deciding: String,
}

/// Which settings, and whether they are written.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Whose settings
    #[arg(long, value_enum, default_value = "claude")]
    pub(crate) harness: Client,
    /// Those of the current folder's project: `.claude/settings.json`
    #[arg(long, conflicts_with = "user")]
    pub(crate) project: bool,
    /// Your own, for every project; the default
    #[arg(long)]
    pub(crate) user: bool,
    /// Show what would change, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Target {
    pub(crate) fn file(&self) -> anyhow::Result<SettingsFile> {
        SettingsFile::open(self.harness, if self.project { Scope::Project } else { Scope::User })
    }
}

/// Write the settings of Claude Code or Codex so that it records every event
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger hook install
  runledger hook install --project --dry-run
  runledger hook install --harness codex
  runledger hook install --fail-closed
  runledger hook install --redact-secrets")]
pub(crate) struct Install {
    #[command(flatten)]
    target: Target,
    /// Deny a tool where the hook cannot tell what the rules say of it
    #[arg(long)]
    fail_closed: bool,
    /// Have every hook take well-known keys and tokens out of what it records
    #[arg(long)]
    redact_secrets: bool,
}

impl Install {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let file = self.target.file()?;
        let plain = command(ledger)?;
        let recording = if self.redact_secrets { format!("{plain} {REDACT_SECRETS}") } else { plain };
        let deciding = if self.fail_closed { format!("{recording} {FAIL_CLOSED}") } else { recording.clone() };
        let commands = Commands { recording, deciding };
        let new = with_entries(file.text(), &self.target.harness.observed(&commands), &is_own)
            .map_err(|error| file.refused(&error))?;
        file.replace(&new, self.target.dry_run, output)?;
        if self.target.harness == Client::Codex {
            message(
                "Codex runs hooks only once you have trusted them, and leaves others out without a word: start `codex` in \
                 a terminal and trust these, or pass it --dangerously-bypass-hook-trust",
            );
        }
        Ok(Exit::Done)
    }
}

/// What the client is to run, for a shell.
fn command(ledger: &LedgerArg) -> anyhow::Result<String> {
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| CouldNotStart(format!("{}: settings take paths in UTF-8 only", path.display())))
    };
    let mut words = vec![text(&program()?)?];
    if let Some(ledger) = ledger.named() {
        words.extend(["--db".to_owned(), text(&runledger_store::absolute_place(ledger)?)?]);
    }
    words.push("hook".to_owned());
    Ok(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

fn program() -> Result<PathBuf, CouldNotStart> {
    std::env::current_exe().map_err(|error| CouldNotStart(format!("the path of this program cannot be told: {error}")))
}

/// A word as a shell takes it for itself.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether a command is one that `install` writes, whatever program of ours wrote it and whatever the ledger is.
pub(crate) fn is_own(command: &str) -> bool {
    own_program(command).is_some()
}

/// The program of a command that `install` writes, and the ledger that it names.
pub(crate) fn own_program(command: &str) -> Option<(PathBuf, Option<PathBuf>)> {
    let words = words(command)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, ledger, rest) = match words.as_slice() {
        [program, "--db", ledger, rest @ ..] => (Path::new(program), Some(PathBuf::from(ledger)), rest),
        [program, rest @ ..] => (Path::new(program), None, rest),
        [] => return None,
    };
    let is_ours = program.file_stem().is_some_and(|name| name == "runledger")
        || std::env::current_exe().is_ok_and(|own| own == program);
    let is_hook = match rest {
        ["hook", options @ ..] => options.iter().all(|option| [FAIL_CLOSED, REDACT_SECRETS].contains(option)),
        _ => false,
    };
    (is_ours && is_hook).then(|| (program.to_owned(), ledger))
}

/// The words of a plain command, or nothing where it is more than that.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = command.chars();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '"' | '\n' | '#' => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_again_whatever_stands_in_its_paths() {
        for (program, ledger) in [
            ("/usr/bin/runledger", None),
            ("/home/o'neil/my tools/runledger", None),
            ("/usr/bin/runledger", Some("/srv/a b/$x`y\"z.db")),
        ] {
            let mut words = vec![quoted(program)];
            words.extend(ledger.into_iter().flat_map(|ledger| ["--db".to_owned(), quoted(ledger)]));
            words.push("hook".to_owned());
            let expected = Some((PathBuf::from(program), ledger.map(PathBuf::from)));
            assert_eq!(own_program(&words.join(" ")), expected, "{words:?}");
            words.push(REDACT_SECRETS.to_owned());
            assert_eq!(own_program(&words.join(" ")), expected, "{words:?}");
            words.push(FAIL_CLOSED.to_owned());
            assert_eq!(own_program(&words.join(" ")), expected, "{words:?}");
        }
    }

    #[test]
    fn what_somebody_else_made_of_it_is_not_ours() {
        for command in [
            "",
            "hook",
            "/usr/bin/other hook",
            "runledger hook | tee log",
            "runledger hook; true",
            "FOO=1 runledger hook",
            "runledger status",
            "runledger hook install",
            "runledger hook install --fail-closed",
            "runledger hook --fail-closed | tee log",
            "runledger hook --fail-closed --json",
            "runledger --fail-closed hook",
            "notify 'runledger hook'",
            "runledger 'hook",
        ] {
            assert!(!is_own(command), "{command}");
        }
    }
}
