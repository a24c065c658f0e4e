//! The pages of `serve`: what a browser waits for, on a log of a million events, whole requests over a connection of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use runledger_projections::{Projections, Queries, RunFilter};

use crate::Context;
use crate::events::{checkpoint, make_log};
use crate::figure::Figure;
use crate::table::{Table, percentile};

/// The token of the server that is measured.
const TOKEN: &str = "bench-0123456789abcdef";
/// A page is there within this, at the 99th percentile.
const PAGE_MS_MAX: f64 = 50.0;

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let Some(program) = &context.program else {
        table.leave_out("pages", "no --program");
        return Ok(());
    };
    let folder = tempfile::tempdir_in(&context.dir)?;
    let path = folder.path().join("ledger.db");
    let count = context.sizes.pages;
    drop(make_log(&path, count)?);
    Projections::open(&path)?.catch_up()?;
    checkpoint(&path)?;
    let runs = Queries::open(&path)?.runs(&RunFilter::default())?;
    let run = runs.get(runs.len() / 2).context("the log has no runs")?;
    let middle = (run.first_position.0 + run.last_position.0) / 2;
    let server = Server::start(program, &path)?;
    let settings = format!("{} requests, log of {count} events, {} runs", context.sizes.page_requests, runs.len());
    for _ in 0..context.repetitions {
        for (name, address, is_bounded) in [
            ("page: the list of runs", "/".to_owned(), true),
            ("page: runs with a text", "/?q=nightly".to_owned(), true),
            ("page: a run, its feed and its timeline", format!("/runs/{}", run.id), true),
            ("page: a run's feed, searched for a rare word", format!("/runs/{}?q=case_00c0ffee", run.id), true),
            ("page: a run's feed, searched for a common word", format!("/runs/{}?q=tests", run.id), true),
            ("page: what waits for a decision", "/permissions".to_owned(), true),
            ("page: health", "/health".to_owned(), true),
            ("page: a run as of a position, asked again", format!("/runs/{}?at={middle}", run.id), false),
        ] {
            let took =
                (0..context.sizes.page_requests).map(|_| server.ask(&address)).collect::<anyhow::Result<Vec<_>>>()?;
            let p50 = Figure::new(format!("{name}: p50"), "ms", settings.clone());
            table.add(p50, percentile(&took, 0.5), None);
            let p99 = Figure::new(format!("{name}: p99"), "ms", settings.clone());
            table.add(if is_bounded { p99.at_most(PAGE_MS_MAX) } else { p99 }, percentile(&took, 0.99), None);
        }
    }
    Ok(())
}

/// A server that ends with this value.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(program: &Path, ledger: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["serve", "--port", "0", "--json", "--read-only", "--db"])
            .arg(ledger)
            .env("RUNLEDGER_TOKEN", TOKEN)
            .stdout(Stdio::piped())
            .spawn()
            .context("serve")?;
        let stdout = child.stdout.take().context("serve prints nothing")?;
        let mut server = Self { child, address: String::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let told: serde_json::Value = serde_json::from_str(&line).context("what serve prints first")?;
        server.address = told["address"].as_str().context("serve names no address")?.to_owned();
        // It may still be opening the ledger.
        server.ask("/")?;
        Ok(server)
    }

    /// Milliseconds until the whole page is there.
    fn ask(&self, path: &str) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut stream = TcpStream::connect(&self.address)?;
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\naccept: text/html\r\nconnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{path}: {}", String::from_utf8_lossy(&answer));
        Ok(took)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the requests tell of.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
