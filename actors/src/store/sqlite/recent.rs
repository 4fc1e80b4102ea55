//! What was used lately, up to a bound.

use std::hash::Hash;

use indexmap::IndexMap;

/// A map of at most `2 * half` entries. When the younger half is full, the older one, which nobody
/// has asked for since, is thrown away.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    half: usize,
    young: IndexMap<K, V>,
    old: IndexMap<K, V>,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    pub(super) fn new(half: usize) -> Self {
        Self { half, young: IndexMap::new(), old: IndexMap::new() }
    }

    /// Makes room, so that as many are there together once they were inserted or touched.
    pub(super) fn reserve(&mut self, count: usize) {
        self.half = self.half.max(count);
    }

    /// Looks without counting as use.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Whether it is there; it counts as used.
    pub(super) fn touch(&mut self, key: &K) -> bool {
        if self.young.contains_key(key) {
            return true;
        }
        match self.old.swap_remove_entry(key) {
            Some((key, value)) => {
                self.insert(key, value);
                true
            }
            None => false,
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests;
