//! A RuntimeEvent: one fact with the JSON text it came with. Nothing of the text is ever lost.

use crate::facts::{DecisionFacts, Facts, KindFacts};
use crate::ids::{AdapterSessionId, EventId, IdError};
use crate::json::{Object, as_text, as_whole, readable};
use crate::kind::EventKind;
use crate::position::TimestampMs;

/// JSON that is no RuntimeEvent.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeEventError {
    /// It is no JSON object.
    #[error("no JSON object: {0}")]
    Json(#[source] serde_json::Error),
    /// Neither an event nor a decision.
    #[error("neither `kind` nor `eventId` and `decision`: give a RuntimeEvent or a decision on one")]
    Shape,
    /// A field of the envelope has the wrong type.
    #[error("`{field}` is not {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// An id that cannot be taken.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The `data` of a `workflow.*` event lacks what its kind needs.
    #[error("`data` of {kind} is not of its shape: {source}")]
    WorkflowData {
        /// The event's kind.
        kind: EventKind,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// One fact as a harness, or the workflow runner, tells it.
///
/// Equality is that of the text and of what was read out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    id: Option<EventId>,
    kind: EventKind,
    occurred_at: Option<TimestampMs>,
    adapter_session_id: Option<AdapterSessionId>,
    facts: Facts,
    json: String,
}

impl RuntimeEvent {
    /// Reads one RuntimeEvent object, or `{"eventId", "decision", "now"}` for a decision on an earlier event.
    ///
    /// The text is kept as it is, but that line breaks between tokens become spaces: an event is one line of JSON Lines.
    /// Times are Unix milliseconds; without `timestamp` (or `now`) the event occurred when it is appended, and without
    /// `id` the log gives it one.
    ///
    /// # Errors
    /// [`RuntimeEventError`] when the text is no JSON object, or its envelope (`kind`, `id`, `timestamp`, `sessionId`;
    /// `data` of the `workflow.*` kinds) is of the wrong shape. Any other field may hold anything.
    pub fn from_json(json: &str) -> Result<Self, RuntimeEventError> {
        // A line break inside a JSON string is always escaped, so each raw one stands between tokens; JSON it has to be.
        if json.trim().contains(['\n', '\r']) {
            Object::parse(&readable(json.trim())).map_err(RuntimeEventError::Json)?;
        }
        let json = json.trim().replace(['\n', '\r'], " ");
        let text = readable(&json);
        let event = Object::parse(&text).map_err(RuntimeEventError::Json)?;

        let id = match event.get("id") {
            None => None,
            Some(raw) if raw.get() == "null" => None,
            Some(raw) => {
                let id = as_text(raw).ok_or(RuntimeEventError::Field { field: "id", expected: "a string" })?;
                Some(EventId::new(id)?)
            }
        };
        let adapter_session_id = match event.get("sessionId") {
            None => None,
            Some(raw) if matches!(raw.get(), "null" | "\"\"") => None,
            Some(raw) => {
                let id = as_text(raw).ok_or(RuntimeEventError::Field { field: "sessionId", expected: "a string" })?;
                Some(AdapterSessionId::new(id)?)
            }
        };

        let (kind, occurred_at, facts) = if event.is_present("kind") {
            let kind = event
                .text("kind")
                .filter(|kind| !kind.is_empty())
                .ok_or(RuntimeEventError::Field { field: "kind", expected: "a string with at least one character" })?;
            if kind.len() > EventKind::BYTES_MAX {
                return Err(RuntimeEventError::Field { field: "kind", expected: "a string of at most 1024 bytes" });
            }
            let kind = EventKind::parse(&kind);
            let data_json = event.get("data").map(|raw| raw.get());
            let facts = Facts::read(&kind, &event, &event.object("data"), data_json)?;
            (kind, time(&event, "timestamp")?, facts)
        } else if event.is_present("eventId") && event.is_present("decision") {
            let facts = Facts { data: KindFacts::Decision(DecisionFacts::read(&event)?), ..Facts::default() };
            (EventKind::Decision, time(&event, "now")?, facts)
        } else {
            return Err(RuntimeEventError::Shape);
        };
        Ok(Self { id, kind, occurred_at, adapter_session_id, facts, json })
    }

    /// Its own id, if it came with one.
    pub fn id(&self) -> Option<&EventId> {
        self.id.as_ref()
    }

    /// What happened.
    pub fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// When it happened, if it says so.
    pub fn occurred_at(&self) -> Option<TimestampMs> {
        self.occurred_at
    }

    /// The harness's own session, if it names one.
    pub fn adapter_session_id(&self) -> Option<&AdapterSessionId> {
        self.adapter_session_id.as_ref()
    }

    /// The typed fields.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The JSON text.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The JSON text, given away.
    pub fn into_json(self) -> String {
        self.json
    }
}

/// A moment in Unix milliseconds; a fraction is dropped.
fn time(event: &Object<'_>, field: &'static str) -> Result<Option<TimestampMs>, RuntimeEventError> {
    let Some(raw) = event.get(field).filter(|raw| raw.get() != "null") else {
        return Ok(None);
    };
    if let Some(whole) = as_whole(raw) {
        return Ok(Some(TimestampMs(whole)));
    }
    match serde_json::from_str::<f64>(raw.get()) {
        Ok(ms) if ms.abs() < 9e15 => Ok(Some(TimestampMs(ms.floor() as i64))),
        _ => Err(RuntimeEventError::Field { field, expected: "a time in Unix milliseconds" }),
    }
}
