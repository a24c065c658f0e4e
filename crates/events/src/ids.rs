//! The names of things: events, sessions, runs, streams and logs, each a type of its own. A copy shares the text.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The name is empty.
    #[error("{what} is empty; give it at least one character")]
    Empty {
        /// Which name.
        what: &'static str,
    },
    /// The name is longer than the ledger takes.
    #[error("{what} has {bytes} bytes; at most {max} are taken")]
    TooLong {
        /// Which name.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The longest taken, in bytes.
        max: usize,
    },
}

/// The longest name taken, in bytes. Harness ids are under 100; the bound keeps index pages readable.
const ID_BYTES_MAX: usize = 1024;
/// A stream's name is an id behind a short prefix.
const STREAM_BYTES_MAX: usize = ID_BYTES_MAX + 16;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as it is.
            ///
            /// # Errors
            /// [`IdError`] when it is empty or too long.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, IdError> {
                let text = text.into();
                if text.is_empty() {
                    return Err(IdError::Empty { what: $what });
                }
                if text.len() > $max {
                    return Err(IdError::TooLong { what: $what, bytes: text.len(), max: $max });
                }
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl bincode::Encode for $name {
            fn encode<E: bincode::enc::Encoder>(&self, e: &mut E) -> Result<(), bincode::error::EncodeError> {
                self.as_str().encode(e)
            }
        }

        impl<C> bincode::Decode<C> for $name {
            fn decode<D: bincode::de::Decoder<Context = C>>(d: &mut D) -> Result<Self, bincode::error::DecodeError> {
                Self::new(String::decode(d)?).map_err(|error| bincode::error::DecodeError::OtherString(error.to_string()))
            }
        }

        impl<'de, C> bincode::BorrowDecode<'de, C> for $name {
            fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
                d: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                <Self as bincode::Decode<C>>::decode(d)
            }
        }
    };
}

id!(
    /// An event's id: the harness's own as it came, else a UUIDv7. Unique within its stream.
    EventId,
    "an event id",
    ID_BYTES_MAX
);
id!(
    /// A ledger session: it groups adapter sessions and workflow runs.
    SessionId,
    "a session id",
    ID_BYTES_MAX
);
id!(
    /// The harness's own session id.
    AdapterSessionId,
    "an adapter session id",
    ID_BYTES_MAX
);
id!(
    /// A workflow run's id: a UUIDv7 where this program made it.
    RunId,
    "a workflow run id",
    ID_BYTES_MAX
);
id!(
    /// A question to whoever can answer it: the harness's own name of what is asked, behind its session's.
    RequestId,
    "a request id",
    ID_BYTES_MAX
);
id!(
    /// The UUID of one log, made with it.
    LogId,
    "a log id",
    ID_BYTES_MAX
);
id!(
    /// A stream's name: `session/…`, `run/…`, `request/…` or `rules/…`.
    StreamName,
    "a stream name",
    STREAM_BYTES_MAX
);

const SESSION_PREFIX: &str = "session/";
const RUN_PREFIX: &str = "run/";
const REQUEST_PREFIX: &str = "request/";
const RULES_PREFIX: &str = "rules/";

impl RequestId {
    /// The question about a call: the harness's name of it, behind its session's.
    ///
    /// # Errors
    /// [`IdError`] when both together are too long.
    pub fn of_call(adapter_session_id: &AdapterSessionId, name: &str) -> Result<Self, IdError> {
        Self::new(format!("{adapter_session_id}:{name}"))
    }
}

impl StreamName {
    /// The stream of a session's harness events.
    pub fn session(id: &SessionId) -> Self {
        Self(format!("{SESSION_PREFIX}{id}").into())
    }

    /// The stream of a workflow run's own events.
    pub fn run(id: &RunId) -> Self {
        Self(format!("{RUN_PREFIX}{id}").into())
    }

    /// The stream of a question.
    pub fn request(id: &RequestId) -> Self {
        Self(format!("{REQUEST_PREFIX}{id}").into())
    }

    /// The stream of the decisions that hold for every run of a workflow; of runs without one where it has no name.
    ///
    /// # Errors
    /// [`IdError`] when the workflow's name is too long.
    pub fn rules(workflow_name: Option<&str>) -> Result<Self, IdError> {
        Self::new(format!("{RULES_PREFIX}{}", workflow_name.unwrap_or_default()))
    }

    /// The stream of what was erased, and why.
    pub fn redactions() -> Self {
        Self("ledger/redactions".into())
    }

    /// The stream of what came to the log without its content, from elsewhere.
    pub fn arrivals() -> Self {
        Self("ledger/arrivals".into())
    }

    /// The stream of the log's seals.
    pub fn seals() -> Self {
        Self("ledger/seals".into())
    }

    /// Whether what was done to the ledger stands in it.
    pub fn is_of_ledger(&self) -> bool {
        [Self::redactions(), Self::arrivals(), Self::seals()].contains(self)
    }

    /// The question whose stream this is, if it is one.
    pub fn request_id(&self) -> Option<RequestId> {
        self.0.strip_prefix(REQUEST_PREFIX).and_then(|id| RequestId::new(id).ok())
    }

    /// The workflow whose decisions stand in it, if any do and it has a name.
    pub fn rules_workflow(&self) -> Option<&str> {
        self.0.strip_prefix(RULES_PREFIX).filter(|name| !name.is_empty())
    }

    /// Whether decisions that hold for every run of a workflow stand in it.
    pub fn is_rules(&self) -> bool {
        self.0.starts_with(RULES_PREFIX)
    }

    /// The session whose stream this is, if it is one.
    pub fn session_id(&self) -> Option<SessionId> {
        self.0.strip_prefix(SESSION_PREFIX).and_then(|id| SessionId::new(id).ok())
    }

    /// The workflow run whose stream this is, if it is one.
    pub fn run_id(&self) -> Option<RunId> {
        self.0.strip_prefix(RUN_PREFIX).and_then(|id| RunId::new(id).ok())
    }
}
