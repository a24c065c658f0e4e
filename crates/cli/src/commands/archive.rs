//! `archive`: copies closed sessions to another ledger, and erases here what they said.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use runledger_events::{Position, RequestStatus, SessionId, TimestampMs};
use runledger_projections::{Queries, RequestFilter, RunFilter, Session};
use runledger_store::{
    Erase, EventLog, ExpectedVersion, FileId, LogReader, SqliteLog, StreamAppend, new_event_from_exported,
};
use serde::{Deserialize, Serialize};

use crate::commands::redact::{clear, delete_on, erase_in, is_gone, left_on_servers, note_settled, tell_left};
use crate::commands::verify::{check_log, tell as tell_check};
use crate::exit_code::{Exit, No, Usage};
use crate::ledger::{LedgerArg, refuse_address};
use crate::output::{Output, message};
use crate::render;

/// Events in one transaction of the copy.
const BATCH: usize = 500;

/// Copy closed sessions to another ledger, and erase here what they said
///
/// A session is closed when its last event is older than the day, none of its runs goes on, and nobody is asked anything. Without
/// --apply it only says what would go. With it, the sessions are copied, both ledgers are checked, and only then is their content
/// erased here, as `redact` does it: rows stay, so positions, versions, digests and figures hold.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger archive --before 2026-01-01 --to archive-2025.db
  runledger archive --before 2026-01-01 --to archive-2025.db --apply
  runledger --db archive-2025.db sessions

Exit status: 0 when it is done, or said; 1 when a ledger is not right, or something of the text is left: nothing is
erased before the copy is there, and the same command again goes on")]
pub(crate) struct Archive {
    /// Sessions whose last event is from before this day (UTC)
    #[arg(long, value_name = "YYYY-MM-DD")]
    before: String,
    /// The other ledger; made where it is missing
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Do it
    #[arg(long)]
    apply: bool,
}

/// One session that goes, or would.
#[derive(Serialize)]
struct ArchivedObject<'a> {
    session_id: &'a SessionId,
    events: u64,
    last_at: TimestampMs,
    is_archived: bool,
}

impl Archive {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        let before = day(&self.before)?;
        refuse_address(&self.to, "archive into one, and `runledger --db FILE push ADDRESS` copies that to servers")?;
        let queries = ledger.queries()?;
        let reader = ledger.open_for_reading()?;
        let itself = || Usage(format!("{}: this is the ledger itself", self.to.display()));
        if FileId::of(reader.path()) == FileId::of(&self.to) {
            return Err(itself().into());
        }
        let sessions = with_content(&reader, closed(&queries, before)?)?;
        if self.apply && sessions.is_empty() {
            let is_cleared = ledger.projections()?.log_is_cleared()?;
            if !is_cleared || !is_gone(left_on_servers(ledger)) {
                if let Some(Err(error)) = ledger.nats().map(delete_on) {
                    message(&render::plain(&error.to_string()));
                }
                return finish(ledger);
            }
        }
        if !self.apply || sessions.is_empty() {
            tell(&sessions, false, output)?;
            if !output.is_json() {
                let words = match sessions.len() {
                    0 => "no closed session from before that day has anything left to archive".to_owned(),
                    count => format!("{count} would go to {}; --apply does it", self.to.display()),
                };
                message(&render::plain(&words));
            }
            return Ok(Exit::Done);
        }
        let copy = SqliteLog::open(&self.to)?;
        if FileId::of(reader.path()) == FileId::of(&self.to) {
            return Err(itself().into());
        }
        // What comes to a session from now on is neither copied nor erased.
        let mut copied = Vec::new();
        for session in &sessions {
            copied.extend(copy_session(&reader, &copy, &session.id)?);
        }
        for (name, log) in [("the archive", &copy.reader()?), ("the ledger", &reader)] {
            let wrong: Vec<_> = check_log(log, Position::START)?.into_iter().filter(|check| !check.ok).collect();
            if !wrong.is_empty() {
                wrong.into_iter().try_for_each(|check| tell_check(check, output))?;
                message(&format!("{name} is not right: nothing was erased"));
                return Ok(Exit::No);
            }
        }
        let (log, reason) = (ledger.open_for_writing()?, format!("archived in log {}", copy.log_id()));
        let before = reader.last_redaction()?;
        let redacted = erase_in(ledger, &*log, &Erase::Events(copied), &reason)?;
        tell(&sessions, true, output)?;
        note_settled(&mut ledger.projections()?, &redacted, before)?;
        finish(ledger)
    }
}

/// Clears the files of what was erased.
fn finish(ledger: &LedgerArg) -> anyhow::Result<Exit> {
    let is_cleared = clear(ledger).context("clearing the files of what was archived")?;
    let left = left_on_servers(ledger);
    if !is_gone(left) {
        left.into_iter().for_each(tell_left);
        return Ok(Exit::No);
    }
    if is_cleared {
        return Ok(Exit::Done);
    }
    message("somebody reads the ledger all the while: the same command again, or `doctor`, clears what is left of it");
    Ok(Exit::No)
}

