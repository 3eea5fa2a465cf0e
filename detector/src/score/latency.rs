//! Latency: have round-trip times moved up against what this pair usually has?
//!
//! For: shifts of the whole distribution, of its tail, and of a part of the flows (one of several parallel paths).
//! Not for: a falling minimum, which is never a fault, and single outliers, which no step lets through alone.
//! Method: three views of the ranks in the learned distribution: mean rank (Gaussian), share above the 90th percentile,
//! and share far above everything usual. All count only as many samples as are independent, given slow noise and the
//! age of the baseline. The known peers must confirm.

use serde::{Deserialize, Serialize};

use crate::evidence::Stage;

use super::cohort::Cohort;
use super::cusum::{Cusum, Ratio, strongest};
use super::histogram::{Histogram, bin_us};
use super::probation::Probation;
use super::rate::share_ratio;
use super::slow::SlowVariance;
use super::{Judged, LEARN_LIMIT, StepInput};

/// Mean rank that is no news, and the shifts looked for.
const RANK_NULL: f64 = 0.03;
const RANK_SHIFTS: [f64; 4] = [0.08, 0.15, 0.25, 0.4];
/// Multiples of the usual tenth above the 90th percentile.
const TAIL_NULL: f64 = 1.3;
const TAIL_FACTORS: [f64; 4] = [1.8, 2.5, 4.0, 7.0];
/// Shares of samples far above the 99th percentile.
const FAR_SHARES: [f64; 2] = [0.3, 0.7];
/// "Far above" starts this many bins (28 %) beyond the 99th percentile.
const FAR_BINS: f64 = 5.0;
const FAR_CORRELATION: f64 = 0.1;
const ALTERNATIVES: usize = RANK_SHIFTS.len() + TAIL_FACTORS.len() + FAR_SHARES.len();
/// Variance of one sample's rank: that of a uniform variable, half as much again for samples that share a peer.
const RANK_VARIANCE: f64 = 1.0 / 8.0;
const RANK_SLOW_PRIOR: f64 = 1e-3;
const TAIL_SLOW_PRIOR: f64 = 4e-4;
/// Samples needed before anything is judged.
const LEAST_BASELINE: f64 = 20.0;
/// Half-life of the learned distribution, s: it must follow the time of day until there are seasonal pages.
const HALF_LIFE_S: f64 = 7_200.0;
const RECENT_S: f64 = 1_200.0;
/// A shift that lasts this long and is stable is the new baseline, s.
const NEW_NORMAL_S: i64 = 5_400;
const STABLE_S: i64 = 1_800;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencyTest {
    base: Histogram,
    waiting: Probation<Histogram>,
    pub(crate) cusum: Cusum,
    cohort: Cohort,
    rank_slow: SlowVariance,
    tail_slow: SlowVariance,
    held: Option<Held>,
    /// Whether the known peers confirmed the alarm that stands; kept until it ends.
    confirmed: bool,
}

/// A stretch that is not learned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Held {
    since_s: i64,
    recent: Histogram,
    block_s: i64,
    rank_sum: f64,
    steps: f64,
    before: Option<f64>,
}

impl LatencyTest {
    pub(crate) fn judge(&mut self, input: &StepInput<'_>) -> Judged {
        let step = Histogram::of(&input.cell.rtt);
        if step.total() <= 0.0 {
            return Judged::default();
        }
        let mut judged = Judged { judged: true, ..Judged::default() };
        self.cohort.judge(input);
        if self.base.total() >= LEAST_BASELINE {
            let views = self.views(input, &step);
            let ratios = self.ratios(input, &step, &views);
            self.cusum.step(&ratios, input.threshold, input.start_s);
            self.confirmed = self.cusum.alarmed() && (self.confirmed || self.cohort.confirms());
            judged.step = strongest(&ratios);
            if self.cusum.score() > LEARN_LIMIT {
                judged.new_normal = self.hold(input, &step, views.rank);
                return judged;
            }
            let block = input.steps_per_block();
            self.rank_slow.add(views.rank, views.rank_sampling, block, 0.02);
            self.tail_slow.add(views.tail_share - 0.1, 0.09 / step.total(), block, 0.01);
        }
        self.held = None;
        let keep = (-f64::from(input.step_s) / HALF_LIFE_S).exp2();
        if input.stage == Stage::ClassPrior {
            self.base.learn(&step, keep);
        } else {
            self.base.scale(keep);
            if let Some(learned) = self.waiting.admit(input.start_s, &step) {
                self.base.learn(&learned, 1.0);
            }
        }
        self.cohort.learn(&input.cell.peers, input.start_s);
        judged
    }

