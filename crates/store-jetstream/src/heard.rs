//! When the servers told last that a copy has all that they have: the time of a file beside the copy.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use runledger_store::CopiedLog;

const HEARD: &str = "heard";
/// How often that is written down, while event after event comes.
const PAUSE: Duration = Duration::from_secs(5);

/// When it was for the copy in a folder.
pub(crate) fn heard_in(folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(folder.join(HEARD)).and_then(|metadata| metadata.modified()).ok()
}

/// Writes down that it is now.
pub(crate) fn note(copy: &CopiedLog) {
    // That it cannot be told when is no reason not to go on.
    if let Some(folder) = copy.path().parent()
        && let Err(error) = std::fs::write(folder.join(HEARD), [])
    {
        tracing::debug!(%error, "it is not written down that the copy is current");
    }
}

/// The same for who hears it all the time.
#[derive(Debug, Default)]
pub(crate) struct Heard(Option<Instant>);

impl Heard {
    pub(crate) fn note(&mut self, copy: &CopiedLog) {
        if self.0.is_none_or(|noted| noted.elapsed() >= PAUSE) {
            note(copy);
            self.0 = Some(Instant::now());
        }
    }
}
