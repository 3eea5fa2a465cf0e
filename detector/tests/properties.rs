//! Laws that hold for all inputs: merging, splitting, windows, stored state, and order.
#![allow(clippy::unwrap_used)]

mod traffic;

use flowshift_detector::pane::{Counters, PeerCounts, RttCell, apportion, pane_of_last_ms};
use flowshift_detector::{
    Applied, Correlator, CorrelatorState, LaneDetector, LaneState, MergeOutcome, Pair, PaneCell, Settings, Subnet,
    Together,
};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use traffic::{FAIR, KIND, START_S, STEP_S, Weather, traffic};

fn any_cell() -> impl Strategy<Value = PaneCell> {
    let rtts = prop::collection::vec(0..100_000_000u64, 0..20);
    let peers = prop::collection::vec((any::<u64>(), 0..9u64), 0..30);
    let agents = prop::collection::vec(any::<u64>(), 0..50);
    (any::<[u64; 4]>(), rtts, peers, agents).prop_map(|(n, rtts, peers, agents)| {
        let mut cell = PaneCell { max_retransmits: n[0] % 100, ..PaneCell::default() };
        cell.counters = Counters { flows: n[0], segments: n[1], bytes: n[2], ..Counters::default() };
        cell.counters.retransmits.est = n[3];
        rtts.iter().for_each(|&rtt| cell.rtt.record(rtt));
        for (peer, flows) in peers {
            cell.peers.record(peer, &PeerCounts { flows, retransmits: 1, rtt_n: flows, rtt_sum_us: peer });
        }
        agents.iter().for_each(|&agent| cell.quality.agents.record(agent));
        cell.quality.records = n[1] % 7;
        cell
    })
}

fn merged(cells: &[&PaneCell]) -> PaneCell {
    let mut sum = PaneCell::default();
    cells.iter().for_each(|cell| sum.merge(cell));
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn panes_merge_to_the_same_cell_in_any_order_and_grouping(a in any_cell(), b in any_cell(), c in any_cell()) {
        let left = merged(&[&merged(&[&a, &b]), &c]);
        prop_assert_eq!(&left, &merged(&[&a, &merged(&[&b, &c])]));
        prop_assert_eq!(&left, &merged(&[&c, &b, &a]));
        prop_assert_eq!(merged(&[&a]), a);
    }

    #[test]
    fn shares_sum_to_the_value_and_are_within_one_of_their_proportion(
        start in -10_000_000i64..10_000_000, length in 0i64..2_000_000, pane in 1u32..600, value in 0u64..1_000_000_000
    ) {
        let end = start + length;
        let shares: Vec<(i64, u64)> = apportion(start, end, pane, value).collect();
        prop_assert_eq!(shares.iter().map(|s| s.1).sum::<u64>(), value);
        prop_assert_eq!(shares.last().unwrap().0, pane_of_last_ms(end, pane));
        for (index, (pane_s, share)) in shares.iter().enumerate() {
            prop_assert_eq!(*pane_s, shares[0].0 + i64::from(pane) * index as i64);
            let (low, high) = (start.max(pane_s * 1_000), end.min((pane_s + i64::from(pane)) * 1_000));
            let exact = value as f64 * (high - low).max(0) as f64 / length.max(1) as f64;
            prop_assert!(length == 0 || (*share as f64 - exact).abs() < 1.0 + 1e-6 * exact);
        }
    }

    #[test]
    fn a_cell_survives_its_parts(cell in any_cell()) {
        let rtt = &cell.rtt;
        let extremes = rtt.min_us().zip(rtt.max_us());
        let rebuilt = RttCell::from_parts(rtt.buckets(), rtt.readings(), rtt.sum_us(), extremes);
        prop_assert_eq!(rebuilt.as_ref(), Some(rtt));
    }

    #[test]
    fn the_window_is_the_sum_of_its_panes(cells in prop::collection::vec((0i64..3, any_cell()), 1..25)) {
        let settings = Settings::default().with_step(10).unwrap();
        let mut lane = LaneDetector::new(settings);
        let pair = Pair { src: Subnet::new("a", None), dst: Subnet::new("b", None) };
        let mut kept: Vec<(i64, PaneCell)> = Vec::new();
        let mut pane_s = START_S;
        for (gap, mut cell) in cells {
            // Sums that stay below the largest number: a saturated sum cannot be taken apart again.
            cell.counters = Counters { flows: cell.counters.flows % 1_000, ..Counters::default() };
            pane_s += 10 * (gap + 1);
            prop_assert_eq!(lane.merge(&pair, KIND, pane_s, &cell), MergeOutcome::Accepted);
            kept.push((pane_s, cell));
            lane.close(KIND, (pane_s + 10) * 1_000);
            let inside: Vec<&PaneCell> = kept.iter().filter(|k| k.0 >= pane_s + 10 - 60).map(|k| &k.1).collect();
            prop_assert_eq!(lane.window(KIND, &pair).unwrap().cell, merged(&inside));
        }
    }
}

