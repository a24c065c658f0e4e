//! The signs that titles begin with, and the titles that several kinds of entry share.

pub(super) const TOOL: &str = "●";
pub(super) const RESULT: &str = "⎿";
pub(super) const FAILED: &str = "✗";
pub(super) const DONE: &str = "✓";
pub(super) const WARNING: &str = "⚠";
pub(super) const STOP: &str = "⊘";
pub(super) const UNDECIDED: &str = "⧗";
pub(super) const SUBAGENT: &str = "↯";
pub(super) const SUBAGENT_DONE: &str = "⏹";
pub(super) const IDLE: &str = "⏸";
pub(super) const SETTING: &str = "⚙";
pub(super) const OPEN_ITEM: &str = "□";
pub(super) const MESSAGE: &str = "⏺";
pub(super) const WORKFLOW: &str = "◆";

pub(super) const STOP_REQUESTED: &str = "⊘ Stop requested";

/// The title of a run's beginning.
pub(super) fn run_started(prompt_preview: Option<&str>) -> String {
    match prompt_preview.filter(|preview| !preview.is_empty()) {
        Some(preview) => super::text::title(&format!("Run: {preview}")),
        None => "Run started".to_owned(),
    }
}
