//! The processes that are killed. Each tells of every step by one line on its standard output, right after it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use runledger_events::{Position, StreamVersion};
use runledger_projections::{ProjectionError, Projections};
use runledger_store::{AppendError, EventLog, LogReader, OpenError, SqliteLog, StorageError};
use runledger_testkit::{engine_address, open_log};

use crate::acknowledged::line;
use crate::failpoints;
use crate::requests::{Request, THREADS, requests};
use crate::support::NAMES;

const CHILD: &str = "RUNLEDGER_CHECKER_CHILD";
const CHILD_TEST: &str = "workers::as_a_child_it_does_its_task";
/// The line behind each rebuild.
pub(crate) const REBUILT: &str = "rebuilt";

/// What a process does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    /// Appends what this process has to append in this round, and ends.
    Append { round: u64, process: u64 },
    /// Projects until it is killed.
    Project,
    /// Rebuilds until it is killed, one read model after the other from this one on.
    Rebuild { first: u64 },
    /// Does a little of everything, and ends.
    Workload,
}

impl Task {
    /// Starts a process that does it; `failpoint` is where it dies by itself.
    pub(crate) fn start(self, ledger: &Path, failpoint: Option<&str>) -> Child {
        let words = match self {
            Self::Append { round, process } => format!("append {round} {process}"),
            Self::Project => "project 0 0".to_owned(),
            Self::Rebuild { first } => format!("rebuild {first} 0"),
            Self::Workload => "workload 0 0".to_owned(),
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([CHILD_TEST, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{words} {}", ledger.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some(failpoint) = failpoint {
            command.env("RUNLEDGER_FAILPOINT", failpoint);
        }
        command.spawn().unwrap()
    }
}

/// Does nothing unless it is run as a child.
#[test]
fn as_a_child_it_does_its_task() {
    let Ok(task) = std::env::var(CHILD) else {
        return;
    };
    let words: Vec<&str> = task.splitn(4, ' ').collect();
    let (first, second) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let ledger = Path::new(words[3]);
    match words[0] {
        "append" => append(ledger, first, second),
        "project" => project(ledger),
        "rebuild" => rebuild(ledger, first),
        _ => failpoints::workload(ledger, true, tell),
    }
}

/// Tells the parent; who has none any more ends.
fn tell(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

fn append(ledger: &Path, round: u64, process: u64) {
    let log = opened(ledger);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                let reader = log.reader().unwrap();
                requests(round, process, thread).iter().for_each(|request| acknowledge(&**log, &reader, request, tell));
            });
        }
    });
}

/// Where the address of a ledger's log stands that is on servers.
fn address_of(ledger: &Path) -> PathBuf {
    ledger.with_file_name("address")
}

/// Has the ledger's log on servers, where tests want theirs there.
pub(crate) fn keep_on_servers(ledger: &Path) {
    if let Some(address) = engine_address() {
        std::fs::write(address_of(ledger), address).unwrap();
    }
}

pub(crate) fn is_on_servers(ledger: &Path) -> bool {
    address_of(ledger).exists()
}

pub(crate) fn opened(ledger: &Path) -> Arc<dyn EventLog> {
    if let Ok(address) = std::fs::read_to_string(address_of(ledger)) {
        return open_log(&format!("{}\n{address}", ledger.parent().unwrap().display()));
    }
    loop {
        match SqliteLog::open(ledger) {
            Err(OpenError::Storage(StorageError::Busy { .. })) => {}
            opened => return Arc::new(opened.unwrap()),
        }
    }
}

/// Appends as a client does, which looks again and tries again until it is told that it is done; tells of each receipt.
pub(crate) fn acknowledge(log: &dyn EventLog, reader: &LogReader, request: &Request, mut tell: impl FnMut(&str)) {
    loop {
        let version = |stream: &_| -> StreamVersion { reader.stream_version(stream).unwrap() };
        match log.append_all(request.appends(version)) {
            Err(AppendError::WrongExpectedVersion(_) | AppendError::Storage(StorageError::Busy { .. })) => {}
            appended => {
                let receipts = appended.unwrap();
                let streams = request.keys().into_iter().map(|(stream, _)| stream);
                tell(&streams.zip(&receipts).map(|(stream, receipt)| line(&stream, receipt)).collect::<String>());
                return;
            }
        }
    }
}

fn project(ledger: &Path) {
    let mut projections = opened_models(ledger);
    let mut follower = LogReader::open(ledger).unwrap().follow(Position::START).unwrap();
    let mut reached = Position::START;
    loop {
        match projections.catch_up() {
            Err(error) if error.is_busy() => {}
            caught_up => reached = caught_up.unwrap(),
        }
        tell("projected\n");
        follower.wait_beyond(reached, Duration::from_millis(20)).unwrap();
    }
}

fn rebuild(ledger: &Path, first: u64) {
    let mut projections = opened_models(ledger);
    for turn in usize::try_from(first).unwrap().. {
        let rebuilt = match turn % (NAMES.len() + 1) {
            0 => projections.rebuild_together(&NAMES, &mut |_| {}).map(drop),
            one => projections.rebuild(NAMES[one - 1], &mut |_| {}).map(drop),
        };
        match rebuilt {
            Err(error) if error.is_busy() => {}
            rebuilt => {
                rebuilt.unwrap();
                tell(&format!("{REBUILT}\n"));
            }
        }
    }
}

/// The read models, once there is a ledger.
fn opened_models(ledger: &Path) -> Projections {
    loop {
        match Projections::open(ledger) {
            Err(ProjectionError::Open(OpenError::Missing { .. })) => std::thread::sleep(Duration::from_millis(1)),
            Err(ProjectionError::Open(OpenError::Storage(StorageError::Busy { .. }))) => {}
            Err(error) if error.is_busy() => {}
            opened => return opened.unwrap(),
        }
    }
}
