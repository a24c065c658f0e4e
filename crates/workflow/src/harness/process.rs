//! A harness's process: its own process group, prompt in, lines out, and an end that leaves nothing behind.
//!
//! Invariants: whatever ends the turn, the process group is gone when `run` returns an error or a stop; a process that
//! left its output open to a child of its own does not hold the turn.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::process::Signal;

use super::{Stop, Turn, TurnDesk};
use crate::error::HarnessError;
use crate::owner::process_of;
use crate::process_group::{end_group, signal_group};

/// How often the desk is asked whether to go on.
const TICK: Duration = Duration::from_millis(50);
/// How long a harness has to end itself once it is told to.
const GRACE: Duration = Duration::from_secs(2);
/// How long output may pause once the process has ended, before the turn counts as over.
const DRAIN: Duration = Duration::from_millis(500);
/// Bytes that may be on their way when the process ends, beside the waiting lines: a pipe's 64 KiB and a buffer. What
/// comes beyond them is of a child that writes on, perhaps for ever.
const ON_THE_WAY_BYTES: usize = 80 << 10;
/// Chunks of output that may wait; a harness that writes faster than the log takes is slowed, not buffered without end.
const CHUNKS_MAX: usize = 64;
/// Bytes of the last line on standard error, at the most.
const STDERR_BYTES_MAX: usize = 1 << 10;

/// How the process ended.
pub(super) struct Ended {
    /// Its exit code; none when a signal ended it.
    pub(super) exit_code: Option<i32>,
    /// The signal, where one ended it.
    pub(super) signal: Option<i32>,
    /// The last non-empty line on standard error.
    pub(super) last_stderr: Option<String>,
    /// Whether the desk had it ended.
    pub(super) stopped: Option<Stop>,
}

/// What the reading threads tell.
enum Output {
    Line(Vec<u8>),
    Failed(std::io::Error),
}

