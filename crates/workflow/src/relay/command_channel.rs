//! A program that is asked: it gets the request as one JSON object on standard input, and prints its verdict.
//!
//! Invariants: an exit status other than 0, or output that is no verdict, is no verdict; a program that is told to stop
//! is gone with its process group soon after, whether it listens or not.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use runledger_events::{CommandChannelConfig, readable};
use rustix::process::Signal;
use serde::Deserialize;

use super::channel::{Channel, ChannelRequest, StopToken};
use super::verdict::{GrantScope, RelayAnswer, RelayVerdict, VerdictSource};
use crate::process_group::end_group;

/// How often the program is looked at.
const TICK: Duration = Duration::from_millis(10);
/// How long a program has to end itself once it is told to: whoever asked waits for the answer that came first.
const GRACE: Duration = Duration::from_millis(200);
/// How long output may stay open once the program has ended: a child of it may hold it.
const DRAIN: Duration = Duration::from_millis(500);
/// Bytes of output taken, at the most.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// A program that is asked.
#[derive(Debug, Clone)]
pub struct CommandChannel {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    project_dir: PathBuf,
}

/// A channel that names no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("channel {name}: `command` is empty; give the program and its arguments")]
pub struct NoCommand {
    /// The channel.
    pub name: String,
}

/// A verdict as a program prints it.
#[derive(Deserialize)]
struct Printed {
    decision: Option<String>,
    reason: Option<String>,
    scope: Option<String>,
    pattern: Option<String>,
    answers: Option<BTreeMap<String, String>>,
}

impl CommandChannel {
    /// The channel that a workflow file describes. It works in the project directory, and a relative path is found from
    /// there.
    ///
    /// # Errors
    /// [`NoCommand`].
    pub fn new(config: &CommandChannelConfig, project_dir: &Path) -> Result<Self, NoCommand> {
        let Some((program, arguments)) = config.command.split_first().filter(|(program, _)| !program.is_empty()) else {
            return Err(NoCommand { name: config.name.clone().unwrap_or_else(|| "without a name".to_owned()) });
        };
        let path = Path::new(program);
        let own_name = path.file_name().map_or(program.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Self {
            name: config.name.clone().filter(|name| !name.is_empty()).unwrap_or(own_name),
            // A bare name is looked up in PATH.
            program: if program.contains('/') { project_dir.join(path) } else { path.to_owned() },
            arguments: arguments.to_vec(),
            project_dir: project_dir.to_owned(),
        })
    }

    fn start(&self, request: &ChannelRequest) -> std::io::Result<Program> {
        let mut command = Command::new(&self.program);
        crate::environment::confine(&mut command);
        let mut child = command
            .args(&self.arguments)
            .current_dir(&self.project_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let wired = wire(&mut child, request.json());
        match wired {
            Ok((output, errors)) => Ok(Program { child, output, errors }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// What it printed, once it has ended well; else why there is no verdict.
    fn verdict(&self, program: &Program, status: ExitStatus) -> Result<Option<RelayVerdict>, String> {
        if !status.success() {
            let errors = program.errors.recv_timeout(DRAIN).unwrap_or_default();
            let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
            return Err(format!("{status}{}{last}", if last.is_empty() { "" } else { ": " }));
        }
        let output = program.output.recv_timeout(DRAIN).map_err(|_| "it left its output open".to_owned())?;
        if output.trim().is_empty() {
            return Ok(None);
        }
        let printed: Printed = serde_json::from_str(&readable(output.trim())).map_err(|error| error.to_string())?;
        let answer = match (printed.decision.as_deref(), printed.answers) {
            (Some("deny"), _) => RelayAnswer::Deny,
            (Some("allow") | None, Some(answers)) => RelayAnswer::Answers(answers),
            (Some("allow"), None) => RelayAnswer::Allow,
            (None, None) => return Err("neither `decision` nor `answers`".to_owned()),
            (Some(other), _) => return Err(format!("`decision` is {other:?}; it has to be allow or deny")),
        };
        let scope = match printed.scope.as_deref() {
            None => GrantScope::Once,
            Some(word) => GrantScope::parse(word)
                .ok_or_else(|| format!("`scope` is {word:?}; it has to be once, run or always"))?,
        };
        Ok(Some(RelayVerdict {
            answer,
            reason: printed.reason,
            scope,
            pattern: printed.pattern,
            source: VerdictSource::Channel,
            by: Some(self.name.clone()),
        }))
    }
}

impl Channel for CommandChannel {
    fn name(&self) -> &str {
        &self.name
    }

    fn ask(&self, request: &ChannelRequest, stop: &StopToken) -> Option<RelayVerdict> {
        let none = |why: String| {
            tracing::warn!(channel = self.name, request = %request.state.request.request_id, "no verdict: {why}");
            None
        };
        let mut program = match self.start(request) {
            Ok(program) => program,
            Err(error) => return none(format!("{} cannot be started: {error}", self.program.display())),
        };
        loop {
            match program.child.try_wait() {
                Ok(Some(status)) => return self.verdict(&program, status).unwrap_or_else(none),
                Ok(None) => {}
                Err(error) => {
                    end(&mut program.child);
                    return none(error.to_string());
                }
            }
            if stop.wait(TICK) {
                end(&mut program.child);
                return None;
            }
        }
    }
}

/// A program that runs, and what it will have said.
struct Program {
    child: Child,
    output: Receiver<String>,
    errors: Receiver<String>,
}

/// Starts the threads that write the request and read what comes.
fn wire(child: &mut Child, request: &str) -> std::io::Result<(Receiver<String>, Receiver<String>)> {
    let thread = || std::thread::Builder::new().name("runledger-channel-io".to_owned());
    if let Some(mut stdin) = child.stdin.take() {
        let line = format!("{request}\n");
        // A program that does not read its input closes it: that is its choice, and no error.
        thread().spawn(move || drop(stdin.write_all(line.as_bytes())))?;
    }
    let (output_sender, output) = bounded(1);
    if let Some(stdout) = child.stdout.take() {
        // Nobody may be left to hear it.
        thread().spawn(move || drop(output_sender.send(read_all(stdout))))?;
    }
    let (errors_sender, errors) = bounded(1);
    if let Some(stderr) = child.stderr.take() {
        thread().spawn(move || drop(errors_sender.send(read_all(stderr))))?;
    }
    Ok((output, errors))
}

/// All that comes, up to a bound; what is beyond it is read and let go, so that the program is not held up.
fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    let taken = from.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
    if let Err(error) = taken.and_then(|_| std::io::copy(&mut from, &mut std::io::sink())) {
        tracing::debug!(%error, "a channel's output broke off");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Ends the program and all that it started.
fn end(child: &mut Child) {
    if end_group(child, Signal::TERM, GRACE, || false).is_none() {
        tracing::debug!("the channel's end cannot be told");
    }
}
