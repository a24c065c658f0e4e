//! The read half: folds the log into read models, keeps them current, rebuilds and verifies them, answers queries.
//!
//! Read models stand in a file of their own beside the log, and can be thrown away: [`Projections`] builds them again.
//! [`Queries`] reads nothing else. [`AsOf`] is a session as it was: folded from the log in memory, asked by [`Queries`] too.
//!
//! ```no_run
//! use runledger_projections::{Projections, Queries, RunFilter};
//!
//! let mut projections = Projections::open("ledger.db")?;
//! projections.catch_up()?;
//! let queries = Queries::open("ledger.db")?;
//! for run in queries.runs(&RunFilter::default())? {
//!     println!("{} is {}", run.id, run.status);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod as_of;
mod checkpoint;
mod clear;
mod compare;
mod error;
mod feed_pages;
mod feed_queries;
mod file;
mod generations;
mod objects;
mod pace;
mod parked;
mod projection;
mod projections;
mod projector;
mod queries;
mod read_ahead;
mod rebuild;
mod request_queries;
mod run_tree;
mod verify;
mod views;

/// The facts, for those who link this crate alone.
pub use runledger_events as events;

pub use as_of::{AsOf, run_at};
pub use checkpoint::Checkpoint;
pub use error::ProjectionError;
pub use feed_queries::{FeedCursor, FeedCursorError, FeedFilter, FeedPage, SessionFeed};
pub use file::projections_path;
pub use objects::{AdapterSession, Iteration, Run, RunTimer, Session};
pub use parked::ParkedStream;
pub use projection::{Fold, Kinds, Projection, Table, Target};
pub use projections::{Projections, registered};
pub use projector::Projector;
pub use queries::{ProjectionStatus, Queries, RunFilter, RunMatch};
pub use rebuild::{RebuildProgress, Rebuilt};
pub use request_queries::RequestFilter;
pub use run_tree::RunNode;
pub use verify::{RowDifference, Verified};
pub use views::feed::{AgentRun, FeedActor, FeedCause, FeedEvent, FeedLevel, FeedUi, RunCounters, WorkflowContext};
pub use views::permission_requests::{PermissionRequest, RequestContext};
