//! The pasts that are kept: a slider that is drawn to and fro goes on from one that is near, not from the session's beginning.
//!
//! Invariants: all that are kept have at most [`BYTES_MAX`] bytes of tables together, and are of the [`SESSIONS_MAX`] sessions that
//! were asked for last; those that may have what was erased since are given to nobody.

use std::collections::{BTreeMap, VecDeque};

use runledger_events::{Position, SessionId};
use runledger_projections::AsOf;

/// Bytes of tables that are kept, at the most.
const BYTES_MAX: u64 = 256 << 20;
/// Sessions of which pasts are kept, at the most.
const SESSIONS_MAX: usize = 3;
/// Pasts that are kept of all sessions, at the most.
const PASTS_MAX: usize = 64;
/// Events from one past to the next, where a long way is gone: about 0.2 s.
const STEP_EVENTS_MIN: usize = 10_000;
/// A step is at least such a part of what was gone already, so that the copies of what grows stay few.
const STEP_PART: usize = 8;

/// Events of the last step, about, at the most.
const LAST_EVENTS: u128 = 5_000;

/// Sessions as they were at positions.
pub(crate) struct Pasts {
    bytes_max: u64,
    /// Those that were asked for last are the first.
    sessions: VecDeque<(SessionId, BTreeMap<Position, AsOf>)>,
}

impl Default for Pasts {
    fn default() -> Self {
        Self { bytes_max: BYTES_MAX, sessions: VecDeque::new() }
    }
}

impl Pasts {
    /// Forgets those that know of another last erasure than the log.
    pub(crate) fn forget_erased(&mut self, erased: Option<Position>) {
        self.sessions.iter_mut().for_each(|(_, pasts)| pasts.retain(|_, past| past.erased() == erased));
    }

    /// The past of a session at a position, or the nearest before it.
    pub(crate) fn nearest(&mut self, session: &SessionId, at: Position) -> Option<AsOf> {
        self.of_session(session).range(..=at).next_back().map(|(_, past)| past.clone())
    }

    /// Keeps a past, and for it forgets others: first those that are gone to again with the fewest events for the bytes that
    /// they take, which leaves the rest spaced over their session.
    pub(crate) fn keep(&mut self, past: &AsOf) {
        if past.bytes() > self.bytes_max {
            return;
        }
        self.of_session(past.session()).insert(past.position(), past.clone());
        while self.bytes() > self.bytes_max || self.count() > PASTS_MAX {
            let Some((index, position)) = self.least_worth(past) else {
                return;
            };
            self.sessions[index].1.remove(&position);
        }
    }

    /// What is kept of a session, which is now the one that was asked for last.
    fn of_session(&mut self, session: &SessionId) -> &mut BTreeMap<Position, AsOf> {
        let found = self.sessions.iter().position(|(id, _)| id == session);
        let kept = found.and_then(|index| self.sessions.remove(index));
        self.sessions.push_front(kept.unwrap_or_else(|| (session.clone(), BTreeMap::new())));
        self.sessions.truncate(SESSIONS_MAX);
        &mut self.sessions[0].1
    }

    fn all(&self) -> impl Iterator<Item = &AsOf> {
        self.sessions.iter().flat_map(|(_, pasts)| pasts.values())
    }

    fn bytes(&self) -> u64 {
        self.all().map(AsOf::bytes).sum()
    }

    fn count(&self) -> usize {
        self.all().count()
    }

    /// Where the one stands, but for `newest`, that spares the fewest events for its bytes.
    fn least_worth(&self, newest: &AsOf) -> Option<(usize, Position)> {
        let mut least: Option<(u128, usize, Position)> = None;
        for (index, (session, pasts)) in self.sessions.iter().enumerate() {
            let mut events_before = 0;
            for (position, past) in pasts {
                let spared = past.events().saturating_sub(std::mem::replace(&mut events_before, past.events())) as u128;
                let worth = (spared << 32) / u128::from(past.bytes().max(1));
                let is_newest = session == newest.session() && *position == newest.position();
                // Where two are worth the same, the one whose session was asked for longer ago goes.
                if !is_newest && least.is_none_or(|(least, ..)| worth <= least) {
                    least = Some((worth, index, *position));
                }
            }
        }
        least.map(|(_, index, position)| (index, position))
    }
}

