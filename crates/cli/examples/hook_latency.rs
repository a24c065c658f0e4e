//! How long `runledger hook` takes from its start to its exit, on a warm ledger of many events.
//!
//! `cargo run --release -p runledger-cli --example hook_latency -- [FOLDER [EVENTS [INVOCATIONS]]]`, once
//! `cargo build --release -p runledger-cli` has made the program. FOLDER is kept, and its ledger used again.
#![allow(clippy::print_stdout, reason = "its figures are its output")]

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use runledger_events::{Metadata, RuntimeEvent, SessionId, StreamName};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, StreamAppend};

const SESSIONS: u64 = 1000;
const BATCH: u64 = 5000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(|| std::env::temp_dir().join("runledger-hook-latency"), PathBuf::from);
    let events: u64 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;
    let invocations: usize = arguments.next().map_or(Ok(500), |count| count.parse())?;
    let program = std::env::current_exe()?.with_file_name("").join("../runledger").canonicalize()?;
    let ledger = folder.join("ledger.db");
    fill(&ledger, events)?;

    let payload = payload();
    let measure = |name: &str, command: &dyn Fn() -> Command| -> Result<Duration, Box<dyn Error>> {
        for _ in 0..20 {
            time(command(), &payload)?;
        }
        let mut times = (0..invocations).map(|_| time(command(), &payload)).collect::<Result<Vec<_>, _>>()?;
        times.sort_unstable();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
        println!("{name:<28} p50 {:>9.3?}  p99 {:>9.3?}  max {:>9.3?}", at(50), at(99), at(100));
        Ok(at(99))
    };
    println!("{events} events, {invocations} invocations, a payload of {} bytes", payload.len());
    let start = measure("a process that does nothing", &|| Command::new("true"))?;
    let sync = synced_write(&folder, invocations)?;
    let hook = measure("runledger hook", &|| {
        let mut command = Command::new(&program);
        command.arg("--db").arg(&ledger).arg("hook").env("HOME", &folder);
        command
    })?;
    println!(
        "p99 of the hook: {:.1} times that of a process that does nothing",
        hook.as_secs_f64() / start.as_secs_f64()
    );
    println!("p99 of an 8 KB append and its sync on this disk: {sync:.3?}");
    Ok(())
}

/// The ledger, with as many events in a thousand sessions.
fn fill(ledger: &Path, events: u64) -> Result<(), Box<dyn Error>> {
    let log = EventLog::open(ledger)?;
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
    assert!(output.status.success() && output.stdout.is_empty());
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
