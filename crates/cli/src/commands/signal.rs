//! `signal`: tells a run to rest, to go on, or anything else.

use clap::Args;
use runledger_events::Position;
use runledger_store::{EventFilter, Read, Receipt};
use runledger_web::objects::EventLine;
use runledger_workflow::{Commands, Signal as RunSignal, current_user};

use crate::exit_code::{Exit, Usage};
use crate::ledger::{LedgerArg, one_run};
use crate::output::{Output, message};

/// Tell a run something, from any process
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger signal 0199 pause        its harness rests where it is, no other turn begins
  runledger signal 0199 resume
  runledger signal 0199 reviewed --data '{\"by\":\"jo\"}'   told by the next turn's prompt")]
pub(crate) struct Signal {
    /// The run's id, or the beginning of it
    #[arg(value_name = "RUN")]
    run: String,
    /// `pause`, `resume`, or any other word
    #[arg(value_name = "NAME")]
    name: String,
    /// What belongs to it, as JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
}

impl Signal {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        if self.name.trim().is_empty() {
            return Err(Usage("a signal needs a name: `pause`, `resume`, or any other word".to_owned()).into());
        }
        if self.name == "cancel" {
            return Err(Usage("`runledger cancel RUN` ends a run, and the runs within it".to_owned()).into());
        }
        let data = self.data.as_deref().map(json_text).transpose()?;
        if data.is_some() && matches!(self.name.as_str(), "pause" | "resume") {
            return Err(Usage(format!("{} takes no --data", self.name)).into());
        }
        let run = one_run(&ledger.queries()?, &self.run)?.0;
        let log = ledger.open_for_writing()?;
        let commands = Commands::open(log)?;
        let receipt = commands.signal(&run.id, &RunSignal::of(&self.name, data), &current_user())?;
        tell_events(&commands, &[receipt], output)?;
        if !output.is_json() {
            message(&format!("{} is told {}", run.id, crate::render::plain(&self.name)));
        }
        Ok(Exit::Done)
    }
}

/// JSON in one line.
fn json_text(text: &str) -> anyhow::Result<String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| Usage(format!("--data is no JSON: {error}")))?;
    Ok(value.to_string())
}

/// The appended events, as `events` has them; in words nothing is said of them here.
pub(crate) fn tell_events(commands: &Commands, receipts: &[Receipt], output: &mut Output) -> anyhow::Result<()> {
    if !output.is_json() {
        return Ok(());
    }
    for receipt in receipts {
        let before = Position(receipt.position.0.saturating_sub(1));
        let batch = commands.reader().read(&EventFilter::default(), before, receipt.position, 1, Read::All)?;
        for event in &batch.events {
            output.json(&EventLine::new(event)?)?;
        }
    }
    Ok(())
}
