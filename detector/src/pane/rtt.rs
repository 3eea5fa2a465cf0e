//! Round-trip times of a pane as a sparse HdrHistogram.
//!
//! For: exact merging and subtraction of round-trip time counts; bucket borders are those of `hdrhistogram` with 2
//! significant digits and a lowest value of 1 µs, so [`RttCell::to_hdr`] loses nothing.
//! Not for: percentiles of packets. The sampling unit is the flow record (its mean), not the segment.
//! Invariant: `n` is the sum of all counts.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::sorted::SortedMap;

/// Smallest round-trip time kept, µs; smaller values are raised to it.
pub const RTT_MIN_US: u64 = 1;
/// Largest round-trip time kept, µs (60 s); larger values are lowered to it.
pub const RTT_MAX_US: u64 = 60_000_000;

/// 2 significant digits need 200 units of resolution; HdrHistogram rounds up to a power of two.
const SUB_BUCKETS: u64 = 256;
const HALF: u64 = SUB_BUCKETS / 2;

/// Sparse histogram of round-trip times in µs, one value per flow record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RttCell {
    counts: SortedMap<u16, u64>,
    n: u64,
    min_us: Option<u64>,
    max_us: Option<u64>,
    readings: u64,
    sum_us: u64,
}

impl RttCell {
    /// Records one flow record's round-trip times given as (count, min, max, sum) in µs: one histogram value at
    /// sum / count, with the extremes and the sum kept beside it. A count of 0 means "not measured" and records nothing.
    /// Returns whether something was recorded.
    pub fn record_summary(&mut self, count: u64, min_us: u64, max_us: u64, sum_us: u64) -> bool {
        if count == 0 {
            return false;
        }
        self.record_n(sum_us / count, 1);
        self.fold_extremes(min_us, max_us);
        self.readings = self.readings.saturating_add(count);
        self.sum_us = self.sum_us.saturating_add(sum_us);
        true
    }

    /// Records one measured value in µs.
    pub fn record(&mut self, rtt_us: u64) {
        self.record_values(rtt_us, 1);
    }

    /// Records `n` flow records with the same value in µs (a bucket of a histogram that was delivered as one).
    pub fn record_values(&mut self, rtt_us: u64, n: u64) {
        if n == 0 {
            return;
        }
        self.record_n(rtt_us, n);
        self.fold_extremes(rtt_us, rtt_us);
        self.readings = self.readings.saturating_add(n);
        self.sum_us = self.sum_us.saturating_add(rtt_us.saturating_mul(n));
    }

    /// Number of histogram values (flow records with a round-trip time).
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Number of readings behind them, as told by the reporters.
    pub fn readings(&self) -> u64 {
        self.readings
    }

    /// Sum of all readings in µs, saturating.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Smallest reading in µs, `None` while empty.
    pub fn min_us(&self) -> Option<u64> {
        self.min_us
    }

    /// Largest reading in µs, `None` while empty.
    pub fn max_us(&self) -> Option<u64> {
        self.max_us
    }

