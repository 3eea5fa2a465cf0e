//! Connection failures: do more attempts fail than this pair's upper bound allows?
//!
//! For: refused, unanswered and rejected attempts, from agents and from flow logs.
//! Not for: established connections that are reset.
//! Method: beta-binomial of failures over attempts, in exact form for the null (failures come in clumps), binomial for
//! the alternatives. Until the pair has its own history the upper bound is at most 1 %.

use serde::{Deserialize, Serialize};

use crate::evidence::POOLED;
use crate::season::{SlotBaseline, SlotCell, Tally};
use crate::topology::PathClass;

use super::cusum::{Cusum, Ratio};
use super::rate::{Counts, Prior, Rate, bounded};
use super::{Judged, LEARN_LIMIT, StepInput};

/// Added share of failures that is looked for.
const ADDED: [f64; 5] = [0.01, 0.03, 0.1, 0.3, 0.7];
/// Those whose evidence is summed over pairs: 1, 3, 10 and 30 %.
const SUMMED: [usize; POOLED] = [0, 1, 2, 3];
/// Attempts after which the pair's own upper bound may exceed [`PRIOR_UPPER`].
const OWN_HISTORY: f64 = 500.0;
const PRIOR_UPPER: f64 = 0.01;
/// Share of failures beyond the upper bound that is no news.
const NULL_ADDED: f64 = 0.0001;
/// Failures the pair's own level is worth beside the time of day: with the few attempts of a slot, the slot's own rate would
/// be little but uncertainty.
const OWN_EVENTS: f64 = 60.0;
/// Correlation of failures within a step until more is known.
const CLUMPING: f64 = 0.05;
const NEW_NORMAL_S: i64 = 86_400;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConnectTest {
    rate: Rate,
    pub(crate) cusum: Cusum,
    held: Option<(i64, f64, f64)>,
}

impl ConnectTest {
    pub(crate) fn judge(&mut self, input: &StepInput<'_>, slot: &mut SlotCell) -> Judged {
        let counters = &input.cell.counters;
        let (failures, attempts) = bounded(counters.failures(), counters.attempts());
        if attempts <= 0.0 {
            return Judged::default();
        }
        let prior = prior(input.class, input.season);
        let mut upper = self.rate.upper(attempts, &prior);
        if self.rate.trials(&prior) < OWN_HISTORY {
            upper = upper.min(PRIOR_UPPER);
        }
        let null = (1.25 * upper + NULL_ADDED).min(0.9);
        // A relative variance φ of the chance is a correlation of about φ·p between attempts.
        let correlation = (self.rate.dispersion(&prior) * null).clamp(1e-4, 0.3);
        let by_chance = beta_binomial(failures, attempts, null, correlation);
        let clip = input.clip(counters.failures(), ADDED.len());
        let mut ratios = [Ratio::default(); ADDED.len()];
        for (ratio, added) in ratios.iter_mut().zip(ADDED) {
            let worse = (null + added).min(0.95);
            // The alternative varies as much as the null does, or a large pair's clumps would look like faults.
            let spread = (correlation * null / worse).max(1e-4);
            *ratio = Ratio { nats: beta_binomial(failures, attempts, worse, spread) - by_chance, clip };
        }
        self.cusum.step(&ratios, input.threshold, input.start_s);
        let held = self.cusum.score() > LEARN_LIMIT;
        let usual = self.rate.learnable(counters.failures(), attempts, &prior);
        let events = if held { counters.failures() } else { usual };
        slot.connects.side(held).add(Tally { events, trials: counters.attempts() });
        let new_normal = self.learn(input, failures, attempts, &prior);
        Judged { judged: true, pooled: SUMMED.map(|index| ratios[index].nats), new_normal }
    }

    fn learn(&mut self, input: &StepInput<'_>, failures: f64, attempts: f64, prior: &Prior) -> Option<i64> {
        if self.cusum.score() <= LEARN_LIMIT {
            self.held = None;
            self.rate.learn(failures, attempts, input, prior);
            return None;
        }
        self.rate.distrust();
        let held = self.held.get_or_insert((input.start_s, 0.0, 0.0));
        held.1 += failures;
        held.2 += attempts;
        let (since, failed, tried) = *held;
        if input.start_s - since < NEW_NORMAL_S {
            return None;
        }
        self.rate.reseed(failed, tried);
        self.cusum.reset();
        self.held = None;
        Some(since)
    }

    /// Forgets an alarm that nothing renews.
    pub(crate) fn reset(&mut self) {
        self.cusum.reset();
        self.held = None;
    }

