//! The objects of `--json` and of `/api/v1` that are put together of both halves, or of more than one question: each is
//! defined here, once. Those that one question answers stand in `runledger_projections`.

pub(crate) mod event_line;
mod run_view;
mod status;

pub use event_line::EventLine;
pub use run_view::{ForkedFrom, RunInTree, RunView, RunWithIterations};
pub use status::{Aside, Checkpoint, LooseMode, Sizes, Status, checkpoints};
