//! Steps shorter than the sliding window: between its flows a pair is as it was, not gone.
#![allow(clippy::unwrap_used)]

use flowshift_detector::{ElementKind, FeedKind, LaneDetector, Pair, PaneCell, Settings, StepEvidence, Subnet};

const KIND: FeedKind = FeedKind::Reports;
const STEP_S: i64 = 10;

fn pair(src: &str, dst: &str) -> Pair {
    Pair { src: Subnet::new(src, Some("az1")), dst: Subnet::new(dst, Some("az2")) }
}

/// So many flows of 50 segments, of which `lossy` had so many sent again.
fn flows(count: u64, lossy: u64, again: u64) -> PaneCell {
    let mut cell = PaneCell::default();
    let c = &mut cell.counters;
    (c.flows, c.connects, c.segments) = (count, count, count * 50);
    (c.retransmits.est, c.retransmit_flows) = (lossy * again, lossy);
    cell.max_retransmits = again;
    cell.quality.records = count;
    cell.quality.agents.record(1);
    cell
}

/// The evidence of each step while one pair has ten flows in each, and another what `thin` says of the step of this number.
fn steps(count: i64, thin: impl Fn(i64) -> Option<PaneCell>) -> Vec<StepEvidence> {
    let mut lane = LaneDetector::new(Settings::default().with_step(10).unwrap());
    let mut said = Vec::new();
    for step in 0..count {
        lane.merge(&pair("a", "b"), KIND, step * STEP_S, &flows(10, 0, 0));
        if let Some(cell) = thin(step) {
            lane.merge(&pair("c", "d"), KIND, step * STEP_S, &cell);
        }
        said.extend(lane.close(KIND, (step + 1) * STEP_S * 1_000));
    }
    said
}

/// Quiet pairs of the path between the zones, and those of them with enough traffic.
fn quiet(evidence: &StepEvidence) -> (u32, u32) {
    let path = evidence.elements.iter().find(|sum| sum.element.kind == ElementKind::AzPath).unwrap();
    (path.pairs, path.powered)
}

#[test]
fn a_quiet_pair_counts_with_its_rate_also_in_the_steps_between_its_flows_and_no_longer_than_the_window() {
    // Six flows a minute, all in one step of three; the last in step 60.
    let said = steps(70, |step| (step % 3 == 0 && step <= 60).then(|| flows(3, 0, 0)));
    for evidence in &said[6..=65] {
        assert_eq!(quiet(evidence), (2, if evidence.step_start_s <= 620 { 2 } else { 1 }), "{evidence:?}");
    }
    assert_eq!(quiet(&said[66]), (1, 1));
}

#[test]
fn the_rate_of_a_quiet_pair_is_that_of_the_window_and_not_of_the_step_with_its_only_flow() {
    // One flow a minute is no power; in the step in which it came it counted as six.
    let said = steps(60, |step| (step % 6 == 0).then(|| flows(1, 0, 0)));
    assert!(said[6..].iter().all(|evidence| quiet(evidence) == (2, 1)));
}

#[test]
fn a_pair_that_leans_still_leans_while_it_has_no_traffic_until_it_is_forgotten() {
    // A score above 1 nat without an alarm; then silence, which is no sign of recovery.
    let said = steps(800, |step| match step {
        ..600 => Some(flows(10, 0, 0)),
        600 => Some(flows(10, 5, 2)),
        _ => None,
    });
    let scores = |evidence: &StepEvidence| {
        let row = evidence.rows.iter().find(|row| row.pair == pair("c", "d"))?;
        Some((row.flows, row.signals[0].score_mn, row.signals[0].alarmed))
    };
    let (flows, first, alarmed) = scores(&said[600]).unwrap();
    assert!(flows == 10 && first > 2_000 && !alarmed, "{first}");
    for evidence in &said[601..680] {
        assert_eq!(scores(evidence), Some((0, first, false)), "{}", evidence.step_start_s);
    }
    assert_eq!(scores(&said[700]), None);
}
