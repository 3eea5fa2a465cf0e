//! A closed shard ends when it is known which shards go on.

use std::sync::atomic::Ordering;

use flowshift_consumer::lease::Checkpoint;
use flowshift_consumer::log::Log as _;
use flowshift_consumer::run::StateMismatch;
use flowshift_consumer::shard::ShardId;

use crate::world::{INPUT, World};

/// A list of shards without the children made an END that names nobody, for ever: the lanes closed the parent and went
/// on without waiting for its children.
#[tokio::test(start_paused = true)]
async fn a_closed_shard_whose_children_are_not_listed_yet_waits_and_leaves_when_it_is_asked_to() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.childless.store(true, Ordering::Relaxed);
    let parent = world.log.shards(INPUT).await.unwrap().remove(0).id;
    world.log.split(INPUT, &parent);
    world.work(StateMismatch::Fail).await;
    let row = world.row(INPUT).await;
    assert!(matches!(row.checkpoint, Checkpoint::At(_)), "{}", row.checkpoint);
    world.childless.store(false, Ordering::Relaxed);
    world.work(StateMismatch::Fail).await;
    let row = world.row(INPUT).await;
    let children = row.cut.unwrap().children;
    assert_eq!((row.shard, row.checkpoint, children.len()), (parent, Checkpoint::ShardEnd, 2));
    assert_eq!(row.children, children.into_iter().map(ShardId::new).collect::<Vec<_>>());
}