/// How far to go next on the way to a position, from this past or from the session's beginning: up to where, and by how many
/// events at the most. What that comes to is kept.
pub(crate) fn step(from: Option<&AsOf>, at: Position) -> (Position, usize) {
    let Some(past) = from else {
        return (at, STEP_EVENTS_MIN);
    };
    if past.bytes() > BYTES_MAX {
        // Nothing is kept any more from here on.
        return (at, usize::MAX);
    }
    let events_max = STEP_EVENTS_MIN.max(past.events() / STEP_PART);
    let (here, left) = (past.position().0, at.0.saturating_sub(past.position().0));
    // About as many events to a position as there were so far.
    let events = u128::from(left) * past.events() as u128 / u128::from(here.max(1));
    if events > LAST_EVENTS && events <= events_max as u128 {
        // Half of it: whoever goes back in small steps goes on from there.
        return (Position(at.0 - left / 2), events_max);
    }
    (at, events_max)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use runledger_store::LogReader;
    use runledger_testkit::TempLedger;

    use super::*;

    /// A ledger of sessions that have so many prompts each, one session behind the other.
    fn ledger(sessions: &[&str], prompts: u64) -> (TempLedger, LogReader) {
        let ledger = TempLedger::new();
        for session in sessions {
            for number in 1..=prompts {
                let words = "word ".repeat(500);
                let rest = r#""timestamp":1,"sessionId":"a","kind":"user.prompt""#;
                let json = format!(r#"{{"id":"{session}{number}",{rest},"data":{{"prompt":"{words} {number}"}}}}"#);
                ledger.append(&format!("session/{session}"), &json);
            }
        }
        let reader = ledger.log.reader().unwrap();
        (ledger, reader)
    }

    fn past(reader: &LogReader, session: &str, position: u64) -> AsOf {
        AsOf::fold(reader, &session.parse().unwrap(), Position(position)).unwrap().unwrap()
    }

    fn kept(pasts: &Pasts) -> Vec<(&str, u64)> {
        pasts.all().map(|past| (past.session().as_str(), past.position().0)).collect()
    }

    #[test]
    fn the_nearest_before_a_position_is_found_and_none_of_another_session() {
        let (_ledger, reader) = ledger(&["s", "t"], 10);
        let mut pasts = Pasts::default();
        [2, 5, 9].into_iter().for_each(|position| pasts.keep(&past(&reader, "s", position)));
        let mut nearest =
            |session: &str, at| pasts.nearest(&session.parse().unwrap(), Position(at)).map(|past| past.position().0);
        assert_eq!([1, 2, 4, 5, 8, 20].map(|at| nearest("s", at)), [None, Some(2), Some(2), Some(5), Some(5), Some(9)]);
        assert_eq!(nearest("t", 20), None);
    }

    #[test]
    fn what_is_kept_stays_within_its_bytes_and_spaced_over_the_session() {
        // Given room for about four of the largest
        let (_ledger, reader) = ledger(&["s"], 200);
        let bytes_max = past(&reader, "s", 200).bytes() * 4;
        let mut pasts = Pasts { bytes_max, ..Pasts::default() };
        // When
        for position in (5..=200).step_by(5) {
            let past = past(&reader, "s", position);
            pasts.keep(&past);
            // Then
            assert!(pasts.bytes() <= bytes_max);
            assert!(kept(&pasts).contains(&("s", position)));
        }
        let positions: Vec<u64> = kept(&pasts).into_iter().map(|(_, position)| position).collect();
        assert!(positions.len() >= 5, "{positions:?}");
        let gap = |two: &[u64]| two[1] - two[0];
        assert!(positions[0] <= 60 && positions.windows(2).all(|two| gap(two) <= 60), "{positions:?}");
    }

    #[test]
    fn one_that_is_larger_than_all_may_be_is_not_kept_and_drives_out_none() {
        let (_ledger, reader) = ledger(&["s"], 100);
        let small = past(&reader, "s", 1);
        let mut pasts = Pasts { bytes_max: small.bytes(), ..Pasts::default() };
        pasts.keep(&small);
        pasts.keep(&past(&reader, "s", 100));
        assert_eq!(kept(&pasts), [("s", 1)]);
    }

    #[test]
    fn the_sessions_that_were_asked_for_last_are_kept_and_only_so_many_pasts() {
        let (_ledger, reader) = ledger(&["s", "t", "u", "v"], 1);
        let mut pasts = Pasts::default();
        for (session, position) in [("s", 4), ("t", 4), ("u", 4)] {
            pasts.keep(&past(&reader, session, position));
        }
        assert!(pasts.nearest(&"s".parse().unwrap(), Position(4)).is_some());
        pasts.keep(&past(&reader, "v", 4));
        assert_eq!(kept(&pasts), [("v", 4), ("s", 4), ("u", 4)]);
    }

    #[test]
    fn what_knows_less_of_an_erasure_is_forgotten() {
        let (ledger, reader) = ledger(&["s"], 2);
        let mut pasts = Pasts::default();
        pasts.keep(&past(&reader, "s", 1));
        let erase = runledger_store::Erase::Sessions(vec!["s".parse().unwrap()]);
        ledger.log.redact(&erase, "asked for", "dev@host").unwrap();
        pasts.keep(&past(&reader, "s", 2));
        pasts.forget_erased(reader.last_redaction().unwrap());
        assert_eq!(kept(&pasts), [("s", 2)]);
    }
}
