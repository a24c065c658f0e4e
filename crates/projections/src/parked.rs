//! Parked streams: those with an event that a read model needs and cannot read. From that event on the stream is left out
//! of the read model, the others go on, and it is told.
//!
//! Invariants: what is parked follows from the log and the program alone, so that a rebuild and a fresh fold park the same;
//! it is stored in the transaction that moves the checkpoint past it; nothing is taken up again but in order, by building
//! the read model anew.

use std::collections::HashMap;

use runledger_events::{EventKind, PayloadPart, Position, RecordedEvent, StreamName};
use runledger_store::{Batch, Read, Unreadable};
use rusqlite::Connection;
use serde::Serialize;

use crate::error::ProjectionError;
use crate::projection::{Fold, Kinds, Projection, Target};

/// A stream that a read model leaves out, from a position on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ParkedStream {
    /// The read model.
    pub projection: String,
    /// The stream.
    pub stream: StreamName,
    /// The event that cannot be read.
    pub position: Position,
    /// Why.
    pub cause: String,
}

/// The parked streams of one generation of a read model.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    streams: HashMap<StreamName, Position>,
    /// Those that are not stored yet.
    new: Vec<(StreamName, Position, String)>,
}

impl Parked {
    pub(crate) fn load(connection: &Connection, projection: &str, generation: i64) -> rusqlite::Result<Self> {
        let streams = connection
            .prepare_cached("SELECT stream, position FROM parked_streams WHERE projection = ?1 AND generation = ?2")?
            .query_map((projection, generation), |row| Ok((row.get::<_, String>(0)?, Position(row.get(1)?))))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        // A name that is none was stored by nobody; `verify` finds what is wrong then.
        let streams = streams.into_iter().filter_map(|(name, position)| Some((StreamName::new(name).ok()?, position)));
        Ok(Self { streams: streams.collect(), new: Vec::new() })
    }

    /// The events of a batch that the projection takes: those of its kinds, but for parked streams.
    pub(crate) fn taken<'a>(&mut self, projection: &dyn Projection, batch: &'a Batch) -> Vec<&'a RecordedEvent> {
        for unreadable in batch.unreadable.iter().filter(|unreadable| needs(projection, unreadable)) {
            if !self.streams.contains_key(&unreadable.stream) {
                let (stream, position) = (unreadable.stream.clone(), unreadable.position);
                let cause = unreadable.source.to_string();
                tracing::warn!(
                    projection = projection.name(), ?stream, %position, cause,
                    "an event cannot be read; its stream is left out of the read model from there on"
                );
                self.streams.insert(stream.clone(), position);
                self.new.push((stream, position, cause));
            }
        }
        let kinds = projection.kinds();
        let of_kinds = batch.events.iter().filter(|event| kinds.takes(&event.kind));
        if self.streams.is_empty() {
            return of_kinds.collect();
        }
        let is_parked =
            |event: &RecordedEvent| self.streams.get(&event.stream).is_some_and(|parked| event.position >= *parked);
        of_kinds.filter(|event| !is_parked(event)).collect()
    }

    /// Hands a fold what the projection takes of a batch.
    pub(crate) fn hand_on(
        &mut self,
        projection: &dyn Projection,
        fold: &mut dyn Fold,
        target: &Target<'_>,
        batch: &Batch,
    ) -> Result<(), ProjectionError> {
        let events = self.taken(projection, batch);
        if events.is_empty() { Ok(()) } else { fold.take(target, &events) }
    }

    /// The first event that was found unreadable and not stored yet.
    pub(crate) fn first_new(&self) -> Option<&(StreamName, Position, String)> {
        self.new.first()
    }

    /// Stores what is new, in the transaction that moves the checkpoint.
    pub(crate) fn store(&mut self, connection: &Connection, projection: &str, generation: i64) -> rusqlite::Result<()> {
        for (stream, position, cause) in self.new.drain(..) {
            connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO parked_streams (projection, generation, stream, position, cause)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute((projection, generation, stream.as_str(), position.0, cause))?;
        }
        Ok(())
    }
}

/// Whether a projection cannot do without it.
fn needs(projection: &dyn Projection, unreadable: &Unreadable) -> bool {
    projection.kinds().takes(&unreadable.kind)
        && (unreadable.part == PayloadPart::Facts || reads_content(projection, &unreadable.kind))
}

/// Whether a projection reads the content of events of this kind.
fn reads_content(projection: &dyn Projection, kind: &EventKind) -> bool {
    match projection.reads() {
        Read::Facts => false,
        Read::ContentOf(kinds) => kinds.contains(kind),
        Read::All => true,
    }
}

/// The parked streams of the read models as they are read.
pub(crate) fn select(connection: &Connection) -> rusqlite::Result<Vec<ParkedStream>> {
    connection
        .prepare_cached(
            "SELECT projection, stream, parked_streams.position, cause
             FROM parked_streams JOIN checkpoints USING (projection, generation)
             ORDER BY parked_streams.position, projection",
        )?
        .query_map([], |row| {
            let stream = StreamName::new(row.get::<_, String>(1)?);
            let stream = stream.map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
            })?;
            Ok(ParkedStream { projection: row.get(0)?, stream, position: Position(row.get(2)?), cause: row.get(3)? })
        })?
        .collect()
}

/// The kinds whose content a projection reads; `None` for all.
pub(crate) fn content_kinds_of(projection: &dyn Projection) -> Option<&'static [EventKind]> {
    match (projection.reads(), projection.kinds()) {
        (Read::Facts, _) => Some(&[]),
        (Read::ContentOf(kinds), _) | (Read::All, Kinds::Only(kinds)) => Some(kinds),
        (Read::All, Kinds::All) => None,
    }
}
