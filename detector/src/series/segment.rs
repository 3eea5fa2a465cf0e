//! The level a series has now, and how much it scatters around it.
//!
//! For: median and scaled median absolute deviation of the newest values of one segment. Not for: deciding that the
//! segment is over. Cost: a sort of at most `keep` values at every `REFIT`-th value.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Values between two looks at the median; it moves little in between, and a look sorts.
const REFIT: u32 = 4;
/// Scaled median absolute deviation of a normal distribution = its standard deviation.
const NORMAL: f64 = 1.4826;

/// Level and scatter of the current segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Segment {
    keep: usize,
    values: VecDeque<f64>,
    level: f64,
    scatter: f64,
    /// Values seen since the last look, also those outside the band.
    since_fit: u32,
}

impl Segment {
    /// A segment that began with these values and keeps up to `keep` of them.
    pub(super) fn new(keep: usize, values: impl IntoIterator<Item = f64>) -> Self {
        let mut segment = Self { keep, values: values.into_iter().collect(), level: 0.0, scatter: 0.0, since_fit: 0 };
        segment.fit();
        segment
    }

    /// The median.
    pub(super) fn level(&self) -> f64 {
        self.level
    }

    /// The scaled median absolute deviation.
    pub(super) fn scatter(&self) -> f64 {
        self.scatter
    }

    /// Looks at the median again if it is time to, before the next value is judged.
    pub(super) fn tick(&mut self) {
        if self.since_fit >= REFIT {
            self.fit();
        }
        self.since_fit += 1;
    }

    /// Takes a value that belongs to the segment.
    pub(super) fn push(&mut self, value: f64) {
        self.values.push_back(value);
        if self.values.len() > self.keep {
            self.values.pop_front();
        }
    }

    fn fit(&mut self) {
        let mut sorted: Vec<f64> = self.values.iter().copied().collect();
        self.level = median(&mut sorted);
        sorted.iter_mut().for_each(|value| *value = (*value - self.level).abs());
        self.scatter = NORMAL * median(&mut sorted);
        self.since_fit = 0;
    }
}

/// The median; 0 for no values.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => 0.0,
        (Some(&upper), 1) => upper,
        (Some(&upper), _) => (values[middle - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_value_moves_neither_level_nor_scatter_much() {
        let mut segment = Segment::new(60, [10.0, 11.0, 10.0, 9.0, 10.0, 11.0, 9.0, 10.0]);
        assert_eq!(segment.level(), 10.0);
        let scatter = segment.scatter();
        segment.push(10_000.0);
        segment.fit();
        assert_eq!((segment.level(), segment.scatter()), (10.0, 2.0 * scatter));
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn old_values_are_forgotten() {
        let mut segment = Segment::new(8, [1.0; 8]);
        (0..8).for_each(|_| segment.push(5.0));
        segment.fit();
        assert_eq!((segment.level(), segment.scatter()), (5.0, 0.0));
    }
}
