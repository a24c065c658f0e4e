//! Where a ledger's spools are, and how commands take them in. docs/decisions/0013-hook.md says why.
//!
//! ```text
//! FOLDER/.ledger.db.spool                       beside FOLDER/ledger.db
//! STATE/runledger-spool/DIGEST-OF-THE-PATH      where that folder is gone, or cannot be written
//! STATE/runledger-spool/DIGEST-OF-THE-PATH/ledger  the path: a hook has seen a ledger there
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runledger_events::content_digest;
use runledger_store::{EventLog, FileId, Spool, SpoolError, SpoolRecord, SqliteLog, TakeError, Taken, take_in};

use crate::output::message;

/// Hexadecimal digits of the digest of a ledger's path.
const DIGEST_CHARS: usize = 32;
/// The file that says that a hook has seen the ledger.
const MARK: &str = "ledger";
/// How long a command waits for another one that takes in.
const TAKER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a hook waits for others that append to the same spool, each of which takes one sync. Only after this long
/// does it try the next spool, or lose its event.
const APPEND_PATIENCE: Duration = Duration::from_secs(1);

/// The spools of one ledger.
pub(crate) struct Spools {
    ledger: PathBuf,
    beside: Spool,
    /// The places that do not go with the ledger's folder, the first choice first.
    elsewhere: Vec<Spool>,
}

impl Spools {
    /// The spools of the ledger at this absolute path.
    pub(crate) fn of(ledger: &Path) -> Self {
        let mut digest = content_digest(ledger.as_os_str().as_encoded_bytes()).to_string();
        digest.truncate(DIGEST_CHARS);
        let elsewhere = roots().into_iter().map(|root| Spool::at(root.join(&digest))).collect();
        Self { ledger: ledger.to_owned(), beside: Spool::at(hidden(ledger, ".spool")), elsewhere }
    }

    fn all(&self) -> impl Iterator<Item = &Spool> {
        std::iter::once(&self.beside).chain(&self.elsewhere)
    }

    /// The folders that are there.
    pub(crate) fn places(&self) -> Vec<PathBuf> {
        self.all().map(|spool| spool.folder().to_owned()).filter(|folder| folder.is_dir()).collect()
    }

