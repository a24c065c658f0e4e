//! One event of the log as the mapper reads it: fields by name, leniently, and out of the facts where the text was erased.

use runledger_events::{AdapterSessionId, Fields, KindFacts, RecordedEvent, Source};

/// An event on its way in.
pub(super) struct Incoming<'a> {
    pub(super) event: &'a RecordedEvent,
    pub(super) source: Source,
    /// The whole event.
    fields: Fields<'a>,
    /// Its `data`.
    pub(super) data: Fields<'a>,
    /// Its `context`.
    context: Fields<'a>,
}

impl<'a> Incoming<'a> {
    /// Reads an event; `text` is its JSON, read strictly, or `{}` where there is none.
    pub(super) fn new(event: &'a RecordedEvent, text: &'a str) -> Self {
        // What is in the log was JSON when it came in.
        let fields = Fields::parse(text).unwrap_or_default();
        let data = fields.object("data").unwrap_or_default();
        let context = fields.object("context").unwrap_or_default();
        Self { event, source: told_by(event, &fields), fields, data, context }
    }

    /// The event's id.
    pub(super) fn id(&self) -> &str {
        self.event.id.as_str()
    }

    /// A text of `data`.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.data.text(name)
    }

    /// A text of the event itself.
    pub(super) fn envelope(&self, name: &str) -> Option<String> {
        self.fields.text(name)
    }

    /// What the turn is called that an event is of: by its prompt's id with Claude Code, by its own with Codex. A runtime
    /// tells neither in this sense.
    pub(super) fn turn(&self) -> Option<String> {
        let told = self.data.text("prompt_id").or_else(|| self.data.text("turn_id"));
        told.filter(|_| self.source != Source::Runtime)
    }

    /// An object of `data` as JSON text; `{}` where it is something else. An array is an object, as in JavaScript.
    pub(super) fn object_json(&self, name: &str) -> &'a str {
        object_json(&self.data, name)
    }

    pub(super) fn adapter_session_id(&self) -> Option<&AdapterSessionId> {
        self.event.metadata.adapter_session_id.as_ref()
    }

    /// The adapter session; `unknown` where none was told.
    pub(super) fn session_id(&self) -> &str {
        self.adapter_session_id().map_or("unknown", AdapterSessionId::as_str)
    }

    pub(super) fn transcript_path(&self) -> Option<String> {
        self.context.text("transcriptPath")
    }

    pub(super) fn cwd(&self) -> Option<String> {
        self.context.text("cwd")
    }

    pub(super) fn permission_mode(&self) -> Option<String> {
        self.context.text("permissionMode")
    }

    /// `display`, as it came.
    pub(super) fn display_json(&self) -> Option<&'a str> {
        self.fields.raw("display")
    }

    /// The decision that a decision event holds: in `data`, or in the event itself where it is a decision line.
    pub(super) fn decision(&self) -> Fields<'a> {
        self.fields.object("decision").or_else(|| self.data.object("decision")).unwrap_or_default()
    }

    /// `payload` as an object.
    pub(super) fn payload(&self) -> Fields<'a> {
        self.fields.object("payload").unwrap_or_default()
    }

    pub(super) fn tool_name(&self) -> String {
        let told = self.fields.text("toolName").or_else(|| self.data.text("tool_name"));
        told.or_else(|| self.facts_of_tool().0.map(str::to_owned)).unwrap_or_else(|| "Unknown".to_owned())
    }

    pub(super) fn tool_use_id(&self) -> Option<String> {
        let told = self.fields.text("toolUseId").or_else(|| self.data.text("tool_use_id"));
        told.or_else(|| self.facts_of_tool().1.map(str::to_owned)).filter(|id| !id.is_empty())
    }

    fn facts_of_tool(&self) -> (Option<&str>, Option<&str>) {
        match &self.event.facts.data {
            KindFacts::Tool { tool_name, tool_use_id, .. } | KindFacts::Permission { tool_name, tool_use_id } => {
                (tool_name.as_deref(), tool_use_id.as_deref())
            }
            _ => (None, None),
        }
    }

    /// The subagent told of: its id.
    pub(super) fn agent_id(&self) -> Option<String> {
        self.fields.text("agentId").or_else(|| self.data.text("agent_id")).or_else(|| self.event.facts.agent_id.clone())
    }

    /// The subagent told of: its type.
    pub(super) fn agent_type(&self) -> Option<String> {
        let told = self.fields.text("agentType").or_else(|| self.data.text("agent_type"));
        told.or_else(|| self.event.facts.agent_type.clone())
    }
}

/// An object among these fields as JSON text; `{}` where it is something else.
pub(super) fn object_json<'a>(fields: &Fields<'a>, name: &str) -> &'a str {
    fields.raw(name).filter(|json| json.starts_with(['{', '['])).unwrap_or("{}")
}

/// The teller; before ids named it, only the stream's events were made by an adapter, and say so in `hookName`.
fn told_by(event: &RecordedEvent, fields: &Fields<'_>) -> Source {
    match Source::of(&event.id) {
        Source::Runtime if fields.text("hookName").is_some_and(|name| name.starts_with("stream:")) => Source::Stream,
        source => source,
    }
}
