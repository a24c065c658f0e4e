//! Errors of the write half: what could not start, what went wrong while running, and what to do next.

use std::path::PathBuf;

use runledger_events::{IdError, Position, RunId, RunStatus};
use runledger_store::{AppendError, NewEventError, OpenError, ReadError};

use crate::decide::Rejected;

/// A workflow file, or a path in it, that cannot be used. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("workflow file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no workflow.
    #[error("workflow file {path}: {source}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A path leads out of the project directory.
    #[error("{what} {path} leads out of the project directory {project_dir}; name a path inside it")]
    Outside {
        /// Which path.
        what: &'static str,
        /// The path.
        path: String,
        /// The project directory.
        project_dir: PathBuf,
    },
    /// The project directory cannot be used.
    #[error("project directory {path}: {source}")]
    ProjectDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tracker, or the composed instructions, cannot be written.
    #[error("{what} {path} cannot be written: {source}")]
    Write {
        /// Which file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A harness that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// There is no such program.
    #[error("harness {harness}: there is no program {program}; install it, or name another after `--`")]
    NotFound {
        /// The harness.
        harness: String,
        /// The program.
        program: String,
    },
    /// The program cannot be started.
    #[error("{program}: cannot be started: {source}; where the file is there, see that its first line names a program")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The turn broke off.
    #[error("{0}")]
    Turn(String),
}

/// Why a run cannot be taken up. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// There is none.
    #[error("there is no run {run_id}; `runledger runs` lists them")]
    Unknown {
        /// What was asked for.
        run_id: RunId,
    },
    /// It has ended.
    #[error(
        "run {run_id} is over: {status}; `runledger fork {run_id} --iteration N` begins another one where an iteration left it"
    )]
    Over {
        /// The run.
        run_id: RunId,
        /// How it ended.
        status: RunStatus,
    },
    /// Its owner is at work.
    #[error(
        "run {run_id} is driven by process {pid} on {host}, which is at work; end it, or take the run from it with \
         `--take-over`"
    )]
    Alive {
        /// The run.
        run_id: RunId,
        /// Where its owner is.
        host: String,
        /// The owner's process.
        pid: u32,
    },
    /// Whether its owner is at work cannot be known from here.
    #[error(
        "run {run_id} was driven by process {pid} on {host}, of which nothing can be known from here; if it is gone, \
         `--take-over` takes the run from it"
    )]
    OwnerUnknown {
        /// The run.
        run_id: RunId,
        /// Where its owner was.
        host: String,
        /// The owner's process.
        pid: u32,
    },
    /// What it was to do was erased.
    #[error("run {run_id} cannot be taken up: its prompt or project directory was erased, or was never told")]
    Erased {
        /// The run.
        run_id: RunId,
    },
    /// What it was to do cannot be read.
    #[error("run {run_id} cannot be taken up: its first event does not read: {source}")]
    Damaged {
        /// The run.
        run_id: RunId,
        /// Why.
        source: serde_json::Error,
    },
}

