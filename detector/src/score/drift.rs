//! Shifts of a statistic that drifts slowly by itself.
//!
//! For: the mean rank of round-trip times, whose noise comes in two kinds: sampling, new in every step, and a slow drift
//! (load, peers coming and going) that stays for a quarter of an hour.
//! Not for: learning how strong the drift is; see `slow`.
//! Method: under the null a Kalman filter follows the drift as an AR(1) process; an alternative says that the shift came on
//! top of where the drift was then, which fades. The log-likelihood ratio compares how well they predicted the step. A
//! sudden shift shows in the steps in which it comes, before the drift could have gone there; taking the drift as a fixed
//! variance needed three times as many steps.
//! Invariant: an alternative starts from the null's drift whenever its sum is at zero, and never follows what comes after:
//! one that did would explain the recovery as well as the fault, and its alarm would not end.

use serde::{Deserialize, Serialize};

/// Time constant of the drift, s.
const DRIFT_S: f64 = 1_200.0;
/// Squared surprises the prior is worth, and their mean.
const PRIOR_STEPS: f64 = 60.0;
const PRIOR_SURPRISE: f64 = 1.3;
/// Half-life of what is known about surprises, s.
const HALF_LIFE_S: f64 = 86_400.0;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drift {
    mean: f64,
    variance: f64,
    /// Where the drift was when each alternative began, faded since, and how uncertain that is.
    began: Vec<(f64, f64)>,
    /// Sum of squared surprises in units of the expected, and their number.
    surprises: f64,
    steps: f64,
}

/// One step of the statistic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observed {
    /// Its value; 0 is usual.
    pub(crate) value: f64,
    /// Variance by sampling.
    pub(crate) sampling: f64,
    /// Variance of the drift.
    pub(crate) slow: f64,
    /// Length of the step, s.
    pub(crate) step_s: f64,
    /// The largest shift that is no news.
    pub(crate) null: f64,
}

impl Drift {
    /// Log-likelihood ratios of the shifts looked for. `running` says which alternatives have a sum above zero; while the
    /// pair is `alarmed` the null's drift follows the shift at a fourth of its pace.
    pub(crate) fn step<const N: usize>(
        &mut self,
        seen: &Observed,
        shifts: [f64; N],
        running: impl Fn(usize) -> bool,
        alarmed: bool,
    ) -> [f64; N] {
        let keep = (-seen.step_s / DRIFT_S).exp();
        let drift = self.mean * keep;
        let variance = self.variance * keep * keep + seen.slow * (1.0 - keep * keep);
        let expected = variance + seen.sampling;
        let gain = variance / expected;
        let surprising = self.surprise();
        // A drift that was below the usual and comes back is no news, nor is any shift up to the null's.
        let beyond = if seen.value > 0.0 { seen.value - drift.max(0.0) } else { (seen.value - drift).min(0.0) };
        let by_chance = if beyond > seen.null { beyond - seen.null } else { beyond.min(0.0) };
        self.began.resize(N, (self.mean, self.variance));
        let mut ratios = [0.0; N];
        for (index, (ratio, shift)) in ratios.iter_mut().zip(shifts).enumerate() {
            let began = if running(index) { self.began[index] } else { (self.mean, self.variance) };
            let began = (began.0 * keep, began.1 * keep * keep + seen.slow * (1.0 - keep * keep));
            let by_shift = seen.value - began.0 - shift;
            let spread = began.1 + seen.sampling;
            let fit = by_chance * by_chance / expected - by_shift * by_shift / spread;
            *ratio = (fit / surprising + (expected / spread).ln()) / 2.0;
            self.began[index] = began;
        }
        let surprise = seen.value - drift;
        self.mean = drift + if alarmed { gain / 4.0 } else { gain } * surprise;
        self.variance = variance * (1.0 - gain);
        if !alarmed {
            let aged = (-seen.step_s / HALF_LIFE_S).exp2();
            self.surprises = self.surprises * aged + (surprise * surprise / expected).min(9.0);
            self.steps = self.steps * aged + 1.0;
        }
        ratios
    }

    /// Mean squared surprise in units of the expected; at least 1.
    fn surprise(&self) -> f64 {
        ((self.surprises + PRIOR_STEPS * PRIOR_SURPRISE) / (self.steps + PRIOR_STEPS)).max(1.0)
    }

    /// Starts over from a lasting new level.
    pub(crate) fn reset(&mut self) {
        self.mean = 0.0;
        self.began.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIFTS: [f64; 2] = [0.15, 0.4];

    fn seen(value: f64) -> Observed {
        Observed { value, sampling: 1e-3, slow: 4e-4, step_s: 60.0, null: 0.03 }
    }

    #[test]
    fn a_sudden_shift_shows_at_once_and_the_same_shift_come_slowly_much_less() {
        let mut drift = Drift::default();
        (0..200).for_each(|_| {
            drift.step(&seen(0.0), SHIFTS, |_| false, false);
        });
        let mut slow = drift.clone();
        let sudden = drift.step(&seen(0.16), SHIFTS, |_| false, false);
        assert!(sudden[0] > 5.0, "{sudden:?}");
        let mut top: f64 = 0.0;
        for i in 1..=32 {
            top = top.max(slow.step(&seen(0.005 * f64::from(i)), SHIFTS, |_| false, false)[0]);
        }
        assert!(top < 2.0, "{top}");
    }

    #[test]
    fn a_shift_that_stays_goes_on_counting_against_the_null() {
        let mut drift = Drift::default();
        let mut sum = 0.0;
        for _ in 0..60 {
            sum += drift.step(&seen(0.16), SHIFTS, |_| sum > 0.0, false)[0];
        }
        assert!(sum > 20.0, "{sum}");
    }
}
