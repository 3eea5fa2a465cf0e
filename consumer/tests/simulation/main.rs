//! The engine in a simulated world: in-memory streams and tables, a virtual clock, one seed for all chance.
//!
//! Workers are killed, paused longer than their lease, answered with errors after the effect; both streams are
//! resharded meanwhile. At the end every record must have been counted exactly once, by an oracle that only knows what
//! was put into the input stream. `FLOWSHIFT_SEED=n` replays one seed; `FLOWSHIFT_SEEDS=n` sets how many are tried.

#![allow(clippy::unwrap_used)]

mod job;
mod port;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use world::World;

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("FLOWSHIFT_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("FLOWSHIFT_SEEDS").unwrap_or(500)).collect(),
    }
}

/// `RUST_LOG` shows what a seed does.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init().ok();
}

fn run(seed: u64, scenario: impl AsyncFnOnce(World) -> Result<(), String>) {
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let outcome = runtime.block_on(async {
        let limit = Duration::from_secs(3 * 3600);
        tokio::time::timeout(limit, scenario(World::new(seed))).await.unwrap_or(Err("did not come to an end".into()))
    });
    if let Err(what) = outcome {
        panic!("seed {seed}: {what}\nreplay: FLOWSHIFT_SEED={seed} cargo test -p flowshift-consumer --test simulation");
    }
}

fn compare(expected: &BTreeMap<String, u64>, counted: &BTreeMap<String, u64>) -> Result<(), String> {
    if expected == counted {
        return Ok(());
    }
    let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    Err(format!("expected {} in {expected:?}\ncounted {} in {counted:?}", sum(expected), sum(counted)))
}

#[test]
fn every_record_is_counted_once_through_crashes_zombies_lost_answers_and_reshards() {
    for seed in seeds() {
        run(seed, async |mut world| {
            world.storm().await;
            world.finish().await?;
            compare(&world.expected(), &world.counted().await)?;
            world.evidence_is_consistent()
        });
    }
}

#[test]
fn a_calm_run_counts_every_record_and_ends() {
    run(1, async |mut world| {
        world.calm().await;
        world.finish().await?;
        compare(&world.expected(), &world.counted().await)?;
        world.evidence_is_consistent()
    });
}

#[test]
fn the_oracle_sees_a_single_lost_record() {
    run(1, async |mut world| {
        world.calm().await;
        world.finish().await?;
        let mut expected = world.expected();
        *expected.values_mut().next().unwrap() += 1;
        match compare(&expected, &world.counted().await) {
            Err(_) => Ok(()),
            Ok(()) => Err("a lost record was not seen".into()),
        }
    });
}
