//! A leader's office does not wait for streams.

use std::time::Duration;

use flowshift_consumer::lease::attribute;
use flowshift_consumer::table::Update;

use crate::world::{EXCHANGE, World};

/// A leader waited for the exchange to take its source set before it looked at leases again: while the stream took
/// nothing, nobody got any.
#[tokio::test(start_paused = true)]
async fn a_leader_assigns_leases_although_the_exchange_refuses_every_put() {
    let mut world = World::new();
    world.refuse_puts(true);
    let owned = async |world: &World| world.row(EXCHANGE).await.owner.is_some();
    let given_again = async |world: &World, _: &prometheus::Registry| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(owned(world).await, "by its first pass");
        for _ in 0..3 {
            world.write(EXCHANGE, Update::new().remove(attribute::OWNER)).await;
            assert!(!owned(world).await);
            // A pass that puts in vain, a pause, and the assignment of the next.
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert!(owned(world).await, "the leader waits for the exchange");
        }
    };
    world.work_while(given_again).await;
}
