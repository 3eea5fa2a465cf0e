//! The oracle of the simulation can fail: eight bugs are planted, and each is caught.
//!
//! Every test runs the same small seeds twice, without the bug (all clean) and with it (at least one fails), and says
//! how many seeds caught it and what the first of them saw. Bugs at a seam are planted there ([`seam`]); where only
//! the engine can hold the bug, by a fail point whose name begins with `planted::`. Fail points are global, so the
//! tests take turns.

#![allow(clippy::unwrap_used)]

mod seam;
#[path = "../simulation/sim/mod.rs"]
#[allow(dead_code, reason = "shared with the simulation, which uses all of it")]
mod sim;

use std::sync::{Mutex, MutexGuard, PoisonError};

use sim::seeds;
use sim::world::World;

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn storm(mut world: World) -> Result<(), String> {
    world.storm().await;
    world.finish().await?;
    world.judge().await
}

async fn reset(mut world: World) -> Result<(), String> {
    world.calm_with_a_reset().await;
    world.finish().await?;
    world.judge().await
}

/// Asserts that the seeds are clean without the bug and that it is caught within them.
fn caught(
    bug: &str,
    seeds: &[u64],
    clean: impl AsyncFn(World) -> Result<(), String> + Sync,
    planted: impl AsyncFn(World) -> Result<(), String> + Sync,
    plant: impl FnOnce(),
) {
    let without = seeds::failures(seeds, clean);
    assert!(without.is_empty(), "without the bug: {without:?}");
    plant();
    let failed = seeds::failures(seeds, planted);
    eprintln!("{bug}: caught by {} of {} seeds, first by {:?}", failed.len(), seeds.len(), failed.first());
    assert!(!failed.is_empty(), "{bug}: not caught by seeds {seeds:?}");
}

/// A bug behind a fail point, switched off again at the end of the test.
fn caught_in_engine(bug: &str, seeds: &[u64], scenario: impl AsyncFn(World) -> Result<(), String> + Sync) {
    let _turn = turn();
    let scenario_again = &scenario;
    caught(
        bug,
        seeds,
        &scenario,
        async move |world| scenario_again(world).await,
        || {
            fail::cfg(bug, "return").unwrap();
        },
    );
    fail::remove(bug);
}

const FEW: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// Violated: a row is committed by its owner alone, and what it names only grows.
#[test]
fn dropping_the_fence_is_caught() {
    let _turn = turn();
    let planted = async |mut world: World| {
        world.wrap = Some(seam::without_fence);
        storm(world).await
    };
    caught("drop the fence", &FEW, storm, planted, || {});
}

/// Violated: what is emitted under a number can be computed again, so that lanes may drop its repeats.
#[test]
fn emitting_before_the_cut_is_caught() {
    caught_in_engine("planted::emit_before_the_cut", &FEW, storm);
}

/// Violated: a batch is applied to a lane once.
#[test]
fn skipping_the_marks_is_caught() {
    caught_in_engine("planted::skip_the_marks", &FEW, storm);
}

/// Violated: state and checkpoint are of one commit.
#[test]
fn committing_state_without_its_checkpoint_is_caught() {
    let _turn = turn();
    let planted = async |mut world: World| {
        world.wrap = Some(seam::without_checkpoint);
        storm(world).await
    };
    caught("commit state without checkpoint", &FEW, storm, planted, || {});
}

/// Violated: a generation that a live row names is never written again.
#[test]
fn reusing_a_generation_is_caught() {
    caught_in_engine("planted::reuse_a_generation", &FEW, storm);
}

/// Violated: a lane closes nothing that a source may still speak of; only watermarks close.
#[test]
fn a_reader_that_uses_its_clock_is_caught() {
    let _turn = turn();
    let planted = async |mut world: World| {
        world.clocks = true;
        storm(world).await
    };
    caught("a reader uses its clock", &FEW, storm, planted, || {});
}

/// Violated: a number is given once per source and epoch.
#[test]
fn restarting_numbers_without_a_new_epoch_is_caught() {
    caught_in_engine("planted::restart_n_without_a_new_epoch", &FEW, reset);
}

/// Violated: a source is idle only while its owner says that it reads at the tip and finds nothing.
#[test]
fn putting_a_waiting_source_out_is_caught() {
    let unreadable = async |mut world: World| {
        world.a_shard_cannot_be_read_for_a_while().await;
        world.finish().await?;
        // Whoever is put out comes back under a floor: that alone is not held against it here.
        world.judge().await?;
        let counters = world.counters().await?;
        world.every_record_is_late_only_by_the_account(&counters, &sim::account::Floors::new())
    };
    caught_in_engine("planted::put_a_waiting_source_out", &FEW, unreadable);
}
