//! The feed's rows: how they are written, changed and read back.

use runledger_events::{Fields, ObjectText, Position, RunId, SessionId, TimestampMs};
use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, ToSql};
use serde_json::value::RawValue;

use super::event::{FeedCause, FeedEvent, FeedLevel, FeedUi, WorkflowContext};
use super::{NAME, text};
use crate::error::ProjectionError;
use crate::projection::Target;
use crate::views::{damaged, from_json, sqlite, to_json};

/// One row of `feed_events`.
#[derive(Debug, Clone)]
pub(super) struct FeedRow {
    /// Counts the entries of the whole feed, in the order of the log.
    pub(super) entry: u64,
    /// Whether the table has it, as it was.
    pub(super) is_written: bool,
    pub(super) seq: u64,
    pub(super) first_position: Position,
    pub(super) position: Position,
    pub(super) ts: TimestampMs,
    pub(super) adapter_session_id: String,
    pub(super) run_id: String,
    pub(super) kind: String,
    pub(super) level: FeedLevel,
    pub(super) actor_id: String,
    pub(super) cause: FeedCause,
    pub(super) title: String,
    /// JSON text.
    pub(super) data: String,
    /// JSON text.
    pub(super) display: Option<String>,
    pub(super) is_collapsed: bool,
    /// Of a piece of a tool's output: the call, and the row with the first piece.
    pub(super) output: Option<(String, u64)>,
    pub(super) workflow: Option<WorkflowContext>,
}

/// Bytes of a row beside its larger texts, about.
const ROW_BYTES: usize = 512;

impl FeedRow {
    /// How many bytes it has in memory, about.
    pub(super) fn bytes(&self) -> usize {
        ROW_BYTES + self.data.len() + self.title.len() + self.display.as_ref().map_or(0, String::len)
    }
}

const COLUMNS: &str = "seq, position, ts, adapter_session_id, run_id, kind, level, actor_id, cause, title, data, display, \
                       is_collapsed, output_of, output_from, workflow_run_id, workflow_name, workflow_iteration, \
                       workflow_state, session_id, first_position, entry";

/// Writes rows, each in the place of the one there was, with the session that it is of.
pub(super) fn store<'a>(
    target: &Target<'_>,
    rows: impl Iterator<Item = (&'a str, &'a FeedRow)>,
) -> Result<(), ProjectionError> {
    let failed = |source: rusqlite::Error| sqlite(target, NAME, &source);
    let statement = |verb: &str| {
        let sql = format!(
            "{verb} INTO {} ({COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                 ?22)",
            target.table(NAME)
        );
        target.connection.prepare_cached(&sql).map_err(failed)
    };
    let (mut insert, mut replace) = (statement("INSERT")?, statement("REPLACE")?);
    for (session_id, row) in rows {
        let cause = to_json(NAME, &row.cause)?;
        let workflow = row.workflow.as_ref();
        let statement = if row.is_written { &mut replace } else { &mut insert };
        statement
            .execute(rusqlite::params![
                row.seq,
                row.position.0,
                row.ts.0,
                row.adapter_session_id,
                row.run_id,
                row.kind,
                row.level.as_str(),
                row.actor_id,
                cause,
                row.title,
                row.data,
                row.display,
                row.is_collapsed,
                row.output.as_ref().map(|(call, _)| call),
                row.output.as_ref().map(|(_, from)| from),
                workflow.map(|workflow| workflow.run_id.as_str()),
                workflow.and_then(|workflow| workflow.workflow_name.as_deref()),
                workflow.map(|workflow| workflow.iteration),
                workflow.map(|workflow| workflow.state.as_str()),
                session_id,
                row.first_position.0,
                row.entry,
            ])
            .map_err(failed)?;
    }
    Ok(())
}

/// The row that was written before.
pub(super) fn load(target: &Target<'_>, session_id: &str, seq: u64) -> Result<Option<FeedRow>, ProjectionError> {
    let sql = format!("SELECT {COLUMNS} FROM {} WHERE session_id = ?1 AND seq = ?2", target.table(NAME));
    target
        .connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row((session_id, seq), feed_row).optional())
        .map_err(|source| sqlite(target, NAME, &source))
}

