//! Token figures of a turn, and how turns add up.

use serde::{Deserialize, Serialize};

use crate::json::Object;

/// The largest figure; a sum beyond it stays there. SQLite and JSON readers hold it.
const FIGURE_MAX: u64 = i64::MAX.unsigned_abs();

/// Token figures; `None` is unknown, which is not zero.
///
/// `context_size` and `context_window_size` describe the context at that moment, the others are sums.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, bincode::Encode, bincode::Decode,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tokens {
    /// Tokens read by the model, without those from the cache.
    pub input: Option<u64>,
    /// Tokens written by the model.
    pub output: Option<u64>,
    /// Tokens read from the cache.
    pub cache_read: Option<u64>,
    /// Tokens written to the cache.
    pub cache_write: Option<u64>,
    /// The four above together.
    pub total: Option<u64>,
    /// Tokens in the context after the last turn.
    pub context_size: Option<u64>,
    /// Tokens that the context can hold.
    pub context_window_size: Option<u64>,
}

impl Tokens {
    /// Whether any of the four sums is known.
    pub fn has_sums(&self) -> bool {
        [self.input, self.output, self.cache_read, self.cache_write].iter().any(Option::is_some)
    }

    /// Whether nothing at all is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// These figures followed by those of a later turn.
    ///
    /// Once any sum is known, unknown ones count as 0 and `total` is computed anew; the context's figures are the
    /// latest known. While no sum is known, only the later turn's context figures count, even where they are unknown.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        if !self.has_sums() && !later.has_sums() {
            return Self {
                context_size: later.context_size,
                context_window_size: later.context_window_size,
                ..Self::default()
            };
        }
        let sum = |a: Option<u64>, b: Option<u64>| a.unwrap_or(0).saturating_add(b.unwrap_or(0)).min(FIGURE_MAX);
        let input = sum(self.input, later.input);
        let output = sum(self.output, later.output);
        let cache_read = sum(self.cache_read, later.cache_read);
        let cache_write = sum(self.cache_write, later.cache_write);
        let parts = [output, cache_read, cache_write];
        let total = parts.iter().fold(input, |total, part| total.saturating_add(*part).min(FIGURE_MAX));
        Self {
            input: Some(input),
            output: Some(output),
            cache_read: Some(cache_read),
            cache_write: Some(cache_write),
            total: Some(total),
            context_size: later.context_size.or(self.context_size),
            context_window_size: later.context_window_size.or(self.context_window_size),
        }
    }

    /// Figures as harness events write them (`cacheRead`, …); what is no whole number from 0 is unknown.
    pub(crate) fn from_camel_case(object: &Object<'_>) -> Self {
        let figure = |name: &str| object.whole(name).and_then(|n| u64::try_from(n).ok());
        Self {
            input: figure("input"),
            output: figure("output"),
            cache_read: figure("cacheRead"),
            cache_write: figure("cacheWrite"),
            total: figure("total"),
            context_size: figure("contextSize"),
            context_window_size: figure("contextWindowSize"),
        }
    }
}
