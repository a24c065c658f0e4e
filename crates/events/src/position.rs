//! Where and when: positions in the log, versions of a stream, moments in time.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! count {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            bincode::Encode, bincode::Decode,
        )]
        #[serde(transparent)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

count!(
    /// Order across all streams of one log, dense from 1; 0 is before the first event.
    Position,
    u64
);
count!(
    /// Events in a stream; an empty stream has 0, its first event is version 1.
    StreamVersion,
    u64
);
count!(
    /// Unix milliseconds.
    TimestampMs,
    i64
);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl StreamVersion {
    /// An empty stream's version.
    pub const EMPTY: Self = Self(0);

    /// The version after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
