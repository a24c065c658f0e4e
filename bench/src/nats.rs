//! The log on NATS JetStream: one server and three, synced and not, beside the log in a file; and what a new machine takes to copy it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use runledger_store::{OpenOptions, SqliteLog};
use runledger_store_jetstream::{Address, JetStreamLog, Options};
use runledger_testkit::{NatsServers, nats_server, new_address};

use crate::Context;
use crate::append::{Appended, append_to};
use crate::figure::{Figure, Floor};
use crate::table::Table;

/// Events in one append, where several are.
const BATCH: u64 = 100;
/// Who append at once, each one event at a time.
const IN_FLIGHT: u64 = 256;

pub(crate) fn run(context: &Context, table: &mut Table) -> anyhow::Result<()> {
    if nats_server().is_none() {
        table.leave_out("the log on NATS", "there is no nats-server: RUNLEDGER_NATS_SERVER names one");
        return Ok(());
    }
    let sizes = context.sizes;
    let (lone, many, batched) = (sizes.lone, sizes.per_writer / 4 * IN_FLIGHT, sizes.batched / 3);
    for _ in 0..context.repetitions {
        let folder = tempfile::tempdir_in(&context.dir)?;
        let local = |name: &str| SqliteLog::open_with(folder.path().join(name), &OpenOptions::default());
        let of_file: [Appended; 3] = [
            append_to(&local("lone")?, 1, lone, 1)?,
            append_to(&local("many")?, IN_FLIGHT, many, 1)?,
            append_to(&local("batched")?, 1, batched, BATCH)?,
        ];
        for (replicas, is_synced) in [(1, false), (1, true), (3, false), (3, true)] {
            let servers = NatsServers::start(replicas, is_synced).context("nats-server")?;
            let address: Address = new_address(&servers, replicas).parse()?;
            let sync = if is_synced { "sync_interval: always" } else { "synced every 2 min" };
            let kind = format!("R{replicas}{}", if is_synced { " synced" } else { "" });
            for (index, (name, writers, count, batch)) in [
                ("one in flight", 1, lone, 1),
                ("256 in flight", IN_FLIGHT, many, 1),
                ("batches of 100", 1, batched, BATCH),
            ]
            .into_iter()
            .enumerate()
            {
                let log = JetStreamLog::open(&address, &folder.path().join(&kind), &Options::default())?;
                let done = append_to(&log, writers, count, batch)?;
                let settings = format!("{sync}, {count} events");
                let figure = Figure::new(format!("NATS {kind}, {name}"), "events/s", settings.clone());
                table.add(
                    figure.against("log in a file", Floor::None),
                    done.per_second,
                    Some(of_file[index].per_second),
                );
                let figure = Figure::new(format!("NATS {kind}, {name}: p99"), "ms", settings);
                table.add(figure, done.p99_us / 1000.0, None);
            }
            if replicas == 3 && is_synced {
                let began = Instant::now();
                let fresh = JetStreamLog::open(&address, &folder.path().join("fresh"), &Options::default())?;
                let head = fresh.catch_up(Duration::from_secs(600))?;
                let per_second = head.0 as f64 / began.elapsed().as_secs_f64();
                let figure = Figure::new("a new machine copies the log", "events/s", format!("R3, {} events", head.0));
                table.add(figure, per_second, None);
            }
        }
    }
    Ok(())
}
