//! Rows that a fold keeps, by their key: each is read once, and written once for all that changed it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
        Ok(Self::kept(&mut self.rows, key, load)?.value.as_ref())
    }

    /// The same, to be changed: whatever it is afterwards is written.
    pub(crate) fn change(
        &mut self,
        key: &K,
        load: impl FnOnce() -> Result<Option<V>, ProjectionError>,
    ) -> Result<&mut Option<V>, ProjectionError> {
        let kept = Self::kept(&mut self.rows, key, load)?;
        if !std::mem::replace(&mut kept.is_changed, true) {
            self.changed.push(key.clone());
        }
        Ok(&mut kept.value)
    }

    fn kept<'a>(
        rows: &'a mut HashMap<K, Kept<V>>,
        key: &K,
        load: impl FnOnce() -> Result<Option<V>, ProjectionError>,
    ) -> Result<&'a mut Kept<V>, ProjectionError> {
        Ok(match rows.entry(key.clone()) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(place) => place.insert(Kept { value: load()?, is_changed: false }),
        })
    }

    /// A row that is kept; none where it was never read, or is not there.
    pub(crate) fn kept_value(&self, key: &K) -> Option<&V> {
        self.rows.get(key)?.value.as_ref()
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

    /// The same in the order of the keys, so that a page is written once for all that stand on it.
    pub(crate) fn flush_in_order(
        &mut self,
        left: &mut usize,
        store: impl FnMut(&K, &V) -> Result<(), ProjectionError>,
    ) -> Result<bool, ProjectionError>
    where
        K: Ord,
    {
        self.changed.sort_unstable();
        self.flush(left, store)
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}
