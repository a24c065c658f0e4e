//! Bytes an event, and the memory that a rebuild takes.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use runledger_projections::{Projections, projections_path};
use serde_json::Value;

use crate::Context;
use crate::events::{checkpoint, make_log};
use crate::figure::Figure;
use crate::table::Table;

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(&context.dir)?;
    let path = folder.path().join("ledger.db");
    let count = context.sizes.memory;
    drop(make_log(&path, count)?);
    checkpoint(&path)?;
    let settings = format!("{count} events of all sorts, once");
    let of_log = std::fs::metadata(&path)?.len() as f64 / count as f64;
    table.add(Figure::new("the log", "bytes/event", settings.clone()), of_log, None);
    // In a process of its own, whose memory is this work's alone.
    let output = Command::new(std::env::current_exe()?).arg("--rebuild-alone").arg(&path).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let peak = told["peak_kib"].as_f64().context("peak_kib")? / 1024.0;
    table.add(Figure::new("peak memory of a rebuild of all", "MiB", settings.clone()).at_most(200.0), peak, None);
    let projections = projections_path(&path);
    checkpoint(&projections)?;
    let of_models = std::fs::metadata(projections)?.len() as f64 / count as f64;
    table.add(Figure::new("the read models", "bytes/event", settings), of_models, None);
    Ok(())
}

/// Builds every read model of a ledger in this process, and prints its peak memory.
pub(crate) fn rebuild_alone(ledger: &Path) -> anyhow::Result<()> {
    Projections::open(ledger)?.catch_up()?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    println!("{}", serde_json::json!({ "peak_kib": peak }));
    Ok(())
}
