//! `doctor`: everything that can be checked of a ledger and of where it stands, and what to do about what is found.

use std::path::Path;

use clap::Args;
use runledger_events::{RequestStatus, RunStatus};
use runledger_projections::{ParkedStream, Queries, RequestFilter, Run, RunFilter, projections_path};
use runledger_store::LogReader;
use runledger_store_jetstream::{Erasures, JetStreamLog, StreamState};
use runledger_web::checks::check_own_seals;
use runledger_workflow::is_alive;
use serde::Serialize;

use crate::commands::redact::{clear, delete_on, messages};
use crate::commands::verify::check_all;
use crate::exit_code::Exit;
use crate::ledger::LedgerArg;
use crate::modes::looser;
use crate::output::Output;
use crate::render;
use crate::spools::Spools;

/// Check the ledger and where it stands, and say what to do about what is found
///
/// All that `verify` checks, and: who may read the files, what they stand on, how much room there is, what waits to be taken in,
/// what cannot be read, runs and questions that were forgotten, what was erased and is not cleared yet, seals.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger doctor
  runledger doctor --json | jq 'select(.state != \"ok\")'

Exit status: 0 when nothing is wrong, whatever it advises; 1 when something is")]
pub(crate) struct Doctor {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Nothing is wrong, but something should be done.
    Advice,
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    state: State,
    detail: Option<String>,
    /// What to do; none where all is well.
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &str, detail: impl Into<String>) -> Self {
        Self { check: check.to_owned(), state: State::Ok, detail: Some(detail.into()), advice: None }
    }

    fn advice(check: &str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Advice, advice: Some(advice.into()), ..Self::ok(check, detail) }
    }

    fn wrong(check: &str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { state: State::Wrong, ..Self::advice(check, detail, advice) }
    }
}

impl Doctor {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let path = std::path::absolute(ledger.path()?)?;
        let reader = ledger.open_for_reading()?;
        let mut findings = vec![modes(&path), place(&path), room(&path), spool(&path)];
        findings.extend(ledger.stream_state()?.map(servers).unwrap_or_default());
        findings.extend(checks(ledger, &reader)?);
        findings.push(seals(&reader));
        // Read models that have seen what is no longer in the log are the witness of that, and left as they are.
        let is_witness = ledger.projections()?.lost_events()?.is_some();
        if !is_witness {
            findings.push(erased(ledger));
        }
        // Nothing is deleted by what a copy says that was found to be wrong.
        let is_right =
            findings.iter().all(|finding| finding.state != State::Wrong || !finding.check.starts_with("log "));
        if !is_witness && is_right {
            findings.extend(ledger.nats().map(erased_on_servers));
        }
        let queries = if is_witness { Ok(Queries::open(&path)?) } else { ledger.queries_quietly() };
        // What cannot be projected was told just now.
        if let Ok(queries) = queries {
            findings.push(parked(&queries.parked()?));
            findings.push(forgotten_runs(&queries.runs(&RunFilter::default())?));
            let pending = RequestFilter { status: Some(RequestStatus::Pending), ..RequestFilter::default() };
            findings.push(questions(queries.permission_requests(&pending)?.len()));
        }
        for finding in &findings {
            if output.is_json() {
                output.json(finding)?;
            } else {
                tell(finding, output)?;
            }
        }
        let is_wrong = findings.iter().any(|finding| finding.state == State::Wrong);
        Ok(if is_wrong { Exit::No } else { Exit::Done })
    }
}

fn tell(finding: &Finding, output: &mut Output) -> anyhow::Result<()> {
    let mark = match finding.state {
        State::Ok => "ok    ",
        State::Advice => "advice",
        State::Wrong => "WRONG ",
    };
    let detail = finding.detail.as_deref().map(render::plain).unwrap_or_default();
    output.line(format!("{mark}  {:<32}  {detail}", finding.check).trim_end())?;
    if let Some(advice) = &finding.advice {
        output.line(&format!("        → {}", render::plain(advice)))?;
    }
    Ok(())
}

/// What `verify` checks.
fn checks(ledger: &LedgerArg, reader: &LogReader) -> anyhow::Result<Vec<Finding>> {
    let checks = check_all(ledger, reader)?;
    let found = checks.into_iter().map(|check| {
        let advice = if check.check == "projections" {
            "keep a copy of the ledger and its read models as they are: they have seen what is gone; compare with a backup"
        } else if check.check.starts_with("projection") {
            "`runledger rebuild-projections` builds the read models again; nothing is lost with them"
        } else {
            "keep a copy of the ledger with its -wal as it is, compare with a backup (`runledger --db BACKUP verify`), and \
             put that in its place (`runledger restore`)"
        };
        let advice = (!check.ok).then(|| advice.to_owned());
        let state = if check.ok { State::Ok } else { State::Wrong };
        Finding { check: check.check, state, detail: check.detail, advice }
    });
    Ok(found.collect())
}

