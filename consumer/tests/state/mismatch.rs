//! State that does not belong to its checkpoint, or cannot be read: the policy decides, and says so.

use std::time::Duration;

use flowshift_consumer::lease::Checkpoint;
use flowshift_consumer::run::StateMismatch;
use flowshift_consumer::{inspect, resolve};
use prometheus::Registry;

use crate::world::{EXCHANGE, INPUT, World, counted};

/// The sums of the lanes.
pub(crate) async fn sums(world: &World) -> Vec<u64> {
    let lanes = world.lanes().await;
    lanes.values().map(|text| text.split(' ').next().unwrap().parse().unwrap()).collect()
}

async fn losses(world: &World) -> Vec<u64> {
    let lanes = world.lanes().await;
    lanes.values().map(|text| text.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_moved_by_another_program_stops_the_shard_and_changes_nothing() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    assert_eq!(sums(&world).await, [30, 25]);
    world.move_checkpoint(EXCHANGE, "1").await;
    let before = world.row(EXCHANGE).await;
    world.put(11..=12).await;
    let registry = world.work(StateMismatch::Fail).await;
    let after = world.row(EXCHANGE).await;
    assert_eq!((after.checkpoint, after.manifest), (before.checkpoint, before.manifest));
    assert!(counted(&registry, "test_shard_restarts_total", &[EXCHANGE]) > 0.0);
    assert_eq!(counted(&registry, "test_state_discards_total", &[]), 0.0);
}

/// Each try made it young again, so that no alert on its age could fire.
#[tokio::test(start_paused = true)]
async fn a_shard_that_stops_at_the_same_place_again_and_again_makes_no_progress() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    world.move_checkpoint(EXCHANGE, "1").await;
    world
        .work_while(async |_: &World, registry: &Registry| {
            tokio::time::sleep(Duration::from_secs(400)).await;
            assert!(counted(registry, "test_shard_restarts_total", &[EXCHANGE]) > 10.0);
            for age in ["test_progress_age_seconds", "test_checkpoint_age_seconds"] {
                let age = counted(registry, age, &[EXCHANGE]);
                assert!(age > 300.0, "{age}");
            }
        })
        .await;
}

/// From outside a shard that stopped looked like one that goes on.
#[tokio::test(start_paused = true)]
async fn the_row_says_why_its_shard_stopped_until_it_goes_on() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    let good = world.row(EXCHANGE).await;
    assert_eq!(good.trouble, None);
    world.move_checkpoint(EXCHANGE, "1").await;
    world.work(StateMismatch::Fail).await;
    let told = world.row(EXCHANGE).await.trouble.unwrap();
    assert!(told.contains("belongs to checkpoint") && told.contains("leases resolve state"), "{told}");
    assert_eq!(world.row(INPUT).await.trouble, None);
    world.move_checkpoint(EXCHANGE, &good.checkpoint.to_string()).await;
    world.put(11..=12).await;
    world.work(StateMismatch::Fail).await;
    assert_eq!(world.row(EXCHANGE).await.trouble, None);
    // Of a source as well, whose commits are others.
    let good = world.row(INPUT).await.checkpoint.to_string();
    world.move_checkpoint(INPUT, "1").await;
    world.work(StateMismatch::Fail).await;
    assert!(world.row(INPUT).await.trouble.is_some());
    world.move_checkpoint(INPUT, &good).await;
    world.put(13..=14).await;
    world.work(StateMismatch::Fail).await;
    assert_eq!(world.row(INPUT).await.trouble, None);
}

#[tokio::test(start_paused = true)]
async fn discarding_a_lanes_state_is_counted_told_to_the_lane_and_what_follows_is_counted_once() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Discard).await;
    // The committed position is moved back by one record of the exchange stream: its state is of another moment.
    let last = world.row(EXCHANGE).await.checkpoint.to_string();
    let back = world.log.dump(EXCHANGE).into_iter().rev().map(|r| r.sequence.to_string()).find(|s| *s != last).unwrap();
    world.move_checkpoint(EXCHANGE, &back).await;
    let epoch = world.row(EXCHANGE).await.epoch;
    world.put(11..=14).await;
    let registry = world.work(StateMismatch::Discard).await;
    assert_eq!(counted(&registry, "test_state_discards_total", &[EXCHANGE, "moved"]), 1.0);
    assert_eq!(sums(&world).await, [26, 24], "only what came after");
    assert!(losses(&world).await.iter().all(|losses| *losses > 0), "the lanes know");
    assert!(world.row(EXCHANGE).await.epoch > epoch);
    // It is over: the next worker finds state and checkpoint of one commit.
    world.put(15..=16).await;
    let registry = world.work(StateMismatch::Fail).await;
    assert_eq!(counted(&registry, "test_state_discards_total", &[]), 0.0);
    assert_eq!(sums(&world).await, [42, 39]);
}

