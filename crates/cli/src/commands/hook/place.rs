//! Where a hook's ledger is, and how a hook opens it: within the time that a client has for its hooks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runledger_store::{EventLog, OpenError, OpenOptions, SqliteLog};
use runledger_store_jetstream::{JetStreamError, JetStreamLog, Options};

use crate::ledger::{Engine, LedgerArg, nats_options};

/// How long the ledger's write lock is waited for: hooks at a session's end have 1.5 s in all.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Each hook is, as a rule, the only process that has the ledger open, so it reads the whole write-ahead log: 2000 pages
/// take about 3 ms. Writing them into the file takes longer, and comes with about one hook in 260.
const WAL_PAGES: u32 = 2000;
/// How long servers have to let a hook in, and to take what it appends, all in all. What they do not take is spooled.
const CONNECT: Duration = Duration::from_millis(250);
const WITHIN: Duration = Duration::from_millis(1000);
/// How long they have to take a question.
const ASK_PATIENCE: Duration = Duration::from_secs(2);

/// Where a hook's ledger is.
pub(crate) struct Place {
    engine: Engine,
    /// The absolute path of the file that it is read from; its spools stand beside it.
    pub(crate) path: PathBuf,
}

/// A hook's ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFault {
    #[error(transparent)]
    File(#[from] OpenError),
    #[error(transparent)]
    Nats(#[from] JetStreamError),
}

impl Place {
    pub(crate) fn of(ledger: &LedgerArg) -> anyhow::Result<Self> {
        let engine = ledger.engine()?;
        let path = std::path::absolute(engine.path())?;
        Ok(Self { engine, path })
    }

    /// Whether the file is the log itself.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.engine, Engine::File(_))
    }

    /// Opens the log, for a moment.
    pub(crate) fn open(&self, create: bool) -> Result<Arc<dyn EventLog>, OpenFault> {
        let options =
            OpenOptions { busy_timeout: BUSY_TIMEOUT, create, wal_pages: WAL_PAGES, ..OpenOptions::default() };
        // Where there is a copy there was a log, and a new one in its place would split the story in two.
        let create = create && !self.path.exists();
        self.open_with(&options, &Options { within: Some(WITHIN), ..nats_options(create, CONNECT) })
    }

    /// Opens the log for as long as somebody is asked; it has to be there.
    pub(crate) fn open_to_ask(&self) -> Result<Arc<dyn EventLog>, OpenFault> {
        let options = OpenOptions { create: false, ..OpenOptions::default() };
        self.open_with(
            &options,
            &Options { open: ASK_PATIENCE, patience: ASK_PATIENCE, ..nats_options(false, CONNECT) },
        )
    }

    fn open_with(&self, options: &OpenOptions, nats: &Options) -> Result<Arc<dyn EventLog>, OpenFault> {
        Ok(match &self.engine {
            Engine::File(_) => Arc::new(SqliteLog::open_with(&self.path, options)?),
            Engine::Nats { address, folder } => Arc::new(JetStreamLog::open(address, folder, nats)?),
        })
    }
}
