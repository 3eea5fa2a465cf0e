//! One job of a given size in virtual time: its workers, its input, and how long its leases take to find owners.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{FeedKinds, Lanes};
use flowshift_consumer::inspect;
use flowshift_consumer::lease::WorkerId;
use flowshift_consumer::log::Log;
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Tables, Worker, WorkerConfig};
use flowshift_consumer::table::TableName;
use flowshift_consumer::table::memory::MemoryTable;
use flowshift_consumer::table::metered::Metered;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::job::{Evidence, Parting, Windows, record};
use super::port::Port;
use super::stream::Tails;

pub(crate) const INPUT: &str = "flows";
pub(crate) const EXCHANGE: &str = "exchange";
pub(crate) const EVIDENCE: &str = "evidence";
const LOOK: Duration = Duration::from_millis(500);
/// Leases that have not moved for this long are where they will stay.
const STILL: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(900);
/// Of all pairs, those that are seen in a second, per thousand: 30 % in the ten of a commit.
pub(crate) const TOUCHED_PER_SECOND: usize = 30;

/// How large a job is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) shards: u32,
    pub(crate) exchange: u32,
    pub(crate) workers: u32,
    pub(crate) lanes: u32,
    pub(crate) pairs: u32,
}

impl Size {
    /// A job as one would run it: 100 pairs per input shard, as many exchange shards as batches of 5 s need (see the
    /// design's formula), a worker for every 25 input shards and at least two.
    pub(crate) fn of(shards: u32, lanes: u32) -> Self {
        let exchange = (shards * lanes).div_ceil(200 * 5).clamp(1, lanes);
        Self { shards, exchange, workers: shards.div_ceil(25).max(2), lanes, pairs: shards * 100 }
    }

    fn leases(&self) -> usize {
        (self.shards + self.exchange + 1) as usize
    }
}

/// How leases found their owners.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Convergence {
    /// Until every lease had a live owner.
    pub(crate) owned: Duration,
    /// Until the last of them moved.
    pub(crate) last_move: Duration,
    /// Leases of the workers with the fewest and the most.
    pub(crate) fewest: usize,
    pub(crate) most: usize,
}

struct Process {
    id: String,
    port: Arc<Port>,
    handle: JoinHandle<()>,
    _ends: watch::Sender<Option<Instant>>,
}

/// A job in memory.
pub(crate) struct World {
    pub(crate) size: Size,
    pub(crate) tables: Tables,
    pub(crate) meter: Arc<Metered>,
    pub(crate) log: Arc<Tails>,
    processes: Vec<Process>,
    producer: Option<JoinHandle<()>>,
    seed: u64,
}

impl World {
    pub(crate) fn new(size: Size, seed: u64) -> Self {
        let log = Arc::new(Tails::new());
        log.create(INPUT, size.shards);
        log.create(EXCHANGE, size.exchange);
        log.create(EVIDENCE, 1);
        let meter = Arc::new(Metered::new(Arc::new(MemoryTable::default())));
        Self { size, tables: Tables::new("cost"), meter, log, processes: Vec::new(), producer: None, seed }
    }

