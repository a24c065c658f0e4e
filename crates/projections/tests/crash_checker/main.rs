//! The crash checker: processes that append, project and rebuild on one ledger are killed, and everything is checked.
//!
//! - `acknowledged`: what has to hold of a log after what was acknowledged; a pure function of the two.
//! - `requests`: what is appended, by whom, in which round; also a pure function.
//! - `workers`: the processes. Each is this same test program, run with an environment variable.
//! - `crew`: the processes of one round, and who of them is killed when.
//! - `ledger`: everything that is checked of a ledger once all processes are dead.
//! - `rounds`: the test that kills at random moments.
//! - `failpoints`: the test that kills at each named step.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod acknowledged;
mod crew;
mod failpoints;
mod ledger;
mod requests;
mod rounds;
#[path = "../support/mod.rs"]
mod support;
mod workers;
