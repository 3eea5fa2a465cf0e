//! Marks, watermarks and the end, on one lane by hand, each rule alone: what many lanes, crashes and reshards do together
//! is the simulation's (`tests/simulation`).

use super::*;
use crate::exchange::SourceSet;
use crate::log::StreamId;
use crate::shard::ShardId;

fn source(shard: u8) -> SourceId {
    let stream = StreamId { name: "flows".into(), created_ms: 1 };
    SourceId { stream, shard: ShardId::new(format!("shard-{shard}")) }
}

fn batch(shard: u8, n: u64, mark: i64) -> BatchPart {
    BatchPart {
        source: source(shard),
        epoch: 1,
        n,
        part: 0,
        parts: 1,
        watermarks: Watermarks::from_slice(&[mark]),
        end: false,
        children: vec![],
        expired: 0,
        diverged: false,
        trimmed: false,
        payload: Bytes::new(),
    }
}

fn set(number: u64, shards: &[(u8, Status)]) -> Control {
    let sources: SourceSet = shards.iter().map(|(shard, status)| (source(*shard), vec![*status])).collect();
    Control { number, sources, catch_up: false }
}

fn lane() -> LaneState {
    LaneState::new(FeedKinds::new(1))
}

#[test]
fn nothing_closes_before_the_first_source_set() {
    let mut lane = lane();
    lane.apply_part(&batch(1, 1, 100), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), i64::MIN);
    assert!(lane.apply_control(&set(1, &[(1, Status::Live)]), 0, 1_000).is_some());
    assert_eq!(lane.watermarks().get(0), 100);
}

#[test]
fn the_watermark_is_the_minimum_over_the_sources_that_count_and_never_moves_back() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
    lane.apply_part(&batch(1, 1, 100), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), i64::MIN, "source 2 has said nothing");
    lane.apply_part(&batch(2, 1, 40), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 40);
    lane.apply_control(&set(2, &[(1, Status::Live), (2, Status::Idle)]), 0, 1_000);
    assert_eq!(lane.watermarks().get(0), 100, "idle source 2 is out");
    lane.apply_control(&set(3, &[(1, Status::Live), (2, Status::Return)]), 0, 1_000);
    lane.apply_part(&batch(1, 2, 200), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 100, "the returning source holds it where it was");
    lane.apply_part(&batch(2, 2, 150), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 150);
}

/// The silent one had never been seen out while the other counted: what had come before all fell silent was closed only
/// when more came.
#[test]
fn when_all_sources_fall_silent_at_one_look_what_they_said_is_closed() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live), (3, Status::Live)]), 0, 1_000);
    lane.apply_part(&batch(1, 1, 100), 0).unwrap();
    lane.apply_part(&BatchPart { end: true, ..batch(3, 1, 500) }, 0).unwrap();
    lane.apply_control(&set(2, &[(1, Status::Idle), (2, Status::Idle)]), 0, 1_000);
    assert_eq!(lane.watermarks().get(0), 100, "the furthest of those that may come back");
    lane.apply_control(&set(3, &[(1, Status::Return), (2, Status::Idle)]), 0, 1_000);
    lane.apply_part(&batch(1, 2, 130), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 130);
}

#[test]
fn repeats_and_past_epochs_are_dropped_and_gaps_are_loss() {
    let mut lane = lane();
    assert_eq!(lane.apply_part(&batch(1, 1, 1), 0), Ok(Applied::New));
    assert_eq!(lane.apply_part(&batch(1, 1, 1), 0), Ok(Applied::Repeat));
    assert!(matches!(lane.apply_part(&batch(1, 3, 3), 0), Err(ApplyError::Gap { applied: 1, got: 3, .. })));
    let next = BatchPart { epoch: 2, ..batch(1, 1, 5) };
    assert_eq!(lane.apply_part(&next, 0), Ok(Applied::New));
    assert_eq!(lane.apply_part(&batch(1, 2, 2), 0), Ok(Applied::Repeat), "epoch 1 is over");
}

#[test]
fn a_batch_counts_when_its_last_part_is_in_whatever_their_order() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live)]), 0, 1_000);
    let part = |part| BatchPart { part, parts: 3, ..batch(1, 1, 7) };
    for (index, mark) in [(2, i64::MIN), (0, i64::MIN), (0, i64::MIN), (1, 7)] {
        lane.apply_part(&part(index), 0).unwrap();
        assert_eq!(lane.watermarks().get(0), mark);
    }
    assert_eq!(lane.apply_part(&part(1), 0), Ok(Applied::Repeat));
}

