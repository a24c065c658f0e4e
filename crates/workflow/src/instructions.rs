//! Instructions for the harness: the workflow's own file, behind the protocol that every loop follows.

use std::path::Path;

use crate::bounded;
use crate::config::WorkflowConfig;
use crate::error::ConfigError;
use crate::harness::Instructions;
use crate::paths;

/// The file that the composed instructions are written to, beside the workflow's own.
const COMPOSED: &str = ".composed-system-prompt.md";

/// The longest file of instructions, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

const PROTOCOL: &str = "# How this loop works

You work in turns. Each turn begins without memory of the one before, but for the tracker: a file in the project
directory that you keep. Read it first. If it is still a skeleton, replace the whole file by a plan.

In each turn do one meaningful piece of work, check it, and write down in the tracker what is done, what you learned and
what comes next.

The tracker's last non-empty line decides how the loop goes on:

- `{completion}` alone on the line: the goal is reached.
- `{blocked}: REASON -->`: you cannot go on without a person; say what you need.
- anything else: another turn follows.";

/// Fills in `{sessionId}` or `<session_id>`, and `{trackerPath}` where there is a tracker.
pub(crate) fn substitute(text: &str, session_id: &str, tracker_path: Option<&str>) -> String {
    let text = text.replace("{sessionId}", session_id).replace("<session_id>", session_id);
    match tracker_path {
        Some(path) => text.replace("{trackerPath}", path),
        None => text,
    }
}

/// Composes the instructions, without writing them; `None` where the workflow has none.
///
/// # Errors
/// [`ConfigError`] when the workflow's file, or the composed one beside it, lies outside the project directory, or when
/// the file cannot be read.
pub(crate) fn compose(
    config: &WorkflowConfig,
    project_dir: &Path,
    session_id: &str,
    tracker_path: Option<&str>,
) -> Result<Option<Instructions>, ConfigError> {
    let Some(relative) = &config.workflow_file else {
        return Ok(None);
    };
    let path = paths::inside(project_dir, relative, "workflowFile")?;
    let own = match bounded::read_text(&path, FILE_BYTES_MAX) {
        Ok(text) => text,
        // A missing file means that there are no instructions.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    let own = substitute(&own, session_id, tracker_path);
    let text = match config.active_loop() {
        Some(config) => {
            let protocol = PROTOCOL
                .replace("{completion}", &config.completion_marker)
                .replace("{blocked}", &config.blocked_marker);
            format!("{protocol}\n\n{own}")
        }
        None => own,
    };
    let beside = Path::new(relative).with_file_name(COMPOSED);
    let file = paths::inside(project_dir, &beside.to_string_lossy(), "composed instructions")?;
    Ok(Some(Instructions { file, text }))
}

/// Writes the composed instructions to their file.
///
/// # Errors
/// [`ConfigError::Write`].
pub(crate) fn write(instructions: &Instructions) -> Result<(), ConfigError> {
    std::fs::write(&instructions.file, &instructions.text).map_err(|source| ConfigError::Write {
        what: "composed instructions",
        path: instructions.file.clone(),
        source,
    })
}
