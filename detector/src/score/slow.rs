//! Variance of a statistic's quarter-hour means beyond sampling noise.
//!
//! For: noise that stays for many steps (load, peers coming and going). Ignoring it cost 52 instead of 0.7 false alarms
//! per 1,000 pair-days in measurements.
//! Not for: noise inside a step; that is the sampling variance, which the caller knows.
//! Method: long-run variance by block means; over K steps a slow variance s adds K²s to the variance of a sum, hence K·s
//! to the variance per step.

use serde::{Deserialize, Serialize};

/// Blocks the prior is worth.
const PRIOR_BLOCKS: f64 = 4.0;
/// Weight kept by older blocks when one is added (half-life about a day).
const KEEP: f64 = 0.993;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlowVariance {
    deviation: f64,
    sampling: f64,
    steps: f64,
    excess: f64,
    blocks: f64,
}

impl SlowVariance {
    /// Adds one step's deviation from its expectation and the variance that sampling alone gives it.
    pub(crate) fn add(&mut self, deviation: f64, sampling: f64, steps_per_block: f64, cap: f64) {
        self.deviation += deviation;
        self.sampling += sampling;
        self.steps += 1.0;
        if self.steps < steps_per_block {
            return;
        }
        let mean = self.deviation / self.steps;
        let excess = (mean * mean - self.sampling / (self.steps * self.steps)).clamp(-cap, cap);
        self.excess = self.excess * KEEP + excess;
        self.blocks = self.blocks * KEEP + 1.0;
        (self.deviation, self.sampling, self.steps) = (0.0, 0.0, 0.0);
    }

    /// As [`SlowVariance::add`], for steps of which some belong to faults: one block counts at most twenty times the prior.
    pub(crate) fn add_unusual(&mut self, deviation: f64, sampling: f64, steps_per_block: f64, prior: f64) {
        self.add(deviation, sampling, steps_per_block, 20.0 * prior);
    }

    /// The slow variance, drawn towards `prior` while few blocks were seen; never below a tenth of it.
    pub(crate) fn value(&self, prior: f64) -> f64 {
        ((self.excess + PRIOR_BLOCKS * prior) / (self.blocks + PRIOR_BLOCKS)).max(prior / 10.0)
    }
}

/// Relative variance of a rate's quarter-hour means beyond what its steps explain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlowRate {
    events: f64,
    expected: f64,
    variance: f64,
    steps: f64,
    excess: f64,
    squares: f64,
}

/// Relative variance until more is known, and the squared expected events it is worth.
const RATE_PRIOR: f64 = 0.002;
const RATE_PRIOR_SQUARES: f64 = 10_000.0;

impl SlowRate {
    /// Adds one step: its events, how many were expected, and the variance of that number.
    pub(crate) fn add(&mut self, events: f64, expected: f64, variance: f64, steps_per_block: f64) {
        self.events += events;
        self.expected += expected;
        self.variance += variance;
        self.steps += 1.0;
        if self.steps < steps_per_block {
            return;
        }
        let off = self.events - self.expected;
        // One burst is no slow noise.
        let squared = (off * off).min(9.0 * self.variance + 25.0);
        self.excess = self.excess * KEEP + squared - self.variance;
        self.squares = self.squares * KEEP + self.expected * self.expected;
        (self.events, self.expected, self.variance, self.steps) = (0.0, 0.0, 0.0, 0.0);
    }

    /// The slow relative variance, 0..=0.25.
    pub(crate) fn value(&self) -> f64 {
        ((self.excess + RATE_PRIOR * RATE_PRIOR_SQUARES) / (self.squares + RATE_PRIOR_SQUARES)).clamp(0.0, 0.25)
    }
}