#[test]
fn an_end_hands_over_to_the_children_without_a_jump() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
    lane.apply_part(&batch(2, 1, 500), 0).unwrap();
    let end = BatchPart { end: true, children: vec![ShardId::new("shard-3")], ..batch(1, 1, 90) };
    lane.apply_part(&end, 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 90, "the child waits at its parent's last watermark");
    lane.apply_part(&batch(3, 1, 300), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 300);
}

/// Was out of the minimum until a later set named it, and lanes closed steps that it still spoke of: leaders had died
/// before any of them got a set to the lanes, and the first that did was older than the end.
#[test]
fn the_child_of_a_source_that_ended_before_the_first_set_came_holds_the_lane_back() {
    let mut lane = lane();
    let end = BatchPart { end: true, children: vec![ShardId::new("shard-3")], ..batch(1, 1, 90) };
    lane.apply_part(&end, 0).unwrap();
    assert_eq!(lane.watermarks().get(0), i64::MIN, "others may stand further back");
    lane.apply_part(&batch(2, 1, 500), 0).unwrap();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
    assert_eq!(lane.watermarks().get(0), 90);
    lane.apply_part(&batch(3, 1, 300), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 300);
}

/// Where the parent that had seen nothing ended first, the child was put where the other stood, and lanes closed steps
/// that the child, whose state is of both, still spoke of.
#[test]
fn a_child_stands_where_the_slower_of_its_parents_stood_whichever_ended_first() {
    for first in [1, 2] {
        let mut lane = lane();
        lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live), (4, Status::Live)]), 0, 1_000);
        lane.apply_part(&batch(4, 1, 900), 0).unwrap();
        let marks = |shard| if shard == 1 { Watermarks::NONE } else { Watermarks::from_slice(&[500]) };
        for shard in [first, 3 - first] {
            let children = vec![ShardId::new("shard-3")];
            let end = BatchPart { end: true, children, watermarks: marks(shard), ..batch(shard, 1, 0) };
            lane = LaneState::decode(FeedKinds::new(1), &Bytes::from(lane.encode())).unwrap();
            lane.apply_part(&end, 0).unwrap();
        }
        assert_eq!(lane.watermarks().get(0), i64::MIN, "shard {first} ended first");
    }
}

#[test]
fn the_end_of_every_source_is_the_end_of_time() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Idle)]), 0, 1_000);
    let end = |shard| BatchPart { end: true, watermarks: Watermarks::END, ..batch(shard, 1, 0) };
    lane.apply_part(&end(1), 0).unwrap();
    assert!(!lane.ended(), "an idle source has not ended");
    lane.apply_part(&end(2), 0).unwrap();
    assert!(lane.ended());
    assert_eq!(lane.watermarks().get(0), i64::MAX);
}

#[test]
fn the_state_survives_its_stored_form() {
    let mut lane = lane();
    lane.apply_control(&set(4, &[(1, Status::Live), (2, Status::Return)]), 0, 1_000);
    lane.apply_part(&BatchPart { part: 1, parts: 3, ..batch(1, 1, 7) }, 0).unwrap();
    let end = BatchPart { end: true, expired: 2, children: vec![ShardId::new("shard-5")], ..batch(3, 1, 7) };
    lane.apply_part(&end, 77).unwrap();
    lane.apply_part(&BatchPart { parts: 2, diverged: true, ..batch(4, 1, 7) }, 78).unwrap();
    lane.forgive();
    lane.apply_control(&catch_up(5, &[(1, Status::Live), (2, Status::Return), (5, Status::Live)]), 79, 1_000);
    lane.forgive();
    lane.accept_until(5);
    let stored = Bytes::from(lane.encode());
    assert_eq!(LaneState::decode(FeedKinds::new(1), &stored).unwrap(), lane);
}

#[test]
fn a_loss_that_is_explained_is_accepted_once_per_source_and_counted() {
    let mut lane = lane();
    lane.apply_part(&batch(1, 1, 1), 0).unwrap();
    lane.forgive();
    assert!(matches!(
        lane.apply_part(&batch(1, 4, 4), 0),
        Ok(Applied::NewAfter(Loss::Gap { applied: 1, next: 4, .. }))
    ));
    assert!(lane.apply_part(&batch(1, 6, 6), 0).is_err(), "a second gap has no explanation");
    let stranger = lane.apply_part(&batch(2, 9, 9), 0);
    assert!(matches!(stranger, Ok(Applied::NewAfter(Loss::Gap { applied: 0, next: 9, .. }))));
    assert_eq!(lane.gaps(), 2);
}

