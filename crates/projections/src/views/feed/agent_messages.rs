//! AgentMessageStream: messages that stream in pieces, messages said twice, and summaries of reasoning as they grow.

use serde::{Deserialize, Serialize};

use super::memory::{Memory, Seam};
use crate::error::ProjectionError;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Speaker {
    pub(super) actor_id: String,
    /// `root` or `subagent`.
    pub(super) scope: String,
}

/// A message of which pieces have come.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) text: String,
    /// Who spoke when it began.
    pub(super) speaker: Speaker,
}

/// What is known of such a message. Its pieces are values of their own, so that each costs what the first did.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Begun {
    speaker: Speaker,
    order: u64,
    pieces: u64,
}

/// Pieces without an item's name are of one message.
const UNNAMED: &str = "";

/// Adds a piece; `order` tells which message began first.
pub(super) fn add_piece(
    memory: &mut Memory<'_>,
    item_id: Option<&str>,
    piece: &str,
    speaker: &Speaker,
    order: u64,
) -> Result<(), ProjectionError> {
    if piece.is_empty() {
        return Ok(());
    }
    let key = item_key(item_id);
    let begun: Option<Begun> = memory.get(Seam::Pending, &key)?;
    let mut begun = begun.unwrap_or_else(|| Begun { speaker: speaker.clone(), order, pieces: 0 });
    memory.put(Seam::PendingPiece, &piece_key(&key, begun.pieces), &piece)?;
    begun.pieces += 1;
    memory.put(Seam::Pending, &key, &begun)
}

/// Takes the message of this item away.
pub(super) fn take(memory: &mut Memory<'_>, item_id: Option<&str>) -> Result<Option<Pending>, ProjectionError> {
    let key = item_key(item_id);
    let Some(begun) = memory.get::<Begun>(Seam::Pending, &key)? else {
        return Ok(None);
    };
    memory.remove(Seam::Pending, &key);
    collect(memory, &key, begun).map(Some)
}

/// Takes all away, in the order in which they began.
pub(super) fn take_all(memory: &mut Memory<'_>) -> Result<Vec<Pending>, ProjectionError> {
    let mut all: Vec<(String, Begun)> = memory.all(Seam::Pending)?;
    all.sort_by_key(|(_, begun)| begun.order);
    let messages = all.into_iter().map(|(key, begun)| collect(memory, &key, begun)).collect();
    forget_pieces(memory);
    messages
}

/// Puts the pieces of a message together, and forgets them.
fn collect(memory: &mut Memory<'_>, key: &str, begun: Begun) -> Result<Pending, ProjectionError> {
    let mut text = String::new();
    for index in 0..begun.pieces {
        let key = piece_key(key, index);
        text.push_str(&memory.get::<String>(Seam::PendingPiece, &key)?.unwrap_or_default());
        memory.remove(Seam::PendingPiece, &key);
    }
    Ok(Pending { text, speaker: begun.speaker })
}

/// Forgets what streams.
pub(super) fn forget_pieces(memory: &mut Memory<'_>) {
    memory.clear(Seam::Pending);
    memory.clear(Seam::PendingPiece);
}

/// Whether this speaker's last message in the run was the same.
pub(super) fn said_last(memory: &mut Memory<'_>, speaker: &Speaker, digest: &str) -> Result<bool, ProjectionError> {
    Ok(memory.get::<String>(Seam::LastMessage, &speaker_key(speaker))?.is_some_and(|last| last == digest))
}

/// Notes what this speaker said last.
pub(super) fn say(memory: &mut Memory<'_>, speaker: &Speaker, digest: &str) -> Result<(), ProjectionError> {
    memory.put(Seam::LastMessage, &speaker_key(speaker), &digest)
}

/// A summary of reasoning with this piece behind it.
pub(super) fn reason(
    memory: &mut Memory<'_>,
    item_id: Option<&str>,
    index: &str,
    piece: &str,
) -> Result<String, ProjectionError> {
    let key = format!("{}\n{index}", item_id.unwrap_or_default());
    let mut summary: String = memory.get(Seam::Reasoning, &key)?.unwrap_or_default();
    summary.push_str(piece);
    memory.put(Seam::Reasoning, &key, &summary)?;
    Ok(summary)
}

/// A new run begins. What streams goes on: a prompt may come while a message does.
pub(super) fn reset(memory: &mut Memory<'_>) {
    memory.clear(Seam::LastMessage);
    memory.clear(Seam::Reasoning);
}

/// Named items never share the place of the unnamed one.
fn item_key(item_id: Option<&str>) -> String {
    item_id.map_or_else(|| UNNAMED.to_owned(), |id| format!("item {id}"))
}

fn piece_key(item_key: &str, index: u64) -> String {
    format!("{item_key}\n{index}")
}

fn speaker_key(speaker: &Speaker) -> String {
    format!("{}\n{}", speaker.actor_id, speaker.scope)
}
