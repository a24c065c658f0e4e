//! Checkpoints: how far a read model has come, in which log, and which generation of its tables is the one to read.
//!
//! Invariants: a checkpoint moves in the transaction that applies its events; it is compared and set, so of two
//! processes that apply the same events one is refused; within one log it never moves back, not even over a rebuild.

use runledger_events::{Digest, LogId, Position};
use rusqlite::{Connection, OptionalExtension};

/// How far a read model has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The version of the projection that wrote it.
    pub version: u32,
    /// The generation of its tables.
    pub generation: i64,
    /// The log it is of.
    pub log_id: LogId,
    /// The last position scanned.
    pub position: Position,
    /// The log's chain there.
    pub chain: Digest,
}

impl Checkpoint {
    /// The checkpoint of a read model; `None` for one that was never built, or whose row is damaged beyond reading.
    pub(crate) fn load(connection: &Connection, projection: &str) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(
                "SELECT version, generation, log_id, position, chain FROM checkpoints WHERE projection = ?1",
            )?
            .query_row([projection], |row| {
                let log_id = LogId::new(row.get::<_, String>(2)?);
                Ok(log_id.ok().map(|log_id| {
                    Ok(Self {
                        version: row.get(0)?,
                        generation: row.get(1)?,
                        log_id,
                        position: Position(row.get(3)?),
                        chain: Digest(row.get(4)?),
                    })
                }))
            })
            .optional()
            .and_then(|found| found.flatten().transpose())
            .or_else(|error| match error {
                rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::IntegralValueOutOfRange(..) => {
                    Ok(None)
                }
                error => Err(error),
            })
    }

    /// Puts this checkpoint in the place of whatever stood there: the switch to a new generation.
    pub(crate) fn store(&self, connection: &Connection, projection: &str) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO checkpoints (projection, version, generation, log_id, position, chain)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                projection,
                self.version,
                self.generation,
                self.log_id.as_str(),
                self.position.0,
                self.chain.0,
            ))?;
        Ok(())
    }

    /// Moves from `self` to a later position; false, and nothing is changed, when `self` is not what stands there.
    pub(crate) fn advance(
        &self,
        connection: &Connection,
        projection: &str,
        position: Position,
        chain: Digest,
    ) -> rusqlite::Result<bool> {
        let changed = connection
            .prepare_cached(
                "UPDATE checkpoints SET position = ?1, chain = ?2
                 WHERE projection = ?3 AND version = ?4 AND generation = ?5 AND log_id = ?6 AND position = ?7",
            )?
            .execute((
                position.0,
                chain.0,
                projection,
                self.version,
                self.generation,
                self.log_id.as_str(),
                self.position.0,
            ))?;
        Ok(changed == 1)
    }
}
