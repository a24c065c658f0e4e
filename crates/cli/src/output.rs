//! What the program prints: results to standard output, everything else to standard error.

use std::io::{BufWriter, IsTerminal, Stdout, Write};

use runledger_events::words::plain_json;
use serde::Serialize;

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the output could not be written: {0}")]
pub(crate) struct OutputError(#[source] pub(crate) std::io::Error);

/// Standard output, buffered.
pub(crate) struct Output {
    is_json: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(is_json: bool) -> Self {
        Self { is_json, stdout: BufWriter::with_capacity(64 << 10, std::io::stdout()) }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether a person looks at standard output.
    pub(crate) fn is_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// One line of text.
    pub(crate) fn line(&mut self, line: &str) -> anyhow::Result<()> {
        self.stdout
            .write_all(line.as_bytes())
            .and_then(|()| self.stdout.write_all(b"\n"))
            .map_err(|error| OutputError(error).into())
    }

    /// One JSON object, in a line.
    pub(crate) fn json<T: Serialize>(&mut self, object: &T) -> anyhow::Result<()> {
        self.json_line(&serde_json::to_string(object)?)
    }

    /// A line of JSON; on a terminal without what could drive it.
    pub(crate) fn json_line(&mut self, line: &str) -> anyhow::Result<()> {
        if self.is_terminal() { self.line(&plain_json(line)) } else { self.line(line) }
    }

    /// Hands on what is buffered.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.stdout.flush().map_err(|error| OutputError(error).into())
    }

    /// Hands on the rest.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.flush()
    }
}

/// A line on standard error. That it cannot be written changes nothing.
pub(crate) fn message(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether a person looks at standard error.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}