    /// Starts all workers at once.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        let lanes = Lanes::new(self.size.lanes)?;
        let kinds = FeedKinds::new(1);
        for number in 0..self.size.workers {
            let id = format!("worker-{number:04}");
            let port = Arc::new(Port {
                table: Arc::clone(&self.meter) as _,
                log: Arc::clone(&self.log) as _,
                state: self.tables.state(),
                dead: AtomicBool::new(false),
            });
            let config = WorkerConfig::new(WorkerId::new(id.clone()), self.tables.clone());
            let metrics = EngineMetrics::register(&prometheus::Registry::new(), "cost")?;
            let now = Arc::clone(&self.log);
            let (_, snapshot) = watch::channel(Snapshot::new("topology"));
            let worker = Worker::new(config, port.clone(), port.clone(), WallClock::new(move || now.now_ms()), metrics)
                .map(INPUT, EXCHANGE, lanes, kinds, snapshot, Parting { lanes })
                .reduce(EXCHANGE, Some(EVIDENCE), lanes, kinds, |_| Windows::default())
                .stage(EVIDENCE, |context, _| Evidence::new(context));
            let (ends, end_input) = watch::channel(None);
            let handle = tokio::spawn(async move {
                if let Err(e) = worker.run(CancellationToken::new(), end_input).await {
                    eprintln!("worker: {e}");
                }
            });
            self.processes.push(Process { id, port, handle, _ends: ends });
        }
        Ok(())
    }

    /// Kills, as kill -9 does, the worker with the most leases that does not lead; returns how many it had.
    pub(crate) async fn kill_one(&mut self) -> Result<usize, Failure> {
        let state = self.tables.state();
        let beats = TableName { name: format!("{}#beats", state.name), key: state.key };
        let lock = self.meter.inner().get(&beats, "leader").await?;
        let leader = lock.and_then(|item| item.string("owner").map(str::to_owned));
        let owners = self.owners().await?;
        let leases = |id: &str| owners.iter().filter(|owner| owner.as_deref() == Some(id)).count();
        let others = self.processes.iter().enumerate().filter(|(_, p)| Some(&p.id) != leader.as_ref());
        let Some((index, had)) = others.map(|(index, p)| (index, leases(&p.id))).max_by_key(|(_, had)| *had) else {
            return Ok(0);
        };
        let process = self.processes.remove(index);
        process.port.dead.store(true, Ordering::Relaxed);
        process.handle.abort();
        Ok(had)
    }

    /// Full load: every second each pair is seen with a chance of 3 %, in some shard.
    pub(crate) async fn produce(&mut self) -> Result<(), Failure> {
        let (size, log) = (self.size, Arc::clone(&self.log));
        let shards = log.shards(INPUT).await?;
        let mut chance = SmallRng::seed_from_u64(self.seed);
        self.producer = Some(tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            loop {
                tick.tick().await;
                let mut seen: Vec<Vec<u32>> = vec![Vec::new(); shards.len()];
                for _ in 0..size.pairs as usize * TOUCHED_PER_SECOND / 1000 {
                    seen[chance.random_range(0..shards.len())].push(chance.random_range(0..size.pairs));
                }
                let seen = shards.iter().zip(&seen).filter(|(_, pairs)| !pairs.is_empty());
                let entries: Vec<_> = seen.map(|(s, pairs)| record(&s.id, s.range.start, pairs)).collect();
                if let Err(e) = log.append(INPUT, &entries).await {
                    eprintln!("producer: {e}");
                }
            }
        }));
        Ok(())
    }

    /// No more input.
    pub(crate) fn quiet(&mut self) {
        if let Some(producer) = self.producer.take() {
            producer.abort();
        }
    }

    async fn owners(&self) -> Result<Vec<Option<String>>, Failure> {
        let mut owners = Vec::new();
        for stream in [INPUT, EXCHANGE, EVIDENCE] {
            // Past the meter: looking costs nothing.
            let rows = inspect::rows(self.meter.inner(), &self.tables, stream).await?;
            owners.extend(rows.into_iter().map(|row| row.owner));
        }
        Ok(owners)
    }

    /// Watches until every lease has a live owner and none has moved for a minute.
    pub(crate) async fn converge(&self) -> Result<Convergence, Failure> {
        let began = Instant::now();
        let live: BTreeSet<&str> = self.processes.iter().map(|p| p.id.as_str()).collect();
        let (mut owned, mut last_move, mut before) = (None, began, Vec::new());
        while began.elapsed() < PATIENCE {
            let owners = self.owners().await?;
            let is_live = |owner: &Option<String>| owner.as_deref().is_some_and(|owner| live.contains(owner));
            let all = owners.len() == self.size.leases() && owners.iter().all(is_live);
            if all && owned.is_none() {
                owned = Some(began.elapsed());
            }
            if owners != before || !all {
                (last_move, before) = (Instant::now(), owners);
            } else if last_move.elapsed() >= STILL {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        let mut counts: BTreeMap<&str, usize> = live.iter().map(|id| (*id, 0)).collect();
        for owner in before.iter().flatten() {
            *counts.entry(owner).or_default() += 1;
        }
        Ok(Convergence {
            owned: owned.ok_or("leases without an owner remain")?,
            last_move: last_move.duration_since(began),
            fewest: counts.values().copied().min().unwrap_or_default(),
            most: counts.values().copied().max().unwrap_or_default(),
        })
    }
}