    /// Whether no event waits in any that can be looked at.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().all(is_empty)
    }

    /// Bytes that wait, and bytes that were rejected.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let waiting = self.all().map(|spool| spool.bytes().unwrap_or_default()).sum();
        (waiting, self.all().map(Spool::rejected_bytes).sum())
    }

    /// Whether the ledger was there once, as far as can be told: a new one in its place would split the story in two.
    pub(crate) fn ledger_was_there(&self) -> bool {
        self.is_remembered() || self.has_remains()
    }

    /// Whether something of a ledger that is gone still stands in its place.
    fn has_remains(&self) -> bool {
        ["-wal", ".projections"].iter().any(|suffix| {
            let mut path = self.ledger.as_os_str().to_owned();
            path.push(suffix);
            Path::new(&path).exists()
        })
    }

    fn is_remembered(&self) -> bool {
        self.elsewhere.iter().any(|spool| spool.folder().join(MARK).is_file())
    }

    /// Keeps in mind, outside of the ledger's folder, that there is a ledger at this path.
    pub(crate) fn remember(&self) {
        if !self.is_remembered() {
            // Where that cannot be, only what stands beside the ledger can tell.
            let _ = self.elsewhere.iter().find(|spool| self.mark(spool).is_ok());
        }
    }

    fn mark(&self, spool: &Spool) -> std::io::Result<()> {
        self.make(spool).map_err(std::io::Error::other)?;
        let mut options = std::fs::OpenOptions::new();
        options.create(true).write(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(spool.folder().join(MARK))?;
        file.write_all(self.ledger.as_os_str().as_encoded_bytes())
    }

    /// Appends an event to the first spool that takes it, and gives its folder.
    pub(crate) fn append(&self, record: &SpoolRecord) -> Result<PathBuf, SpoolError> {
        self.first_that(|spool| spool.append(record, APPEND_PATIENCE))
    }

    /// Keeps what no event can be made of, in the first spool that takes it, and gives its folder.
    pub(crate) fn reject(&self, what: &[u8], reason: &str) -> Result<PathBuf, SpoolError> {
        self.first_that(|spool| spool.reject(what, reason, APPEND_PATIENCE))
    }

    fn first_that(&self, put: impl Fn(&Spool) -> Result<(), SpoolError>) -> Result<PathBuf, SpoolError> {
        let mut result = put(&self.beside).map(|()| self.beside.folder().to_owned());
        for spool in &self.elsewhere {
            match result {
                // A bound is a bound, and what is kept is kept.
                Ok(_) | Err(SpoolError::Full { .. }) => break,
                Err(first) => {
                    let put = self.make(spool).and_then(|()| put(spool));
                    result = put.map(|()| spool.folder().to_owned()).map_err(|_| first);
                }
            }
        }
        result
    }

    /// Makes a spool's folder outside of the ledger's, but nothing where the ledger's own folder belongs: it may be
    /// given back.
    fn make(&self, spool: &Spool) -> Result<(), SpoolError> {
        let folder = spool.folder();
        if first_missing(&self.ledger).is_some_and(|missing| folder.starts_with(missing)) {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(SpoolError::Io { path: folder.to_owned(), source });
        }
        let failed = |source| SpoolError::Io { path: folder.to_owned(), source };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(failed)
    }

    /// Takes in what waits, what comes meanwhile included, for as long as `until`.
    ///
    /// A spool beside a ledger that is gone for a moment looks empty: so it counts only what was seen while the ledger
    /// was in its place.
    pub(crate) fn take_in(
        &self,
        log: &dyn EventLog,
        patience: Duration,
        until: Option<Instant>,
    ) -> Result<Taken, TakeError> {
        let ledger = FileId::of(&self.ledger);
        let mut all = Taken { is_left: true, ..Taken::default() };
        // Who keeps on spooling does not keep us for ever.
        for _ in 0..100 {
            let (empty, waiting): (Vec<Spool>, Vec<Spool>) = self.all().cloned().partition(is_empty);
            let is_sound = || empty.iter().all(is_empty) && ledger.is_some() && FileId::of(&self.ledger) == ledger;
            if waiting.is_empty() {
                all.is_left = !is_sound();
                break;
            }
            let taken = take_in(log, &waiting, patience, until, &is_sound)?;
            all = Taken { events: all.events + taken.events, rejected: all.rejected + taken.rejected, ..all };
            if taken.is_left {
                break;
            }
        }
        Ok(all)
    }

    /// Takes in what waits, into a log that a command has opened for writing.
    pub(crate) fn take_in_all(&self, log: &dyn EventLog) {
        if self.is_empty() {
            return;
        }
        match self.take_in(log, TAKER_PATIENCE, None) {
            Ok(taken) => self.tell(taken),
            Err(error) => self.tell_waiting(&error),
        }
    }

    /// Takes in what waits, before a command reads. Makes the ledger where there was none yet.
    pub(crate) fn take_in_before_reading(&self) {
        if self.is_empty() {
            return;
        }
        if !self.ledger.exists() && self.has_remains() {
            return self.tell_waiting(&"the ledger is gone from its place");
        }
        match SqliteLog::open(&self.ledger) {
            Ok(log) => self.take_in_all(&log),
            Err(error) => self.tell_waiting(&error),
        }
    }

    fn tell(&self, taken: Taken) {
        if taken.rejected > 0 {
            let folders = self.folders(|spool| spool.rejected_bytes() > 0);
            message(&format!(
                "warning: {} spooled events were torn or refused; what is left of them is in `rejected` in {folders}",
                taken.rejected
            ));
        }
        if taken.is_left {
            self.tell_waiting(&"another process is taking it in");
        }
    }

    fn tell_waiting(&self, why: &dyn std::fmt::Display) {
        let folders = self.folders(|spool| !is_empty(spool));
        message(&format!("warning: events of hooks wait in {folders}: {why}"));
    }

    fn folders(&self, which: impl Fn(&Spool) -> bool) -> String {
        let shown = self.all().filter(|spool| which(spool)).map(|spool| spool.folder().display().to_string());
        shown.collect::<Vec<_>>().join(" and ")
    }
}

/// Whether no event waits, as far as can be seen.
fn is_empty(spool: &Spool) -> bool {
    spool.is_empty().unwrap_or(true)
}

/// A file beside the ledger that does not go along where somebody moves `ledger.db*`.
fn hidden(ledger: &Path, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(ledger.file_name().unwrap_or_default());
    name.push(suffix);
    ledger.with_file_name(name)
}

/// The folders that hold spools away from their ledgers.
fn roots() -> Vec<PathBuf> {
    const NAME: &str = "runledger-spool";
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let mut roots: Vec<PathBuf> = variable("XDG_STATE_HOME").into_iter().map(|state| state.join(NAME)).collect();
    if let Some(home) = variable("HOME") {
        roots.extend([home.join(".local/state").join(NAME), home.join(format!(".{NAME}"))]);
    }
    roots.dedup();
    roots
}

/// The first folder on the way to a file that is not there.
fn first_missing(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).take_while(|folder| !folder.exists()).last()
}
