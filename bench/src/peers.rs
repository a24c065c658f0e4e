//! The peers, each in a process of its own: the same work, with the same events, in the same run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use runledger_store::OpenOptions;
use serde_json::Value;

use crate::Context;
use crate::append::append;
use crate::figure::{Figure, Floor};
use crate::follow;
use crate::table::Table;

/// A peer's program, and the sync mode that it is asked for.
struct Peer {
    name: &'static str,
    program: PathBuf,
    sync: &'static str,
    /// Floors against it: one at a time; 8 and 64 writers; batches of 100.
    floors: [Floor; 4],
}

impl Peer {
    /// The peers whose programs are there; who is missing is told.
    fn found(programs: &Path) -> Vec<Self> {
        let at = |floors: [f64; 4]| floors.map(Floor::Ratio);
        let peers = [
            ("eventsdb FULL", "peer-eventsdb-full", "full", at([1.2, 4.0, 20.0, 2.5])),
            ("cqrs-es FULL", "peer-cqrs-es", "full", [Floor::Ratio(2.5), Floor::None, Floor::None, Floor::Ratio(5.0)]),
        ];
        let peers = peers.into_iter().map(|(name, program, sync, floors)| Self {
            name,
            program: programs.join(program),
            sync,
            floors,
        });
        peers
            .filter(|peer| {
                let is_there = peer.program.exists();
                if !is_there {
                    eprintln!("  skipped: {} is not there", peer.program.display());
                }
                is_there
            })
            .collect()
    }

    /// Has it do its work in an empty folder; what it says of it.
    fn run(&self, work: &str, context: &Context, events: &Path, arguments: &[(&str, u64)]) -> anyhow::Result<Value> {
        let folder = tempfile::tempdir_in(&context.dir)?;
        let mut command = Command::new(&self.program);
        command.arg(work).arg("--dir").arg(folder.path()).arg("--events").arg(events).args(["--sync", self.sync]);
        for (name, value) in arguments {
            command.arg(name).arg(value.to_string());
        }
        let output = command.output().with_context(|| self.program.display().to_string())?;
        anyhow::ensure!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn per_second(told: &Value) -> anyhow::Result<f64> {
    Ok(told["events"].as_f64().context("events")? / told["seconds"].as_f64().context("seconds")?)
}

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    let Some(programs) = &context.peers else {
        eprintln!("  skipped: no --peers");
        return Ok(());
    };
    let peers = Peer::found(programs);
    let folder = tempfile::tempdir_in(&context.dir)?;
    let events = folder.path().join("events.jsonl");
    // Kind and data alone: ids and times are the peers' own.
    let lines = (0..10_000).map(|number| {
        let event: Value = serde_json::from_str(&crate::events::json(number))?;
        Ok(serde_json::json!({ "kind": event["kind"], "data": event["data"] }).to_string())
    });
    let lines: Vec<String> = lines.collect::<Result<_, serde_json::Error>>()?;
    std::fs::write(&events, lines.join("\n"))?;
    let sizes = context.sizes;
    let works = [
        ("one at a time", 1, 1, sizes.lone),
        ("8 writers", 8, 1, sizes.per_writer * 8),
        ("64 writers", 64, 1, sizes.per_writer * 64),
        ("batches of 100", 1, 100, sizes.batched),
    ];
    for _ in 0..context.repetitions {
        for (index, (name, writers, batch, count)) in works.into_iter().enumerate() {
            for peer in &peers {
                let arguments = [("--count", count), ("--writers", writers), ("--batch", batch)];
                let theirs = peer.run("append", context, &events, &arguments)?;
                let ours = tempfile::tempdir_in(&context.dir)?;
                let path = ours.path().join("ledger.db");
                let appended = append(&path, &OpenOptions::default(), writers, count, batch)?;
                let settings = format!("FULL, {count} events; {} {}", peer.name, theirs["version"]);
                let figure = Figure::new(format!("{}, {name}", peer.name), "events/s", settings.clone());
                table.add(figure, per_second(&theirs)?, None);
                let figure =
                    Figure::new(format!("runledger beside {}, {name}", peer.name), "events/s", settings.clone());
                let figure = figure.against("the peer", peer.floors[index]);
                table.add(figure, appended.per_second, Some(per_second(&theirs)?));
                if batch > 1 {
                    crate::events::checkpoint(&path)?;
                    let ours = std::fs::metadata(&path)?.len() as f64 / count as f64;
                    let theirs = theirs["bytes"].as_f64().context("bytes")? / count as f64;
                    let figure =
                        Figure::new(format!("runledger beside {}, a log's size", peer.name), "bytes/event", settings);
                    table.add(figure.against("the peer", Floor::None), ours, Some(theirs));
                }
            }
        }
        for peer in peers.iter().filter(|peer| peer.name.starts_with("eventsdb")) {
            let arguments = [("--count", sizes.followed), ("--rate", follow::RATE)];
            let theirs = peer.run("lag", context, &events, &arguments)?;
            let ours = follow::at_rate(&context.dir, sizes.followed, true)?;
            let settings = format!("FULL, {} events at {}/s", sizes.followed, follow::RATE);
            let p50 = theirs["p50_us"].as_f64().context("p50_us")? / 1e3;
            table.add(Figure::new(format!("{}, lag p50", peer.name), "ms", settings.clone()), p50, None);
            let figure = Figure::new(format!("runledger beside {}, lag p50", peer.name), "ms", settings);
            table.add(figure.against("the peer", Floor::RatioAtMost(0.4)), ours.p50_ms, Some(p50));
        }
    }
    Ok(())
}
