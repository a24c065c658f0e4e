//! `redact`: erases what events say, in the log and in everything that is made of it.

use clap::Args;
use runledger_events::{CodecError, EventId, Position, RecordedEvent, SessionId, StreamName};
use runledger_projections::{ParkedStream, Projections, Queries, Run, RunFilter, RunMatch};
use runledger_store::{Erase, EventFilter, EventLog, LogReader, Read, Redacted, StorageError, Unreadable};
use runledger_store_jetstream::JetStreamLog;
use runledger_workflow::current_user;
use serde::Serialize;

use crate::commands::rebuild_projections::bar_of;
use crate::exit_code::{Exit, No, Usage};
use crate::ledger::{LedgerArg, clear_log};
use crate::output::{Output, message};
use crate::render;
use crate::spools::Spools;

/// Erase what events say, from the log and from the read models
///
/// Content and salt of the events are erased, and the read models built anew without them; an event says who had that done,
/// when and why. Positions, digests, the chain and facts stay, and verify. Facts are kinds, times, names, figures - and of
/// questions, decisions and ends of runs a call's pattern and the reason in words, which docs/events.md lists. Both files are
/// written anew, which takes as much space again for a while; who wants to append waits, hooks spool.
///
/// What is told in other events too (a call, its permission request and its transcript) has to be named too, or the whole
/// session. Copies that somebody made - backups, exports, trackers, the harness's own transcripts - are not touched.
///
/// Of a ledger on NATS every machine's copy erases it when it follows, and the servers delete the messages where the user may
/// (NATS_USER); their own logs keep them for some minutes longer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  runledger redact --event 4711 --reason 'a password in the output'
  runledger redact --session 0199… --reason 'the customer asked for it'

Exit status: 0 when no content of it is left in the ledger's files; 1 when there is no such event or session, when a run of it may
go on (cancel it first: its rules stand in what would be erased), or when something is left, because others read all the while, for
want of room, or because the user may not delete from the servers: the same command again, or `doctor`, clears it")]
pub(crate) struct Redact {
    /// This event, by its position or its id, position:N where it could be either; several times for several
    #[arg(long, value_name = "POSITION|ID", required_unless_present = "session", conflicts_with = "session")]
    event: Vec<String>,
    /// Every event of this ledger session, its runs and questions included
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// Why: it stands in the log from now on
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Serialize)]
struct RedactObject {
    /// Events whose content is gone now, and was there before.
    events: u64,
    /// Events whose content was gone before, and of which no event told.
    untold: u64,
    /// Where words stay, in what is never erased of an event: a call's pattern, a reason, an error.
    facts_with_words: Vec<Position>,
    /// The event that says so; none where nothing was left to erase.
    position: Option<Position>,
    /// Whether nothing is left in the log's files here.
    log_cleared: bool,
    /// Whether nothing is left in the read models' files here.
    projections_cleared: bool,
    /// Of a ledger on NATS: how many messages that were erased are still on the servers; null where they do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_on_servers: Option<Option<usize>>,
}

impl Redact {
    pub(crate) fn run(&self, ledger: &LedgerArg, output: &mut Output) -> anyhow::Result<Exit> {
        if self.reason.trim().is_empty() {
            return Err(Usage("the reason is empty; it is all that will be left to tell".to_owned()).into());
        }
        // A ledger that is missing is not made; what hooks have spooled is taken in first, as it may be of the session.
        drop(ledger.open_for_reading()?);
        let log = &*ledger.open_for_writing()?;
        let erase = match &self.session {
            Some(session) => Erase::Sessions(vec![session.clone()]),
            None => Erase::Events(self.positions(log)?),
        };
        refuse_open_runs(&ledger.queries_quietly()?, log, &erase)?;
        let before = log.reader()?.last_redaction()?;
        let redacted = erase_in(ledger, log, &erase, &self.reason)?;
        if redacted.receipt.is_none() && self.session.as_ref().is_some_and(|session| !is_known(log, session)) {
            let session = self.session.iter().map(ToString::to_string).collect::<String>();
            return Err(No(format!("there is no session {session}; `runledger sessions` lists them")).into());
        }
        let mut projections = ledger.projections()?;
        projections.catch_up()?;
        note_settled(&mut projections, &redacted, before)?;
        let told = RedactObject {
            events: redacted.events,
            untold: redacted.untold,
            facts_with_words: facts_with_words(&log.reader()?, &redacted.positions)?,
            position: redacted.receipt.map(|receipt| receipt.position),
            log_cleared: redacted.is_settled,
            projections_cleared: projections.clear_erased()?,
            left_on_servers: left_on_servers(ledger),
        };
        if output.is_json() {
            output.json(&told)?;
        } else {
            tell(&told, output)?;
        }
        let (_, rejected) = Spools::of(log.path()).bytes();
        if rejected > 0 {
            message(&format!(
                "{} of what hooks gave could not be made events of and was not looked through: `runledger doctor` says where",
                render::bytes(rejected)
            ));
        }
        let is_cleared = told.log_cleared && told.projections_cleared && is_gone(told.left_on_servers);
        Ok(if is_cleared && rejected == 0 { Exit::Done } else { Exit::No })
    }

