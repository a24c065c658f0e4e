//! The `claude` harness: Claude Code without a terminal, its stream of JSON lines turned into events as it comes.

use std::path::{Path, PathBuf};
use std::process::Command;

use runledger_adapters::ClaudeStream;
use runledger_events::Continuation;

use super::{Harness, Turn, TurnDesk, TurnResult, lines, process};
use crate::error::HarnessError;

/// Claude Code, run as `claude -p --output-format stream-json --verbose`, with the prompt on standard input.
#[derive(Debug, Clone)]
pub struct ClaudeHarness {
    program: PathBuf,
}

impl ClaudeHarness {
    /// Looks `claude` up in `PATH`.
    ///
    /// # Errors
    /// [`HarnessError::NotFound`].
    pub fn new(project_dir: &Path) -> Result<Self, HarnessError> {
        Ok(Self { program: process::find_program("claude", "claude", project_dir)? })
    }
}

impl Harness for ClaudeHarness {
    fn name(&self) -> &str {
        "claude"
    }

    fn resumes_sessions(&self) -> bool {
        true
    }

    fn run_turn(&mut self, turn: &Turn, desk: &mut dyn TurnDesk) -> Result<TurnResult, HarnessError> {
        let mut stream = ClaudeStream::new();
        let program = self.program.display().to_string();
        let session_of = ClaudeStream::adapter_session_id;
        let ended = lines::run(self.command(turn), &program, turn, desk, &mut stream, session_of)?;
        let outcome = stream.outcome();
        let failed = outcome.filter(|outcome| outcome.is_error).map(|outcome| {
            let errors = outcome.errors.join("; ");
            [
                outcome.result.as_deref(),
                Some(errors.as_str()),
                outcome.terminal_reason.as_deref(),
                outcome.subtype.as_deref(),
            ]
            .into_iter()
            .flatten()
            .find(|text| !text.is_empty())
            .unwrap_or("the turn failed")
            .to_owned()
        });
        let error = failed.or_else(|| lines::failure("claude", &ended, outcome.is_some(), "a result line"));
        Ok(TurnResult {
            exit_code: ended.exit_code,
            error,
            last_stderr: ended.last_stderr,
            tokens: stream.tokens(),
            transport: None,
            deferred_tool_use_id: outcome.and_then(|outcome| outcome.deferred_tool_use_id.clone()),
        })
    }
}

impl ClaudeHarness {
    fn command(&self, turn: &Turn) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-p", "--output-format", "stream-json", "--verbose"]);
        match &turn.continuation {
            Continuation::Fresh => {}
            Continuation::Resume { handle } => {
                command.args(["--resume", handle]);
            }
            Continuation::ReuseCurrent => {
                command.arg("--continue");
            }
        }
        if let Some(model) = &turn.model {
            command.args(["--model", model]);
        }
        if let Some(instructions) = &turn.instructions {
            command.arg("--append-system-prompt-file").arg(&instructions.file);
        }
        command
    }
}
