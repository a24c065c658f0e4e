//! Notifications: those of a type that the feed has a kind for become that kind, all others are shown as they are.

use runledger_events::{ObjectText, as_text};

use super::event::FeedLevel;
use super::incoming::Incoming;
use super::mapper::{Draft, Mapper};
use super::run_lifecycle::Trigger;
use super::{decision_correlation, text, titles};
use crate::error::ProjectionError;

impl Mapper<'_> {
    pub(super) fn notification(&mut self, event: &Incoming<'_>) -> Result<(), ProjectionError> {
        self.ensure_run(event, Trigger::Other, None)?;
        let kind = event.text("notification_type");
        let draft = match kind.as_deref() {
            Some("server_request.resolved") => self.request_resolved(event)?,
            Some(kind) => routed(event, kind).unwrap_or_else(|| plain(event)),
            None => plain(event),
        };
        self.emit(event, draft)?;
        Ok(())
    }

    fn request_resolved(&mut self, event: &Incoming<'_>) -> Result<Draft, ProjectionError> {
        let request_id = event.data.raw_or_null("request_id").map(as_javascript_text);
        let request = match &request_id {
            Some(id) => decision_correlation::resolved(&mut self.memory, id)?,
            None => None,
        };
        let message = event.text("message").unwrap_or_default();
        let data = ObjectText::new()
            .text("message", message.as_str())
            .text("request_id", request_id.as_deref())
            .text("resolved_kind", request.as_ref().map(|request| request.kind.as_str()));
        let draft = Draft::new("server.request.resolved", text::title(&message), data);
        Ok(draft.after(request.map(|request| request.event_id)))
    }
}

/// The title of a notification's entry.
pub(super) fn title(event: &Incoming<'_>) -> String {
    let routed = event.text("notification_type").and_then(|kind| routed(event, &kind));
    routed.unwrap_or_else(|| plain(event)).title
}

/// The notification as it is.
fn plain(event: &Incoming<'_>) -> Draft {
    let message = event.text("message").unwrap_or_default();
    let data = ObjectText::new()
        .text("message", message.as_str())
        .text("title", event.text("title").as_deref())
        .text("notification_type", event.text("notification_type").as_deref());
    Draft::new("notification", text::title(&message), data)
}

/// The entry for a notification of a type that the feed has a kind for.
fn routed(event: &Incoming<'_>, kind: &str) -> Option<Draft> {
    let said = |name: &str| event.text(name);
    let list = |name: &str| event.data.raw(name).filter(|json| json.starts_with('['));
    let item = event.data.object("item").unwrap_or_default();
    let message = event.text("message").unwrap_or_default();
    let phase = if kind.ends_with(".completed") { "completed" } else { "started" };
    let data = ObjectText::new().text("message", message.as_str());
    let prefixed = |prefix: &str| text::title(&format!("{prefix}{message}"));
    Some(match kind {
        "codex.error" => {
            let will_retry = event.data.bool("will_retry").map(|will| if will { "true" } else { "false" });
            let data = data
                .text("title", said("title").as_deref())
                .text("thread_id", said("thread_id").as_deref())
                .text("turn_id", said("turn_id").as_deref())
                .text("error_code", said("error_code").as_deref())
                .raw("will_retry", will_retry);
            let title = prefixed(&format!("{} ", titles::FAILED));
            Draft::new("runtime.error", title, data).level(FeedLevel::Error)
        }
        "thread.status_changed" => {
            let data = data
                .text("thread_id", said("thread_id").as_deref())
                .text("status_type", said("status_type").as_deref())
                .raw("active_flags", list("active_flags"));
            Draft::new("thread.status", prefixed("Thread status: "), data)
        }
        "turn.diff_updated" => {
            let data = data
                .text("thread_id", said("thread_id").as_deref())
                .text("turn_id", said("turn_id").as_deref())
                .text("diff", said("diff").unwrap_or_default().as_str());
            Draft::new("turn.diff", "Turn diff updated", data)
        }
        "item.enteredReviewMode.started"
        | "item.enteredReviewMode.completed"
        | "item.exitedReviewMode.started"
        | "item.exitedReviewMode.completed" => {
            let data = data
                .text("phase", phase)
                .text("review", item.text("review").as_deref())
                .text("item_id", said("item_id").as_deref());
            Draft::new("review.status", text::title(&message), data)
        }
        "item.imageView.started" | "item.imageView.completed" => {
            let data = data.text("path", item.text("path").as_deref()).text("item_id", said("item_id").as_deref());
            Draft::new("image.view", text::title(&message), data)
        }
        "item.contextCompaction.started" | "item.contextCompaction.completed" => {
            let data = data.text("phase", phase).text("item_id", said("item_id").as_deref());
            Draft::new("context.compaction", text::title(&message), data)
        }
        "mcp_tool_call.progress" => {
            let data = data.text("title", said("title").as_deref());
            Draft::new("mcp.progress", prefixed("MCP progress: "), data)
        }
        "command_execution.terminal_interaction" => {
            let data = data.text("input_preview", message.as_str());
            Draft::new("terminal.input", prefixed("Terminal input: "), data)
        }
        "skills.changed" => Draft::new("skills.changed", "Skills changed", data),
        "skills.loaded" => {
            let payload = event.payload();
            let number = |name| payload.raw(name).filter(|json: &&str| json.starts_with(is_of_number));
            let data = data.raw("count", number("count")).raw("error_count", number("error_count"));
            Draft::new("skills.loaded", "Skills loaded", data)
        }
        _ => return None,
    })
}

fn is_of_number(first: char) -> bool {
    first == '-' || first.is_ascii_digit()
}

/// A JSON value as JavaScript's `String` shows it.
fn as_javascript_text(json: &str) -> String {
    if let Some(text) = as_text(json) {
        return text;
    }
    match json.chars().next() {
        Some('{') => "[object Object]".to_owned(),
        Some('[') => {
            let items: Vec<&serde_json::value::RawValue> = serde_json::from_str(json).unwrap_or_default();
            let shown = items.iter().map(|item| match item.get() {
                "null" => String::new(),
                item => as_javascript_text(item),
            });
            shown.collect::<Vec<_>>().join(",")
        }
        Some(first) if is_of_number(first) => {
            // Whole numbers are shown without a point, as far as a double holds them.
            json.parse::<f64>().map_or_else(|_| json.to_owned(), |number| number.to_string())
        }
        _ => json.to_owned(),
    }
}
