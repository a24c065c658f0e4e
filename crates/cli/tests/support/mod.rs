//! What several tests of the program need: a room with a ledger and a project, the program in a clean environment, and
//! waiting for a condition.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

pub(crate) mod hooks;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use runledger_events::{Metadata, RunId, RuntimeEvent, SessionId, StreamName, StreamVersion};
use runledger_store::{EventLog, ExpectedVersion, LogReader, NewEvent, Receipt, SqliteLog};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up; far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with a ledger's path, a project, an empty home and a folder for programs; it goes with this value.
pub(crate) struct Room {
    folder: TempDir,
}

impl Room {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["project", "home", "bin"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.path("state/ledger.db")
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.path("project")
    }

    /// Writes a file in the room.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// An executable sh script in the folder that stands first in PATH.
    pub(crate) fn program(&self, name: &str, script: &str) -> PathBuf {
        let draft = self.write(&format!("{name}.draft"), format!("#!/bin/sh\n{script}\n"));
        let path = self.path("bin").join(name);
        // Another process makes it: a file that this one holds open for writing could not be run.
        let made = Command::new("install").args(["-m", "755"]).arg(draft).arg(&path).status().unwrap();
        assert!(made.success());
        path
    }

    /// The program in a clean environment, standing in the project, on this room's ledger.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.command_on(&self.ledger(), arguments)
    }

    pub(crate) fn command_on<S: AsRef<OsStr>>(&self, ledger: &Path, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.bare_command();
        command.arg("--db").arg(ledger).args(arguments);
        command
    }

    /// The same without a word on where the ledger is.
    pub(crate) fn bare_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runledger"));
        let path = std::env::var("PATH").unwrap();
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.path("home"))
            .env("TZ", "UTC")
            .current_dir(self.project())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Runs the program; it has to succeed. Gives what it printed.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stdout()
    }

    /// JSON Lines of a command that has to succeed.
    pub(crate) fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Vec<Value> {
        let ran = run(self.command(arguments).arg("--json"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.json()
    }

    /// `exec` with a sh script as the agent.
    pub(crate) fn exec(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.command(["exec"]);
        command.args(options).args(["the prompt", "--", "sh", "-c", script]);
        command
    }

    /// The same, telling of it in JSON Lines.
    pub(crate) fn exec_json(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.command(["--json", "exec"]);
        command.args(options).args(["the prompt", "--", "sh", "-c", script]);
        command
    }

    /// Runs `exec` with a sh script as the agent, and gives how the run looks.
    pub(crate) fn exec_to_end(&self, options: &[&str], script: &str) -> (Ran, Value) {
        let ran = run(&mut self.exec_json(options, script));
        let run = self.json(["runs", "--limit", "1"]).pop().expect("a run");
        (ran, run)
    }

    /// A workflow file with a loop whose tracker is `tracker.md`.
    pub(crate) fn workflow(&self, max_iterations: u32) -> String {
        let json = serde_json::json!({"name": "tidy", "promptTemplate": "Do: {input}",
            "loop": {"enabled": true, "maxIterations": max_iterations, "trackerPath": "tracker.md"}});
        self.write("project/tidy.json", json.to_string()).display().to_string()
    }

    pub(crate) fn log(&self) -> SqliteLog {
        SqliteLog::open(self.ledger()).unwrap()
    }

    pub(crate) fn reader(&self) -> LogReader {
        LogReader::open(self.ledger()).unwrap()
    }

    /// The log, as `events --json` has it.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.json(["events"])
    }

    pub(crate) fn verify(&self) {
        let ran = self.run(["verify"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    /// Whether the ledger, or anything beside it, is there.
    pub(crate) fn has_no_ledger(&self) -> bool {
        !self.path("state").exists() && std::fs::read_dir(self.path("home")).unwrap().next().is_none()
    }

    /// A plain connection to the log, past the library.
    pub(crate) fn sqlite(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.ledger()).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection
    }
}

/// How a program ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

impl Ran {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }

    /// Standard output as JSON Lines.
    pub(crate) fn json(&self) -> Vec<Value> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout().lines().map(read).collect()
    }

    /// One complaint on standard error, nothing on standard output, and this exit status.
    pub(crate) fn is_refused_with(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout(), "", "{self:?}");
        let stderr = self.stderr();
        assert_eq!(stderr.lines().count(), 1, "one line: {self:?}");
        assert!(stderr.starts_with("error: "), "{self:?}");
        stderr.trim_end().to_owned()
    }
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = |text: String| text.chars().take(4000).collect::<String>();
        write!(f, "exit {:?}\nstdout:\n{}\nstderr:\n{}", self.code, cut(self.stdout()), cut(self.stderr()))
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    Running::start(command).wait()
}

