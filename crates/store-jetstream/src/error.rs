//! Why a ledger on NATS is not there: what was asked of which address, what went wrong, and what to do next.

use std::path::PathBuf;

use runledger_store::{OpenError, StorageError};

/// A ledger on NATS was not opened.
#[derive(Debug, thiserror::Error)]
pub enum JetStreamError {
    /// No server answered.
    #[error("{address}: NATS is not reachable ({detail}); see that the servers run, and which network you are in")]
    Unreachable {
        /// The address.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The server refuses who asks.
    #[error(
        "{address}: NATS does not let you in ({detail}); NATS_USER and NATS_PASSWORD say who you are, or \
         the certificate that NATS_CERT names"
    )]
    NotLetIn {
        /// The address.
        address: String,
        /// What it says.
        detail: String,
    },
    /// A file that says who connects, or whom to trust, cannot be used.
    #[error("{address}: {} {problem}; it is named by NATS_CA, NATS_CERT or NATS_KEY", file.display())]
    Certificate {
        /// The address.
        address: String,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No secure connection can be agreed on.
    #[error("{address}: no connection by TLS ({detail}); {next}")]
    Insecure {
        /// The address.
        address: String,
        /// What is wrong.
        detail: String,
        /// What can be done.
        next: &'static str,
    },
    /// The server cannot do what a ledger needs.
    #[error(
        "{address}: its server is NATS {found}, and a ledger needs {oldest} or newer, where several events are one append; upgrade it"
    )]
    TooOld {
        /// The address.
        address: String,
        /// Its version.
        found: String,
        /// The oldest that does.
        oldest: &'static str,
    },
    /// The server has no JetStream, or not for this account.
    #[error("{address}: the server keeps no streams for you ({detail}); switch JetStream on for your account")]
    NoJetStream {
        /// The address.
        address: String,
        /// What it says.
        detail: String,
    },
    /// There is no such stream.
    #[error(
        "{address}: there is no ledger; `exec`, `ingest` or `push` makes one, `--db` or RUNLEDGER_DB names another"
    )]
    Missing {
        /// The address.
        address: String,
    },
    /// The same, where this machine has a copy of one that was there.
    #[error(
        "{address}: there is no ledger any more, and {copy} is a copy of one that was there; move it away to begin another, or have \
         the stream restored"
    )]
    MissingBesideCopy {
        /// The address.
        address: String,
        /// The copy.
        copy: PathBuf,
    },
    /// The stream is no ledger's, or could lose events.
    #[error(
        "{address}: its stream cannot keep a ledger: {problems}; have an administrator change it, or name another ledger"
    )]
    Settings {
        /// The address.
        address: String,
        /// What is wrong with it.
        problems: String,
    },
    /// The stream cannot be made.
    #[error("{address}: the stream cannot be made: {detail}")]
    NotMade {
        /// The address.
        address: String,
        /// What the server says.
        detail: String,
    },
    /// This machine's copy cannot be opened.
    #[error(transparent)]
    Copy(#[from] OpenError),
    /// This machine's copy failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Threads cannot be started.
    #[error("no thread can be started for {address}: {source}")]
    System {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}
