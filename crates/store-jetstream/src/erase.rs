//! Erasing: told first, with stand-ins, which every copy obeys; then the servers delete the messages, each written over.
//!
//! Invariants: a message is deleted only when an event that tells of it is acknowledged, and never the last one of its subject. What
//! was told and is still on the servers is found by asking them, so it does not matter who stops where.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::stream::{DeleteMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::{StreamExt, stream};
use runledger_events::Digest;
use runledger_store::{AppendError, CopiedLog, Erase, EventLog, RedactError, Redacted, StorageError};
use serde::Deserialize;

use crate::copier::APART;
use crate::engine::Engine;
use crate::log::JetStreamLog;

/// Bytes of stand-ins that are told in one event, at the most; less where the servers take smaller messages only.
const BYTES_AT_ONCE: usize = 4 << 20;
/// Messages that are deleted before it is told.
const TOLD_AFTER: usize = 256;
/// Messages that are deleted at once.
const DELETED_AT_ONCE: usize = 32;
/// How long the copy may stand still before it is not known what was told.
const CATCH_UP: Duration = Duration::from_secs(5);

impl JetStreamLog {
    /// As [`EventLog::redact`]. `tell` hears how many messages the servers have deleted, and of how many: it may take them a while.
    ///
    /// # Errors
    /// As [`EventLog::redact`].
    pub fn redact_and_tell(
        &self,
        erase: &Erase,
        reason: &str,
        by: &str,
        tell: impl FnMut(usize, usize),
    ) -> Result<Redacted, RedactError> {
        self.refresh()?;
        let bytes = BYTES_AT_ONCE.min(self.engine().message_bytes_max() / 2);
        let mut done = Redacted { receipt: None, events: 0, untold: 0, positions: Vec::new(), is_settled: true };
        // What comes to a session from now on is not meant, or there would be no end while somebody goes on.
        let up_to = self.copy().head()?;
        let mut plan = self.copy().plan_erasure(erase, up_to)?;
        while let Some(part) = self.copy().next_erasure(&mut plan, erase, reason, by, bytes)? {
            match self.append_by(CopiedLog::draft_own, part.appends) {
                Ok(receipts) => {
                    done.receipt = receipts.into_iter().next();
                    done.events += part.positions.len() as u64 - part.untold;
                    done.untold += part.untold;
                    done.positions.extend(part.positions);
                }
                // Something came behind an event that was the last one.
                Err(AppendError::WrongExpectedVersion(_)) => {
                    self.refresh()?;
                    plan = self.copy().plan_erasure(erase, up_to)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        done.positions.sort_unstable();
        if let Err(error) = self.delete_erased(tell) {
            tracing::warn!(%error, "what was erased is still on the servers");
        }
        done.is_settled = self.settle().unwrap_or_else(|error| {
            tracing::warn!(%error, "the rows are erased, but the copy's file could not be written anew");
            false
        });
        Ok(done)
    }

    /// Has the servers delete what was told to be erased, where they still have it: the very events, as the copy has them. Who may not
    /// delete is refused by them. `tell` hears how many are deleted, and of how many.
    ///
    /// # Errors
    /// [`StorageError::Engine`] with why something is left; trying again goes on.
    pub fn delete_erased(&self, mut tell: impl FnMut(usize, usize)) -> Result<(), StorageError> {
        let left = self.erasures()?.left;
        for (number, some) in left.chunks(TOLD_AFTER).enumerate() {
            self.delete(some.to_vec())?;
            tell(number * TOLD_AFTER + some.len(), left.len());
        }
        Ok(())
    }

    fn delete(&self, left: Vec<(u64, Digest)>) -> Result<(), StorageError> {
        let (context, name) = (self.engine().context().clone(), self.engine().address().name().to_owned());
        let (denials, parts) = (self.engine().denials(), ["stream.msg.delete.".to_owned()]);
        let deleted = self.engine().wait(async move {
            tokio::select! {
                deleted = delete_all(context, name, left) => deleted,
                _ = denials.come(&parts) => {
                    Err("you may not delete messages; NATS_USER and NATS_PASSWORD say who you are".to_owned())
                }
            }
        });
        deleted.unwrap_or_else(|| Err("the connection broke".to_owned())).map_err(|detail| self.failed(detail))
    }

    /// How what was told to be erased stands against what the servers have.
    ///
    /// # Errors
    /// [`StorageError::Engine`] where the servers do not answer, or the copy has not all that they have.
    pub fn erasures(&self) -> Result<Erasures, StorageError> {
        // In this order: what is deleted was told of before.
        let info = self.engine().info_with_deleted().map_err(|detail| self.failed(detail))?;
        self.wait_while_moving(info.state.last_sequence, CATCH_UP)?;
        let told = self.copy().redactions().map_err(|error| self.failed(error.to_string()))?;
        let deleted: BTreeSet<u64> = info.state.deleted.unwrap_or_default().into_iter().collect();
        let first = info.state.first_sequence;
        let is_told = |sequence: &u64| {
            let begun = told.partition_point(|(first, _)| first <= sequence);
            begun > 0 && *sequence <= told[begun - 1].1
        };
        let untold = (1..first).chain(deleted.range(first..).copied()).filter(|sequence| !is_told(sequence)).collect();
        let is_there = |sequence: &u64| *sequence >= first && !deleted.contains(sequence);
        let there = told.iter().flat_map(|(first, last)| *first..=*last).filter(is_there);
        let left = self.copy().deletable(there).map_err(|error| self.failed(error.to_string()))?;
        Ok(Erasures { left, untold })
    }
}

/// How what was told to be erased stands against what the servers have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Erasures {
    /// Sequences of messages that were told to be erased, and are still on the servers, with their events' digests.
    pub left: Vec<(u64, Digest)>,
    /// Sequences of messages that are gone, and no event tells of it.
    pub untold: Vec<u64>,
}

/// What of a message says which event it is.
#[derive(Deserialize)]
struct Digested {
    digest: String,
}

async fn delete_all(context: Context, name: String, left: Vec<(u64, Digest)>) -> Result<(), String> {
    let stream = Engine::stream(context, name).await?;
    let deletes = left.into_iter().map(|message| delete(stream.clone(), message));
    let mut deletes = stream::iter(deletes).buffer_unordered(DELETED_AT_ONCE);
    while let Some(deleted) = deletes.next().await {
        deleted?;
    }
    Ok(())
}

/// Has one message deleted, if it is that event: a copy that has gone apart from the stream knows of others.
async fn delete(stream: Stream<()>, (sequence, digest): (u64, Digest)) -> Result<(), String> {
    let found = match stream.get_raw_message(sequence).await {
        Ok(found) => found,
        // Somebody else was first.
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let told = serde_json::from_slice::<Digested>(&found.payload);
    if !told.is_ok_and(|told| told.digest == digest.to_string()) {
        return Err(format!("position {sequence} is another event in this machine's copy: {APART}"));
    }
    match stream.delete_message(sequence).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("position {sequence} was not deleted")),
        Err(error) => match error.kind() {
            DeleteMessageErrorKind::JetStream(said)
                if [ErrorCode::SEQUENCE_NOT_FOUND, ErrorCode::NO_MESSAGE_FOUND].contains(&said.error_code()) =>
            {
                Ok(())
            }
            DeleteMessageErrorKind::TimedOut => Err("nobody answers a request to delete a message".to_owned()),
            _ => Err(error.to_string()),
        },
    }
}
