//! Errors of questions: which question, what became of it, and what to do next.

use runledger_events::{
    IdError, LogId, PatternError, Position, ProcessId, RequestId, RunId, RuntimeEventError, TimestampMs,
};
use runledger_store::{AppendError, NewEventError, OpenError, ReadError, StorageError};

use super::settled::Settled;

/// The log could not be read or written, or an event not be made.
#[derive(Debug, thiserror::Error)]
pub enum RelayLogError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Appending failed; the outcome is unknown, and the same may be tried again.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Another reader of the log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An event is too large.
    #[error("an event cannot be made: {0}")]
    Event(#[from] NewEventError),
    /// An event cannot be written as JSON.
    #[error("an event cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An event's JSON does not read back: the tool's input is no JSON.
    #[error("an event does not read back: {0}")]
    ReadBack(#[from] RuntimeEventError),
    /// A name cannot be taken.
    #[error(transparent)]
    Id(#[from] IdError),
}

impl From<StorageError> for RelayLogError {
    fn from(error: StorageError) -> Self {
        Self::Read(error.into())
    }
}

/// Why a question was not put. Nothing was appended, unless the log failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Another question has this name.
    #[error(
        "request {request_id}: another question, on {tool}, has this name at position {position}; a call has to have a \
         name of its own"
    )]
    Different {
        /// The name.
        request_id: RequestId,
        /// The tool that the other one is on.
        tool: String,
        /// Where the other one stands.
        position: Position,
    },
    /// The question is a copy out of another log.
    #[error("request {request_id}: it was put in another log ({log_id}), and is waited for there")]
    Elsewhere {
        /// The question.
        request_id: RequestId,
        /// That log.
        log_id: LogId,
    },
    /// Its stream begins with something else.
    #[error("request {request_id}: its stream does not begin with a question; `verify` tells more")]
    NoQuestion {
        /// The name.
        request_id: RequestId,
    },
    /// The log failed.
    #[error("request {request_id}: {source}")]
    Log {
        /// The question.
        request_id: RequestId,
        /// Why.
        source: RelayLogError,
    },
}

/// Why a decision does not count.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// There is no such question; nothing was appended.
    #[error("there is no request {request_id}; `runledger pending` lists those that wait")]
    Unknown {
        /// The name.
        request_id: RequestId,
    },
    /// Somebody was first; nothing was appended.
    #[error("request {request_id} is decided already: {settled}")]
    AlreadyDecided {
        /// The question.
        request_id: RequestId,
        /// Who, how and when.
        settled: Box<Settled>,
    },
    /// Its time was up; what was wanted was recorded, and changes nothing.
    #[error(
        "request {request_id} has expired: nobody decided in time; this decision was recorded, and changes nothing"
    )]
    Expired {
        /// The question.
        request_id: RequestId,
        /// Until when it could be answered.
        due_at: Option<TimestampMs>,
        /// What it came to.
        settled: Box<Settled>,
    },
    /// It needs no answer any more; nothing was appended.
    #[error("request {request_id} needs no answer any more: {settled}")]
    Withdrawn {
        /// The question.
        request_id: RequestId,
        /// Why and when.
        settled: Box<Settled>,
    },
    /// The question is a copy out of another log; nothing was appended.
    #[error("request {request_id}: it was put in another log ({log_id}); decide it there")]
    Elsewhere {
        /// The question.
        request_id: RequestId,
        /// That log.
        log_id: LogId,
    },
    /// The decision does not fit the question; nothing was appended.
    #[error("request {request_id}: {source}")]
    Unfit {
        /// The question.
        request_id: RequestId,
        /// Why.
        source: UnfitVerdict,
    },
    /// The log failed.
    #[error("request {request_id}: {source}")]
    Log {
        /// The question.
        request_id: RequestId,
        /// Why.
        source: RelayLogError,
    },
}

/// A decision that does not fit its question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnfitVerdict {
    /// Answers to what is no question.
    #[error("it asks for permission, not for answers; allow or deny it")]
    NoQuestion,
    /// A question is not answered by a yes.
    #[error("it asks {0}; answer each question, or deny it")]
    NotAnswered(String),
    /// It asks nothing of this name.
    #[error("it does not ask {name}; it asks {asked}")]
    NotAsked {
        /// The name.
        name: String,
        /// What it asks.
        asked: String,
    },
    /// Answers hold once.
    #[error("answers hold for this one question; leave out how far they reach")]
    OnceOnly,
    /// It belongs to no run.
    #[error("it belongs to no workflow run, so the decision can hold for this call alone")]
    NoRun,
    /// It names a run that is not in the log.
    #[error("its run {0} is not in this ledger, so the decision can hold for this call alone, or for every run")]
    UnknownRun(RunId),
    /// There are no calls that the decision could be on.
    #[error("a decision that is to hold for more than this call needs a pattern of the calls it is on")]
    NoPattern,
    /// The pattern is none.
    #[error("it cannot hold for more than this call: {0}")]
    BadPattern(PatternError),
    /// The pattern is on other calls.
    #[error("{pattern} is on no part of this call, so it cannot be what the decision is on{}", likely(.fitting.as_deref()))]
    PatternElsewhere {
        /// The pattern.
        pattern: String,
        /// One that fits the call.
        fitting: Option<String>,
    },
}

fn likely(fitting: Option<&str>) -> String {
    fitting.map_or_else(String::new, |fitting| format!("; {fitting} is"))
}

/// Why a question was not ended by its time.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// There is no such question.
    #[error("there is no request {request_id}")]
    Unknown {
        /// The name.
        request_id: RequestId,
    },
    /// The log failed.
    #[error("request {request_id}: {source}")]
    Log {
        /// The question.
        request_id: RequestId,
        /// Why.
        source: RelayLogError,
    },
}

/// Why a question was not withdrawn. Nothing was appended, unless the log failed.
#[derive(Debug, thiserror::Error)]
pub enum WithdrawError {
    /// There is no such question.
    #[error("there is no request {request_id}")]
    Unknown {
        /// The name.
        request_id: RequestId,
    },
    /// It is settled already.
    #[error("request {request_id} is settled already: {settled}")]
    Settled {
        /// The question.
        request_id: RequestId,
        /// How.
        settled: Box<Settled>,
    },
    /// Somebody else waits for it.
    #[error("request {request_id} is another's: {}; it can be decided by anybody, but withdrawn by its owner alone", owner(waiter.as_ref()))]
    NotYours {
        /// The question.
        request_id: RequestId,
        /// The process that waits for it; none where a run's runner has it.
        waiter: Option<ProcessId>,
    },
    /// The log failed.
    #[error("request {request_id}: {source}")]
    Log {
        /// The question.
        request_id: RequestId,
        /// Why.
        source: RelayLogError,
    },
}

fn owner(waiter: Option<&ProcessId>) -> String {
    match waiter {
        Some(process) => format!("process {} on {} waits for it", process.pid, process.host),
        None => "its run waits for it".to_owned(),
    }
}

/// Gives each error of the log the question that it is about.
macro_rules! of_the_log {
    ($($name:ident),*) => {$(
        impl $name {
            pub(crate) fn log(request_id: &RequestId, source: impl Into<RelayLogError>) -> Self {
                Self::Log { request_id: request_id.clone(), source: source.into() }
            }
        }
    )*};
}
of_the_log!(AskError, DecideError, ExpireError, WithdrawError);
