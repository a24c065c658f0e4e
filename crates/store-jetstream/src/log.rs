//! The log on JetStream as an [`EventLog`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_nats::connection::State;
use runledger_events::{LogId, Position};
use runledger_store::{
    AppendError, CopiedLog, Erase, EventLog, Follower, Lease, OpenError, Receipt, RedactError, Redacted, SealError,
    SealKey, SignedHead, StorageError, StreamAppend,
};

use crate::address::Address;
use crate::append::{self, DraftBy};
use crate::copier::{Copier, Progress};
use crate::engine::Engine;
use crate::error::JetStreamError;
use crate::heard;

/// The name of the copy in its folder, as that of a ledger at its default place.
const COPY: &str = "ledger.db";

/// How a ledger on NATS is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether a missing stream is made.
    pub create: bool,
    /// How long the servers have to let us in.
    pub connect: Duration,
    /// How long is asked again for the stream, where nobody leads it yet.
    pub open: Duration,
    /// How long is tried again, where nobody knows what came of an append, or nobody leads the stream. After a leader is gone,
    /// writes wait for 6 to 10 seconds.
    pub patience: Duration,
    /// How long opening it and all that is appended through it may take together; none where nobody waits for that.
    pub within: Option<Duration>,
    /// Who connects, where no certificate says so.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// A file (PEM) with the certificates of who signs the servers'; else those that the system trusts.
    pub ca: Option<PathBuf>,
    /// A file (PEM) with our own certificate, where servers ask for one.
    pub certificate: Option<PathBuf>,
    /// A file (PEM) with its key.
    pub key: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        let (connect, patience) = (Duration::from_secs(5), Duration::from_secs(20));
        Self {
            create: true,
            connect,
            open: patience,
            patience,
            within: None,
            user: None,
            password: None,
            ca: None,
            certificate: None,
            key: None,
        }
    }
}

/// How long another process that writes to the copy is waited for, unless the caller has less patience.
const BUSY_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// The log on JetStream, for writing, and this machine's copy of it.
///
/// What it acknowledges is on a quorum of the servers, and on their disks where these have `sync_interval: always`; and it is in the
/// copy. Share it in an [`Arc`].
#[derive(Debug)]
pub struct JetStreamLog {
    // The copier ends before the connection that it follows.
    _copier: Copier,
    engine: Engine,
    copy: Arc<CopiedLog>,
    progress: Arc<Progress>,
    patience: Duration,
    /// When everything has to be done.
    deadline: Option<Instant>,
}

impl JetStreamLog {
    /// Opens the ledger at an address, whose copy is in `folder`; makes both where they are missing.
    ///
    /// # Errors
    /// [`JetStreamError`]; a stream that is no ledger's is not touched.
    pub fn open(address: &Address, folder: &Path, options: &Options) -> Result<Self, JetStreamError> {
        let deadline = options.within.map(|within| Instant::now() + within);
        let engine = Engine::connect(address, options)?;
        let until = Instant::now() + options.open;
        let log_id = engine.open_stream(options.create, deadline.map_or(until, |deadline| until.min(deadline)))?;
        // Opening it, drafting and taking in wait for it, each.
        let busy_timeout =
            BUSY_TIMEOUT_MAX.min(options.patience).min(options.within.map_or(Duration::MAX, |all| all / 4));
        let copy = Arc::new(CopiedLog::open_within(folder.join(COPY), &log_id, busy_timeout)?);
        let progress = Arc::new(Progress::default());
        progress.reach(copy.head()?);
        let copier = Copier::start(&engine, copy.clone(), progress.clone())
            .map_err(|source| JetStreamError::System { address: address.to_string(), source })?;
        Ok(Self { _copier: copier, engine, copy, progress, patience: options.patience, deadline })
    }

    /// Where the copy of a ledger is, in its folder.
    pub fn copy_in(folder: &Path) -> PathBuf {
        folder.join(COPY)
    }

    /// When the servers told last that the copy in a folder has all that they have.
    pub fn heard_in(folder: &Path) -> Option<SystemTime> {
        heard::heard_in(folder)
    }

    /// The address.
    pub fn address(&self) -> &Address {
        self.engine.address()
    }

    /// Brings the copy to where the stream's leader is now; gives the position. `patience` is how long it may stand still.
    ///
    /// # Errors
    /// [`StorageError::Engine`] where the servers do not answer, or the copy goes no further; it can be read as it is.
    pub fn catch_up(&self, patience: Duration) -> Result<Position, StorageError> {
        let head = Position(self.engine.last_sequence().map_err(|detail| self.failed(detail))?);
        self.wait_while_moving(head.0, patience)?;
        heard::note(&self.copy);
        Ok(head)
    }

    /// Waits until the copy has come to a sequence, as long as it goes on.
    pub(crate) fn wait_while_moving(&self, sequence: u64, patience: Duration) -> Result<(), StorageError> {
        self.progress.wait_while_moving(Position(sequence), patience).map_err(|detail| self.failed(detail))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn copy(&self) -> &CopiedLog {
        &self.copy
    }

    pub(crate) fn append_by(&self, draft: DraftBy, appends: Vec<StreamAppend>) -> Result<Vec<Receipt>, AppendError> {
        let until = Instant::now() + self.patience;
        let until = self.deadline.map_or(until, |deadline| until.min(deadline));
        // An event without an id gets one before it is drafted again and again.
        let appends = self.copy.identified(appends)?;
        append::append(&self.engine, &self.copy, &self.progress, draft, &appends, until)
    }

    pub(crate) fn failed(&self, detail: String) -> StorageError {
        self.engine.failed(detail)
    }
}

impl EventLog for JetStreamLog {
    fn path(&self) -> &Path {
        self.copy.path()
    }

    fn log_id(&self) -> &LogId {
        self.copy.log_id()
    }

    fn append_all(&self, appends: Vec<StreamAppend>) -> Result<Vec<Receipt>, AppendError> {
        self.append_by(CopiedLog::draft, appends)
    }

    fn redact(&self, erase: &Erase, reason: &str, by: &str) -> Result<Redacted, RedactError> {
        self.redact_and_tell(erase, reason, by, |_, _| {})
    }

    fn settle(&self) -> Result<bool, RedactError> {
        self.copy.settle()
    }

    fn seal(&self, key: &SealKey) -> Result<(SignedHead, Receipt), SealError> {
        self.refresh()?;
        SignedHead::seal(self, key, |append| self.append_by(CopiedLog::draft_own, vec![append]))
    }

    fn is_cut_off(&self) -> bool {
        self.engine.client().connection_state() != State::Connected
    }

    fn hold(&self, name: &str, who: &str) -> Result<Option<Lease>, StorageError> {
        self.hold_key(name, who)
    }

    fn is_held(&self, name: &str) -> Result<Option<bool>, StorageError> {
        self.has_key(name)
    }

    fn refresh(&self) -> Result<(), StorageError> {
        self.catch_up(self.patience).map(drop)
    }

    fn follow(&self, after: Position) -> Result<Follower, OpenError> {
        self.copy.follow(after)
    }
}
