//! Sealing: what of an append does not depend on the log's head. The caller does it before it waits for its turn, so that
//! who writes for all has nothing left but to look, to chain and to insert.

use std::path::Path;

use runledger_events::{
    Codec, Digest, EventId, EventKind, Metadata, SALT_BYTES, Salt, StreamName, TimestampMs, commitment,
};

use crate::error::StorageError;
use crate::expected_version::ExpectedVersion;
use crate::new_event::{NewContent, NewEvent, StreamAppend};

/// Events for one stream, sealed.
pub(crate) struct SealedAppend {
    pub(crate) stream: StreamName,
    pub(crate) expected: ExpectedVersion,
    pub(crate) events: Vec<SealedEvent>,
}

/// An event that lacks nothing but its place and the time of its append.
pub(crate) struct SealedEvent {
    pub(crate) id: EventId,
    /// Whether the id was made just now, so that no stream can have it.
    pub(crate) is_new_id: bool,
    pub(crate) kind: EventKind,
    pub(crate) occurred_at: Option<TimestampMs>,
    pub(crate) recorded_at: Option<TimestampMs>,
    pub(crate) metadata: Metadata,
    /// The stream of the session that it belongs to.
    pub(crate) session: Option<StreamName>,
    /// The stream of the run that it belongs to.
    pub(crate) run: Option<StreamName>,
    pub(crate) facts: Vec<u8>,
    pub(crate) commitment: Digest,
    /// None in a copy of an event whose content was erased.
    pub(crate) content: Option<SealedContent>,
    /// What its digest has to come to, where that is known.
    pub(crate) digest: Option<Digest>,
}

/// What can be erased of an event.
pub(crate) struct SealedContent {
    pub(crate) salt: Salt,
    pub(crate) payload: Vec<u8>,
}

impl SealedAppend {
    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let content = |event: &SealedEvent| event.content.as_ref().map_or(0, |content| content.payload.len());
        self.events.iter().map(|event| event.facts.len() + content(event)).sum()
    }
}

/// Seals the events; an error is that of an append to `path`, of which nothing was written.
pub(crate) fn seal(path: &Path, appends: Vec<StreamAppend>) -> Result<Vec<SealedAppend>, StorageError> {
    let count = appends.iter().map(|append| append.events.len()).sum();
    let mut seal = Seal { path, codec: Codec::default(), salts: new_salts(path, count)? };
    let append = |StreamAppend { stream, expected, events }| {
        let events = events.into_iter().map(|event| seal.event(event)).collect::<Result<_, _>>()?;
        Ok(SealedAppend { stream, expected, events })
    };
    appends.into_iter().map(append).collect()
}

struct Seal<'a> {
    path: &'a Path,
    codec: Codec,
    salts: std::vec::IntoIter<Salt>,
}

impl Seal<'_> {
    fn event(&mut self, event: NewEvent) -> Result<SealedEvent, StorageError> {
        let NewEvent { id, kind, occurred_at, recorded_at, metadata, facts, content, digest } = event;
        let refused = |detail: String| refused(self.path, detail);
        let is_new_id = id.is_none();
        let id = match id {
            Some(id) => id,
            None => new_id(self.path)?,
        };
        let (commitment, content) = match content {
            NewContent::Erased { commitment } => (commitment, None),
            NewContent::Json { json, salt } => {
                let salt = salt.or_else(|| self.salts.next()).ok_or_else(|| refused("no salt is left".to_owned()))?;
                let payload = self.codec.encode_content(&json).map_err(|error| refused(error.to_string()))?;
                (commitment(&salt, json.as_bytes()), Some(SealedContent { salt, payload }))
            }
        };
        let session = metadata.session_id.as_ref().map(StreamName::session);
        let run = metadata.run_id.as_ref().map(StreamName::run);
        Ok(SealedEvent {
            id,
            is_new_id,
            kind,
            occurred_at,
            recorded_at,
            metadata,
            session,
            run,
            facts,
            commitment,
            content,
            digest,
        })
    }
}

/// An id that no event has.
pub(crate) fn new_id(path: &Path) -> Result<EventId, StorageError> {
    EventId::new(uuid::Uuid::now_v7().to_string()).map_err(|error| refused(path, error.to_string()))
}

/// One for each event, in one call of the system.
fn new_salts(path: &Path, count: usize) -> Result<std::vec::IntoIter<Salt>, StorageError> {
    let mut salts = vec![[0; SALT_BYTES]; count];
    getrandom::fill(salts.as_flattened_mut()).map_err(|error| refused(path, format!("no random bytes: {error}")))?;
    Ok(salts.into_iter())
}

fn refused(path: &Path, detail: String) -> StorageError {
    StorageError::Sqlite { path: path.to_owned(), doing: "appending", detail }
}