    fn positions(&self, log: &dyn EventLog) -> anyhow::Result<Vec<Position>> {
        let reader = log.reader()?;
        let mut positions = Vec::new();
        for named in &self.event {
            if let Some(position) = named.strip_prefix("position:") {
                let position = position.parse().map_err(|_| Usage(format!("{named}: there is no such position")))?;
                positions.push(Position(position));
                continue;
            }
            let found = reader.find(&EventId::new(named.as_str())?, None)?;
            if let Ok(position) = named.parse() {
                // Whoever means the other one would lose this one for good.
                if let Some(other) = found.iter().map(|event| event.position).find(|other| *other != Position(position))
                {
                    return Err(Usage(format!(
                        "{named} is a position, and the id of the event at position {other}; name it as position:{named}, or \
                         position:{other}"
                    ))
                    .into());
                }
                positions.push(Position(position));
                continue;
            }
            match found.as_slice() {
                [] => return Err(No(format!("there is no event {named}; `runledger events` lists them")).into()),
                [one] => positions.push(one.position),
                several => {
                    let at: Vec<String> = several.iter().map(|event| event.position.to_string()).collect();
                    let at = at.join(", ");
                    return Err(Usage(format!("{named} fits events at positions {at}; name one of these")).into());
                }
            }
        }
        Ok(positions)
    }
}

/// Erases, and shows how far servers are with it: they delete some hundred messages a second.
pub(crate) fn erase_in(
    ledger: &LedgerArg,
    log: &dyn EventLog,
    erase: &Erase,
    reason: &str,
) -> anyhow::Result<Redacted> {
    Ok(match ledger.nats() {
        Some(log) => with_bar(|tell| log.redact_and_tell(erase, reason, &current_user(), tell))?,
        None => log.redact(erase, reason, &current_user())?,
    })
}

/// Has servers delete what was erased, where they have it, and shows how far they are.
pub(crate) fn delete_on(log: &JetStreamLog) -> Result<(), StorageError> {
    with_bar(|tell| log.delete_erased(tell))
}

fn with_bar<T>(delete: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
    let bar = bar_of("delete", "messages", 0);
    let done = delete(&mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    done
}

/// Where facts keep words of what was erased.
fn facts_with_words(reader: &LogReader, positions: &[Position]) -> anyhow::Result<Vec<Position>> {
    let mut found = Vec::new();
    for run in positions.chunk_by(|one, next| one.next() == *next) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        let mut after = Position(first.0.saturating_sub(1));
        while after < *last {
            let batch = reader.read_readable(&EventFilter::default(), after, *last, 1024, Read::Facts)?;
            found.extend(batch.events.iter().filter(|event| event.facts.may_hold_words()).map(|event| event.position));
            after = batch.scanned_to;
        }
    }
    Ok(found)
}

/// Rules of a run stand in its first event: without it, what they forbid would be let through.
fn refuse_open_runs(queries: &Queries, log: &dyn EventLog, erase: &Erase) -> anyhow::Result<()> {
    let parked = queries.parked()?;
    // Of a run that cannot be read nobody can say that it is over, nor end it; it drives nothing either.
    // Of one that a newer release goes on with somebody can.
    let reader = log.reader()?;
    let is_given_up = |parked: &ParkedStream| {
        let before = Position(parked.position.0.saturating_sub(1));
        let found = reader.read_readable(&EventFilter::default(), before, parked.position, 1, Read::All);
        let is_newer = |unreadable: &Unreadable| matches!(unreadable.source, CodecError::Newer { .. });
        !found.is_ok_and(|batch| batch.unreadable.iter().any(is_newer))
    };
    let is_open = |run: &Run| {
        let stream = StreamName::run(&run.id);
        run.ended_at.is_none() && !parked.iter().any(|parked| parked.stream == stream && is_given_up(parked))
    };
    let open = match erase {
        Erase::Sessions(sessions) => {
            let mut runs = Vec::new();
            for session in sessions {
                runs.extend(queries.runs(&RunFilter { session: Some(session.clone()), ..RunFilter::default() })?);
            }
            runs.into_iter().find(is_open)
        }
        Erase::Events(positions) => {
            let mut open = None;
            for position in positions {
                let before = Position(position.0.saturating_sub(1));
                let found = reader.read_readable(&EventFilter::default(), before, *position, 1, Read::Facts)?;
                let of_run = |event: &RecordedEvent| event.stream.run_id().or_else(|| event.metadata.run_id.clone());
                if let Some(run_id) = found.events.first().and_then(of_run)
                    && let RunMatch::One(run, _) = queries.run(run_id.as_str())?
                    && is_open(&run)
                {
                    open.get_or_insert(*run);
                }
            }
            open
        }
    };
    match open {
        None => Ok(()),
        Some(run) => Err(No(format!(
            "run {} is not over, and its rules and prompts are among it; `runledger cancel {}` ends it",
            run.id, run.id
        ))
        .into()),
    }
}

