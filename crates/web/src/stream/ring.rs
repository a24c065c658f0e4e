//! The newest events of the log as they are sent, for all who follow it: read once, written once, shared.
//!
//! Invariants: chunks follow on each other without a gap; they hold at most [`RING_BYTES_MAX`] and [`RING_EVENTS_MAX`], the
//! oldest goes first. A chunk that is being sent to somebody lives as long as that takes, and no chunk is longer than
//! [`CHUNK_BYTES`] and one event.

use std::collections::VecDeque;

use axum::body::Bytes;
use runledger_events::Position;
use runledger_store::Batch;

use crate::api::UnreadableEvent;
use crate::objects::EventLine;
use crate::objects::event_line::EVENT_BYTES_MAX;

/// Bytes in the ring, at the most.
pub(crate) const RING_BYTES_MAX: usize = 16 << 20;
/// Events in the ring, at the most.
pub(crate) const RING_EVENTS_MAX: usize = 32 << 10;
/// Bytes after which a chunk takes no other event.
const CHUNK_BYTES: usize = 32 << 10;

/// Events in a row, as they are sent.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    /// Before the first one.
    after: Position,
    /// What was looked through: behind it nothing is known.
    pub(super) to: Position,
    /// Each event's position, and where its text ends.
    ends: Vec<(Position, usize)>,
    text: Bytes,
}

impl Chunk {
    /// What of it is behind a position.
    pub(super) fn behind(&self, after: Position) -> Bytes {
        let skipped = self.ends.partition_point(|(position, _)| *position <= after);
        let begin = skipped.checked_sub(1).and_then(|last| self.ends.get(last)).map_or(0, |(_, end)| *end);
        self.text.slice(begin..)
    }

    /// Events in it.
    pub(super) fn events(&self) -> usize {
        self.ends.len()
    }
}

/// A batch that was read behind a position, in chunks.
pub(super) fn chunks(batch: &Batch, after: Position) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let (mut from, mut text, mut ends) = (after, String::new(), Vec::new());
    let mut unreadable = batch.unreadable.iter().peekable();
    let mut events = batch.events.iter().peekable();
    loop {
        let next = (events.peek().map(|event| event.position), unreadable.peek().map(|one| one.position));
        let position = match next {
            // One whose content alone is damaged is both.
            (Some(event), Some(damaged)) if damaged <= event => damaged,
            (None, Some(damaged)) => damaged,
            (Some(event), _) => event,
            (None, None) => break,
        };
        let event = events.next_if(|event| event.position == position);
        let damaged = unreadable.next_if(|one| one.position == position);
        match (event.map(|event| EventLine::within(event, EVENT_BYTES_MAX)), damaged) {
            (_, Some(damaged)) => frame(&mut text, position, true, &UnreadableEvent::from(damaged)),
            (Some(Ok(line)), None) => frame(&mut text, position, false, &line),
            (Some(Err(error)), None) => {
                frame(
                    &mut text,
                    position,
                    true,
                    &serde_json::json!({ "position": position, "cause": error.to_string() }),
                );
            }
            (None, None) => {}
        }
        ends.push((position, text.len()));
        if text.len() >= CHUNK_BYTES {
            let text = std::mem::take(&mut text).into();
            chunks.push(Chunk { after: from, to: position, ends: std::mem::take(&mut ends), text });
            from = position;
        }
    }
    if from < batch.scanned_to {
        chunks.push(Chunk { after: from, to: batch.scanned_to, ends, text: text.into() });
    }
    chunks
}

/// One event, as server-sent events have it.
fn frame(text: &mut String, position: Position, is_unreadable: bool, line: &impl serde::Serialize) {
    let json = match serde_json::to_string(line) {
        Ok(json) => json,
        Err(error) => {
            // Of texts and numbers alone, JSON can always be made; were it otherwise, it would be told.
            tracing::error!(%error, %position, "an event is told without its words");
            "null".to_owned()
        }
    };
    text.push_str(&format!("id: {position}\n"));
    if is_unreadable {
        text.push_str("event: unreadable\n");
    }
    text.push_str("data: ");
    // Between the words of JSON a line may end; in server-sent events it may not.
    match json.contains(['\n', '\r']) {
        true => text.push_str(&json.replace(['\n', '\r'], " ")),
        false => text.push_str(&json),
    }
    text.push_str("\n\n");
}