/// Runs a program to its end with something on its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: impl AsRef<[u8]>) -> Ran {
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.child.stdin.take().unwrap();
    let input = input.as_ref().to_vec();
    // A program that gives up early does not read it all.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ran = running.wait();
    writer.join().unwrap();
    ran
}

/// A program that runs; it is killed with this value.
pub(crate) struct Running {
    pub(crate) child: Child,
    out: Option<JoinHandle<Vec<u8>>>,
    err: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Starts a program, its output kept.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped());
        Self::start_without_stdout(command)
    }

    /// Starts a program whose standard output goes where the command says.
    pub(crate) fn start_without_stdout(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().map(|stdout| std::thread::spawn(move || read_all(stdout)));
        let err = child.stderr.take().map(|stderr| std::thread::spawn(move || read_all(stderr)));
        Self { child, out, err }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ran {
        let status = self.wait_for_status();
        let text = |thread: Option<JoinHandle<Vec<u8>>>| thread.map(|t| t.join().unwrap()).unwrap_or_default();
        let (out, err) = (text(self.out.take()), text(self.err.take()));
        Ran { code: status.code(), out, err }
    }

    fn wait_for_status(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the program's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, in most cases.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a file with a whole line in it, and gives that line.
pub(crate) fn wait_for_line(path: &Path) -> String {
    let mut text = String::new();
    wait_until(&path.display().to_string(), || {
        text = std::fs::read_to_string(path).unwrap_or_default();
        text.ends_with('\n')
    });
    text.trim().to_owned()
}

/// Whether a process runs; one that has ended and was not looked at does not.
pub(crate) fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

/// Appends an event to a stream of a log, whatever its version.
pub(crate) fn append(log: &dyn EventLog, stream: &str, json: &str) -> Receipt {
    let stream = StreamName::new(stream).unwrap();
    let metadata = Metadata { session_id: stream.session_id(), run_id: stream.run_id(), ..Metadata::default() };
    let event = NewEvent::new(RuntimeEvent::from_json(json).unwrap(), metadata).unwrap();
    log.append(&stream, ExpectedVersion::Any, vec![event]).unwrap().remove(0)
}

/// The one run of a log that somebody else writes to, once it has begun.
pub(crate) fn wait_for_run(room: &Room) -> RunId {
    let mut found = None;
    wait_until("a run", || {
        found = room.ledger().exists().then(|| LogReader::open(room.ledger()).ok()).flatten().and_then(|reader| {
            let filter = runledger_store::EventFilter::default();
            let head = reader.head().ok()?.position;
            let events = reader.read(&filter, Default::default(), head, 1, runledger_store::Read::Facts).ok()?.events;
            events.first()?.stream.run_id()
        });
        found.is_some()
    });
    found.unwrap()
}

/// The number of events of a run's stream.
pub(crate) fn stream_version(room: &Room, stream: &StreamName) -> StreamVersion {
    room.reader().stream_version(stream).unwrap()
}

pub(crate) fn session(id: &str) -> StreamName {
    StreamName::session(&SessionId::new(id).unwrap())
}

/// The value at a JSON pointer as text.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
}

/// Puts names in the place of what differs from one run of the tests to the next: ids by order of appearance, times,
/// lengths of time, and the room's path.
pub(crate) struct Normalizer {
    folder: String,
    known: Vec<(String, String)>,
}

impl Normalizer {
    pub(crate) fn new(room: &Room) -> Self {
        Self { folder: room.path("").display().to_string().trim_end_matches('/').to_owned(), known: Vec::new() }
    }

    /// Always shows this text so.
    pub(crate) fn name(&mut self, text: &str, name: &str) {
        self.known.push((text.to_owned(), format!("[{name}]")));
    }

    /// The text with columns two spaces apart, whatever the width of what stood in them.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = text.replace(&self.folder, "[room]");
        for (from, to) in &self.known {
            text = text.replace(from, to);
        }
        let text = replace_pattern(&text, "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "[uuid]");
        let text = replace_pattern(&text, "dddd-dd-dd dd:dd:dd", "[time]");
        // Without a terminal tables have tabs; they are kept apart from the two spaces of other lists.
        let spaced = |line: &str| line.split("  ").map(str::trim).map(cell).collect::<Vec<_>>().join("  ");
        let line = |line: &str| line.split('\t').map(spaced).collect::<Vec<_>>().join(" | ");
        let lines: Vec<String> =
            text.lines().map(|text| line(text).split("    ").collect::<Vec<_>>().join("  ")).collect();
        let mut text = lines.join("\n");
        while text.contains("   ") {
            text = text.replace("   ", "  ");
        }
        text
    }
}

/// Puts `name` in the place of what fits a pattern: `d` is a digit, `h` a hexadecimal one, anything else itself.
fn replace_pattern(text: &str, pattern: &str, name: &str) -> String {
    let fits = |at: &str| {
        at.len() >= pattern.len()
            && at.bytes().zip(pattern.bytes()).all(|(byte, wanted)| match wanted {
                b'd' => byte.is_ascii_digit(),
                b'h' => byte.is_ascii_hexdigit(),
                wanted => byte == wanted,
            })
    };
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let length = if fits(rest) { pattern.len() } else { first.len_utf8() };
        replaced.push_str(if fits(rest) { name } else { &rest[..length] });
        rest = &rest[length..];
    }
    replaced
}

