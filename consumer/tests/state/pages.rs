//! Pages through a running worker: written with the commit, read before the watermark moves on, dropped after it.

use flowshift_consumer::run::StateMismatch;
use flowshift_consumer::table::Table;

use crate::world::{EXCHANGE, World, counted};

async fn stored(world: &World) -> Vec<String> {
    let state = World::tables().state();
    let items = world.table.scan(&state).await.unwrap();
    let keys = items.iter().filter_map(|item| item.string(state.key)?.split_once("/lane-0000/page/"));
    keys.map(|(_, page)| page.to_owned()).collect()
}

/// Sum of the pages that lane 0 was given.
async fn read(world: &World) -> u64 {
    world.lanes().await["lane-0000"].rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_page_written_by_one_worker_is_read_by_the_next_before_its_watermark_moves_on_and_then_dropped() {
    let mut world = World::new();
    world.put([8]).await;
    world.work(StateMismatch::Fail).await;
    assert_eq!(stored(&world).await, ["slot-0/1/0"]);
    world.put([18]).await;
    world.work(StateMismatch::Fail).await;
    assert_eq!(read(&world).await, 0);
    world.put([28]).await;
    world.work(StateMismatch::Fail).await;
    assert_eq!(read(&world).await, 8, "slot 2 reads slot 0, which held the sum of its time");
    assert_eq!(stored(&world).await, ["slot-1/1/0", "slot-2/3/0"], "slot 0 is dropped, the version floor is above it");
}

#[tokio::test(start_paused = true)]
async fn pages_move_with_their_lane_to_a_child_shard() {
    let mut world = World::new();
    world.put([8]).await;
    world.work(StateMismatch::Fail).await;
    let parent = world.row(EXCHANGE).await.shard;
    world.log.split(EXCHANGE, &parent);
    world.put([18]).await;
    world.work(StateMismatch::Fail).await;
    world.put([28]).await;
    world.work(StateMismatch::Fail).await;
    assert_eq!(read(&world).await, 8);
}

#[tokio::test(start_paused = true)]
async fn a_lost_page_stops_the_shard_or_by_policy_is_no_page_and_counted() {
    let mut world = World::new();
    for n in [8, 18] {
        world.put([n]).await;
        world.work(StateMismatch::Fail).await;
    }
    assert_eq!(world.lose("/page/slot-0/").await, 2, "of both lanes");
    world.put([28]).await;
    let registry = world.work(StateMismatch::Fail).await;
    assert!(counted(&registry, "test_shard_restarts_total", &[EXCHANGE]) > 0.0);
    assert_eq!(world.lanes().await["lane-0000"].split(' ').next(), Some("26"), "28 is not committed");
    let registry = world.work(StateMismatch::Discard).await;
    assert!(counted(&registry, "test_state_discards_total", &[EXCHANGE, "page"]) > 0.0);
    assert_eq!(world.lanes().await["lane-0000"].split(' ').next(), Some("54"));
}