#[test]
fn an_operator_accepts_gaps_in_what_has_arrived_and_in_nothing_later() {
    let mut lane = lane();
    lane.apply_part(&batch(1, 1, 1), 0).unwrap();
    lane.accept_until(500);
    lane.apply_part(&batch(1, 2, 2), 400).unwrap();
    assert!(matches!(lane.apply_part(&batch(1, 4, 4), 500), Ok(Applied::NewAfter(_))));
    assert!(lane.apply_part(&batch(1, 6, 6), 501).is_err());
}

#[test]
fn what_a_part_of_a_batch_held_is_not_counted_again_when_the_rest_expired() {
    // Was: a batch cut again with fewer records has other parts, and the lane that held one of the old stopped for
    // ever.
    let mut lane = lane();
    let first = BatchPart { part: 1, parts: 2, ..batch(1, 1, 7) };
    assert_eq!(lane.apply_part(&first, 0), Ok(Applied::New));
    let again = BatchPart { expired: 3, ..batch(1, 1, 7) };
    assert!(matches!(lane.apply_part(&again, 0), Ok(Applied::Closed(Loss::Expired { n: 1, records: 3, .. }))));
    let late = BatchPart { part: 0, ..first };
    assert_eq!(lane.apply_part(&late, 0), Ok(Applied::Repeat), "a zombie's part of the first emission");
    assert_eq!(lane.apply_part(&batch(1, 2, 8), 0), Ok(Applied::New));
}

#[test]
fn a_batch_that_came_out_otherwise_is_taken_whole_or_not_at_all_and_the_lane_is_told() {
    let part = |part, parts, diverged| BatchPart { part, parts, diverged, ..batch(1, 1, 7) };
    let (mut fresh, mut half, mut whole) = (lane(), lane(), lane());
    assert!(matches!(fresh.apply_part(&part(0, 2, true), 0), Ok(Applied::NewAfter(Loss::Diverged { n: 1, .. }))));
    assert_eq!(fresh.apply_part(&part(1, 3, false), 0), Ok(Applied::Repeat), "the first emission, late");
    assert_eq!(fresh.apply_part(&part(1, 2, true), 0), Ok(Applied::New));
    assert_eq!(half.apply_part(&part(1, 3, false), 0), Ok(Applied::New));
    // Without the mark two emissions of different numbers of parts would stop the lane, of equal ones be mixed.
    assert!(matches!(half.apply_part(&part(0, 2, true), 0), Ok(Applied::Closed(Loss::Diverged { n: 1, .. }))));
    assert_eq!(half.apply_part(&part(1, 2, true), 0), Ok(Applied::Repeat));
    assert_eq!(whole.apply_part(&part(0, 1, false), 0), Ok(Applied::New));
    assert_eq!(whole.apply_part(&part(0, 2, true), 0), Ok(Applied::Repeat));
    for mut lane in [fresh, half, whole] {
        assert_eq!(lane.apply_part(&batch(1, 2, 8), 0), Ok(Applied::New));
    }
}

#[test]
fn a_lane_that_held_nothing_of_a_batch_takes_what_is_left_of_it_and_is_incomplete() {
    let mut lane = lane();
    let part = |part, expired| BatchPart { part, parts: 2, expired, ..batch(1, 1, 7) };
    assert!(matches!(lane.apply_part(&part(0, 3), 0), Ok(Applied::NewAfter(Loss::Expired { .. }))));
    assert_eq!(lane.apply_part(&part(1, 0), 0), Ok(Applied::Repeat), "an older emission, late");
    assert_eq!(lane.apply_part(&part(0, 3), 0), Ok(Applied::Repeat));
    assert_eq!(lane.apply_part(&part(1, 3), 0), Ok(Applied::New), "the same emission goes on");
    assert_eq!(lane.apply_part(&batch(1, 2, 8), 0), Ok(Applied::New));
}

