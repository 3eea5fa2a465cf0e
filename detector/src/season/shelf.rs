//! Which pages exist, and which of them are at hand.
//!
//! For: asking the owner of a lane for pages before they are needed, and handing it new ones to store.
//! Not for: storing them.
//! Invariant: a page that was not handed out twice ago is at hand: what the owner was given may be uncommitted, and
//! cannot be asked back before its next commit. An owner that never takes pages keeps all of them in memory.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::feed::FeedKind;

use super::{DAYS, PageKey, SLOTS, pooled_slots};

/// The slots of one feed kind that have a page. Part of the lane's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PageIndex(BTreeSet<i64>);

impl PageIndex {
    pub(crate) fn insert(&mut self, slot: i64) {
        self.0.insert(slot);
    }

    pub(crate) fn remove(&mut self, slot: i64) {
        self.0.remove(&slot);
    }

    pub(crate) fn contains(&self, slot: i64) -> bool {
        self.0.contains(&slot)
    }

    /// The slots whose pages make the baseline of `slot`.
    pub(crate) fn pooled(&self, slot: i64) -> impl Iterator<Item = i64> + '_ {
        pooled_slots(slot).flatten().filter(|slot| self.contains(*slot))
    }

    /// Forgets the slots that no baseline from `slot` on needs, and says which they were.
    pub(crate) fn expire(&mut self, slot: i64) -> Vec<i64> {
        let oldest = slot.saturating_sub(DAYS * SLOTS + 1);
        let kept = self.0.split_off(&oldest);
        std::mem::replace(&mut self.0, kept).into_iter().collect()
    }
}

/// Pages in memory. Not part of the lane's state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf {
    pages: BTreeMap<PageKey, Vec<u8>>,
    /// Changes since the last hand-out: written or dropped.
    changed: BTreeMap<PageKey, bool>,
    /// Handed out last and, as far as is known here, not committed.
    handed_out: BTreeSet<PageKey>,
    /// Stored elsewhere, so they may leave.
    stored: BTreeSet<PageKey>,
}

impl Shelf {
    pub(crate) fn get(&self, key: &PageKey) -> Option<&[u8]> {
        self.pages.get(key).map(Vec::as_slice)
    }

    pub(crate) fn has(&self, key: &PageKey) -> bool {
        self.pages.contains_key(key)
    }

    /// A new page.
    pub(crate) fn write(&mut self, key: PageKey, bytes: Vec<u8>) {
        self.pages.insert(key, bytes);
        self.changed.insert(key, true);
    }

    /// A page that is no longer needed by anybody.
    pub(crate) fn discard(&mut self, key: PageKey) {
        self.pages.remove(&key);
        self.stored.remove(&key);
        self.handed_out.remove(&key);
        self.changed.insert(key, false);
    }

    /// A page read back by the owner.
    pub(crate) fn load(&mut self, key: PageKey, bytes: Vec<u8>) {
        self.pages.insert(key, bytes);
        self.stored.insert(key);
    }

    /// Lets go of the stored pages of a kind that are not among `needed`.
    pub(crate) fn retain(&mut self, kind: FeedKind, needed: &BTreeSet<i64>) {
        let leaves = |key: &&PageKey| key.kind == kind && !needed.contains(&key.slot);
        let leaving: Vec<PageKey> = self.stored.iter().filter(leaves).copied().collect();
        for key in leaving {
            self.pages.remove(&key);
            self.stored.remove(&key);
        }
    }

    /// What changed since the last call (`None`: dropped), for the owner to commit. What the call before gave is taken
    /// to be committed.
    pub(crate) fn hand_out(&mut self) -> Vec<(PageKey, Option<Vec<u8>>)> {
        self.stored.append(&mut self.handed_out);
        let changed = std::mem::take(&mut self.changed);
        let mut changes = Vec::new();
        for (key, written) in changed {
            match self.pages.get(&key) {
                Some(bytes) if written => {
                    changes.push((key, Some(bytes.clone())));
                    self.handed_out.insert(key);
                }
                _ => changes.push((key, None)),
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: i64) -> PageKey {
        PageKey { kind: FeedKind::Reports, slot }
    }

    #[test]
    fn a_page_stays_until_the_hand_out_after_its_own() {
        let (mut shelf, nothing) = (Shelf::default(), BTreeSet::new());
        shelf.write(key(1), vec![1]);
        shelf.retain(FeedKind::Reports, &nothing);
        assert!(shelf.has(&key(1)), "nobody has stored it");
        assert_eq!(shelf.hand_out(), [(key(1), Some(vec![1]))]);
        shelf.retain(FeedKind::Reports, &nothing);
        assert!(shelf.has(&key(1)), "the commit may fail");
        assert!(shelf.hand_out().is_empty());
        shelf.retain(FeedKind::Reports, &nothing);
        assert!(!shelf.has(&key(1)));
    }

    #[test]
    fn a_baseline_needs_three_slots_of_each_of_fourteen_days_and_older_pages_go() {
        let mut index = PageIndex::default();
        (0..20 * SLOTS).for_each(|slot| index.insert(slot));
        assert_eq!(index.pooled(19 * SLOTS).count(), 42);
        let gone = index.expire(19 * SLOTS);
        assert_eq!(index.pooled(19 * SLOTS).count(), 42);
        assert_eq!(gone.last(), Some(&(5 * SLOTS - 2)));
    }
}