fn faulty(seed: u64, steps: i64) -> Vec<(i64, Pair, PaneCell)> {
    traffic(seed, steps, |i, _, step| match (i, step) {
        (3, 90..110) => Weather { loss: 0.05, ..FAIR },
        (8..14, 95..120) => Weather { slower: 1.5, ..FAIR },
        (9, 130..) => Weather { failing: 0.3, ..FAIR },
        _ => Weather { flows: 25.0, ..FAIR },
    })
}

#[test]
fn stored_state_goes_on_exactly_where_it_stopped() {
    let panes = faulty(20, 150);
    let mut straight = LaneDetector::new(Settings::default());
    let mut stored = straight.clone();
    let mut told = Correlator::new(Settings::default(), 1);
    let mut told_again = told.clone();
    let mut events = 0;
    for step in panes.chunk_by(|a, b| a.0 == b.0) {
        for (pane_s, pair, cell) in step {
            straight.merge(pair, KIND, *pane_s, cell);
            stored.merge(pair, KIND, *pane_s, cell);
        }
        let bytes = postcard::to_allocvec(stored.state()).unwrap();
        stored =
            LaneDetector::from_state(Settings::default(), postcard::from_bytes::<LaneState>(&bytes).unwrap()).unwrap();
        let watermark_ms = (step[0].0 + STEP_S) * 1_000;
        let (first, second) = (straight.close(KIND, watermark_ms), stored.close(KIND, watermark_ms));
        assert_eq!(first, second);
        first.iter().for_each(|e| assert_eq!(told.apply(0, e), Applied::Taken));
        second.iter().for_each(|e| assert_eq!(told_again.apply(0, e), Applied::Taken));
        let bytes = postcard::to_allocvec(&(told_again.state(), told_again.together())).unwrap();
        let (state, together) = postcard::from_bytes::<(CorrelatorState, Together)>(&bytes).unwrap();
        told_again = Correlator::from_state(Settings::default(), state).unwrap().with_together(together);
        let said = told.advance();
        assert_eq!(said, told_again.advance());
        events += said.len();
    }
    assert_eq!(straight.state(), stored.state());
    assert!(events > 4, "the run had something to say");
}

#[test]
fn the_order_of_merges_within_a_step_does_not_change_the_evidence() {
    let panes = faulty(21, 130);
    let straight = traffic::run(&panes);
    let mut shuffled = panes;
    let mut rng = StdRng::seed_from_u64(5);
    shuffled.chunk_by_mut(|a, b| a.0 == b.0).for_each(|step| step.shuffle(&mut rng));
    assert_eq!(traffic::run(&shuffled).evidence, straight.evidence);
}

/// Pairs spread over four lanes, delivered in a shuffled order, some of it twice.
fn over_lanes(panes: &[(i64, Pair, PaneCell)], seed: u64) -> Vec<flowshift_detector::AnomalyEvent> {
    const LANES: u16 = 4;
    let mut lanes: Vec<LaneDetector> = (0..LANES).map(|_| LaneDetector::new(Settings::default())).collect();
    let mut correlator = Correlator::new(Settings::default(), LANES);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut queue: Vec<(u16, flowshift_detector::StepEvidence)> = Vec::new();
    let mut events = Vec::new();
    let steps: Vec<_> = panes.chunk_by(|a, b| a.0 == b.0).collect();
    for (index, step) in steps.iter().enumerate() {
        for (pane_s, pair, cell) in *step {
            // Lane 3 has no traffic at all.
            let lane = (pair.src.id.len() + usize::from(pair.src.id.as_bytes()[7])) % 3;
            assert_eq!(lanes[lane].merge(pair, KIND, *pane_s, cell), MergeOutcome::Accepted);
        }
        let end = index + 1 == steps.len();
        let watermark_ms = if end { i64::MAX } else { (step[0].0 + STEP_S) * 1_000 };
        let mut order: Vec<u16> = (0..LANES).collect();
        order.shuffle(&mut rng);
        for lane in order {
            queue.extend(lanes[usize::from(lane)].close(KIND, watermark_ms).into_iter().map(|e| (lane, e)));
        }
        // A lane's own order holds; how far each is ahead of the others does not.
        while let Some((lane, evidence)) = (!queue.is_empty() && (end || rng.random_bool(0.7))).then(|| queue.remove(0))
        {
            assert_eq!(correlator.apply(lane, &evidence), Applied::Taken);
            if rng.random_bool(0.2) {
                assert_eq!(correlator.apply(lane, &evidence), Applied::Repeated);
            }
            events.extend(correlator.advance());
        }
    }
    events
}

