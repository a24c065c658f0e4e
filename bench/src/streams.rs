//! The read model that the peers keep, as one of runledger's: events of each stream, and the kind of its last.

use std::collections::BTreeMap;
use std::path::Path;

use runledger_events::{EventKind, RecordedEvent, StreamName};
use runledger_projections::{Kinds, Projection, ProjectionError, Projections, Table, Target, projections_path};
use runledger_store::StorageError;
use rusqlite::Connection;

pub(crate) const NAME: &str = "streams";

/// The read model.
pub(crate) struct Streams;

impl Projection for Streams {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn kinds(&self) -> Kinds {
        Kinds::All
    }

    fn tables(&self) -> &'static [Table] {
        &[Table { name: NAME, key: &["stream"] }]
    }

    fn schema(&self) -> &'static str {
        "CREATE TABLE streams_{generation} (
            stream TEXT PRIMARY KEY, events INTEGER NOT NULL, last_kind TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;\nCREATE VIEW streams AS SELECT * FROM streams_{generation};\n"
    }

    fn apply(&self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        let mut touched: BTreeMap<&StreamName, (u64, &EventKind)> = BTreeMap::new();
        for event in events {
            let stream = touched.entry(&event.stream).or_insert((0, &event.kind));
            *stream = (stream.0 + 1, &event.kind);
        }
        let write = || -> rusqlite::Result<()> {
            let mut statement = target.connection.prepare_cached(&format!(
                "INSERT INTO {} (stream, events, last_kind) VALUES (?1, ?2, ?3)
                 ON CONFLICT (stream) DO UPDATE SET events = events + excluded.events, last_kind = excluded.last_kind",
                target.table(NAME)
            ))?;
            for (stream, (events, kind)) in touched {
                statement.execute((stream.as_str(), i64::try_from(events).unwrap_or(i64::MAX), kind.as_str()))?;
            }
            Ok(())
        };
        let path = target.connection.path().unwrap_or_default();
        write().map_err(|source| StorageError::sqlite(Path::new(path), "applying events", &source).into())
    }

    fn reset_run(&self, _: &Target<'_>, _: &str) -> Result<bool, ProjectionError> {
        Ok(false)
    }
}

/// The read models of a ledger that has this one alone.
pub(crate) fn open(ledger: &Path) -> Result<Projections, ProjectionError> {
    Projections::open_with(ledger, vec![Box::new(Streams)])
}

/// The sum of its rows: each event of the log counts once.
pub(crate) fn events(ledger: &Path) -> anyhow::Result<i64> {
    let connection = Connection::open(projections_path(ledger))?;
    Ok(connection.query_row("SELECT coalesce(sum(events), 0) FROM streams", [], |row| row.get(0))?)
}
