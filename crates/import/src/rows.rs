//! The rows of a session database, as every schema version from 2 to 6 has them; a column that a version lacks is none.

use std::path::Path;

use runledger_events::ObjectText;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use serde_json::Value;

use crate::error::ImportError;

/// `session`: the one session of a database.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// Its id.
    pub id: String,
    /// Where it worked.
    pub project_dir: String,
    /// When it was made, Unix milliseconds.
    pub created_at: i64,
    /// When its last event came.
    pub updated_at: i64,
    /// The name that the user gave it.
    pub label: Option<String>,
    /// Feed events that were written, those that were then ignored included.
    pub event_count: Option<i64>,
}

/// `runtime_events`: what a harness told.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeRow {
    /// Its id.
    pub id: String,
    /// Its order of arrival.
    pub seq: i64,
    /// When it happened, Unix milliseconds.
    pub timestamp: i64,
    /// The hook's name.
    pub hook_name: String,
    /// The harness session.
    pub adapter_session_id: Option<String>,
    /// The RuntimeEvent, as JSON text.
    pub payload: String,
}

/// `feed_events`: what the mapper made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedRow {
    /// Its id.
    pub event_id: String,
    /// The runtime event that it was made of; none for decisions.
    pub runtime_event_id: Option<String>,
    /// Its order in the timeline.
    pub seq: i64,
    /// Its kind.
    pub kind: String,
    /// When it happened, Unix milliseconds.
    pub timestamp: i64,
    /// The FeedEvent, as JSON text.
    pub data: String,
    /// The FeedEvent, read, but for its `raw`.
    pub event: Value,
}

/// `adapter_sessions`: a harness session, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSessionRow {
    /// The harness's own id.
    pub session_id: String,
    /// When its first event came, Unix milliseconds.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Its model.
    pub model: Option<String>,
    /// How it began.
    pub source: Option<String>,
    /// Input, output, cache read, cache write, context size, context window size.
    pub tokens: [Option<u64>; 6],
    /// The workflow run that it was linked to.
    pub run_id: Option<String>,
    /// The whole row but its nulls, as JSON text.
    pub row: String,
}

/// `workflow_runs`: one execution of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowRunRow {
    /// Its id.
    pub id: String,
    /// Its workflow; none for a bare prompt.
    pub workflow_name: Option<String>,
    /// When it began, Unix milliseconds.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Iterations.
    pub iteration: i64,
    /// The iteration limit.
    pub max_iterations: i64,
    /// `running`, or how it ended.
    pub status: String,
    /// Why it ended.
    pub stop_reason: Option<String>,
    /// Its tracker.
    pub tracker_path: Option<String>,
    /// The whole row but its nulls, as JSON text.
    pub row: String,
}

/// A row of any other table.
#[derive(Debug, Clone, PartialEq)]
pub struct OtherRow {
    /// The table.
    pub table: String,
    /// The whole row but its nulls, as JSON text.
    pub row: String,
}

/// One table, read row by row.
pub(crate) struct Table<'a> {
    file: &'a Path,
    name: &'a str,
    columns: Vec<String>,
}

/// One row of it.
pub(crate) struct Record<'t, 'r> {
    table: &'t Table<'t>,
    /// The row in words, for errors.
    number: usize,
    row: &'r Row<'r>,
}

impl<'a> Table<'a> {
    /// Reads all rows in this order.
    pub(crate) fn read<T>(
        file: &'a Path,
        connection: &Connection,
        name: &'a str,
        order: &str,
        mut take: impl FnMut(&Record<'_, '_>) -> Result<T, ImportError>,
    ) -> Result<Vec<T>, ImportError> {
        let failed = |source: rusqlite::Error| damaged(file, &source);
        let quoted = name.replace('"', "\"\"");
        let mut statement =
            connection.prepare(&format!("SELECT * FROM \"{quoted}\" ORDER BY {order}")).map_err(failed)?;
        let columns = statement.column_names().into_iter().map(str::to_owned).collect();
        let table = Table { file, name, columns };
        let mut rows = statement.query([]).map_err(failed)?;
        let mut taken = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            taken.push(take(&Record { table: &table, number: taken.len() + 1, row })?);
        }
        Ok(taken)
    }
}

impl Record<'_, '_> {
    fn value(&self, column: &str) -> ValueRef<'_> {
        let index = self.table.columns.iter().position(|name| name == column);
        index.and_then(|index| self.row.get_ref(index).ok()).unwrap_or(ValueRef::Null)
    }

    fn wrong(&self, column: &str, expected: &str) -> ImportError {
        ImportError::Row {
            file: self.table.file.to_owned(),
            table: self.table.name.to_owned(),
            row: format!("row {}", self.number),
            cause: format!("column {column} is not {expected}"),
        }
    }

    /// A text, or none where the column is null or missing.
    pub(crate) fn optional_text(&self, column: &str) -> Result<Option<String>, ImportError> {
        match self.value(column) {
            ValueRef::Null => Ok(None),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(self.wrong(column, "UTF-8 text")),
            },
            _ => Err(self.wrong(column, "text")),
        }
    }

    /// A text that has to be there.
    pub(crate) fn text(&self, column: &str) -> Result<String, ImportError> {
        self.optional_text(column)?.ok_or_else(|| self.wrong(column, "text"))
    }

    /// A whole number, or none. A number with a fraction, as JavaScript may write a time, loses it.
    pub(crate) fn optional_whole(&self, column: &str) -> Result<Option<i64>, ImportError> {
        match self.value(column) {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(whole) => Ok(Some(whole)),
            ValueRef::Real(real) if real.abs() < 9e15 => Ok(Some(real.floor() as i64)),
            _ => Err(self.wrong(column, "a whole number")),
        }
    }

    /// A whole number that has to be there.
    pub(crate) fn whole(&self, column: &str) -> Result<i64, ImportError> {
        self.optional_whole(column)?.ok_or_else(|| self.wrong(column, "a whole number"))
    }

    /// The whole row as JSON text, but its nulls: so a row means the same before and after a migration that adds columns.
    pub(crate) fn json(&self) -> String {
        let columns = &self.table.columns;
        let object = columns.iter().fold(ObjectText::new(), |object, name| match self.value(name) {
            ValueRef::Null => object,
            ValueRef::Integer(whole) => object.raw(name, whole.to_string().as_str()),
            ValueRef::Real(real) => object.raw(name, Value::from(real).to_string().as_str()),
            ValueRef::Text(text) => object.text(name, &*String::from_utf8_lossy(text)),
            ValueRef::Blob(bytes) => {
                object.text(name, bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().as_str())
            }
        });
        object.finish()
    }
}

/// An error of SQLite while it reads the private copy: the copy is whole, so the file is not.
pub(crate) fn damaged(file: &Path, source: &rusqlite::Error) -> ImportError {
    ImportError::Damaged { file: file.to_owned(), detail: source.to_string() }
}
