//! Rows of schema versions 2 and 3, whose events have neither `kind` nor `data`: both are read out of the hook's payload.
//!
//! | hook | kind |
//! | --- | --- |
//! | SessionStart, SessionEnd, UserPromptSubmit | `session.start`, `session.end`, `user.prompt` |
//! | PreToolUse, PostToolUse, PostToolUseFailure, PermissionRequest | `tool.pre`, `tool.post`, `tool.failure`, `permission.request` |
//! | Stop, SubagentStart, SubagentStop | `stop.request`, `subagent.start`, `subagent.stop` |
//! | Notification, PreCompact, Setup, ConfigChange | `notification`, `compact.pre`, `setup`, `config.change` |
//! | TeammateIdle, TaskCompleted | `teammate.idle`, `task.completed` |
//! | any other | `unknown`, with the hook's name and its payload |

use runledger_events::{Fields, ObjectText};

/// The kind of a hook, and the fields of its payload that belong to `data`.
fn shape(hook_name: &str) -> Option<(&'static str, &'static [&'static str])> {
    Some(match hook_name {
        "SessionStart" => ("session.start", &["source", "model", "agent_type"]),
        "SessionEnd" => ("session.end", &["reason"]),
        "UserPromptSubmit" => ("user.prompt", &["prompt", "permission_mode"]),
        "PreToolUse" => ("tool.pre", &["tool_name", "tool_input", "tool_use_id"]),
        "PostToolUse" => ("tool.post", &["tool_name", "tool_input", "tool_use_id", "tool_response"]),
        "PostToolUseFailure" => ("tool.failure", &["tool_name", "tool_input", "tool_use_id", "error", "is_interrupt"]),
        "PermissionRequest" => {
            ("permission.request", &["tool_name", "tool_input", "tool_use_id", "permission_suggestions"])
        }
        "Stop" => ("stop.request", &["stop_hook_active", "last_assistant_message"]),
        "SubagentStart" => ("subagent.start", &["agent_id", "agent_type"]),
        "SubagentStop" => (
            "subagent.stop",
            &["agent_id", "agent_type", "stop_hook_active", "agent_transcript_path", "last_assistant_message"],
        ),
        "Notification" => ("notification", &["message", "title", "notification_type"]),
        "PreCompact" => ("compact.pre", &["trigger", "custom_instructions"]),
        "Setup" => ("setup", &["trigger"]),
        "ConfigChange" => ("config.change", &["source", "file_path"]),
        "TeammateIdle" => ("teammate.idle", &["teammate_name", "team_name"]),
        "TaskCompleted" => {
            ("task.completed", &["task_id", "task_subject", "task_description", "teammate_name", "team_name"])
        }
        _ => return None,
    })
}

/// The `kind` of an event without one, and its `data` as JSON text.
pub(crate) fn kind_and_data(hook_name: &str, event: &Fields<'_>) -> (&'static str, String) {
    let Some((kind, names)) = shape(hook_name) else {
        let data = ObjectText::new().text("source_event_name", hook_name).raw("payload", event.raw("payload"));
        return ("unknown", data.finish());
    };
    let payload = event.object("payload").unwrap_or_default();
    let data = names.iter().fold(ObjectText::new(), |data, name| {
        // A tool without input has an empty one.
        let missing = (*name == "tool_input").then_some("{}");
        data.raw(name, payload.raw_or_null(name).or(missing))
    });
    (kind, data.finish())
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn data_is_what_the_payload_says_and_no_more() {
        let told = |hook: &str, json: &str| kind_and_data(hook, &Fields::parse(json).expect("an object"));
        let json = r#"{"payload":{"tool_name":"Bash","cwd":"/","tool_use_id":"u1","error":null}}"#;
        let expected = r#"{"tool_name":"Bash","tool_input":{},"tool_use_id":"u1","error":null}"#;
        assert_eq!(told("PostToolUseFailure", json), ("tool.failure", expected.to_owned()));
        assert_eq!(told("Stop", r#"{"payload":null}"#), ("stop.request", "{}".to_owned()));
        let other = r#"{"source_event_name":"New","payload":{"x":1e999}}"#;
        assert_eq!(told("New", r#"{"payload":{"x":1e999}}"#), ("unknown", other.to_owned()));
    }
}
