//! How large a change is, with a 90 % interval.
//!
//! For: severity and the sentence for people: sizes, never probabilities.
//! Not for: deciding whether there is a change; the tests did.
//! Invariant: baseline and observation are in the same unit (parts per million, or µs), and both are sums a person can
//! check against the panes.

use crate::evidence::Effect;
use crate::pane::PaneCell;

/// 90 % of a normal distribution lie within this many standard deviations.
const NINETY: f64 = 1.645;

/// Observed events among trials against an expected share; `dispersion` is the relative variance of the rate.
pub(super) fn of_rate(events: u64, trials: u64, expected: (f64, f64), dispersion: f64) -> Effect {
    let (rate, behind) = expected;
    let observed = if trials == 0 { 0.0 } else { events as f64 / trials as f64 };
    let spread = (events as f64 + 1.0 + dispersion * (events as f64) * (events as f64)).sqrt() / trials.max(1) as f64;
    Effect {
        baseline: ppm(rate),
        baseline_n: behind as u64,
        observed: ppm(observed),
        observed_n: trials,
        low: ppm((observed - NINETY * spread).max(0.0) - rate),
        high: ppm((observed + NINETY * spread).min(1.0) - rate),
        ..Effect::default()
    }
}

/// Observed flows as a share of the expected; `behind` is the number of flows the expectation rests on.
pub(super) fn of_traffic(flows: u64, expected: f64, behind: f64) -> Effect {
    let share = |flows: f64| ppm(flows / expected.max(1.0));
    let (observed, spread) = (flows as f64, NINETY * (flows as f64 + 1.0).sqrt());
    Effect {
        baseline: 1_000_000,
        baseline_n: behind as u64,
        observed: share(observed),
        observed_n: flows,
        low: share((observed - spread).max(0.0)) - 1_000_000,
        high: share(observed + spread) - 1_000_000,
        ..Effect::default()
    }
}

/// Observed quantile `q` of the round-trip times against the learned one (µs, samples behind it); the interval comes
/// from the order statistics around it.
pub(super) fn of_latency(cell: &PaneCell, q: f64, expected: (f64, f64)) -> Effect {
    let (usual_us, behind) = expected;
    let n = cell.rtt.n();
    let around = NINETY * (q * (1.0 - q) / n.max(1) as f64).sqrt();
    let at = |q: f64| cell.rtt.quantile(q).map_or(0.0, |us| us as f64);
    Effect {
        baseline: usual_us.round() as i64,
        baseline_n: behind as u64,
        observed: at(q) as i64,
        observed_n: n,
        quantile_pct: (q * 100.0).round() as u8,
        low: (at(q - around) - usual_us).round() as i64,
        high: (at(q + around) - usual_us).round() as i64,
        ..Effect::default()
    }
}

/// A share (of −1..=1) in parts per million.
pub(super) fn ppm(share: f64) -> i64 {
    (share * 1e6).round() as i64
}