/// Who may read it.
fn modes(path: &Path) -> Finding {
    let loose = looser(path, &Spools::of(path).places());
    let Some(first) = loose.first() else {
        return Finding::ok("file modes", "yours alone");
    };
    let commands: Vec<String> =
        loose.iter().map(|loose| format!("chmod {} '{}'", loose.wanted, loose.path.replace('\'', r"'\''"))).collect();
    let more = if loose.len() > 1 { format!(", and {} more", loose.len() - 1) } else { String::new() };
    Finding::advice(
        "file modes",
        format!(
            "others may look into {} ({}){more}: prompts, commands and their output stand in it",
            first.path, first.mode
        ),
        commands.join("; "),
    )
}

/// File systems of other hosts, by the numbers that Linux has for them: SQLite's write-ahead log needs shared memory.
#[cfg(target_os = "linux")]
const REMOTE: [(i64, &str); 6] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
];

/// What it stands on.
#[cfg(target_os = "linux")]
fn place(path: &Path) -> Finding {
    let check = "file system";
    let folder = path.parent().unwrap_or(Path::new("/"));
    match rustix::fs::statfs(folder) {
        Err(error) => Finding::advice(check, format!("cannot be asked: {error}"), "look at it by hand: `df -T`"),
        Ok(told) => match REMOTE.iter().find(|(number, _)| *number == told.f_type) {
            None => Finding::ok(check, "of this host"),
            Some((_, name)) => Finding::wrong(
                check,
                format!("the ledger is on {name}, where processes of several hosts would damage it"),
                "move it to a disk of this host; `runledger backup` makes copies for elsewhere",
            ),
        },
    }
}

#[cfg(not(target_os = "linux"))]
fn place(_: &Path) -> Finding {
    Finding::advice("file system", "not looked at on this system", "keep the ledger on a disk of this host")
}

/// The stream of a ledger on NATS, and what of its servers cannot be seen.
fn servers(state: Result<StreamState, String>) -> Vec<Finding> {
    let check = "servers";
    let state = match state {
        Ok(state) => state,
        Err(why) => return vec![Finding::wrong(check, why, "what is read here is this machine's copy")],
    };
    let StreamState { replicas, current, messages, .. } = &state;
    let detail = format!("NATS {}, {current} of {replicas} replicas current", state.server_version);
    let mut findings = vec![match current < replicas {
        true => {
            Finding::wrong(check, detail, "see to the servers that are behind or away: each one more stops all writes")
        }
        false => Finding::ok(check, detail),
    }];
    findings.push(match &state.problems {
        Some(problems) => {
            Finding::wrong("stream settings", problems, "have an administrator set it right: events may be lost")
        }
        None => Finding::ok("stream settings", format!("as a ledger needs them; {} events", render::count(*messages))),
    });
    findings.push(Finding::advice(
        "servers' disks",
        "whether each event is synced before it is acknowledged cannot be seen from here",
        "see that every server has `sync_interval: always`; without it, what was acknowledged in the last two minutes is gone when all of them lose power at once",
    ));
    findings
}

/// Whether both files could be written anew, as erasing and rebuilding do.
#[cfg(unix)]
fn room(path: &Path) -> Finding {
    let size = |path: &Path| std::fs::metadata(path).map(|file| file.len()).unwrap_or_default();
    let needed = size(path) + size(&projections_path(path));
    match rustix::fs::statvfs(path.parent().unwrap_or(Path::new("/"))) {
        Err(error) => Finding::advice("room on the disk", format!("cannot be asked: {error}"), "look by hand: `df`"),
        Ok(told) => {
            let free = told.f_bavail.saturating_mul(told.f_frsize);
            let detail = format!("{} free, {} used", render::bytes(free), render::bytes(needed));
            if free > needed.max(64 << 20) {
                Finding::ok("room on the disk", detail)
            } else {
                let advice = "free some space: a rebuild and `redact` write files anew beside the old ones";
                Finding::advice("room on the disk", detail, advice)
            }
        }
    }
}

#[cfg(not(unix))]
fn room(_: &Path) -> Finding {
    Finding::advice("room on the disk", "not looked at on this system", "look by hand")
}

