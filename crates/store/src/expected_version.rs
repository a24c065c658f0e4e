//! The condition of an append.

use std::fmt;

use runledger_events::StreamVersion;

/// What a stream has to be for an append to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Whatever it is.
    Any,
    /// Empty.
    NoStream,
    /// Not empty.
    StreamExists,
    /// At this version.
    Exact(StreamVersion),
}

impl ExpectedVersion {
    /// Whether a stream at this version will do.
    pub fn holds(self, actual: StreamVersion) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == StreamVersion::EMPTY,
            Self::StreamExists => actual > StreamVersion::EMPTY,
            Self::Exact(version) => actual == version,
        }
    }

    /// Whether the position in the stream does not matter.
    pub(crate) fn is_loose(self) -> bool {
        matches!(self, Self::Any | Self::StreamExists)
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::StreamExists => f.write_str("a stream with events"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}
