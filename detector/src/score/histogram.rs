//! The learned distribution of round-trip times of a pair.
//!
//! For: ranks of new values against what is usual, and quantiles for people.
//! Not for: exact merging; that is [`crate::pane::RttCell`].
//! Invariant: bins are 5 % wide in the logarithm of µs. Values under 32 µs share the lowest bin: below it a difference is
//! the host's scheduling, not the network, and the 1 ms steps seen under loss stay within few bins.

use std::sync::{LazyLock, OnceLock};

use serde::{Deserialize, Serialize};

use crate::pane::{RTT_MAX_US, RttCell, bucket_of, middle};

use super::probation::Sum;

/// Width of a bin in ln µs.
pub(crate) const BIN_WIDTH: f64 = 0.05;
const FLOOR_US: f64 = 32.0;
/// "Far above" starts this many bins (28 %) beyond the 99th percentile.
const FAR_BINS: f64 = 5.0;

/// Bin of every bucket of a pane's round-trip times: a logarithm for each would be most of a step's cost.
static BINS: LazyLock<Vec<i32>> =
    LazyLock::new(|| (0..=bucket_of(RTT_MAX_US)).map(|bucket| bin_of(middle(bucket) as f64)).collect());

/// Bin of a bucket of [`RttCell`].
pub(crate) fn bin_of_bucket(bucket: u16) -> i32 {
    BINS.get(usize::from(bucket)).or(BINS.last()).copied().unwrap_or_default()
}

/// Bin of a value in µs.
fn bin_of(rtt_us: f64) -> i32 {
    // At most ln(6e7) / 0.05 = 358.
    (rtt_us.max(FLOOR_US).ln() / BIN_WIDTH).floor() as i32
}

/// Middle of a bin in µs.
pub(crate) fn bin_us(bin: f64) -> f64 {
    ((bin + 0.5) * BIN_WIDTH).exp()
}

/// Weighted counts by bin, dense between the lowest and the highest bin seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Histogram {
    first: i32,
    /// Half the size of doubles; sums are doubles.
    counts: Vec<f32>,
    total: f64,
    #[serde(skip)]
    marks: Kept<Marks>,
}

/// Positions in a distribution that every step asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    /// The 90th percentile, in bins.
    pub(crate) p90: f64,
    /// Where "far above everything usual" begins, in bins.
    pub(crate) far: f64,
    /// Weight beyond that.
    pub(crate) beyond: f64,
}

/// What was computed before and still holds. It says nothing of its own, so all are equal.
#[derive(Debug, Clone)]
pub(crate) struct Kept<T>(OnceLock<T>);

