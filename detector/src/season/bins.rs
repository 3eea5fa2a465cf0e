//! A histogram as it is stored: the lowest bin and whole counts.
//!
//! For: a slot's round-trip times, in the bins of [`crate::score::Histogram`], in one or two bytes a bin.
//! Not for: ranks and quantiles.
//! Invariant: no count before the first and after the last occupied bin.

use serde::{Deserialize, Serialize};

use crate::score::Histogram;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bins {
    first: i16,
    counts: Vec<u32>,
}

impl Bins {
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Sum of all counts, saturating.
    pub(crate) fn total(&self) -> u32 {
        self.counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Halves every count, rounding up: what was seen once is not forgotten by it.
    pub(crate) fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count = count.div_ceil(2));
    }

    pub(crate) fn put(&mut self, bin: i32, count: u32) {
        let Ok(bin) = i16::try_from(bin) else { return };
        if count == 0 {
            return;
        }
        if self.counts.is_empty() {
            self.first = bin;
        }
        if bin < self.first {
            let gap = self.first.abs_diff(bin);
            self.counts.splice(0..0, std::iter::repeat_n(0, usize::from(gap)));
            self.first = bin;
        }
        let index = usize::from(bin.abs_diff(self.first));
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] = self.counts[index].saturating_add(count);
    }

    pub(crate) fn put_all(&mut self, step: &Histogram) {
        step.iter().for_each(|(bin, count)| self.put(bin, count as u32));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.iter().for_each(|(bin, count)| self.put(bin, count));
    }

    /// Occupied bins, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i32, u32)> + '_ {
        (i32::from(self.first)..).zip(self.counts.iter().copied()).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_put_in_any_order_make_the_same_bins() {
        let (mut up, mut down) = (Bins::default(), Bins::default());
        for bin in [70, 75, 90] {
            up.put(bin, 2);
        }
        for bin in [90, 75, 70] {
            down.put(bin, 1);
        }
        let twice = down.clone();
        down.add(&twice);
        assert_eq!(up, down);
        assert_eq!(up.iter().collect::<Vec<_>>(), [(70, 2), (75, 2), (90, 2)]);
    }
}
