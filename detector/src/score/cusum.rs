//! Accumulated evidence over a set of alternatives.
//!
//! For: turning log-likelihood ratios of disjoint steps into a score with a false-alarm guarantee, and telling when an
//! episode is over.
//! Not for: computing the ratios.
//! Invariant: every sum stays within 0..=cap; an episode ends when the alternative that fits it best has fallen
//! [`RECOVERY`] nats from its peak. (A capped sum that must decay kept incidents open for an hour in measurements.)

use serde::{Deserialize, Serialize};

const RECOVERY: f64 = 5.0;
/// Score above which an episode is followed.
const EPISODE: f64 = 6.0;
/// Sums are capped this far above the threshold.
const HEADROOM: f64 = 10.0;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cusum {
    sums: Vec<f64>,
    /// Evidence of the current episode per alternative, uncapped, and its peak; empty without an episode.
    episode: Vec<(f64, f64)>,
    /// End of the last step in which all sums were zero: the estimate of the start.
    zero_s: i64,
    alarmed: bool,
}

impl Cusum {
    /// Adds one step's ratios (nats, one per alternative; `f64::NEG_INFINITY` switches an alternative off).
    pub(crate) fn step(&mut self, ratios: &[f64], threshold: f64, start_s: i64) {
        self.sums.resize(ratios.len(), 0.0);
        let open_at = threshold + self.penalty();
        let mut top = 0.0f64;
        for (sum, ratio) in self.sums.iter_mut().zip(ratios) {
            *sum = if ratio.is_nan() { *sum } else { (*sum + ratio).clamp(0.0, open_at + HEADROOM) };
            top = top.max(*sum);
        }
        if !self.episode.is_empty() {
            self.follow(ratios);
        } else if top > EPISODE {
            self.episode = self.sums.iter().map(|&sum| (sum, sum)).collect();
        }
        if self.top() <= 0.0 {
            self.reset();
            self.zero_s = start_s;
        }
        self.alarmed |= self.score() >= threshold;
    }

    fn follow(&mut self, ratios: &[f64]) {
        let mut best = (f64::NEG_INFINITY, 0.0);
        for ((now, peak), ratio) in self.episode.iter_mut().zip(ratios) {
            // An alternative that is switched off falls like any that does not fit.
            *now += ratio.max(-1e6);
            *peak = peak.max(*now);
            if *peak > best.0 {
                best = (*peak, *peak - *now);
            }
        }
        if best.1 > RECOVERY {
            self.reset();
        }
    }

    /// Forgets everything: back to zero, no alarm.
    pub(crate) fn reset(&mut self) {
        self.sums.fill(0.0);
        self.episode.clear();
        self.alarmed = false;
    }

    /// Evidence against the null in nats, paid for having looked at several alternatives; never below 0.
    pub(crate) fn score(&self) -> f64 {
        (self.top() - self.penalty()).max(0.0)
    }

    /// From the step that crossed the threshold until recovery.
    pub(crate) fn alarmed(&self) -> bool {
        self.alarmed
    }

    /// Estimated start of the change, epoch s.
    pub(crate) fn since_s(&self, step_s: u32) -> i64 {
        self.zero_s.saturating_add(i64::from(step_s))
    }

    /// Index of the alternative with the largest sum.
    pub(crate) fn best(&self) -> usize {
        let mut best = 0;
        for (index, sum) in self.sums.iter().enumerate() {
            if *sum > self.sums[best] {
                best = index;
            }
        }
        best
    }

    fn top(&self) -> f64 {
        self.sums.iter().fold(0.0, |top, &sum| top.max(sum))
    }

    fn penalty(&self) -> f64 {
        (self.sums.len().max(1) as f64).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_lasts_until_the_best_alternative_has_fallen_five_nats() {
        let mut cusum = Cusum::default();
        cusum.step(&[-1.0, -1.0], 10.0, 0);
        for step in 1..=3 {
            cusum.step(&[6.0, 2.0], 10.0, step * 60);
        }
        assert!(cusum.alarmed());
        assert_eq!(cusum.since_s(60), 60);
        cusum.step(&[-4.0, 1.0], 10.0, 240);
        assert!(cusum.alarmed(), "four nats are not enough");
        cusum.step(&[-2.0, 1.0], 10.0, 300);
        assert!(!cusum.alarmed());
        assert_eq!(cusum.score(), 0.0);
    }

    #[test]
    fn sums_are_capped_so_that_long_episodes_do_not_hide_the_next_one() {
        let mut cusum = Cusum::default();
        for step in 0..1_000 {
            cusum.step(&[9.0], 14.0, step * 60);
        }
        assert!(cusum.score() <= 24.0);
        cusum.step(&[-6.0], 14.0, 60_000);
        assert!(!cusum.alarmed());
    }

    #[test]
    fn ratios_that_are_no_numbers_change_nothing() {
        let mut cusum = Cusum::default();
        cusum.step(&[3.0], 14.0, 0);
        cusum.step(&[f64::NAN], 14.0, 60);
        assert_eq!(cusum.score(), 3.0);
    }
}
