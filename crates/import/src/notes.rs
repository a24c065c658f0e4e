//! Events that the import itself writes: of the session, its label, its harness sessions, their tokens, other tables.
//!
//! Their ids begin with `import:note:`, and they are no entries of the feed. What can change in the old database has a
//! digest in its id, so a database that was imported, went on and is imported again adds what is new, and the later event
//! counts. Their text depends on the rows alone, to the last character: else the same database would not be the same again.

use runledger_events::{Fields, NOTE_PREFIX, ObjectText, Tokens};
use serde_json::json;

use crate::database::OldDatabase;
use crate::json::fingerprint;
use crate::rows::{AdapterSessionRow, OtherRow};

/// One such event.
pub(crate) struct Note {
    pub(crate) adapter_session_id: Option<String>,
    pub(crate) json: String,
}

impl Note {
    fn new(id: &str, at: i64, kind: &str, adapter_session_id: Option<&str>, data: ObjectText) -> Self {
        let json = ObjectText::new()
            .text("id", id)
            .raw("timestamp", at.to_string().as_str())
            .text("kind", kind)
            .text("sessionId", adapter_session_id)
            .raw("data", data.finish().as_str());
        Self { adapter_session_id: adapter_session_id.map(str::to_owned), json: json.finish() }
    }

    /// With an id that tells this content from any other.
    fn of_content(what: &str, at: i64, kind: &str, adapter_session_id: Option<&str>, data: ObjectText) -> Self {
        let without_id = Self::new("", at, kind, adapter_session_id, data.clone());
        Self::new(&format!("{NOTE_PREFIX}{what}:{}", fingerprint(&without_id.json)), at, kind, adapter_session_id, data)
    }
}

/// What an event says of the table that it comes from.
fn imported(table: &str) -> String {
    ObjectText::new().text("table", table).finish()
}

/// A row in full.
fn row_data(table: &str, row: &str) -> ObjectText {
    ObjectText::new().text("table", table).raw("row", row)
}

/// The kind of the event that says which session was imported.
pub(crate) const SESSION_KIND: &str = "import.session";

/// What tells this session from another one of the same id: it stays the same while the session goes on.
pub(crate) fn session_fingerprint(database: &OldDatabase) -> String {
    let session = &database.session;
    let first = database.runtime_events.first().map(|row| row.payload.as_str());
    fingerprint(&json!([session.id, session.project_dir, session.created_at, first]).to_string())
}

/// The id of the event that says which session was imported.
pub(crate) fn session_event_id(database: &OldDatabase) -> String {
    format!("{NOTE_PREFIX}session:{}", session_fingerprint(database))
}

/// `import.session`: the session as it was made.
pub(crate) fn session(database: &OldDatabase) -> Note {
    let session = &database.session;
    let data = ObjectText::new()
        .text("session_id", session.id.as_str())
        .text("project_dir", session.project_dir.as_str())
        .raw("created_at", session.created_at.to_string().as_str());
    Note::new(&session_event_id(database), session.created_at, SESSION_KIND, None, data)
}

/// `session.label` and `import.summary`: the session as it was left.
pub(crate) fn session_end(database: &OldDatabase) -> Vec<Note> {
    let session = &database.session;
    let at = session.updated_at;
    let mut notes = Vec::new();
    if let Some(label) = session.label.as_deref() {
        let data = ObjectText::new().text("label", label).raw("imported", imported("session").as_str());
        notes.push(Note::of_content("label", at, "session.label", None, data));
    }
    let event_count = session.event_count.map(|count| count.to_string());
    let data = ObjectText::new().raw("updated_at", at.to_string().as_str()).raw("event_count", event_count.as_deref());
    notes.push(Note::of_content("summary", at, "import.summary", None, data));
    notes
}

/// `import.adapter_session`: a harness session's row.
pub(crate) fn adapter_session(row: &AdapterSessionRow) -> Note {
    let data = row_data("adapter_sessions", &row.row);
    Note::of_content("adapter-session", row.started_at, "import.adapter_session", Some(&row.session_id), data)
}

/// `usage.update`: what a harness session cost; none where nothing is known.
///
/// The sums take the place of all that was told before. Where no sum is known the context's figures alone are told, as
/// those of the last step.
pub(crate) fn usage(row: &AdapterSessionRow, at: i64) -> Option<Note> {
    let tokens = tokens(row);
    if tokens.is_unknown() {
        return None;
    }
    let figures = [
        ("input", tokens.input),
        ("output", tokens.output),
        ("cacheRead", tokens.cache_read),
        ("cacheWrite", tokens.cache_write),
        ("total", tokens.total),
        ("contextSize", tokens.context_size),
        ("contextWindowSize", tokens.context_window_size),
    ];
    let known = figures.into_iter().fold(ObjectText::new(), |known, (name, figure)| {
        known.raw(name, figure.map(|figure| figure.to_string()).as_deref())
    });
    let name = if tokens.has_sums() { "usage" } else { "delta" };
    let data =
        ObjectText::new().raw(name, known.finish().as_str()).raw("imported", imported("adapter_sessions").as_str());
    Some(Note::of_content("usage", at, "usage.update", Some(&row.session_id), data))
}

/// The figures of a row; `total` is the sum of those known.
pub(crate) fn tokens(row: &AdapterSessionRow) -> Tokens {
    let [input, output, cache_read, cache_write, context_size, context_window_size] = row.tokens;
    let known: Vec<u64> = [input, output, cache_read, cache_write].into_iter().flatten().collect();
    let total = (!known.is_empty()).then(|| known.iter().fold(0, |sum: u64, figure| sum.saturating_add(*figure)));
    Tokens { input, output, cache_read, cache_write, total, context_size, context_window_size }
}

/// `import.row`: a row of a table that has no events of its own.
pub(crate) fn other(row: &OtherRow, otherwise_at: i64) -> Note {
    let fields = Fields::parse(&row.row).unwrap_or_default();
    let moment = |name: &str| fields.raw(name).and_then(|json| json.parse().ok());
    let at = moment("created_at").or_else(|| moment("started_at")).unwrap_or(otherwise_at);
    Note::of_content("row", at, "import.row", None, row_data(&row.table, &row.row))
}