/// Where an entry that another generation counted would stand, by the event that told it first: the number of the last entry
/// up to and with that event, in the feed and in its session; or, not `is_behind` it, the one after the last before it.
pub(crate) fn select_place(
    connection: &Connection,
    session: Option<&SessionId>,
    first_position: Position,
    is_behind: bool,
) -> rusqlite::Result<(u64, u64)> {
    let sign = if is_behind { "<=" } else { "<" };
    let (of_session, order) = if session.is_some() { ("session_id = ?2", "seq") } else { ("?2 IS NULL", "entry") };
    // From the end: who follows is near it.
    let sql = format!(
        "SELECT entry, seq FROM {NAME} WHERE first_position {sign} ?1 AND {of_session} ORDER BY {order} DESC LIMIT 1"
    );
    let found = connection
        .prepare_cached(&sql)?
        .query_row((first_position.0, session.map(SessionId::as_str)), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (entry, seq): (u64, u64) = found.unwrap_or_default();
    Ok(if is_behind { (entry, seq) } else { (entry.saturating_add(1), seq.saturating_add(1)) })
}

/// A stretch of the feed.
pub(crate) struct Stretch {
    /// The least and the greatest of its entries' numbers in the order that was asked for.
    pub(crate) numbers: (u64, u64),
    /// The first and the last event that its entries show, in their own words or in others'.
    pub(crate) shown: (Position, Position),
    /// Whether it has as many entries as it may have; else there are no more.
    pub(crate) is_whole: bool,
}

/// The stretch that at most `count` entries make, by the SQL that selects them in an order; `None` where there is none.
pub(crate) fn select_stretch(
    connection: &Connection,
    order: &str,
    count: usize,
    clause: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Option<Stretch>> {
    let told = |which: &str| {
        format!(
            "{which}(position, coalesce((SELECT {which}(told.position) FROM feed_retellings AS told
                 WHERE told.session_id = feed_events.session_id AND told.seq = feed_events.seq), position))"
        )
    };
    let sql = format!(
        "SELECT count(*), min(number), max(number), min(first), max(last)
         FROM (SELECT {order} AS number, {} AS first, {} AS last FROM {NAME} {clause})",
        told("min"),
        told("max")
    );
    connection.prepare_cached(&sql)?.query_row(parameters, |row| {
        let entries: usize = row.get(0)?;
        if entries == 0 {
            return Ok(None);
        }
        let numbers = (row.get(1)?, row.get(2)?);
        let shown = (Position(row.get(3)?), Position(row.get(4)?));
        Ok(Some(Stretch { numbers, shown, is_whole: entries == count }))
    })
}

/// The number of the last entry; 0 where there is none.
pub(super) fn last_entry(target: &Target<'_>) -> Result<u64, ProjectionError> {
    let sql = format!("SELECT coalesce(max(entry), 0) FROM {}", target.table(NAME));
    target.connection.query_row(&sql, [], |row| row.get(0)).map_err(|source| sqlite(target, NAME, &source))
}

fn feed_row(row: &Row<'_>) -> rusqlite::Result<FeedRow> {
    let output_of: Option<String> = row.get(13)?;
    let output_from: Option<u64> = row.get(14)?;
    let run_id: Option<String> = row.get(15)?;
    let workflow = match run_id {
        None => None,
        Some(run_id) => Some(WorkflowContext {
            run_id: RunId::new(run_id).map_err(|error| damaged(15, error))?,
            workflow_name: row.get(16)?,
            iteration: row.get(17)?,
            state: row.get(18)?,
        }),
    };
    let level: String = row.get(6)?;
    Ok(FeedRow {
        entry: row.get(21)?,
        is_written: true,
        seq: row.get(0)?,
        first_position: Position(row.get(20)?),
        position: Position(row.get(1)?),
        ts: TimestampMs(row.get(2)?),
        adapter_session_id: row.get(3)?,
        run_id: row.get(4)?,
        kind: row.get(5)?,
        level: FeedLevel::parse(&level).ok_or_else(|| damaged(6, format!("no level: {level}")))?,
        actor_id: row.get(7)?,
        cause: from_json(row, 8)?,
        title: row.get(9)?,
        data: row.get(10)?,
        display: row.get(11)?,
        is_collapsed: row.get(12)?,
        output: output_of.zip(output_from),
        workflow,
    })
}

