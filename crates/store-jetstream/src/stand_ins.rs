//! What stands in for messages that were erased on the servers before this machine copied them: told by later events, by whom they
//! were erased.
//!
//! Only which positions an event has stand-ins for is kept of all of them, and the stand-ins of the last few: there may be many more
//! than memory has room for.

use std::collections::{HashMap, VecDeque};

use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use runledger_events::{LogId, Position, StreamName};
use runledger_store::stand_ins;

use crate::subject::subject_of;

/// Events whose stand-ins are kept.
const KEPT: usize = 32;

/// The stand-ins of a ledger, as far as they were looked for.
#[derive(Debug)]
pub(crate) struct StandIns {
    subject: String,
    log_id: LogId,
    /// Which event has the stand-in for a position: the first that was not refused.
    told_at: HashMap<Position, u64>,
    /// Behind which event the stand-in for a position has to be told, since that one's was none.
    refused: HashMap<Position, u64>,
    /// How far events were looked through.
    looked_to: u64,
    kept: VecDeque<(u64, HashMap<Position, String>)>,
}

impl StandIns {
    pub(crate) fn new(name: &str, log_id: LogId) -> Self {
        let subject = subject_of(name, &StreamName::redactions());
        Self { subject, log_id, told_at: HashMap::new(), refused: HashMap::new(), looked_to: 0, kept: VecDeque::new() }
    }

    /// The stand-in for a position, if there is one.
    pub(crate) async fn find(&mut self, stream: &Stream<()>, position: Position) -> Result<Option<String>, String> {
        // It is told of behind it.
        self.looked_to = self.looked_to.max(position.0);
        while !self.told_at.contains_key(&position) {
            let Some((sequence, told)) = self.told_from(stream, self.looked_to + 1).await? else {
                return Ok(None);
            };
            self.looked_to = sequence;
            for position in
                told.keys().filter(|position| self.refused.get(position).is_none_or(|last| *last < sequence))
            {
                self.told_at.entry(*position).or_insert(sequence);
            }
            self.keep(sequence, told);
        }
        let Some(sequence) = self.told_at.get(&position).copied() else {
            return Ok(None);
        };
        if !self.kept.iter().any(|(kept, _)| *kept == sequence)
            && let Some((found, told)) = self.told_from(stream, sequence).await?
        {
            self.keep(found, told);
        }
        let of_event = self.kept.iter().find(|(kept, _)| *kept == sequence);
        Ok(of_event.and_then(|(_, told)| told.get(&position)).cloned())
    }

    /// What was found for a position does not follow on what stands before it: the next one told is to be found.
    pub(crate) fn refuse(&mut self, position: Position) {
        if let Some(sequence) = self.told_at.remove(&position) {
            self.refused.insert(position, sequence);
            // What was told behind it may have been passed already.
            self.looked_to = sequence;
        }
    }

    fn keep(&mut self, sequence: u64, told: HashMap<Position, String>) {
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((sequence, told));
    }

    /// What the first event from a sequence on tells that tells of an erasure, and its sequence.
    async fn told_from(
        &self,
        stream: &Stream<()>,
        sequence: u64,
    ) -> Result<Option<(u64, HashMap<Position, String>)>, String> {
        let found = match stream.get_first_raw_message_by_subject(&self.subject, sequence).await {
            Ok(found) => found,
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let line = std::str::from_utf8(&found.payload).unwrap_or_default();
        let told = stand_ins(line, &self.log_id).into_iter().filter(|(position, _)| position.0 < found.sequence);
        Ok(Some((found.sequence, told.collect())))
    }
}
