//! A ledger in a temporary folder.

use std::path::PathBuf;
use std::sync::Arc;

use runledger_events::{Metadata, RuntimeEvent, StreamName};
use runledger_store::{EventLog, ExpectedVersion, NewEvent, Receipt, SqliteLog};
use tempfile::TempDir;

/// A ledger that goes with its folder.
#[derive(Debug)]
pub struct TempLedger {
    /// The folder.
    pub folder: TempDir,
    /// The ledger's file.
    pub path: PathBuf,
    /// The log.
    pub log: Arc<dyn EventLog>,
}

impl Default for TempLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl TempLedger {
    /// A new, empty ledger.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ledger.db");
        let log = Arc::new(SqliteLog::open(&path).expect("a new ledger"));
        Self { folder, path, log }
    }

    /// The log for what SQLite alone can do.
    pub fn sqlite(&self) -> SqliteLog {
        SqliteLog::open(&self.path).expect("the ledger that was just made")
    }

    /// Appends one event, whatever the stream's version; session and run follow from the stream's name.
    pub fn append(&self, stream: &str, json: &str) -> Receipt {
        let stream = StreamName::new(stream).expect("a stream name");
        let metadata = Metadata { session_id: stream.session_id(), run_id: stream.run_id(), ..Metadata::default() };
        let event = NewEvent::new(RuntimeEvent::from_json(json).expect("an event"), metadata).expect("an event");
        self.log.append(&stream, ExpectedVersion::Any, vec![event]).expect("appended").remove(0)
    }
}