/// What hooks have left for the next command, which this one was.
fn spool(path: &Path) -> Finding {
    let spools = Spools::of(path);
    let (waiting, rejected) = spools.bytes();
    let folders: Vec<String> = spools.places().iter().map(|folder| folder.display().to_string()).collect();
    if waiting > 0 {
        let detail = format!("{} wait and could not be taken in", render::bytes(waiting));
        return Finding::wrong(
            "spool",
            detail,
            format!("see why: any command says it; they are in {}", folders.join(", ")),
        );
    }
    if rejected > 0 {
        let detail = format!("{} of what hooks gave are no events", render::bytes(rejected));
        return Finding::advice(
            "spool",
            detail,
            format!("look into `rejected` in {}, then remove it", folders.join(", ")),
        );
    }
    Finding::ok("spool", "nothing waits")
}

fn seals(reader: &LogReader) -> Finding {
    if reader.seals().is_ok_and(|seals| seals.is_empty()) {
        return Finding::advice(
            "log seals",
            "the log was never sealed: a tail that is cut off would not be noticed",
            "`runledger seal --init`, then `runledger seal --json`, whose line is kept elsewhere",
        );
    }
    let check = check_own_seals(reader, &[]);
    let detail = check.detail.unwrap_or_default();
    if check.ok {
        Finding::ok("log seals", detail)
    } else {
        Finding::wrong(
            "log seals",
            detail,
            "the log was changed, at that position or before it: compare it with a backup",
        )
    }
}

/// Has the servers delete what was erased, where that is left, and looks for what is gone without a word.
fn erased_on_servers(log: &JetStreamLog) -> Finding {
    let check = "erased on the servers";
    let deleted = delete_on(log);
    let (left, untold) = match log.erasures() {
        Ok(Erasures { left, untold }) => (left, untold),
        Err(error) => return Finding::wrong(check, error.to_string(), "try again when the servers answer"),
    };
    if let Some((first, _)) = left.first() {
        let why = deleted.map_or_else(|error| format!(" ({error})"), |()| String::new());
        return Finding::wrong(
            check,
            format!("still there: {}{why}", messages(left.len())),
            format!(
                "`runledger doctor` as a user who may delete (NATS_USER), or `nats stream rmm NAME {first}` and so on"
            ),
        );
    }
    match untold.first() {
        None => Finding::ok(check, "nothing is left that was erased, and nothing is gone that was not"),
        Some(first) => Finding::wrong(
            check,
            format!(
                "gone without a word: {}, the first at position {first}; no new copy gets past that",
                messages(untold.len())
            ),
            format!(
                "`runledger redact --event {first} --reason WHY` where a copy has it tells of it, and new copies go on"
            ),
        ),
    }
}

/// Clears what is left of what was erased, where that was interrupted.
fn erased(ledger: &LedgerArg) -> Finding {
    let check = "erased texts";
    let advice =
        "end what reads the ledger all the while, see that there is room, then `runledger doctor` again clears it";
    match clear(ledger) {
        Ok(true) => Finding::ok(check, "nothing of them is left in the ledger's files"),
        Ok(false) => Finding::wrong(check, "the ledger's files may still have some", advice),
        Err(error) => Finding::wrong(check, render::chain(&error), advice),
    }
}

fn parked(parked: &[ParkedStream]) -> Finding {
    let Some(ParkedStream { stream, position, cause, .. }) = parked.first() else {
        return Finding::ok("unreadable events", "none");
    };
    let more =
        if parked.len() > 1 { format!("; {} read models and streams in all", parked.len()) } else { String::new() };
    Finding::wrong(
        "unreadable events",
        format!("{stream} cannot be read from position {position} on: {cause}{more}"),
        "upgrade this program if a newer one wrote it; else the event was damaged: compare with a backup",
    )
}

fn forgotten_runs(runs: &[Run]) -> Finding {
    let is_open = |run: &&Run| run.status == RunStatus::Running;
    let is_lost = |run: &&Run| run.owner.as_ref().and_then(is_alive) == Some(false);
    let lost: Vec<&str> = runs.iter().filter(is_open).filter(is_lost).map(|run| run.id.as_str()).collect();
    match lost.first() {
        None => Finding::ok("runs", "each that runs has its owner"),
        Some(first) => {
            let detail = format!("{} lost their owner; the first is {first}", lost.len());
            Finding::advice("runs", detail, "`runledger sweep` says so in the log, `runledger resume RUN` goes on")
        }
    }
}

fn questions(pending: usize) -> Finding {
    match pending {
        0 => Finding::ok("questions", "none waits"),
        count => Finding::advice("questions", format!("{count} wait for an answer"), "`runledger pending` lists them"),
    }
}
