//! The append: drafted by the copy, sent under the sequences that the draft is made for, and read back where nobody knows.
//!
//! Invariants: what is sent again is the very same message under the same expectation, so it is stored once at the most. An error that
//! says what the log has was read in a copy that has all of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runledger_events::Position;
use runledger_store::{AppendError, CopiedLog, Draft, DraftedEvent, Receipt, StorageError, StreamAppend};

use crate::copier::{APART, Progress};
use crate::engine::Engine;
use crate::publish::{Outcome, Outgoing, publish};
use crate::subject::subject_of;

/// How long is waited before what the servers are busy with is sent again: it doubles each time, up to the second one.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);
/// How long is waited where nobody leads the stream.
const PAUSE_WITHOUT_LEADER: Duration = Duration::from_millis(100);

/// How long messages may be under way before they are sent again.
const UNDER_WAY: Duration = Duration::from_secs(3);
const UNDER_WAY_MIN: Duration = Duration::from_millis(100);
/// Bytes that the headers of a message take, at the most.
const HEADERS_BYTES_MAX: usize = 512;
/// What holds after an append whose outcome nobody told.
const UNKNOWN: &str =
    "what came of it is not known, and it may be written later; appending the same events again is safe";

/// What came of messages that were sent.
struct Sent {
    outcome: Outcome,
    /// Whether a try before may have stored them.
    may_be_stored: bool,
}

/// How an append is drafted: by what anybody may append, or also what is done to this log.
pub(crate) type DraftBy = fn(&CopiedLog, Vec<StreamAppend>) -> Result<Draft, AppendError>;

/// An append on its way.
struct Append<'a> {
    engine: &'a Engine,
    copy: &'a CopiedLog,
    progress: &'a Progress,
    draft: DraftBy,
    deadline: Instant,
}

/// What a subject has to end at where it is not what the copy has: its last message was deleted by hand.
type Fallen = HashMap<String, u64>;

/// Appends to several streams, all or nothing; it is tried until the deadline, and once where that has passed.
pub(crate) fn append(
    engine: &Engine,
    copy: &CopiedLog,
    progress: &Progress,
    draft: DraftBy,
    appends: &[StreamAppend],
    deadline: Instant,
) -> Result<Vec<Receipt>, AppendError> {
    Append { engine, copy, progress, draft, deadline }.run(appends)
}

