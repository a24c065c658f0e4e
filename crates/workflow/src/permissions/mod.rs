//! What a permission depends on: where its run stands, and which answers were given and never reached the harness.

mod context;
mod delivery;

pub use context::{ContextError, PermissionContext};