#[test]
fn the_order_and_number_of_lanes_do_not_change_the_events() {
    let panes = faulty(22, 150);
    let one_lane = traffic::run(&panes).events;
    assert!(one_lane.len() > 4);
    for seed in 0..5 {
        assert_eq!(over_lanes(&panes, seed), one_lane);
    }
}

#[test]
fn late_and_misaligned_panes_are_refused_and_counted() {
    let mut lane = LaneDetector::new(Settings::default());
    let pair = Pair { src: Subnet::new("a", None), dst: Subnet::new("b", None) };
    let cell = PaneCell { max_retransmits: 1, ..PaneCell::default() };
    assert_eq!(lane.merge(&pair, KIND, START_S, &cell), MergeOutcome::Accepted);
    assert_eq!(lane.close(KIND, (START_S + STEP_S) * 1_000).len(), 1);
    assert_eq!(lane.merge(&pair, KIND, START_S + 50, &cell), MergeOutcome::Closed);
    assert_eq!(lane.merge(&pair, KIND, START_S + 65, &cell), MergeOutcome::Misaligned);
    let feed = lane.state().feed(KIND).unwrap();
    assert_eq!((feed.refused_closed, feed.refused_misaligned), (1, 1));
    assert_eq!(lane.totals().map(|(_, _, totals)| totals.panes).sum::<u64>(), 1);
}

#[test]
fn long_stretches_without_traffic_come_as_one() {
    let mut lane = LaneDetector::new(Settings::default());
    let pair = Pair { src: Subnet::new("a", None), dst: Subnet::new("b", None) };
    let mut rng = StdRng::seed_from_u64(1);
    let cell = traffic::cell(&mut rng, &FAIR);
    lane.merge(&pair, KIND, START_S, &cell);
    lane.merge(&pair, KIND, START_S + 1_000_000 * STEP_S, &cell);
    let said = lane.close(KIND, i64::MAX);
    let steps: Vec<u64> = said.iter().map(|e| e.steps).collect();
    assert_eq!(steps, [1, 999_999, 1, 0]);
    assert!(said[3].last && !said[2].last);
    assert_eq!(lane.close(KIND, i64::MAX), []);
    assert_eq!(lane.merge(&pair, KIND, START_S + 2_000_000 * STEP_S, &cell), MergeOutcome::Closed);
}

#[test]
fn evidence_sent_again_in_other_portions_changes_nothing() {
    let panes = faulty(23, 120);
    let mut once = LaneDetector::new(Settings::default());
    for (pane_s, pair, cell) in &panes {
        once.merge(pair, KIND, *pane_s, cell);
    }
    let mut correlator = Correlator::new(Settings::default(), 1);
    let mut events = Vec::new();
    for evidence in traffic::run(&panes).evidence.iter().filter(|e| !e.last) {
        assert_eq!(correlator.apply(0, evidence), Applied::Taken);
        events.extend(correlator.advance());
    }
    assert!(!events.is_empty());
    assert!(correlator.state().open_incidents().count() > 0);
    let all_at_once = once.close(KIND, (panes[panes.len() - 1].0 + STEP_S) * 1_000);
    let repeated = all_at_once.iter().filter(|e| correlator.apply(0, e) == Applied::Repeated).count();
    assert_eq!(repeated, all_at_once.len());
    assert_eq!(correlator.advance(), []);
    assert_eq!(correlator.state().repeated, repeated as u64);
}

#[test]
fn a_skipped_lane_is_not_waited_for_and_its_late_word_is_dropped() {
    let panes = faulty(24, 5);
    let evidence = traffic::run(&panes).evidence;
    let mut correlator = Correlator::new(Settings::default(), 2);
    assert_eq!(correlator.apply(0, &evidence[0]), Applied::Taken);
    assert_eq!(correlator.apply(7, &evidence[0]), Applied::Foreign);
    correlator.advance();
    correlator.skip(1, KIND, evidence[0].end_s());
    correlator.advance();
    assert_eq!(correlator.apply(1, &evidence[0]), Applied::Skipped);
    assert_eq!(correlator.apply(1, &evidence[1]), Applied::Taken);
}
