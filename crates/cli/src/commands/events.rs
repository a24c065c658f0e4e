//! `events`: the log itself.

use std::time::Duration;

use clap::Args;
use runledger_events::{Position, RecordedEvent, SessionId};
use runledger_store::{EventFilter, Read};
use runledger_web::objects::EventLine;

use crate::exit_code::Exit;
use crate::ledger::{LedgerArg, one_run};
use crate::narrator::summary;
use crate::output::Output;
use crate::render;

/// Show the log itself
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger events --run 0199
  runledger events --after 1000 --follow --json")]
pub(crate) struct Events {
    /// Those of this session alone
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Those of this run alone, its harness's included
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Those after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    after: u64,
    /// Go on with what comes, until interrupted
    #[arg(long)]
    follow: bool,
}

impl Events {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let run = match &self.run {
            None => None,
            Some(prefix) => Some(one_run(&ledger.queries()?, prefix)?.0.id),
        };
        let filter = EventFilter { session: self.session.clone(), run, ..EventFilter::default() };
        let reader = ledger.open_for_reading()?;
        let head = reader.head()?.position;
        let mut after = Position(self.after);
        while after < head {
            let batch = reader.read(&filter, after, head, 1024, Read::All)?;
            for event in &batch.events {
                tell(event, output)?;
            }
            after = batch.scanned_to;
        }
        if !self.follow {
            return Ok(Exit::Done);
        }
        output.flush()?;
        let mut follower = reader.follow(after.max(head))?.with_filter(filter).with_read(Read::All);
        loop {
            for event in &follower.next(1024, Duration::from_secs(3600))?.events {
                tell(event, output)?;
            }
            output.flush()?;
        }
    }
}

fn tell(event: &RecordedEvent, output: &mut Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(&EventLine::new(event)?);
    }
    let line = format!(
        "{:>6}  {}  {:<20} {}",
        event.position.0,
        render::time(event.occurred_at),
        render::plain(event.kind.as_str()),
        render::short(&summary(event), 120)
    );
    output.line(line.trim_end())
}