#[test]
fn an_ended_source_is_forgotten_by_the_log_s_time_and_not_while_a_set_names_it() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
    lane.apply_part(&BatchPart { end: true, ..batch(1, 1, 90) }, 5_000).unwrap();
    lane.apply_control(&set(2, &[(1, Status::Live), (2, Status::Idle)]), 9_000, 1_000);
    assert_eq!(lane.apply_part(&batch(1, 1, 90), 9_000), Ok(Applied::Repeat), "still named by the set");
    lane.apply_control(&set(3, &[(2, Status::Live)]), 5_999, 1_000);
    assert_eq!(lane.apply_part(&batch(1, 1, 90), 9_000), Ok(Applied::Repeat), "too early");
    let before = lane.encode().len();
    lane.apply_control(&set(4, &[(2, Status::Live)]), 6_000, 1_000);
    assert!(lane.encode().len() < before, "its marks are gone");
}

/// The minimum as it was computed before: by a look at every source.
fn slow_low(lane: &LaneState, kind: usize) -> Option<i64> {
    let counts = |s: &&Entry| s.in_set && !s.ended && s.status.get(kind) != Some(&Status::Idle);
    lane.sources.values().filter(counts).map(|s| s.watermarks.get(kind)).min()
}

#[test]
fn the_minimum_kept_is_the_minimum_over_all_sources_whatever_happens_to_them() {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    for seed in 0..50 {
        let mut chance = SmallRng::seed_from_u64(seed);
        let mut lane = LaneState::new(FeedKinds::new(2));
        let (mut next, mut ends) = ([1u64; 24], 0);
        for step in 0..400 {
            let shard = chance.random_range(0..12u8 + ends);
            match chance.random_range(0..20) {
                0 => {
                    let status = |code: i64| Status::from_code(code);
                    let mut sources = SourceSet::new();
                    // Children are named before their parents have ended, too.
                    for shard in 0..24 {
                        if chance.random_bool(0.2) {
                            continue;
                        }
                        let statuses = vec![status(chance.random_range(0..3)), status(chance.random_range(0..3))];
                        sources.insert(source(shard), statuses);
                    }
                    lane.apply_control(
                        &Control { number: step + 1, sources, catch_up: false },
                        i64::try_from(step).unwrap(),
                        50,
                    );
                }
                1 if ends < 12 => {
                    let children = vec![source(12 + ends).shard];
                    let end = BatchPart { end: true, children, ..batch(shard, next[usize::from(shard)], 1_000) };
                    next[usize::from(shard)] += 1;
                    ends += 1;
                    lane.apply_part(&end, i64::try_from(step).unwrap()).ok();
                }
                2 => lane = LaneState::decode(FeedKinds::new(2), &Bytes::from(lane.encode())).unwrap(),
                _ => {
                    let marks = [chance.random_range(0..500), chance.random_range(0..500)];
                    let n = next[usize::from(shard)];
                    next[usize::from(shard)] += 1;
                    let part = BatchPart { watermarks: Watermarks::from_slice(&marks), ..batch(shard, n, 0) };
                    // Repeats and gaps change nothing or are refused.
                    lane.apply_part(&part, 0).ok();
                }
            }
            for kind in 0..2 {
                assert_eq!(lane.lows.low(kind), slow_low(&lane, kind), "seed {seed}, step {step}, kind {kind}");
            }
            let mut set = lane.sources.values().filter(|s| s.in_set).peekable();
            let ended = lane.control > 0 && set.peek().is_some() && set.all(|s| s.ended);
            assert_eq!(lane.ended(), ended, "seed {seed}, step {step}");
        }
    }
}

fn catch_up(number: u64, shards: &[(u8, Status)]) -> Control {
    Control { catch_up: true, ..set(number, shards) }
}

/// Control records may be among the lost ones: a source that came back would have been left out of the minimum.
#[test]
fn a_lane_that_lost_records_closes_nothing_before_a_set_that_misses_nothing() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Idle)]), 0, 1_000);
    lane.apply_part(&batch(1, 1, 10), 0).unwrap();
    lane.forgive();
    lane.apply_part(&batch(1, 5, 50), 0).unwrap();
    assert!(lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Idle)]), 0, 1_000).is_none(), "an old one");
    lane.apply_control(&set(3, &[(1, Status::Live), (2, Status::Idle)]), 0, 1_000);
    assert_eq!(lane.watermarks().get(0), 10, "a later one may be lost too");
    let older = catch_up(2, &[(1, Status::Live), (2, Status::Idle)]);
    assert!(lane.apply_control(&older, 0, 1_000).is_none(), "put again before the one it knows");
    lane.apply_control(&catch_up(3, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
    lane.apply_part(&batch(2, 7, 30), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 30);
}

/// It was held for live for ever, and the lane never closed anything again.
#[test]
fn a_source_whose_end_was_lost_is_over_with_the_set_that_no_longer_names_it_and_its_repeats_are_dropped() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
    lane.apply_part(&batch(1, 1, 10), 0).unwrap();
    lane.apply_part(&batch(2, 1, 10), 0).unwrap();
    lane.forgive();
    let lost = lane.apply_control(&catch_up(4, &[(2, Status::Live)]), 0, 1_000).unwrap();
    assert!(matches!(&lost[..], [Loss::End { applied: 1, .. }]), "{lost:?}");
    lane.apply_part(&batch(2, 2, 90), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 90);
    assert_eq!(lane.apply_part(&batch(1, 2, 20), 0), Ok(Applied::Repeat));
}

