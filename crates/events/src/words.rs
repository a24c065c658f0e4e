//! Words for people: lengths of time, figures, and text of agents without what could drive a terminal. Pure.

use std::borrow::Cow;

use crate::json_text::{Fields, as_text};

/// A length of time, in at most two units.
pub fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A count, with spaces between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes, in the unit that fits.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = number as f64;
    while whole >= 1024.0 && unit + 1 < UNITS.len() {
        whole /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{whole:.1} {}", UNITS[unit]) }
}

/// Text without what could drive a terminal: control characters are shown, line breaks become spaces.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' | '\r' | '\t' => ' ',
            deceiving if is_deceiving(deceiving) => '\u{fffd}',
            '\u{7f}' => '\u{2421}',
            // As its picture: what was to drive a terminal is seen, and which it was.
            control if control < ' ' => char::from_u32(0x2400 + u32::from(control)).unwrap_or('\u{fffd}'),
            control if control.is_control() => '\u{fffd}',
            other => other,
        })
        .collect()
}

/// Whether a sign is obeyed rather than shown, or could make a text look like another; line breaks and tabs are not.
pub fn is_harmful(character: char) -> bool {
    (character.is_control() && !matches!(character, '\n' | '\r' | '\t')) || is_deceiving(character)
}

/// It turns the direction of writing, or is not seen.
fn is_deceiving(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
    )
}

/// JSON text for a terminal: the same to whoever reads it as JSON, but without a sign that could drive a terminal or deceive.
pub fn plain_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_harmful) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        // Only texts within it can have such signs.
        if is_harmful(character) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// A text in one line that shows where its own lines end: a command's second line is none of a comment in its first.
pub fn one_line(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "⏎")
}

/// The first characters of a text in one line.
pub fn short(text: &str, characters_max: usize) -> String {
    let text = plain(text.trim());
    match text.char_indices().nth(characters_max) {
        None => text,
        Some(_) => {
            let kept: String = text.chars().take(characters_max.saturating_sub(1)).collect();
            format!("{}…", kept.trim_end())
        }
    }
}

/// What a tool is to do: its command or file, or what it asks, then each other field with its name.
pub fn call_parts(json: &str) -> Vec<String> {
    let Ok(fields) = Fields::parse(json) else {
        return vec![as_text(json).unwrap_or_else(|| json.to_owned())];
    };
    let said = ["command", "file_path", "path", "url", "pattern", "query"]
        .into_iter()
        .find_map(|name| Some((Some(name), fields.text(name)?)));
    let question = || {
        let asked = fields.list("questions").unwrap_or_default();
        let asked = asked.iter().filter_map(|question| Fields::parse(question).ok()?.text("question"));
        Some(asked.collect::<Vec<_>>().join(" / ")).filter(|words| !words.is_empty())
    };
    // The words of a question are a part of it, so the field is told as well.
    let Some((name, said)) = said.or_else(|| Some((None, question()?))) else {
        return vec![json.to_owned()];
    };
    let others = fields.iter().filter(|(other, _)| Some(*other) != name);
    let others = others.map(|(name, json)| format!("{name}: {}", as_text(json).unwrap_or_else(|| json.to_owned())));
    std::iter::once(said).chain(others).collect()
}

/// What a tool answered: its text, where it is one, else its JSON.
pub fn response_words(json: &str) -> String {
    if let Some(text) = as_text(json) {
        return text;
    }
    let fields = Fields::parse(json).unwrap_or_default();
    let text = ["stdout", "stderr", "content", "message", "filePath", "status"];
    let texts: Vec<String> = text.iter().filter_map(|name| fields.text(name)).collect();
    match texts.iter().find(|text| !text.is_empty()) {
        Some(text) => text.clone(),
        None if !texts.is_empty() => "no output".to_owned(),
        None => json.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn lengths_of_time_have_at_most_two_units() {
        let shown: Vec<String> = [7, 1500, 61_000, 3_660_000, 90_000_000].map(duration).into();
        assert_eq!(shown, ["7 ms", "1.5 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn text_of_an_agent_cannot_drive_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\nc\u{202e}d\x07\x7f\u{9b}e"), "a␛[2Jb c\u{fffd}d␇␡\u{fffd}e");
        assert_eq!(short("äöüß", 3), "äö…");
        assert_eq!(plain("a\u{200b}b\u{feff}\u{2028}c"), "a\u{fffd}b\u{fffd}\u{fffd}c");
    }

    #[test]
    fn json_for_a_terminal_reads_as_the_same() {
        let json = "{\"a\":\"x\u{9b}31m\u{7f}\u{202e}\",\n \"b\":1}";
        let shown = plain_json(json);
        assert_eq!(shown, "{\"a\":\"x\\u009b31m\\u007f\\u202e\",\n \"b\":1}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&shown), read(json));
        assert!(matches!(plain_json("{}"), Cow::Borrowed(_)));
    }
}