/// Why a run could not be started, or not be carried to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The workflow cannot be used; nothing was written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The harness cannot be used; nothing was written.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// The run cannot be taken up; nothing was written.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// Another owner has the run; the harness was ended, and nothing was written since.
    #[error("run {run_id}: another owner has taken it over (term {term}); this one has stopped")]
    Fenced {
        /// The run.
        run_id: RunId,
        /// The new owner's term.
        term: u64,
    },
    /// Appending kept failing; the harness was ended. What was acknowledged is in the log, and the run can be resumed.
    #[error("run {run_id}: what happened could not be written for {seconds} s, so the run was stopped: {source}")]
    Append {
        /// The run.
        run_id: RunId,
        /// How long it was tried.
        seconds: u64,
        /// The last failure.
        source: AppendError,
    },
    /// The run's stream cannot be read.
    #[error("run {run_id}: {source}")]
    Read {
        /// The run.
        run_id: RunId,
        /// Why.
        source: ReadError,
    },
    /// The run is not in a state for what was asked.
    #[error("run {run_id}: {source}")]
    Rejected {
        /// The run.
        run_id: RunId,
        /// Why.
        source: Rejected,
    },
    /// An event cannot be made.
    #[error("an event cannot be made: {0}")]
    Event(#[from] NewEventError),
    /// An event cannot be written as JSON.
    #[error("an event cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An event's JSON does not read back.
    #[error("an event does not read back: {0}")]
    ReadBack(#[from] runledger_events::RuntimeEventError),
    /// A name cannot be taken.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Why a run could not be told something.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is none. Nothing was appended.
    #[error("there is no run {run_id}; `runledger runs` lists them")]
    Unknown {
        /// What was asked for.
        run_id: RunId,
    },
    /// It has ended. Nothing was appended.
    #[error("run {run_id} is over: {status}")]
    Over {
        /// The run.
        run_id: RunId,
        /// How it ended.
        status: RunStatus,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The run cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// No thread can be started.
    #[error("a thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// The run was told, and could not be carried on from there.
    #[error(transparent)]
    Run(#[from] RunError),
    /// An event cannot be made.
    #[error("an event cannot be made: {0}")]
    Event(#[from] NewEventError),
    /// An event does not read back.
    #[error("an event does not read back: {0}")]
    ReadBack(#[from] runledger_events::RuntimeEventError),
}

/// Why a run could not be forked. Nothing was appended, and no file is left.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// There is none.
    #[error("there is no run {run_id}; `runledger runs` lists them")]
    Unknown {
        /// What was asked for.
        run_id: RunId,
    },
    /// The point is none of the run.
    #[error(
        "position {point} is not one of run {run_id}, which begins at {begins}; `runledger show {run_id}` has its positions"
    )]
    Outside {
        /// The run.
        run_id: RunId,
        /// The point.
        point: Position,
        /// The run's first position.
        begins: Position,
    },
    /// The iteration has no end to begin from.
    #[error("run {run_id} has no iteration {iteration} that has ended; it has begun {last}")]
    NoIteration {
        /// The run.
        run_id: RunId,
        /// The iteration.
        iteration: u32,
        /// Iterations begun.
        last: u32,
    },
    /// The iteration is of the run that this one was forked from.
    #[error("iteration {iteration} of run {run_id} is one of run {origin}, which it was forked from; fork that one")]
    OfOrigin {
        /// The run.
        run_id: RunId,
        /// The iteration.
        iteration: u32,
        /// Where it was forked from.
        origin: RunId,
    },
    /// Both runs would write to one tracker.
    #[error(
        "a fork of run {run_id} would share its tracker {path}; put {{sessionId}} into the workflow's trackerPath, and run it anew"
    )]
    SharedTracker {
        /// The run.
        run_id: RunId,
        /// The tracker.
        path: String,
    },
    /// The tracker was not recorded as a whole.
    #[error(
        "run {run_id} had a tracker of {bytes} bytes after iteration {iteration}, of which the beginning alone was recorded; fork \
         it at an earlier iteration, or keep trackers shorter than 64 KiB"
    )]
    LongTracker {
        /// The run.
        run_id: RunId,
        /// The iteration that left it so.
        iteration: u32,
        /// Its length.
        bytes: u64,
    },
    /// What is needed was erased.
    #[error("run {run_id} cannot be forked there: {what} was erased, or does not read")]
    Erased {
        /// The run.
        run_id: RunId,
        /// What.
        what: &'static str,
    },
    /// The tracker cannot be written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The run cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log did not take it.
    #[error(transparent)]
    Append(AppendError),
    /// A name cannot be taken.
    #[error(transparent)]
    Id(#[from] IdError),
    /// An event cannot be written as JSON.
    #[error("an event cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An event cannot be made.
    #[error("an event cannot be made: {0}")]
    Event(String),
}
