//! A ledger in a temporary folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runledger_events::{Metadata, RuntimeEvent, StreamName};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, Receipt, SqliteLog};
use runledger_store_jetstream::{JetStreamLog, Options};
use tempfile::TempDir;

use crate::nats::{new_address, shared_nats};

/// Opens the log of another process's [`TempLedger::place`].
pub fn open_log(place: &str) -> Arc<dyn EventLog> {
    let (folder, address) = place.split_once('\n').expect("a place");
    open(Some(address).filter(|address| !address.is_empty()), Path::new(folder))
}

fn open(address: Option<&str>, folder: &Path) -> Arc<dyn EventLog> {
    match address {
        Some(address) => {
            let address = address.parse().expect("an address");
            let log = JetStreamLog::open(&address, folder, &Options::default());
            Arc::new(log.expect("a ledger on NATS"))
        }
        None => Arc::new(SqliteLog::open(folder.join("ledger.db")).expect("a ledger")),
    }
}

/// The address of a new ledger on the servers that all tests of this process share, where tests want theirs there.
pub fn engine_address() -> Option<String> {
    let is_wanted = std::env::var_os("RUNLEDGER_TEST_ENGINE").is_some_and(|engine| engine == "nats");
    is_wanted.then(shared_nats).flatten().map(|servers| new_address(servers, 1))
}

/// A ledger that goes with its folder.
#[derive(Debug)]
pub struct TempLedger {
    /// The folder.
    pub folder: TempDir,
    /// The ledger's file.
    pub path: PathBuf,
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// Its address, where that is none of SQLite's.
    address: Option<String>,
}

impl Default for TempLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl TempLedger {
    /// A new, empty ledger: in SQLite, or on JetStream where `RUNLEDGER_TEST_ENGINE` is `nats`.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ledger.db");
        let address = engine_address();
        let log = open(address.as_deref(), folder.path());
        Self { folder, path, log, address }
    }

    /// What another process opens it by, with [`open_log`].
    pub fn place(&self) -> String {
        format!("{}\n{}", self.folder.path().display(), self.address.as_deref().unwrap_or_default())
    }

    /// Appends one event, whatever the stream's version; session and run follow from the stream's name.
    pub fn append(&self, stream: &str, json: &str) -> Receipt {
        let stream = StreamName::new(stream).expect("a stream name");
        let metadata = Metadata { session_id: stream.session_id(), run_id: stream.run_id(), ..Metadata::default() };
        let event = NewEvent::new(RuntimeEvent::from_json(json).expect("an event"), metadata).expect("an event");
        self.log.append(&stream, ExpectedVersion::Any, vec![event]).expect("appended").remove(0)
    }
}
