//! Lanes are of the job: their number never changes, and every part is for one of them.

use crate::job::Copy;
use crate::mismatch::sums;
use crate::world::{EXCHANGE, INPUT, World, counted};

/// Twenty numbers by `lanes` lanes with this mapper, after ten by two lanes; whether the input's and the exchange's
/// shards were started again, and whether anything was cut.
async fn go_on(lanes: u32, mapper: Copy) -> (bool, bool, bool) {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work_with(|_| {}, Copy::default()).await;
    assert_eq!(sums(&world).await, [30, 25]);
    let before = world.row(INPUT).await.cut.unwrap();
    world.lanes = lanes;
    world.put(11..=20).await;
    let registry = world.work_with(|_| {}, mapper).await;
    let restarted = |stream| counted(&registry, "test_shard_restarts_total", &[stream]) > 0.0;
    let cut = world.row(INPUT).await.cut.unwrap();
    // What was committed can still be had, by the job as it was.
    world.lanes = 2;
    world.work_with(|_| {}, Copy::default()).await;
    assert_eq!(sums(&world).await, [110, 100]);
    (restarted(INPUT), restarted(EXCHANGE), cut.n > before.n)
}

#[tokio::test(start_paused = true)]
async fn the_same_number_of_lanes_goes_on() {
    assert_eq!(go_on(2, Copy::default()).await, (false, false, true));
}

/// Marks and state parts of lanes that are no more were dropped, and all other keys went to other lanes.
#[tokio::test(start_paused = true)]
async fn another_number_of_lanes_is_refused_by_sources_and_lanes_and_loses_nothing() {
    for lanes in [1, 4] {
        assert_eq!(go_on(lanes, Copy::default()).await, (true, true, false), "{lanes} lanes");
    }
}

/// The batch was cut first and refused by the stream then: the shard was stuck, for a mended mapper too.
#[tokio::test(start_paused = true)]
async fn a_part_that_no_record_can_hold_stops_the_shard_before_its_batch_is_cut() {
    assert_eq!(go_on(2, Copy { digits: 1 << 20, ..Copy::default() }).await, (true, false, false));
}

/// Its part was computed, checksummed, cut and then not sent to anyone.
#[tokio::test(start_paused = true)]
async fn a_part_for_a_lane_that_the_job_has_not_stops_the_shard_before_its_batch_is_cut() {
    let mut world = World::new();
    world.lanes = 1;
    world.put(1..=2).await;
    let registry = world.work_with(|_| {}, Copy::default()).await;
    assert!(counted(&registry, "test_shard_restarts_total", &[INPUT]) > 0.0);
    assert_eq!(world.row(INPUT).await.cut, None);
}

/// A reducer was made while the lease was acquired, outside of what catches panics: the shard's task died, and the
/// worker never started another.
#[tokio::test(start_paused = true)]
async fn a_reducer_that_panics_while_it_is_made_is_tried_again() {
    let mut world = World::new();
    world.panics.store(1, std::sync::atomic::Ordering::Relaxed);
    world.put(1..=10).await;
    let registry = world.work_with(|_| {}, Copy::default()).await;
    assert!(counted(&registry, "test_shard_restarts_total", &[EXCHANGE]) > 0.0);
    assert_eq!(sums(&world).await, [30, 25]);
}
