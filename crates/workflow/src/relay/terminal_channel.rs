//! A person at a terminal who is asked.
//!
//! Invariants: what was typed before a question was shown answers nothing; what a person approves was shown, line by line
//! and field by field, or it is said what was not; one question is on the terminal at a time; the words of an agent cannot
//! drive the terminal.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use runledger_events::{Fields, RelayQuestion, as_text};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{QueueSelector, tcflush};

use super::channel::{Channel, ChannelRequest, StopToken};
use super::questions::UserQuestion;
use super::verdict::{GrantScope, RelayAnswer, RelayVerdict, VerdictSource, current_user};

/// How often it is looked whether anybody still wants to know.
const TICK: Duration = Duration::from_millis(20);
/// Of a command so much is shown, at the most.
const COMMAND_MAX: Room = Room { characters: 2000, lines: 30 };
/// Of any other field of a tool's input so much is shown, at the most.
const FIELD_MAX: Room = Room { characters: 300, lines: 5 };
/// Fields beside the command that are shown, at the most.
const FIELDS_MAX: usize = 12;
/// Characters of a field's name that are shown, at the most.
const NAME_CHARACTERS_MAX: usize = 60;

/// A person at a terminal.
pub struct TerminalChannel {
    by: String,
    terminal: Mutex<Terminal>,
}

struct Terminal {
    input: Input,
    output: Box<dyn Write + Send>,
}

/// Where what is typed comes from.
enum Input {
    /// A terminal. It is read while a question is on it alone, by whoever asks, so that between two questions whatever is
    /// typed lies in the terminal's own queue, which can be emptied.
    Tty {
        tty: File,
        /// What was read of a line that has not ended yet, or of lines behind the first.
        read: Vec<u8>,
    },
    /// Anything else: its lines, which a thread reads as they come. A line that it just has in hand counts as new.
    Lines(Receiver<String>),
}

/// How much of a text there is room for.
struct Room {
    characters: usize,
    lines: usize,
}

/// That nobody wants an answer any more, or none can come.
struct Over;

impl TerminalChannel {
    /// The person at this terminal; `None` where one side is none.
    pub fn open(input: impl IsTerminal + AsFd, output: impl Write + IsTerminal + Send + 'static) -> Option<Self> {
        if !input.is_terminal() || !output.is_terminal() {
            return None;
        }
        let tty = File::from(input.as_fd().try_clone_to_owned().ok()?);
        Some(Self::of(Input::Tty { tty, read: Vec::new() }, output, current_user()))
    }

    /// Whoever reads and writes here, under this name. What is typed is read from now on.
    pub fn new(input: impl Read + Send + 'static, output: impl Write + Send + 'static, by: impl Into<String>) -> Self {
        Self::of(Input::Lines(listen(input)), output, by)
    }

    fn of(input: Input, output: impl Write + Send + 'static, by: impl Into<String>) -> Self {
        Self { by: by.into(), terminal: Mutex::new(Terminal { input, output: Box::new(output) }) }
    }

    /// The terminal, as soon as no other question is on it.
    fn terminal(&self, stop: &StopToken) -> Option<MutexGuard<'_, Terminal>> {
        loop {
            match self.terminal.try_lock() {
                Ok(terminal) => return Some(terminal),
                // What it holds is whole at every step.
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if stop.wait(TICK) => return None,
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }
}

impl Channel for TerminalChannel {
    fn name(&self) -> &str {
        "terminal"
    }

    fn ask(&self, request: &ChannelRequest, stop: &StopToken) -> Option<RelayVerdict> {
        let mut terminal = self.terminal(stop)?;
        let verdict = match request.state.request.question {
            RelayQuestion::Permission => terminal.ask_permission(request, stop),
            RelayQuestion::Question => terminal.ask_questions(request, stop),
        };
        match verdict {
            Ok(verdict) => Some(RelayVerdict { source: VerdictSource::Terminal, by: Some(self.by.clone()), ..verdict }),
            Err(Over) => {
                if stop.is_told() {
                    // That it cannot be said changes nothing.
                    let _ = terminal.say("(settled elsewhere)\n");
                }
                None
            }
        }
    }
}

impl Input {
    /// Forgets what was typed so far, with or without the end of its line.
    fn forget(&mut self) -> Result<(), Over> {
        match self {
            Self::Tty { tty, read } => {
                read.clear();
                // Where that fails, what was typed before could answer: then nothing does.
                tcflush(tty, QueueSelector::IFlush).map_err(|_| Over)
            }
            Self::Lines(lines) => {
                while lines.try_recv().is_ok() {}
                Ok(())
            }
        }
    }

