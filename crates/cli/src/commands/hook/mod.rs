//! `hook`: what a harness's hook runs, what it answers, and how a harness comes to run it.

mod answer;
mod ask;
mod call;
mod diff;
mod install;
mod installed;
mod judge;
mod payload;
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

pub(crate) use installed::is_installed;

/// Record what a harness's hook is told: its payload on standard input
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
    #[command(subcommand)]
    action: Option<Action>,
    /// Deny the call where its run's rules cannot be read, or nobody can be asked
    #[arg(long)]
    fail_closed: bool,
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
            return record::record(ledger, false);
        }
        let take = std::panic::AssertUnwindSafe(|| record::record(ledger, true));
        if std::panic::catch_unwind(take).is_err() {
            record::deny_unknown("it panicked", call::Asking::PreToolUse, true);
        }
    }

    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        match &self.action {
            Some(Action::Install(install)) => install.run(ledger, output),
            Some(Action::Uninstall(uninstall)) => uninstall.run(output),
            None => Err(Usage("`hook` alone takes a payload".to_owned()).into()),
        }
    }
}

/// Whether a command line that was refused is a harness's: its exit status must not be 2, which would block the tool.
/// Where it is to fail closed the tool is denied.
pub(crate) fn is_payload_hook(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--db") => drop(arguments.next()),
            Some("hook") => {
                let rest: Vec<OsString> = arguments.collect();
                let is_ours = !rest.iter().any(|word| word == "install" || word == "uninstall");
                if is_ours && rest.iter().any(|word| word == "--fail-closed") {
                    record::deny_unknown("its command line is wrong", call::Asking::PreToolUse, true);
                }
                return is_ours;
            }
            Some(option) if option.starts_with('-') => {}
            _ => return false,
        }
    }
    false
}
