//! What every log does, whatever engine keeps it; here the one in SQLite. `crates/store-jetstream/tests/conformance` runs the same.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

#[path = "../support/mod.rs"]
mod support;

mod append;
mod erase;
mod follow;
mod read;
