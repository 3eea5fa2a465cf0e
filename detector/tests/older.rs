//! What older programs stored is taken up.
#![allow(clippy::unwrap_used)]

use flowshift_detector::pane::PeerCounts;
use flowshift_detector::{FeedKind, LaneDetector, LaneState, LaneStateV2, Pair, PaneCell, Settings, Subnet};

const KIND: FeedKind = FeedKind::Reports;
const START_S: i64 = 1_700_000_040;
const PANES: i64 = 120;
/// Two pairs for 20 minutes, the last of which is not judged yet, as version 2 stored them. Its cells are those of `cell`.
const LANE_V2: &[u8] = include_bytes!("data/lane-v2.postcard");

fn cell(pane: i64, pair: u64) -> PaneCell {
    let mut cell = PaneCell::default();
    for flow in 0..3 + pair {
        let odd = (pane.unsigned_abs() * 7_919 + pair * 31 + flow * 104_729) % 1_009;
        let again = if pane > 90 { odd % 4 } else { 0 };
        let c = &mut cell.counters;
        c.flows += 1;
        c.segments += 20 + odd % 30;
        c.bytes += 900 * odd;
        c.connects += 1;
        c.connect_failures += u64::from(odd == 5);
        c.retransmits.est += again;
        c.retransmit_flows += u64::from(again > 0);
        cell.max_retransmits = cell.max_retransmits.max(again);
        cell.rtt.record(800 + odd);
        cell.peers.record(odd % 6, &PeerCounts { flows: 1, retransmits: again, rtt_n: 1, rtt_sum_us: 800 + odd });
        cell.quality.records += 1;
    }
    cell.quality.agents.record(pair);
    cell
}

fn pair(to: u64) -> Pair {
    let dst = Subnet::new(&format!("subnet-{to}"), Some("az2"));
    Pair { src: Subnet::new("subnet-a", Some("az1")), dst }
}

#[test]
fn a_lane_of_version_2_goes_on_with_its_windows_its_totals_and_what_it_had_not_judged() {
    let old: LaneStateV2 = postcard::from_bytes(LANE_V2).unwrap();
    let mut taken_up = LaneDetector::from_state(Settings::default(), LaneState::from(old)).unwrap();
    let mut straight = LaneDetector::new(Settings::default());
    for pane in 0..PANES {
        (0..2).for_each(|i| _ = straight.merge(&pair(i), KIND, START_S + pane * 10, &cell(pane, i)));
        if pane % 6 == 5 && pane < PANES - 6 {
            straight.close(KIND, (START_S + pane * 10 + 10) * 1_000);
        }
    }
    assert!(taken_up.totals().eq(straight.totals()));
    let end_ms = (START_S + PANES * 10) * 1_000;
    for judged in [false, true] {
        for i in 0..2 {
            assert!(taken_up.window(KIND, &pair(i)).is_some());
            assert_eq!(taken_up.window(KIND, &pair(i)), straight.window(KIND, &pair(i)));
        }
        if !judged {
            let (steps, said) = (straight.close(KIND, end_ms).len(), taken_up.close(KIND, end_ms));
            assert_eq!((steps, said.len()), (1, 1));
        }
    }
}
