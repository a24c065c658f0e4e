//! A harness that does what a test says.

use runledger_workflow::{Harness, HarnessError, Turn, TurnDesk, TurnResult};

/// What happens in a turn.
pub type ScriptedTurn = Box<dyn FnMut(&Turn, &mut dyn TurnDesk) -> Result<TurnResult, HarnessError> + Send>;

/// Plays the same script for every turn; `Turn::iteration` tells which one it is.
pub struct ScriptedHarness(pub ScriptedTurn);

impl Harness for ScriptedHarness {
    fn name(&self) -> &str {
        "scripted"
    }

    fn run_turn(&mut self, turn: &Turn, desk: &mut dyn TurnDesk) -> Result<TurnResult, HarnessError> {
        (self.0)(turn, desk)
    }
}
