//! The `command` harness: any program, run once a turn in the project directory, prompt on standard input.
//!
//! What it writes to standard output is its message: told while it works as `message.delta`, about once a second, and
//! at the end as one `message.complete`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use runledger_events::{RuntimeEvent, RuntimeEventError};

use super::{Harness, Turn, TurnDesk, TurnResult, process};
use crate::error::HarnessError;

/// How often a message is told while it grows.
const DELTA_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a whole message, at the most; of a longer one the end is kept, behind a note. Its deltas have it all.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// The longest line taken in one piece.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Any program.
#[derive(Debug, Clone)]
pub struct CommandHarness {
    program: PathBuf,
    arguments: Vec<String>,
}

impl CommandHarness {
    /// A program and its arguments. A relative path is looked for where the caller stands, then in the project
    /// directory; a bare name in `PATH`.
    ///
    /// # Errors
    /// [`HarnessError::NotFound`].
    pub fn new(program: &str, arguments: Vec<String>, project_dir: &Path) -> Result<Self, HarnessError> {
        Ok(Self { program: process::find_program("command", program, project_dir)?, arguments })
    }
}

impl Harness for CommandHarness {
    fn name(&self) -> &str {
        "command"
    }

    fn program(&self) -> Vec<String> {
        let program = self.program.to_string_lossy().into_owned();
        std::iter::once(program).chain(self.arguments.iter().cloned()).collect()
    }

    fn run_turn(&mut self, turn: &Turn, desk: &mut dyn TurnDesk) -> Result<TurnResult, HarnessError> {
        let mut command = Command::new(&self.program);
        crate::environment::confine(&mut command);
        command.args(&self.arguments).env_remove("RUNLEDGER_INSTRUCTIONS");
        if let Some(instructions) = &turn.instructions {
            command.env("RUNLEDGER_INSTRUCTIONS", &instructions.file);
        }
        let mut message = Message::new(turn.iteration);
        let program = self.program.display().to_string();
        let ended = process::run(command, &program, LINE_BYTES_MAX, turn, desk, |line, desk| {
            if let Some(line) = line {
                message.push(line);
            }
            match message.delta() {
                Some(event) => desk.record(vec![read_back(event)?]),
                None => Ok(()),
            }
        })?;
        if ended.stopped != Some(super::Stop::Now) {
            let last = message.rest().into_iter().chain(message.complete());
            // Where the desk says stop, the runner knows it too.
            let _ = last.map(read_back).collect::<Result<_, _>>().and_then(|last| desk.record(last));
        }
        let error = ended.signal.map(|signal| format!("Process ended by signal {signal}"));
        Ok(TurnResult { exit_code: ended.exit_code, error, last_stderr: ended.last_stderr, ..TurnResult::default() })
    }
}

fn read_back(json: serde_json::Value) -> Result<RuntimeEvent, super::Stop> {
    RuntimeEvent::from_json(&json.to_string()).map_err(|error: RuntimeEventError| {
        tracing::error!(%error, "a message of the command harness does not read back");
        super::Stop::Now
    })
}

/// The message of one turn, as it grows.
struct Message {
    item_id: String,
    /// What no delta has told yet.
    untold: Vec<u8>,
    /// Whether a delta has told anything.
    is_in_pieces: bool,
    whole: Vec<u8>,
    dropped: usize,
    last_told: Instant,
}

impl Message {
    fn new(iteration: u32) -> Self {
        Self {
            item_id: format!("output-{iteration}"),
            untold: Vec::new(),
            is_in_pieces: false,
            whole: Vec::new(),
            dropped: 0,
            last_told: Instant::now(),
        }
    }

    fn push(&mut self, line: &[u8]) {
        self.untold.extend_from_slice(line);
        self.whole.extend_from_slice(line);
        if self.whole.len() > 2 * MESSAGE_BYTES_MAX {
            self.drop_excess();
        }
    }

    /// Drops what is too much from the beginning, whole characters.
    fn drop_excess(&mut self) {
        let mut excess = self.whole.len().saturating_sub(MESSAGE_BYTES_MAX);
        let is_inside_character = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
        while self.whole.get(excess).is_some_and(is_inside_character) {
            excess += 1;
        }
        self.whole.drain(..excess);
        self.dropped += excess;
    }

    /// What came since the last delta, when it is time for the next.
    fn delta(&mut self) -> Option<serde_json::Value> {
        // What the whole message will not hold has to be told before it is dropped.
        let is_time = self.last_told.elapsed() >= DELTA_EVERY || self.untold.len() >= MESSAGE_BYTES_MAX;
        if self.untold.is_empty() || !is_time {
            return None;
        }
        self.last_told = Instant::now();
        // A character that has not come whole waits for the rest of it.
        let whole = match std::str::from_utf8(&self.untold) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.untold.len(),
        };
        self.tell(whole)
    }

    /// What came since the last delta, when there was one: whoever reads the message piece by piece has read all of it then.
    fn rest(&mut self) -> Option<serde_json::Value> {
        if self.is_in_pieces { self.tell(self.untold.len()) } else { None }
    }

    fn tell(&mut self, bytes: usize) -> Option<serde_json::Value> {
        let told: Vec<u8> = self.untold.drain(..bytes).collect();
        if told.is_empty() {
            return None;
        }
        self.is_in_pieces = true;
        let delta = String::from_utf8_lossy(&told).into_owned();
        let data = serde_json::json!({"item_id": self.item_id, "delta": delta});
        Some(serde_json::json!({"kind": "message.delta", "data": data}))
    }

    fn complete(&mut self) -> Option<serde_json::Value> {
        if self.whole.len() > MESSAGE_BYTES_MAX {
            self.drop_excess();
        }
        let text = String::from_utf8_lossy(&self.whole);
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return None;
        }
        let message = match self.dropped {
            0 => text.to_owned(),
            dropped => format!("[{dropped} bytes before this are in the message's deltas]\n{text}"),
        };
        let data = serde_json::json!({"item_id": self.item_id, "message": message});
        Some(serde_json::json!({"kind": "message.complete", "data": data}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_told_in_pieces_is_told_in_pieces_to_its_end_and_whole() {
        let told = |event: Option<serde_json::Value>| event.map(|event| event["data"]["delta"].clone());
        let mut message = Message::new(1);
        message.push(b"a\n");
        assert_eq!(told(message.rest()), None);
        message.last_told -= DELTA_EVERY;
        assert_eq!(told(message.delta()), Some("a\n".into()));
        message.push("b\nbé".as_bytes());
        assert_eq!(told(message.rest()), Some("b\nbé".into()));
        assert_eq!(told(message.rest()), None);
        assert_eq!(message.complete().map(|event| event["data"]["message"].clone()), Some("a\nb\nbé".into()));
    }
}
