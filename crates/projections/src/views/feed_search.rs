//! `feed_search`: the words of prompts, messages, titles and tool calls, to find entries of the feed by.
//!
//! A row is an event of the log, by its position; which entries of the feed show that event, the feed knows. A message that
//! streams in pieces is found at the event that completes it.

use runledger_events::{EventKind, Fields, RecordedEvent, as_text, readable};
use runledger_store::Read;
use rusqlite::{Connection, OptionalExtension};

use super::{feed, sqlite};
use crate::checkpoint::Checkpoint;
use crate::error::ProjectionError;
use crate::projection::{Fold, Kinds, Projection, Table, Target};

/// The read model.
pub(crate) struct FeedSearch;

pub(crate) const NAME: &str = "feed_search";
const PENDING: &str = "feed_search_pending";

/// Words of one event that are found, in bytes: what comes behind them is in the log.
const TEXT_BYTES_MAX: usize = 64 << 10;

impl Projection for FeedSearch {
    fn name(&self) -> &'static str {
        NAME
    }

    /// - 2: titles of questions, timers and signals by name.
    /// - 3: no sizes of columns.
    fn version(&self) -> u32 {
        3
    }

    fn kinds(&self) -> Kinds {
        Kinds::All
    }

    fn reads(&self) -> Read<'static> {
        Read::All
    }

    fn tables(&self) -> &'static [Table] {
        &[Table { name: NAME, key: &["rowid"] }, Table { name: PENDING, key: &["stream", "item"] }]
    }

    fn schema(&self) -> &'static str {
        include_str!("../../../../migrations/projections/feed_search.sql")
    }

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(SearchFold)
    }

    fn reset_run(&self, _target: &Target<'_>, _run_id: &str) -> Result<bool, ProjectionError> {
        Ok(false)
    }
}

/// Words are written as they come: FTS5 itself keeps what it has not written yet.
struct SearchFold;

impl Fold for SearchFold {
    fn writes_as_it_takes(&self) -> bool {
        true
    }

