//! From what a line tells to RuntimeEvents: the envelope that all translators share.

use runledger_events::{AdapterSessionId, EventKind, RuntimeEvent, Source, TimestampMs};

use crate::error::AdapterError;
use runledger_events::{Fields, ObjectText, as_text};

/// How much of a line an error shows, in characters.
const BEGINS_CHARS_MAX: usize = 80;

/// How long a line's own name may be: an id takes 1024 bytes, of which the source and the event's number take some.
const LINE_ID_BYTES_MAX: usize = 900;

/// Blocks of one line that become events of their own, at the most. No client writes so many: the line is told as
/// `unknown`, whole in its payload.
pub(crate) const BLOCKS_MAX: usize = 1024;

/// Bytes that a text which several events of a line share may take in all of them together: one that would take more is
/// left out, and stands in the payload alone. Else a line of a long text and many short blocks could take any memory.
const SHARED_BYTES_MAX: usize = 16 << 20;

/// The longest name of a tool that is remembered for its results.
pub(crate) const TOOL_NAME_BYTES_MAX: usize = 1 << 10;

/// The items of a list that become events; none where they are too many.
pub(crate) fn blocks<'a>(of: &Fields<'a>, list: &str) -> Vec<&'a str> {
    of.list(list).filter(|blocks| blocks.len() <= BLOCKS_MAX).unwrap_or_default()
}

/// A text that this many events share, unless it is too long for that.
pub(crate) fn shared<T: AsRef<str>>(text: Option<T>, events: usize) -> Option<T> {
    text.filter(|text| events <= 1 || text.as_ref().len().saturating_mul(events) <= SHARED_BYTES_MAX)
}

/// One event before it has its envelope.
pub(crate) struct Told {
    pub(crate) kind: EventKind,
    data: ObjectText,
    tool_name: Option<String>,
    tool_use_id: Option<String>,
}

impl Told {
    pub(crate) fn new(kind: EventKind, data: ObjectText) -> Self {
        Self { kind, data, tool_name: None, tool_use_id: None }
    }

    /// An event of a tool call; its name and id stand in `data` and in the envelope.
    pub(crate) fn of_tool(kind: EventKind, tool_name: Option<String>, tool_use_id: Option<String>) -> Self {
        let data = ObjectText::new();
        let data = data.text("tool_name", tool_name.as_deref()).text("tool_use_id", tool_use_id.as_deref());
        Self { kind, data, tool_name, tool_use_id }
    }

    /// The same with this field of JSON text in `data`.
    pub(crate) fn with<'v>(mut self, field: &str, json: impl Into<Option<&'v str>>) -> Self {
        self.data = self.data.raw(field, json);
        self
    }

    /// The same with this text in `data`.
    pub(crate) fn with_text<'v>(mut self, field: &str, text: impl Into<Option<&'v str>>) -> Self {
        self.data = self.data.text(field, text);
        self
    }

    pub(crate) fn unknown(source_event_name: &str) -> Self {
        Self::new(EventKind::Unknown, ObjectText::new().text("source_event_name", source_event_name))
    }
}

/// What a line is called in the ids of its events.
pub(crate) enum LineName {
    /// By its source: `NAME`, and `NAME#1`, `NAME#2`, … for the events after the first.
    Own(String),
    /// By its text, see `LineNames`: `DIGEST`, and `DIGEST/1`, `DIGEST/2`, …, since `#` counts equal lines.
    Digest(String),
}

impl LineName {
    fn of_event(&self, at: usize) -> String {
        match self {
            Self::Own(name) | Self::Digest(name) if at == 0 => name.clone(),
            Self::Own(name) => format!("{name}#{at}"),
            Self::Digest(name) => format!("{name}/{at}"),
        }
    }
}

/// Whether a line's own name can be the begin of its events' ids.
pub(crate) fn is_line_id(name: &str) -> bool {
    !name.is_empty() && name.len() <= LINE_ID_BYTES_MAX
}

/// What all events of one line share.
pub(crate) struct Envelope<'a> {
    pub(crate) source: Source,
    /// What the source calls the line.
    pub(crate) name: LineName,
    pub(crate) timestamp: Option<TimestampMs>,
    pub(crate) hook_name: String,
    /// One that the ledger does not take is left out.
    pub(crate) session_id: Option<String>,
    pub(crate) agent_id: Option<String>,
    pub(crate) agent_type: Option<String>,
    pub(crate) context: ObjectText,
    pub(crate) expects_decision: bool,
    /// The harness's own words; on the first event alone.
    pub(crate) payload: &'a str,
    /// What a recorder put around the harness's words, as JSON text; on the first event alone.
    pub(crate) recorder: Option<String>,
}

