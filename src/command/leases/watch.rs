//! Finds out which owners live, as the leader does: by watching their beats and their leases' counters move.
//!
//! No clocks are compared, so it takes a while: an owner that lives moves within its renewal time, and one that has not
//! moved for the failover time has lost its leases anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use flowshift_consumer::inspect;
use tokio::time::Instant;

use super::look::{Lease, leases};
use crate::command::Failure;
use crate::command::store::Store;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// What was seen of an owner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Sign {
    /// It moved; this long before the end of the watch, or less.
    Live(Duration),
    /// It did not move while it was watched.
    Silent(Duration),
    /// It cannot live: the data folder is in nobody's use.
    Stopped,
    /// Nobody watched.
    Unknown,
}

/// Signs by owner.
pub(super) type Signs = BTreeMap<String, Sign>;

/// The counter of each lease of an owner, and its beat under an empty name.
type Pulse = BTreeMap<String, BTreeMap<String, i64>>;

/// Watches the owners of these leases for at most `span`, or until each was seen to live.
pub(super) async fn watch(
    store: &Store,
    seen: &[Lease],
    owners: &BTreeSet<String>,
    span: Duration,
) -> Result<Signs, Failure> {
    if store.stopped {
        return Ok(owners.iter().map(|owner| (owner.clone(), Sign::Stopped)).collect());
    }
    let streams: BTreeSet<String> = seen.iter().map(|lease| lease.stream.clone()).collect();
    let streams: Vec<String> = streams.into_iter().collect();
    let began = Instant::now();
    let mut before = pulse(store, seen, owners).await?;
    let mut moved: BTreeMap<String, Instant> = BTreeMap::new();
    while moved.len() < owners.len() && began.elapsed() < span {
        tokio::time::sleep(PAUSE.min(span)).await;
        let now = pulse(store, &leases(store, &streams).await?, owners).await?;
        for (owner, signs) in &now {
            let known = before.get(owner);
            // A lease that came or went says nothing of its owner; a number that changed does.
            let lives = signs
                .iter()
                .any(|(what, number)| known.and_then(|known| known.get(what)).is_some_and(|old| old != number));
            if lives {
                moved.insert(owner.clone(), Instant::now());
            }
        }
        before = now;
    }
    let sign = |owner: &String| match moved.get(owner) {
        Some(at) => Sign::Live(at.elapsed()),
        None => Sign::Silent(began.elapsed()),
    };
    Ok(owners.iter().map(|owner| (owner.clone(), sign(owner))).collect())
}

async fn pulse(store: &Store, leases: &[Lease], owners: &BTreeSet<String>) -> Result<Pulse, Failure> {
    let workers = inspect::workers(&*store.table, &store.tables).await.context("the list of workers cannot be read")?;
    let mut pulse = Pulse::new();
    for (owner, beat) in workers.beats {
        if let (true, Some(beat)) = (owners.contains(&owner), beat) {
            pulse.entry(owner).or_default().insert(String::new(), beat);
        }
    }
    for lease in leases {
        let (Some(owner), Ok(row)) = (lease.holder(), &lease.row) else { continue };
        if owners.contains(owner) {
            pulse.entry(owner.to_owned()).or_default().insert(format!("{}/{}", lease.stream, lease.shard), row.counter);
        }
    }
    Ok(pulse)
}
