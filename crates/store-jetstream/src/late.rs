//! A ledger whose servers cannot be reached yet: its copy can be read, and it is followed and written to once they can.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use runledger_events::{LogId, Position};
use runledger_store::{
    AppendError, Erase, EventLog, Follower, Lease, LogReader, OpenError, Receipt, RedactError, Redacted, SealError,
    SealKey, SignedHead, StorageError, StreamAppend,
};

use crate::address::Address;
use crate::error::JetStreamError;
use crate::log::{JetStreamLog, Options};

/// How long until the servers are tried again.
const RECONNECT: Duration = Duration::from_secs(2);

/// A log on JetStream that began cut off. What is written to it until the servers are reached is refused, with why.
#[derive(Debug)]
pub struct LateLog {
    address: Address,
    path: PathBuf,
    log_id: LogId,
    reached: Arc<Reached>,
    /// Ends the trying when it goes.
    _end: mpsc::Sender<()>,
}

#[derive(Debug, Default)]
struct Reached {
    log: OnceLock<JetStreamLog>,
    /// Why it was not, the last time.
    why: Mutex<String>,
}

impl LateLog {
    /// Opens the copy in `folder`, and tries to reach the servers of `address` until they are, every 2 seconds. `why` they were not
    /// just now.
    ///
    /// # Errors
    /// [`JetStreamError::Copy`] where there is no copy to read, [`JetStreamError::System`] where no thread can be started.
    pub fn open(
        address: &Address,
        folder: &Path,
        options: &Options,
        why: &JetStreamError,
    ) -> Result<Self, JetStreamError> {
        let path = JetStreamLog::copy_in(folder);
        let log_id = LogReader::open(&path)?.log_id().clone();
        let reached = Arc::new(Reached::default());
        reached.note(why);
        let (end, ended) = mpsc::channel();
        let (reaching, to, folder) = (reached.clone(), address.clone(), folder.to_owned());
        // A log that was there is not made anew.
        let options = Options { create: false, ..options.clone() };
        let reach = move || {
            while ended.recv_timeout(RECONNECT) == Err(RecvTimeoutError::Timeout) {
                match JetStreamLog::open(&to, &folder, &options) {
                    Ok(log) => {
                        tracing::debug!(address = %to, "the servers are reached");
                        reaching.log.get_or_init(|| log);
                        return;
                    }
                    Err(error) => reaching.note(&error),
                }
            }
        };
        std::thread::Builder::new()
            .name("runledger-reconnect".to_owned())
            .spawn(reach)
            .map_err(|source| JetStreamError::System { address: address.to_string(), source })?;
        Ok(Self { address: address.clone(), path, log_id, reached, _end: end })
    }

    /// The log, once its servers are reached.
    ///
    /// # Errors
    /// [`StorageError::Engine`] with why they are not.
    pub fn log(&self) -> Result<&JetStreamLog, StorageError> {
        self.reached.log.get().ok_or_else(|| {
            let why = self.reached.why.lock().unwrap_or_else(PoisonError::into_inner);
            let detail = format!("{why}; nothing was written, and it is tried again every {} s", RECONNECT.as_secs());
            StorageError::Engine { address: self.address.to_string(), detail }
        })
    }
}

impl Reached {
    /// Keeps why the servers were not reached; what time alone does not mend is said once.
    fn note(&self, error: &JetStreamError) {
        let detail = match error {
            JetStreamError::Unreachable { detail, .. } => format!("NATS is not reachable ({detail})"),
            JetStreamError::Insecure { detail, next, .. } => format!("no connection by TLS ({detail}); {next}"),
            error => error.to_string(),
        };
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if *why != detail {
            if !matches!(error, JetStreamError::Unreachable { .. } | JetStreamError::Insecure { .. }) {
                tracing::error!(%error, "the ledger is not followed");
            }
            *why = detail;
        }
    }
}

impl EventLog for LateLog {
    fn path(&self) -> &Path {
        &self.path
    }

    fn log_id(&self) -> &LogId {
        &self.log_id
    }

    fn append_all(&self, appends: Vec<StreamAppend>) -> Result<Vec<Receipt>, AppendError> {
        self.log()?.append_all(appends)
    }

    fn refresh(&self) -> Result<(), StorageError> {
        self.log()?.refresh()
    }

    fn is_cut_off(&self) -> bool {
        self.reached.log.get().is_none_or(|log| log.is_cut_off())
    }

    fn hold(&self, name: &str, who: &str) -> Result<Option<Lease>, StorageError> {
        self.log()?.hold(name, who)
    }

    fn is_held(&self, name: &str) -> Result<Option<bool>, StorageError> {
        self.log()?.is_held(name)
    }

    fn redact(&self, erase: &Erase, reason: &str, by: &str) -> Result<Redacted, RedactError> {
        self.log()?.redact(erase, reason, by)
    }

    fn settle(&self) -> Result<bool, RedactError> {
        self.log()?.settle()
    }

    fn seal(&self, key: &SealKey) -> Result<(SignedHead, Receipt), SealError> {
        self.log()?.seal(key)
    }

    fn follow(&self, after: Position) -> Result<Follower, OpenError> {
        match self.reached.log.get() {
            Some(log) => log.follow(after),
            // What is copied once the servers are reached is seen in the file.
            None => LogReader::open(&self.path)?.follow(after),
        }
    }
}
