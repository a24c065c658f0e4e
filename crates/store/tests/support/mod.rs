//! What several tests of the log need: a ledger in a folder of its own, small events, and a way to tamper.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runledger_events::{
    AdapterSessionId, EventId, Metadata, Position, RecordedEvent, RunId, RuntimeEvent, SessionId, StreamName,
    StreamVersion,
};
use runledger_store::{
    EventFilter, EventLog, ExpectedVersion, LogReader, LogReport, NewEvent, Read, Receipt, SqliteLog,
};
use tempfile::TempDir;

/// A folder for one ledger; it goes with this value.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("ledger.db")
    }

    pub(crate) fn log(&self) -> SqliteLog {
        SqliteLog::open(self.path()).unwrap()
    }

    /// The same, as tests of every log have it.
    pub(crate) fn shared(&self) -> Arc<dyn EventLog> {
        Arc::new(self.log())
    }

    pub(crate) fn reader(&self) -> LogReader {
        LogReader::open(self.path()).unwrap()
    }

    /// A plain connection, past the library.
    pub(crate) fn sqlite(&self) -> rusqlite::Connection {
        sqlite(&self.path())
    }

    pub(crate) fn verify(&self) -> LogReport {
        self.reader().verify(|_| {}).unwrap()
    }
}

pub(crate) fn sqlite(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    connection
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

pub(crate) fn id(text: &str) -> EventId {
    EventId::new(text).unwrap()
}

/// A prompt with this text, under this id.
pub(crate) fn prompt(id: &str, text: &str) -> NewEvent {
    prompt_with(id, text, Metadata::default())
}

pub(crate) fn prompt_with(id: &str, text: &str, metadata: Metadata) -> NewEvent {
    json(
        &format!(r#"{{"id":"{id}","timestamp":1761000000000,"kind":"user.prompt","data":{{"prompt":"{text}"}}}}"#),
        metadata,
    )
}

pub(crate) fn json(text: &str, metadata: Metadata) -> NewEvent {
    NewEvent::new(RuntimeEvent::from_json(text).unwrap(), metadata).unwrap()
}

/// An event of a session, of a run, or of both.
pub(crate) fn belonging(session: Option<&str>, run: Option<&str>) -> Metadata {
    Metadata {
        session_id: session.map(|id| SessionId::new(id).unwrap()),
        run_id: run.map(|id| RunId::new(id).unwrap()),
        adapter_session_id: session.map(|id| AdapterSessionId::new(format!("adapter-{id}")).unwrap()),
        ..Metadata::default()
    }
}

/// Appends one event under any version.
pub(crate) fn append_one(log: &dyn EventLog, name: &str, event: NewEvent) -> Receipt {
    log.append(&stream(name), ExpectedVersion::Any, vec![event]).unwrap().remove(0)
}

/// Everything, in order.
pub(crate) fn all(reader: &LogReader) -> Vec<RecordedEvent> {
    let head = reader.head().unwrap().position;
    let mut events = Vec::new();
    let mut after = Position::START;
    while after < head {
        let batch = reader.read(&EventFilter::default(), after, head, 1000, Read::All).unwrap();
        after = batch.scanned_to;
        events.extend(batch.events);
    }
    events
}

/// Positions have no gaps, nor do the versions of any stream.
pub(crate) fn assert_dense(events: &[RecordedEvent]) {
    let mut versions = std::collections::HashMap::<StreamName, StreamVersion>::new();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.position.0, index as u64 + 1, "positions are dense");
        let version = versions.entry(event.stream.clone()).or_default();
        *version = version.next();
        assert_eq!(event.stream_version, *version, "versions of {} are dense", event.stream);
    }
}

pub(crate) fn assert_verifies(reader: &LogReader) -> LogReport {
    let report = reader.verify(|_| {}).unwrap();
    assert_eq!(report.findings, [], "{report:?}");
    report
}
