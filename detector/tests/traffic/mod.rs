//! Made traffic with a fixed seed: pairs between subnets of three zones, and faults on demand.
//!
//! For: tests of behaviour whose truth is known.
//! Not for: figures; those come from the exam's simulator.
#![allow(dead_code)]

use flowshift_detector::pane::PeerCounts;
use flowshift_detector::{
    AnomalyEvent, Applied, Correlator, FeedKind, LaneDetector, MergeOutcome, Pair, PaneCell, Settings, StepEvidence,
    Subnet,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) const KIND: FeedKind = FeedKind::Reports;
pub(crate) const START_S: i64 = 1_700_000_040;
pub(crate) const STEP_S: i64 = 60;

/// What happens to one pair in one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) flows: f64,
    pub(crate) loss: f64,
    /// Factor on every round-trip time.
    pub(crate) slower: f64,
    pub(crate) failing: f64,
    /// Share of extra flows from peers never seen before, with 2.5 times the round-trip time.
    pub(crate) new_clients: f64,
    pub(crate) truncated: bool,
    /// Share of the flows that are gone without a trace; as many of the rest time out.
    pub(crate) gone: f64,
    /// Share of the flows whose round-trip times are twice as long.
    pub(crate) doubled: f64,
    /// How much farther each of the twelve peers is than the one before (log).
    pub(crate) apart: f64,
}

pub(crate) const FAIR: Weather = Weather {
    flows: 40.0,
    loss: 0.0,
    slower: 1.0,
    failing: 0.0,
    new_clients: 0.0,
    truncated: false,
    gone: 0.0,
    doubled: 0.0,
    apart: 0.0,
};

/// Directed pairs between six subnets in three zones; the first is in one zone.
pub(crate) fn pairs() -> Vec<Pair> {
    let subnet = |i: usize| Subnet::new(&format!("subnet-{i}"), Some(&format!("az{}", i / 2 + 1)));
    let mut pairs = Vec::new();
    for (i, j) in (0..6).flat_map(|i| (0..6).map(move |j| (i, j))).filter(|(i, j)| i != j) {
        pairs.push(Pair { src: subnet(i), dst: subnet(j) });
    }
    pairs
}

pub(crate) fn cell(rng: &mut StdRng, weather: &Weather) -> PaneCell {
    let mut cell = PaneCell::default();
    let extra = weather.flows * weather.new_clients;
    let flows = ((weather.flows + extra) * rng.random_range(0.8..1.2)) as u64;
    for _ in 0..flows {
        if weather.gone > 0.0 && rng.random_bool(weather.gone) {
            continue;
        }
        if weather.gone > 0.0 && rng.random_bool(weather.gone) {
            cell.counters.timeouts.est += 2;
        }
        let fresh = rng.random_bool(extra / (weather.flows + extra));
        let peer = if fresh { 1_000 + rng.random_range(0..4u64) } else { rng.random_range(0..12u64) };
        let segments = rng.random_range(10..80u64);
        let again = poisson(rng, segments as f64 * (2e-4 + weather.loss)).min(segments);
        let noise: f64 = (0..4).map(|_| rng.random_range(-0.15..0.15)).sum();
        let far = if fresh { 2.5 } else { (1.0 + 0.02 * peer as f64) * (weather.apart * peer as f64).exp() };
        let path = if weather.doubled > 0.0 && rng.random_bool(weather.doubled) { 2.0 } else { 1.0 };
        let rtt_us = (800.0 * far * path * weather.slower * noise.exp()) as u64;
        let c = &mut cell.counters;
        c.flows += 1;
        c.segments += segments;
        c.bytes += segments * 900;
        c.retransmits.est += again;
        c.retransmit_flows += u64::from(again > 0);
        c.connects += 1;
        c.connect_failures += u64::from(rng.random_bool(1e-3 + weather.failing));
        cell.max_retransmits = cell.max_retransmits.max(again);
        cell.rtt.record(rtt_us);
        cell.peers.record(peer, &PeerCounts { flows: 1, retransmits: again, rtt_n: 1, rtt_sum_us: rtt_us });
        cell.quality.records += 1;
    }
    cell.quality.agents.record(1);
    if weather.truncated {
        cell.quality.truncated.record(1);
    }
    cell
}

/// A Poisson count of a small mean, by inversion.
fn poisson(rng: &mut StdRng, mean: f64) -> u64 {
    let limit = (-mean).exp();
    let mut product: f64 = rng.random();
    let mut count = 0;
    while product > limit {
        product *= rng.random::<f64>();
        count += 1;
    }
    count
}

/// Panes of all pairs and steps, in time order.
pub(crate) fn traffic(
    seed: u64,
    steps: i64,
    weather: impl Fn(usize, &Pair, i64) -> Weather,
) -> Vec<(i64, Pair, PaneCell)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let pairs = pairs();
    let mut panes = Vec::new();
    for step in 0..steps {
        for (index, pair) in pairs.iter().enumerate() {
            let cell = cell(&mut rng, &weather(index, pair, step));
            panes.push((START_S + step * STEP_S, pair.clone(), cell));
        }
    }
    panes
}

pub(crate) struct Run {
    pub(crate) evidence: Vec<StepEvidence>,
    pub(crate) events: Vec<AnomalyEvent>,
}

/// Everything through one lane, closed once per step.
pub(crate) fn run(panes: &[(i64, Pair, PaneCell)]) -> Run {
    let mut lane = LaneDetector::new(Settings::default());
    let mut correlator = Correlator::new(Settings::default(), 1);
    let mut run = Run { evidence: Vec::new(), events: Vec::new() };
    let mut now = START_S;
    let mut close = |lane: &mut LaneDetector, watermark_ms: i64| {
        for evidence in lane.close(KIND, watermark_ms) {
            assert_eq!(correlator.apply(0, &evidence), Applied::Taken);
            run.evidence.push(evidence);
        }
        run.events.extend(correlator.advance());
    };
    for (pane_s, pair, cell) in panes {
        if *pane_s > now {
            close(&mut lane, pane_s * 1_000);
            now = *pane_s;
        }
        assert_eq!(lane.merge(pair, KIND, *pane_s, cell), MergeOutcome::Accepted);
    }
    close(&mut lane, i64::MAX);
    run
}