    /// Adds `other`.
    pub fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts, usize::MAX, |mine, theirs| *mine = mine.saturating_add(*theirs));
        self.n = self.n.saturating_add(other.n);
        self.readings = self.readings.saturating_add(other.readings);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        if let (Some(low), Some(high)) = (other.min_us, other.max_us) {
            self.fold_extremes(low, high);
        }
    }

    pub(crate) fn set_extremes(&mut self, min_us: Option<u64>, max_us: Option<u64>) {
        self.min_us = min_us;
        self.max_us = max_us;
    }

    /// Occupied buckets in ascending order: (representative value in µs, count).
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts.iter().map(|&(bucket, count)| (middle(bucket), count))
    }

    /// Occupied buckets as (HdrHistogram count index, count), for the exchange format.
    pub fn buckets(&self) -> impl DoubleEndedIterator<Item = (u16, u64)> + '_ {
        self.counts.iter().copied()
    }

    /// Rebuilds a cell from its parts (the inverse of the getters), as the exchange format needs it. `None` when a
    /// bucket lies outside 1 µs..60 s or is given twice, or a count is 0. Their sum saturates, as it does in merging.
    pub fn from_parts(
        buckets: impl IntoIterator<Item = (u16, u64)>,
        readings: u64,
        sum_us: u64,
        extremes: Option<(u64, u64)>,
    ) -> Option<Self> {
        let last = bucket_of(RTT_MAX_US);
        let mut cell = Self { readings, sum_us, ..Self::default() };
        let mut given = 0;
        for (bucket, count) in buckets {
            given += 1;
            if bucket > last || count == 0 {
                return None;
            }
            cell.counts.or_insert_with(bucket, || count);
            if cell.counts.len() != given {
                return None;
            }
            cell.n = cell.n.saturating_add(count);
        }
        if let Some((low, high)) = extremes {
            cell.set_extremes(Some(low), Some(high));
        }
        Some(cell)
    }

    /// The value in µs below or at which a share `q` (0..=1) of the values lies, as HdrHistogram defines it (highest
    /// value of the bucket). `None` while empty.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.n == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * self.n as f64).ceil() as u64).clamp(1, self.n);
        let mut below = 0u64;
        for &(bucket, count) in self.counts.iter() {
            below = below.saturating_add(count);
            if below >= rank {
                return Some(highest(bucket));
            }
        }
        None
    }

    /// The dense form for queries and interchange. `None` only if the library refuses the fixed bounds.
    pub fn to_hdr(&self) -> Option<Histogram<u64>> {
        let mut dense = Histogram::<u64>::new_with_bounds(RTT_MIN_US, RTT_MAX_US, 2).ok()?;
        for &(bucket, count) in self.counts.iter() {
            dense.record_n(lowest(bucket), count).ok()?;
        }
        Some(dense)
    }

    fn record_n(&mut self, rtt_us: u64, n: u64) {
        let slot = self.counts.or_insert_with(bucket_of(rtt_us), || 0);
        *slot = slot.saturating_add(n);
        self.n = self.n.saturating_add(n);
    }

    fn fold_extremes(&mut self, low: u64, high: u64) {
        self.min_us = Some(self.min_us.map_or(low, |x| x.min(low)));
        self.max_us = Some(self.max_us.map_or(high, |x| x.max(high)));
    }
}

/// HdrHistogram's count index of a value (sub-bucket layout for 2 significant digits).
pub(crate) fn bucket_of(rtt_us: u64) -> u16 {
    let value = rtt_us.clamp(RTT_MIN_US, RTT_MAX_US);
    let power = 64 - (value | (SUB_BUCKETS - 1)).leading_zeros() as u64 - SUB_BUCKETS.trailing_zeros() as u64;
    let sub = value >> power;
    // Values are at most 60 s, so the index is at most 2559.
    (power * HALF + sub) as u16
}

fn lowest(bucket: u16) -> u64 {
    let index = u64::from(bucket);
    if index < SUB_BUCKETS {
        return index;
    }
    let power = index / HALF - 1;
    (index - power * HALF) << power
}

fn width(bucket: u16) -> u64 {
    let index = u64::from(bucket);
    if index < SUB_BUCKETS { 1 } else { 1 << (index / HALF - 1) }
}

fn highest(bucket: u16) -> u64 {
    lowest(bucket) + width(bucket) - 1
}

/// Value in µs that stands for a bucket.
pub(crate) fn middle(bucket: u16) -> u64 {
    lowest(bucket) + width(bucket) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_hdrhistogram() {
        let dense = Histogram::<u64>::new_with_bounds(RTT_MIN_US, RTT_MAX_US, 2).unwrap();
        let mut value = 1u64;
        while value <= RTT_MAX_US {
            for v in [value, value + 1, value.saturating_mul(3) / 2] {
                let v = v.min(RTT_MAX_US);
                let bucket = bucket_of(v);
                assert_eq!(lowest(bucket), dense.lowest_equivalent(v), "lowest of {v}");
                assert_eq!(highest(bucket), dense.highest_equivalent(v), "highest of {v}");
            }
            value = value * 17 / 16 + 1;
        }
    }

    #[test]
    fn quantiles_agree_with_the_dense_form() {
        let mut cell = RttCell::default();
        for i in 0..1_000u64 {
            cell.record(300 + i * i % 7_919);
        }
        let dense = cell.to_hdr().unwrap();
        assert_eq!(dense.len(), cell.n());
        for q in [0.01, 0.1, 0.5, 0.9, 0.99, 1.0] {
            assert_eq!(cell.quantile(q), Some(dense.value_at_quantile(q)), "quantile {q}");
        }
    }

    #[test]
    fn values_outside_the_range_are_moved_to_its_ends_and_zero_counts_record_nothing() {
        let mut cell = RttCell::default();
        assert!(!cell.record_summary(0, 5, 5, 5));
        cell.record(0);
        cell.record(u64::MAX);
        assert_eq!(cell.n(), 2);
        assert_eq!(cell.quantile(0.0), Some(1));
        assert!(cell.quantile(1.0).unwrap() >= RTT_MAX_US);
    }
}
