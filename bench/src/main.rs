//! The bench: prints a table of figures, each with its reference from the same run, and marks those below their floor.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

mod append;
mod events;
mod figure;
mod follow;
mod footprint;
mod growth;
mod nats;
mod opening;
mod pages;
mod peer;
mod peers;
mod program;
mod raw;
mod rebuild;
mod rebuild_lag;
mod sizes;
mod streams;
mod table;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::sizes::Sizes;
use crate::table::Table;

/// Measures runledger beside the disk, SQLite and its peers
#[derive(Debug, Parser)]
struct Bench {
    /// Smaller sizes: under five minutes in all
    #[arg(long)]
    quick: bool,
    /// JSON Lines instead of a table
    #[arg(long)]
    json: bool,
    /// Only the groups whose name contains this
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// Repetitions of each figure, interleaved with its reference
    #[arg(long, default_value = "5")]
    repetitions: NonZeroUsize,
    /// Where the ledgers are made: a folder on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = "target/ledgers")]
    dir: PathBuf,
    /// Where the peers' programs are; without it their rows are left out
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// The program itself; without it the rows of its processes are left out
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Does one thing in this process and prints its peak memory: for the bench itself
    #[arg(long, hide = true, value_name = "LEDGER")]
    rebuild_alone: Option<PathBuf>,
}

/// What every group of figures gets.
struct Context {
    dir: PathBuf,
    sizes: Sizes,
    repetitions: usize,
    peers: Option<PathBuf>,
    program: Option<PathBuf>,
}

type Group = fn(&Context, &mut Table) -> anyhow::Result<()>;

const GROUPS: [(&str, Group); 11] = [
    ("append", append::run),
    ("follow", follow::run),
    ("rebuild", rebuild::run),
    ("lag-in-rebuild", rebuild_lag::run),
    ("opening", opening::run),
    ("growth", growth::run),
    ("program", program::run),
    ("pages", pages::run),
    ("nats", nats::run),
    ("footprint", footprint::run),
    ("peers", peers::run),
];

fn main() -> anyhow::Result<ExitCode> {
    let bench = Bench::parse();
    if let Some(ledger) = &bench.rebuild_alone {
        footprint::rebuild_alone(ledger)?;
        return Ok(ExitCode::SUCCESS);
    }
    let sizes = if bench.quick { Sizes::QUICK } else { Sizes::FULL };
    let wanted = |name: &str| bench.only.as_deref().is_none_or(|only| name.contains(only));
    let known = GROUPS.map(|(name, _)| name).join(", ");
    anyhow::ensure!(
        GROUPS.iter().any(|(name, _)| wanted(name)),
        "no group's name contains '{}'; the groups are {known}",
        bench.only.as_deref().unwrap_or_default()
    );
    std::fs::create_dir_all(&bench.dir).with_context(|| format!("--dir {}", bench.dir.display()))?;
    let repetitions = bench.repetitions.get();
    let context = Context { dir: bench.dir, sizes, repetitions, peers: bench.peers, program: bench.program };
    let mut table = Table::default();
    for (name, group) in GROUPS.into_iter().filter(|(name, _)| wanted(name)) {
        eprintln!("{name} …");
        // What the other groups measured, perhaps for an hour, is not lost with one of them.
        if let Err(error) = group(&context, &mut table) {
            table.leave_out(name, format!("failed: {error:#}"));
        }
    }
    table.print(bench.json)?;
    Ok(if table.is_all_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
