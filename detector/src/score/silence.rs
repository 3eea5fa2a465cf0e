//! Silence: has a pair's traffic collapsed while the flows that are left time out?
//!
//! For: outages. In a blackhole the ratios look healthy (12 s without any packet in a report of 30 s showed 5
//! retransmissions of 2,479 segments): what shows is the traffic that is missing and the timeouts of what tries.
//! Not for: traffic that stops by itself, which has no timeouts, nor for reporters that fall silent: without a record of
//! the pair nothing is judged.
//! Method: two views as for loss, the minimum of both: flows below seven tenths of what the time of day and the last hour
//! both expect, and timeouts per flow above the pair's upper bound.

use serde::{Deserialize, Serialize};

use crate::season::{SlotCell, Tally};

use super::cusum::{Cusum, Ratio};
use super::rate::{Counts, Prior, Rate, SEASON_PRIOR_EVENTS, bounded, count_ratio};
use super::{Judged, LEARN_LIMIT, StepInput};

/// Shares of the expected flows that are looked for, each with the timeouts per flow that come with it.
const LEFT: [(f64, f64); 2] = [(0.4, 0.3), (0.1, 1.0)];
/// Share of the expected flows that is no news.
const NULL_LEFT: f64 = 0.7;
/// Relative variance of a step's flows.
const VARIES: f64 = 0.03;
/// Flows in a step below which nothing can be missing.
const LEAST_EXPECTED: f64 = 3.0;
/// Half-life of the recent traffic, s, and the time after which it is known.
const RECENT_S: f64 = 3_600.0;
const KNOWN_S: f64 = 900.0;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SilenceTest {
    timeouts: Rate,
    /// Flows over seconds of the last hour.
    recent: Counts,
    pub(crate) cusum: Cusum,
}

impl SilenceTest {
    pub(crate) fn judge(&mut self, input: &StepInput<'_>, slot: &mut SlotCell) -> Judged {
        let counters = &input.cell.counters;
        let (timeouts, flows) = bounded(counters.timeouts.total().min(counters.flows), counters.flows);
        if flows <= 0.0 {
            return Judged::default();
        }
        let prior = prior(input);
        let expected = self.expected(input);
        let null = 1.25 * self.timeouts.upper(flows, &prior) + 0.01;
        let dispersion = self.timeouts.dispersion(&prior);
        let clip = input.clip(counters.timeouts.total(), LEFT.len());
        let ratios = LEFT.map(|(left, added)| {
            let missing = count_ratio(flows, NULL_LEFT * expected, left * expected, VARIES);
            let stuck = count_ratio(timeouts, null * flows, (null + added) * flows, dispersion);
            Ratio { nats: if expected < LEAST_EXPECTED { -1.0 } else { missing.min(stuck) }, clip }
        });
        self.cusum.step(&ratios, input.threshold, input.start_s);
        let held = self.cusum.score() > LEARN_LIMIT;
        let events = self.timeouts.learnable(counters.timeouts.total().min(counters.flows), flows, &prior);
        slot.timeouts.side(held).add(Tally { events, trials: counters.flows });
        if !held {
            self.timeouts.learn(timeouts, flows, input, &prior);
            let step_s = f64::from(input.step_s);
            let keep = (-step_s / RECENT_S).exp2();
            self.recent.events = self.recent.events * keep + flows;
            self.recent.trials = self.recent.trials * keep + step_s;
        }
        Judged { judged: true, ..Judged::default() }
    }

    /// Flows that a step should have: the smaller of what the time of day and the last hour say, so that neither a quiet
    /// weekend nor the end of a job is missing traffic. 0 while the last hour is not known.
    pub(crate) fn expected(&self, input: &StepInput<'_>) -> f64 {
        if self.recent.trials < KNOWN_S {
            return 0.0;
        }
        let recent = self.recent.events / self.recent.trials * f64::from(input.step_s);
        match input.season.map(|season| season.traffic) {
            Some(usual) if usual.trials > 0.0 => recent.min(usual.events / usual.trials),
            _ => recent,
        }
    }

    /// Steps' worth of flows behind the expectation.
    pub(crate) fn behind(&self, input: &StepInput<'_>) -> f64 {
        input.season.map_or(self.recent.events, |season| season.traffic.events)
    }

    /// Forgets an alarm that nothing renews.
    pub(crate) fn reset(&mut self) {
        self.cusum.reset();
    }
}

fn prior(input: &StepInput<'_>) -> Prior {
    let season = input.season.map_or(Counts::default(), |season| season.timeouts);
    Prior { rate: 5e-3, events: 2.0, dispersion: 0.5, dispersion_weight: 20.0, own: SEASON_PRIOR_EVENTS, season }
}
