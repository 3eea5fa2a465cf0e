//! A small map kept as one sorted list.
//!
//! For: the counts of a pane and the peers of a pair, of which there are a few dozen: copied and dropped in one piece, and
//! merged in one pass. Trees took half of a step's time.
//! Not for: maps that grow without bound; an insertion moves what comes after it.
//! Invariant: keys ascend, none twice. Stored as a map, as a tree would be.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SortedMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy, V> SortedMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Entries by ascending key.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, (K, V)> {
        self.0.iter()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> + '_ {
        self.0.iter_mut().map(|(_, value)| value)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let at = self.0.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// The value of a key; made when it has none.
    pub(crate) fn or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let at = match self.0.last() {
            Some((last, _)) if *last < key => self.0.len(),
            _ => match self.0.binary_search_by(|(k, _)| k.cmp(&key)) {
                Ok(at) => return &mut self.0[at].1,
                Err(at) => at,
            },
        };
        self.0.insert(at, (key, make()));
        &mut self.0[at].1
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Ok(at) = self.0.binary_search_by(|(k, _)| k.cmp(key)) {
            self.0.remove(at);
        }
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

impl<K: Ord + Copy, V: Clone> SortedMap<K, V> {
    /// Adds `other`, at most `most` entries with the smallest keys; `add` joins the values of a key that both have.
    pub(crate) fn merge(&mut self, other: &Self, most: usize, add: impl Fn(&mut V, &V)) {
        if self.is_empty() {
            self.0.extend(other.0.iter().take(most).cloned());
            return;
        }
        if other.is_empty() {
            return;
        }
        let room = Vec::with_capacity((self.len() + other.len()).min(most));
        let mine = std::mem::replace(&mut self.0, room);
        let (mut mine, mut theirs) = (mine.into_iter().peekable(), other.0.iter().peekable());
        while self.0.len() < most {
            let ours_first = match (mine.peek(), theirs.peek()) {
                (Some((a, _)), Some((b, _))) => a <= b,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            if !ours_first {
                self.0.extend(theirs.next().cloned());
            } else if let Some((key, mut value)) = mine.next() {
                if let Some((_, same)) = theirs.next_if(|(k, _)| *k == key) {
                    add(&mut value, same);
                }
                self.0.push((key, value));
            }
        }
    }
}

impl<K: Ord + Copy, V> FromIterator<(K, V)> for SortedMap<K, V> {
    /// Of a key given twice the last value counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut list: Vec<(K, V)> = entries.into_iter().collect();
        if list.is_sorted_by(|a, b| a.0 < b.0) {
            return Self(list);
        }
        list.sort_by_key(|(key, _)| *key);
        list.reverse();
        list.dedup_by_key(|(key, _)| *key);
        list.reverse();
        Self(list)
    }
}

impl<K: Serialize, V: Serialize> Serialize for SortedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de, K: Deserialize<'de> + Ord + Copy, V: Deserialize<'de>> Deserialize<'de> for SortedMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

struct Entries<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de> + Ord + Copy, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
    type Value = SortedMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        // What a damaged length says is not believed.
        let mut entries = Vec::with_capacity(access.size_hint().unwrap_or(0).min(256));
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Small = prop::collection::VecStrategy<(std::ops::Range<u8>, std::ops::Range<u64>)>;

    fn entries() -> Small {
        prop::collection::vec((0u8..40, 0u64..100), 0..30)
    }

    proptest! {
        #[test]
        fn it_holds_what_a_tree_would_hold_and_is_stored_as_one(a in entries(), b in entries(), most in 0usize..40) {
            let (mut list, mut tree) = (SortedMap::default(), BTreeMap::new());
            for (key, value) in &a {
                *list.or_insert_with(*key, || 0) += value;
                *tree.entry(*key).or_insert(0) += value;
            }
            prop_assert_eq!(postcard::to_allocvec(&list).unwrap(), postcard::to_allocvec(&tree).unwrap());
            prop_assert_eq!(list.get(&7), tree.get(&7));
            let other: SortedMap<u8, u64> = b.iter().copied().collect();
            let other_tree: BTreeMap<u8, u64> = b.into_iter().collect();
            list.merge(&other, most, |mine, theirs| *mine += theirs);
            other_tree.iter().for_each(|(key, value)| *tree.entry(*key).or_insert(0) += value);
            if !a.is_empty() && !other_tree.is_empty() {
                while tree.len() > most {
                    tree.pop_last();
                }
                prop_assert!(list.iter().map(|(k, v)| (k, v)).eq(tree.iter()));
            }
            let bytes = postcard::to_allocvec(&list).unwrap();
            prop_assert_eq!(postcard::from_bytes::<SortedMap<u8, u64>>(&bytes).unwrap(), list);
        }
    }
}
