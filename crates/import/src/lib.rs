//! Takes over session databases of the two-tier design: their rows become events of the one log.
//!
//! - `database.rs`, `rows.rs`, `copy.rs`: an old database of schema versions 2 to 6, read and never changed
//! - `convert.rs`: its rows as events, in their order of time; of it `sequence.rs` (runtime events and what the feed
//!   alone tells), `hooks.rs` (rows without a kind), `decisions.rs`, `runs.rs` (workflow runs), `notes.rs` (the rest)
//! - `take_over.rs`: the events into the log, all or none, once
//! - `compare.rs`, `compare_feed.rs`: counting what is equal to the old rows, what is different, and why
//!
//! ```no_run
//! use runledger_import::{OldDatabase, take_over};
//! use runledger_store::SqliteLog;
//!
//! let old = OldDatabase::read("session.db")?;
//! let taken = take_over(&SqliteLog::open("ledger.db")?, &old)?;
//! println!("{} events of session {}", taken.appended, taken.session_id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: docs/decisions/0012-import.md

mod compare;
mod compare_feed;
mod convert;
mod copy;
mod database;
mod decisions;
mod error;
mod hooks;
mod json;
mod notes;
mod rows;
mod runs;
mod sequence;
mod take_over;

pub use compare::Comparison;
pub use compare_feed::compare_feed;
pub use database::{OldDatabase, SCHEMA_VERSIONS};
pub use error::ImportError;
pub use rows::{AdapterSessionRow, FeedRow, OtherRow, RuntimeRow, SessionRow, WorkflowRunRow};
pub use take_over::{TakenOver, take_over};