/// Lanes close nothing before their first source set, which had passed long before the state was discarded.
#[tokio::test(start_paused = true)]
async fn lanes_without_state_hear_the_source_set_again_and_event_time_goes_on() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    assert!(world.lose("/lane-0000/").await > 0);
    world.put(95..=96).await;
    world.work(StateMismatch::Discard).await;
    let lanes = world.lanes().await;
    assert!(lanes.values().all(|text| text.split(' ').nth(2) == Some("9")), "slot of 96 s: {lanes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_chunk_stops_the_shard_until_an_operator_decides() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    assert!(world.lose("/lane-0001/").await > 0);
    world.put(11..=12).await;
    let registry = world.work(StateMismatch::Fail).await;
    assert!(counted(&registry, "test_shard_restarts_total", &[EXCHANGE]) > 0.0);
    let shard = world.row(EXCHANGE).await.shard;
    resolve::discard_state(&*world.table, &World::tables(), EXCHANGE, &shard).await.unwrap();
    let registry = world.work(StateMismatch::Fail).await;
    assert_eq!(counted(&registry, "test_state_discards_total", &[EXCHANGE, "operator"]), 1.0);
    assert_eq!(sums(&world).await, [12, 11]);
    let registry = world.work(StateMismatch::Fail).await;
    assert_eq!(counted(&registry, "test_state_discards_total", &[]), 0.0, "a decision is used once");
}

#[tokio::test(start_paused = true)]
async fn a_source_without_its_state_starts_a_new_epoch_and_nothing_counts_twice() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    let before = world.row(INPUT).await;
    assert!(world.lose("/shardId-000000000000/A/").await + world.lose("/shardId-000000000000/B/").await > 0);
    world.put(11..=12).await;
    let registry = world.work(StateMismatch::Discard).await;
    assert_eq!(counted(&registry, "test_state_discards_total", &[INPUT, "missing"]), 1.0);
    let after = world.row(INPUT).await;
    assert!(after.epoch > before.epoch);
    let cut = after.cut.unwrap();
    assert!(cut.watermarks[0] >= before.cut.unwrap().watermarks[0], "what lanes closed stays closed");
    assert_eq!(sums(&world).await, [42, 36], "every number once");
}

/// Was a danger: a child whose own state was discarded would have inherited its parents' again.
#[tokio::test(start_paused = true)]
async fn a_row_with_a_checkpoint_and_no_state_inherits_nothing() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    let parent = world.row(EXCHANGE).await.shard;
    world.log.split(EXCHANGE, &parent);
    world.put(11..=14).await;
    world.work(StateMismatch::Fail).await;
    assert_eq!(sums(&world).await, [56, 49]);
    world.lose("/lane-0000/").await;
    world.put(15..=16).await;
    world.work(StateMismatch::Discard).await;
    assert_eq!(sums(&world).await, [16, 64], "lane 0 starts empty, lane 1 goes on");
}

/// The advice named the parent, whose row nobody runs any more, and the child said that it had no state.
#[tokio::test(start_paused = true)]
async fn a_child_whose_parents_state_is_lost_says_so_by_its_own_name_and_goes_on_when_it_is_decided() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    let parent = world.row(EXCHANGE).await.shard;
    world.log.split(EXCHANGE, &parent);
    world.put(11..=14).await;
    let world = &mut world;
    let rows = async |world: &World| inspect::rows(&*world.table, &World::tables(), EXCHANGE).await.unwrap();
    world
        .work_while(async |world: &World, _: &Registry| {
            while rows(world).await[0].checkpoint != Checkpoint::ShardEnd || rows(world).await.len() < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    assert!(rows(world).await[1..].iter().all(|row| row.manifest.is_none()), "killed before they began");
    assert!(world.lose("/lane-0000/").await > 0);
    world.work(StateMismatch::Fail).await;
    let stopped = rows(world).await.into_iter().find(|row| row.trouble.is_some()).expect("one child needs the lane");
    let told = stopped.trouble.unwrap();
    assert!(told.contains(&format!("leases resolve state {}", stopped.shard)), "{told}");
    assert!(told.contains(&format!("shard {parent} at")), "{told}");
    resolve::discard_state(&*world.table, &World::tables(), EXCHANGE, &stopped.shard).await.unwrap();
    let registry = world.work(StateMismatch::Fail).await;
    assert_eq!(counted(&registry, "test_state_discards_total", &[EXCHANGE, "operator"]), 1.0);
    assert!(rows(world).await.iter().all(|row| row.trouble.is_none()));
    assert_eq!(sums(world).await, [26, 49], "lane 0 starts empty, lane 1 goes on");
}
