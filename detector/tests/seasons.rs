//! What the time of day does to baselines, and that pages carry it exactly.
#![allow(clippy::unwrap_used)]

mod traffic;

use std::collections::BTreeMap;

use flowshift_detector::{
    EventType, LaneDetector, LaneState, MergeOutcome, PageError, PageKey, Pair, PaneCell, Settings, Signal,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use traffic::{FAIR, KIND, START_S, STEP_S, Weather, cell, pairs, run};

const DAY_STEPS: i64 = 1_440;

/// Two pairs for some days; a job multiplies loss and traffic of the first for half an hour of each day.
fn days(seed: u64, days: i64, job: impl Fn(i64) -> bool) -> Vec<(i64, Pair, PaneCell)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let two = &pairs()[..2];
    let mut panes = Vec::new();
    for step in 0..days * DAY_STEPS {
        for (index, pair) in two.iter().enumerate() {
            let at_night = (200..230).contains(&(step % DAY_STEPS)) && job(step / DAY_STEPS);
            let weather = if index == 0 && at_night {
                Weather { loss: 0.02, flows: 20.0, ..FAIR }
            } else {
                Weather { flows: 10.0, ..FAIR }
            };
            panes.push((START_S + step * STEP_S, pair.clone(), cell(&mut rng, &weather)));
        }
    }
    panes
}

#[test]
fn a_job_that_comes_every_night_is_told_about_until_it_is_the_season_and_a_new_one_is_told_about() {
    let opened = |panes: &[(i64, Pair, PaneCell)]| -> Vec<i64> {
        let events = run(panes).events;
        let opened = events.iter().filter(|e| e.event_type == EventType::Opened && e.signal == Signal::Retransmit);
        opened.map(|e| (e.at - START_S) / STEP_S / DAY_STEPS).collect()
    };
    let nightly = opened(&days(31, 5, |_| true));
    assert!(nightly.contains(&0) && nightly.iter().all(|day| *day < 2), "{nightly:?}");
    assert_eq!(opened(&days(31, 5, |day| day == 4)), [4]);
}

/// An owner that stores a lane: what was committed, and the lane as it would be taken up from it.
#[derive(Default)]
struct Store {
    pages: BTreeMap<PageKey, Vec<u8>>,
    reads: usize,
}

impl Store {
    /// Commits, then takes the lane up again from what was committed, as after a crash.
    fn commit_and_restore(&mut self, lane: &mut LaneDetector) -> LaneDetector {
        for (key, bytes) in lane.take_pages() {
            match bytes {
                Some(bytes) => assert!(self.pages.insert(key, bytes).is_none(), "a page never changes"),
                None => assert!(self.pages.remove(&key).is_some()),
            }
        }
        let bytes = postcard::to_allocvec(lane.state()).unwrap();
        LaneDetector::from_state(Settings::default(), postcard::from_bytes::<LaneState>(&bytes).unwrap()).unwrap()
    }

    fn deliver(&mut self, lane: &mut LaneDetector, watermark_ms: i64) {
        for key in lane.wanted_pages(KIND, watermark_ms) {
            self.reads += 1;
            lane.give_page(key, self.pages.get(&key).cloned()).unwrap();
        }
        assert!(lane.wanted_pages(KIND, watermark_ms).is_empty());
    }
}

#[test]
fn a_lane_restored_from_state_and_pages_says_the_same_as_one_that_never_stopped() {
    let panes = days(32, 3, |day| day != 1);
    let mut straight = LaneDetector::new(Settings::default());
    let mut stored = LaneDetector::new(Settings::default());
    let mut store = Store::default();
    for (number, step) in panes.chunk_by(|a, b| a.0 == b.0).enumerate() {
        for (pane_s, pair, cell) in step {
            assert_eq!(straight.merge(pair, KIND, *pane_s, cell), MergeOutcome::Accepted);
            assert_eq!(stored.merge(pair, KIND, *pane_s, cell), MergeOutcome::Accepted);
        }
        let watermark_ms = (step[0].0 + STEP_S) * 1_000;
        store.deliver(&mut stored, watermark_ms);
        assert_eq!(stored.close(KIND, watermark_ms), straight.close(KIND, watermark_ms));
        // Not at a divisor of a slot, so that crashes fall everywhere in it.
        if number % 37 == 0 {
            stored = store.commit_and_restore(&mut stored);
        }
    }
    assert_eq!(stored.state(), straight.state());
    assert!(store.reads > 300, "{}", store.reads);
}

#[test]
fn a_lane_far_behind_asks_at_once_for_the_pages_of_every_slot_it_will_pass() {
    let panes = days(33, 2, |_| false);
    let (past, rest) = panes.split_at(2 * (DAY_STEPS as usize + 30));
    let mut lane = LaneDetector::new(Settings::default());
    past.iter()
        .for_each(|(pane_s, pair, cell)| assert_eq!(lane.merge(pair, KIND, *pane_s, cell), MergeOutcome::Accepted));
    lane.close(KIND, rest[0].0 * 1_000);
    let mut store = Store::default();
    let mut lane = store.commit_and_restore(&mut lane);
    rest.iter()
        .for_each(|(pane_s, pair, cell)| assert_eq!(lane.merge(pair, KIND, *pane_s, cell), MergeOutcome::Accepted));
    assert!(lane.wanted_pages(KIND, (rest[0].0 + STEP_S) * 1_000).len() <= 3);
    assert!(lane.wanted_pages(KIND, i64::MAX).len() > 80, "those of the rest of yesterday");
}

#[test]
fn a_lost_page_is_not_asked_for_again_and_a_damaged_one_is_refused() {
    let mut lane = LaneDetector::new(Settings::default());
    for (pane_s, pair, cell) in days(34, 1, |_| false) {
        assert_eq!(lane.merge(&pair, KIND, pane_s, &cell), MergeOutcome::Accepted);
    }
    // In the next slot, whose baseline needs the pages of yesterday.
    let end_s = START_S + DAY_STEPS * STEP_S + 900;
    lane.close(KIND, end_s * 1_000);
    let mut lane = Store::default().commit_and_restore(&mut lane);
    assert_eq!(lane.merge(&pairs()[0], KIND, end_s, &PaneCell::default()), MergeOutcome::Accepted);
    let watermark_ms = (end_s + STEP_S) * 1_000;
    let wanted = lane.wanted_pages(KIND, watermark_ms);
    assert!(!wanted.is_empty());
    assert!(matches!(lane.give_page(wanted[0], Some(vec![1, 2, 3])), Err(PageError::Damaged { .. })));
    wanted.into_iter().for_each(|key| lane.give_page(key, None).unwrap());
    assert!(lane.wanted_pages(KIND, watermark_ms).is_empty());
    assert_eq!(lane.close(KIND, watermark_ms).len(), 1);
}
