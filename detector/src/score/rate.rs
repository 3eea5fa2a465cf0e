//! Learned rates of counts, and the ratios of likelihoods against worse rates.
//!
//! For: retransmitted segments per segment, flows with retransmissions per flow, failures per attempt.
//! Not for: round-trip times.
//! Invariant: rates are drawn to a prior worth a few events, so they are usable from the first step; what is tested
//! against is an upper bound, so a pair with little history has a wide null.

use serde::{Deserialize, Serialize};

use crate::evidence::Stage;

use super::StepInput;
use super::probation::{Probation, Sum};
use super::slow::SlowRate;

/// Half-lives of the two horizons, s. The short one follows the time of day, the long one carries the level.
const LONG_S: f64 = 172_800.0;
const SHORT_S: f64 = 3_600.0;
/// Time that leaves the waiting room together, s.
const BLOCK_S: f64 = 300.0;
/// Events the long horizon is worth to the short one and, usually, to the time of day.
const SHORT_PRIOR_EVENTS: f64 = 10.0;
pub(crate) const SEASON_PRIOR_EVENTS: f64 = 10.0;

/// Weighted events among trials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) events: f64,
    pub(crate) trials: f64,
}

impl Counts {
    fn learn(&mut self, new: Self, keep: f64) {
        self.events = self.events * keep + new.events;
        self.trials = self.trials * keep + new.trials;
    }
}

/// Prior belief about a rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prior {
    /// Expected events per trial.
    pub(crate) rate: f64,
    /// Events the belief is worth.
    pub(crate) events: f64,
    /// Overdispersion: relative variance of the rate from step to step.
    pub(crate) dispersion: f64,
    /// Steps (in units of squared expected events) the dispersion is worth.
    pub(crate) dispersion_weight: f64,
    /// Events the pair's own level is worth beside what was usual at this time of day.
    pub(crate) own: f64,
    /// What was usual at this time of day; empty without history.
    pub(crate) season: Counts,
}

impl Sum for Counts {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.trials += other.trials;
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    waiting: Probation<Counts>,
    long: Counts,
    short: Counts,
    /// Sum of (events − expected)² − expected, and of expected².
    excess: f64,
    squares: f64,
    slow: SlowRate,
}

impl Rate {
    /// Learns one step: its spread at once, its level after a wait (none in the first hour). Events far above the
    /// expectation are cut, so that neither a burst nor the first moments of a fault become the level.
    pub(crate) fn learn(&mut self, events: f64, trials: f64, input: &StepInput<'_>, prior: &Prior) {
        if trials <= 0.0 {
            return;
        }
        let step_s = f64::from(input.step_s);
        let expected = self.mean(prior) * trials;
        let usual = expected + self.dispersion(prior) * expected * expected;
        let squared = ((events - expected) * (events - expected)).min(9.0 * usual + 4.0);
        let keep = (-step_s / LONG_S).exp2();
        self.excess = self.excess * keep + squared - expected;
        self.squares = self.squares * keep + expected * expected;
        self.slow.add(events, expected, usual, input.steps_per_block());
        let step = Counts { events: events.min(most(expected)), trials };
        let (learned, seconds) = if input.stage == Stage::ClassPrior {
            (Some(step), step_s)
        } else {
            (self.waiting.admit(input.start_s, &step), BLOCK_S)
        };
        if let Some(learned) = learned {
            self.long.learn(learned, (-seconds / LONG_S).exp2());
            self.short.learn(learned, (-seconds / SHORT_S).exp2());
        }
    }

    /// Forgets what waits to be learned: it may belong to the episode that has begun.
    pub(crate) fn distrust(&mut self) {
        self.waiting.clear();
    }

    /// Expected events per trial.
    pub(crate) fn mean(&self, prior: &Prior) -> f64 {
        let own = (self.long.events + prior.events) / (self.long.trials + prior.events / prior.rate);
        if prior.season.trials <= 0.0 {
            return own;
        }
        (prior.season.events + prior.own) / (prior.season.trials + prior.own / own)
    }

    /// Events behind the mean.
    fn behind(&self, prior: &Prior) -> f64 {
        let own = self.long.events + prior.events;
        if prior.season.trials <= 0.0 { own } else { prior.season.events + own.min(prior.own) }
    }

    /// The most events of a step that are learned; beyond, a burst would become the level.
    pub(crate) fn learnable(&self, events: u64, trials: f64, prior: &Prior) -> u64 {
        events.min(most(self.mean(prior) * trials).ceil() as u64)
    }

