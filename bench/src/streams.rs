//! The read model that the peers keep, as one of runledger's: events of each stream, and the kind of its last.

use std::collections::BTreeMap;
use std::path::Path;

use runledger_events::{EventKind, RecordedEvent, StreamName};
use runledger_projections::{Fold, Kinds, Projection, ProjectionError, Projections, Table, Target, projections_path};
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

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(StreamsFold::default())
    }

    fn reset_run(&self, _: &Target<'_>, _: &str) -> Result<bool, ProjectionError> {
        Ok(false)
    }
}

/// What was counted since the rows were written.
#[derive(Default)]
struct StreamsFold(BTreeMap<StreamName, (u64, EventKind)>);

impl Fold for StreamsFold {
    fn take(&mut self, _: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        for event in events {
            match self.0.get_mut(&event.stream) {
                Some((events, kind)) => (*events, *kind) = (*events + 1, event.kind.clone()),
                None => drop(self.0.insert(event.stream.clone(), (1, event.kind.clone()))),
            }
        }
        Ok(())
    }

    fn flush(&mut self, target: &Target<'_>, rows: usize) -> Result<bool, ProjectionError> {
        let mut write = || -> rusqlite::Result<()> {
            let mut statement = target.connection.prepare_cached(&format!(
                "INSERT INTO {} (stream, events, last_kind) VALUES (?1, ?2, ?3)
                 ON CONFLICT (stream) DO UPDATE SET events = events + excluded.events, last_kind = excluded.last_kind",
                target.table(NAME)
            ))?;
            for _ in 0..rows {
                let Some((stream, (events, kind))) = self.0.pop_first() else {
                    break;
                };
                statement.execute((stream.as_str(), i64::try_from(events).unwrap_or(i64::MAX), kind.as_str()))?;
            }
            Ok(())
        };
        let path = target.connection.path().unwrap_or_default();
        write().map_err(|source| StorageError::sqlite(Path::new(path), "writing a read model", &source))?;
        Ok(self.0.is_empty())
    }

    fn kept_bytes(&self) -> usize {
        self.0.len() * 256
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
