//! Erasing: told first, with stand-ins, which every copy obeys; then the servers delete the messages, each written over.
//!
//! Invariants: a message is deleted only when an event that tells of it is acknowledged, and never the last one of its subject. What
//! was told and is still on the servers is found by asking them, so it does not matter who stops where.

use std::collections::BTreeSet;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::DeleteMessageErrorKind;
use futures_util::{StreamExt, stream};
use runledger_store::{AppendError, CopiedLog, Erase, EventLog, RedactError, Redacted, StorageError};

use crate::engine::Engine;
use crate::log::JetStreamLog;

/// Bytes of stand-ins that are told in one event, about; less where the servers take smaller messages only.
const BYTES_AT_ONCE: usize = 256 << 10;
/// Messages that are deleted at once.
const DELETED_AT_ONCE: usize = 32;

impl JetStreamLog {
    pub(crate) fn erase(&self, erase: &Erase, reason: &str, by: &str) -> Result<Redacted, RedactError> {
        self.refresh()?;
        let bytes = BYTES_AT_ONCE.min(self.engine().message_bytes_max() / 2);
        let mut done = Redacted { receipt: None, events: 0, untold: 0, positions: Vec::new(), is_settled: true };
        // What comes to a session from now on is not meant, or there would be no end while somebody goes on.
        let up_to = self.copy().head()?;
        while let Some(part) = self.copy().next_erasure(erase, reason, by, up_to, bytes)? {
            match self.append_by(CopiedLog::draft_own, &part.appends) {
                Ok(receipts) => {
                    done.receipt = receipts.into_iter().next();
                    done.events += part.positions.len() as u64 - part.untold;
                    done.untold += part.untold;
                    done.positions.extend(part.positions);
                }
                // Something came behind an event that was the last one.
                Err(AppendError::WrongExpectedVersion(_)) => self.refresh()?,
                Err(error) => return Err(error.into()),
            }
        }
        done.positions.sort_unstable();
        if let Err(error) = self.delete_erased() {
            tracing::warn!(%error, "what was erased is still on the servers");
        }
        done.is_settled = self.settle().unwrap_or_else(|error| {
            tracing::warn!(%error, "the rows are erased, but the copy's file could not be written anew");
            false
        });
        Ok(done)
    }

    /// Has the servers delete what was told to be erased, where they still have it. Who may not delete is refused by them.
    ///
    /// # Errors
    /// [`StorageError::Engine`] with how many are left, and what to do; trying again goes on.
    pub fn delete_erased(&self) -> Result<(), StorageError> {
        let left = self.erasures()?.left;
        if left.is_empty() {
            return Ok(());
        }
        let (context, name) = (self.engine().context().clone(), self.engine().address().name().to_owned());
        let (first, count) = (left[0], left.len());
        let deleted = self.engine().wait(async move {
            let stream = Engine::stream(context, name).await?;
            // One first: who may not is not to ask for all of them.
            delete(&stream, first).await?;
            let deletes = left.into_iter().skip(1).map(|sequence| delete(&stream, sequence));
            let mut deletes = stream::iter(deletes).buffer_unordered(DELETED_AT_ONCE);
            while let Some(deleted) = deletes.next().await {
                deleted?;
            }
            Ok::<_, String>(())
        });
        let deleted = deleted.unwrap_or_else(|| Err("the connection broke".to_owned()));
        deleted.map_err(|detail| {
            let left = self.erasures().map_or(count, |now| now.left.len());
            self.failed(format!(
                "{left} messages that were erased are still on the servers ({detail}); run `runledger doctor` as a user who may \
                 delete (NATS_USER)"
            ))
        })
    }

    /// How what was told to be erased stands against what the servers have.
    ///
    /// # Errors
    /// [`StorageError::Engine`] where the servers do not answer.
    pub fn erasures(&self) -> Result<Erasures, StorageError> {
        let mut told = self.copy().redactions().map_err(|error| self.failed(error.to_string()))?;
        told.sort_unstable();
        let info = self.engine().info_with_deleted().map_err(|detail| self.failed(detail))?;
        let deleted: BTreeSet<u64> = info.state.deleted.unwrap_or_default().into_iter().collect();
        let first = info.state.first_sequence;
        let mut told: Vec<u64> = told.into_iter().flat_map(|(first, last)| first..=last).collect();
        told.dedup();
        let is_told = |sequence: &u64| told.binary_search(sequence).is_ok();
        let untold = (1..first).chain(deleted.range(first..).copied()).filter(|sequence| !is_told(sequence)).collect();
        let is_there = |sequence: &u64| *sequence >= first && !deleted.contains(sequence);
        let left = self.copy().deletable(told.iter().copied().filter(is_there));
        let left = left.map_err(|error| self.failed(error.to_string()))?;
        Ok(Erasures { left, untold })
    }
}

/// How what was told to be erased stands against what the servers have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Erasures {
    /// Sequences of messages that were told to be erased, and are still on the servers.
    pub left: Vec<u64>,
    /// Sequences of messages that are gone, and no event tells of it.
    pub untold: Vec<u64>,
}

async fn delete(stream: &async_nats::jetstream::stream::Stream<()>, sequence: u64) -> Result<(), String> {
    match stream.delete_message(sequence).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            // Somebody else was first.
            DeleteMessageErrorKind::JetStream(said) if said.error_code() == ErrorCode::SEQUENCE_NOT_FOUND => Ok(()),
            DeleteMessageErrorKind::TimedOut => Err("no answer, as for one who may not".to_owned()),
            _ => Err(error.to_string()),
        },
    }
}
