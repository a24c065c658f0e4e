//! What every log does, asked of the one on JetStream: the very tests of `crates/store/tests/conformance`, on a server of one node.
//!
//! Where there is no nats-server it is said that they are skipped: they run on the log in SQLite then.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod support;

#[path = "../../../store/tests/conformance/append.rs"]
mod append;
#[path = "../../../store/tests/conformance/erase.rs"]
mod erase;
#[path = "../../../store/tests/conformance/follow.rs"]
mod follow;
#[path = "../../../store/tests/conformance/read.rs"]
mod read;
