//! `status`: head, checkpoints, lag, sizes, versions. It looks, and brings no read model up to date.

use std::path::Path;

use clap::Args;
use runledger_events::Position;
use runledger_projections::{ParkedStream, ProjectionError, Queries, projections_path};
use serde::Serialize;

use crate::exit_code::Exit;
use crate::ledger::LedgerArg;
use crate::modes::{Loose, looser};
use crate::output::Output;
use crate::render;
use crate::spools::Spools;

/// Show head, checkpoints, lag, sizes and versions
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger status
  runledger status --json | jq .head")]
pub(crate) struct Status {}

#[derive(Serialize)]
struct StatusObject {
    path: String,
    log_id: String,
    head: Position,
    streams: u64,
    schema_version: i64,
    program_version: &'static str,
    sizes: Sizes,
    projections_path: String,
    checkpoints: Vec<CheckpointObject>,
    /// Streams that read models leave out.
    parked: Vec<ParkedStream>,
    /// Files and folders that others may look into.
    loose_modes: Vec<Loose>,
}

/// Bytes; none for a file that is not there.
#[derive(Serialize)]
struct Sizes {
    log: Option<u64>,
    log_wal: Option<u64>,
    projections: Option<u64>,
    projections_wal: Option<u64>,
    /// Events of hooks that wait to be taken in.
    spool: Option<u64>,
    /// What no event could be made of.
    spool_rejected: Option<u64>,
}

#[derive(Serialize)]
struct CheckpointObject {
    projection: String,
    position: Option<Position>,
    lag: Option<u64>,
    version: Option<u32>,
    program_version: u32,
    generation: Option<i64>,
}

impl Status {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let path = ledger.path()?;
        let reader = ledger.open_for_reading()?;
        let head = reader.head()?.position;
        let (spooled, rejected) = Spools::of(reader.path()).bytes();
        let projections = projections_path(&path);
        let (checkpoints, parked) = read_models(&path, head)?;
        let status = StatusObject {
            path: path.display().to_string(),
            log_id: reader.log_id().to_string(),
            head,
            streams: reader.streams()?,
            schema_version: reader.schema_version()?,
            program_version: env!("CARGO_PKG_VERSION"),
            sizes: Sizes {
                log: size(&path, ""),
                log_wal: size(&path, "-wal"),
                projections: size(&projections, ""),
                projections_wal: size(&projections, "-wal"),
                spool: Some(spooled).filter(|bytes| *bytes > 0),
                spool_rejected: Some(rejected).filter(|bytes| *bytes > 0),
            },
            projections_path: projections.display().to_string(),
            checkpoints,
            parked,
            loose_modes: looser(reader.path(), &Spools::of(reader.path()).places()),
        };
        if output.is_json() {
            output.json(&status)?;
            return Ok(Exit::Done);
        }
        status.tell(output)?;
        Ok(Exit::Done)
    }
}

fn read_models(ledger: &Path, head: Position) -> anyhow::Result<(Vec<CheckpointObject>, Vec<ParkedStream>)> {
    let (found, parked) = match Queries::open(ledger) {
        Ok(queries) => (queries.status()?, queries.parked()?),
        // Not built yet, which is no fault.
        Err(ProjectionError::NotBuilt { .. }) => Default::default(),
        Err(error) => return Err(error.into()),
    };
    let checkpoints = found
        .into_iter()
        .map(|found| CheckpointObject {
            lag: found.position.map(|position| head.0.saturating_sub(position.0)),
            projection: found.projection,
            position: found.position,
            version: found.version,
            program_version: found.program_version,
            generation: found.generation,
        })
        .collect();
    Ok((checkpoints, parked))
}

fn size(path: &Path, suffix: &str) -> Option<u64> {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    std::fs::metadata(Path::new(&name)).ok().map(|metadata| metadata.len())
}

impl StatusObject {
    fn tell(&self, output: &mut Output) -> anyhow::Result<()> {
        let bytes = |size: Option<u64>| size.map_or_else(|| "–".to_owned(), render::bytes);
        let facts = [
            ("ledger", format!("{} (log {})", self.path, self.log_id)),
            ("head", format!("{} events in {} streams", render::count(self.head.0), render::count(self.streams))),
            ("size", format!("{}, and {} to be checkpointed", bytes(self.sizes.log), bytes(self.sizes.log_wal))),
            ("read models", format!("{} in {}", bytes(self.sizes.projections), self.projections_path)),
            ("versions", format!("schema {}, program {}", self.schema_version, self.program_version)),
        ];
        for (name, value) in facts {
            output.line(&format!("{name:<12}  {}", render::plain(&value)))?;
        }
        if self.sizes.spool.or(self.sizes.spool_rejected).is_some() {
            let (waiting, rejected) = (bytes(self.sizes.spool), bytes(self.sizes.spool_rejected));
            output.line(&format!("{:<12}  {waiting} wait to be taken in, {rejected} rejected", "spool"))?;
        }
        for Loose { path, mode, wanted } in &self.loose_modes {
            let told = render::plain(&format!("{path} has {mode}, others may look into it; {wanted} would do"));
            output.line(&format!("{:<12}  {told}", "mode"))?;
        }
        output.line("")?;
        if self.checkpoints.is_empty() {
            return output.line("no read models yet; any command that reads builds them");
        }
        let mut table =
            render::table(&["READ MODEL", "POSITION", "LAG", "VERSION", "GENERATION"], output.is_terminal());
        let or_dash = |figure: Option<u64>| figure.map_or_else(|| "–".to_owned(), render::count);
        for checkpoint in &self.checkpoints {
            table.add_row([
                checkpoint.projection.clone(),
                or_dash(checkpoint.position.map(|position| position.0)),
                or_dash(checkpoint.lag),
                checkpoint.version.map_or_else(|| "not built".to_owned(), |version| version.to_string()),
                checkpoint.generation.map_or_else(|| "–".to_owned(), |generation| generation.to_string()),
            ]);
        }
        render::lines(&table, output.is_terminal()).iter().try_for_each(|line| output.line(line))?;
        for parked in &self.parked {
            let ParkedStream { projection, stream, position, cause } = parked;
            output.line(&render::plain(&format!(
                "PARKED  {projection} leaves {stream} out from position {position} on, which cannot be read: {cause}"
            )))?;
        }
        if !self.parked.is_empty() {
            output.line("`verify` tells more; a program that can read it takes the stream up again by itself")?;
        }
        Ok(())
    }
}
