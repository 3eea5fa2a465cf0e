//! What is done to a job, and how long its shards went unread.
//!
//! Invariant: every trial begins with a settled fleet and ends with as many workers as it began with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use rand::Rng;
use rustix::process::Signal;
use tokio::time::Instant;

use super::Failure;
use super::job::{Job, PATIENCE, ends};
use super::protocol::{Line, Moment};
use super::report::Trial;

/// Longer than every beat and pass of the engine, so that a signal comes at any moment of them.
const PHASE: Duration = Duration::from_secs(5);

/// Something that happens to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// SIGTERM to a worker that owns leases.
    Term,
    /// kill -9 of a worker that owns leases and does not lead.
    Kill,
    /// kill -9 of the leader.
    KillLeader,
    /// SIGTERM to every worker in turn, each replaced before the next.
    Rolling,
}

impl Scenario {
    pub(crate) const ALL: [Self; 4] = [Self::Term, Self::Kill, Self::KillLeader, Self::Rolling];

    /// For tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM -> next owner reads",
            Self::Kill => "kill -9 -> next owner reads",
            Self::KillLeader => "kill -9 of the leader -> next owner reads",
            Self::Rolling => "rolling restart, largest gap of a shard",
        }
    }

    /// What is promised, seconds; a rolling restart promises nothing by itself.
    pub(crate) fn limit(self) -> Option<f64> {
        match self {
            Self::Term => Some(2.0),
            Self::Kill | Self::KillLeader => Some(20.0),
            Self::Rolling => None,
        }
    }

    /// One trial.
    pub(crate) async fn run(self, job: &mut Job) -> Result<Trial, Failure> {
        job.settle().await?;
        let phase = job.chance.random_range(Duration::ZERO..PHASE);
        let until = Instant::now() + phase;
        while job.next(until).await.is_some() {}
        match self {
            Self::Rolling => rolling(job).await,
            Self::Term => one_victim(self, job, Signal::TERM).await,
            Self::Kill | Self::KillLeader => one_victim(self, job, Signal::KILL).await,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// Picks the victim, signals it, waits until each of its shards is read by another, and replaces it.
async fn one_victim(scenario: Scenario, job: &mut Job, signal: Signal) -> Result<Trial, Failure> {
    let leader = job.leader().await?;
    let mut owned: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in job.rows().await? {
        owned.entry(row.owner.unwrap_or_default()).or_default().insert(row.shard.as_str().to_owned());
    }
    let fits = |id: &String| match scenario {
        Scenario::Kill => Some(id) != leader.as_ref(),
        Scenario::KillLeader => Some(id) == leader.as_ref(),
        Scenario::Term | Scenario::Rolling => true,
    };
    let candidates: Vec<String> = owned.keys().filter(|id| fits(id)).cloned().collect();
    if candidates.is_empty() {
        return Ok(Trial::skipped(scenario));
    }
    let victim = candidates[job.chance.random_range(0..candidates.len())].clone();
    let shards = owned.remove(&victim).unwrap_or_default();
    let (at, child) = job.signal(&victim, signal)?;
    let read = first_reads(job, &victim, &shards, at).await;
    job.start_worker()?;
    let left = ends(child).await;
    Ok(Trial::new(scenario, &victim, shards, &read, left))
}

/// For each shard the seconds from `at` to the first record that a worker other than `victim` processed; the moments at
/// which it held the lease stand beside them.
async fn first_reads(
    job: &mut Job,
    victim: &str,
    shards: &BTreeSet<String>,
    at: Moment,
) -> BTreeMap<String, (f64, f64)> {
    let patience = Instant::now() + PATIENCE;
    let (mut restored, mut read) = (BTreeMap::new(), BTreeMap::new());
    while read.len() < shards.len() {
        let Some((id, line)) = job.next(patience).await else { break };
        if id == victim {
            continue;
        }
        match line {
            Line::Restored(shard, when) => {
                restored.insert(shard, when.seconds_since(at));
            }
            Line::Read(shard, when) if shards.contains(&shard) && when > at => {
                let acquired = restored.get(&shard).copied().unwrap_or_default();
                read.entry(shard).or_insert((when.seconds_since(at), acquired));
            }
            Line::Read(..) | Line::Ready => {}
        }
    }
    read
}

/// Every worker in turn; the figure is the longest time in which no worker processed a record of some shard.
async fn rolling(job: &mut Job) -> Result<Trial, Failure> {
    let shards: BTreeSet<String> = job.rows().await?.into_iter().map(|r| r.shard.as_str().to_owned()).collect();
    let began = Moment::now();
    let mut last: BTreeMap<String, Moment> = shards.iter().map(|shard| (shard.clone(), began)).collect();
    let mut gaps: BTreeMap<String, f64> = BTreeMap::new();
    let mut note = |line: &Line| {
        let Line::Read(shard, at) = line else { return };
        let before = last.entry(shard.clone()).or_insert(*at);
        let gap = gaps.entry(shard.clone()).or_default();
        *gap = gap.max(at.seconds_since(*before));
        *before = (*before).max(*at);
    };
    let mut left = true;
    for victim in job.workers() {
        let (_, child) = job.signal(&victim, Signal::TERM)?;
        left &= ends(child).await;
        let fresh = job.start_worker()?;
        let patience = Instant::now() + PATIENCE;
        while let Some((id, line)) = job.next(patience).await {
            note(&line);
            if id == fresh && line == Line::Ready {
                break;
            }
        }
        // As a Deployment with a second of minReadySeconds would.
        let pause = Instant::now() + Duration::from_secs(1);
        while let Some((_, line)) = job.next(pause).await {
            note(&line);
        }
    }
    // Whoever is unread now is read again within this time, or counts with all of it.
    let over = Instant::now() + Duration::from_secs(60);
    while Instant::now() < over && !job.all_read(&shards) {
        let look = Instant::now() + Duration::from_millis(250);
        while let Some((_, line)) = job.next(look).await {
            note(&line);
        }
    }
    let end = Moment::now();
    let read = shards.iter().map(|shard| {
        let tail = last.get(shard).map_or(0.0, |at| end.seconds_since(*at));
        (shard.clone(), (gaps.get(shard).copied().unwrap_or_default().max(tail), 0.0))
    });
    let read = read.collect();
    Ok(Trial::new(Scenario::Rolling, "all", shards, &read, left))
}
