//! Harnesses: the agent programs that do a run's work, one turn at a time.

pub(crate) mod claude;
pub(crate) mod codex;
pub(crate) mod command;
mod lines;
mod process;

use std::collections::BTreeMap;
use std::path::PathBuf;

use runledger_events::{AdapterSessionId, Continuation, ProcessId, RuntimeEvent, Tokens};

use crate::decide::TransportCheck;
use crate::error::HarnessError;

/// One turn that a harness is asked to make.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Which iteration it is, from 1.
    pub iteration: u32,
    /// The prompt.
    pub prompt: String,
    /// How it continues what the harness did before.
    pub continuation: Continuation,
    /// Instructions beside the prompt, if the workflow has any.
    pub instructions: Option<Instructions>,
    /// The model to use, if the workflow names one.
    pub model: Option<String>,
    /// Environment variables for the harness, beside those it inherits.
    pub env: BTreeMap<String, String>,
    /// Where it works.
    pub project_dir: PathBuf,
    /// Whether it is to make the call that the turn before was ended for; such a turn has no prompt.
    pub makes_deferred_call: bool,
}

/// Instructions for the harness, in a file and as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instructions {
    /// A file that holds the text.
    pub file: PathBuf,
    /// The text.
    pub text: String,
}

/// What a turn came to, as the harness tells it.
#[derive(Debug, Clone, Default)]
pub struct TurnResult {
    /// The exit code; none where there was no process, or a signal ended it.
    pub exit_code: Option<i32>,
    /// An error; its message may be empty.
    pub error: Option<String>,
    /// The last line on standard error.
    pub last_stderr: Option<String>,
    /// What it cost.
    pub tokens: Tokens,
    /// What stream and hooks saw of each other, where the harness has both.
    pub transport: Option<TransportCheck>,
    /// The harness's own name of the call that it ended for, where a hook deferred one.
    pub deferred_tool_use_id: Option<String>,
}

/// Why a turn has to end before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Somebody cancelled the run: tell the harness, and give it a moment.
    Cancelled,
    /// The run's time is up: tell the harness, and give it a moment.
    TimedOut,
    /// End it at once: a second request to cancel, another owner, or a log that takes no more.
    Now,
}

/// Where a harness puts what happens during a turn, and hears whether to go on.
pub trait TurnDesk {
    /// Writes events to the log; returns once they are on disk.
    ///
    /// # Errors
    /// [`Stop`] when the turn has to end; the harness ends its processes and returns.
    fn record(&mut self, events: Vec<RuntimeEvent>) -> Result<(), Stop>;

    /// Notes the harness's own session, as soon as it is known.
    ///
    /// # Errors
    /// As [`TurnDesk::record`].
    fn name_session(&mut self, id: &AdapterSessionId) -> Result<(), Stop>;

    /// Notes the harness's process, which leads a process group of its own, as soon as it runs.
    ///
    /// # Errors
    /// As [`TurnDesk::record`].
    fn note_process(&mut self, process: ProcessId) -> Result<(), Stop>;

    /// To be called at least every 100 ms.
    ///
    /// # Errors
    /// As [`TurnDesk::record`].
    fn check(&mut self) -> Result<(), Stop>;

    /// Whether the harness is to rest until further notice. What it was told last; [`TurnDesk::check`] looks anew.
    fn is_paused(&self) -> bool;
}

/// An agent program.
pub trait Harness: Send {
    /// Its name, as the run records it.
    fn name(&self) -> &str;

    /// Its program and arguments, where the name alone does not say what to run.
    fn program(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether it can take up a session of its own again, by its id.
    fn resumes_sessions(&self) -> bool {
        false
    }

    /// Makes one turn, from prompt to end. When the desk says stop, it ends every process it started, and returns.
    ///
    /// # Errors
    /// [`HarnessError`] when the turn could not be made at all; the run fails with its message.
    fn run_turn(&mut self, turn: &Turn, desk: &mut dyn TurnDesk) -> Result<TurnResult, HarnessError>;
}
