//! `status`: head, checkpoints, lag, sizes, versions. It looks, and brings no read model up to date.

use std::path::Path;

use clap::Args;
use runledger_projections::{ParkedStream, ProjectionError, Queries};
use runledger_store_jetstream::StreamState;
use runledger_web::objects::{Aside, LooseMode, Status as StatusObject};

use serde::Serialize;

use crate::exit_code::Exit;
use crate::ledger::LedgerArg;
use crate::modes::looser;
use crate::output::Output;
use crate::render;
use crate::spools::Spools;

/// Show head, checkpoints, lag, sizes and versions
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger status
  runledger status --json | jq .head")]
pub(crate) struct Status {}

impl Status {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let path = ledger.path()?;
        let reader = ledger.open_for_reading()?;
        let (models, parked) = match Queries::open(&path) {
            Ok(queries) => (queries.status()?, queries.parked()?),
            // Not built yet, which is no fault.
            Err(ProjectionError::NotBuilt { .. }) => Default::default(),
            Err(error) => return Err(error.into()),
        };
        let status = StatusObject::look(&path, &reader, models, parked, aside(reader.path()))?;
        let stream = ledger.stream_state()?;
        if output.is_json() {
            let stream = stream.and_then(Result::ok);
            output.json(&WithStream { status, stream })?;
            return Ok(Exit::Done);
        }
        // Where the servers do not answer, that was said already.
        if let Some(Ok(state)) = stream {
            tell_stream(&state, output)?;
        }
        tell(&status, output)?;
        Ok(Exit::Done)
    }
}

/// How the ledger stands, and its stream where it is on NATS.
#[derive(Serialize)]
struct WithStream {
    #[serde(flatten)]
    status: StatusObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<StreamState>,
}

fn tell_stream(state: &StreamState, output: &mut Output) -> anyhow::Result<()> {
    let StreamState { address, server_version, replicas, current, messages, bytes, .. } = state;
    let facts = [
        ("log", format!("{address}, on NATS {server_version}")),
        (
            "replicas",
            format!("{current} of {replicas} current, led by {}", state.leader.as_deref().unwrap_or("one server")),
        ),
        ("stream", format!("{} events, {} on each server", render::count(*messages), render::bytes(*bytes))),
    ];
    facts.iter().try_for_each(|(name, value)| output.line(&format!("{name:<12}  {}", render::plain(value))))
}

/// What stands beside the ledger at an absolute path.
pub(crate) fn aside(ledger: &Path) -> Aside {
    let spools = Spools::of(ledger);
    let (spool, spool_rejected) = spools.bytes();
    Aside { spool, spool_rejected, loose_modes: looser(ledger, &spools.places()) }
}

fn tell(status: &StatusObject, output: &mut Output) -> anyhow::Result<()> {
    let bytes = |size: Option<u64>| size.map_or_else(|| "–".to_owned(), render::bytes);
    let facts = [
        ("ledger", format!("{} (log {})", status.path, status.log_id)),
        ("head", format!("{} events in {} streams", render::count(status.head.0), render::count(status.streams))),
        ("size", format!("{}, and {} to be checkpointed", bytes(status.sizes.log), bytes(status.sizes.log_wal))),
        ("read models", format!("{} in {}", bytes(status.sizes.projections), status.projections_path)),
        ("versions", format!("schema {}, program {}", status.schema_version, status.program_version)),
    ];
    for (name, value) in facts {
        output.line(&format!("{name:<12}  {}", render::plain(&value)))?;
    }
    if status.sizes.spool.or(status.sizes.spool_rejected).is_some() {
        let (waiting, rejected) = (bytes(status.sizes.spool), bytes(status.sizes.spool_rejected));
        output.line(&format!("{:<12}  {waiting} wait to be taken in, {rejected} rejected", "spool"))?;
    }
    for LooseMode { path, mode, wanted } in &status.loose_modes {
        let told = render::plain(&format!("{path} has {mode}, others may look into it; {wanted} would do"));
        output.line(&format!("{:<12}  {told}", "mode"))?;
    }
    output.line("")?;
    if status.checkpoints.is_empty() {
        return output.line("no read models yet; any command that reads builds them");
    }
    let mut table = render::table(&["READ MODEL", "POSITION", "LAG", "VERSION", "GENERATION"], output.is_terminal());
    let or_dash = |figure: Option<u64>| figure.map_or_else(|| "–".to_owned(), render::count);
    for checkpoint in &status.checkpoints {
        table.add_row([
            checkpoint.projection.clone(),
            or_dash(checkpoint.position.map(|position| position.0)),
            or_dash(checkpoint.lag),
            checkpoint.version.map_or_else(|| "not built".to_owned(), |version| version.to_string()),
            checkpoint.generation.map_or_else(|| "–".to_owned(), |generation| generation.to_string()),
        ]);
    }
    render::lines(&table, output.is_terminal()).iter().try_for_each(|line| output.line(line))?;
    for parked in &status.parked {
        let ParkedStream { projection, stream, position, cause } = parked;
        output.line(&render::plain(&format!(
            "PARKED  {projection} leaves {stream} out from position {position} on, which cannot be read: {cause}"
        )))?;
    }
    if !status.parked.is_empty() {
        output.line("`verify` tells more; a program that can read it takes the stream up again by itself")?;
    }
    Ok(())
}