/// Runs a program for one turn; `take` gets each line of its output (`None` at each tick), and may end the turn. A line
/// longer than `line_bytes_max` comes in pieces.
pub(super) fn run(
    mut command: Command,
    program: &str,
    line_bytes_max: u64,
    turn: &Turn,
    desk: &mut dyn TurnDesk,
    mut take: impl FnMut(Option<&[u8]>, &mut dyn TurnDesk) -> Result<(), Stop>,
) -> Result<Ended, HarnessError> {
    let spawn_failed = |source| HarnessError::Spawn { program: program.to_owned(), source };
    command
        .current_dir(&turn.project_dir)
        // A run that an agent started has a tracker of its own, or none.
        .env_remove("RUNLEDGER_TRACKER")
        .envs(&turn.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(spawn_failed)?;
    let (lines, output) = bounded(CHUNKS_MAX);
    let errors = match wire(&mut child, turn.prompt.clone(), line_bytes_max, lines) {
        Ok(errors) => errors,
        Err(source) => {
            end_group(&mut child, Signal::KILL, GRACE, || true);
            return Err(spawn_failed(source));
        }
    };
    let noted = desk.note_process(process_of(child.id()));
    let result = attend(&mut child, &output, desk, &mut take, noted);
    let (status, stopped) = match result {
        Ok(ended) => ended,
        Err(source) => {
            end_group(&mut child, Signal::KILL, GRACE, || true);
            return Err(HarnessError::Turn(format!("{program}: its end cannot be told: {source}")));
        }
    };
    Ok(Ended {
        exit_code: status.and_then(|status| status.code()),
        signal: status.and_then(|status| status.signal()),
        last_stderr: errors.last(),
        stopped,
    })
}

/// Starts the threads that write the prompt and read what comes.
fn wire(
    child: &mut Child,
    prompt: String,
    line_bytes_max: u64,
    lines: Sender<Output>,
) -> Result<LastLine, std::io::Error> {
    let thread = |name: &str| std::thread::Builder::new().name(format!("runledger-{name}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input closes it: that is its choice, and no error.
        thread("stdin").spawn(move || stdin.write_all(prompt.as_bytes()))?;
    }
    if let Some(stdout) = child.stdout.take() {
        thread("stdout").spawn(move || read_lines(stdout, line_bytes_max, &lines))?;
    }
    let line = Arc::new(Mutex::new(None));
    let (sender, end) = bounded::<()>(0);
    if let Some(stderr) = child.stderr.take() {
        let line = line.clone();
        thread("stderr").spawn(move || {
            // Dropped at the end of the errors, which is how the end is told.
            let _sender = sender;
            keep_last_line(stderr, &line);
        })?;
    }
    Ok(LastLine { line, end })
}

/// The last line on standard error so far.
struct LastLine {
    line: Arc<Mutex<Option<String>>>,
    end: Receiver<()>,
}

impl LastLine {
    /// The last line once the errors have ended, or a moment after the process has: a child of it may hold them open.
    fn last(&self) -> Option<String> {
        let _ = self.end.recv_timeout(DRAIN);
        match self.line.lock() {
            Ok(line) => line.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }
}

/// Hands on lines, and asks the desk, until the process and its output have ended.
fn attend(
    child: &mut Child,
    output: &Receiver<Output>,
    desk: &mut dyn TurnDesk,
    take: &mut impl FnMut(Option<&[u8]>, &mut dyn TurnDesk) -> Result<(), Stop>,
    noted: Result<(), Stop>,
) -> Result<(Option<ExitStatus>, Option<Stop>), std::io::Error> {
    let mut noted = Some(noted);
    let mut is_paused = false;
    let mut ended: Option<(ExitStatus, Instant)> = None;
    let mut checked_at = Instant::now();
    let mut late = Late::default();
    loop {
        let mut step = match output.recv_timeout(TICK) {
            Ok(Output::Line(line)) => {
                if ended.is_some() {
                    late.count(&line);
                }
                take(Some(&line), desk)
            }
            Ok(Output::Failed(error)) => return Err(error),
            Err(RecvTimeoutError::Timeout) => take(None, desk),
            Err(RecvTimeoutError::Disconnected) => {
                if let Some((status, _)) = ended {
                    return Ok((Some(status), take(None, desk).err()));
                }
                // The output is closed; the process still works.
                std::thread::sleep(Duration::from_millis(5));
                Ok(())
            }
        };
        if let Some(noted) = noted.take() {
            step = step.and(noted);
        }
        // A harness that never pauses is asked too.
        if step.is_ok() && checked_at.elapsed() >= TICK {
            step = desk.check();
            checked_at = Instant::now();
        }
        if desk.is_paused() != is_paused {
            is_paused = !is_paused;
            signal_group(child.id(), if is_paused { Signal::STOP } else { Signal::CONT });
        }
        if let Err(stop) = step {
            let status = match stop {
                Stop::Now => end_group(child, Signal::KILL, GRACE, || true),
                // A second request does not wait for the grace that the first one gives.
                Stop::Cancelled | Stop::TimedOut => {
                    end_group(child, Signal::TERM, GRACE, || desk.check() == Err(Stop::Now))
                }
            };
            if stop != Stop::Now {
                // What it said before its end, and while it was ending, is part of the story too.
                let told = Instant::now();
                while told.elapsed() < DRAIN
                    && let Ok(Output::Line(line)) = output.recv_timeout(TICK)
                {
                    let _ = take(Some(&line), desk);
                }
            }
            return Ok((status, Some(stop)));
        }
        match ended {
            None => ended = child.try_wait()?.map(|status| (status, Instant::now())),
            // A child of the process holds the output open: what it says later is not of this turn.
            Some((status, at)) if late.is_of_a_child() || (at.elapsed() > DRAIN && output.is_empty()) => {
                return Ok((Some(status), take(None, desk).err()));
            }
            Some(_) => {}
        }
    }
}

/// What came after the process had ended.
#[derive(Default)]
struct Late {
    lines: usize,
    bytes: usize,
}

impl Late {
    fn count(&mut self, line: &[u8]) {
        self.lines += 1;
        // The first ones were waiting, however long they are.
        if self.lines > CHUNKS_MAX + 1 {
            self.bytes += line.len();
        }
    }

    fn is_of_a_child(&self) -> bool {
        self.bytes > ON_THE_WAY_BYTES
    }
}

fn read_lines(stdout: impl Read, line_bytes_max: u64, lines: &Sender<Output>) {
    let mut reader = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(line_bytes_max).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {
                if lines.send(Output::Line(line)).is_err() {
                    return;
                }
            }
            Err(error) => {
                // Nobody may be left to hear it.
                let _ = lines.send(Output::Failed(error));
                return;
            }
        }
    }
}

/// Keeps the last line with something in it; the rest is read and let go.
fn keep_last_line(stderr: impl Read, last: &Mutex<Option<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(64 << 10).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim();
                if !text.is_empty()
                    && let Ok(mut last) = last.lock()
                {
                    *last = Some(text[..text.floor_char_boundary(STDERR_BYTES_MAX)].to_owned());
                }
            }
        }
    }
}

/// Where a program is: a path as the caller sees it, or else as the project does; a bare name is looked up in `PATH`.
pub(super) fn find_program(harness: &str, program: &str, project_dir: &Path) -> Result<PathBuf, HarnessError> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        std::env::current_dir().into_iter().map(|here| here.join(program)).chain([project_dir.join(program)]).collect()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(program));
        // A folder of PATH may be relative to here; the program is run elsewhere.
        found.filter_map(|path| std::path::absolute(path).ok()).collect()
    };
    candidates
        .into_iter()
        .find(|path| is_executable(path))
        .ok_or_else(|| HarnessError::NotFound { harness: harness.to_owned(), program: program.to_owned() })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
