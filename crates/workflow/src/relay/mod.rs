//! Questions to whoever can answer them: what is asked, what is decided, and who is asked.
//!
//! A question has a stream of its own, and the log is where all meet: [`Commands`](crate::Commands) put it and decide it,
//! each by one look and one append under that stream's version. The [`RelayCoordinator`] asks channels beside the log.

pub(crate) mod ask;
pub(crate) mod channel;
pub(crate) mod command_channel;
pub(crate) mod coordinator;
pub(crate) mod decision_event;
pub(crate) mod error;
pub(crate) mod questions;
pub(crate) mod run_relay;
pub(crate) mod settled;
pub(crate) mod terminal_channel;
pub(crate) mod verdict;

pub use ask::{Ask, Asked};
pub use channel::{Channel, ChannelRequest, StopToken, Stopper};
pub use command_channel::{CommandChannel, NoCommand};
pub use coordinator::{RelayCoordinator, RelayError, RelayOutcome, Relayed};
pub use error::{AskError, DecideError, ExpireError, RelayLogError, UnfitVerdict, WithdrawError};
pub use questions::{Choice, UserQuestion};
pub use run_relay::{RunChannels, RunRelay};
pub use settled::Settled;
pub use terminal_channel::TerminalChannel;
pub use verdict::{GrantScope, RelayAnswer, RelayVerdict, VerdictSource, current_user};
