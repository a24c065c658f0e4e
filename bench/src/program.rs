//! The program as a process: what a hook costs its harness, and what the commands that people wait for cost.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use runledger_projections::Projections;
use runledger_store::LogReader;

use crate::Context;
use crate::events::{PENDING_CALL, checkpoint, make_log};
use crate::figure::Figure;
use crate::table::{Table, percentile};

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let Some(program) = &context.program else {
        table.leave_out("program", "no --program");
        return Ok(());
    };
    let folder = tempfile::tempdir_in(&context.dir)?;
    let count = context.sizes.log;
    let path = folder.path().join("ledger.db");
    drop(make_log(&path, count)?);
    Projections::open(&path)?.catch_up()?;
    checkpoint(&path)?;
    for _ in 0..context.repetitions {
        let hooks = hooks(program, &path, context.sizes.hooks)?;
        let nothing = nothing(context.sizes.hooks)?;
        let settings = format!("{} calls, ledger of {count} events", context.sizes.hooks);
        let p50 = Figure::new("hook: p50", "ms", settings.clone());
        table.add(p50, percentile(&hooks, 0.5), None);
        let p99 = Figure::new("hook: p99", "ms", settings);
        table.add(p99.at_most(10.0), percentile(&hooks, 0.99), None);
        let settings = format!("{} calls", context.sizes.hooks);
        let p50 = Figure::new("a process that does nothing: p50", "ms", settings.clone());
        table.add(p50, percentile(&nothing, 0.5), None);
        let p99 = Figure::new("a process that does nothing: p99", "ms", settings);
        table.add(p99, percentile(&nothing, 0.99), None);
        for (name, arguments) in [
            ("status", &["status"][..]),
            ("runs --limit 20", &["runs", "--limit", "20"]),
            ("pending", &["pending"]),
            ("context", &["context", PENDING_CALL]),
        ] {
            let took = command(program, &path, arguments)?;
            let settings = format!("whole process, ledger of {count} events");
            table.add(Figure::new(name, "ms", settings), took, None);
        }
    }
    Ok(())
}

/// Milliseconds of each call of the hook, as a harness makes it.
pub(crate) fn hooks(program: &Path, ledger: &Path, count: u64) -> anyhow::Result<Vec<f64>> {
    // It says nothing of a payload that it could only keep for later.
    let reader = LogReader::open(ledger)?;
    let before = reader.head()?.position;
    let took = (0..count)
        .map(|number| {
            let payload = format!(
                r#"{{"session_id":"hooked","transcript_path":"/t","cwd":"/work","hook_event_name":"PostToolUse","tool_name":"Bash","tool_use_id":"toolu_{number}","tool_input":{{"command":"cargo test"}},"tool_response":{{"stdout":"ok","stderr":""}}}}"#
            );
            let began = Instant::now();
            let mut child = Command::new(program)
                .arg("hook")
                .env("RUNLEDGER_DB", ledger)
                .env("XDG_STATE_HOME", ledger.with_extension("state"))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .context("the program")?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(payload.as_bytes())?;
            }
            let status = child.wait()?;
            anyhow::ensure!(status.success(), "the hook ended with {status}");
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })
        .collect();
    let recorded = reader.head()?.position.0.saturating_sub(before.0);
    anyhow::ensure!(recorded == count, "{recorded} of {count} payloads of hooks are in the log");
    took
}

fn nothing(count: u64) -> anyhow::Result<Vec<f64>> {
    (0..count)
        .map(|_| {
            let began = Instant::now();
            Command::new("true").status()?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

fn command(program: &Path, ledger: &Path, arguments: &[&str]) -> anyhow::Result<f64> {
    let began = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .env("RUNLEDGER_DB", ledger)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "{arguments:?} ended with {status}");
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
