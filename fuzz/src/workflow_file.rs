//! Workflow files.

use runledger_events::{RunPolicy, RunState, ToolCall};
use runledger_workflow::WorkflowConfig;

/// Any bytes as a workflow file.
pub fn workflow_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let config = match WorkflowConfig::parse(text) {
        Ok(config) => config,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let kept = config.json.as_ref().expect("the file is kept").get();
    assert_eq!(kept, text.trim_matches([' ', '\t', '\n', '\r']), "as it was");
    let again = WorkflowConfig::parse(kept).expect("what was kept is a workflow");
    assert_eq!(again.policy(), config.policy());
    assert_eq!(again.env, config.env);
    let Some(policy) = config.policy() else {
        return;
    };
    // It stands in the log as JSON.
    let json = serde_json::to_string(&policy).expect("it can be written");
    assert_eq!(serde_json::from_str::<RunPolicy>(&json).expect("and read"), policy);
    if let Some(permissions) = policy.permissions {
        permissions.check().expect("every rule of a file that was taken can be read");
        for (tool_name, tool_input) in [("Bash", r#"{"command":"git push"}"#), ("Read", r#"{"file_path":"src/a"}"#)] {
            let _ = permissions.ruling(&call(tool_name, tool_input), &[], &[]);
        }
    }
}

fn call(tool_name: &str, tool_input: &str) -> ToolCall {
    ToolCall {
        state: RunState::Running,
        iteration: 1,
        ..crate::permissions::tool_call(tool_name, tool_input.to_owned())
    }
}
