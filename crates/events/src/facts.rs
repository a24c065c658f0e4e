//! Facts: the few typed fields of an event that folds need. Small, never erased, and read out of the JSON leniently.
//!
//! A field of an unexpected type is `None` here and stands unchanged in the event's JSON text. The order of variants
//! and fields is the stored format of the newest codec version (tests/golden): add a codec version, never reorder.

use crate::ids::EventId;
use crate::json::{Object, brief};
use crate::kind::EventKind;
use crate::relay_event::{AppliedRule, RelayDelivered, RelayRequest, RelayWithdrawn, Timer};
use crate::runtime_event::RuntimeEventError;
use crate::tokens::Tokens;
use crate::workflow_event::{WorkflowEnd, WorkflowIteration, WorkflowStart, WorkflowTransition};

/// The typed fields of one event.
#[derive(Debug, Clone, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Facts {
    /// The subagent that acted; none for the main agent.
    pub agent_id: Option<String>,
    /// That subagent's type.
    pub agent_type: Option<String>,
    /// Whether the teller waits for a decision on this event.
    pub expects_decision: bool,
    /// What belongs to this kind alone.
    pub data: KindFacts,
}

/// The typed fields of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
#[allow(missing_docs, reason = "docs/events.md describes the fields of every kind")]
pub enum KindFacts {
    /// Nothing typed: the JSON text says it all.
    #[default]
    None,
    SessionStart {
        source: Option<String>,
        model: Option<String>,
        agent_type: Option<String>,
    },
    SessionEnd {
        reason: Option<String>,
    },
    UserPrompt {
        permission_mode: Option<String>,
    },
    /// `turn.start`, `turn.complete`.
    Turn {
        turn_id: Option<String>,
        thread_id: Option<String>,
        status: Option<String>,
    },
    /// `message.delta`, `message.complete`.
    Message {
        item_id: Option<String>,
        thread_id: Option<String>,
        turn_id: Option<String>,
    },
    Plan {
        item_id: Option<String>,
        turn_id: Option<String>,
    },
    Reasoning {
        item_id: Option<String>,
        content_index: Option<i64>,
        summary_index: Option<i64>,
        phase: Option<String>,
    },
    /// `usage`: sums of the adapter session; `delta`: of the last step.
    Usage {
        usage: Tokens,
        delta: Tokens,
        thread_id: Option<String>,
    },
    /// `tool.pre`, `tool.delta`, `tool.post`, `tool.failure`.
    Tool {
        tool_name: Option<String>,
        tool_use_id: Option<String>,
        is_interrupt: Option<bool>,
        exit_code: Option<i64>,
        error_code: Option<String>,
    },
    /// `permission.request`, `permission.denied`.
    Permission {
        tool_name: Option<String>,
        tool_use_id: Option<String>,
    },
    StopRequest {
        stop_hook_active: Option<bool>,
    },
    StopFailure {
        error_type: Option<String>,
    },
    /// `subagent.start`, `subagent.stop`.
    Subagent {
        agent_id: Option<String>,
        agent_type: Option<String>,
    },
    /// `request_id` as text, also where it is a number.
    Notification {
        notification_type: Option<String>,
        request_id: Option<String>,
    },
    /// `compact.pre`, `compact.post`, `setup`.
    Trigger {
        trigger: Option<String>,
    },
    /// `task.created`, `task.completed`, `teammate.idle`.
    Team {
        task_id: Option<String>,
        teammate_name: Option<String>,
        team_name: Option<String>,
    },
    ConfigChange {
        source: Option<String>,
    },
    /// `elicitation.request`, `elicitation.result`.
    Elicitation {
        mcp_server: Option<String>,
        action: Option<String>,
    },
    Unknown {
        hook_event_name: Option<String>,
        source_event_name: Option<String>,
    },
    Decision(DecisionFacts),
    WorkflowStart(Box<WorkflowStart>),
    WorkflowTransition(WorkflowTransition),
    WorkflowIteration(WorkflowIteration),
    WorkflowEnd(WorkflowEnd),
    RelayRequest(Box<RelayRequest>),
    RelayWithdrawn(RelayWithdrawn),
    TimerScheduled(Timer),
    TimerFired(Timer),
    RelayDelivered(RelayDelivered),
}

