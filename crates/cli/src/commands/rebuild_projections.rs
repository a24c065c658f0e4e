//! `rebuild-projections`: builds the read models again from the log.

use anyhow::Context;
use clap::Args;
use indicatif::{HumanFloatCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use runledger_events::Position;
use runledger_projections::{RebuildProgress, Rebuilt};

use crate::exit_code::Exit;
use crate::ledger::{LedgerArg, one_run};
use crate::output::{Output, is_watched, message};
use crate::render;

/// Build the read models again from the log
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger rebuild-projections --verify
  runledger rebuild-projections --projection workflow_runs
  runledger rebuild-projections --run 0199

Readers and writers go on meanwhile; each read model is replaced in one step.")]
pub(crate) struct RebuildProjections {
    /// These read models alone
    #[arg(long, value_name = "NAME", num_args = 1..)]
    projection: Vec<String>,
    /// The rows of this run alone
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Leave streams out from an event on that cannot be read, where the rebuild would stop at it
    #[arg(long, conflicts_with = "run")]
    park: bool,
    /// Compare the result with another fold of the log; exit with 1 where it differs
    #[arg(long)]
    verify: bool,
}

impl RebuildProjections {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let mut projections = ledger.projections()?;
        let mut names = projections.names();
        if let Some(unknown) = self.projection.iter().find(|name| !names.contains(&name.as_str())) {
            let known = names.join(", ");
            return Err(crate::exit_code::Usage(format!("there is no read model {unknown}; there are {known}")).into());
        }
        if !self.projection.is_empty() {
            names.retain(|name| self.projection.iter().any(|wanted| wanted == name));
        }
        let rebuilt = if let Some(prefix) = &self.run {
            let run_id = one_run(&ledger.queries()?, prefix)?.0.id;
            projections.rebuild_run(&run_id, &names)?
        } else {
            let told = if let [name] = names[..] { name.to_owned() } else { format!("{} read models", names.len()) };
            let bar = bar(&told, projections.reader().head()?.position);
            let mut progress = |progress: RebuildProgress<'_>| {
                bar.set_length(progress.head.0);
                bar.set_position(progress.position.0);
            };
            let result = match self.park {
                true => projections.rebuild_readable(&names, &mut progress),
                false => projections.rebuild_together(&names, &mut progress),
            };
            bar.finish_and_clear();
            result.with_context(|| format!("rebuilding {}", names.join(", ")))?
        };
        let mut exit = Exit::Done;
        if self.verify {
            for name in &names {
                let verified = projections.verify(name, &mut |_| {}).with_context(|| format!("verifying {name}"))?;
                for row in &verified.differences {
                    message(&render::plain(&format!("{name}: {}, row {}: {}", row.table, row.key, row.detail)));
                    exit = Exit::No;
                }
            }
        }
        tell(&rebuilt, output)?;
        if self.verify && exit == Exit::Done && !output.is_json() {
            message("verified: another fold of the log gives the same rows");
        }
        Ok(exit)
    }
}

fn tell(rebuilt: &[Rebuilt], output: &mut Output) -> anyhow::Result<()> {
    if output.is_json() {
        return rebuilt.iter().try_for_each(|rebuilt| output.json(rebuilt));
    }
    let mut table = render::table(&["READ MODEL", "EVENTS", "ROWS", "CHANGED", "SECONDS"], output.is_terminal());
    for rebuilt in rebuilt {
        table.add_row([
            rebuilt.projection.clone(),
            render::count(rebuilt.events),
            render::count(rebuilt.rows),
            rebuilt.changed.map_or_else(|| "–".to_owned(), render::count),
            format!("{:.2}", rebuilt.seconds),
        ]);
    }
    render::lines(&table, output.is_terminal()).iter().try_for_each(|line| output.line(line))
}

/// A progress bar over the log's positions; nothing is drawn where nobody looks.
pub(crate) fn bar(name: &str, head: Position) -> ProgressBar {
    bar_of(name, "events", head.0)
}

/// A progress bar over so many things.
pub(crate) fn bar_of(name: &str, things: &str, all: u64) -> ProgressBar {
    let target = if is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(all), target);
    let template =
        format!("{{prefix:<20}} {{wide_bar}} {{human_pos}} of {{human_len}} {things}, {{rate}}, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        // Its own word for that has four decimals.
        let rate = |state: &ProgressState, to: &mut dyn std::fmt::Write| {
            let _ = write!(to, "{}/s", HumanFloatCount(state.per_sec().round()));
        };
        bar.set_style(style.with_key("rate", rate));
    }
    bar.set_prefix(name.to_owned());
    bar
}
