//! How long `runledger hook` takes from its start to its exit, on a warm ledger of many events: where it records, where it
//! looks for rules, where a rule decides; and how soon a hook that waits answers once somebody has decided.
//!
//! `cargo run --release -p runledger-cli --example hook_latency -- [FOLDER [EVENTS [INVOCATIONS]]]`, once
//! `cargo build --release -p runledger-cli` has made the program. FOLDER is kept, and its ledger used again.
#![allow(clippy::print_stdout, reason = "its figures are its output")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use runledger_events::{Metadata, RequestId, RuntimeEvent, SessionId, StreamName, StreamVersion};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, SqliteLog, StreamAppend};
use runledger_workflow::{Commands, RelayVerdict};

const SESSIONS: u64 = 1000;
const BATCH: u64 = 5000;
/// Decisions that a waiting hook is measured by.
const DECISIONS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(|| std::env::temp_dir().join("runledger-hook-latency"), PathBuf::from);
    let events: u64 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let invocations: usize = arguments.next().map_or(Ok(500), |count| count.parse())?;
    let program = std::env::current_exe()?.with_file_name("").join("../runledger").canonicalize()?;
    let ledger = folder.join("ledger.db");
    fill(&ledger, events)?;
    begin_run(&ledger)?;

    let measure = |name: &str, payload: &str, command: &dyn Fn() -> Command| -> Result<Duration, Box<dyn Error>> {
        for _ in 0..20 {
            time(command(), payload)?;
        }
        let times = (0..invocations).map(|_| time(command(), payload)).collect::<Result<Vec<_>, _>>()?;
        Ok(show(name, times))
    };
    let hook = || {
        let mut command = Command::new(&program);
        command.arg("--db").arg(&ledger).arg("hook").env("HOME", &folder).env_remove("RUNLEDGER_RUN_ID");
        command
    };
    let of_run = || {
        let mut command = hook();
        command.env("RUNLEDGER_RUN_ID", RUN).env("RUNLEDGER_SESSION", RUN);
        command
    };
    let payload = payload();
    println!("{events} events, {invocations} invocations, a payload of {} bytes", payload.len());
    let start = measure("a process that does nothing", &payload, &|| Command::new("true"))?;
    let sync = synced_write(&folder, invocations)?;
    let recorded = measure("a hook that records", &payload, &hook)?;
    measure("PreToolUse without a run", &call("t", "make"), &hook)?;
    measure("PreToolUse, no rule is on it", &call("t", "make"), &of_run)?;
    measure("PreToolUse, a rule decides", &call("t", "cargo test"), &of_run)?;
    let waiting = (0..DECISIONS).map(|_| answered_after(&ledger, of_run())).collect::<Result<Vec<_>, _>>()?;
    show("from a decision to its answer", waiting);
    println!(
        "p99 of a hook that records: {:.1} times that of a process that does nothing",
        recorded.as_secs_f64() / start.as_secs_f64()
    );
    println!("p99 of an 8 KB append and its sync on this disk: {sync:.3?}");
    Ok(())
}

/// Prints how long something took, and gives the 99th percentile.
fn show(name: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!("{name:<30} p50 {:>9.3?}  p99 {:>9.3?}  max {:>9.3?}", at(50), at(99), at(100));
    at(99)
}

/// The run that the measured calls belong to, and its session.
const RUN: &str = "measured";

