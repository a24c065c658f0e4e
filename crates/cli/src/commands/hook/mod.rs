//! `hook`: what a harness's hook runs, what it answers, and how a harness comes to run it.

mod answer;
mod ask;
mod call;
mod diff;
pub(crate) mod enforcement;
mod install;
mod judge;
mod payload;
mod place;
mod record;
mod settings;
mod settings_file;
mod uninstall;
mod watch;

use std::ffi::OsString;

use clap::{Args, Subcommand};

use crate::exit_code::{Exit, Usage};
use crate::ledger::LedgerArg;
use crate::output::Output;

/// Record what a harness's hook is told, and answer it where a run's rules say so: its payload on standard input
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  Record all that Claude Code does from now on:
    runledger hook install
  See first what that would change:
    runledger hook install --dry-run
  Take it out again:
    runledger hook uninstall

Without `install` or `uninstall` it is what a harness runs: it exits with 0 whatever happens,
and what the ledger cannot take waits beside it for the next command")]
pub(crate) struct Hook {
    /// Deny a tool where it cannot be told what the rules say of it; `install --fail-closed` writes this
    #[arg(long)]
    fail_closed: bool,
    /// Take well-known keys and tokens out of the payload before anything else is done with it; `install` writes this too
    #[arg(long, env = "RUNLEDGER_REDACT_SECRETS", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    redact_secrets: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    Install(install::Install),
    Uninstall(uninstall::Uninstall),
}

impl Hook {
    /// Whether a harness runs it.
    pub(crate) fn takes_payload(&self) -> bool {
        self.action.is_none()
    }

    /// Takes one payload. Nothing that goes wrong is a failure: it is said on standard error.
    pub(crate) fn take_payload(&self, ledger: &LedgerArg) {
        if !self.fail_closed {
            return record::record(ledger, false, self.redact_secrets);
        }
        let take = std::panic::AssertUnwindSafe(|| record::record(ledger, true, self.redact_secrets));
        if std::panic::catch_unwind(take).is_err() {
            record::deny_unknown("it panicked", call::Asking::PreToolUse, true);
        }
    }

    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        if self.fail_closed {
            return Err(Usage(
                "--fail-closed stands behind `install`: runledger hook install --fail-closed".to_owned(),
            )
            .into());
        }
        match &self.action {
            Some(Action::Install(install)) => install.run(ledger, output),
            Some(Action::Uninstall(uninstall)) => uninstall.run(output),
            None => Err(Usage("`hook` alone takes a payload".to_owned()).into()),
        }
    }
}

/// What a command line that was refused comes to, when a harness gave it: where its failures are to deny, the call is
/// denied, which clients take from a hook that exits with 0 alone.
pub(crate) fn refused(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    if !arguments.into_iter().any(|argument| argument == "--fail-closed") {
        return Exit::No;
    }
    record::deny_unknown("its command line is wrong", call::Asking::PreToolUse, true);
    Exit::Done
}

/// Whether a command line that was refused is a harness's: its exit status must not be 2, which would block the tool.
pub(crate) fn is_payload_hook(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let mut arguments = arguments.into_iter();
    let mut is_hook = false;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--db") => drop(arguments.next()),
            Some(option) if option.starts_with('-') => {}
            Some("hook") if !is_hook => is_hook = true,
            word => return is_hook && !matches!(word, Some("install" | "uninstall")),
        }
    }
    is_hook
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harness_is_told_from_a_person_by_what_stands_behind_hook() {
        let is_payload_hook = |line: &str| is_payload_hook(line.split(' ').map(OsString::from));
        for line in [
            "hook --bad",
            "hook --fail-closed --bad",
            "--db x hook --fail-closed more",
            "hook --db",
            "hook --db install --bad",
            "hook hook",
        ] {
            assert!(is_payload_hook(line), "{line}");
        }
        for line in ["hook install --bad", "hook --fail-closed install", "--db hook status", "status hook", "--bad"] {
            assert!(!is_payload_hook(line), "{line}");
        }
    }
}
