//! How things look to a person: tables, times, durations, and text that cannot drive the terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row, Table, Width};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use runledger_events::{RunStatus, TimestampMs, Tokens};

/// The least room for the words in the last column, even where the terminal has to break the line.
const LAST_COLUMN_MIN: u16 = 12;

/// Terminals below this many columns get short ids and times.
const NARROW: u16 = 120;

/// A table for a terminal: bold heads, columns apart by two spaces. Elsewhere [`lines`] makes lines with tabs of it.
pub(crate) fn table(heads: &[&str], is_terminal: bool) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let width = table.width().filter(|width| is_terminal && *width >= 20);
    if !is_terminal || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        // That forgets the width, too, which has nothing to do with colour.
        table.force_no_tty();
    }
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(heads.iter().map(|head| Cell::new(head).add_attribute(Attribute::Bold)));
    // Only the last column, which holds words, may be broken over lines: an id or a time in pieces is none.
    let last = heads.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        column.set_constraint(if index < last {
            ColumnConstraint::ContentWidth
        } else {
            ColumnConstraint::LowerBoundary(Width::Fixed(LAST_COLUMN_MIN))
        });
    }
    table
}

/// Whether a table has little room.
pub(crate) fn is_narrow(table: &Table) -> bool {
    table.width().is_some_and(|width| width < NARROW)
}

/// A moment for a table: without the year where there is little room.
pub(crate) fn time_in(table: &Table, at: TimestampMs) -> String {
    let time = time(at);
    if is_narrow(table) { time.get(5..).unwrap_or(&time).to_owned() } else { time }
}

/// The table's lines without trailing spaces; where no terminal is, its rows with tabs between the cells.
pub(crate) fn lines(table: &Table, is_terminal: bool) -> Vec<String> {
    if is_terminal {
        return table.lines().map(|line| line.trim_end().to_owned()).collect();
    }
    let row = |row: &Row| row.cell_iter().map(Cell::content).collect::<Vec<_>>().join("\t");
    table.header().into_iter().chain(table.row_iter()).map(row).collect()
}

/// A run's status, in its colour, with what keeps it from going on.
pub(crate) fn status_cell(status: RunStatus, held_by: Option<&str>) -> Cell {
    let color = match status {
        RunStatus::Completed => Color::Green,
        RunStatus::Running => Color::Cyan,
        RunStatus::Blocked | RunStatus::Exhausted | RunStatus::Interrupted => Color::Yellow,
        RunStatus::Failed => Color::Red,
        RunStatus::Cancelled => Color::Magenta,
    };
    if let Some(held_by) = held_by {
        return Cell::new(format!("{status}, {held_by}")).fg(Color::Yellow);
    }
    Cell::new(status).fg(color)
}

/// A moment in local time, to the second.
pub(crate) fn time(at: TimestampMs) -> String {
    match Timestamp::from_millisecond(at.0) {
        Ok(moment) => moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{} ms", at.0),
    }
}

/// A length of time, in at most two units.
pub(crate) fn duration(ms: i64) -> String {
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
pub(crate) fn count(number: u64) -> String {
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
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = number as f64;
    while whole >= 1024.0 && unit + 1 < UNITS.len() {
        whole /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{whole:.1} {}", UNITS[unit]) }
}

/// The total of tokens, or a dash.
pub(crate) fn tokens(tokens: &Tokens) -> String {
    tokens.total.map_or_else(|| "–".to_owned(), count)
}

/// Text without what could drive a terminal: control characters are shown, line breaks become spaces.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' | '\r' | '\t' => ' ',
            // What turns the direction of writing could make a text look like another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            '\u{7f}' => '\u{2421}',
            // As its picture: what was to drive a terminal is seen, and which it was.
            control if control < ' ' => char::from_u32(0x2400 + u32::from(control)).unwrap_or('\u{fffd}'),
            control if control.is_control() => '\u{fffd}',
            other => other,
        })
        .collect()
}

/// A text in one line that shows where its own lines end: a command's second line is none of a comment in its first.
pub(crate) fn one_line(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "⏎")
}

/// The first characters of a text in one line.
pub(crate) fn short(text: &str, characters_max: usize) -> String {
    let text = plain(text.trim());
    match text.char_indices().nth(characters_max) {
        None => text,
        Some(_) => {
            let kept: String = text.chars().take(characters_max.saturating_sub(1)).collect();
            format!("{}…", kept.trim_end())
        }
    }
}

/// An error and its causes in one line, none told twice.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    plain(&text)
}

#[cfg(test)]
mod tests {
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
    }
}
