//! Temporary ledgers, a scripted harness, NATS servers, what files hold and the conformance inputs, for runledger's own tests.
//!
//! ```
//! let ledger = runledger_testkit::TempLedger::new();
//! ledger.append("session/s1", r#"{"id":"e1","timestamp":1,"kind":"user.prompt","data":{"prompt":"hello"}}"#);
//! assert_eq!(ledger.log.reader().unwrap().head().unwrap().position.0, 1);
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod conformance;
mod files;
mod ledger;
mod nats;
mod scripted;
mod shared;

pub use conformance::{run_workflow_case, tokens_out, workflow_cases};
pub use files::files_with;
pub use ledger::{TempLedger, engine_address, open_log};
pub use nats::{Cutter, NatsServers, nats_server, new_address, shared_nats, write_certificates};
pub use scripted::{ScriptedHarness, ScriptedTurn};
pub use shared::shared;
