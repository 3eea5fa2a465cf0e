//! The smallest watermark among a lane's sources, kept as they change.
//!
//! A lane hears of each source in every batch interval, and asks for the minimum over all of them each time: with a
//! thousand sources a search through them would be most of a lane's work. Derived from the sources alone, never stored.
//! Invariant: it holds exactly the sources it was given and not since taken back, each as it was then; so whoever
//! changes a source takes it back before and gives it again after.

use std::collections::BTreeMap;

use super::{Entry, Status};
use crate::exchange::source::FeedKinds;

/// Counts of the sources that hold a lane's watermarks back.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Lows {
    /// By feed kind: how many sources stand at each watermark. No count is 0.
    marks: [BTreeMap<i64, usize>; FeedKinds::MAX as usize],
    /// Sources of the set, and those of them that have ended.
    in_set: usize,
    ended: usize,
}

impl Lows {
    /// Of these sources.
    pub(super) fn of<'a>(kinds: FeedKinds, sources: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut lows = Self::default();
        sources.into_iter().for_each(|entry| lows.give(kinds, entry));
        lows
    }

    /// The smallest watermark of a kind; none: no source counts.
    pub(super) fn low(&self, kind: usize) -> Option<i64> {
        self.marks.get(kind)?.first_key_value().map(|(mark, _)| *mark)
    }

    /// Whether there are sources and all have ended.
    pub(super) fn ended(&self) -> bool {
        self.in_set > 0 && self.ended == self.in_set
    }

    /// Counts a source.
    pub(super) fn give(&mut self, kinds: FeedKinds, entry: &Entry) {
        self.in_set += usize::from(entry.in_set);
        self.ended += usize::from(entry.in_set && entry.ended);
        for kind in (0..kinds.count()).filter(|kind| counts(entry, *kind)) {
            *self.marks[kind].entry(entry.watermarks.get(kind)).or_default() += 1;
        }
    }

    /// Counts a source no more; it must be as it was when it was given.
    pub(super) fn take(&mut self, kinds: FeedKinds, entry: &Entry) {
        self.in_set -= usize::from(entry.in_set);
        self.ended -= usize::from(entry.in_set && entry.ended);
        for kind in (0..kinds.count()).filter(|kind| counts(entry, *kind)) {
            let mark = entry.watermarks.get(kind);
            let left = self.marks[kind].get_mut(&mark).map(|count| {
                *count -= 1;
                *count
            });
            debug_assert!(left.is_some(), "taken back without having been given");
            if left == Some(0) {
                self.marks[kind].remove(&mark);
            }
        }
    }
}

/// Whether a source holds the watermark of a kind back.
fn counts(entry: &Entry, kind: usize) -> bool {
    entry.in_set && !entry.ended && entry.status.get(kind) != Some(&Status::Idle)
}
