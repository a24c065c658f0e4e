//! The facts of a ledger of what coding agents did, their codec, and what they mean. Pure: no I/O, no clock.
//!
//! A [`RuntimeEvent`] is one fact, told by a harness or by the workflow runner. It keeps the JSON text it came with
//! and knows the few typed [`Facts`] that folds need. [`WorkflowState`] is what the `workflow.*` facts of one run mean.
//!
//! ```
//! use runledger_events::{EventKind, RuntimeEvent};
//!
//! let line = r#"{"id":"req-1","timestamp":1761000000250,"kind":"tool.pre","sessionId":"a1","data":{"tool_name":"Bash"}}"#;
//! let event = RuntimeEvent::from_json(line)?;
//! assert_eq!(event.kind(), &EventKind::ToolPre);
//! assert_eq!(event.json(), line);
//! # Ok::<(), runledger_events::RuntimeEventError>(())
//! ```

mod codec;
mod compression;
mod digest;
mod envelope;
mod facts;
mod fingerprint;
mod glob;
mod ids;
mod iteration_state;
mod json;
mod json_text;
mod kind;
mod path_pattern;
mod permission_match;
mod permission_policy;
mod position;
mod relay_event;
mod relay_state;
mod runtime_event;
mod shell;
mod shell_lexer;
mod source;
mod standing_grants;
mod tokens;
mod tool_call;
mod tool_pattern;
mod upcast;
mod version_1;
pub mod words;
mod workflow_event;
mod workflow_state;

pub use codec::{CONTENT_BYTES_MAX, Codec, CodecError, HEADER_BYTES, PayloadPart};
pub use compression::{CONTENT_DICTIONARY, Dictionary};
pub use digest::{DIGEST_BYTES, Digest, SALT_BYTES, Salt, chain, chain_seed, commitment, content_digest, event_digest};
pub use envelope::{Content, Metadata, RecordedEvent};
pub use facts::{DecisionFacts, Facts, KindFacts};
pub use fingerprint::call_fingerprint;
pub use ids::{AdapterSessionId, EventId, IdError, LogId, RequestId, RunId, SessionId, StreamName};
pub use iteration_state::{IterationOutcome, IterationState};
pub use json::{brief, readable};
pub use json_text::{Fields, ObjectText, as_text, quoted};
pub use kind::EventKind;
pub use permission_match::Ruling;
pub use permission_policy::{
    CommandChannelConfig, DenyRetry, FailureRetry, OnAsk, OnDeny, OnTimeout, PermissionPolicy, PermissionRule,
    RuleAction, RuleConditions, RunPolicy, SubagentCondition,
};
pub use position::{Position, StreamVersion, TimestampMs};
pub use relay_event::{
    AppliedRule, AskContext, ProcessId, QUESTION_TOOL, RelayDelivered, RelayQuestion, RelayRequest, RelayWithdrawn,
    RuleOrigin, Timer, TimerKind,
};
pub use relay_state::{EXPIRED, RelayState, RequestStatus};
pub use runtime_event::{RuntimeEvent, RuntimeEventError};
pub use source::{NOTE_PREFIX, Source};
pub use standing_grants::{PERMISSION_WITHDRAW, StandingGrant, StandingGrants};
pub use tokens::Tokens;
pub use tool_call::ToolCall;
pub use tool_pattern::{PatternError, ToolPattern};
pub use upcast::{Upcast, Upcasters};
pub use workflow_event::{
    Carried, Continuation, Grant, IterationContinued, IterationDeferred, IterationEnd, IterationProcess,
    IterationSession, IterationStart, Owner, Retry, RetryReason, TrackerFacts, WorkflowEnd, WorkflowIteration,
    WorkflowStart, WorkflowTransition, event_json,
};
pub use workflow_state::{IllegalEvent, LastEnd, RunState, RunStatus, WorkflowState, transition_is_legal};
