//! Marks, watermarks and the end, on one lane by hand.
//!
//! What many lanes, crashes and reshards do together is the simulation's (`tests/simulation`); here each rule alone.

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
        payload: Bytes::new(),
    }
}

fn set(number: u64, shards: &[(u8, Status)]) -> Control {
    let sources: SourceSet = shards.iter().map(|(shard, status)| (source(*shard), vec![*status])).collect();
    Control { number, sources }
}

fn lane() -> LaneState {
    LaneState::new(FeedKinds::new(1))
}

#[test]
fn nothing_closes_before_the_first_source_set() {
    let mut lane = lane();
    lane.apply_part(&batch(1, 1, 100)).unwrap();
    assert_eq!(lane.watermarks().get(0), i64::MIN);
    assert!(lane.apply_control(&set(1, &[(1, Status::Live)])));
    assert_eq!(lane.watermarks().get(0), 100);
}

#[test]
fn the_watermark_is_the_minimum_over_the_sources_that_count_and_never_moves_back() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live)]));
    lane.apply_part(&batch(1, 1, 100)).unwrap();
    assert_eq!(lane.watermarks().get(0), i64::MIN, "source 2 has said nothing");
    lane.apply_part(&batch(2, 1, 40)).unwrap();
    assert_eq!(lane.watermarks().get(0), 40);
    lane.apply_control(&set(2, &[(1, Status::Live), (2, Status::Idle)]));
    assert_eq!(lane.watermarks().get(0), 100, "idle source 2 is out");
    lane.apply_control(&set(3, &[(1, Status::Live), (2, Status::Return)]));
    lane.apply_part(&batch(1, 2, 200)).unwrap();
    assert_eq!(lane.watermarks().get(0), 100, "the returning source holds it where it was");
    lane.apply_part(&batch(2, 2, 150)).unwrap();
    assert_eq!(lane.watermarks().get(0), 150);
}

#[test]
fn repeats_and_past_epochs_are_dropped_and_gaps_are_loss() {
    let mut lane = lane();
    assert_eq!(lane.apply_part(&batch(1, 1, 1)), Ok(Applied::New));
    assert_eq!(lane.apply_part(&batch(1, 1, 1)), Ok(Applied::Repeat));
    assert!(matches!(lane.apply_part(&batch(1, 3, 3)), Err(ApplyError::Gap { applied: 1, got: 3, .. })));
    let next = BatchPart { epoch: 2, ..batch(1, 1, 5) };
    assert_eq!(lane.apply_part(&next), Ok(Applied::New));
    assert_eq!(lane.apply_part(&batch(1, 2, 2)), Ok(Applied::Repeat), "epoch 1 is over");
}

#[test]
fn a_batch_counts_when_its_last_part_is_in_whatever_their_order() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live)]));
    let part = |part| BatchPart { part, parts: 3, ..batch(1, 1, 7) };
    for (index, mark) in [(2, i64::MIN), (0, i64::MIN), (0, i64::MIN), (1, 7)] {
        lane.apply_part(&part(index)).unwrap();
        assert_eq!(lane.watermarks().get(0), mark);
    }
    assert_eq!(lane.apply_part(&part(1)), Ok(Applied::Repeat));
}

#[test]
fn an_end_hands_over_to_the_children_without_a_jump() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Live)]));
    lane.apply_part(&batch(2, 1, 500)).unwrap();
    let end = BatchPart { end: true, children: vec![ShardId::new("shard-3")], ..batch(1, 1, 90) };
    lane.apply_part(&end).unwrap();
    assert_eq!(lane.watermarks().get(0), 90, "the child waits at its parent's last watermark");
    lane.apply_part(&batch(3, 1, 300)).unwrap();
    assert_eq!(lane.watermarks().get(0), 300);
}

#[test]
fn the_end_of_every_source_is_the_end_of_time() {
    let mut lane = lane();
    lane.apply_control(&set(1, &[(1, Status::Live), (2, Status::Idle)]));
    let end = |shard| BatchPart { end: true, watermarks: Watermarks::END, ..batch(shard, 1, 0) };
    lane.apply_part(&end(1)).unwrap();
    assert!(!lane.ended(), "an idle source has not ended");
    lane.apply_part(&end(2)).unwrap();
    assert!(lane.ended());
    assert_eq!(lane.watermarks().get(0), i64::MAX);
}

#[test]
fn the_state_survives_its_stored_form() {
    let mut lane = lane();
    lane.apply_control(&set(4, &[(1, Status::Live), (2, Status::Return)]));
    lane.apply_part(&BatchPart { part: 1, parts: 3, ..batch(1, 1, 7) }).unwrap();
    let stored = Bytes::from(lane.encode());
    assert_eq!(LaneState::decode(FeedKinds::new(1), &stored).unwrap(), lane);
}
