//! The log on NATS JetStream: one stream for a ledger, a subject for each of its streams, a message for each event.
//!
//! JetStream decides what is appended and in which order, replicated and synced. What was appended is copied into an SQLite file of
//! this machine in that order, and read there as every log is: reads need no network. How it is mapped, and why:
//! docs/decisions/0028-jetstream.md.
//!
//! ```no_run
//! use runledger_store::EventLog;
//! use runledger_store_jetstream::{Address, JetStreamLog, Options};
//!
//! let address: Address = "nats://127.0.0.1:4222/team".parse()?;
//! let log = JetStreamLog::open(&address, "copies/team".as_ref(), &Options::default())?;
//! println!("log {}, read from {}", log.log_id(), log.path().display());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod append;
mod copier;
mod engine;
mod erase;
mod error;
mod heard;
mod late;
mod leases;
mod log;
mod publish;
mod secure;
mod settings;
mod stand_ins;
mod state;
mod subject;

pub use address::{Address, AddressError};
pub use erase::Erasures;
pub use error::JetStreamError;
pub use late::LateLog;
pub use log::{JetStreamLog, Options};
pub use settings::SERVER_OLDEST;
pub use state::StreamState;
