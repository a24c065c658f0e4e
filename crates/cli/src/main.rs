//! The runledger program: reads the command line, composes the two halves, and answers with a documented exit status.

mod commands;
mod exit_code;
mod ledger;
mod modes;
mod narrator;
mod output;
mod render;
mod requests;
mod spools;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit_code::Exit;
use crate::ledger::LedgerArg;
use crate::output::Output;

/// The one ledger of what coding agents did.
#[derive(Debug, Parser)]
#[command(
    name = "runledger",
    version,
    max_term_width = 100,
    after_help = "On NATS, NATS_USER and NATS_PASSWORD, or NATS_CERT and NATS_KEY, say who connects, and NATS_CA names whom to trust."
)]
struct Arguments {
    /// The ledger, a file, or nats:// or tls://HOST:PORT/NAME [default: $XDG_STATE_HOME/runledger/ledger.db]
    #[arg(long, env = "RUNLEDGER_DB", hide_env_values = true, global = true, value_name = "PATH")]
    db: Option<OsString>,
    /// Print JSON: one object a line for a list, one object for a single thing
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Exec(commands::exec::Exec),
    Resume(commands::resume::Resume),
    Runs(commands::runs::Runs),
    Show(commands::show::Show),
    Sessions(commands::sessions::Sessions),
    Feed(commands::feed::Feed),
    Events(commands::events::Events),
    Pending(commands::pending::Pending),
    Context(commands::context::Context),
    Allow(commands::decide::Allow),
    Deny(commands::decide::Deny),
    Rules(commands::rules::Rules),
    Cancel(commands::cancel::Cancel),
    Signal(commands::signal::Signal),
    Fork(commands::fork::Fork),
    Sweep(commands::sweep::Sweep),
    Ingest(commands::ingest::Ingest),
    Import(commands::import::Import),
    Export(commands::export::Export),
    Backup(commands::backup::Backup),
    Restore(commands::restore::Restore),
    Push(commands::transfer::Push),
    Pull(commands::transfer::Pull),
    Archive(commands::archive::Archive),
    Redact(commands::redact::Redact),
    Seal(commands::seal::Seal),
    Hook(commands::hook::Hook),
    RebuildProjections(commands::rebuild_projections::RebuildProjections),
    Verify(commands::verify::Verify),
    Serve(commands::serve::Serve),
    Status(commands::status::Status),
    Doctor(commands::doctor::Doctor),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && commands::hook::is_payload_hook(std::env::args_os().skip(1)) => {
            output::message(error.to_string().lines().next().unwrap_or("error: usage"));
            return commands::hook::refused(std::env::args_os().skip(1)).into();
        }
        // Usage errors exit with 2, as clap does it; help and version with 0.
        Err(error) => error.exit(),
    };
    if let Command::Hook(hook) = &arguments.command
        && hook.takes_payload()
    {
        // Nothing that takes time, or that could fail, stands before it.
        hook.take_payload(&LedgerArg::new(arguments.db.map(PathBuf::from)));
        return Exit::Done.into();
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .without_time()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("RUNLEDGER_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .init();
    let ledger = LedgerArg::new(arguments.db.map(PathBuf::from));
    let mut output = Output::new(arguments.json);
    let result = run(&arguments.command, &ledger, &mut output).and_then(|exit| output.finish().map(|()| exit));
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = exit_code::of(&error);
            if !exit_code::is_closed_pipe(&error) {
                output::message(&format!("error: {}", render::chain(&error)));
            }
            exit.into()
        }
    }
}

fn run(command: &Command, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
    match command {
        Command::Exec(command) => command.run(ledger, output),
        Command::Resume(command) => command.run(ledger, output),
        Command::Runs(command) => command.run(ledger, output),
        Command::Show(command) => command.run(ledger, output),
        Command::Sessions(command) => command.run(ledger, output),
        Command::Feed(command) => command.run(ledger, output),
        Command::Events(command) => command.run(ledger, output),
        Command::Pending(command) => command.run(ledger, output),
        Command::Context(command) => command.run(ledger, output),
        Command::Allow(command) => command.run(ledger, output),
        Command::Deny(command) => command.run(ledger, output),
        Command::Rules(command) => command.run(ledger, output),
        Command::Cancel(command) => command.run(ledger, output),
        Command::Signal(command) => command.run(ledger, output),
        Command::Fork(command) => command.run(ledger, output),
        Command::Sweep(command) => command.run(ledger, output),
        Command::Ingest(command) => command.run(ledger, output),
        Command::Import(command) => command.run(ledger, output),
        Command::Export(command) => command.run(ledger, output),
        Command::Backup(command) => command.run(ledger, output),
        Command::Restore(command) => command.run(ledger, output),
        Command::Push(command) => command.run(ledger, output),
        Command::Pull(command) => command.run(ledger, output),
        Command::Archive(command) => command.run(ledger, output),
        Command::Redact(command) => command.run(ledger, output),
        Command::Seal(command) => command.run(ledger, output),
        Command::Hook(command) => command.run(ledger, output),
        Command::RebuildProjections(command) => command.run(ledger, output),
        Command::Verify(command) => command.run(ledger, output),
        Command::Serve(command) => command.run(ledger, output),
        Command::Status(command) => command.run(ledger, output),
        Command::Doctor(command) => command.run(ledger, output),
    }
}
