//! One peer: its program, what is asked of it, and the floors of what runledger has to be beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Context as _;
use runledger_store::{OpenOptions, SyncMode};
use serde_json::Value;

use crate::figure::Floor;
use crate::table::Table;

/// A peer's program, and the sync mode that both it and runledger have.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    program: PathBuf,
    pub(crate) sync: SyncMode,
    /// What it cannot do as runledger does.
    note: &'static str,
    pub(crate) floors: Floors,
}

/// What is compared, each with its floor; `None` where the peer does not do it, or is not asked to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floors {
    /// One at a time; by 8 and by 64 writers; in batches of 100.
    pub(crate) appends: [Option<Floor>; 4],
    pub(crate) size: Option<Floor>,
    pub(crate) rebuild: Option<Floor>,
    /// The lag's p50 and p99.
    pub(crate) lag: Option<[Floor; 2]>,
}

const fn at_least(ratio: f64) -> Option<Floor> {
    Some(Floor::Ratio(ratio))
}

const fn at_most(ratio: f64) -> Option<Floor> {
    Some(Floor::RatioAtMost(ratio))
}

const SHOWN: Option<Floor> = Some(Floor::None);

/// eventsdb with one line changed, by which it waits for the disk.
const EVENTSDB_FULL: Floors = Floors {
    appends: [at_least(1.2), at_least(4.0), at_least(20.0), at_least(2.5)],
    size: at_most(0.83),
    rebuild: at_least(5.0),
    lag: Some([Floor::RatioAtMost(0.4), Floor::None]),
};
/// eventsdb as it is: ahead on every row.
const EVENTSDB_NORMAL: Floors = Floors {
    appends: [at_least(1.0); 4],
    size: at_most(1.0),
    rebuild: at_least(1.0),
    lag: Some([Floor::RatioAtMost(1.0); 2]),
};
const CQRS_ES: Floors =
    Floors { appends: [at_least(2.5), SHOWN, SHOWN, at_least(5.0)], size: SHOWN, rebuild: at_least(7.0), lag: None };
/// Those that stand beside the bench as scripts.
const SCRIPTS: Floors = Floors { appends: [SHOWN, None, None, SHOWN], size: SHOWN, rebuild: None, lag: None };

impl Peer {
    /// The peers whose programs are in `programs` and work; of those left out it is said why.
    pub(crate) fn found(programs: &Path, dir: &Path, events: &Path, table: &mut Table) -> anyhow::Result<Vec<Self>> {
        let full = SyncMode::Full;
        let one_connection = "it writes by one connection, which is its fastest, and has nothing that follows";
        let peers = [
            ("eventsdb FULL", "peer-eventsdb-full", full, "", EVENTSDB_FULL),
            ("eventsdb NORMAL", "peer-eventsdb", SyncMode::Normal, "", EVENTSDB_NORMAL),
            ("cqrs-es FULL", "peer-cqrs-es", full, one_connection, CQRS_ES),
            ("eventsourcing FULL", "peer-eventsourcing", full, "Python; appends alone", SCRIPTS),
            ("PostgreSQL FULL", "peer-postgres", full, "a server's processes; appends alone", SCRIPTS),
        ];
        let mut found = Vec::new();
        for (name, program, sync, note, floors) in peers {
            let peer = Self { name, program: programs.join(program), sync, note, floors };
            match peer.reason_to_leave_out(dir, events)? {
                // Those that are shown alone need not be installed.
                Some(reason) if floors.rebuild.is_none() => eprintln!("  {name} is left out: {reason}"),
                Some(reason) => table.leave_out(name, reason),
                None => found.push(peer),
            }
        }
        Ok(found)
    }

    fn reason_to_leave_out(&self, dir: &Path, events: &Path) -> anyhow::Result<Option<String>> {
        if !self.program.exists() {
            return Ok(Some(format!("{} is not there", self.program.display())));
        }
        let folder = tempfile::tempdir_in(dir)?;
        Ok(match self.command("append", folder.path(), events, &[("--count", 1)]).output() {
            Err(error) => Some(format!("{}: {error}", self.program.display())),
            Ok(output) => (!output.status.success()).then(|| said(&output)),
        })
    }

    fn command(&self, work: &str, dir: &Path, events: &Path, arguments: &[(&str, u64)]) -> Command {
        let sync = self.sync_word().to_lowercase();
        let mut command = Command::new(&self.program);
        command.arg(work).arg("--dir").arg(dir).arg("--events").arg(events).args(["--sync", &sync]);
        for (name, value) in arguments {
            command.arg(name).arg(value.to_string());
        }
        command
    }

    /// Has it do its work in an empty folder; what it says of it.
    pub(crate) fn run(&self, work: &str, dir: &Path, events: &Path, arguments: &[(&str, u64)]) -> anyhow::Result<Told> {
        let folder = tempfile::tempdir_in(dir)?;
        let output = self.command(work, folder.path(), events, arguments).output();
        let output = output.with_context(|| self.program.display().to_string())?;
        anyhow::ensure!(output.status.success(), "{}: {}", self.name, said(&output));
        let told = serde_json::from_slice(&output.stdout);
        Ok(Told(told.with_context(|| format!("{} printed no JSON", self.program.display()))?))
    }

    pub(crate) fn sync_word(&self) -> &'static str {
        match self.sync {
            SyncMode::Full => "FULL",
            SyncMode::Normal => "NORMAL",
        }
    }

    /// How runledger's log is opened beside it.
    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions { sync: self.sync, ..OpenOptions::default() }
    }

    /// The settings of both its row and runledger's.
    pub(crate) fn settings(&self, work: &str, told: &Told) -> String {
        let note = if self.note.is_empty() { String::new() } else { format!(": {}", self.note) };
        format!("{}, {work}; {}{note}", self.sync_word(), told.0["version"].as_str().unwrap_or(self.name))
    }
}

/// Why a program failed: its last words, else its status.
fn said(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if words.is_empty() { output.status.to_string() } else { words }
}

/// The line that a peer's program prints.
pub(crate) struct Told(Value);

impl Told {
    pub(crate) fn number(&self, name: &'static str) -> anyhow::Result<f64> {
        self.0[name].as_f64().context(name)
    }

    pub(crate) fn per_second(&self) -> anyhow::Result<f64> {
        Ok(self.number("events")? / self.number("seconds")?)
    }
}
