//! The `claude` harness: Claude Code without a terminal, its stream of JSON lines turned into events as it comes.

use std::path::{Path, PathBuf};
use std::process::Command;

use runledger_adapters::ClaudeStream;
use runledger_events::{Continuation, RuntimeEvent};

use super::{Harness, Stop, Turn, TurnDesk, TurnResult, process};
use crate::desk::now;
use crate::error::HarnessError;

/// The longest line of the stream taken in one piece; tool results can be large.
const LINE_BYTES_MAX: u64 = 64 << 20;

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

    fn run_turn(&mut self, turn: &Turn, desk: &mut dyn TurnDesk) -> Result<TurnResult, HarnessError> {
        let mut stream = ClaudeStream::new();
        let mut has_session = false;
        let program = self.program.display().to_string();
        let ended = process::run(self.command(turn), &program, LINE_BYTES_MAX, turn, desk, |line, desk| {
            let Some(line) = line else {
                return Ok(());
            };
            let text = String::from_utf8_lossy(line);
            if text.trim().is_empty() {
                return Ok(());
            }
            let events = match stream.line(text.trim(), now()) {
                Ok(events) => events,
                Err(error) => vec![stray_line(text.trim_end(), &error.to_string())?],
            };
            if !has_session && let Some(id) = stream.adapter_session_id() {
                desk.name_session(id)?;
                has_session = true;
            }
            desk.record(events)
        })?;
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
        let signalled = ended.signal.map(|signal| format!("claude was ended by signal {signal}"));
        // Without a result line nobody said that the turn came to its end.
        let unfinished =
            (outcome.is_none() && ended.exit_code == Some(0)).then(|| "claude ended without a result line".to_owned());
        Ok(TurnResult {
            exit_code: ended.exit_code,
            error: failed.or(signalled).or(unfinished),
            last_stderr: ended.last_stderr,
            tokens: stream.tokens(),
            transport: None,
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

/// A line that is no JSON: kept, as the text that it is.
fn stray_line(line: &str, error: &str) -> Result<RuntimeEvent, Stop> {
    let data = serde_json::json!({"source_event_name": "stdout", "text": line, "error": error});
    RuntimeEvent::from_json(&serde_json::json!({"kind": "unknown", "data": data}).to_string()).map_err(|error| {
        tracing::error!(%error, "a line of the claude harness does not read back");
        Stop::Now
    })
}
