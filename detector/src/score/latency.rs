//! Latency: have round-trip times moved up against what this pair usually has?
//!
//! For: shifts of the whole distribution, of its tail, and of a part of the flows (one of several parallel paths).
//! Not for: a falling minimum, which is never a fault, and single outliers, which no step lets through alone.
//! Method: three views of the ranks in the usual distribution (see `ranks`); the known peers must confirm, or a part of
//! their flows alarms by itself (see `split`). Usual is what
//! the season says, or what the last hours were while there is no history.

use serde::{Deserialize, Serialize};

use crate::evidence::Stage;
use crate::season::{SlotBaseline, SlotCell};

use super::cohort::Cohort;
use super::cusum::Cusum;
use super::drift::Drift;
use super::histogram::{Histogram, bin_us};
use super::probation::Probation;
use super::ranks::{ALTERNATIVES, RANK_SLOW_PRIOR, RANKS, TAIL_VARIANCE, Views, ratios, summed};
use super::slow::SlowVariance;
use super::split::Split;
use super::{Judged, LEARN_LIMIT, StepInput};

/// Nats with which the histogram confirms an alarm of the known peers, and they one of the histogram. They must be surer:
/// new clients fill the histogram with far round trips, and the peers' noise would let them pass.
const HISTOGRAM_CONFIRMS: f64 = 4.0;
const PEERS_CONFIRM: f64 = 6.0;
/// The same for an alarm by a part of the peers' flows, and nats from which that part counts as the peers' word: a drift
/// of all flows lends it a few.
const PART_CONFIRMED: f64 = 0.5;
const PART_COUNTS: f64 = 10.0;
/// Samples needed before anything is judged.
const LEAST_BASELINE: f64 = 20.0;
/// Samples of the season from which it is the baseline, and how many the last hours are worth beside it.
const LEAST_SEASON: f64 = 200.0;
const RECENT_WEIGHT: f64 = 50.0;
/// Half-life of the last hours' distribution, s.
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
    drift: Drift,
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
    pub(crate) fn judge(&mut self, input: &StepInput<'_>, slot: &mut SlotCell, split: &mut Split) -> Judged {
        let step = Histogram::of(&input.cell.rtt);
        if step.total() <= 0.0 {
            return Judged::default();
        }
        let mut judged = Judged { judged: true, ..Judged::default() };
        let heard = self.cohort.judge(input);
        split.judge(input, &heard.deviations, self.cohort.drift());
        let mut drift = std::mem::take(&mut self.drift);
        let base = self.usual(input.season);
        if base.total() >= LEAST_BASELINE {
            let views = Views::of(&step, base, input, &self.rank_slow, &self.tail_slow);
            let ratios = ratios(input, step.total(), &views, &mut drift, &self.cusum);
            self.drift = drift;
            self.cusum.step(&ratios, input.threshold, input.start_s);
            let peers = self.peers_say(split).unwrap_or(f64::INFINITY);
            let (by_ranks, by_peers) = (self.cusum.alarmed(), self.cohort.alarmed());
            let by_part = self.cohort.may_speak() && split.alarmed();
            let score = self.cusum.score();
            let more = input.looks();
            let confirmed = by_ranks && peers >= PEERS_CONFIRM + more
                || by_peers && score >= HISTOGRAM_CONFIRMS + more
                || by_part && score >= PART_CONFIRMED;
            self.confirmed = (by_ranks || by_peers || by_part) && (self.confirmed || confirmed);
            judged.pooled = summed(&ratios, &views);
            let block = input.steps_per_block();
            // Also what is not learned: leaving out its own excursions, a drift would look smaller and smaller.
            self.rank_slow.add_unusual(views.rank, views.rank_sampling, block, RANK_SLOW_PRIOR);
            if self.cusum.score() > LEARN_LIMIT || self.confirmed {
                split.distrust();
                slot.rtt.held.put_all(&step);
                judged.new_normal = self.hold(input, &step, views.rank, split);
                return judged;
            }
            self.tail_slow.add(views.tail_share - 0.1, TAIL_VARIANCE / step.total(), block, 0.01);
        }
        slot.rtt.learned.put_all(&step);
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
        split.learn(&heard.deviations);
        self.cohort.learn(&input.cell.peers, &heard, input.start_s);
        judged
    }

    fn usual<'a>(&'a self, season: Option<&'a SlotBaseline>) -> &'a Histogram {
        match season {
            Some(season) if season.rtt.total() > 0.0 => &season.rtt,
            _ => &self.base,
        }
    }

    /// Completes what was pooled for a slot: too little of it is no baseline, and the last hours have a say.
    pub(crate) fn complete(&self, season: &mut Histogram) {
        if season.total() < LEAST_SEASON {
            *season = Histogram::default();
        } else if self.base.total() > 0.0 {
            season.add_scaled(&self.base, RECENT_WEIGHT / self.base.total());
        }
    }

    /// Follows a stretch that is not learned; says since when it has lasted once it is stable, and is the baseline from
    /// now on.
    fn hold(&mut self, input: &StepInput<'_>, step: &Histogram, rank: f64, split: &mut Split) -> Option<i64> {
        let fresh = || Held { since_s: input.start_s, block_s: input.start_s, ..Held::default() };
        self.waiting.clear();
        let held = self.held.get_or_insert_with(fresh);
        held.recent.learn(step, (-f64::from(input.step_s) / RECENT_S).exp2());
        held.rank_sum += rank;
        held.steps += 1.0;
        if input.start_s - held.block_s < STABLE_S {
            return None;
        }
        let mean = held.rank_sum / held.steps;
        let stable = held.before.is_some_and(|before| (mean - before).abs() < 0.05);
        held.before = Some(mean);
        (held.block_s, held.rank_sum, held.steps) = (input.start_s, 0.0, 0.0);
        if !stable || input.start_s - held.since_s < NEW_NORMAL_S {
            return None;
        }
        let since_s = held.since_s;
        self.base = std::mem::take(&mut held.recent);
        self.held = None;
        self.cusum.reset();
        self.confirmed = false;
        self.cohort.rebase();
        self.drift.reset();
        split.reset();
        Some(since_s)
    }

    /// What the known peers say, of all their flows or surely of a part of them, nats; `None`: too few are known to ask.
    fn peers_say(&self, split: &Split) -> Option<f64> {
        let part = Some(split.score()).filter(|&part| part >= PART_COUNTS).unwrap_or_default();
        self.cohort.score().map(|all| all.max(part))
    }

    /// The score after the gate: without the known peers' word it stays below what opens or joins an incident.
    pub(crate) fn score(&self, split: &Split) -> f64 {
        let score = self.cusum.score();
        let peers = self.peers_say(split);
        if self.confirmed {
            return score.max(peers.unwrap_or_default());
        }
        let both = peers.map_or(score, |peers| peers.min(score));
        score.min(both.max(LEARN_LIMIT))
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
        let median = best < RANKS || best == ALTERNATIVES - 1;
        if median { 0.5 } else { 0.9 }
    }

    /// The usual value of a quantile in µs and the samples behind it.
    pub(crate) fn baseline(&self, q: f64, season: Option<&SlotBaseline>) -> (f64, f64) {
        let base = self.usual(season);
        (bin_us(base.quantile(q) - 0.5), base.total())
    }
}
