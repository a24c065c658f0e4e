//! A question, as whoever asks it puts it.

use runledger_events::{
    AdapterSessionId, AppliedRule, AskContext, EventId, LogId, Metadata, OnAsk, OnTimeout, ProcessId, QUESTION_TOOL,
    RelayQuestion, RelayRequest, RelayState, RequestId, RunId, SessionId, TimestampMs, call_fingerprint,
};

use crate::owner::current_process;

/// How long a question waits where nothing else is said: 5 minutes, in milliseconds.
const TIMEOUT_MS: u64 = 300_000;

/// A question to whoever can answer it. [`Ask::new`] fills in what follows from the call; the rest may be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The question's name: [`RequestId::of_call`].
    pub request_id: RequestId,
    /// The event that it is about: a `tool.pre` or `permission.request` of the session.
    pub event_id: EventId,
    /// What is asked.
    pub question: RelayQuestion,
    /// The ledger session.
    pub session_id: SessionId,
    /// The harness's own session.
    pub adapter_session_id: Option<AdapterSessionId>,
    /// The workflow run; that of `context` where nothing is said.
    pub run_id: Option<RunId>,
    /// The subagent that acts.
    pub agent_id: Option<String>,
    /// Its type.
    pub agent_type: Option<String>,
    /// The tool.
    pub tool_name: String,
    /// Its input, as JSON text.
    pub tool_input_json: String,
    /// The harness's own name of the call.
    pub tool_use_id: Option<String>,
    /// Where it is made.
    pub cwd: Option<String>,
    /// The call as a pattern that fits it alone.
    pub pattern: Option<String>,
    /// How it waits.
    pub mode: OnAsk,
    /// How long it can be answered, in milliseconds; none: as long as it takes.
    pub timeout_ms: Option<u64>,
    /// What it comes to if nobody answers.
    pub on_timeout: OnTimeout,
    /// The rule that has it asked.
    pub rule: Option<AppliedRule>,
    /// Where its workflow run stands.
    pub context: Option<AskContext>,
    /// The process that waits; none where nobody does.
    pub waiter: Option<ProcessId>,
}

impl Ask {
    /// A question about a call that this process waits with, for 5 minutes, and that is denied then.
    pub fn new(
        request_id: RequestId,
        event_id: EventId,
        session_id: SessionId,
        tool_name: impl Into<String>,
        tool_input_json: impl Into<String>,
    ) -> Self {
        let tool_name = tool_name.into();
        let question = if tool_name == QUESTION_TOOL { RelayQuestion::Question } else { RelayQuestion::Permission };
        Self {
            request_id,
            event_id,
            question,
            session_id,
            adapter_session_id: None,
            run_id: None,
            agent_id: None,
            agent_type: None,
            tool_name,
            tool_input_json: tool_input_json.into(),
            tool_use_id: None,
            cwd: None,
            pattern: None,
            mode: OnAsk::Wait,
            timeout_ms: Some(TIMEOUT_MS),
            on_timeout: OnTimeout::Deny,
            rule: None,
            context: None,
            waiter: Some(current_process()),
        }
    }

    /// What tells it from another question under the same name.
    pub fn fingerprint(&self) -> String {
        call_fingerprint(Some(&self.tool_name), Some(&self.tool_input_json))
    }

    /// Its facts, when it is put now into this log.
    pub(crate) fn facts(&self, log_id: LogId, now: TimestampMs) -> RelayRequest {
        let due_at = |ms| TimestampMs(now.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)));
        RelayRequest {
            request_id: self.request_id.clone(),
            log_id,
            event_id: self.event_id.clone(),
            question: self.question,
            tool_name: Some(self.tool_name.clone()),
            tool_use_id: self.tool_use_id.clone(),
            fingerprint: self.fingerprint(),
            pattern: self.pattern.clone(),
            mode: self.mode,
            due_at: self.timeout_ms.map(due_at),
            on_timeout: self.on_timeout,
            rule: self.rule.clone(),
            context: self.context.clone(),
            waiter: self.waiter.clone(),
        }
    }

    /// What its event belongs to.
    pub(crate) fn metadata(&self) -> Metadata {
        let run_id = self.run_id.clone().or_else(|| self.context.as_ref().map(|context| context.run_id.clone()));
        Metadata {
            causation_id: Some(self.event_id.clone()),
            correlation_id: None,
            session_id: Some(self.session_id.clone()),
            adapter_session_id: self.adapter_session_id.clone(),
            run_id,
        }
    }
}

/// A question that is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// How it stands.
    pub state: RelayState,
    /// Whether it was put just now; else it was there, and this is one more who waits for it.
    pub is_new: bool,
}
