//! A harness's process: its own process group, prompt in, lines out, and an end that leaves nothing behind.
//!
//! Invariants: whatever ends the turn, the process group is gone when `run` returns an error or a stop; a process that
//! left its output open to a child of its own does not hold the turn.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Stop, Turn, TurnDesk};
use crate::error::HarnessError;

/// How often the desk is asked whether to go on.
const TICK: Duration = Duration::from_millis(50);
/// How long a harness has to end itself once it is told to.
const GRACE: Duration = Duration::from_secs(2);
/// How long output may still come once the process has ended.
const DRAIN: Duration = Duration::from_millis(500);
/// Chunks of output that may wait; a harness that writes faster than the log takes is slowed, not buffered without end.
const CHUNKS_MAX: usize = 1024;
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
            end_group(&mut child, Signal::KILL);
            return Err(spawn_failed(source));
        }
    };
    let result = attend(&mut child, &output, desk, &mut take);
    let (status, stopped) = match result {
        Ok(ended) => ended,
        Err(source) => {
            end_group(&mut child, Signal::KILL);
            return Err(HarnessError::Turn(format!("{program}: its end cannot be told: {source}")));
        }
    };
    // Its last words may come a moment after its end.
    let last_stderr = errors.recv_timeout(DRAIN).ok().flatten();
    Ok(Ended {
        exit_code: status.and_then(|status| status.code()),
        signal: status.and_then(|status| status.signal()),
        last_stderr,
        stopped,
    })
}

/// Starts the threads that write the prompt and read what comes.
fn wire(
    child: &mut Child,
    prompt: String,
    line_bytes_max: u64,
    lines: Sender<Output>,
) -> Result<Receiver<Option<String>>, std::io::Error> {
    let thread = |name: &str| std::thread::Builder::new().name(format!("runledger-{name}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input closes it: that is its choice, and no error.
        thread("stdin").spawn(move || stdin.write_all(prompt.as_bytes()))?;
    }
    if let Some(stdout) = child.stdout.take() {
        thread("stdout").spawn(move || read_lines(stdout, line_bytes_max, &lines))?;
    }
    let (sender, errors) = bounded(1);
    if let Some(stderr) = child.stderr.take() {
        // Whoever waits for the last line may have given up.
        thread("stderr").spawn(move || drop(sender.send(last_line(stderr))))?;
    }
    Ok(errors)
}

/// Hands on lines, and asks the desk, until the process and its output have ended.
fn attend(
    child: &mut Child,
    output: &Receiver<Output>,
    desk: &mut dyn TurnDesk,
    take: &mut impl FnMut(Option<&[u8]>, &mut dyn TurnDesk) -> Result<(), Stop>,
) -> Result<(Option<ExitStatus>, Option<Stop>), std::io::Error> {
    let mut ended: Option<(ExitStatus, Instant)> = None;
    let mut checked_at = Instant::now();
    loop {
        let mut step = match output.recv_timeout(TICK) {
            Ok(Output::Line(line)) => take(Some(&line), desk),
            Ok(Output::Failed(error)) => return Err(error),
            Err(RecvTimeoutError::Timeout) => take(None, desk),
            Err(RecvTimeoutError::Disconnected) => {
                // The output is closed; the process may still work.
                std::thread::sleep(if ended.is_some() { Duration::ZERO } else { Duration::from_millis(5) });
                if let Some((status, _)) = ended {
                    return Ok((Some(status), take(None, desk).err()));
                }
                Ok(())
            }
        };
        // A harness that never pauses is asked too.
        if step.is_ok() && checked_at.elapsed() >= TICK {
            step = desk.check();
            checked_at = Instant::now();
        }
        if let Err(stop) = step {
            let signal = if stop == Stop::Now { Signal::KILL } else { Signal::TERM };
            return Ok((end_group(child, signal), Some(stop)));
        }
        match ended {
            None => ended = child.try_wait()?.map(|status| (status, Instant::now())),
            // A child of the process holds the output open: what it says later is not of this turn.
            Some((status, at)) if at.elapsed() > DRAIN && output.is_empty() => {
                return Ok((Some(status), take(None, desk).err()));
            }
            Some(_) => {}
        }
    }
}

/// Ends the process group: as the signal says, and for good after a moment.
fn end_group(child: &mut Child, signal: Signal) -> Option<ExitStatus> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let send = |signal| {
        if let Some(group) = group
            && let Err(error) = kill_process_group(group, signal)
        {
            tracing::debug!(%error, "the harness's process group is gone already");
        }
    };
    send(signal);
    let told = Instant::now();
    let mut status = None;
    while signal != Signal::KILL && told.elapsed() < GRACE {
        match child.try_wait() {
            Ok(Some(ended)) => {
                status = Some(ended);
                break;
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => break,
        }
    }
    // Children of the harness that did not listen go with it.
    send(Signal::KILL);
    status.or_else(|| child.wait().ok())
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

/// The last line with something in it; the rest is read and let go.
fn last_line(stderr: impl Read) -> Option<String> {
    let mut reader = BufReader::new(stderr);
    let mut last = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(64 << 10).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return last,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim();
                if !text.is_empty() {
                    last = Some(text[..text.floor_char_boundary(STDERR_BYTES_MAX)].to_owned());
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
        std::env::split_paths(&path).map(|folder| folder.join(program)).collect()
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
