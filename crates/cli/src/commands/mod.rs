//! The commands, one a file.

pub(crate) mod archive;
pub(crate) mod backup;
pub(crate) mod cancel;
pub(crate) mod context;
pub(crate) mod decide;
pub(crate) mod doctor;
pub(crate) mod drive;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod feed;
pub(crate) mod fork;
pub(crate) mod hook;
pub(crate) mod import;
pub(crate) mod ingest;
pub(crate) mod pending;
pub(crate) mod rebuild_projections;
pub(crate) mod redact;
pub(crate) mod restore;
pub(crate) mod resume;
pub(crate) mod rules;
pub(crate) mod run_tree;
pub(crate) mod runs;
pub(crate) mod seal;
pub(crate) mod serve;
pub(crate) mod sessions;
pub(crate) mod show;
pub(crate) mod signal;
pub(crate) mod status;
pub(crate) mod sweep;
pub(crate) mod transfer;
pub(crate) mod verify;

use runledger_events::SessionId;

/// A session's name on the command line or in the environment; an empty one, as an unset variable may give it, is none.
#[derive(Debug, Clone)]
pub(crate) struct SessionArg(Option<SessionId>);

impl std::str::FromStr for SessionArg {
    type Err = runledger_events::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Self(None)) } else { SessionId::new(text).map(|id| Self(Some(id))) }
    }
}

impl SessionArg {
    /// The session, where one is named.
    pub(crate) fn id(argument: Option<&Self>) -> Option<SessionId> {
        argument.and_then(|argument| argument.0.clone())
    }
}
