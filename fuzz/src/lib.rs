//! What every input of runledger promises, asked of any bytes: one function for each kind of input, which panics where a
//! promise is broken.
//!
//! | target | bytes | beyond "no panic" |
//! | --- | --- | --- |
//! | [`payload`] | a stored payload | what decodes is encoded to what decodes to the same; memory is bounded by the frame |
//! | [`event_json`] | a RuntimeEvent, or a line of `export` | the text comes back; facts and content survive the codec |
//! | [`claude_hooks`], [`claude_stream`], [`claude_transcript`], [`codex_json`], [`codex_rollout`] | lines of a harness | the same lines give the same events; each is taken by the log; none is larger than its line allows |
//! | [`runtime_lines`] | lines of `ingest --format runtime` | each line is taken or refused; a long one is passed over |
//! | [`hook`] | a hook's payload | it becomes an event that a spool and the log take, or is kept as it came |
//! | [`tracker`] | a tracker | its text is bounded, its verdict is that of its last line |
//! | [`workflow_file`] | a workflow file | what is taken reads back, and all its rules can be read |
//! | [`spool`] | a line of a spool | a line that is taken is written the same; a torn one is refused |
//! | [`permissions`] | a pattern and a call | what allows a call would deny it too; a call fits the pattern made of it |
//! | [`api`] | what to do with a ledger | the log is that of a naive model, the read models are those of a fresh fold |
//!
//! The programs in `fuzz_targets` hand these to libFuzzer; `tests/corpus.rs` runs the committed corpus through them, and a
//! bounded number of changes to it.

mod api;
mod event_json;
mod hook;
mod lines;
pub mod mutate;
mod payload;
mod permissions;
mod spool;
mod tracker;
mod workflow_file;

pub use api::api;
pub use event_json::{event_json, runtime_lines};
pub use hook::hook;
pub use lines::{claude_hooks, claude_stream, claude_transcript, codex_json, codex_rollout};
pub use payload::payload;
pub use permissions::permissions;
pub use spool::spool;
pub use tracker::tracker;
pub use workflow_file::workflow_file;

/// One kind of input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus`.
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub run: fn(&[u8]),
    /// How many changes of each file of the corpus a test tries.
    pub changes: u64,
}

/// All of them.
pub const TARGETS: [Target; 14] = [
    Target { name: "payload", run: payload, changes: 1000 },
    Target { name: "event_json", run: event_json, changes: 400 },
    Target { name: "claude_hooks", run: claude_hooks, changes: 200 },
    Target { name: "claude_stream", run: claude_stream, changes: 200 },
    Target { name: "claude_transcript", run: claude_transcript, changes: 200 },
    Target { name: "codex_json", run: codex_json, changes: 200 },
    Target { name: "codex_rollout", run: codex_rollout, changes: 200 },
    Target { name: "runtime_lines", run: runtime_lines, changes: 200 },
    Target { name: "hook", run: hook, changes: 400 },
    Target { name: "tracker", run: tracker, changes: 1000 },
    Target { name: "workflow_file", run: workflow_file, changes: 400 },
    Target { name: "spool", run: spool, changes: 400 },
    Target { name: "permissions", run: permissions, changes: 400 },
    Target { name: "api", run: api, changes: 10 },
];
