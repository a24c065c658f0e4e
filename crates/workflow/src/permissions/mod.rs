//! What a decision on a permission rests on: the run that a call belongs to, where it stands, and the rules in force.

mod context;

pub use context::{RunContext, find_run};
