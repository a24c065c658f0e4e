//! The kinds of event: 33 that harnesses tell, four of the workflow runner, decisions, questions, timers and what was done to the ledger, and any other
//! by its name.

use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What happened. A kind that this version does not know is kept by its name.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind {
            $($(#[$doc])* $variant,)*
            /// A kind that this version does not know.
            Other(Box<str>),
        }

        impl EventKind {
            /// Every kind that this version knows.
            pub const KNOWN: &'static [EventKind] = &[$(EventKind::$variant,)*];

            /// The kind of this name.
            pub fn parse(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }

            /// The name, as it stands in the log and in JSON.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }
    };
}

kinds! {
    /// A harness session began or was taken up again.
    SessionStart = "session.start",
    /// A harness session ended.
    SessionEnd = "session.end",
    /// The user's prompt.
    UserPrompt = "user.prompt",
    /// A turn of the model began.
    TurnStart = "turn.start",
    /// A turn of the model ended.
    TurnComplete = "turn.complete",
    /// A piece of a message as it streams.
    MessageDelta = "message.delta",
    /// A whole message.
    MessageComplete = "message.complete",
    /// A plan, or a piece of one.
    PlanDelta = "plan.delta",
    /// A piece of reasoning.
    ReasoningDelta = "reasoning.delta",
    /// Token figures.
    UsageUpdate = "usage.update",
    /// A piece of a tool's output as it streams.
    ToolDelta = "tool.delta",
    /// A tool is about to run.
    ToolPre = "tool.pre",
    /// A tool ran.
    ToolPost = "tool.post",
    /// A tool failed.
    ToolFailure = "tool.failure",
    /// A tool asks for permission.
    PermissionRequest = "permission.request",
    /// A tool was denied.
    PermissionDenied = "permission.denied",
    /// The agent wants to stop.
    StopRequest = "stop.request",
    /// Stopping failed.
    StopFailure = "stop.failure",
    /// A subagent began.
    SubagentStart = "subagent.start",
    /// A subagent ended.
    SubagentStop = "subagent.stop",
    /// A notification of the harness.
    Notification = "notification",
    /// Context is about to be compacted.
    CompactPre = "compact.pre",
    /// Context was compacted.
    CompactPost = "compact.post",
    /// The harness was set up.
    Setup = "setup",
    /// A harness event without a kind of its own.
    Unknown = "unknown",
    /// A teammate is idle.
    TeammateIdle = "teammate.idle",
    /// A task was created.
    TaskCreated = "task.created",
    /// A task was completed.
    TaskCompleted = "task.completed",
    /// A configuration changed.
    ConfigChange = "config.change",
    /// The working directory changed.
    CwdChanged = "cwd.changed",
    /// A file changed.
    FileChanged = "file.changed",
    /// A server asks the user something.
    ElicitationRequest = "elicitation.request",
    /// What the user answered.
    ElicitationResult = "elicitation.result",
    /// A workflow run began.
    WorkflowStart = "workflow.start",
    /// A workflow run moved to another state.
    WorkflowTransition = "workflow.transition",
    /// An iteration of a workflow run began, got its harness session, or ended.
    WorkflowIteration = "workflow.iteration",
    /// A workflow run ended.
    WorkflowEnd = "workflow.end",
    /// A decision on an earlier event.
    Decision = "decision",
    /// A question was put to whoever can answer it.
    RelayRequest = "relay.request",
    /// A question needs no answer any more.
    RelayWithdrawn = "relay.withdrawn",
    /// An answer goes to the harness now.
    RelayDelivered = "relay.delivered",
    /// A moment of a workflow run was noted.
    TimerScheduled = "timer.scheduled",
    /// That moment came.
    TimerFired = "timer.fired",
    /// The content of events was erased.
    LedgerRedacted = "ledger.redacted",
    /// Somebody signed the log's head.
    LedgerSealed = "ledger.sealed",
}

impl EventKind {
    /// The longest name of a kind, in bytes: the log has an index of them.
    pub const BYTES_MAX: usize = 1024;

    /// Whether it is one of the project's own kinds, whose `data` has to be of their shape; decisions are others' too.
    pub fn has_own_shape(&self) -> bool {
        self.is_workflow()
            || matches!(
                self,
                Self::RelayRequest
                    | Self::RelayWithdrawn
                    | Self::RelayDelivered
                    | Self::TimerScheduled
                    | Self::TimerFired
            )
    }

    /// Whether the runner writes it: one of the four `workflow.*` kinds.
    pub fn is_workflow(&self) -> bool {
        matches!(self, Self::WorkflowStart | Self::WorkflowTransition | Self::WorkflowIteration | Self::WorkflowEnd)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
