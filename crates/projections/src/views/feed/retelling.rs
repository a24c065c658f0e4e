//! Retelling: one fact that several sources tell is one feed event.
//!
//! Each fact of an adapter session has a name (a tool call's id, a prompt's id, a message's speaker and text, …). The feed
//! shows it as often as the source that told it most often; so the order of arrival does not matter, and a source that
//! repeats itself is believed. What is shown are the words of the source with the highest precedence (`Source`'s order).
//!
//! Where sources have different ids for one call, `call_names` finds out which they are.

use serde::{Deserialize, Serialize};

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

/// How often a fact was told by whom, and by how many feed events it is shown: the first few of them, and their number.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Told {
    counts: Vec<(Teller, u64)>,
    shown: u64,
    first: Vec<Shown>,
}

impl Told {
    fn count(&mut self, teller: Teller) -> &mut u64 {
        if let Some(at) = self.counts.iter().position(|(known, _)| *known == teller) {
            return &mut self.counts[at].1;
        }
        self.counts.push((teller, 0));
        let last = self.counts.len() - 1;
        &mut self.counts[last].1
    }

    /// The feed event that shows it for the `index`-th time.
    fn shown(&self, memory: &mut Memory<'_>, key: &str, index: u64) -> Result<Option<Shown>, ProjectionError> {
        if index >= self.shown {
            return Ok(None);
        }
        match usize::try_from(index).ok().and_then(|index| self.first.get(index)) {
            Some(shown) => Ok(Some(*shown)),
            None => memory.get(Seam::Shown, &shown_key(key, index)),
        }
    }

    /// Notes the feed event that shows it for the `index`-th time: one that did, or the next one.
    fn show(&mut self, memory: &mut Memory<'_>, key: &str, index: u64, by: Shown) -> Result<(), ProjectionError> {
        self.shown = self.shown.max(index + 1);
        if index >= FIRST {
            return memory.put(Seam::Shown, &shown_key(key, index), &by);
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

fn key(adapter_session: &str, fact: &str) -> String {
    format!("{adapter_session}\n{fact}")
}

fn shown_key(key: &str, index: u64) -> String {
    format!("{key}\n{index}")
}

/// Counts a telling, and says what it is.
pub(super) fn tell(
    memory: &mut Memory<'_>,
    adapter_session: &str,
    fact: &str,
    teller: Teller,
) -> Result<Telling, ProjectionError> {
    let key = key(adapter_session, fact);
    let mut told: Told = memory.get(Seam::Telling, &key)?.unwrap_or_default();
    let count = told.count(teller);
    let index = *count;
    *count += 1;
    let shown = told.shown(memory, &key, index)?;
    let is_better = shown.is_some_and(|(_, by)| teller < by);
    if let Some((seq, _)) = shown.filter(|_| is_better) {
        told.show(memory, &key, index, (seq, teller))?;
    }
    memory.put(Seam::Telling, &key, &told)?;
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
    let key = key(adapter_session, fact);
    let mut told: Told = memory.get(Seam::Telling, &key)?.unwrap_or_default();
    told.show(memory, &key, told.shown, (seq, teller))?;
    memory.put(Seam::Telling, &key, &told)
}

/// Takes a telling back, which turned out to be a source repeating its own words.
pub(super) fn unsay(
    memory: &mut Memory<'_>,
    adapter_session: &str,
    fact: &str,
    teller: Teller,
) -> Result<(), ProjectionError> {
    let key = key(adapter_session, fact);
    let mut told: Told = memory.get(Seam::Telling, &key)?.unwrap_or_default();
    let count = told.count(teller);
    *count = count.saturating_sub(1);
    memory.put(Seam::Telling, &key, &told)
}

/// Gives what was told of one fact to another: they turned out to be the same.
pub(super) fn rename(
    memory: &mut Memory<'_>,
    adapter_session: &str,
    from: &str,
    to: &str,
) -> Result<(), ProjectionError> {
    let (from, to) = (key(adapter_session, from), key(adapter_session, to));
    let Some(moved) = memory.get::<Told>(Seam::Telling, &from)? else {
        return Ok(());
    };
    let mut told: Told = memory.get(Seam::Telling, &to)?.unwrap_or_default();
    for (teller, times) in &moved.counts {
        *told.count(*teller) += times;
    }
    for index in 0..moved.shown {
        if let Some(shown) = moved.shown(memory, &from, index)? {
            told.show(memory, &to, told.shown, shown)?;
        }
        if index >= FIRST {
            memory.remove(Seam::Shown, &shown_key(&from, index));
        }
    }
    memory.remove(Seam::Telling, &from);
    memory.put(Seam::Telling, &to, &told)
}

/// Whether a fact is shown already, whoever told it.
pub(super) fn is_shown(memory: &mut Memory<'_>, adapter_session: &str, fact: &str) -> Result<bool, ProjectionError> {
    let told: Option<Told> = memory.get(Seam::Telling, &key(adapter_session, fact))?;
    Ok(told.is_some_and(|told| told.shown > 0))
}
