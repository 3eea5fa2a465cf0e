//! Retransmissions: are more segments sent again than this pair's upper bound allows?
//!
//! For: added loss of 0.05 % and more (1 % and more in the first hour).
//! Not for: outages; a blackhole shows healthy ratios, its connection failures tell.
//! Method: two views of the same step, segments (negative binomial) and flows with a retransmission; the evidence is the
//! minimum of both, so neither one bad flow nor a little noise on many can carry an alarm alone.

use serde::{Deserialize, Serialize};

use crate::evidence::{POOLED, Stage};
use crate::season::{SlotBaseline, SlotCell, Tally};
use crate::topology::PathClass;

use super::cusum::{Cusum, Ratio};
use super::rate::{Counts, Prior, Rate, SEASON_PRIOR_EVENTS, bounded, count_ratio, share_ratio};
use super::{Judged, LEARN_LIMIT, StepInput};

/// Added loss that is looked for, largest first.
const ADDED: [f64; 9] = [0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005];
/// How many of them are looked for in the first hour: 1 % and more.
const FIRST_HOUR: usize = 5;
/// Those whose evidence is summed over pairs: 0.1, 0.5, 0.2 and 2 %.
const SUMMED: [usize; POOLED] = [7, 5, 6, 3];
/// A lasting change becomes the baseline after this time, s.
const NEW_NORMAL_S: i64 = 86_400;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RetransmitTest {
    segments: Rate,
    flows: Rate,
    pub(crate) cusum: Cusum,
    /// Start of the stretch that is not learned, with its segments and retransmissions.
    held: Option<(i64, f64, f64)>,
}

impl RetransmitTest {
    pub(crate) fn judge(&mut self, input: &StepInput<'_>, slot: &mut SlotCell) -> Judged {
        let counters = &input.cell.counters;
        let (retransmits, segments) = bounded(counters.data_retransmits(), counters.segments);
        let (marked, flows) = bounded(counters.retransmit_flows, counters.flows);
        if segments <= 0.0 || flows <= 0.0 {
            return Judged::default();
        }
        let prior = segment_prior(input.class, input.season);
        let flow_prior = flow_prior(input.class, segments / flows, input.season);

        let widen = if input.stage.has_season() { 1.25 } else { 2.0 };
        let null = (widen * self.segments.upper(segments, &prior) + 5e-5).min(0.5);
        let dispersion = self.segments.dispersion(&prior);
        let flow_null = (1.25 * self.flows.upper(flows, &flow_prior) + 0.002).min(0.9);
        let flow_noise = self.flows.dispersion(&flow_prior) * flow_null * flow_null;
        let binomial = flow_null * (1.0 - flow_null);
        let effective = binomial / (binomial / flows + flow_noise);

        let looked_for = if input.stage == Stage::ClassPrior { FIRST_HOUR } else { ADDED.len() };
        let clip = input.clip(counters.retransmit_flows, looked_for);
        let mut ratios = [Ratio::default(); ADDED.len()];
        for (ratio, added) in ratios.iter_mut().zip(ADDED) {
            let by_segment = count_ratio(retransmits, null * segments, (null + added) * segments, dispersion);
            let hit = 1.0 - (1.0 - flow_null) * (1.0 - added).powf(segments / flows);
            let by_flow = share_ratio(marked, flows, flow_null, hit.min(0.98), effective);
            *ratio = Ratio { nats: by_segment.min(by_flow), clip };
        }
        self.cusum.step(&ratios[..looked_for], input.threshold, input.start_s);

        let held = self.cusum.score() > LEARN_LIMIT;
        let usual = |rate: &Rate, events: u64, trials: u64, prior: &Prior| Tally {
            events: if held { events } else { rate.learnable(events, trials as f64, prior) },
            trials,
        };
        let segment_tally = usual(&self.segments, counters.data_retransmits(), counters.segments, &prior);
        slot.segments.side(held).add(segment_tally);
        let flow_tally = usual(&self.flows, counters.retransmit_flows, counters.flows, &flow_prior);
        slot.marked.side(held).add(flow_tally);
        let new_normal = self.learn(input, (retransmits, segments), (marked, flows), &prior, &flow_prior);
        Judged { judged: true, pooled: SUMMED.map(|index| ratios[index].nats), new_normal }
    }

    fn learn(
        &mut self,
        input: &StepInput<'_>,
        s: (f64, f64),
        f: (f64, f64),
        prior: &Prior,
        flow_prior: &Prior,
    ) -> Option<i64> {
        if self.cusum.score() <= LEARN_LIMIT {
            self.held = None;
            self.segments.learn(s.0, s.1, input, prior);
            self.flows.learn(f.0, f.1, input, flow_prior);
            return None;
        }
        self.segments.distrust();
        self.flows.distrust();
        let held = self.held.get_or_insert((input.start_s, 0.0, 0.0));
        held.1 += s.0;
        held.2 += s.1;
        let (since, events, trials) = *held;
        if input.start_s - since < NEW_NORMAL_S {
            return None;
        }
        self.segments.reseed(events, trials);
        self.flows.reseed(f.0 / f.1 * trials / (s.1 / f.1), trials / (s.1 / f.1));
        self.cusum.reset();
        self.held = None;
        Some(since)
    }

    /// Forgets an alarm that nothing renews.
    pub(crate) fn reset(&mut self) {
        self.cusum.reset();
        self.held = None;
    }

    /// Expected share of retransmitted segments and the segments behind it.
    pub(crate) fn baseline(&self, class: PathClass, season: Option<&SlotBaseline>) -> (f64, f64) {
        let prior = segment_prior(class, season);
        (self.segments.mean(&prior), self.segments.trials(&prior))
    }

    /// Relative variance of the rate, for intervals.
    pub(crate) fn dispersion(&self, class: PathClass) -> f64 {
        self.segments.dispersion(&segment_prior(class, None))
    }
}

fn segment_prior(class: PathClass, season: Option<&SlotBaseline>) -> Prior {
    let rate = match class {
        PathClass::IntraAz => 3e-4,
        PathClass::InterAz => 5e-4,
        PathClass::Edge => 2e-3,
    };
    let season = season.map_or(Counts::default(), |s| s.segments);
    Prior { rate, events: 3.0, dispersion: 0.3, dispersion_weight: 50.0, own: SEASON_PRIOR_EVENTS, season }
}

/// Retransmissions come in clumps: the number on one flow is taken as gamma-mixed, so that the chance of at least one
/// is 1 − (1 + mean / κ)^−κ with κ = 0.3.
fn flow_prior(class: PathClass, segments_per_flow: f64, season: Option<&SlotBaseline>) -> Prior {
    const CLUMPING: f64 = 0.3;
    let mean = segment_prior(class, None).rate * segments_per_flow;
    let rate = (1.0 - (1.0 + mean / CLUMPING).powf(-CLUMPING)).clamp(1e-4, 0.5);
    let season = season.map_or(Counts::default(), |s| s.marked);
    Prior { rate, events: 1.0, dispersion: 0.05, dispersion_weight: 50.0, own: SEASON_PRIOR_EVENTS, season }
}
