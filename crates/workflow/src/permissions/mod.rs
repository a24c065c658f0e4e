//! What a decision on a permission rests on: the run that a call belongs to, where it stands, and the rules in force; and
//! that each answer reaches a harness once.

mod context;
mod delivery;

pub(crate) use context::project_dir_of;
pub use context::{RunContext, find_run};
