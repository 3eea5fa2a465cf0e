//! A mapper's row that another program wrote: whose range is replayed, and from where a source goes on without its
//! state.

use flowshift_consumer::lease::{Checkpoint, LeaseRow, attribute};
use flowshift_consumer::run::{CrcMismatch, StateMismatch};
use flowshift_consumer::table::{Update, Value};

use crate::job::Copy;
use crate::mismatch::sums;
use crate::world::{EXCHANGE, INPUT, World, counted};

/// A world in which numbers 1 to 10 are cut and emitted, and the worker died before it could say so.
async fn unsettled() -> World {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work_and_die(|row| has_cut(row, 10)).await;
    assert_eq!(world.row(INPUT).await.checkpoint, Checkpoint::TrimHorizon);
    world
}

/// Whether a batch of so many records is cut and pending.
fn has_cut(row: &LeaseRow, records: u64) -> bool {
    row.pending.is_some() && row.cut.as_ref().is_some_and(|cut| cut.records == records)
}

/// The shard stops and its row stays as it is; then, by policy, it goes on without its state.
async fn stops_then_goes_on(world: &mut World, reason: &str, expected: [u64; 2]) {
    let before = world.row(INPUT).await;
    let registry = world.work(StateMismatch::Fail).await;
    let after = world.row(INPUT).await;
    assert_eq!((&after.checkpoint, &after.pending), (&before.checkpoint, &before.pending));
    assert_eq!((after.manifest, after.epoch), (before.manifest, before.epoch));
    assert!(counted(&registry, "test_shard_restarts_total", &[INPUT]) > 0.0);
    let registry = world.work(StateMismatch::Discard).await;
    assert_eq!(counted(&registry, "test_state_discards_total", &[INPUT, reason]), 1.0);
    assert!(world.row(INPUT).await.epoch > before.epoch);
    assert_eq!(sums(world).await, expected);
    let registry = world.work(StateMismatch::Fail).await;
    assert_eq!(counted(&registry, "test_state_discards_total", &[]), 0.0, "it is over");
}

/// Was the end of our own range: the numbers behind it were counted a second time.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_another_program_prepared_is_never_the_end_of_a_cut_batch() {
    let mut world = unsettled().await;
    let fifth = world.log.dump(INPUT)[4].sequence.to_string();
    world.prepare_checkpoint(INPUT, &fifth).await;
    world.put(11..=12).await;
    stops_then_goes_on(&mut world, "pending", [42, 36]).await;
}

/// Was taken for a batch to emit again, computed from the state behind it.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_prepared_where_nothing_of_ours_is_pending_stops_the_shard() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    world.put(11..=12).await;
    let eleven = world.log.dump(INPUT)[10].sequence.to_string();
    world.prepare_checkpoint(INPUT, &eleven).await;
    stops_then_goes_on(&mut world, "pending", [42, 36]).await;
}

/// KCL removes what is pending when it checkpoints, also at the place where the row stands: the batch counted twice.
#[tokio::test(start_paused = true)]
async fn a_pending_checkpoint_that_another_program_removed_stops_the_shard() {
    let mut world = unsettled().await;
    world.move_checkpoint(INPUT, "TRIM_HORIZON").await;
    world.put(11..=12).await;
    stops_then_goes_on(&mut world, "pending", [42, 36]).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_checkpoint_a_kcl_application_moved_goes_on_there_by_policy_and_not_by_itself() {
    let mut world = World::new();
    world.put(1..=10).await;
    world.work(StateMismatch::Fail).await;
    // The application was given 11 to 14 and checkpointed behind 12.
    world.put(11..=14).await;
    let twelve = world.log.dump(INPUT)[11].sequence.to_string();
    world.move_checkpoint(INPUT, &twelve).await;
    stops_then_goes_on(&mut world, "moved", [30 + 14, 25 + 13]).await;
}

/// Went on behind what was pending, which the script had left there, and not where the row stands.
#[tokio::test(start_paused = true)]
async fn a_source_that_a_script_reset_reads_by_policy_from_where_the_script_put_it() {
    let mut world = unsettled().await;
    world.put(11..=12).await;
    world.work_and_die(|row| has_cut(row, 2)).await;
    assert!(matches!(world.row(INPUT).await.checkpoint, Checkpoint::At(_)));
    world.write(INPUT, Update::new().set(attribute::CHECKPOINT, Value::string("TRIM_HORIZON"))).await;
    stops_then_goes_on(&mut world, "moved", [2 * 42, 2 * 36]).await;
}

/// A program of other rules computes a cut batch again: 9 and 10 go to the other lane.
#[tokio::test(start_paused = true)]
async fn a_batch_that_does_not_come_out_as_it_was_cut_stops_the_shard_or_is_emitted_and_the_lanes_are_told() {
    let other = || Copy { swapped_from: Some(9), ..Copy::default() };
    let mut world = World::new();
    world.put(1..=10).await;
    // Killed between the cut and the lanes: nothing of the batch is in them.
    world.refuse_puts(true);
    world.work_and_die(|row| has_cut(row, 10)).await;
    world.refuse_puts(false);
    let before = world.row(INPUT).await;
    let registry = world.work_with(|_| {}, other()).await;
    assert!(counted(&registry, "test_batches_recomputed_total", &[INPUT, "stopped"]) > 0.0);
    assert_eq!(world.row(INPUT).await.pending, before.pending, "nothing went on");
    let registry = world.work_with(|config| config.crc_mismatch = CrcMismatch::Emit, other()).await;
    assert_eq!(counted(&registry, "test_batches_recomputed_total", &[INPUT, "emitted"]), 1.0);
    assert_eq!(counted(&registry, "test_lane_losses_total", &[EXCHANGE, "diverged"]), 2.0);
    assert_eq!(sums(&world).await, [30 - 10 + 9, 25 - 9 + 10]);
    // Over: what follows is cut and emitted as ever.
    world.put(11..=12).await;
    let registry = world.work_with(|_| {}, other()).await;
    assert_eq!(counted(&registry, "test_batches_recomputed_total", &[]), 0.0);
    assert_eq!(sums(&world).await, [29 + 11, 26 + 12]);
}