/// The day's beginning.
fn day(text: &str) -> anyhow::Result<TimestampMs> {
    let date: Date = text.parse().map_err(|_| Usage(format!("--before {text}: this is no day; write 2026-01-31")))?;
    let midnight = date.to_zoned(TimeZone::UTC).map_err(|error| Usage(format!("--before {text}: {error}")))?;
    Ok(TimestampMs(midnight.timestamp().as_millisecond()))
}

/// Sessions that nothing happens in any more, the oldest first.
fn closed(queries: &Queries, before: TimestampMs) -> anyhow::Result<Vec<Session>> {
    let mut closed = Vec::new();
    for session in queries.sessions()? {
        if session.last_at >= before {
            continue;
        }
        let runs = queries.runs(&RunFilter { session: Some(session.id.clone()), ..RunFilter::default() })?;
        let asked = RequestFilter {
            status: Some(RequestStatus::Pending),
            session: Some(session.id.clone()),
            ..RequestFilter::default()
        };
        // A run that was interrupted may be taken up, and needs its prompt then.
        if runs.iter().all(|run| run.ended_at.is_some()) && queries.permission_requests(&asked)?.is_empty() {
            closed.push(session);
        }
    }
    closed.sort_by_key(|session| session.last_at);
    Ok(closed)
}

/// Those that have something left to archive.
fn with_content(reader: &LogReader, sessions: Vec<Session>) -> anyhow::Result<Vec<Session>> {
    let mut found = Vec::new();
    for session in sessions {
        let mut has_content = false;
        reader.export::<anyhow::Error>(Some(&session.id), true, |line| {
            has_content |= Identity::of(line)?.salt.is_some();
            Ok(())
        })?;
        if has_content {
            found.push(session);
        }
    }
    Ok(found)
}

/// What makes an exported event the same in both ledgers.
#[derive(Deserialize)]
struct Identity {
    position: Position,
    stream: String,
    id: String,
    commitment: Option<String>,
    salt: Option<String>,
}

impl Identity {
    fn of(line: &str) -> anyhow::Result<Self> {
        serde_json::from_str(line).context("an exported event does not read back")
    }
}

/// Copies every event of a session, and sees that each of them is there, with its content; gives their positions here.
fn copy_session(from: &LogReader, to: &dyn EventLog, session: &SessionId) -> anyhow::Result<Vec<Position>> {
    let mut wanted = HashMap::new();
    let (mut waiting, mut positions) = (Vec::new(), Vec::new());
    from.export::<anyhow::Error>(Some(session), true, |line| {
        let Identity { position, stream, id, commitment, salt } = Identity::of(line)?;
        if !stream.starts_with("ledger/") {
            positions.push(position);
        }
        wanted.insert((stream, id), (commitment, salt));
        let (stream, _, event) = new_event_from_exported(line)?;
        waiting.push(StreamAppend { stream, expected: ExpectedVersion::Any, events: vec![event] });
        if waiting.len() >= BATCH {
            to.append_all(std::mem::take(&mut waiting))?;
        }
        Ok(())
    })?;
    if !waiting.is_empty() {
        to.append_all(waiting)?;
    }
    to.reader()?.export::<anyhow::Error>(Some(session), true, |line| {
        let Identity { stream, id, commitment, salt, .. } = Identity::of(line)?;
        // What was erased in either may have been in the other.
        let key = (stream, id);
        if wanted
            .get(&key)
            .is_some_and(|(of_one, its_salt)| *of_one == commitment && (its_salt.is_none() || *its_salt == salt))
        {
            wanted.remove(&key);
        }
        Ok(())
    })?;
    if let Some((stream, id)) = wanted.keys().next() {
        let count = wanted.len();
        bail!(No(format!(
            "session {session}: event {id} of stream {stream} is not in the archive as it is here, nor are {} more; nothing \
             was erased",
            count - 1
        )));
    }
    Ok(positions)
}

fn tell(sessions: &[Session], is_archived: bool, output: &mut Output) -> anyhow::Result<()> {
    if output.is_json() {
        return sessions.iter().try_for_each(|session| {
            let Session { id, events, last_at, .. } = session;
            output.json(&ArchivedObject { session_id: id, events: *events, last_at: *last_at, is_archived })
        });
    }
    let mut table = render::table(&["SESSION", "LAST", "EVENTS", ""], output.is_terminal());
    for session in sessions {
        let last = render::time_in(&table, session.last_at);
        let state = if is_archived { "archived" } else { "would go" };
        table.add_row([render::plain(session.id.as_str()), last, render::count(session.events), state.to_owned()]);
    }
    if sessions.is_empty() {
        return Ok(());
    }
    render::lines(&table, output.is_terminal()).iter().try_for_each(|line| output.line(line))
}
