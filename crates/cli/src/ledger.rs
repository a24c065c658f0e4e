//! Where the ledger is, and how commands open it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use runledger_events::RunId;
use runledger_projections::{Iteration, ParkedStream, Projections, Queries, Run, RunMatch};
use runledger_store::{EventLog, LogReader, SqliteLog};

use crate::exit_code::{No, Usage};
use crate::output::message;
use crate::render;
use crate::spools::Spools;

/// The ledger that the command line, the environment or the default names.
pub(crate) struct LedgerArg(Option<PathBuf>);

impl LedgerArg {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self(path.filter(|path| !path.as_os_str().is_empty()))
    }

    /// Its path.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.0 {
            return Ok(path.clone());
        }
        user_folder("XDG_STATE_HOME", ".local/state")
            .map(|folder| folder.join("runledger/ledger.db"))
            .ok_or_else(|| Usage("neither HOME nor XDG_STATE_HOME is set: name the ledger with --db".to_owned()).into())
    }

    /// Its path where the command line or the environment names it.
    pub(crate) fn named(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// The log, for writing; made where it is missing. What hooks have spooled is in it.
    pub(crate) fn open_for_writing(&self) -> anyhow::Result<Arc<dyn EventLog>> {
        Ok(Arc::new(self.open_sqlite_for_writing()?))
    }

    /// The same, for what SQLite alone can do.
    pub(crate) fn open_sqlite_for_writing(&self) -> anyhow::Result<SqliteLog> {
        let log = SqliteLog::open(self.path()?)?;
        Spools::of(log.path()).take_in_all(&log);
        Ok(log)
    }

    /// The log, for reading; it has to be there. What hooks have spooled is in it.
    pub(crate) fn open_for_reading(&self) -> anyhow::Result<LogReader> {
        Ok(LogReader::open(self.path_to_read()?)?)
    }

    /// The read models, for rebuilding and verifying; the ledger has to be there.
    pub(crate) fn projections(&self) -> anyhow::Result<Projections> {
        Ok(Projections::open(self.path_to_read()?)?)
    }

    /// Its path, when what hooks have spooled was taken in as far as it can be.
    fn path_to_read(&self) -> anyhow::Result<PathBuf> {
        let path = std::path::absolute(self.path()?)?;
        Spools::of(&path).take_in_before_reading();
        Ok(path)
    }

    /// The read models, brought to the log's head, without a word on what they leave out.
    pub(crate) fn queries_quietly(&self) -> anyhow::Result<Queries> {
        let mut projections = self.projections()?;
        projections.catch_up().context("bringing the read models up to date")?;
        Ok(Queries::open(self.path()?)?)
    }

    /// The read models, brought to the log's head; says what they leave out.
    pub(crate) fn queries(&self) -> anyhow::Result<Queries> {
        let queries = self.queries_quietly()?;
        let parked = queries.parked()?;
        if let Some(first) = parked.first() {
            let ParkedStream { stream, position, .. } = first;
            message(&render::plain(&format!(
                "something is missing here: {stream} cannot be read from position {position} on; see `runledger status`"
            )));
        }
        Ok(queries)
    }
}

/// The folder that a variable of the XDG specification names, else the one of that name at home.
pub(crate) fn user_folder(variable: &str, at_home: &str) -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path(variable).filter(|folder| folder.is_absolute()).or_else(|| path("HOME").map(|home| home.join(at_home)))
}

/// The one run that a prefix fits, with its iterations.
pub(crate) fn one_run(queries: &Queries, prefix: &str) -> anyhow::Result<(Run, Vec<Iteration>)> {
    if prefix.is_empty() {
        // It begins every id: what a script has left empty names no run.
        return Err(Usage("the run's id is empty; `runledger runs` lists them".to_owned()).into());
    }
    match queries.run(prefix)? {
        RunMatch::One(run, iterations) => Ok((*run, iterations)),
        RunMatch::None => Err(No(format!("there is no run {prefix}; `runledger runs` lists them")).into()),
        RunMatch::Several(ids) => {
            let shown: Vec<&str> = ids.iter().take(5).map(RunId::as_str).collect();
            let more = if ids.len() > shown.len() { ", …" } else { "" };
            Err(Usage(format!("{prefix} fits {} runs: {}{more}", ids.len(), shown.join(", "))).into())
        }
    }
}
