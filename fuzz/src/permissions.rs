//! Patterns of tool calls, command lines, and what rules say of a call.

use runledger_events::{PermissionPolicy, RuleAction, RunState, ToolCall, ToolPattern, call_fingerprint};

/// The tools whose calls patterns tell apart, and the field of their input that they look at.
const TOOLS: [(&str, &str); 7] = [
    ("Bash", "command"),
    ("Read", "file_path"),
    ("Edit", "file_path"),
    ("Glob", "pattern"),
    ("apply_patch", "command"),
    ("WebFetch", "url"),
    ("Task", "subagent_type"),
];

/// A pattern on the first line; behind it what is called.
pub fn permissions(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, called) = text.split_once('\n').unwrap_or(("*", &text));
    let parsed = match ToolPattern::parse(pattern) {
        Ok(parsed) => {
            assert_eq!(parsed.as_str(), pattern.trim());
            assert_eq!(ToolPattern::parse(parsed.as_str()).as_ref(), Ok(&parsed));
            Some(parsed)
        }
        Err(error) => {
            assert!(error.place >= 1 && error.place <= pattern.chars().count() + 1, "{error}");
            None
        }
    };
    for (tool, field) in TOOLS {
        let input = serde_json::json!({ field: called }).to_string();
        let call = tool_call(tool, input);
        assert_eq!(
            call_fingerprint(Some(tool), Some(&call.tool_input)),
            call_fingerprint(Some(tool), Some(&format!(" {} ", call.tool_input)))
        );
        if let Some(own) = call.pattern() {
            let own = ToolPattern::parse(&own).expect("the pattern of a call can be read");
            assert!(own.fits(&call, RuleAction::Allow), "a call fits its own pattern: {own}");
            assert!(own.fits(&call, RuleAction::Deny), "whatever it is for: {own}");
        }
        if let Some(parsed) = &parsed {
            laid_against(parsed, &call);
        }
    }
}

fn laid_against(pattern: &ToolPattern, call: &ToolCall) {
    let (allows, denies) = (pattern.fits(call, RuleAction::Allow), pattern.fits(call, RuleAction::Deny));
    assert!(denies || !allows, "{pattern} would allow what it would not deny: {}", call.tool_input);
    let ruling = |action: &str| {
        let policy = serde_json::json!({"rules": [{"tool": pattern.as_str(), "action": action}]});
        let policy: PermissionPolicy = serde_json::from_value(policy).expect("a policy");
        policy.check().expect("its rule can be read");
        policy.ruling(call, &[], &[]).map(|ruling| ruling.action)
    };
    assert_eq!(ruling("allow"), allows.then_some(RuleAction::Allow), "{pattern} on {}", call.tool_input);
    assert_eq!(ruling("deny"), denies.then_some(RuleAction::Deny), "{pattern} on {}", call.tool_input);
}

/// A call of the main agent in a project.
pub(crate) fn tool_call(tool_name: &str, tool_input: String) -> ToolCall {
    ToolCall {
        tool_name: tool_name.to_owned(),
        tool_input,
        cwd: "/home/dev/p/src".to_owned(),
        project_dir: "/home/dev/p".to_owned(),
        home: Some("/home/dev".to_owned()),
        agent_id: None,
        agent_type: None,
        state: RunState::Running,
        iteration: 1,
    }
}