/// Keeps in mind how far the log's files were cleared with an erasure: up to it, or to the last one before where nothing was
/// left to erase. What others erase meanwhile is theirs to clear.
pub(crate) fn note_settled(
    projections: &mut Projections,
    redacted: &Redacted,
    before: Option<Position>,
) -> anyhow::Result<()> {
    let up_to = redacted.receipt.as_ref().map(|receipt| receipt.position).or(before);
    if let Some(up_to) = up_to.filter(|_| redacted.is_settled) {
        projections.note_log_cleared(up_to)?;
    }
    Ok(())
}

/// Clears all files of a ledger of what was erased before, where that was interrupted; false where something may be left.
pub(crate) fn clear(ledger: &LedgerArg) -> anyhow::Result<bool> {
    let mut projections = ledger.projections()?;
    projections.catch_up()?;
    if !projections.log_is_cleared()? {
        clear_log(&mut projections, &*ledger.open_for_writing()?)?;
    }
    // The read models' file too, whatever became of the log's.
    let are_cleared = projections.clear_erased()?;
    Ok(are_cleared && projections.log_is_cleared()?)
}

/// Whether the log has an event of the session at all.
fn is_known(log: &dyn EventLog, session: &SessionId) -> bool {
    let filter = EventFilter { session: Some(session.clone()), ..EventFilter::default() };
    let of_session = |reader: runledger_store::LogReader| {
        let head = reader.head().ok()?.position;
        reader.read_readable(&filter, Position::START, head, 1, Read::Facts).ok()
    };
    log.reader().ok().and_then(of_session).is_some_and(|batch| batch.events.len() + batch.unreadable.len() > 0)
}

fn events(count: u64) -> String {
    if count == 1 { "1 event".to_owned() } else { format!("{} events", render::count(count)) }
}

/// So many messages of a stream, in words.
pub(crate) fn messages(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{} messages", render::count(count as u64)) }
}

fn tell(told: &RedactObject, output: &mut Output) -> anyhow::Result<()> {
    match told.position {
        Some(position) => {
            let erased = match (told.events, told.untold) {
                (0, untold) => format!("what {} said was gone already, untold", events(untold)),
                (erased, 0) => format!("erased what {} said", events(erased)),
                (erased, untold) => {
                    format!(
                        "erased what {} said; of {} more it was gone already, untold",
                        events(erased),
                        events(untold)
                    )
                }
            };
            output.line(&format!("{erased}; position {position} tells who and why"))?;
        }
        None => output.line("nothing is left to erase")?,
    }
    if let [first, ..] = told.facts_with_words.as_slice() {
        let shown: Vec<String> = told.facts_with_words.iter().take(5).map(ToString::to_string).collect();
        let more = if told.facts_with_words.len() > shown.len() { ", …" } else { "" };
        message(&format!(
            "what is never erased of an event keeps words at position {}{more}: a call's pattern, a reason or an error; \
             `runledger events --after {}` shows them",
            shown.join(", "),
            first.0.saturating_sub(1)
        ));
    }
    for (is_cleared, file) in [(told.log_cleared, "the log"), (told.projections_cleared, "the read models")] {
        if !is_cleared {
            message(&format!(
                "somebody reads {file}, or there is no room: its files still have the text; run the same command again"
            ));
        }
    }
    if let Some(left) = told.left_on_servers {
        tell_left(left);
    }
    Ok(())
}

/// Of a ledger on NATS, how many messages that were erased are still on the servers; nothing where they do not say.
pub(crate) fn left_on_servers(ledger: &LedgerArg) -> Option<Option<usize>> {
    let log = ledger.nats()?;
    Some(log.erasures().ok().map(|erasures| erasures.left.len()))
}

/// Whether no server has anything of what was erased, where there are servers.
pub(crate) fn is_gone(left: Option<Option<usize>>) -> bool {
    left.is_none_or(|left| left == Some(0))
}

/// Says what is left on the servers, and how it goes.
pub(crate) fn tell_left(left: Option<usize>) {
    let left = match left {
        Some(0) => return,
        Some(left) => messages(left),
        None => "how much is not known".to_owned(),
    };
    message(&format!(
        "erased here, and still on the servers: {left}; `runledger doctor`, run as a user who may delete (NATS_USER), has them \
         deleted"
    ));
}