/// A run with twenty rules, whose stream is long and whose last iteration has just begun.
fn begin_run(ledger: &Path) -> Result<(), Box<dyn Error>> {
    let log = SqliteLog::open(ledger)?;
    let stream = StreamName::new(format!("run/{RUN}"))?;
    if log.reader()?.stream_version(&stream)? > StreamVersion::EMPTY {
        return Ok(());
    }
    let other_rules: String =
        (0..18).map(|number| format!(r#"{{"tool":"Bash(tool-{number}:*)","action":"deny"}},"#)).collect();
    let mut data = vec![
        format!(
            r#""workflow.start","data":{{"run_id":"{RUN}","session_id":"{RUN}","max_iterations":1000,"policy":{{"permissions":{{"rules":[{other_rules}{{"tool":"Bash(cargo test:*)","action":"allow"}},{{"tool":"Bash(git push:*)","action":"ask","ask_timeout_ms":null}}]}}}}}}"#
        ),
        r#""workflow.transition","data":{"from":"starting","to":"running","status":"running"}"#.to_owned(),
    ];
    for number in 1..=500 {
        let start = r#""continuation":{"mode":"fresh"}"#;
        data.push(format!(r#""workflow.iteration","data":{{"phase":"start","iteration":{number},{start}}}"#));
        if number < 500 {
            data.push(format!(
                r#""workflow.iteration","data":{{"phase":"end","iteration":{number},"outcome":"continue"}}"#
            ));
        }
    }
    let events = data.iter().enumerate().map(|(number, data)| {
        let json = format!(r#"{{"id":"measured-{number}","timestamp":1,"kind":{data}}}"#);
        Ok(NewEvent::new(RuntimeEvent::from_json(&json)?, Metadata { run_id: stream.run_id(), ..Metadata::default() })?)
    });
    let events = events.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    log.append(&stream, ExpectedVersion::NoStream, events)?;
    Ok(())
}

/// A call as Claude Code tells it before.
fn call(tool_use_id: &str, command: &str) -> String {
    format!(
        r#"{{"session_id":"session-0042","transcript_path":"/home/dev/t.jsonl","cwd":"/home/dev","prompt_id":"p1","permission_mode":"default","hook_event_name":"PreToolUse","tool_name":"Bash","tool_input":{{"command":"{command}"}},"tool_use_id":"{tool_use_id}"}}"#
    )
}

/// From the return of a decision's append to the line of the hook that waited for it.
fn answered_after(ledger: &Path, mut command: Command) -> Result<Duration, Box<dyn Error>> {
    let name = uuid::Uuid::now_v7().to_string();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take().ok_or("no standard input")?;
    { stdin }.write_all(call(&name, &format!("git push {name}")).as_bytes())?;
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().ok_or("no standard output")?);
    let commands = Commands::open(Arc::new(SqliteLog::open(ledger)?))?;
    let id = RequestId::new(format!("session-0042:{name}"))?;
    while commands.relay_state(&id)?.is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Then it waits, and has waited for a while.
    std::thread::sleep(Duration::from_millis(30));
    commands.decide(&id, &RelayVerdict::allow())?;
    let decided = Instant::now();
    stdout.read_line(&mut line)?;
    let time = decided.elapsed();
    child.wait()?;
    if line.contains(r#""permissionDecision":"allow""#) { Ok(time) } else { Err(format!("answered {line:?}").into()) }
}

/// The ledger, with as many events in a thousand sessions.
fn fill(ledger: &Path, events: u64) -> Result<(), Box<dyn Error>> {
    let log = SqliteLog::open(ledger)?;
    let mut there = log.reader()?.head()?.position.0;
    while there < events {
        let upto = (there + BATCH).min(events);
        log.append_all((there..upto).map(event).collect::<Result<Vec<_>, _>>()?)?;
        there = upto;
    }
    Ok(())
}

fn event(number: u64) -> Result<StreamAppend, Box<dyn Error>> {
    let session = SessionId::new(format!("session-{:04}", number * 7919 % SESSIONS))?;
    let json = format!(
        r#"{{"id":"hook:{}","kind":"tool.pre","sessionId":"{session}","data":{{"tool_name":"Bash","tool_use_id":"toolu_{number}","tool_input":{{"command":"echo {}"}}}}}}"#,
        uuid::Uuid::now_v7(),
        "x".repeat(400)
    );
    let metadata = Metadata { session_id: Some(session.clone()), ..Metadata::default() };
    let event = NewEvent::new(RuntimeEvent::from_json(&json)?, metadata)?;
    Ok(StreamAppend { stream: StreamName::session(&session), expected: ExpectedVersion::Any, events: vec![event] })
}

fn payload() -> String {
    let response = "a line of output\\n".repeat(60);
    format!(
        r#"{{"session_id":"session-0042","transcript_path":"/home/dev/t.jsonl","cwd":"/home/dev","prompt_id":"p1","permission_mode":"default","hook_event_name":"PostToolUse","tool_name":"Bash","tool_input":{{"command":"make"}},"tool_response":{{"stdout":"{response}","stderr":"","interrupted":false}},"tool_use_id":"toolu_01","duration_ms":12}}"#
    )
}

/// From just before the start of a process to its end.
fn time(mut command: Command, payload: &str) -> Result<Duration, Box<dyn Error>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let began = Instant::now();
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A process that does nothing does not read it either.
        let _ = stdin.write_all(payload.as_bytes());
    }
    let output = child.wait_with_output()?;
    let time = began.elapsed();
    assert!(output.status.success() && output.stderr.is_empty());
    Ok(time)
}

/// The 99th percentile of what the disk alone takes.
fn synced_write(folder: &Path, times: usize) -> Result<Duration, Box<dyn Error>> {
    let path = folder.join("sync-probe");
    let mut file = std::fs::File::create(&path)?;
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        file.write_all(&[0; 8192])?;
        file.sync_data()?;
        taken.push(began.elapsed());
    }
    std::fs::remove_file(&path)?;
    taken.sort_unstable();
    Ok(taken[taken.len() * 99 / 100])
}