impl Envelope<'_> {
    /// The events, in order.
    pub(crate) fn around(self, told: Vec<Told>) -> Result<Vec<RuntimeEvent>, AdapterError> {
        let session_id = self.session_id.filter(|id| AdapterSessionId::new(id.as_str()).is_ok());
        // The payload has all of it in any case.
        let context = shared(Some(self.context.finish()), told.len()).unwrap_or_else(|| "{}".to_owned());
        let hook_name = shared(Some(self.hook_name), told.len());
        let agent_id = shared(self.agent_id, told.len());
        let agent_type = shared(self.agent_type, told.len());
        let timestamp = self.timestamp.map(|time| time.to_string());
        let prefix = self.source.prefix();
        let with_envelope = |(at, told): (usize, Told)| {
            let id = format!("{prefix}{}", self.name.of_event(at));
            let json = ObjectText::new()
                .text("id", id.as_str())
                .raw("timestamp", timestamp.as_deref())
                .text("kind", told.kind.as_str())
                .raw("data", told.data.finish().as_str())
                .text("hookName", hook_name.as_deref())
                .text("sessionId", session_id.as_deref())
                .text("toolName", told.tool_name.as_deref())
                .text("toolUseId", told.tool_use_id.as_deref())
                .text("agentId", agent_id.as_deref())
                .text("agentType", agent_type.as_deref())
                .raw("context", context.as_str())
                .raw("interaction", interaction(self.expects_decision))
                .raw("recorder", self.recorder.as_deref().filter(|_| at == 0))
                .raw("payload", (at == 0).then_some(self.payload))
                .finish();
            RuntimeEvent::from_json(&json).map_err(|source| AdapterError::Event { kind: told.kind, source })
        };
        told.into_iter().enumerate().map(with_envelope).collect()
    }
}

fn interaction(expects_decision: bool) -> &'static str {
    if expects_decision { r#"{"expectsDecision":true}"# } else { r#"{"expectsDecision":false}"# }
}

/// The fields of a line. `text` is the line in readable form, see `runledger_events::readable`.
pub(crate) fn line_fields<'a>(text: &'a str, line: &str) -> Result<Fields<'a>, AdapterError> {
    let begins = || line.chars().take(BEGINS_CHARS_MAX).collect();
    Fields::parse(text).map_err(|source| AdapterError::NotAnObject { begins: begins(), source })
}

/// The text of `line` where `part` stands in `text`, its readable form, which is as long as the line.
pub(crate) fn original<'a>(part: &'a str, text: &str, line: &'a str) -> &'a str {
    let start = part.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
    line.get(start..start.wrapping_add(part.len())).unwrap_or(part)
}

/// A moment as harnesses write it: ISO-8601 (without a zone it is UTC) or Unix milliseconds, whose fraction is dropped.
pub(crate) fn moment(json: &str) -> Option<TimestampMs> {
    if let Some(text) = as_text(json) {
        let moment = text.parse::<jiff::Timestamp>().or_else(|_| {
            let local = text.parse::<jiff::civil::DateTime>()?;
            Ok::<_, jiff::Error>(local.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
        });
        return moment.ok().map(|moment| TimestampMs(moment.as_millisecond()));
    }
    let ms = json.parse::<f64>().ok().filter(|ms| ms.abs() < 9e15)?;
    Some(TimestampMs(ms.floor() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_with_and_without_a_zone_and_as_a_number() {
        let leap = Some(TimestampMs(1_709_251_199_999));
        assert_eq!(moment(r#""2024-02-29T23:59:59.999Z""#), leap);
        assert_eq!(moment(r#""2024-03-01T01:59:59.999+02:00""#), leap);
        assert_eq!(moment(r#""2024-02-29T23:59:59.999400""#), leap);
        assert_eq!(moment("1709251199999.9"), leap);
        assert_eq!(moment("1.709251199999e12"), leap);
        let none =
            [r#""2023-02-29T00:00:00Z""#, r#""yesterday""#, r#""""#, "1e999", "-9e99", "true", "[1]", "{}", "null"];
        assert!(none.into_iter().all(|json| moment(json).is_none()));
    }
}