/// What follows on a position.
#[derive(Debug)]
pub(super) enum Next {
    /// This.
    Chunk(Chunk),
    /// Something that is not in the ring any more; it begins behind this position.
    Older(Position),
    /// Nothing yet.
    Nothing,
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    events: usize,
    /// The position of the newest chunk's end, also where there is no chunk.
    to: Position,
}

impl Ring {
    /// An empty one, into which goes what comes behind a position.
    pub(super) fn behind(to: Position) -> Self {
        Self { to, ..Self::default() }
    }

    /// Adds what follows on the newest one.
    pub(super) fn push(&mut self, chunk: Chunk) {
        if chunk.after != self.to {
            // A gap would hide events: what was there is given up, and read out of the log by who needs it.
            *self = Self::behind(chunk.after);
        }
        self.to = chunk.to;
        self.bytes += chunk.text.len();
        self.events += chunk.events();
        self.chunks.push_back(chunk);
        while self.bytes > RING_BYTES_MAX || self.events > RING_EVENTS_MAX {
            let Some(oldest) = self.chunks.pop_front() else {
                break;
            };
            self.bytes -= oldest.text.len();
            self.events -= oldest.events();
        }
    }

    /// What follows on a position.
    pub(super) fn next(&self, after: Position) -> Next {
        if after >= self.to {
            return Next::Nothing;
        }
        let begins = self.chunks.front().map_or(self.to, |chunk| chunk.after);
        if after < begins {
            return Next::Older(begins);
        }
        let index = self.chunks.partition_point(|chunk| chunk.to <= after);
        self.chunks.get(index).map_or(Next::Nothing, |chunk| Next::Chunk(chunk.clone()))
    }

    /// Bytes and events in it.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.bytes, self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(after: u64, to: u64, bytes: usize) -> Chunk {
        let count = to - after;
        let each = bytes / usize::try_from(count).unwrap_or(1);
        let ends = (1..=count).map(|number| (Position(after + number), each * usize::try_from(number).unwrap_or(0)));
        let ends: Vec<_> = ends.collect();
        let length = ends.last().map_or(0, |(_, end)| *end);
        Chunk { after: Position(after), to: Position(to), ends, text: Bytes::from(vec![b'x'; length]) }
    }

    #[test]
    fn the_ring_keeps_its_bounds_and_the_newest() {
        let mut ring = Ring::behind(Position(7));
        let mut at = 7;
        for round in 0..2000 {
            let events = 1 + round % 97;
            ring.push(chunk(at, at + events, if round % 3 == 0 { 400 << 10 } else { 900 }));
            at += events;
            let (bytes, events) = ring.size();
            assert!(bytes <= RING_BYTES_MAX && events <= RING_EVENTS_MAX, "{bytes} bytes, {events} events");
            assert!(matches!(ring.next(Position(at)), Next::Nothing));
            assert!(matches!(ring.next(Position(at - 1)), Next::Chunk(found) if found.to == Position(at)));
        }
        let Next::Older(begins) = ring.next(Position(7)) else {
            panic!("the first ones are gone");
        };
        // From there on they follow on each other.
        let mut walked = begins;
        while let Next::Chunk(found) = ring.next(walked) {
            assert_eq!(found.after, walked);
            walked = found.to;
        }
        assert_eq!(walked, Position(at));
    }

    #[test]
    fn what_follows_on_a_position_within_a_chunk_is_the_rest_of_it() {
        let mut ring = Ring::behind(Position(10));
        ring.push(chunk(10, 14, 40));
        let Next::Chunk(found) = ring.next(Position(12)) else {
            panic!("it is there");
        };
        assert_eq!((found.behind(Position(12)).len(), found.behind(Position(10)).len()), (20, 40));
        assert!(found.behind(Position(14)).is_empty());
    }

    #[test]
    fn a_gap_gives_up_what_was_there() {
        let mut ring = Ring::behind(Position(0));
        ring.push(chunk(0, 5, 50));
        ring.push(chunk(9, 12, 30));
        assert!(matches!(ring.next(Position(3)), Next::Older(Position(9))));
        assert_eq!(ring.size(), (30, 3));
    }
}
