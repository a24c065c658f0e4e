//! `ingest`: appends recorded or piped events, line by line, and reports what it could not take.

mod homes;
mod lines;
mod refusals;
mod takes;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use runledger_adapters::{ClaudeStream, ClaudeTranscript, CodexJson, CodexRollout, HookLines, LineAdapter};
use serde::Serialize;

use self::homes::Homes;
use self::lines::{Line, Lines};
use self::takes::Intake;
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
  runledger ingest --format claude-transcript ~/.claude/projects/*/*.jsonl
  claude -p 'Say hello' --output-format stream-json --verbose | runledger ingest --format claude-stream
  my-runtime | runledger ingest --format runtime --session s1 --ack
  runledger --db old.db export | runledger ingest --format runtime

Formats:
  runtime            RuntimeEvents, decisions {\"eventId\", \"decision\", \"now\"}, lines of `export`
  claude-hooks       payloads as hooks get them, Claude Code's or Codex's, bare or with ts and data around
  claude-stream      what claude prints with --output-format stream-json
  claude-transcript  the transcript that Claude Code keeps of a session, or of a subagent
  codex-rollout      the rollout that Codex keeps of a thread
  codex-json         what codex exec --json prints

An event that is there already is not appended again: the same file twice, or a file that grew,
appends only what is new.

Exit status: 0 when every line was taken, 1 when some were not")]
pub(crate) struct Ingest {
    /// What the lines are
    #[arg(long, value_enum)]
    format: Format,
    /// The session they belong to; without it, that of the harness session, else its own id
    #[arg(long, env = "RUNLEDGER_SESSION", hide_env_values = true, value_name = "ID")]
    session: Option<SessionArg>,
    /// Print {line, position} for each line once it is durable
    #[arg(long)]
    ack: bool,
    /// Take well-known keys and tokens out of every line before anything else is done with it
    #[arg(long, env = "RUNLEDGER_REDACT_SECRETS", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    redact_secrets: bool,
    /// The longest line taken, in bytes
    #[arg(long, value_name = "N", default_value_t = 16 << 20)]
    line_bytes_max: usize,
    /// The files; without any, standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Runtime,
    ClaudeHooks,
    ClaudeStream,
    ClaudeTranscript,
    CodexRollout,
    CodexJson,
}

impl Format {
    /// A translator of one file's lines; none for RuntimeEvents, which need none.
    fn adapter(self) -> Option<Box<dyn LineAdapter>> {
        Some(match self {
            Self::Runtime => return None,
            Self::ClaudeHooks => Box::new(HookLines::new()),
            Self::ClaudeStream => Box::new(ClaudeStream::new()),
            Self::ClaudeTranscript => Box::new(ClaudeTranscript::new()),
            Self::CodexRollout => Box::new(CodexRollout::new()),
            Self::CodexJson => Box::new(CodexJson::new()),
        })
    }
}

/// What was taken, and what was not; `appended` and `duplicates` count events, of which a line may tell several.
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
        // Every file is looked at before the ledger is made, so that a wrong name changes nothing.
        for path in &self.files {
            open(path)?;
        }
        let session = SessionArg::id(self.session.as_ref());
        let is_harness = !matches!(self.format, Format::Runtime);
        let homes = Homes::open(ledger, is_harness && session.is_none());
        let mut intake = Intake::new(ledger.open_for_writing()?, session, homes, self.redact_secrets)?;
        let mut report = Report::default();
        let taken = if self.files.is_empty() {
            self.take_input("-", 0, Box::new(std::io::stdin()), &mut intake, &mut report, output)
        } else {
            self.files.iter().try_for_each(|path| {
                let file = open(path)?;
                let bytes = file.metadata().map(|metadata| metadata.len()).unwrap_or_default();
                let name = path.display().to_string();
                self.take_input(&name, bytes, Box::new(file), &mut intake, &mut report, output)
            })
        };
        // What was taken before an error is in the log: the report says how much.
        tell(&report, output)?;
        taken?;
        Ok(if report.rejected.is_empty() { Exit::Done } else { Exit::No })
    }

    fn take_input(
        &self,
        name: &str,
        bytes: u64,
        input: Box<dyn Read>,
        intake: &mut Intake,
        report: &mut Report,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        let bar = bar(name, bytes);
        let mut lines = Lines::new(BufReader::with_capacity(256 << 10, input), self.line_bytes_max);
        intake.begin_file(self.format.adapter());
        let taken = self.take(name, &mut lines, &bar, intake, report, output);
        bar.finish_and_clear();
        taken.with_context(|| format!("ingesting {name}"))
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
            let is_over = batch.is_empty();
            report.lines += u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let answers = if is_over { intake.end_file() } else { intake.take(batch)? };
            for (number, answer) in answers {
                report.appended += answer.appended;
                report.duplicates += answer.duplicates;
                if let Some(reason) = answer.rejected {
                    bar.suspend(|| message(&format!("{file}:{number}: {}", render::plain(&reason))));
                    report.rejected.push(Rejected { file: file.to_owned(), line: number, reason });
                } else if let Some(position) = answer.position {
                    self.acknowledge(number, position, output)?;
                }
            }
            if is_over {
                return Ok(());
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
    bar.set_prefix(render::plain(name));
    bar
}