#[test]
fn a_child_that_is_younger_than_the_set_that_catches_up_is_waited_for() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
    lane.forgive();
    let end = BatchPart { end: true, children: vec![ShardId::new("shard-3")], ..batch(1, 4, 10) };
    lane.apply_part(&end, 0).unwrap();
    lane.apply_part(&batch(2, 1, 90), 0).unwrap();
    // Written before the leader saw the END.
    let lost = lane.apply_control(&catch_up(1, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000).unwrap();
    assert_eq!((lost, lane.watermarks().get(0)), (vec![], 10));
}

/// Its END was lost and a set that still named it told the lane again, or a KCL application read the shard to its end while
/// the job stood still: the lane waited for it for ever.
#[test]
fn a_source_is_over_with_the_first_set_without_it_and_comes_back_in_a_new_epoch() {
    for told_again in [true, false] {
        let mut lane = lane();
        lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
        lane.apply_part(&batch(1, 1, 10), 0).unwrap();
        if told_again {
            lane.forgive();
            lane.apply_control(&catch_up(1, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
        }
        lane.apply_part(&batch(2, 1, 50), 0).unwrap();
        let lost = lane.apply_control(&set(2, &[(2, Status::Live)]), 7, 1_000).unwrap();
        assert!(matches!(&lost[..], [Loss::End { source: ended, .. }] if *ended == source(1)), "{lost:?}");
        assert_eq!(lane.watermarks().get(0), 50);
        assert_eq!(lane.apply_part(&batch(1, 2, 20), 0), Ok(Applied::Repeat));
        // It was alive, and the set was wrong: what was dropped meanwhile is missing, and the lane says so.
        let copy = || LaneState::decode(FeedKinds::new(1), &Bytes::from(lane.encode())).unwrap();
        let (mut wrong, mut trimmed) = (copy(), copy());
        wrong.apply_control(&set(3, &[(1, Status::Live), (2, Status::Live)]), 7, 1_000);
        assert_eq!(wrong.apply_part(&batch(1, 3, 30), 0).is_err(), !told_again);
        // Records expired unread while it was taken for over.
        trimmed.forgive();
        trimmed.apply_control(&catch_up(3, &[(1, Status::Live), (2, Status::Live)]), 7, 1_000);
        assert!(matches!(trimmed.apply_part(&batch(1, 3, 30), 0), Ok(Applied::NewAfter(Loss::Gap { .. }))));
        // Its row was taken away, and made again.
        assert_eq!(lane.apply_part(&BatchPart { epoch: 2, ..batch(1, 1, 60) }, 0), Ok(Applied::New));
        lane.apply_control(&set(3, &[(1, Status::Live), (2, Status::Live)]), 7, 1_000);
        lane.apply_part(&batch(2, 2, 90), 0).unwrap();
        assert_eq!(lane.watermarks().get(0), 60, "it is waited for again");
    }
}

/// A copy of a batch landed late, and the lane began to wait for a source that was over.
#[test]
fn what_lands_late_of_a_source_that_a_discarded_lane_never_heard_of_is_dropped() {
    let mut lane = lane();
    lane.forgive();
    lane.apply_control(&catch_up(3, &[(1, Status::Live), (2, Status::Live)]), 0, 1_000);
    lane.apply_control(&set(4, &[(2, Status::Live)]), 0, 1_000);
    assert_eq!(lane.apply_part(&batch(1, 9, 20), 0), Ok(Applied::Repeat));
    lane.apply_part(&batch(2, 5, 90), 0).unwrap();
    assert_eq!(lane.watermarks().get(0), 90);
}