    fn take(&mut self, target: &Target<'_>, events: &[&RecordedEvent]) -> Result<(), ProjectionError> {
        let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
        let insert = format!("INSERT INTO {} (rowid, text) VALUES (?1, ?2)", target.table(NAME));
        for event in events {
            let Some(json) = event.content.json() else {
                continue;
            };
            let json = readable(json);
            let fields = Fields::parse(&json).unwrap_or_default();
            let data = fields.object("data").unwrap_or_default();
            let mut words = Words::default();
            pieces(target, event, &data, &mut words).map_err(failed)?;
            words.add(&feed::title(event, &json).unwrap_or_default());
            words.of(&fields, &data);
            if !words.0.is_empty() {
                let statement = target.connection.prepare_cached(&insert);
                statement.and_then(|mut statement| statement.execute((event.position.0, &words.0))).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, _target: &Target<'_>, _rows: usize) -> Result<bool, ProjectionError> {
        Ok(true)
    }

    fn kept_bytes(&self) -> usize {
        0
    }
}

/// Keeps pieces of messages, and adds those that are complete now.
fn pieces(target: &Target<'_>, event: &RecordedEvent, data: &Fields<'_>, words: &mut Words) -> rusqlite::Result<()> {
    let (stream, item) = (event.stream.as_str(), data.text("item_id").unwrap_or_default());
    let table = target.table(PENDING);
    match &event.kind {
        EventKind::MessageDelta => {
            let sql = format!(
                "INSERT INTO {table} (stream, item, text) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET text = substr(text || excluded.text, 1, {TEXT_BYTES_MAX})"
            );
            let piece = data.text("delta").unwrap_or_default();
            target.connection.prepare_cached(&sql)?.execute((stream, item, piece))?;
        }
        EventKind::MessageComplete => {
            let sql = format!("DELETE FROM {table} WHERE stream = ?1 AND item = ?2 RETURNING text");
            let pending: Option<String> =
                target.connection.prepare_cached(&sql)?.query_row((stream, item), |row| row.get(0)).optional()?;
            if data.raw("message").is_none() {
                words.add(&pending.unwrap_or_default());
            }
        }
        EventKind::TurnComplete | EventKind::SessionEnd => {
            let sql = format!("DELETE FROM {table} WHERE stream = ?1 RETURNING text");
            let pending = target
                .connection
                .prepare_cached(&sql)?
                .query_map([stream], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()?;
            pending.iter().for_each(|text| words.add(text));
        }
        _ => {}
    }
    Ok(())
}

/// The words of one event.
#[derive(Default)]
struct Words(String);

/// The fields of `data` that hold words to find an event by.
const FIELDS: &[&str] = &[
    "prompt",
    "message",
    "last_assistant_message",
    "error",
    "error_message",
    "reason",
    "title",
    "explanation",
    "task_subject",
    "task_description",
    "hook_event_name",
    "source_event_name",
];

impl Words {
    fn add(&mut self, text: &str) {
        let left = TEXT_BYTES_MAX.saturating_sub(self.0.len());
        let text = &text[..text.floor_char_boundary(left)];
        if !text.trim().is_empty() {
            if !self.0.is_empty() {
                self.0.push('\n');
            }
            self.0.push_str(text);
        }
    }

    fn of(&mut self, fields: &Fields<'_>, data: &Fields<'_>) {
        let display = fields.object("display").unwrap_or_default();
        let title = display.text("title");
        let told = FIELDS.iter().filter_map(|name| data.text(name));
        let piece = if data.raw("message").is_none() && fields.text("kind").as_deref() == Some("message.complete") {
            data.text("delta")
        } else {
            None
        };
        title.into_iter().chain(told).chain(piece).for_each(|text| self.add(&text));
        // What a tool was asked: the texts of its input.
        if let Some(input) = data.object("tool_input") {
            input.iter().filter_map(|(_, json)| as_text(json)).for_each(|text| self.add(&text));
        }
        for step in data.list("plan").unwrap_or_default() {
            let step = Fields::parse(step).unwrap_or_default();
            self.add(&step.text("step").unwrap_or_default());
        }
    }
}

/// The table that is searched now; `None` where the model was never built.
pub(crate) fn table(connection: &Connection) -> rusqlite::Result<Option<String>> {
    Ok(Checkpoint::load(connection, NAME)?.map(|checkpoint| format!("{NAME}_{}", checkpoint.generation)))
}

/// Whether at most so many events have the words.
pub(crate) fn has_at_most(connection: &Connection, table: &str, words: &str, count: usize) -> rusqlite::Result<bool> {
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {table} MATCH ?1 LIMIT ?2)");
    let found: usize =
        connection.prepare_cached(&sql)?.query_row((words, count.saturating_add(1)), |row| row.get(0))?;
    Ok(found <= count)
}

/// Kinds of entries that are not found by the words of their event: beside the entry that a prompt or a message is, it may
/// have opened and closed runs.
const ASIDE: &str = "('run.start', 'run.end', 'stop.request', 'todo.update')";

/// A condition on entries of the feed: the words, a parameter, are found in an event that they show. Leads to those entries.
pub(crate) fn is_among_found(table: &str, words: usize) -> String {
    let hits = format!("SELECT rowid FROM {table} WHERE {table} MATCH ?{words}");
    format!(
        "entry IN (
             SELECT entry FROM feed_events WHERE position IN ({hits}) AND kind NOT IN {ASIDE}
             UNION SELECT shown.entry FROM feed_retellings AS told CROSS JOIN feed_events AS shown USING (session_id, seq)
             WHERE told.position IN ({hits}))"
    )
}

/// The same, of entries that show events between two positions, parameters too, and no others. Asked of each entry.
pub(crate) fn is_found_between(table: &str, words: usize, first: usize, last: usize) -> String {
    let hits = format!("SELECT rowid FROM {table} WHERE {table} MATCH ?{words} AND rowid BETWEEN ?{first} AND ?{last}");
    format!(
        "(kind NOT IN {ASIDE} AND +position IN ({hits})
             OR EXISTS (SELECT 1 FROM feed_retellings AS told
                 WHERE told.session_id = feed_events.session_id AND told.seq = feed_events.seq
                     AND +told.position IN ({hits})))"
    )
}

/// What a person types as a query: each of its words has to occur, or to be the beginning of one that does.
pub(crate) fn query(text: &str) -> String {
    // SQLite reads a query up to its first NUL.
    let words = text.split(|character: char| character.is_whitespace() || character == '\0');
    let words = words.filter(|word| !word.is_empty()).map(|word| format!("\"{}\"*", word.replace('"', "\"\"")));
    words.collect::<Vec<_>>().join(" ")
}