    fn views(&self, input: &StepInput<'_>, step: &Histogram) -> Views {
        let (n, m) = (step.total(), self.base.total());
        let block = input.steps_per_block();
        let rank_sampling = RANK_VARIANCE / n;
        let tail_sampling = 0.09 / n + 0.09 / m;
        let far = self.base.quantile(0.99) + FAR_BINS;
        let beyond = self.base.above(far);
        Views {
            rank: self.base.mean_rank(step) - 0.5,
            rank_sampling,
            rank_variance: rank_sampling + RANK_VARIANCE / m + block * self.rank_slow.value(RANK_SLOW_PRIOR),
            tail_share: step.above(self.base.quantile(0.9)) / n,
            tail_effective: 0.09 / (tail_sampling + block * self.tail_slow.value(TAIL_SLOW_PRIOR)),
            far_share: step.above(far) / n,
            far_null: ((beyond + 1.0 + 2.0 * (beyond + 1.0).sqrt()) / (m + 2.0)).clamp(0.02, 0.25),
            far_effective: n / (1.0 + (n - 1.0) * FAR_CORRELATION),
        }
    }

    fn ratios(&self, input: &StepInput<'_>, step: &Histogram, views: &Views) -> [Ratio; ALTERNATIVES] {
        let mut ratios = [Ratio::default(); ALTERNATIVES];
        let n = step.total();
        let carried = |share: f64| input.clip((share * n).round() as u64, ALTERNATIVES);
        let (rank, rest) = ratios.split_at_mut(RANK_SHIFTS.len());
        let (tail, far) = rest.split_at_mut(TAIL_FACTORS.len());
        for (ratio, worse) in rank.iter_mut().zip(RANK_SHIFTS) {
            let shift = worse - RANK_NULL;
            let nats = ((views.rank - RANK_NULL) * shift - shift * shift / 2.0) / views.rank_variance;
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

    /// Follows a stretch that is not learned; true when it has lasted and is stable, and is the baseline from now on.
    fn hold(&mut self, input: &StepInput<'_>, step: &Histogram, rank: f64) -> bool {
        let fresh = || Held { since_s: input.start_s, block_s: input.start_s, ..Held::default() };
        self.waiting.clear();
        let held = self.held.get_or_insert_with(fresh);
        held.recent.learn(step, (-f64::from(input.step_s) / RECENT_S).exp2());
        held.rank_sum += rank;
        held.steps += 1.0;
        if input.start_s - held.block_s < STABLE_S {
            return false;
        }
        let mean = held.rank_sum / held.steps;
        let stable = held.before.is_some_and(|before| (mean - before).abs() < 0.05);
        held.before = Some(mean);
        (held.block_s, held.rank_sum, held.steps) = (input.start_s, 0.0, 0.0);
        if !stable || input.start_s - held.since_s < NEW_NORMAL_S {
            return false;
        }
        self.base = std::mem::take(&mut held.recent);
        self.held = None;
        self.cusum.reset();
        self.confirmed = false;
        self.cohort.rebase();
        true
    }

    /// The score after the gate: without the known peers' word it stays below what opens or joins an incident.
    pub(crate) fn score(&self) -> f64 {
        if self.confirmed || self.cohort.confirms() { self.cusum.score() } else { self.cusum.score().min(LEARN_LIMIT) }
    }

    /// Whether an alarm stands and the known peers confirm it.
    pub(crate) fn alarmed(&self) -> bool {
        self.confirmed
    }

    /// Forgets an alarm that nothing renews.
    pub(crate) fn reset(&mut self) {
        self.cusum.reset();
        self.confirmed = false;
        self.held = None;
    }

    /// The quantile that shows the change best: the median for a shift, the 90th percentile for a tail.
    pub(crate) fn telling_quantile(&self) -> f64 {
        let best = self.cusum.best();
        let median = best < RANK_SHIFTS.len() || best == ALTERNATIVES - 1;
        if median { 0.5 } else { 0.9 }
    }

    /// The usual value of a quantile in µs and the samples behind it.
    pub(crate) fn baseline(&self, q: f64) -> (f64, f64) {
        (bin_us(self.base.quantile(q) - 0.5), self.base.total())
    }
}

#[derive(Debug, Clone, Copy)]
struct Views {
    rank: f64,
    rank_sampling: f64,
    rank_variance: f64,
    tail_share: f64,
    tail_effective: f64,
    far_share: f64,
    far_null: f64,
    far_effective: f64,
}
