//! The write half: decides what a workflow run does next, runs its harness, and appends what happened.
//!
//! [`decide`] is pure: a state and a command give events. The [`Runner`] owns the clock, the processes and the log.
//!
//! ```no_run
//! use std::sync::Arc;
//! use runledger_store::SqliteLog;
//! use runledger_workflow::{CommandHarness, Journal, LedgerJournal, RunSpec, Runner};
//!
//! let log = Arc::new(SqliteLog::open("ledger.db")?);
//! let journal = LedgerJournal::open(log)?;
//! let harness = CommandHarness::new("./agent.sh", vec![], ".".as_ref())?;
//! let runner = Runner::new(Box::new(harness), RunSpec::new("Tidy the changelog", "."))?;
//! let outcome = runner.run(Box::new(journal))?;
//! println!("{} is {}", outcome.state.run_id, outcome.state.status);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod asked;
mod bounded;
mod cancel;
mod commands;
mod config;
mod decide;
mod desk;
mod environment;
mod error;
mod harness;
mod instructions;
mod journal;
mod owner;
mod paths;
mod permissions;
mod plan;
mod process_group;
mod procfs;
mod relay;
mod runner;
mod tracker;

pub use cancel::CancelHandle;
pub use commands::{
    Cancelled, Clock, Commands, DecidedRequest, ForkPoint, Forked, RulesError, Signal, Withdrawer, WorkflowGrants,
};
pub use config::{LoopConfig, WorkflowConfig};
pub use decide::{
    Command, Decided, Deferral, Denial, Extra, Rejected, StopCause, TakeOver, TrackerReading, TransportCheck,
    TurnReport, decide,
};
pub use environment::PASS_ENV;
pub use error::{CommandError, ConfigError, ForkError, HarnessError, ResumeError, RunError};
pub use harness::claude::ClaudeHarness;
pub use harness::codex::CodexHarness;
pub use harness::command::CommandHarness;
pub use harness::{Harness, Instructions, Stop, Turn, TurnDesk, TurnResult};
pub use journal::{Journal, LedgerJournal};
pub use owner::{current_owner, current_process, is_alive, is_process_alive, process_of};
pub use permissions::{RunContext, find_run};
pub use plan::RunSpec;
pub use relay::{
    Ask, AskError, Asked, Channel, ChannelRequest, Choice, CommandChannel, DecideError, ExpireError, GrantScope,
    NoCommand, RelayAnswer, RelayCoordinator, RelayError, RelayLogError, RelayOutcome, RelayVerdict, Relayed,
    RunChannels, RunRelay, Settled, StopToken, Stopper, TerminalChannel, UnfitVerdict, UserQuestion, VerdictSource,
    WithdrawError, current_user,
};
pub use runner::{ResumeSpec, RunOutcome, Runner};
pub use tracker::{SKELETON_MARKER, Verdict};
