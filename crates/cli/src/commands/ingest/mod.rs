//! `ingest`: appends recorded or piped events, line by line, and reports what it could not take.

mod lines;
mod takes;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use self::lines::{Line, Lines};
use self::takes::{Answer, Intake};
use crate::commands::SessionArg;
use crate::exit_code::{CouldNotStart, Exit};
use crate::ledger::LedgerArg;
use crate::output::{Output, is_watched, message};
use crate::render;

/// Lines that are appended together, at the most; fewer where a pipe has no more for now.
const BATCH_LINES_MAX: usize = 256;
/// Bytes of them, at the most.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Append recorded or piped events
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger ingest --format runtime events.jsonl
  my-runtime | runledger ingest --format runtime --session s1 --ack
  runledger --db old.db export | runledger ingest --format runtime

A line is a RuntimeEvent object, a decision {\"eventId\", \"decision\", \"now\"},
or a line of `export`, which keeps the session it has. An event that is there
already is not appended again.

Exit status: 0 when every line was taken, 1 when some were not")]
pub(crate) struct Ingest {
    /// What the lines are
    #[arg(long, value_enum)]
    format: Format,
    /// The session they belong to; without it, an event's own `sessionId` is its session
    #[arg(long, env = "RUNLEDGER_SESSION", hide_env_values = true, value_name = "ID")]
    session: Option<SessionArg>,
    /// Print {line, position} for each line once it is durable
    #[arg(long)]
    ack: bool,
    /// The longest line taken, in bytes
    #[arg(long, value_name = "N", default_value_t = 16 << 20)]
    line_bytes_max: usize,
    /// The files; without any, standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// RuntimeEvents, decisions, and lines of `export`
    Runtime,
}

/// What was taken, and what was not.
#[derive(Debug, Default, Serialize)]
struct Report {
    lines: u64,
    appended: u64,
    duplicates: u64,
    rejected: Vec<Rejected>,
}

#[derive(Debug, Clone, Serialize)]
struct Rejected {
    file: String,
    line: u64,
    reason: String,
}

/// The acknowledgement of one line.
#[derive(Serialize)]
struct Ack {
    line: u64,
    position: u64,
}

impl Ingest {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let Format::Runtime = self.format;
        // Every file is opened before the ledger is made, so that a wrong name changes nothing.
        let mut inputs: Vec<(String, u64, Box<dyn Read>)> = Vec::new();
        for path in &self.files {
            let file = open(path)?;
            let bytes = file.metadata().map(|metadata| metadata.len()).unwrap_or_default();
            inputs.push((path.display().to_string(), bytes, Box::new(file)));
        }
        if inputs.is_empty() {
            inputs.push(("-".to_owned(), 0, Box::new(std::io::stdin())));
        }
        let log = ledger.open_for_writing()?;
        let mut intake = Intake::new(log, SessionArg::id(self.session.as_ref()))?;
        let mut report = Report::default();
        for (name, bytes, input) in inputs {
            let bar = bar(&name, bytes);
            let mut lines = Lines::new(BufReader::with_capacity(256 << 10, input), self.line_bytes_max);
            let taken = self.take(&name, &mut lines, &bar, &mut intake, &mut report, output);
            bar.finish_and_clear();
            if let Err(error) = taken {
                // What was taken before is in the log: the report says how much.
                tell(&report, output)?;
                return Err(error.context(format!("ingesting {name}")));
            }
        }
        let exit = if report.rejected.is_empty() { Exit::Done } else { Exit::No };
        tell(&report, output)?;
        Ok(exit)
    }

    fn take(
        &self,
        file: &str,
        lines: &mut Lines<BufReader<Box<dyn Read>>>,
        bar: &ProgressBar,
        intake: &mut Intake,
        report: &mut Report,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        loop {
            let batch = read_batch(lines)?;
            if batch.is_empty() {
                return Ok(());
            }
            report.lines += u64::try_from(batch.len()).unwrap_or(u64::MAX);
            for (number, answer) in intake.take(batch)? {
                match answer {
                    Answer::Appended(position) => {
                        report.appended += 1;
                        self.acknowledge(number, position, output)?;
                    }
                    Answer::Duplicate(position) => {
                        report.duplicates += 1;
                        self.acknowledge(number, position, output)?;
                    }
                    Answer::Rejected(reason) => {
                        bar.suspend(|| message(&format!("{file}:{number}: {}", render::plain(&reason))));
                        report.rejected.push(Rejected { file: file.to_owned(), line: number, reason });
                    }
                }
            }
            bar.set_position(lines.bytes_read());
            if self.ack {
                output.flush()?;
            }
        }
    }

    fn acknowledge(&self, line: u64, position: u64, output: &mut Output) -> anyhow::Result<()> {
        if self.ack { output.json(&Ack { line, position }) } else { Ok(()) }
    }
}

/// The lines that are there, up to a bound; waits only for the first.
fn read_batch<R: Read>(lines: &mut Lines<BufReader<R>>) -> anyhow::Result<Vec<(u64, Line)>> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < BATCH_LINES_MAX && bytes < BATCH_BYTES_MAX && (batch.is_empty() || lines.is_buffered()) {
        let Some((number, line)) = lines.next()? else {
            break;
        };
        if let Line::Text(text) = &line {
            bytes += text.len();
        }
        batch.push((number, line));
    }
    Ok(batch)
}

fn open(path: &Path) -> anyhow::Result<File> {
    let opened = File::open(path).and_then(|file| {
        if file.metadata()?.is_dir() { Err(std::io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
    });
    opened.map_err(|error| CouldNotStart(format!("{}: {error}; name a file that can be read", path.display())).into())
}

fn tell(report: &Report, output: &mut Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(report);
    }
    output.line(&format!(
        "{} lines: {} appended, {} there already, {} rejected",
        render::count(report.lines),
        render::count(report.appended),
        render::count(report.duplicates),
        render::count(u64::try_from(report.rejected.len()).unwrap_or(u64::MAX))
    ))
}

fn bar(name: &str, bytes: u64) -> ProgressBar {
    let target = if is_watched() && bytes > 0 { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {bytes} of {total_bytes}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar
}
