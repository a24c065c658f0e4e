//! Exit statuses, as the command line promises them, and which error gives which.

use std::process::ExitCode;

use runledger_events::{IdError, RunStatus};
use runledger_projections::ProjectionError;
use runledger_store::{
    AppendError, BackupError, OpenError, ReadError, RedactError, RestoreError, SealError, StorageError,
};
use runledger_store_jetstream::JetStreamError;
use runledger_workflow::{CommandError, ConfigError, ForkError, HarnessError, ResumeError, RunError};

use crate::output::OutputError;

/// What the program exits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    /// The answer is no.
    No = 1,
    Usage = 2,
    CouldNotStart = 3,
    Failed = 4,
    Fenced = 5,
    TimedOut = 6,
    OutputFailed = 7,
    Blocked = 8,
    Exhausted = 9,
    /// The run waits for an answer.
    Waiting = 10,
    Cancelled = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The exit status of `exec` for a run that ended so.
    pub(crate) fn of_run(status: RunStatus, stop_reason: Option<&str>) -> Self {
        match status {
            RunStatus::Completed => Self::Done,
            RunStatus::Blocked => Self::Blocked,
            RunStatus::Exhausted => Self::Exhausted,
            RunStatus::Cancelled => Self::Cancelled,
            RunStatus::Failed if stop_reason == Some("timeout") => Self::TimedOut,
            RunStatus::Failed | RunStatus::Running | RunStatus::Interrupted => Self::Failed,
        }
    }
}

/// The answer is no: the message says to what.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct No(pub(crate) String);

/// The words of the command line do not fit together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The command could not begin its work: the message says why. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CouldNotStart(pub(crate) String);

/// The exit status for an error, by the first in its chain that has one.
pub(crate) fn of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(of_cause).unwrap_or(Exit::Failed)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if cause.is::<OutputError>() {
        return Some(Exit::OutputFailed);
    }
    if cause.is::<No>() {
        return Some(Exit::No);
    }
    if cause.is::<Usage>() || cause.is::<IdError>() {
        return Some(Exit::Usage);
    }
    if cause.is::<OpenError>()
        || cause.is::<JetStreamError>()
        || cause.is::<ConfigError>()
        || cause.is::<CouldNotStart>()
    {
        return Some(Exit::CouldNotStart);
    }
    if let Some(error) = cause.downcast_ref::<HarnessError>() {
        return Some(match error {
            HarnessError::NotFound { .. } | HarnessError::Spawn { .. } => Exit::CouldNotStart,
            HarnessError::Turn(_) => Exit::Failed,
        });
    }
    if let Some(error) = cause.downcast_ref::<RunError>() {
        return Some(match error {
            RunError::Fenced { .. } => Exit::Fenced,
            RunError::Resume(ResumeError::Unknown { .. }) => Exit::No,
            RunError::Resume(_) => Exit::CouldNotStart,
            RunError::Config(_) | RunError::Harness(_) => Exit::CouldNotStart,
            _ => Exit::Failed,
        });
    }
    if let Some(CommandError::Unknown { .. } | CommandError::Over { .. }) = cause.downcast_ref::<CommandError>() {
        return Some(Exit::No);
    }
    if let Some(error) = cause.downcast_ref::<ForkError>() {
        return match error {
            ForkError::Config(_) => Some(Exit::CouldNotStart),
            ForkError::Read(_) | ForkError::Append(_) | ForkError::Json(_) | ForkError::Event(_) => Some(Exit::Failed),
            _ => Some(Exit::No),
        };
    }
    if let Some(error) = cause.downcast_ref::<BackupError>() {
        return Some(match error {
            BackupError::Storage(_) => Exit::Failed,
            _ => Exit::CouldNotStart,
        });
    }
    if let Some(error) = cause.downcast_ref::<RestoreError>() {
        return match error {
            RestoreError::OtherLog { .. }
            | RestoreError::Newer { .. }
            | RestoreError::Apart { .. }
            | RestoreError::Empty { .. } => Some(Exit::No),
            RestoreError::Backup(error) => of_cause(error),
            RestoreError::Open(_) => Some(Exit::CouldNotStart),
            RestoreError::Storage(_) => Some(Exit::Failed),
        };
    }
    if let Some(error) = cause.downcast_ref::<RedactError>() {
        return Some(match error {
            RedactError::NoEvent { .. } | RedactError::OfLedger { .. } => Exit::No,
            RedactError::Event { .. } | RedactError::NewEvent(_) => Exit::Usage,
            RedactError::Open(_) => Exit::CouldNotStart,
            RedactError::Append(_) | RedactError::Storage(_) => Exit::Failed,
        });
    }
    if let Some(error) = cause.downcast_ref::<SealError>() {
        return Some(match error {
            SealError::Key { .. } | SealError::Open(_) => Exit::CouldNotStart,
            SealError::Random { .. } | SealError::Event { .. } | SealError::Append(_) | SealError::Storage(_) => {
                Exit::Failed
            }
        });
    }
    if let Some(error) = cause.downcast_ref::<ProjectionError>() {
        return Some(match error {
            ProjectionError::Open(_)
            | ProjectionError::NewerFile { .. }
            | ProjectionError::ForeignFile { .. }
            | ProjectionError::NewerProjection { .. }
            | ProjectionError::NotBuilt { .. }
            | ProjectionError::File { .. } => Exit::CouldNotStart,
            ProjectionError::NoRun { .. } | ProjectionError::Unreadable { .. } => Exit::No,
            ProjectionError::Unknown { .. } => Exit::Usage,
            _ => Exit::Failed,
        });
    }
    let is_of_the_log = cause.is::<AppendError>() || cause.is::<ReadError>() || cause.is::<StorageError>();
    is_of_the_log.then_some(Exit::Failed)
}

/// Whether the reader of our output has gone away, which needs no words.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<OutputError>())
        .any(|error| error.0.kind() == std::io::ErrorKind::BrokenPipe)
}