    /// Expected share of failures and the attempts behind it.
    pub(crate) fn baseline(&self, class: PathClass, season: Option<&SlotBaseline>) -> (f64, f64) {
        let prior = prior(class, season);
        (self.rate.mean(&prior), self.rate.trials(&prior))
    }

    /// Relative variance of the rate, for intervals.
    pub(crate) fn dispersion(&self, class: PathClass) -> f64 {
        self.rate.dispersion(&prior(class, None))
    }
}

fn prior(class: PathClass, season: Option<&SlotBaseline>) -> Prior {
    let rate = match class {
        PathClass::IntraAz | PathClass::InterAz => 2e-3,
        PathClass::Edge => 5e-3,
    };
    let season = season.map_or(Counts::default(), |s| s.connects);
    Prior { rate, events: 2.0, dispersion: CLUMPING / 0.0145, dispersion_weight: 3.0, own: OWN_EVENTS, season }
}

/// Logarithm of the beta-binomial probability, without the binomial coefficient (it cancels in ratios).
fn beta_binomial(events: f64, trials: f64, chance: f64, correlation: f64) -> f64 {
    let total = 1.0 / correlation - 1.0;
    let (a, b) = (chance * total, (1.0 - chance) * total);
    ln_rising(a, events) + ln_rising(b, trials - events) - ln_rising(total, trials)
}

/// ln of x (x+1) … (x+n−1). Multiplied out for small n (a logarithm costs as much as twenty products), Stirling's series
/// beyond (error below 1e-10 there).
fn ln_rising(x: f64, n: f64) -> f64 {
    const DIRECT: f64 = 32.0;
    const LARGE: f64 = 1e200;
    let mut sum = 0.0;
    let mut product = 1.0;
    let mut i = 0.0;
    while i < n.min(DIRECT) {
        product *= x + i;
        i += 1.0;
        if product > LARGE {
            sum += product.ln();
            product = 1.0;
        }
    }
    sum += product.ln();
    if n <= DIRECT { sum } else { sum + ln_gamma_large(x + n) - ln_gamma_large(x + DIRECT) }
}

/// ln Γ(x) for x of at least 32.
fn ln_gamma_large(x: f64) -> f64 {
    const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;
    (x - 0.5) * x.ln() - x + HALF_LN_TAU + 1.0 / (12.0 * x) - 1.0 / (360.0 * x * x * x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Stage;
    use crate::pane::PaneCell;
    use crate::settings::Settings;

    #[test]
    fn the_rising_product_is_the_same_directly_and_by_series() {
        let direct: f64 = (0..500).map(|i| (0.3 + f64::from(i)).ln()).sum();
        assert!((ln_rising(0.3, 500.0) - direct).abs() < 1e-8);
    }

    #[test]
    fn probabilities_of_all_counts_sum_to_one() {
        let choose = |n: u32, k: u32| (1..=k).fold(1.0, |c, i| c * f64::from(n - k + i) / f64::from(i));
        let sum: f64 = (0..=7).map(|k| choose(7, k) * beta_binomial(f64::from(k), 7.0, 0.0145, 0.05).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }

    /// Minutes from `from` on of two attempts each, of which one fails every `every` minutes.
    fn minutes(test: &mut ConnectTest, from: i64, minutes: i64, every: i64) -> bool {
        let (class, stage, mut slot, mut alarmed) = (PathClass::InterAz, Stage::PairRate, SlotCell::default(), false);
        for minute in from..from + minutes {
            let mut cell = PaneCell::default();
            cell.counters.connects = 2;
            cell.counters.connect_failures = u64::from(minute % every == every - 1);
            let threshold = Settings::default().connect_threshold();
            let start_s = minute * 60;
            let input = StepInput { cell: &cell, start_s, step_s: 60, threshold, class, stage, season: None };
            test.judge(&input, &mut slot);
            alarmed |= test.cusum.alarmed();
        }
        alarmed
    }

    #[test]
    fn three_failures_in_forty_attempts_of_a_pair_that_has_few_alarm_within_twenty_minutes_and_two_in_sixteen_do_not() {
        // Missed when failed connections opened at the 12.2 nats of the other signals.
        let mut test = ConnectTest::default();
        assert!(!minutes(&mut test, 0, 6_000, 1_000));
        let mut chance = test.clone();
        assert!(!minutes(&mut chance, 6_000, 8, 4), "{}", chance.cusum.score());
        assert!(minutes(&mut test, 6_000, 20, 6), "{}", test.cusum.score());
    }
}
