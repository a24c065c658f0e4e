//! Translators from what a harness says to [`RuntimeEvent`](runledger_events::RuntimeEvent)s. Pure: no I/O, no clock.
//!
//! | translator | reads |
//! | --- | --- |
//! | [`HookLines`], [`hook_event`] | hook payloads of Claude Code and Codex, recorded or live |
//! | [`ClaudeStream`] | the standard output of `claude -p PROMPT --output-format stream-json --verbose` |
//! | [`ClaudeTranscript`] | Claude Code's own record of a session |
//! | [`CodexRollout`] | Codex's own record of a thread |
//! | [`CodexJson`] | the standard output of `codex exec --json PROMPT` |
//!
//! Each is a [`LineAdapter`]; docs/adapters.md says which line gives which events.
//!
//! ```
//! use runledger_adapters::ClaudeStream;
//! use runledger_events::{EventKind, TimestampMs};
//!
//! let mut stream = ClaudeStream::new();
//! let line = r#"{"type":"system","subtype":"init","cwd":"/srv/demo","session_id":"s1","model":"m","uuid":"u1"}"#;
//! let events = stream.line(line, TimestampMs(1_761_000_000_000))?;
//! assert_eq!(events[0].kind(), &EventKind::SessionStart);
//! assert!(events[0].json().contains(line));
//! assert_eq!(stream.adapter_session_id().map(|id| id.as_str()), Some("s1"));
//! # Ok::<(), runledger_adapters::AdapterError>(())
//! ```

mod claude_message;
mod claude_stream;
mod claude_tokens;
mod claude_transcript;
mod codex_json;
mod codex_rollout;
mod codex_words;
mod error;
mod hook;
mod line_adapter;
mod line_names;
mod secrets;
mod told;

pub use claude_stream::{ClaudeOutcome, ClaudeStream};
pub use claude_transcript::ClaudeTranscript;
pub use codex_json::{CodexJson, CodexOutcome};
pub use codex_rollout::CodexRollout;
pub use error::AdapterError;
pub use hook::{HookLines, hook_event};
pub use line_adapter::LineAdapter;
pub use secrets::redact_secrets;
