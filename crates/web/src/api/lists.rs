//! What lists are answered with: the items, and where the next page begins.

use std::borrow::Cow;

use runledger_events::{Position, RecordedEvent, RunId, SessionId};
use runledger_projections::{FeedEvent, ParkedStream, PermissionRequest, Session};
use runledger_store::Unreadable;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use crate::jobs::Job;
use crate::objects::event_line::EVENT_BYTES_MAX;
use crate::objects::{Checkpoint, EventLine, RunInTree, RunView};

/// Runs, the newest first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Runs {
    pub(crate) runs: Vec<ListedRun>,
    /// The `before` of the next page; none where there is none, and in a tree.
    pub(crate) before: Option<Position>,
}

/// A run, with its place where a tree was asked for.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ListedRun {
    /// In its tree.
    InTree(Box<RunInTree>),
    /// By itself.
    Alone(Box<RunView>),
}

/// Entries of the feed, in its order.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Feed {
    pub(crate) entries: Vec<FeedEvent>,
    /// The `before` of the page before this one.
    pub(crate) before: Option<String>,
    /// The `after` of the page behind this one, which may have nothing yet.
    pub(crate) after: Option<String>,
}

/// Sessions, those with the latest event first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Sessions {
    pub(crate) sessions: Vec<Session>,
    /// The `before` of the next page; none where there is none.
    pub(crate) before: Option<Position>,
}

/// Permission requests, the newest first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Permissions {
    pub(crate) requests: Vec<PermissionRequest>,
    /// The `before` of the next page; none where there is none.
    pub(crate) before: Option<Position>,
}

/// How the read models stand.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ReadModels {
    /// The log's last position.
    pub(crate) head: Position,
    pub(crate) projections: Vec<Checkpoint>,
    /// Streams that they leave out.
    pub(crate) parked: Vec<ParkedStream>,
}

/// Jobs since the server began, the newest first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct JobList {
    pub(crate) jobs: Vec<Job>,
}

/// Events of the log, in its order.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Events {
    pub(crate) events: Vec<Lined>,
    /// Those that cannot be read, or whose content cannot.
    pub(crate) unreadable: Vec<UnreadableEvent>,
    /// The `after` of the next page: everything up to here is in this answer, or in one before.
    pub(crate) scanned_to: Position,
    /// The log's last position.
    pub(crate) head: Position,
}

/// An event that was read, and is written as a line.
pub(crate) struct Lined {
    event: RecordedEvent,
    /// Bytes of its JSON beyond which that is left out.
    bytes_max: usize,
}

impl Lined {
    /// The event, whole.
    pub(crate) fn whole(event: RecordedEvent) -> Self {
        Self { event, bytes_max: usize::MAX }
    }

    /// The event as one of many, without JSON that is very long.
    pub(crate) fn of_many(event: RecordedEvent) -> Self {
        Self { event, bytes_max: EVENT_BYTES_MAX }
    }
}

impl Serialize for Lined {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        EventLine::within(&self.event, self.bytes_max).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl JsonSchema for Lined {
    fn inline_schema() -> bool {
        EventLine::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        EventLine::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        EventLine::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        EventLine::json_schema(generator)
    }
}

/// An event that cannot be read: it was damaged, or a newer program wrote it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct UnreadableEvent {
    position: Position,
    stream: String,
    kind: String,
    /// Why.
    cause: String,
}

impl From<&Unreadable> for UnreadableEvent {
    fn from(unreadable: &Unreadable) -> Self {
        Self {
            position: unreadable.position,
            stream: unreadable.stream.to_string(),
            kind: unreadable.kind.to_string(),
            cause: unreadable.source.to_string(),
        }
    }
}

/// What an act appended.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Acted {
    pub(crate) events: Vec<Lined>,
}

/// A new run.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ForkedRun {
    pub(crate) run_id: RunId,
    /// Its session.
    pub(crate) session_id: SessionId,
    /// Where the other run stood.
    pub(crate) forked_at: Position,
    /// Iterations that it takes over.
    pub(crate) iteration: u32,
    /// Its tracker, where one was written.
    pub(crate) tracker: Option<String>,
    /// What was appended.
    pub(crate) events: Vec<Lined>,
}