/// A decision on an earlier event, or a signal to a run.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct DecisionFacts {
    /// The event decided on.
    pub event_id: EventId,
    /// `json`, `passthrough`, `block`, …
    pub decision_type: Option<String>,
    /// Who decided: `user`, `rule`, `timeout`, …
    pub source: Option<String>,
    /// The intent's kind: `permission_allow`, `permission_deny`, `workflow_cancel`, …
    pub intent: Option<String>,
    /// How far it reaches: `once`, `run`, `always`; none where nothing is said.
    pub scope: Option<String>,
    /// The calls that it is on beyond the one, as a rule's pattern.
    pub pattern: Option<String>,
    /// Who decided: a user and host, a channel.
    pub by: Option<String>,
    /// The rule that decided.
    pub rule: Option<AppliedRule>,
}

impl Facts {
    /// Whether somebody's own words may be among them: the pattern of a call, a reason, an error. They stay when the content is
    /// erased.
    pub fn may_hold_words(&self) -> bool {
        match &self.data {
            KindFacts::Decision(decision) => decision.pattern.is_some() || decision.rule.is_some(),
            KindFacts::RelayRequest(request) => request.pattern.is_some(),
            KindFacts::RelayWithdrawn(withdrawn) => withdrawn.reason.is_some(),
            KindFacts::WorkflowTransition(transition) => transition.reason.is_some(),
            KindFacts::WorkflowIteration(WorkflowIteration::End(end)) => end.error.is_some(),
            KindFacts::WorkflowIteration(WorkflowIteration::Start(start)) => !start.carried.grants.is_empty(),
            KindFacts::WorkflowEnd(end) => end.stop_reason.is_some(),
            _ => false,
        }
    }

