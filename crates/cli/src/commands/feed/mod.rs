//! `feed`: the timeline of sessions and workflow runs.

mod lines;

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use runledger_events::SessionId;
use runledger_projections::{FeedEvent, FeedFilter, FeedPage, Projections, Queries};
use runledger_store::LogReader;

use crate::exit_code::Exit;
use crate::ledger::{LedgerArg, one_run};
use crate::output::{Output, message};
use crate::render;
use lines::Lines;

/// Entries of one page.
const PAGE: usize = 512;

/// Show the timeline: prompts, messages, tools, permissions, workflow runs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger feed --run 0199
  runledger feed --session demo --last 50
  runledger feed --search 'flaky test'
  runledger feed --follow --json")]
pub(crate) struct Feed {
    /// Entries of this session alone
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Entries of this workflow run alone
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Entries in which each of these words occurs, or begins one that does
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    search: Option<String>,
    /// Only the last so many
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Add the harness's own words
    #[arg(long)]
    raw: bool,
    /// Go on with what comes, until interrupted
    #[arg(long)]
    follow: bool,
}

impl Feed {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let queries = ledger.queries()?;
        let run = self.run.as_ref().map(|prefix| one_run(&queries, prefix).map(|(run, _)| run.id)).transpose()?;
        let search = self.search.clone();
        let filter = FeedFilter { session: self.session.clone(), run, search, ..FeedFilter::default() };
        let mut teller = Teller { raw: self.raw.then(|| ledger.open_for_reading()).transpose()?, lines: Lines::new() };

        let mut page = match self.last {
            Some(last) => {
                // One at least: none of them are told, but those that come are behind it.
                let mut events = queries.feed(&filter, &FeedPage::Last, last.max(1))?;
                let cursor = events.last().map(FeedEvent::cursor);
                events.truncate(last);
                teller.tell(events, output)?;
                cursor.map_or(FeedPage::Last, FeedPage::After)
            }
            None => FeedPage::First,
        };
        if !matches!(page, FeedPage::Last) {
            page = self.rest(&queries, &filter, page, &mut teller, output)?;
        }
        if matches!(page, FeedPage::First | FeedPage::Last) && !output.is_json() && !self.follow {
            message(&self.nothing());
        }
        if !self.follow {
            return Ok(Exit::Done);
        }
        // Where there was nothing yet, everything that comes is new.
        let page = if matches!(page, FeedPage::Last) { FeedPage::First } else { page };
        output.flush()?;
        self.follow(ledger, &queries, &filter, page, &mut teller, output)
    }

    /// Tells all that comes from a page on; gives the page behind it.
    fn rest(
        &self,
        queries: &Queries,
        filter: &FeedFilter,
        mut page: FeedPage,
        teller: &mut Teller,
        output: &mut Output,
    ) -> anyhow::Result<FeedPage> {
        loop {
            let events = queries.feed(filter, &page, PAGE)?;
            let Some(cursor) = events.last().map(FeedEvent::cursor) else {
                return Ok(page);
            };
            page = FeedPage::After(cursor);
            teller.tell(events, output)?;
        }
    }

    fn follow(
        &self,
        ledger: &LedgerArg,
        queries: &Queries,
        filter: &FeedFilter,
        mut page: FeedPage,
        teller: &mut Teller,
        output: &mut Output,
    ) -> anyhow::Result<Exit> {
        let reader = ledger.open_for_reading()?;
        let mut seen = reader.head()?.position;
        let mut follower = reader.follow(seen)?;
        let mut projections: Projections = ledger.projections()?;
        loop {
            projections.catch_up().context("bringing the read models up to date")?;
            page = self.rest(queries, filter, page, teller, output)?;
            output.flush()?;
            seen = follower.wait_beyond(seen, Duration::from_secs(3600))?;
        }
    }

    /// What is said where nothing fits.
    fn nothing(&self) -> String {
        match (&self.search, &self.session) {
            (Some(text), _) => format!("nothing in the feed fits {}", render::plain(text)),
            (None, Some(session)) => {
                let session = render::plain(session.as_str());
                format!("session {session} has no entries; `runledger sessions` lists the sessions there are")
            }
            (None, None) => "the feed is empty".to_owned(),
        }
    }
}

/// Tells entries.
struct Teller {
    /// Where the harness's own words are, if they are wanted.
    raw: Option<LogReader>,
    lines: Lines,
}

impl Teller {
    fn tell(&mut self, events: Vec<FeedEvent>, output: &mut Output) -> anyhow::Result<()> {
        for mut event in events {
            if let Some(log) = &self.raw {
                event.read_raw(log)?;
            }
            if output.is_json() {
                output.json(&event)?;
                continue;
            }
            for line in self.lines.of(&event, output.is_terminal()) {
                output.line(&line)?;
            }
        }
        Ok(())
    }
}
