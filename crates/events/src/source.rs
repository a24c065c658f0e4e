//! Who told an event: the source, which the id of every event that an adapter makes begins with.
//!
//! One fact can be told several times (a hook, the stream and the transcript of one Claude Code session all tell of the
//! same tool call). Ids are never erased, so a fold knows the teller of an event whose content is gone too.

use crate::ids::{EventId, IdError};

/// What the ids of notes begin with: what an import writes of a session itself, which nobody told while it went on. A note
/// counts for its session and is no entry of its timeline.
pub const NOTE_PREFIX: &str = "import:note:";

/// Who told an event. The order is that of precedence: of two tellers of one fact the earlier one's words are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A runtime that writes RuntimeEvents itself; also every event whose id says nothing else.
    Runtime,
    /// A hook of the harness: `hook:…`.
    Hook,
    /// The harness's standard output: `stream:…` (Claude Code's `stream-json`, `codex exec --json`).
    Stream,
    /// The record that the harness keeps itself: `transcript:…` (Claude Code's transcript, Codex's rollout).
    Transcript,
}

impl Source {
    /// What the ids of its events begin with; nothing for a runtime's.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Runtime => "",
            Self::Hook => "hook:",
            Self::Stream => "stream:",
            Self::Transcript => "transcript:",
        }
    }

    /// The teller of the event with this id.
    pub fn of(id: &EventId) -> Self {
        [Self::Hook, Self::Stream, Self::Transcript]
            .into_iter()
            .find(|source| id.as_str().starts_with(source.prefix()))
            .unwrap_or(Self::Runtime)
    }

    /// The id of an event of this source, from what the source itself calls it.
    ///
    /// # Errors
    /// [`IdError`] when `name` is empty (for a runtime) or too long.
    pub fn event_id(self, name: &str) -> Result<EventId, IdError> {
        EventId::new(format!("{}{name}", self.prefix()))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn the_teller_is_read_back_from_the_id_it_made() {
        for source in [Source::Runtime, Source::Hook, Source::Stream, Source::Transcript] {
            let id = source.event_id("0198-a").expect("an id");
            assert_eq!(Source::of(&id), source);
        }
    }
}
