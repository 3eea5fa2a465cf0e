//! Accumulated evidence over a set of alternatives.
//!
//! For: turning log-likelihood ratios of disjoint steps into a score with a false-alarm guarantee, and telling when an
//! episode is over.
//! Not for: computing the ratios.
//! Invariant: every sum stays within 0..=cap; an episode ends when the alternative that fits it best has fallen
//! [`RECOVERY`] nats from its peak. (A capped sum that must decay kept incidents open for an hour in measurements.)

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

const RECOVERY: f64 = 5.0;
/// Score above which an episode is followed.
const EPISODE: f64 = 6.0;
/// Sum from which it matters how many alternatives agree; below, a lower bound of the score will do.
const AGREE: f64 = 5.0;
/// Sums are capped this far above the threshold.
const HEADROOM: f64 = 10.0;

/// One step's log-likelihood ratio for one alternative, and the most of it that may be believed at once, nats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) nats: f64,
    pub(crate) clip: f64,
}

impl Ratio {
    pub(crate) fn clipped(&self) -> f64 {
        self.nats.min(self.clip)
    }
}

/// ln of the number of alternatives: asked for several times a step.
static PENALTIES: LazyLock<[f64; 20]> = LazyLock::new(|| std::array::from_fn(|n| (n.max(1) as f64).ln()));

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cusum {
    sums: Vec<f64>,
    /// Evidence of the current episode per alternative, uncapped, and its peak; empty without an episode.
    episode: Vec<(f64, f64)>,
    /// Start of the step in which the sums left zero: the estimate of the start of the change.
    rise_s: i64,
    alarmed: bool,
}

impl Cusum {
    /// Adds one step's ratios, one per alternative. A longer list than before adds alternatives at its end.
    pub(crate) fn step(&mut self, ratios: &[Ratio], threshold: f64, start_s: i64) {
        if self.sums.len() < ratios.len() {
            self.sums.resize(ratios.len(), 0.0);
        }
        let was_zero = self.top() <= 0.0;
        let cap = threshold + self.penalty() + HEADROOM;
        for (sum, ratio) in self.sums.iter_mut().zip(ratios).filter(|(_, ratio)| !ratio.nats.is_nan()) {
            *sum = (*sum + ratio.clipped()).clamp(0.0, cap);
        }
        if !self.episode.is_empty() {
            self.follow(ratios);
        } else if self.top() > EPISODE {
            self.episode = self.sums.iter().map(|&sum| (sum, sum)).collect();
        }
        if self.top() <= 0.0 {
            self.reset();
        } else if was_zero {
            self.rise_s = start_s;
        }
        self.alarmed |= self.score() >= threshold;
    }

    /// Follows the episode on unclipped ratios: clipped ones tie, and the alternative that fits would not be known.
    fn follow(&mut self, ratios: &[Ratio]) {
        let mut best = (f64::NEG_INFINITY, 0.0);
        for ((now, peak), ratio) in self.episode.iter_mut().zip(ratios).filter(|(_, ratio)| !ratio.nats.is_nan()) {
            *now += ratio.nats;
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

    /// Evidence against the null in nats, never below 0: the mean of what the alternatives say. (Each sum is an e-detector,
    /// hence so is their mean. The largest less ln of their number, a lower bound of it, threw away up to as much where the
    /// fault lies between two alternatives.)
    pub(crate) fn score(&self) -> f64 {
        let top = self.top();
        let agree = if top > AGREE { self.sums.iter().map(|sum| (sum - top).exp()).sum::<f64>().ln() } else { 0.0 };
        (top + agree - self.penalty()).max(0.0)
    }

    /// From the step that crossed the threshold until recovery.
    pub(crate) fn alarmed(&self) -> bool {
        self.alarmed
    }

    /// Whether the sum of an alternative is above zero.
    pub(crate) fn is_running(&self, alternative: usize) -> bool {
        self.sums.get(alternative).is_some_and(|&sum| sum > 0.0)
    }

    /// Estimated start of the change, epoch s.
    pub(crate) fn since_s(&self) -> i64 {
        self.rise_s
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
        PENALTIES.get(self.sums.len()).copied().unwrap_or_else(|| (self.sums.len() as f64).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(cusum: &mut Cusum, nats: &[f64], threshold: f64, start_s: i64) {
        let ratios: Vec<Ratio> = nats.iter().map(|&nats| Ratio { nats, clip: 9.0 }).collect();
        cusum.step(&ratios, threshold, start_s);
    }

    #[test]
    fn an_alarm_lasts_until_the_best_alternative_has_fallen_five_nats() {
        let mut cusum = Cusum::default();
        step(&mut cusum, &[-1.0, -1.0], 10.0, 0);
        for i in 1..=3 {
            step(&mut cusum, &[6.0, 2.0], 10.0, i * 60);
        }
        assert!(cusum.alarmed());
        assert_eq!(cusum.since_s(), 60);
        step(&mut cusum, &[-4.0, 1.0], 10.0, 240);
        assert!(cusum.alarmed(), "four nats are not enough");
        step(&mut cusum, &[-2.0, 1.0], 10.0, 300);
        assert!(!cusum.alarmed());
        assert_eq!(cusum.score(), 0.0);
    }

    #[test]
    fn sums_are_capped_so_that_long_episodes_do_not_hide_the_next_one() {
        let mut cusum = Cusum::default();
        for i in 0..1_000 {
            step(&mut cusum, &[9.0], 14.0, i * 60);
        }
        assert!(cusum.score() <= 24.0);
        step(&mut cusum, &[-6.0], 14.0, 60_000);
        assert!(!cusum.alarmed());
    }

    #[test]
    fn one_step_never_opens_however_strong_it_is() {
        let mut cusum = Cusum::default();
        step(&mut cusum, &[1e9], 14.0, 0);
        assert!(!cusum.alarmed());
    }

    #[test]
    fn a_fault_between_two_alternatives_counts_for_both_and_never_for_more_than_the_best_of_them() {
        let mut one = Cusum::default();
        step(&mut one, &[8.0, -8.0], 14.0, 0);
        assert!((one.score() - (8.0 - 2f64.ln())).abs() < 1e-3, "{}", one.score());
        let mut both = Cusum::default();
        step(&mut both, &[8.0, 8.0], 14.0, 0);
        assert!((both.score() - 8.0).abs() < 1e-9, "{}", both.score());
    }

    #[test]
    fn ratios_that_are_no_numbers_change_nothing() {
        let mut cusum = Cusum::default();
        step(&mut cusum, &[3.0], 14.0, 0);
        step(&mut cusum, &[f64::NAN], 14.0, 60);
        assert_eq!(cusum.score(), 3.0);
    }
}
