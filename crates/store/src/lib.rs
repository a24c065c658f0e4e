//! The one append-only log of what coding agents did, in SQLite: append, read, follow, migrate, verify, back up.
//!
//! Writers hold an [`EventLog`], which is a [`SqliteLog`] here, readers a [`LogReader`], which cannot write. Several processes may do both at once.
//!
//! ```
//! use runledger_events::{Metadata, RuntimeEvent, SessionId, StreamName};
//! use runledger_store::{EventLog, ExpectedVersion, NewEvent, SqliteLog};
//!
//! # let folder = tempfile::tempdir()?;
//! let log = SqliteLog::open(folder.path().join("ledger.db"))?;
//! let session = SessionId::new("s1")?;
//! let event = RuntimeEvent::from_json(r#"{"kind":"user.prompt","data":{"prompt":"hello"}}"#)?;
//! let metadata = Metadata { session_id: Some(session.clone()), ..Metadata::default() };
//! let receipts = log.append(&StreamName::session(&session), ExpectedVersion::Any, vec![NewEvent::new(event, metadata)?])?;
//! assert_eq!(receipts[0].position.0, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backup;
mod connection;
mod copied_erasure;
mod copied_log;
mod error;
mod expected_version;
mod exported;
#[doc(hidden)]
pub mod failpoint;
mod file_id;
mod follow;
mod group_commit;
mod lease;
mod ledger_events;
mod log;
mod lookups;
mod names;
mod new_event;
mod private_file;
mod reader;
mod redact;
mod restore;
mod row;
mod schema;
mod seal;
mod signed_head;
mod spool;
pub mod sqlite;
mod sqlite_log;
mod stray;
mod transfer;
mod verify;
mod write;
mod write_back;

/// The facts, for those who link this crate alone.
pub use runledger_events as events;
pub use runledger_events::CONTENT_BYTES_MAX;

pub use backup::Copied;
pub use connection::{absolute_place, is_address};
pub use copied_erasure::{Erasure, ErasurePlan, stand_ins};
pub use copied_log::{CopiedLog, CopyError, Draft, DraftedEvent, Found};
pub use error::{
    AppendError, BackupError, NewEventError, OpenError, ReadError, RedactError, RestoreError, SealError, StorageError,
    WrongExpectedVersion,
};
pub use expected_version::ExpectedVersion;
pub use exported::{ExportedError, new_event_from_exported};
pub use file_id::FileId;
pub use follow::Follower;
pub use lease::Lease;
pub use log::EventLog;
pub use new_event::{NewEvent, Receipt, StreamAppend};
pub use private_file::create_private;
pub use reader::{Batch, EventFilter, Head, LogReader, Read};
pub use redact::{Erase, Redacted};
pub use restore::Restored;
pub use row::Unreadable;
pub use signed_head::{SealFinding, SealKey, SealPublicKey, SignedHead};
pub use spool::{SPOOL_BYTES_MAX, Spool, SpoolError, SpoolRecord, TakeError, Taken, take_in};
pub use sqlite_log::{OpenOptions, SqliteLog, SyncMode};
pub use stray::Stray;
pub use transfer::{TransferError, Transferred};
pub use verify::{LogFinding, LogReport};
pub use write_back::WriteBack;
