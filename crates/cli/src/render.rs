//! How things look to a person: tables, times, durations, and text that cannot drive the terminal.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row, Table, Width};
use jiff::Timestamp;
use jiff::tz::TimeZone;
pub(crate) use runledger_events::words::{bytes, count, duration, one_line, plain, short};
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

/// The total of tokens, or a dash.
pub(crate) fn tokens(tokens: &Tokens) -> String {
    tokens.total.map_or_else(|| "–".to_owned(), count)
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
