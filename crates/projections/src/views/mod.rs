//! The read models, one a file or a folder, and what they share: token columns and JSON columns.

pub(crate) mod feed;
pub(crate) mod feed_search;
mod kept_rows;
pub(crate) mod permission_requests;
pub(crate) mod sessions;
pub(crate) mod workflow_iterations;
pub(crate) mod workflow_runs;

use std::path::Path;

use runledger_events::Tokens;
use runledger_store::StorageError;
use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ProjectionError;
use crate::projection::Target;

/// The token columns, as every read model has them.
pub(crate) const TOKEN_COLUMNS: &str = "tokens_input, tokens_output, tokens_cache_read, tokens_cache_write, \
                                        tokens_total, tokens_context_size, tokens_context_window_size";

/// The seven token columns from `first` on.
pub(crate) fn tokens(row: &Row<'_>, first: usize) -> rusqlite::Result<Tokens> {
    Ok(Tokens {
        input: row.get(first)?,
        output: row.get(first + 1)?,
        cache_read: row.get(first + 2)?,
        cache_write: row.get(first + 3)?,
        total: row.get(first + 4)?,
        context_size: row.get(first + 5)?,
        context_window_size: row.get(first + 6)?,
    })
}

/// A figure as SQLite holds it; a larger one, which only forged events can have, is the largest.
pub(crate) fn figure(figure: Option<u64>) -> Option<i64> {
    figure.map(|figure| i64::try_from(figure).unwrap_or(i64::MAX))
}

/// An error of SQLite in a read model, with the file it happened in; a row that cannot be read can be mended.
pub(crate) fn sqlite(target: &Target<'_>, projection: &'static str, source: &rusqlite::Error) -> ProjectionError {
    use rusqlite::Error as E;
    if let E::FromSqlConversionFailure(..) | E::InvalidColumnType(..) | E::IntegralValueOutOfRange(..) = source {
        return ProjectionError::Row { projection, detail: source.to_string() };
    }
    let path = target.connection.path().unwrap_or(":memory:");
    StorageError::sqlite(Path::new(path), "writing a read model", source).into()
}

/// A value as a JSON column.
pub(crate) fn to_json<T: Serialize>(projection: &'static str, value: &T) -> Result<String, ProjectionError> {
    serde_json::to_string(value).map_err(|error| ProjectionError::Row { projection, detail: error.to_string() })
}

/// A JSON column's value.
pub(crate) fn from_json<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(index)?.as_str()?;
    serde_json::from_str(text).map_err(|error| damaged(index, error))
}

/// A JSON column's value, where there is one.
pub(crate) fn optional_from_json<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<T>> {
    if row.get_ref(index)? == rusqlite::types::ValueRef::Null { Ok(None) } else { from_json(row, index).map(Some) }
}

/// A value that its column cannot hold.
pub(crate) fn damaged(index: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, error.into())
}
