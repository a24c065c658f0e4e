//! Retelling: one fact that several sources tell is one feed event.
//!
//! Each fact of an adapter session has a name (a tool call's id, a prompt's id, a message's speaker and text, …). The feed
//! shows it as often as the source that told it most often; so the order of arrival does not matter, and a source that
//! repeats itself is believed. What is shown are the words of the source with the highest precedence (`Source`'s order).
//!
//! Where sources have different ids for one call, `call_names` finds out which they are.

use runledger_events::content_digest;

use super::memory::{Memory, Seam};
use super::run_lifecycle::Teller;
use crate::error::ProjectionError;

/// What an event is to the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// Nobody told it before: it is to be shown, and [`shown`] is to be called.
    New,
    /// It is shown already.
    Again {
        /// By this feed event.
        seq: u64,
        /// Whether this teller's words are the better ones.
        is_better: bool,
    },
}

/// The name of a fact of an adapter session, as short as a name can be that no other fact has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub(super) struct FactKey(pub(super) [u8; 16]);

impl FactKey {
    fn new(adapter_session: &str, fact: &str) -> Self {
        let digest = content_digest(format!("{adapter_session}\n{fact}").as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest.0[..16]);
        Self(key)
    }

    /// The key of the feed event that shows it for the `index`-th time.
    fn shown(self, index: u64) -> String {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex}\n{index}")
    }
}

/// How often a fact was told by whom, and by how many feed events it is shown: their number, and the first few of them.
#[derive(Debug, Clone, Default, bincode::Encode, bincode::Decode)]
pub(super) struct Told {
    counts: Vec<(Teller, u64)>,
    shown: u64,
    first: Vec<Shown>,
}

impl Told {
    pub(super) fn count(&mut self, teller: Teller) -> &mut u64 {
        let at = self.counts.iter().position(|(known, _)| *known == teller).unwrap_or_else(|| {
            self.counts.push((teller, 0));
            self.counts.len() - 1
        });
        &mut self.counts[at].1
    }

    /// The feed event that shows it for the `index`-th time.
    fn shown(&self, memory: &mut Memory<'_>, key: FactKey, index: u64) -> Result<Option<Shown>, ProjectionError> {
        if index >= self.shown {
            return Ok(None);
        }
        match usize::try_from(index).ok().and_then(|index| self.first.get(index)) {
            Some(shown) => Ok(Some(*shown)),
            None => memory.get(Seam::Shown, &key.shown(index)),
        }
    }

    /// Notes the feed event that shows it for the `index`-th time: one that did, or the next one.
    fn show(&mut self, memory: &mut Memory<'_>, key: FactKey, index: u64, by: Shown) -> Result<(), ProjectionError> {
        self.shown = self.shown.max(index.saturating_add(1));
        if index >= FIRST {
            return memory.put(Seam::Shown, &key.shown(index), &by);
        }
        match usize::try_from(index).ok().and_then(|index| self.first.get_mut(index)) {
            Some(shown) => *shown = by,
            None => self.first.push(by),
        }
        Ok(())
    }
}

/// A feed event that shows a fact, and in whose words. Behind the first few each has a value of its own in the memory: a
/// fact that is told ten thousand times (a stop, a message of one word) costs the last time what it cost the first.
type Shown = (u64, Teller);

/// Feed events of a fact that stand with it.
const FIRST: u64 = 2;

/// Counts a telling, and says what it is.
pub(super) fn tell(
    memory: &mut Memory<'_>,
    adapter_session: &str,
    fact: &str,
    teller: Teller,
) -> Result<Telling, ProjectionError> {
    let key = FactKey::new(adapter_session, fact);
    let mut told = memory.told(key)?.unwrap_or_default();
    let count = told.count(teller);
    let index = *count;
    *count = count.saturating_add(1);
    let shown = told.shown(memory, key, index)?;
    let is_better = shown.is_some_and(|(_, by)| teller < by);
    if let Some((seq, _)) = shown.filter(|_| is_better) {
        told.show(memory, key, index, (seq, teller))?;
    }
    memory.put_told(key, told)?;
    Ok(shown.map_or(Telling::New, |(seq, _)| Telling::Again { seq, is_better }))
}

/// Notes which feed event shows what was told just now for the first time.
pub(super) fn shown(
    memory: &mut Memory<'_>,
    adapter_session: &str,
    fact: &str,
    teller: Teller,
    seq: u64,
) -> Result<(), ProjectionError> {
    let key = FactKey::new(adapter_session, fact);
    let mut told = memory.told(key)?.unwrap_or_default();
    told.show(memory, key, told.shown, (seq, teller))?;
    memory.put_told(key, told)
}

/// Takes a telling back, which turned out to be a source repeating its own words.
pub(super) fn unsay(
    memory: &mut Memory<'_>,
    adapter_session: &str,
    fact: &str,
    teller: Teller,
) -> Result<(), ProjectionError> {
    let key = FactKey::new(adapter_session, fact);
    let mut told = memory.told(key)?.unwrap_or_default();
    let count = told.count(teller);
    *count = count.saturating_sub(1);
    memory.put_told(key, told)
}

/// Gives what was told of one fact to another: they turned out to be the same.
pub(super) fn rename(
    memory: &mut Memory<'_>,
    adapter_session: &str,
    from: &str,
    to: &str,
) -> Result<(), ProjectionError> {
    let (from, to) = (FactKey::new(adapter_session, from), FactKey::new(adapter_session, to));
    let Some(moved) = memory.told(from)?.filter(|told| !told.counts.is_empty()) else {
        return Ok(());
    };
    let mut told = memory.told(to)?.unwrap_or_default();
    for (teller, times) in &moved.counts {
        let count = told.count(*teller);
        *count = count.saturating_add(*times);
    }
    // It is not shown more often than it was told, however damaged a number may be.
    let times = moved.counts.iter().fold(0_u64, |sum, (_, times)| sum.saturating_add(*times));
    for index in 0..moved.shown.min(times) {
        if let Some(shown) = moved.shown(memory, from, index)? {
            told.show(memory, to, told.shown, shown)?;
        }
        if index >= FIRST {
            memory.remove(Seam::Shown, &from.shown(index));
        }
    }
    memory.put_told(from, Told::default())?;
    memory.put_told(to, told)
}

/// Whether a fact is shown already, whoever told it.
pub(super) fn is_shown(memory: &mut Memory<'_>, adapter_session: &str, fact: &str) -> Result<bool, ProjectionError> {
    let told = memory.told(FactKey::new(adapter_session, fact))?;
    Ok(told.is_some_and(|told| told.shown > 0))
}
