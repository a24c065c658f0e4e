//! How entries of the feed look to a person: who, what and the words that matter, a heading for each session and run.

use runledger_events::Fields;
use runledger_events::words::response_words;
use runledger_projections::{FeedEvent, FeedLevel};

use crate::render;

/// Lines of a message that are shown; the rest is counted.
const MESSAGE_LINES_MAX: usize = 12;
/// Characters of other words, where there is no terminal that says how much fits.
const WORDS_MAX: usize = 110;
/// Columns before the words: the time, and room for the signs.
const MARGIN: usize = 14;

/// Makes lines of entries, in order.
pub(super) struct Lines {
    /// The ledger session of the last entry.
    session: Option<String>,
    /// Its day.
    day: String,
    is_coloured: bool,
    /// Columns of the terminal.
    width: usize,
}

/// ANSI colours.
#[derive(Clone, Copy)]
enum Colour {
    Plain,
    Dim,
    Bold,
    Cyan,
    Yellow,
    Red,
}

impl Lines {
    pub(super) fn new() -> Self {
        let is_coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let width = comfy_table::Table::new().width().map_or(120, usize::from).max(40);
        Self { session: None, day: String::new(), is_coloured, width }
    }

    /// The lines of one entry. Without a terminal it is one line, with tabs between its parts.
    pub(super) fn of(&mut self, event: &FeedEvent, is_terminal: bool) -> Vec<String> {
        if !is_terminal {
            let session = render::plain(event.ledger_session_id.as_str());
            let (time, words) = (event.ts.0, words(event).join(" "));
            let cells = [
                &session,
                &event.seq.to_string(),
                &time.to_string(),
                &event.kind,
                &event.actor_id,
                &event.title,
                &words,
            ];
            return vec![cells.map(|cell| render::plain(cell)).join("\t").trim_end().to_owned()];
        }
        let mut lines = Vec::new();
        let time = render::time(event.ts);
        let day = time.get(..10).unwrap_or(&time).to_owned();
        if self.session.as_deref() != Some(event.ledger_session_id.as_str()) {
            if self.session.is_some() {
                lines.push(String::new());
            }
            let name = render::plain(event.ledger_session_id.as_str());
            lines.push(self.paint(Colour::Bold, &format!("session {name}, {day}")));
            self.session = Some(event.ledger_session_id.to_string());
        } else if self.day != day {
            lines.push(self.paint(Colour::Bold, &day));
        }
        self.day = day;
        lines.extend(self.entry(event));
        lines
    }

    fn entry(&self, event: &FeedEvent) -> Vec<String> {
        let colour = match (event.level, event.kind.as_str()) {
            (FeedLevel::Error, _) => Colour::Red,
            (FeedLevel::Warn, _) | (_, "permission.request") => Colour::Yellow,
            (FeedLevel::Debug, _) | (_, "tool.delta" | "run.end" | "session.end" | "usage.update") => Colour::Dim,
            (_, "user.prompt") => Colour::Cyan,
            (_, "workflow.start" | "workflow.end" | "workflow.iteration" | "run.start") => Colour::Bold,
            _ => Colour::Plain,
        };
        let time = render::time(event.ts);
        let time = self.paint(Colour::Dim, time.get(11..).unwrap_or(&time));
        let is_subagent = event.actor_id.starts_with("subagent:");
        let indent = if is_subagent { "  │ " } else { "  " };
        let room = self.width.saturating_sub(MARGIN);
        let mut words = words(event).into_iter();
        let title = match event.kind.as_str() {
            // The words are the message: its title would only say that there is one.
            "agent.message" => format!("⏺ {}", words.next().unwrap_or_default()),
            "user.prompt" => format!("› {}", words.next().unwrap_or_default()),
            // Its prompt follows.
            "run.start" => format!("── run {}", event.run_id.rsplit(":R").next().unwrap_or_default()),
            _ => {
                let title = render::short(&event.title, room);
                let left = room.saturating_sub(title.chars().count() + 2);
                match words.next() {
                    Some(first) if left > 8 => {
                        format!("{title}  {}", self.paint(Colour::Dim, &render::short(&first, left)))
                    }
                    _ => title,
                }
            }
        };
        let mut lines = vec![format!("{time}{indent}{}", self.paint(colour, &title))];
        lines.extend(words.map(|line| format!("{:8}{indent}  {}", "", self.paint(colour, &line))));
        lines
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            _ if !self.is_coloured => return text.to_owned(),
            Colour::Plain => return text.to_owned(),
            Colour::Dim => "2",
            Colour::Bold => "1",
            Colour::Cyan => "36",
            Colour::Yellow => "33",
            Colour::Red => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The words of an entry that its title does not say, a line each.
fn words(event: &FeedEvent) -> Vec<String> {
    let data = Fields::parse(event.data.get()).unwrap_or_default();
    let one = |text: Option<String>| text.map(|text| render::short(&text, WORDS_MAX)).into_iter().collect();
    match event.kind.as_str() {
        "agent.message" => block(&data.text("message").unwrap_or_default()),
        "user.prompt" => block(&data.text("prompt").unwrap_or_default()),
        "tool.pre" | "permission.request" | "permission.denied" => one(asked(&data)),
        "tool.post" => one(data.raw("tool_response").map(response_words)),
        "tool.delta" => one(data.text("delta").and_then(|text| text.trim_end().lines().last().map(str::to_owned))),
        "subagent.start" => one(data.text("description")),
        "stop.failure" => one(data.text("error_message")),
        "usage.update" => one(data.object("delta").or_else(|| data.object("usage")).map(|tokens| figures(&tokens))),
        _ => Vec::new(),
    }
}

/// Token figures in words.
fn figures(tokens: &Fields<'_>) -> String {
    let told = [("input", "in"), ("output", "out"), ("cacheRead", "cache read"), ("cacheWrite", "cache written")];
    let told = told.iter().filter_map(|(name, word)| tokens.count(name).map(|count| (count, word)));
    told.map(|(count, word)| format!("{} {word}", render::count(count))).collect::<Vec<_>>().join(", ")
}

/// A text of several lines, up to a bound.
fn block(text: &str) -> Vec<String> {
    let all: Vec<&str> = text.trim_end().lines().collect();
    let mut lines: Vec<String> = all.iter().take(MESSAGE_LINES_MAX).map(|line| render::plain(line)).collect();
    if all.len() > MESSAGE_LINES_MAX {
        lines.push(format!("… {} more lines", all.len() - MESSAGE_LINES_MAX));
    }
    lines
}

/// What a tool was asked to do, in the words that matter.
fn asked(data: &Fields<'_>) -> Option<String> {
    let input = data.object("tool_input")?;
    let told = ["command", "file_path", "notebook_path", "pattern", "query", "url", "description", "prompt"];
    let told = told.iter().find_map(|name| input.text(name));
    told.or_else(|| data.raw("tool_input").filter(|json| *json != "{}").map(str::to_owned))
}