    /// The next line, where one comes soon.
    fn line(&mut self) -> Result<Option<String>, Over> {
        let (tty, read) = match self {
            Self::Tty { tty, read } => (tty, read),
            Self::Lines(lines) => {
                return match lines.recv_timeout(TICK) {
                    Ok(line) => Ok(Some(line)),
                    Err(RecvTimeoutError::Timeout) => Ok(None),
                    Err(RecvTimeoutError::Disconnected) => Err(Over),
                };
            }
        };
        if !read.contains(&b'\n') && is_readable(tty)? {
            let mut piece = [0; 4096];
            match tty.read(&mut piece) {
                Ok(0) => return Err(Over),
                Ok(length) => read.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over),
            }
        }
        let end = read.iter().position(|byte| *byte == b'\n');
        Ok(end.map(|end| String::from_utf8_lossy(&read.drain(..=end).collect::<Vec<u8>>()).into_owned()))
    }
}

/// Whether something was typed, or the terminal is gone; waits a moment for it.
fn is_readable(tty: &File) -> Result<bool, Over> {
    let tick = Timespec::try_from(TICK).map_err(|_| Over)?;
    match poll(&mut [PollFd::new(tty, PollFlags::IN)], Some(&tick)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(_) => Err(Over),
    }
}

/// Reads lines on a thread of its own, which ends with the input. Without a thread nothing is ever heard.
fn listen(input: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = unbounded();
    let listen = move || {
        for line in BufReader::new(input).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("runledger-terminal".to_owned()).spawn(listen) {
        tracing::warn!(%error, "what is typed cannot be heard");
    }
    lines
}

impl Terminal {
    fn say(&mut self, text: &str) -> Result<(), Over> {
        self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush()).map_err(|_| Over)
    }

    /// Says what is asked, then asks for the answer: only what is typed from this last word on counts.
    fn prompt(&mut self, question: &str, prompt: &str) -> Result<(), Over> {
        self.say(question)?;
        self.input.forget()?;
        self.say(prompt)
    }

    fn hear(&mut self, stop: &StopToken) -> Result<String, Over> {
        loop {
            if let Some(line) = self.input.line()? {
                return Ok(line.trim().to_owned());
            }
            if stop.is_told() {
                return Err(Over);
            }
        }
    }

    fn ask_permission(&mut self, request: &ChannelRequest, stop: &StopToken) -> Result<RelayVerdict, Over> {
        let reaches_further = request.state.request.context.is_some() && request.state.request.pattern.is_some();
        let keys = if reaches_further { "y, n REASON, r (yes for this run), a (always yes)" } else { "y, n REASON" };
        // What is told meanwhile begins on a line of its own.
        self.prompt(&format!("{}\n", heading(request)), &format!("May it run? {keys}\n"))?;
        loop {
            let line = self.hear(stop)?;
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
            let allow = |scope| Ok(RelayVerdict { scope, ..RelayVerdict::allow() });
            match word.to_lowercase().as_str() {
                "y" | "yes" => return allow(GrantScope::Once),
                "r" | "run" if reaches_further => return allow(GrantScope::Run),
                "a" | "always" if reaches_further => return allow(GrantScope::Always),
                "n" | "no" => {
                    let reason = Some(rest.trim().to_owned()).filter(|reason| !reason.is_empty());
                    return Ok(RelayVerdict { reason, ..RelayVerdict::new(RelayAnswer::Deny) });
                }
                _ => self.say(&format!("{keys}\n"))?,
            }
        }
    }

    fn ask_questions(&mut self, request: &ChannelRequest, stop: &StopToken) -> Result<RelayVerdict, Over> {
        let questions = request.user_questions();
        if questions.is_empty() {
            return Err(Over);
        }
        self.say(&format!("{}\n", heading(request)))?;
        let mut answers = BTreeMap::new();
        for question in &questions {
            let mut asked = format!("{}\n", plain(&question.question));
            for (index, option) in question.options.iter().enumerate() {
                asked.push_str(&format!("  {}. {}\n", index + 1, plain(&option.label)));
            }
            let keys = if question.is_multiple { "numbers or words: " } else { "number or words: " };
            self.prompt(&asked, keys)?;
            let answer = loop {
                let line = self.hear(stop)?;
                if !line.is_empty() {
                    break chosen(question, &line);
                }
                self.say(keys)?;
            };
            answers.insert(question.question.clone(), answer);
        }
        Ok(RelayVerdict::new(RelayAnswer::Answers(answers)))
    }
}

