//! What follows from how long a stream keeps its records: for a shard in which nothing comes for longer than that, and
//! for what lanes remember of sources that have ended.

use std::time::Duration;

use flowshift_consumer::log::Log;
use flowshift_consumer::run::StateMismatch;
use flowshift_consumer::shard::ShardId;

use crate::mismatch::sums;
use crate::world::{EXCHANGE, INPUT, World, counted};

const HOUR: Duration = Duration::from_secs(3_600);

/// The last record of a stream's first shard, and all before it, are gone.
async fn expire(world: &World, stream: &str) {
    let (shard, last) = (world.row(stream).await.shard, world.log.dump(stream).pop().unwrap().sequence);
    world.log.trim(stream, &shard, &last);
}

/// The first record behind such a silence was told as the first one left of many.
#[tokio::test(start_paused = true)]
async fn its_next_record_is_no_sign_of_loss_when_it_was_read_to_its_tip_since() {
    let mut world = World::new();
    world.log.keep(INPUT, 24 * HOUR);
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    // A day later somebody reads it to its tip, and finds nothing.
    tokio::time::sleep(20 * HOUR).await;
    world.work(StateMismatch::Fail).await;
    tokio::time::sleep(20 * HOUR).await;
    expire(&world, INPUT).await;
    world.put(11..=12).await;
    let registry = world.work(StateMismatch::Fail).await;
    assert_eq!(counted(&registry, "test_shard_trims_total", &[INPUT]), 0.0);
    assert_eq!(sums(&world).await, [42, 36]);
}

#[tokio::test(start_paused = true)]
async fn it_is_one_when_nobody_read_for_longer_than_records_are_kept() {
    let mut world = World::new();
    world.log.keep(INPUT, 24 * HOUR);
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    world.put(11..=12).await;
    tokio::time::sleep(25 * HOUR).await;
    expire(&world, INPUT).await;
    world.put(13..=14).await;
    let registry = world.work(StateMismatch::Fail).await;
    assert_eq!(counted(&registry, "test_shard_trims_total", &[INPUT]), 1.0);
    assert_eq!(sums(&world).await, [30 + 14, 25 + 13]);
}

/// What the leader found out reaches the workers through the state table, and the lanes with them.
#[tokio::test(start_paused = true)]
async fn an_exchange_whose_last_record_is_gone_accepts_no_gap_for_it() {
    let mut world = World::new();
    world.log.keep(EXCHANGE, 24 * HOUR);
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    tokio::time::sleep(HOUR).await;
    expire(&world, EXCHANGE).await;
    world.put(11..=12).await;
    let registry = world.work(StateMismatch::Fail).await;
    assert_eq!(counted(&registry, "test_shard_trims_total", &[EXCHANGE]), 0.0);
    assert_eq!(world.log.retention(EXCHANGE).await.unwrap(), 24 * HOUR);
    assert_eq!(sums(&world).await, [42, 36]);
}

/// Was eight days, whatever the stream keeps: too short for one that keeps a year.
#[tokio::test(start_paused = true)]
async fn a_lane_remembers_an_ended_source_for_the_retention_and_a_day() {
    let mut world = World::new();
    world.log.keep(EXCHANGE, 10 * 24 * HOUR);
    let split = async |world: &mut World, shard: &str| {
        world.log.split(INPUT, &ShardId::new(shard));
        world.put(1..=2).await;
        world.work(StateMismatch::Fail).await;
    };
    world.put(1..=2).await;
    world.work(StateMismatch::Fail).await;
    split(&mut world, "shardId-000000000000").await;
    tokio::time::sleep((11 * 24 - 1) * HOUR).await;
    // A lane forgets when it hears of a new source set.
    split(&mut world, "shardId-000000000001").await;
    assert!(world.marks().await.contains("shardId-000000000000"));
    tokio::time::sleep(2 * HOUR).await;
    split(&mut world, "shardId-000000000002").await;
    let marks = world.marks().await;
    assert!(!marks.contains("shardId-000000000000") && marks.contains("shardId-000000000001"), "{marks}");
}
