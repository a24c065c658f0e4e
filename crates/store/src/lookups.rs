//! Looking single things up in the log: the run of a harness session, and a stream from its end backwards.

use runledger_events::{AdapterSessionId, Position, RecordedEvent, RunId, StreamName, StreamVersion};

use crate::error::{ReadError, StorageError};
use crate::reader::{LogReader, Read, columns};

impl LogReader {
    /// The workflow run that used this harness session last, as the runs' own events tell it: one look into an index.
    ///
    /// # Errors
    /// [`ReadError`] when the file cannot be read.
    pub fn run_of_adapter_session(&self, id: &AdapterSessionId) -> Result<Option<RunId>, ReadError> {
        // Its index applies by these very words.
        let sql = "SELECT position, stream_key FROM runtime_events
                   WHERE adapter_session_id = ?1 AND kind GLOB 'workflow.*' AND adapter_session_id IS NOT NULL
                   ORDER BY position DESC";
        let storage = |source: rusqlite::Error| self.storage(&source);
        let mut statement = self.connection().prepare_cached(sql).map_err(storage)?;
        let mut rows = statement.query([id.as_str()]).map_err(storage)?;
        while let Some(row) = rows.next().map_err(storage)? {
            let position = Position(row.get(0).map_err(storage)?);
            let key = row.get(1).map_err(|_| ReadError::Column { position, column: "stream_key" })?;
            // The same kinds in another stream are somebody's words about a run.
            if let Some(run_id) = self.stream_name(key, position)?.run_id() {
                return Ok(Some(run_id));
            }
        }
        Ok(None)
    }

    /// The events of a stream from its end, or from before a version, backwards: the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`] names the position that cannot be read.
    pub fn read_stream_back(
        &self,
        stream: &StreamName,
        before: Option<StreamVersion>,
        limit: usize,
        read: Read<'_>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let sql = columns(read, false)
            + " FROM runtime_events
               WHERE stream_key = (SELECT stream_key FROM streams WHERE name = ?1) AND stream_version < ?2
               ORDER BY stream_version DESC LIMIT ?3";
        let before = before.and_then(|version| i64::try_from(version.0).ok()).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let storage = |source: rusqlite::Error| -> StorageError { self.storage(&source) };
        let mut statement = self.connection().prepare_cached(&sql).map_err(storage)?;
        let mut rows = statement.query((stream.as_str(), before, limit)).map_err(storage)?;
        let mut events = Vec::new();
        while let Some(row) = rows.next().map_err(storage)? {
            events.push(self.raw(row, read, false)?.decode(self.codec())?);
        }
        Ok(events)
    }
}
