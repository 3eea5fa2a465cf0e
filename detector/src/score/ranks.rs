//! Three views of how a step's round-trip times rank in the usual distribution.
//!
//! For: the log-likelihood ratios of the latency test.
//! Not for: what is usual, and whether to believe it; see `latency` and `cohort`.
//! Method: mean rank (see `drift`), share above the 90th percentile, share far above everything usual (both binomial). All
//! count only as many samples as are independent, given slow noise and the size of the baseline.

use crate::evidence::POOLED;

use super::StepInput;
use super::cusum::{Cusum, Ratio};
use super::drift::{Drift, Observed};
use super::histogram::{Histogram, Marks};
use super::rate::share_ratio;
use super::slow::SlowVariance;

/// Mean rank that is no news, and the shifts looked for.
const RANK_NULL: f64 = 0.03;
const RANK_SHIFTS: [f64; 4] = [0.08, 0.15, 0.25, 0.4];
/// Multiples of the usual tenth above the 90th percentile.
const TAIL_NULL: f64 = 1.3;
const TAIL_FACTORS: [f64; 4] = [1.8, 2.5, 4.0, 7.0];
/// Shares of samples far above the 99th percentile.
const FAR_SHARES: [f64; 2] = [0.3, 0.7];
const FAR_CORRELATION: f64 = 0.1;
/// Number of shifts of the mean rank; they come first.
pub(super) const RANKS: usize = RANK_SHIFTS.len();
pub(super) const ALTERNATIVES: usize = RANKS + TAIL_FACTORS.len() + FAR_SHARES.len();
/// Those whose evidence is summed over pairs: shifts of the mean rank by 0.08 and 0.15, tails of 1.8 and 2.5 times the usual.
const SUMMED: [usize; POOLED] = [0, 1, RANKS, RANKS + 1];
/// Variance of one sample's rank: that of a uniform variable, half as much again for samples that share a peer.
const RANK_VARIANCE: f64 = 1.0 / 8.0;
pub(super) const RANK_SLOW_PRIOR: f64 = 1e-3;
/// The same of being above the 90th percentile.
pub(super) const TAIL_VARIANCE: f64 = 0.135;
const TAIL_SLOW_PRIOR: f64 = 4e-4;

#[derive(Debug, Clone, Copy)]
pub(super) struct Views {
    pub(super) rank: f64,
    pub(super) rank_sampling: f64,
    rank_slow: f64,
    pub(super) tail_share: f64,
    tail_effective: f64,
    far_share: f64,
    far_null: f64,
    far_effective: f64,
}

impl Views {
    pub(super) fn of(
        step: &Histogram,
        base: &Histogram,
        input: &StepInput<'_>,
        rank_slow: &SlowVariance,
        tail_slow: &SlowVariance,
    ) -> Self {
        let (n, m) = (step.total(), base.total());
        let block = input.steps_per_block();
        let rank_sampling = RANK_VARIANCE / n;
        let tail_sampling = TAIL_VARIANCE / n + 0.09 / m;
        let Marks { p90, far, beyond } = base.marks();
        Self {
            rank: base.mean_rank(step) - 0.5,
            rank_sampling,
            rank_slow: RANK_VARIANCE / m + rank_slow.value(RANK_SLOW_PRIOR),
            tail_share: step.above(p90) / n,
            tail_effective: 0.09 / (tail_sampling + block * tail_slow.value(TAIL_SLOW_PRIOR)),
            far_share: step.above(far) / n,
            far_null: ((beyond + 1.0 + 2.0 * (beyond + 1.0).sqrt()) / (m + 2.0)).clamp(0.02, 0.25),
            far_effective: n / (1.0 + (n - 1.0) * FAR_CORRELATION),
        }
    }
}

/// What is summed over pairs: for a shift at most what the step alone, without any drift, says for it. (The end of a drift
/// surprises too: after one wild step of all pairs the calm ones that followed let their elements alarm.)
pub(super) fn summed(ratios: &[Ratio; ALTERNATIVES], views: &Views) -> [f64; POOLED] {
    let by_chance = if views.rank > RANK_NULL { views.rank - RANK_NULL } else { views.rank.min(0.0) };
    let alone = |shift: f64| {
        let by_shift = views.rank - shift;
        (by_chance * by_chance - by_shift * by_shift) / (2.0 * views.rank_sampling)
    };
    SUMMED.map(|index| {
        let nats = ratios[index].nats;
        RANK_SHIFTS.get(index).map_or(nats, |&shift| nats.min(alone(shift).max(0.0)))
    })
}

/// The ratios of a step of `n` samples, one per alternative.
pub(super) fn ratios(
    input: &StepInput<'_>,
    n: f64,
    views: &Views,
    drift: &mut Drift,
    cusum: &Cusum,
) -> [Ratio; ALTERNATIVES] {
    let mut ratios = [Ratio::default(); ALTERNATIVES];
    let carried = |share: f64| input.clip((share * n).round() as u64, ALTERNATIVES);
    let (rank, rest) = ratios.split_at_mut(RANKS);
    let (tail, far) = rest.split_at_mut(TAIL_FACTORS.len());
    let seen = Observed {
        value: views.rank,
        sampling: views.rank_sampling,
        slow: views.rank_slow,
        step_s: f64::from(input.step_s),
        null: RANK_NULL,
    };
    let shifts = drift.step(&seen, RANK_SHIFTS, |index| cusum.is_running(index), cusum.alarmed());
    for (ratio, nats) in rank.iter_mut().zip(shifts) {
        *ratio = Ratio { nats, clip: carried(1.0) };
    }
    for (ratio, factor) in tail.iter_mut().zip(TAIL_FACTORS) {
        let nats = share_ratio(views.tail_share, 1.0, 0.1 * TAIL_NULL, 0.1 * factor, views.tail_effective);
        *ratio = Ratio { nats, clip: carried(views.tail_share) };
    }
    for (ratio, share) in far.iter_mut().zip(FAR_SHARES) {
        let nats = share_ratio(views.far_share, 1.0, views.far_null, share, views.far_effective);
        *ratio = Ratio { nats, clip: carried(views.far_share) };
    }
    ratios
}