/// The options that these numbers choose; else the words as they are.
fn chosen(question: &UserQuestion, line: &str) -> String {
    let option = |number: &str| {
        let index = number.trim().parse::<usize>().ok()?.checked_sub(1)?;
        question.options.get(index).map(|option| option.label.as_str())
    };
    let parts: Vec<&str> = if question.is_multiple { line.split(',').collect() } else { vec![line] };
    let options: Option<Vec<&str>> = parts.into_iter().map(option).collect();
    options.map_or_else(|| line.to_owned(), UserQuestion::joined)
}

/// What is asked, by whom, in which run.
fn heading(request: &ChannelRequest) -> String {
    let facts = &request.state.request;
    let mut heading = format!("\n{}", plain(facts.tool_name.as_deref().unwrap_or("a tool")));
    if let Some(context) = &facts.context {
        let workflow = context.workflow_name.as_deref().unwrap_or("a run without a workflow");
        let of = format!(", {} (iteration {} of {})", plain(workflow), context.iteration, context.max_iterations);
        heading.push_str(&of);
    }
    if facts.question == RelayQuestion::Permission
        && let Some(input) = &request.tool_input_json
    {
        heading.push_str(&shown_input(input, &format!("runledger context {} shows all", request.state.position)));
    }
    if let Some(reason) = facts.rule.as_ref().and_then(|rule| rule.reason.as_deref()) {
        heading.push_str(&format!("\n  {}", plain(reason)));
    }
    heading
}

/// What a tool is to do, each line on one of its own: its command, then every other field. `rest` tells where all of it
/// is, and is said with how much is left out.
fn shown_input(json: &str, rest: &str) -> String {
    let Ok(fields) = Fields::parse(json) else {
        return block(json, &COMMAND_MAX, rest);
    };
    let command = fields.text("command");
    let mut shown = command.as_deref().map(|command| block(command, &COMMAND_MAX, rest)).unwrap_or_default();
    let others: Vec<(&str, &str)> = fields.iter().filter(|(name, _)| *name != "command" || command.is_none()).collect();
    for (name, json) in others.iter().take(FIELDS_MAX) {
        let name = match name.char_indices().nth(NAME_CHARACTERS_MAX) {
            None => plain(name),
            Some((cut, _)) => format!("{}…", plain(&name[..cut])),
        };
        let value = as_text(json).unwrap_or_else(|| (*json).to_owned());
        let is_short = value.lines().count() <= 1 && value.chars().count() <= FIELD_MAX.characters;
        shown.push_str(&if is_short {
            format!("\n  {name}: {}", plain(&value))
        } else {
            format!("\n  {name}:{}", block(&value, &FIELD_MAX, rest))
        });
    }
    if others.len() > FIELDS_MAX {
        shown.push_str(&format!("\n  … {} more fields: {rest}", others.len() - FIELDS_MAX));
    }
    shown
}

/// The lines of a text, each behind a bar, so that none can pass for a line of ours; and how much there was no room for.
fn block(text: &str, room: &Room, rest: &str) -> String {
    let mut block = String::new();
    let mut characters = 0;
    for line in text.split_inclusive('\n').take(room.lines) {
        let kept: String = line.chars().take(room.characters - characters).collect();
        if kept.is_empty() {
            break;
        }
        characters += kept.chars().count();
        let line = kept.strip_suffix('\n').unwrap_or(&kept);
        block.push_str(&format!("\n  │ {}", plain(line.strip_suffix('\r').unwrap_or(line))));
    }
    let left = text.chars().count() - characters;
    if left > 0 {
        block.push_str(&format!("\n  … {left} more characters: {rest}"));
    }
    block
}

/// Text without what could drive a terminal, or make a text look like another.
fn plain(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' => '⏎',
            '\t' => ' ',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            control if control.is_control() => '\u{fffd}',
            other => other,
        })
        .collect()
}
