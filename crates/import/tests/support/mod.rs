//! Session databases made by SQL: schema version 6, with one session and whatever a test adds.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

use std::path::PathBuf;

use runledger_events::{Position, RecordedEvent};
use runledger_import::{ImportError, OldDatabase, TakenOver, take_over};
use runledger_store::{EventFilter, Read};
use runledger_testkit::TempLedger;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

const SCHEMA: &str = "
    CREATE TABLE schema_version (version INTEGER NOT NULL);
    INSERT INTO schema_version VALUES (6);
    CREATE TABLE session (id TEXT PRIMARY KEY, project_dir TEXT NOT NULL, created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL, label TEXT, event_count INTEGER DEFAULT 0);
    INSERT INTO session VALUES ('s1', '/work', 1000, 9000, NULL, 3);
    CREATE TABLE runtime_events (id TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, timestamp INTEGER NOT NULL,
        hook_name TEXT NOT NULL, adapter_session_id TEXT, payload JSON NOT NULL);
    CREATE TABLE feed_events (event_id TEXT PRIMARY KEY, runtime_event_id TEXT, seq INTEGER NOT NULL,
        kind TEXT NOT NULL, run_id TEXT NOT NULL, actor_id TEXT NOT NULL, timestamp INTEGER NOT NULL, data JSON NOT NULL);
    CREATE TABLE adapter_sessions (session_id TEXT PRIMARY KEY, started_at INTEGER NOT NULL, ended_at INTEGER,
        model TEXT, source TEXT, tokens_input INTEGER, tokens_output INTEGER, tokens_cache_read INTEGER,
        tokens_cache_write INTEGER, tokens_context_size INTEGER, tokens_context_window_size INTEGER, run_id TEXT);
    CREATE TABLE workflow_runs (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, workflow_name TEXT,
        started_at INTEGER NOT NULL, ended_at INTEGER, iteration INTEGER NOT NULL DEFAULT 0,
        max_iterations INTEGER NOT NULL DEFAULT 1, status TEXT NOT NULL DEFAULT 'running', stop_reason TEXT,
        tracker_path TEXT);
    CREATE TABLE channel_messages (id INTEGER PRIMARY KEY, channel_id TEXT NOT NULL, peer_id TEXT,
        created_at INTEGER NOT NULL);";

/// A session database of a test's own, and a ledger to take it over into.
pub(crate) struct Old {
    folder: TempDir,
    pub(crate) ledger: TempLedger,
}

impl Old {
    pub(crate) fn new() -> Self {
        let old = Self { folder: tempfile::tempdir().unwrap(), ledger: TempLedger::new() };
        old.sql(SCHEMA);
        old
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("session.db")
    }

    pub(crate) fn sql(&self, sql: &str) {
        Connection::open(self.file()).unwrap().execute_batch(sql).unwrap();
    }

    /// A runtime event of adapter session `a1`.
    pub(crate) fn told(&self, seq: i64, at: i64, kind: &str, data: Value) {
        let id = format!("e{seq}");
        let payload = json!({"id": id, "timestamp": at, "kind": kind, "sessionId": "a1", "data": data}).to_string();
        self.runtime(&id, seq, at, &payload);
    }

    pub(crate) fn runtime(&self, id: &str, seq: i64, at: i64, payload: &str) {
        let sql = "INSERT INTO runtime_events VALUES (?1, ?2, ?3, 'Hook', 'a1', ?4)";
        Connection::open(self.file()).unwrap().execute(sql, (id, seq, at, payload)).unwrap();
    }

    /// A feed event with this number; `runtime` is the runtime event that it was made of.
    pub(crate) fn shown(&self, seq: i64, at: i64, kind: &str, runtime: Option<&str>, more: Value) {
        let id = format!("a1:R1:E{seq}");
        let mut event = json!({"event_id": id, "seq": seq, "ts": at, "session_id": "a1", "run_id": "a1:R1",
            "kind": kind, "level": "info", "actor_id": "user", "title": kind});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let sql = "INSERT INTO feed_events VALUES (?1, ?2, ?3, ?4, 'a1:R1', 'user', ?5, ?6)";
        Connection::open(self.file()).unwrap().execute(sql, (&id, runtime, seq, kind, at, event.to_string())).unwrap();
    }

    pub(crate) fn read(&self) -> Result<OldDatabase, ImportError> {
        OldDatabase::read(self.file())
    }

    pub(crate) fn take(&self) -> Result<TakenOver, ImportError> {
        take_over(&*self.ledger.log, &self.read()?)
    }

    /// It is refused, and the ledger stays as it was; gives the words, with `DB` for the file.
    pub(crate) fn refused(&self) -> String {
        let head = self.ledger.log.reader().unwrap().head().unwrap();
        let error = self.take().unwrap_err();
        assert!(!error.is_of_the_ledger(), "{error}");
        assert_eq!(self.ledger.log.reader().unwrap().head().unwrap(), head, "nothing is appended");
        error.to_string().replace(&self.file().display().to_string(), "DB")
    }

    /// The whole log.
    pub(crate) fn events(&self) -> Vec<RecordedEvent> {
        let reader = self.ledger.log.reader().unwrap();
        let head = reader.head().unwrap().position;
        reader.read(&EventFilter::default(), Position::START, head, usize::MAX, Read::All).unwrap().events
    }

    /// Ids and kinds of the events, but for those that the import writes of the session and its harness sessions.
    pub(crate) fn lines(&self) -> Vec<String> {
        let is_note = |event: &RecordedEvent| event.kind.as_str().starts_with("import.");
        let events = self.events().into_iter().filter(|event| !is_note(event));
        events.map(|event| format!("{} {}", event.id, event.kind)).collect()
    }
}

pub(crate) fn json_of(event: &RecordedEvent) -> Value {
    serde_json::from_str(event.content.json().unwrap()).unwrap()
}
