//! Rows that a fold keeps, by their key: each is read once, and written once for all that changed it.

use std::collections::HashMap;
use std::hash::Hash;

use crate::error::ProjectionError;

/// The rows of one table that a fold has touched.
pub(crate) struct KeptRows<K, V> {
    rows: HashMap<K, Kept<V>>,
    /// Those that are not written as they are now, in the order in which they changed first.
    changed: Vec<K>,
}

struct Kept<V> {
    /// None where there is no such row.
    value: Option<V>,
    is_changed: bool,
}

impl<K, V> Default for KeptRows<K, V> {
    fn default() -> Self {
        Self { rows: HashMap::new(), changed: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash, V> KeptRows<K, V> {
    /// A row, which `load` reads from the table where it is not kept yet.
    pub(crate) fn get(
        &mut self,
        key: &K,
        load: impl FnOnce() -> Result<Option<V>, ProjectionError>,
    ) -> Result<Option<&V>, ProjectionError> {
        Ok(self.kept(key, load)?.value.as_ref())
    }

    /// The same, to be changed: whatever it is afterwards is written.
    pub(crate) fn change(
        &mut self,
        key: &K,
        load: impl FnOnce() -> Result<Option<V>, ProjectionError>,
    ) -> Result<&mut Option<V>, ProjectionError> {
        if !self.kept(key, load)?.is_changed {
            self.changed.push(key.clone());
        }
        let kept = self.rows.entry(key.clone()).or_insert(Kept { value: None, is_changed: true });
        kept.is_changed = true;
        Ok(&mut kept.value)
    }

    fn kept(
        &mut self,
        key: &K,
        load: impl FnOnce() -> Result<Option<V>, ProjectionError>,
    ) -> Result<&Kept<V>, ProjectionError> {
        if !self.rows.contains_key(key) {
            let value = load()?;
            self.rows.insert(key.clone(), Kept { value, is_changed: false });
        }
        Ok(&self.rows[key])
    }

    /// A row that is kept; none where it was never read, or is not there.
    pub(crate) fn kept_value(&self, key: &K) -> Option<&V> {
        self.rows.get(key)?.value.as_ref()
    }

    /// Those that are kept.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.rows.keys()
    }

    /// Hands changed rows to `store`, at most `left`, which it counts down; says whether that was all.
    pub(crate) fn flush(
        &mut self,
        left: &mut usize,
        mut store: impl FnMut(&K, &V) -> Result<(), ProjectionError>,
    ) -> Result<bool, ProjectionError> {
        let count = self.changed.len().min(*left);
        for key in self.changed.drain(..count) {
            if let Some(kept) = self.rows.get_mut(&key) {
                kept.is_changed = false;
                if let Some(value) = &kept.value {
                    store(&key, value)?;
                }
            }
        }
        *left -= count;
        Ok(self.changed.is_empty())
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}
