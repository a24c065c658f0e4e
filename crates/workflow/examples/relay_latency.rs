//! How long after a decision's commit whoever waits for it has it: `cargo run --release -p runledger-workflow --example
//! relay_latency`. The decision comes over a connection of its own, as from another process.
#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use runledger_events::{EventId, RequestId, SessionId};
use runledger_store::SqliteLog;
use runledger_workflow::{Ask, Commands, RelayCoordinator, RelayVerdict};

const ROUNDS: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("runledger-relay-latency-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("ledger.db");
    let waiting = Commands::open(Arc::new(SqliteLog::open(&path)?))?;
    let deciding = Commands::open(Arc::new(SqliteLog::open(&path)?))?;
    let mut asks = Vec::new();
    for round in 0..ROUNDS {
        let session = SessionId::new("s1")?;
        let id = RequestId::new(format!("a1:toolu_{round}"))?;
        let ask = Ask::new(id, EventId::new(format!("e{round}"))?, session, "Bash", r#"{"command":"ls"}"#);
        waiting.ask(&ask)?;
        asks.push(ask.request_id);
    }
    let (sender, committed) = crossbeam_channel::bounded(1);
    let ids = asks.clone();
    let decider = std::thread::spawn(move || {
        for id in &ids {
            // Long enough for the wait to have begun, and no multiple of its step.
            std::thread::sleep(Duration::from_millis(37));
            if deciding.decide(id, &RelayVerdict::allow()).is_err() || sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let coordinator = RelayCoordinator::new(waiting);
    let mut lags = Vec::new();
    for id in &asks {
        let relayed = coordinator.wait(id, || false)?;
        let seen = Instant::now();
        lags.push(seen.saturating_duration_since(committed.recv()?));
        drop(relayed);
    }
    let _ = decider.join();
    lags.sort();
    println!(
        "{ROUNDS} decisions; p50 {:?}, p99 {:?}, longest {:?}",
        lags[ROUNDS / 2],
        lags[ROUNDS * 99 / 100],
        lags[ROUNDS - 1]
    );
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
