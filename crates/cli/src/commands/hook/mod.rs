//! `hook`: what a harness's hook runs, and how a harness comes to run it.

mod diff;
mod install;
mod payload;
mod record;
mod settings;
mod settings_file;
mod uninstall;

use std::ffi::OsString;

use clap::{Args, Subcommand};

use crate::exit_code::{Exit, Usage};
use crate::ledger::LedgerArg;
use crate::output::Output;

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
        record::record(ledger);
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
pub(crate) fn is_payload_hook(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--db") => drop(arguments.next()),
            Some("hook") => return !arguments.any(|word| word == "install" || word == "uninstall"),
            Some(option) if option.starts_with('-') => {}
            _ => return false,
        }
    }
    false
}