    /// Upper bound (2 standard deviations) of the rate for a step of `trials`.
    pub(crate) fn upper(&self, trials: f64, prior: &Prior) -> f64 {
        let mean = self.mean(prior);
        let noise = (1.0 + self.dispersion(prior) * mean * trials) / self.behind(prior) + self.slow.value();
        let recent = (self.short.events + SHORT_PRIOR_EVENTS) / (self.short.trials + SHORT_PRIOR_EVENTS / mean);
        (mean * (1.0 + 2.0 * noise.sqrt())).max(recent)
    }

    /// Relative variance of the rate from step to step.
    pub(crate) fn dispersion(&self, prior: &Prior) -> f64 {
        let weight = prior.dispersion_weight;
        ((self.excess + prior.dispersion * weight) / (self.squares + weight)).clamp(prior.dispersion / 50.0, 3.0)
    }

    /// Trials behind the mean.
    pub(crate) fn trials(&self, prior: &Prior) -> f64 {
        if prior.season.trials > 0.0 { prior.season.trials } else { self.long.trials }
    }

    /// Starts over from a lasting new level.
    pub(crate) fn reseed(&mut self, events: f64, trials: f64) {
        self.long = Counts { events, trials };
        self.short = self.long;
    }
}

fn most(expected: f64) -> f64 {
    3.0 * expected + 5.0
}

/// Events and trials as numbers the ratios can be computed with: above a thousand million trials a step's counts are
/// scaled down together, or rounding would exceed the evidence. Never more events than trials.
pub(crate) fn bounded(events: u64, trials: u64) -> (f64, f64) {
    const MOST: f64 = 1e9;
    let (events, trials) = (events.min(trials) as f64, trials as f64);
    if trials <= MOST { (events, trials) } else { (events * (MOST / trials), MOST) }
}

/// Log-likelihood ratio of a negative-binomial count with mean `worse` against mean `null`, both with relative variance
/// `dispersion`.
pub(crate) fn count_ratio(events: f64, null: f64, worse: f64, dispersion: f64) -> f64 {
    let shape = 1.0 / dispersion.max(1e-9);
    events * (worse / null).ln() - (events + shape) * ((shape + worse) / (shape + null)).ln()
}

/// Log-likelihood ratio of `events` among `trials` with chance `worse` against chance `null`, where only `effective`
/// trials count as independent.
pub(crate) fn share_ratio(events: f64, trials: f64, null: f64, worse: f64, effective: f64) -> f64 {
    let share = (events / trials).min(1.0);
    effective * (share * (worse / null).ln() + (1.0 - share) * ((1.0 - worse) / (1.0 - null)).ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pane::PaneCell;
    use crate::topology::PathClass;

    const PRIOR: Prior = Prior {
        rate: 5e-4,
        events: 3.0,
        dispersion: 0.3,
        dispersion_weight: 20.0,
        own: SEASON_PRIOR_EVENTS,
        season: Counts { events: 0.0, trials: 0.0 },
    };

    #[test]
    fn the_upper_bound_closes_in_on_the_rate_as_history_grows() {
        let mut rate = Rate::default();
        let wide = rate.upper(1_000.0, &PRIOR) / rate.mean(&PRIOR);
        let cell = PaneCell::default();
        for step in 0..5_000 {
            let (stage, class) = (Stage::PairRate, PathClass::InterAz);
            let start_s = step * 60;
            let input = StepInput { cell: &cell, start_s, step_s: 60, threshold: 14.0, class, stage, season: None };
            rate.learn(1.0, 1_000.0, &input, &PRIOR);
        }
        let narrow = rate.upper(1_000.0, &PRIOR) / rate.mean(&PRIOR);
        assert!(wide > 2.0 && narrow < 1.2, "{wide} {narrow}");
        assert!((rate.mean(&PRIOR) - 1e-3).abs() < 1e-4);
    }

    #[test]
    fn counts_that_lie_stay_computable() {
        assert_eq!(bounded(7, 5), (5.0, 5.0));
        let (events, trials) = bounded(u64::MAX / 2, u64::MAX);
        assert_eq!((events, trials), (5e8, 1e9));
    }

    #[test]
    fn a_count_at_the_null_is_no_evidence_and_one_at_the_alternative_is() {
        assert!(count_ratio(5.0, 5.0, 50.0, 0.2) < 0.0);
        assert!(count_ratio(50.0, 5.0, 50.0, 0.2) > 5.0);
        assert!(share_ratio(1.0, 8.0, 0.25, 0.9, 8.0) < 0.0);
        assert!(share_ratio(8.0, 8.0, 0.25, 0.9, 8.0) > 8.0);
    }
}