/// A cell of a table, by a name where it is a length of time, a size or a fraction of a second.
fn cell(text: &str) -> String {
    let is_figure = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if let Some((before, length)) = text.split_once(", after ") {
        return format!("{before}, after {}", cell(length));
    }
    if let Some((size, rest)) = text.split_once(", and ") {
        let to_be = " to be checkpointed";
        return format!("{}, and {}{to_be}", cell(size), cell(rest.trim_end_matches(to_be)));
    }
    if let Some((size, rest)) = text.split_once(" in [room]") {
        return format!("{} in [room]{rest}", cell(size));
    }
    match text.split_once(' ') {
        Some((figure, "ms" | "s")) if is_figure(figure) => "[took]".to_owned(),
        Some((figure, "KiB" | "MiB")) if is_figure(figure) => "[size]".to_owned(),
        None if is_figure(text) && text.contains('.') => "[seconds]".to_owned(),
        _ => text.to_owned(),
    }
}

/// A client of this name in the room that keeps its arguments, its input and what it was told of the run, plays a file,
/// and then does `after`.
pub(crate) fn fake_client(room: &Room, name: &str, lines: &Path, after: &str) {
    let record = r#"{ for argument; do printf '%s\n' "$argument"; done; } >> arguments; echo == >> arguments
        cat >> input; echo == >> input; env | grep '^RUNLEDGER_' | sort > environment"#;
    room.program(name, &format!("{record}\ncat '{}'\n{after}", lines.display()));
}

/// Runs `exec` with the harness of this name, whose client plays these lines; gives the run as `show` tells it.
pub(crate) fn play_client(room: &Room, name: &str, lines: &[String], after: &str) -> (Ran, Value) {
    let file = room.write("lines.jsonl", lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    fake_client(room, name, &file, after);
    let ran = run(&mut room.command(["exec", "--harness", name, "Say hi"]));
    let shown = room.json(["runs"]).pop().expect("a run");
    (ran, room.json(["show", shown["id"].as_str().unwrap()]).pop().unwrap())
}

/// The kinds of all events in the room's ledger, in order.
pub(crate) fn kinds(room: &Room) -> Vec<String> {
    room.events().iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
}
