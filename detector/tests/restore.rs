//! Laws of windows and of stored lanes, for any traffic at any times.
#![allow(clippy::unwrap_used)]

mod traffic;

use std::collections::BTreeMap;

use flowshift_detector::pane::PeerCounts;
use flowshift_detector::{LaneDetector, LaneState, MergeOutcome, PageKey, Pair, PaneCell, Settings, StepEvidence};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use traffic::{FAIR, KIND, START_S, Weather, pairs};

/// A pane of ten seconds: a little traffic of any weather, or what no network does.
fn any_cell() -> impl Strategy<Value = PaneCell> {
    let weather = (0u64..u64::MAX, 0.0..30.0, 0.0..0.3f64, 0.5..4.0, 0.0..0.9f64);
    let fair = weather.prop_map(|(seed, flows, loss, slower, failing)| {
        traffic::cell(&mut StdRng::seed_from_u64(seed), &Weather { flows, loss, slower, failing, ..FAIR })
    });
    let numbers = (any::<[u32; 6]>(), prop::collection::vec((any::<u64>(), 0..9u64, any::<u32>()), 0..30));
    let odd = numbers.prop_map(|(n, peers)| {
        let mut cell = PaneCell { max_retransmits: n[0].into(), ..PaneCell::default() };
        (cell.counters.flows, cell.counters.segments) = (n[1].into(), n[2].into());
        (cell.counters.retransmits.est, cell.counters.retransmit_flows) = (n[3].into(), n[4].into());
        cell.counters.connect_failures = n[5].into();
        for (peer, flows, rtt_us) in peers {
            cell.rtt.record_values(rtt_us.into(), flows);
            cell.peers.record(peer, &PeerCounts { flows, retransmits: 1, rtt_n: flows, rtt_sum_us: rtt_us.into() });
        }
        cell
    });
    prop_oneof![4 => fair, 1 => odd]
}

fn merge(lane: &mut LaneDetector, pair: &Pair, pane_s: i64, cell: &PaneCell) {
    assert_eq!(lane.merge(pair, KIND, pane_s, cell), MergeOutcome::Accepted);
}

/// A lane whose owner stores it and takes it up again, with the pages that went out of its memory.
struct Stored {
    lane: LaneDetector,
    pages: BTreeMap<PageKey, Vec<u8>>,
}

impl Stored {
    fn restore(&mut self) {
        for (key, bytes) in self.lane.take_pages() {
            match bytes {
                Some(bytes) => self.pages.insert(key, bytes),
                None => self.pages.remove(&key),
            };
        }
        let bytes = postcard::to_allocvec(self.lane.state()).unwrap();
        let state = postcard::from_bytes::<LaneState>(&bytes).unwrap();
        self.lane = LaneDetector::from_state(self.lane.settings().clone(), state).unwrap();
    }

    fn close(&mut self, watermark_ms: i64) -> Vec<StepEvidence> {
        for key in self.lane.wanted_pages(KIND, watermark_ms) {
            self.lane.give_page(key, self.pages.get(&key).cloned()).unwrap();
        }
        self.lane.close(KIND, watermark_ms)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn panes_in_any_order_and_grouping_make_the_same_windows_and_evidence(
        cells in prop::collection::vec((0usize..4, 0i64..12, any_cell()), 1..40), seed in any::<u64>()
    ) {
        let pairs = pairs();
        let mut straight = LaneDetector::new(Settings::default());
        cells.iter().for_each(|(i, pane, cell)| merge(&mut straight, &pairs[*i], START_S + pane * 10, cell));
        let mut shuffled = cells;
        shuffled.shuffle(&mut StdRng::seed_from_u64(seed));
        // As several batches would deliver it: what is next to each other in the shuffled order comes as one sum.
        let mut grouped = LaneDetector::new(Settings::default());
        for batch in shuffled.chunks(7) {
            let mut sums: BTreeMap<(usize, i64), PaneCell> = BTreeMap::new();
            batch.iter().for_each(|(i, pane, cell)| sums.entry((*i, *pane)).or_default().merge(cell));
            sums.iter().for_each(|((i, pane), sum)| merge(&mut grouped, &pairs[*i], START_S + pane * 10, sum));
        }
        for end_s in [START_S + 60, START_S + 120] {
            prop_assert_eq!(straight.close(KIND, end_s * 1_000), grouped.close(KIND, end_s * 1_000));
            for pair in &pairs[..4] {
                prop_assert_eq!(straight.window(KIND, pair), grouped.window(KIND, pair));
            }
        }
    }

    #[test]
    fn what_left_the_window_is_as_if_it_had_never_been_in_it(
        old in prop::collection::vec(any_cell(), 1..6), new in prop::collection::vec((0i64..6, any_cell()), 1..10)
    ) {
        let pair = &pairs()[0];
        let (mut with, mut without) =
            (LaneDetector::new(Settings::default()), LaneDetector::new(Settings::default()));
        for (pane, cell) in (0..).zip(&old) {
            merge(&mut with, pair, START_S + pane * 10, cell);
        }
        with.close(KIND, (START_S + 60) * 1_000);
        for lane in [&mut with, &mut without] {
            new.iter().for_each(|(pane, cell)| merge(lane, pair, START_S + 60 + pane * 10, cell));
            lane.close(KIND, (START_S + 120) * 1_000);
        }
        prop_assert_eq!(with.window(KIND, pair), without.window(KIND, pair));
    }

    #[test]
    fn a_lane_restored_at_any_step_goes_on_as_if_it_had_never_stopped(
        // Gaps of a step, of a slot and of a day, so that slots pass and come again.
        steps in prop::collection::vec(
            (
                prop_oneof![6 => Just(60i64), 2 => Just(900), 1 => Just(86_400 - 120)],
                prop::collection::vec((0usize..3, 0i64..6, any_cell()), 0..6),
                any::<bool>(),
            ),
            1..40,
        )
    ) {
        let pairs = pairs();
        let mut straight = LaneDetector::new(Settings::default());
        let mut stored = Stored { lane: straight.clone(), pages: BTreeMap::new() };
        let mut start_s = START_S;
        for (gap_s, cells, stops) in &steps {
            start_s += gap_s;
            for (i, pane, cell) in cells {
                merge(&mut straight, &pairs[*i], start_s + pane * 10, cell);
                merge(&mut stored.lane, &pairs[*i], start_s + pane * 10, cell);
            }
            if *stops {
                stored.restore();
            }
            let mark_ms = (start_s + 60) * 1_000;
            prop_assert_eq!(straight.close(KIND, mark_ms), stored.close(mark_ms));
        }
        prop_assert_eq!(straight.state(), stored.lane.state());
    }
}
