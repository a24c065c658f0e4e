//! The tracker: the progress file that the agent keeps, and whose last line says whether to go on.

use std::io::ErrorKind;
use std::path::Path;

use runledger_events::{TrackerFacts, content_digest};

use crate::bounded;
use crate::config::LoopConfig;
use crate::decide::TrackerReading;
use crate::error::ConfigError;
use crate::instructions::substitute;

/// The first line of a tracker that no agent has taken over yet.
pub const SKELETON_MARKER: &str = "<!-- TRACKER_SKELETON -->";

/// Bytes of a tracker that an event holds, at the most; its digest is always of the whole.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// The longest tracker that is read at all.
const FILE_BYTES_MAX: u64 = 64 << 20;

const SKELETON: &str = "<!-- TRACKER_SKELETON -->
# Tracker

**Session**: {sessionId}
**Tracker**: {trackerPath}
**Goal**: {goal}

Nothing has been done yet. Replace this whole file, its first line too, with:

- the plan, as a list of steps;
- what is done, and what was learned;
- what comes next.

The last line decides how the loop goes on; the instructions name the two lines that end it.
";

/// What a tracker's last non-empty line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the work goes on.
    Open,
    /// The work is complete.
    Complete,
    /// The work is blocked, with the reason that was given.
    Blocked(Option<String>),
}

impl Verdict {
    /// Reads the last non-empty line of a tracker.
    ///
    /// Complete: the line is the completion marker. Blocked: the line is the blocked marker closed by ` -->`, or the
    /// marker, a colon, and a reason that ends at the first `-->` or at the line's end.
    pub fn of(text: &str, config: &LoopConfig) -> Self {
        let Some(line) = text.lines().map(str::trim).rfind(|line| !line.is_empty()) else {
            return Self::Open;
        };
        if line == config.completion_marker.trim() {
            return Self::Complete;
        }
        match line.strip_prefix(config.blocked_marker.trim()) {
            Some(" -->") => Self::Blocked(None),
            Some(rest) => match rest.strip_prefix(':') {
                Some(reason) => {
                    let reason = reason.split("-->").next().unwrap_or_default().trim();
                    Self::Blocked((!reason.is_empty()).then(|| reason.to_owned()))
                }
                None => Self::Open,
            },
            None => Self::Open,
        }
    }
}

/// Writes the skeleton, unless the file is there already.
///
/// # Errors
/// [`ConfigError::Write`]; the file is as it was.
pub(crate) fn create(path: &Path, relative: &str, session_id: &str, goal: &str) -> Result<(), ConfigError> {
    let failed = |source| ConfigError::Write { what: "tracker", path: path.to_owned(), source };
    let text = substitute(&SKELETON.replace("{goal}", goal), session_id, Some(relative));
    match runledger_store::create_private(path) {
        Ok(mut file) => std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The tracker as a turn left it; `None` where it is gone.
///
/// # Errors
/// What is no regular file, such as a pipe, which would keep the run waiting, or is longer than any tracker.
pub(crate) fn read(path: &Path, config: &LoopConfig) -> Result<Option<TrackerReading>, std::io::Error> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let bytes = match bounded::read(path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(TrackerReading::of(&bytes, config)))
}

impl TrackerReading {
    /// What these bytes of a tracker say. Those that are no UTF-8 are shown as U+FFFD.
    pub fn of(bytes: &[u8], config: &LoopConfig) -> Self {
        let whole = String::from_utf8_lossy(bytes);
        let text = &whole[..whole.floor_char_boundary(TEXT_BYTES_MAX)];
        Self {
            facts: TrackerFacts {
                digest: content_digest(bytes).to_string(),
                bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                is_whole: text.len() == whole.len(),
            },
            text: text.to_owned(),
            is_skeleton: whole.lines().any(|line| line.trim() == SKELETON_MARKER),
            verdict: Verdict::of(&whole, config),
        }
    }
}
