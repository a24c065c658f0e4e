//! Counting what is equal to the old rows, what is different, and why.

use std::collections::BTreeMap;

use serde::Serialize;

/// How many things are as the old rows say, and how many are not, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Equal in every field.
    pub equal: u64,
    /// Different in one field or more.
    pub different: u64,
    /// Why, and how often; something that differs in several ways counts for each.
    pub reasons: BTreeMap<String, u64>,
}

impl Comparison {
    /// Counts one thing: equal without reasons, different with some.
    pub fn count(&mut self, reasons: impl IntoIterator<Item = String>) {
        let mut is_equal = true;
        for reason in reasons {
            is_equal = false;
            *self.reasons.entry(reason).or_default() += 1;
        }
        *(if is_equal { &mut self.equal } else { &mut self.different }) += 1;
    }
}
