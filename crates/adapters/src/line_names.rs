//! Names for lines that have none of their own: the digest of their text, counted where it comes again.

use std::collections::HashMap;

use runledger_events::content_digest;

/// Digits of a digest that make a name: 128 bits, so that no two lines of a ledger share one by accident.
const NAME_DIGITS: usize = 32;

/// Half of the BLAKE3 digest of this text, hexadecimal.
pub(crate) fn digest_name(text: &[u8]) -> String {
    let mut name = content_digest(text).to_string();
    name.truncate(NAME_DIGITS);
    name
}

/// Names lines by their text. Invariant: the same lines in the same order get the same names, each line one of its own.
///
/// It remembers about 32 bytes a line.
#[derive(Debug, Clone, Default)]
pub(crate) struct LineNames {
    /// How often a text came, by the first digits of its digest. Two texts with the same first digits count as one: the
    /// later one gets a number that it does not need, the same one each time.
    counts: HashMap<u64, u32>,
}

impl LineNames {
    /// `DIGEST` for the first line of this text, `DIGEST#2`, `DIGEST#3`, … for the next ones.
    pub(crate) fn name(&mut self, line: &str) -> String {
        let name = digest_name(line.as_bytes());
        let key = name.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default();
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(1);
        if *count == 1 { name } else { format!("{name}#{count}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_comes_again_gets_a_number() {
        let mut names = LineNames::default();
        let [a, b, again, third] = ["a", "b", "a", "a"].map(|line| names.name(line));
        assert_eq!(a.len(), NAME_DIGITS);
        assert_ne!(a, b);
        assert_eq!(again, format!("{a}#2"));
        assert_eq!(third, format!("{a}#3"));
        assert_eq!(LineNames::default().name("a"), a);
    }
}