impl Append<'_> {
    fn run(&self, appends: &[StreamAppend]) -> Result<Vec<Receipt>, AppendError> {
        // What is drafted by a copy that is known to lack something would be of another story.
        self.progress.go_on(self.deadline).map_err(|detail| self.failed(format!("{detail}; nothing was written")))?;
        let mut is_current = false;
        let mut fallen = Fallen::new();
        // What was sent, and may be stored though nobody said so.
        let mut unheard: Option<Draft> = None;
        let mut pause = PAUSE;
        loop {
            let draft = match (self.draft)(self.copy, appends.to_vec()) {
                // The copy may be behind.
                Err(AppendError::WrongExpectedVersion(_)) if !is_current => {
                    self.refresh()?;
                    is_current = true;
                    continue;
                }
                draft => draft?,
            };
            if draft.events.is_empty() {
                let receipts = draft.receipts(&[]);
                return match &unheard {
                    Some(sent) => self.own(receipts, sent),
                    None => Ok(receipts),
                };
            }
            let Sent { outcome, may_be_stored } = self.send(&draft, &fallen)?;
            match outcome {
                Outcome::Stored(last) => return self.stored(draft, Position(last)),
                Outcome::Known(place) | Outcome::Conflict(place) => {
                    self.look(place)?;
                    if is_current && matches!(outcome, Outcome::Conflict(_)) && draft.tells_of_erasure() {
                        fallen = self.fallen(&draft)?;
                    }
                    if may_be_stored {
                        unheard = Some(draft);
                    }
                }
                Outcome::Refused(detail) if !may_be_stored => return Err(self.refused(detail)),
                Outcome::Refused(detail) => return Err(self.failed(format!("{detail}; {UNKNOWN}")).into()),
                Outcome::Busy | Outcome::Unknown(_) => return Err(self.failed(UNKNOWN.to_owned()).into()),
            }
            is_current = true;
            if Instant::now() + pause >= self.deadline {
                let fate = if unheard.is_some() { UNKNOWN } else { "nothing was written" };
                return Err(self.failed(format!("others are always first; {fate}")).into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Sends a draft until it is known what came of it, or the time is up.
    fn send(&self, draft: &Draft, fallen: &Fallen) -> Result<Sent, AppendError> {
        let messages = self.messages(draft, fallen)?;
        // As the servers name them.
        let subjects: Arc<[String]> = messages.iter().map(|message| format!("\"{}\"", message.subject)).collect();
        let mut pause = PAUSE;
        let mut may_be_stored = false;
        loop {
            let (client, messages) = (self.engine.client().clone(), messages.clone());
            let batch = uuid::Uuid::now_v7().to_string();
            let left = self.deadline.saturating_duration_since(Instant::now()).clamp(UNDER_WAY_MIN, UNDER_WAY);
            let domain = self.engine.address().domain().map(str::to_owned);
            let (denials, subjects) = (self.engine.denials(), subjects.clone());
            let outcome = self.engine.wait(async move {
                tokio::select! {
                    outcome = publish(client, messages, domain, batch, left) => outcome,
                    subject = denials.come(&subjects) => Outcome::Refused(format!(
                        "you may not publish to {subject}; NATS_USER and NATS_PASSWORD say who you are"
                    )),
                }
            });
            let outcome = outcome.unwrap_or_else(|| Outcome::Unknown("the connection broke".to_owned()));
            let (detail, pause) = match outcome {
                Outcome::Busy => {
                    pause = (pause * 2).min(PAUSE_MAX);
                    ("the servers are busy with others".to_owned(), pause)
                }
                Outcome::Unknown(detail) => {
                    may_be_stored = true;
                    (detail, PAUSE_WITHOUT_LEADER)
                }
                outcome => return Ok(Sent { outcome, may_be_stored }),
            };
            if Instant::now() + pause >= self.deadline {
                let fate = if may_be_stored { UNKNOWN } else { "nothing was written" };
                return Err(self.failed(format!("{detail}; {fate}")).into());
            }
            std::thread::sleep(pause);
        }
    }

    /// Where the last message of a subject is gone from the servers, what it ends at there. A redaction alone goes on from that: it tells
    /// of what is gone, and what it appends is the last one then.
    fn fallen(&self, draft: &Draft) -> Result<Fallen, AppendError> {
        let mut fallen = Fallen::new();
        for event in &draft.events {
            let subject = subject_of(self.engine.address().name(), &event.stream);
            let after = event.after.filter(|after| *after > Position::START);
            let Some(after) = after else {
                continue;
            };
            let failed = |detail: String| self.failed(format!("{detail}; nothing was written"));
            if !self.engine.has_message(after.0).map_err(failed)? {
                let last = self.engine.last_of(&subject).map_err(failed)?;
                fallen.insert(subject, last);
            }
        }
        Ok(fallen)
    }

    fn messages(&self, draft: &Draft, fallen: &Fallen) -> Result<Vec<Outgoing>, AppendError> {
        let max = self.engine.message_bytes_max();
        let name = self.engine.address().name();
        let only_at = draft.only_at().map(|head| head.0);
        // Somebody else's message may be the last one of a subject.
        let subjects: Vec<String> = draft.events.iter().map(|event| subject_of(name, &event.stream)).collect();
        let strays = self.copy.last_strays(&subjects)?;
        let message = |(index, (event, subject)): (usize, (&DraftedEvent, String))| {
            let bytes = event.line.len() + HEADERS_BYTES_MAX;
            if bytes > max {
                let detail =
                    format!("an event has {bytes} bytes as a message, and the server takes {max} (`max_payload`)");
                return Err(self.refused(detail));
            }
            let stray = strays.get(&subject).copied().unwrap_or_default();
            let after = |position: Position| fallen.get(&subject).copied().unwrap_or(position.max(stray).0);
            Ok(Outgoing {
                id: message_id(event),
                after: event.after.map(after),
                subject,
                after_all: only_at.filter(|_| index == 0),
                payload: event.line.clone().into_bytes(),
            })
        };
        draft.events.iter().zip(subjects).enumerate().map(message).collect()
    }

    /// The receipts of what is stored, its last event at this position, once it can be read here.
    fn stored(&self, draft: Draft, last: Position) -> Result<Vec<Receipt>, AppendError> {
        let Some(first) = (last.0 + 1).checked_sub(draft.events.len() as u64) else {
            return Err(self.failed(format!("the server says that it is stored at position {last}; {UNKNOWN}")).into());
        };
        let positions: Vec<Position> = (first..=last.0).map(Position).collect();
        let lines: Vec<_> =
            positions.iter().copied().zip(draft.events.iter().map(|event| event.line.as_str())).collect();
        // Where nothing came in between, it need not come back over the network first.
        if self.copy.head()?.next() == Position(first)
            && let Ok(head) = self.copy.take(&lines)
        {
            self.progress.reach(head);
        }
        let written =
            |detail| self.failed(format!("it is written, at position {last}, and cannot be read here: {detail}"));
        self.progress.wait_for(last, self.deadline).map_err(written)?;
        // What stands there has to be what was sent: the copy may have gone apart from the stream.
        if !self.copy.has_any(last, &draft.events)? {
            let detail = format!("position {last} is another event in this machine's copy: {APART}");
            return Err(self.failed(detail).into());
        }
        Ok(draft.receipts(&positions))
    }

    /// Receipts of events that are there, and were sent from here: those that came so are no duplicates.
    fn own(&self, receipts: Vec<Receipt>, sent: &Draft) -> Result<Vec<Receipt>, AppendError> {
        let mut own = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            let is_own = self.copy.has_any(receipt.position, &sent.events)?;
            own.push(Receipt { is_duplicate: receipt.is_duplicate && !is_own, ..receipt });
        }
        Ok(own)
    }

    /// Brings the copy to what an answer told of, or to where the leader is.
    fn look(&self, place: Option<u64>) -> Result<(), AppendError> {
        match place {
            Some(place) => self.wait_for(Position(place)),
            None => self.refresh(),
        }
    }

    fn refresh(&self) -> Result<(), AppendError> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now()).max(UNDER_WAY_MIN);
            let detail = match self.engine.last_sequence_within(left) {
                Ok(last) => return self.wait_for(Position(last)),
                Err(detail) => detail,
            };
            if Instant::now() + PAUSE_WITHOUT_LEADER >= self.deadline {
                let fate = "nothing was written by this; see that the servers run";
                return Err(self.failed(format!("the stream's head is not known ({detail}); {fate}")).into());
            }
            std::thread::sleep(PAUSE_WITHOUT_LEADER);
        }
    }

    fn wait_for(&self, position: Position) -> Result<(), AppendError> {
        self.progress.wait_for(position, self.deadline).map_err(|detail| self.failed(detail).into())
    }

    fn refused(&self, detail: String) -> AppendError {
        AppendError::Refused { address: self.engine.address().to_string(), detail }
    }

    fn failed(&self, detail: String) -> StorageError {
        self.engine.failed(detail)
    }
}

/// Under which the servers know an event again: an id is unique in its stream alone, and may hold what a header cannot.
fn message_id(event: &DraftedEvent) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(event.stream.as_str().len() as u64).to_le_bytes());
    hasher.update(event.stream.as_str().as_bytes());
    hasher.update(event.id.as_str().as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}