    /// Reads the facts of an event of this kind out of its fields; `data` is its `data` object.
    pub(crate) fn read(
        kind: &EventKind,
        event: &Object<'_>,
        data: &Object<'_>,
        data_json: Option<&str>,
    ) -> Result<Self, RuntimeEventError> {
        use EventKind as K;
        let text = |name: &str| data.fact(name);
        let tool_name = || data.fact("tool_name").or_else(|| event.fact("toolName"));
        let tool_use_id = || data.fact("tool_use_id").or_else(|| event.fact("toolUseId"));
        let typed = match kind {
            K::SessionStart => KindFacts::SessionStart {
                source: text("source"),
                model: text("model").or_else(|| event.object("payload").fact("model")),
                agent_type: text("agent_type"),
            },
            K::SessionEnd => KindFacts::SessionEnd { reason: text("reason") },
            K::UserPrompt => KindFacts::UserPrompt { permission_mode: text("permission_mode") },
            K::TurnStart | K::TurnComplete => {
                KindFacts::Turn { turn_id: text("turn_id"), thread_id: text("thread_id"), status: text("status") }
            }
            K::MessageDelta | K::MessageComplete => {
                KindFacts::Message { item_id: text("item_id"), thread_id: text("thread_id"), turn_id: text("turn_id") }
            }
            K::PlanDelta => KindFacts::Plan { item_id: text("item_id"), turn_id: text("turn_id") },
            K::ReasoningDelta => KindFacts::Reasoning {
                item_id: text("item_id"),
                content_index: data.whole("content_index"),
                summary_index: data.whole("summary_index"),
                phase: text("phase"),
            },
            K::UsageUpdate => KindFacts::Usage {
                usage: Tokens::from_camel_case(&data.object("usage")),
                delta: Tokens::from_camel_case(&data.object("delta")),
                thread_id: text("thread_id"),
            },
            K::ToolPre | K::ToolDelta | K::ToolPost | K::ToolFailure => KindFacts::Tool {
                tool_name: tool_name(),
                tool_use_id: tool_use_id(),
                is_interrupt: data.bool("is_interrupt"),
                exit_code: data.whole("exit_code"),
                error_code: text("error_code"),
            },
            K::PermissionRequest | K::PermissionDenied => {
                KindFacts::Permission { tool_name: tool_name(), tool_use_id: tool_use_id() }
            }
            K::StopRequest => KindFacts::StopRequest { stop_hook_active: data.bool("stop_hook_active") },
            K::StopFailure => KindFacts::StopFailure { error_type: text("error_type") },
            K::SubagentStart | K::SubagentStop => {
                KindFacts::Subagent { agent_id: text("agent_id"), agent_type: text("agent_type") }
            }
            K::Notification => KindFacts::Notification {
                notification_type: text("notification_type"),
                request_id: data.fact("request_id").or_else(|| data.number("request_id")),
            },
            K::CompactPre | K::CompactPost | K::Setup => KindFacts::Trigger { trigger: text("trigger") },
            K::TaskCreated | K::TaskCompleted | K::TeammateIdle => KindFacts::Team {
                task_id: text("task_id"),
                teammate_name: text("teammate_name"),
                team_name: text("team_name"),
            },
            K::ConfigChange => KindFacts::ConfigChange { source: text("source") },
            K::ElicitationRequest | K::ElicitationResult => {
                KindFacts::Elicitation { mcp_server: text("mcp_server"), action: text("action") }
            }
            K::Unknown => KindFacts::Unknown {
                hook_event_name: text("hook_event_name"),
                source_event_name: text("source_event_name"),
            },
            K::CwdChanged | K::FileChanged | K::LedgerRedacted | K::LedgerSealed | K::Other(_) => KindFacts::None,
            K::Decision => KindFacts::Decision(DecisionFacts::read(data)?),
            K::WorkflowStart => KindFacts::WorkflowStart(Box::new(workflow_data(kind, data_json)?)),
            K::WorkflowTransition => KindFacts::WorkflowTransition(workflow_data(kind, data_json)?),
            K::WorkflowIteration => KindFacts::WorkflowIteration(match data.text("phase").as_deref() {
                Some("start") => WorkflowIteration::Start(workflow_data(kind, data_json)?),
                Some("session") => WorkflowIteration::Session(workflow_data(kind, data_json)?),
                Some("end") => WorkflowIteration::End(workflow_data(kind, data_json)?),
                Some("process") => WorkflowIteration::Process(workflow_data(kind, data_json)?),
                Some("deferred") => WorkflowIteration::Deferred(workflow_data(kind, data_json)?),
                Some("continued") => WorkflowIteration::Continued(workflow_data(kind, data_json)?),
                _ => {
                    let expected = "start, session, process, deferred, continued or end";
                    return Err(RuntimeEventError::Field { field: "data.phase", expected });
                }
            }),
            K::WorkflowEnd => KindFacts::WorkflowEnd(workflow_data(kind, data_json)?),
            K::RelayRequest => KindFacts::RelayRequest(Box::new(workflow_data(kind, data_json)?)),
            K::RelayWithdrawn => KindFacts::RelayWithdrawn(workflow_data(kind, data_json)?),
            K::RelayDelivered => KindFacts::RelayDelivered(workflow_data(kind, data_json)?),
            K::TimerScheduled => KindFacts::TimerScheduled(workflow_data(kind, data_json)?),
            K::TimerFired => KindFacts::TimerFired(workflow_data(kind, data_json)?),
        };
        Ok(Self {
            agent_id: event.fact("agentId"),
            agent_type: event.fact("agentType"),
            expects_decision: event.object("interaction").bool("expectsDecision").unwrap_or(false),
            data: typed,
        })
    }
}

impl DecisionFacts {
    /// Reads `{"eventId", "decision": {"type", "source", "intent": {"kind"}, "scope", "pattern", "by", "rule"}}`.
    pub(crate) fn read(object: &Object<'_>) -> Result<Self, RuntimeEventError> {
        let event_id = object
            .text("eventId")
            .ok_or(RuntimeEventError::Field { field: "eventId", expected: "the decided event's id, as a string" })?;
        let decision = object.object("decision");
        Ok(Self {
            event_id: EventId::new(event_id)?,
            decision_type: decision.fact("type"),
            source: decision.fact("source"),
            intent: decision.object("intent").fact("kind"),
            scope: decision.fact("scope"),
            pattern: decision.fact("pattern"),
            by: decision.fact("by"),
            rule: decision.get("rule").and_then(|rule| serde_json::from_str(rule.get()).ok()),
        })
    }
}

fn workflow_data<T: serde::de::DeserializeOwned>(kind: &EventKind, data: Option<&str>) -> Result<T, RuntimeEventError> {
    serde_json::from_str(data.unwrap_or("{}"))
        .map_err(|source| RuntimeEventError::WorkflowData { kind: kind.clone(), source: brief(source) })
}