impl<T> Kept<T> {
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(make)
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Histogram {
    pub(crate) fn of(cell: &RttCell) -> Self {
        // Buckets ascend, so the first and the last name the bins needed.
        let mut buckets = cell.buckets();
        let Some((lowest, _)) = buckets.next() else { return Self::default() };
        let (first, last) = (bin_of_bucket(lowest), bin_of_bucket(buckets.next_back().map_or(lowest, |(b, _)| b)));
        let mut made = Self { first, counts: vec![0.0; (last - first) as usize + 1], ..Self::default() };
        for (bucket, count) in cell.buckets() {
            made.counts[(bin_of_bucket(bucket) - first) as usize] += count as f32;
            made.total += count as f64;
        }
        made
    }

    /// Adds whole counts by bin.
    pub(crate) fn put_all(&mut self, bins: impl Iterator<Item = (i32, u32)>) {
        bins.for_each(|(bin, count)| self.put(bin, f64::from(count)));
    }

    fn put(&mut self, bin: i32, count: f64) {
        self.marks = Kept::default();
        if self.counts.is_empty() {
            self.first = bin;
        }
        if bin < self.first {
            let gap = (self.first - bin) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0.0f32, gap));
            self.first = bin;
        }
        let index = (bin - self.first) as usize;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0.0);
        }
        self.counts[index] += count as f32;
        self.total += count;
    }

    /// Ages what is there by the factor `keep` and adds `other`.
    pub(crate) fn learn(&mut self, other: &Self, keep: f64) {
        self.scale(keep);
        for (bin, count) in other.iter() {
            self.put(bin, count);
        }
    }

    /// Adds `other`, every count times `factor`.
    pub(crate) fn add_scaled(&mut self, other: &Self, factor: f64) {
        for (bin, count) in other.iter() {
            self.put(bin, count * factor);
        }
    }

    pub(crate) fn scale(&mut self, factor: f64) {
        self.marks = Kept::default();
        for count in &mut self.counts {
            *count *= factor as f32;
        }
        self.total *= factor;
    }

    pub(crate) fn total(&self) -> f64 {
        self.total
    }

    /// Occupied bins, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i32, f64)> + '_ {
        (self.first..).zip(self.counts.iter().map(|&count| f64::from(count))).filter(|(_, count)| *count > 0.0)
    }

    /// Fractional position, in bins, of the quantile `q` (0..=1); 0 while empty.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let mut below = 0.0;
        let mut position = f64::from(self.first);
        for (bin, count) in self.iter() {
            let share = ((q * self.total - below) / count).clamp(0.0, 1.0);
            position = f64::from(bin) + share;
            below += count;
            if below >= q * self.total {
                break;
            }
        }
        position
    }

    /// The marks, computed once for a distribution that does not change.
    pub(crate) fn marks(&self) -> Marks {
        *self.marks.get_or_init(|| {
            let far = self.quantile(0.99) + FAR_BINS;
            Marks { p90: self.quantile(0.9), far, beyond: self.above(far) }
        })
    }

    /// Mean rank (0..=1) of the values of `step` in this distribution, ties counted half.
    pub(crate) fn mean_rank(&self, step: &Self) -> f64 {
        let (mut below, mut sum) = (0.0, 0.0);
        let mut passed = 0;
        for (bin, count) in step.iter() {
            let at = usize::try_from(bin - self.first).ok();
            let upto = at.unwrap_or_default().min(self.counts.len());
            below = self.counts[passed.min(upto)..upto].iter().fold(below, |below, &c| below + f64::from(c));
            passed = upto;
            let tie = at.and_then(|at| self.counts.get(at)).map_or(0.0, |&c| f64::from(c));
            sum += count * (below + tie / 2.0) / self.total;
        }
        sum / step.total
    }

    /// Weight of the values at or above a fractional position; the bin that holds it counts in proportion.
    pub(crate) fn above(&self, position: f64) -> f64 {
        let cut = position.floor();
        let part = 1.0 - (position - cut);
        let at = cut as i64 - i64::from(self.first);
        let whole = usize::try_from(at + 1).unwrap_or_default().min(self.counts.len());
        let cut_bin = usize::try_from(at).ok().and_then(|at| self.counts.get(at));
        let first = cut_bin.map_or(0.0, |&count| f64::from(count) * part);
        self.counts[whole..].iter().fold(first, |sum, &count| sum + f64::from(count))
    }
}

impl Sum for Histogram {
    fn add(&mut self, other: &Self) {
        self.learn(other, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut cell = RttCell::default();
        values.iter().for_each(|&v| cell.record(v));
        Histogram::of(&cell)
    }

    #[test]
    fn ranks_are_one_half_for_the_same_values_and_one_for_larger_ones() {
        let base = of(&[1_000, 1_100, 1_200, 1_300, 1_400]);
        assert!((base.mean_rank(&base) - 0.5).abs() < 1e-9);
        assert!((base.mean_rank(&of(&[50_000])) - 1.0).abs() < 1e-9);
        assert!(base.mean_rank(&of(&[500])).abs() < 1e-9);
    }

    #[test]
    fn the_weight_above_a_quantile_is_its_complement() {
        let base = of(&(0..1_000).map(|i| 400 + i * 3).collect::<Vec<_>>());
        for q in [0.1, 0.5, 0.9, 0.99] {
            assert!((base.above(base.quantile(q)) / base.total() - (1.0 - q)).abs() < 1e-6, "{q}");
        }
    }

    #[test]
    fn values_below_the_floor_are_all_alike() {
        assert_eq!(of(&[1, 4, 20]), of(&[30, 30, 30]));
    }
}
