//! What a read model declares: its name, its version, the kinds it reads, its tables, and how it takes events.

use runledger_events::{EventKind, RecordedEvent};
use runledger_store::Read;
use rusqlite::Connection;

use crate::error::ProjectionError;

/// The kinds that a projection reads.
#[derive(Debug, Clone, Copy)]
pub enum Kinds {
    /// All of them.
    All,
    /// These alone.
    Only(&'static [EventKind]),
}

impl Kinds {
    /// Whether the projection reads events of this kind.
    pub fn takes(self, kind: &EventKind) -> bool {
        match self {
            Self::All => true,
            Self::Only(kinds) => kinds.contains(kind),
        }
    }
}

/// One table of a read model.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name, without a generation.
    pub name: &'static str,
    /// The columns that name a row.
    pub key: &'static [&'static str],
}

/// The tables of one generation, within the transaction that writes them.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The connection with the open transaction.
    pub connection: &'a Connection,
    /// The generation.
    pub generation: i64,
}

impl Target<'_> {
    /// The name of a table in this generation.
    pub fn table(&self, name: &str) -> String {
        format!("{name}_{}", self.generation)
    }
}

/// A read model: a fold of the log into tables. Pure: the rows depend on the events alone, in their order, never on
/// where one batch ends and the next begins.
pub trait Projection: Send + Sync {
    /// Its name, which is its first table's name too.
    fn name(&self) -> &'static str;

    /// Its version. A changed one is built again from the log; a newer one than ours is never written to.
    fn version(&self) -> u32;

    /// The kinds it reads.
    fn kinds(&self) -> Kinds;

    /// How much of an event it reads: facts alone, unless it says otherwise. Where others are folded along, there may be
    /// more; its rows must not depend on that.
    fn reads(&self) -> Read<'static> {
        Read::Facts
    }

    /// Its tables.
    fn tables(&self) -> &'static [Table];

    /// The SQL that makes its tables, indexes and views, with `{generation}` in the names of tables and indexes.
    fn schema(&self) -> &'static str;

    /// A fold of it that knows nothing yet.
    fn fold(&self) -> Box<dyn Fold>;

    /// Removes the rows of one workflow run, so that its stream can be folded again; false where rows are not of runs.
    ///
    /// # Errors
    /// [`ProjectionError`]: the caller rolls the transaction back.
    fn reset_run(&self, target: &Target<'_>, run_id: &str) -> Result<bool, ProjectionError>;
}

/// A fold under way. It keeps rows that it has read or changed, so that each is read once and written once; it is good for
/// one generation, as long as nobody else writes to its tables.
pub trait Fold: Send {
    /// Whether `take` writes; else it only reads, and `flush` writes.
    fn writes_as_it_takes(&self) -> bool {
        false
    }

    /// Takes events of the projection's kinds, in order, within a transaction, which may write where the fold does.
    ///
    /// # Errors
    /// [`ProjectionError`]: the caller rolls the transaction back, and this fold is of no use any more.
    fn take(&mut self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError>;

    /// Writes what is not written yet, about `rows` rows at the most; says whether that was all. Until it was, the fold
    /// takes no further events.
    ///
    /// # Errors
    /// As `take`.
    fn flush(&mut self, target: &Target<'_>, rows: usize) -> Result<bool, ProjectionError>;

    /// How many bytes it keeps, about; all of them can be read from the tables again once everything is written.
    fn kept_bytes(&self) -> usize;
}

impl dyn Projection + '_ {
    /// The statements that make the tables and indexes of a generation.
    pub(crate) fn create_tables(&self, generation: i64) -> String {
        self.statements(generation, |statement| !is_view(statement))
    }

    /// The statements that let the plain names show a generation.
    pub(crate) fn create_views(&self, generation: i64) -> String {
        let drop: String = self.tables().iter().map(|table| format!("DROP VIEW IF EXISTS {};\n", table.name)).collect();
        drop + &self.statements(generation, is_view)
    }

    fn statements(&self, generation: i64, wanted: impl Fn(&str) -> bool) -> String {
        self.schema()
            .replace("{generation}", &generation.to_string())
            .split_inclusive(";\n")
            .filter(|statement| wanted(statement))
            .collect()
    }
}

/// Whether the statement, behind the comments before it, makes a view.
fn is_view(statement: &str) -> bool {
    statement.lines().find(|line| !line.starts_with("--")).is_some_and(|line| line.starts_with("CREATE VIEW"))
}
