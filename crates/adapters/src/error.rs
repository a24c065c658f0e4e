//! What can be wrong with a harness's words.

use runledger_events::{EventKind, RuntimeEventError};

/// Words of a harness that no event can be made of.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The line is no JSON object. The translator is as it was before the line.
    #[error("a line of the harness is no JSON object: {source}; it begins {begins:?}")]
    NotAnObject {
        /// The line's first characters.
        begins: String,
        /// Where reading it stopped.
        source: serde_json::Error,
    },
    /// The event made of a line was refused, which is a mistake in the translator.
    #[error("the {kind} event made of a line was refused: {source}")]
    Event {
        /// The event's kind.
        kind: EventKind,
        /// Why it was refused.
        source: RuntimeEventError,
    },
}