/// The rows that fit a condition, as FeedEvents.
pub(crate) fn select(
    connection: &Connection,
    clause: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<FeedEvent>> {
    let rows = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM {NAME} {clause}"))?
        .query_map(parameters, |row| Ok((row.get::<_, String>(19)?, feed_row(row)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // The output so far of a call goes on from row to row, whichever way the page is turned.
    let mut in_order: Vec<usize> = (0..rows.len()).collect();
    in_order.sort_by_key(|at| rows[*at].1.seq);
    let mut outputs: HashMap<(String, String, u64), Output> = HashMap::new();
    let mut data: HashMap<usize, String> = HashMap::new();
    for at in in_order {
        let (session_id, row) = &rows[at];
        if let Some((call, from)) = &row.output {
            let output = outputs.entry((session_id.clone(), call.clone(), *from)).or_default();
            output.read_up_to(connection, session_id, (call, *from), row.seq)?;
            data.insert(at, with_output(row, &output.shown())?);
        }
    }
    let with_data = |(at, (session_id, row)): (usize, (String, FeedRow))| {
        let data = data.remove(&at).unwrap_or_else(|| row.data.clone());
        feed_event(session_id, FeedRow { data, ..row })
    };
    rows.into_iter().enumerate().map(with_data).collect()
}

fn feed_event(session_id: String, row: FeedRow) -> rusqlite::Result<FeedEvent> {
    let json = |index, text: String| RawValue::from_string(text).map_err(|error| damaged(index, error));
    Ok(FeedEvent {
        entry: row.entry,
        generation: 0,
        event_id: format!("{}:E{}", row.run_id, row.seq),
        seq: row.seq,
        ts: row.ts,
        session_id: row.adapter_session_id,
        run_id: row.run_id,
        kind: row.kind,
        level: row.level,
        actor_id: row.actor_id,
        cause: row.cause,
        title: row.title,
        data: json(10, row.data)?,
        display: row.display.map(|text| json(11, text)).transpose()?,
        ui: row.is_collapsed.then_some(FeedUi { collapsed_default: true }),
        ledger_session_id: SessionId::new(session_id).map_err(|error| damaged(19, error))?,
        first_position: row.first_position,
        position: row.position,
        workflow: row.workflow,
        raw: None,
    })
}

/// UTF-16 units of a tool's streamed output that are shown, at the most.
const OUTPUT_UNITS_MAX: usize = 64_000;
/// What stands before output whose beginning is left out.
const OUTPUT_CUT: &str = "[streaming output truncated to recent content]\n";

/// What a call has put out, as far as it is read.
#[derive(Default)]
struct Output {
    /// The last row read.
    seq: u64,
    text: String,
    is_cut: bool,
}

impl Output {
    /// Reads on up to a row.
    fn read_up_to(
        &mut self,
        connection: &Connection,
        session_id: &str,
        (call, from): (&str, u64),
        seq: u64,
    ) -> rusqlite::Result<()> {
        let first = from.max(self.seq + 1);
        let parameters: [&dyn ToSql; 5] = [&session_id, &call, &from, &first, &seq];
        let mut statement = connection.prepare_cached(&format!(
            "SELECT data FROM {NAME}
             WHERE session_id = ?1 AND output_of = ?2 AND output_from = ?3 AND seq BETWEEN ?4 AND ?5 ORDER BY seq"
        ))?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            let data = row.get_ref(0)?.as_str()?;
            let piece = Fields::parse(data).ok().and_then(|data| data.text("delta"));
            self.text.push_str(&piece.unwrap_or_default());
            // Now and then, so that a long output is not cut anew for each of its pieces.
            if self.text.len() > 8 * OUTPUT_UNITS_MAX {
                self.cut();
            }
        }
        self.seq = seq;
        Ok(())
    }

    fn cut(&mut self) {
        if text::utf16_len(&self.text) > OUTPUT_UNITS_MAX {
            self.text = text::tail(&self.text, OUTPUT_UNITS_MAX).to_owned();
            self.is_cut = true;
        }
    }

    /// The output so far, its end where it is long.
    fn shown(&self) -> String {
        if self.is_cut || text::utf16_len(&self.text) > OUTPUT_UNITS_MAX {
            return format!("{OUTPUT_CUT}{}", text::tail(&self.text, OUTPUT_UNITS_MAX));
        }
        self.text.clone()
    }
}

/// The data of a piece of output, with the output so far in the place of the piece.
fn with_output(row: &FeedRow, output: &str) -> rusqlite::Result<String> {
    let data = Fields::parse(&row.data).map_err(|error| damaged(10, error))?;
    let kept = ObjectText::new().fields(&data, &["tool_name", "tool_input", "tool_use_id"]);
    Ok(kept.text("delta", output).finish())
}
