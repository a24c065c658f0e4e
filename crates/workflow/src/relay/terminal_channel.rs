//! A person at a terminal who is asked.
//!
//! Invariants: what was typed before a question was shown answers nothing; one question is on the terminal at a time; the
//! words of an agent cannot drive the terminal.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use runledger_events::{Fields, RelayQuestion};

use super::channel::{Channel, ChannelRequest, StopToken};
use super::questions::UserQuestion;
use super::verdict::{GrantScope, RelayAnswer, RelayVerdict, VerdictSource, current_user};

/// How often it is looked whether anybody still wants to know.
const TICK: Duration = Duration::from_millis(20);
/// Characters of a tool's input that are shown, at the most.
const INPUT_CHARACTERS_MAX: usize = 400;

/// A person at a terminal.
pub struct TerminalChannel {
    by: String,
    terminal: Mutex<Terminal>,
}

struct Terminal {
    input: Option<Box<dyn Read + Send>>,
    /// Lines as they are typed; there from the first question on.
    lines: Option<Receiver<String>>,
    output: Box<dyn Write + Send>,
}

/// That nobody wants an answer any more, or none can come.
struct Over;

impl TerminalChannel {
    /// The person at this terminal; `None` where one side is none.
    pub fn open(
        input: impl Read + IsTerminal + Send + 'static,
        output: impl Write + IsTerminal + Send + 'static,
    ) -> Option<Self> {
        (input.is_terminal() && output.is_terminal()).then(|| Self::new(input, output, current_user()))
    }

    /// Whoever reads and writes here, under this name.
    pub fn new(input: impl Read + Send + 'static, output: impl Write + Send + 'static, by: impl Into<String>) -> Self {
        let terminal = Terminal { input: Some(Box::new(input)), lines: None, output: Box::new(output) };
        Self { by: by.into(), terminal: Mutex::new(terminal) }
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
        let verdict = terminal.begin().and_then(|()| match request.state.request.question {
            RelayQuestion::Permission => terminal.ask_permission(request, stop),
            RelayQuestion::Question => terminal.ask_questions(request, stop),
        });
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

impl Terminal {
    /// Begins to listen, and forgets what was typed before.
    fn begin(&mut self) -> Result<(), Over> {
        if let Some(input) = self.input.take() {
            let (sender, lines) = unbounded();
            let listen = move || {
                for line in BufReader::new(input).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name("runledger-terminal".to_owned());
            thread.spawn(listen).map_err(|_| Over)?;
            self.lines = Some(lines);
        } else if let Some(lines) = &self.lines {
            while lines.try_recv().is_ok() {}
        }
        Ok(())
    }

    fn say(&mut self, text: &str) -> Result<(), Over> {
        self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush()).map_err(|_| Over)
    }

    fn hear(&mut self, stop: &StopToken) -> Result<String, Over> {
        let lines = self.lines.as_ref().ok_or(Over)?;
        loop {
            match lines.recv_timeout(TICK) {
                Ok(line) => return Ok(line.trim().to_owned()),
                Err(RecvTimeoutError::Timeout) if stop.is_told() => return Err(Over),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Over),
            }
        }
    }

    fn ask_permission(&mut self, request: &ChannelRequest, stop: &StopToken) -> Result<RelayVerdict, Over> {
        let reaches_further = request.state.request.context.is_some() && request.state.request.pattern.is_some();
        let keys = if reaches_further { "y, n REASON, r (yes for this run), a (always yes)" } else { "y, n REASON" };
        // What is told meanwhile begins on a line of its own.
        self.say(&format!("{}\nMay it run? {keys}\n", heading(request)))?;
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
            self.say(&format!("{}\n", plain(&question.question)))?;
            for (index, option) in question.options.iter().enumerate() {
                self.say(&format!("  {}. {}\n", index + 1, plain(option)))?;
            }
            let answer = loop {
                self.say(if question.is_multiple { "numbers or words: " } else { "number or words: " })?;
                let line = self.hear(stop)?;
                if !line.is_empty() {
                    break chosen(question, &line);
                }
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
        question.options.get(index).cloned()
    };
    let parts: Vec<&str> = if question.is_multiple { line.split(',').collect() } else { vec![line] };
    let options: Option<Vec<String>> = parts.into_iter().map(option).collect();
    options.map_or_else(|| line.to_owned(), |options| options.join(", "))
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
        let command = Fields::parse(input).ok().and_then(|fields| fields.text("command"));
        let shown: String = plain(command.as_deref().unwrap_or(input)).chars().take(INPUT_CHARACTERS_MAX).collect();
        heading.push_str(&format!("\n  {shown}"));
    }
    if let Some(reason) = facts.rule.as_ref().and_then(|rule| rule.reason.as_deref()) {
        heading.push_str(&format!("\n  {}", plain(reason)));
    }
    heading
}

/// Text without what could drive a terminal, or make a text look like another.
fn plain(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' | '\r' | '\t' => ' ',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            control if control.is_control() => '\u{fffd}',
            other => other,
        })
        .collect()
}
