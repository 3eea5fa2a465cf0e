//! The world: streams, tables, and the workers that live and die in it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{FeedKinds, Lanes};
use flowshift_consumer::inspect;
use flowshift_consumer::lease::{LeaseTimes, WorkerId};
use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Entry, Log};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{StateMismatch, Tables, Timing, Worker, WorkerConfig};
use flowshift_consumer::shard::{Shard, ShardId};
use flowshift_consumer::table::Table;
use flowshift_consumer::table::memory::MemoryTable;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::job::{Count, Sum, parse_counts};
use crate::port::Port;

const INPUT: &str = "input";
const EXCHANGE: &str = "exchange";
const EVIDENCE: &str = "evidence";
const EPOCH_MS: i64 = 1_800_000_000_000;

struct Process {
    port: Arc<Port>,
    leave: CancellationToken,
    handle: JoinHandle<()>,
}

/// One simulated world.
pub(crate) struct World {
    table: Arc<MemoryTable>,
    log: Arc<MemoryLog>,
    chance: SmallRng,
    lanes: Lanes,
    expected: BTreeMap<String, u64>,
    processes: Vec<Process>,
    started: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let log = Arc::new(MemoryLog::new(EPOCH_MS));
        let mut chance = SmallRng::seed_from_u64(seed);
        log.create(INPUT, chance.random_range(1..4));
        log.create(EXCHANGE, chance.random_range(1..4));
        log.create(EVIDENCE, 1);
        Self {
            table: Arc::default(),
            log,
            chance,
            lanes: Lanes::new(8).unwrap(),
            expected: BTreeMap::new(),
            processes: Vec::new(),
            started: 0,
        }
    }

    pub(crate) fn expected(&self) -> BTreeMap<String, u64> {
        self.expected.clone()
    }

    fn start(&mut self, faults: u64) -> watch::Sender<Option<Instant>> {
        self.started += 1;
        let port = Arc::new(Port {
            table: Arc::clone(&self.table),
            log: Arc::clone(&self.log),
            chance: Mutex::new(SmallRng::seed_from_u64(self.chance.random())),
            faults: AtomicU64::new(faults),
            dead: AtomicBool::new(false),
            frozen_until: Mutex::new(None),
        });
        let seconds = Duration::from_secs;
        let timing = Timing {
            lease: LeaseTimes { renewal: seconds(3), failover: seconds(10) },
            commit: seconds(4),
            batch: seconds(2),
            heartbeat: seconds(3),
            idle_after: seconds(8),
            shard_sync: seconds(10),
            ..Timing::default()
        };
        let config = WorkerConfig {
            worker: WorkerId::new(format!("worker-{}", self.started)),
            tables: tables(),
            timing,
            alone: false,
            state_mismatch: StateMismatch::Fail,
        };
        let metrics = EngineMetrics::register(&prometheus::Registry::new(), "simulation").unwrap();
        let clock = {
            let log = Arc::clone(&self.log);
            WallClock::new(move || log.now_ms())
        };
        let (lanes, kinds) = (self.lanes, FeedKinds::new(1));
        let (_, snapshot) = watch::channel(Snapshot::new("topology"));
        let worker = Worker::new(config, port.clone(), port.clone(), clock, metrics)
            .map(INPUT, EXCHANGE, lanes, kinds, snapshot, Count { lanes })
            .reduce(EXCHANGE, Some(EVIDENCE), lanes, kinds, |_| Sum::default());
        let (ends, end_input) = watch::channel(None);
        let leave = CancellationToken::new();
        let token = leave.clone();
        let handle = tokio::spawn(async move { worker.run(token, end_input).await.unwrap() });
        self.processes.push(Process { port, leave, handle });
        ends
    }

    fn kill(&mut self, index: usize) {
        let process = self.processes.remove(index);
        process.port.dead.store(true, Ordering::Relaxed);
        process.handle.abort();
    }

    async fn produce(&mut self, count: u32) {
        for _ in 0..count {
            let key = format!("key-{}", self.chance.random_range(0..20));
            let time = self.log.now_ms() - self.chance.random_range(0..3_000);
            let entry = Entry {
                partition_key: format!("{}", self.chance.random_range(0..1000)),
                hash_key: None,
                data: Bytes::from(format!("{key} {time}")),
            };
            self.log.append(INPUT, &[entry]).await.unwrap();
            *self.expected.entry(key).or_default() += 1;
        }
    }

    async fn reshard(&mut self, stream: &str) {
        let open: Vec<Shard> = self.log.shards(stream).await.unwrap().into_iter().filter(|s| !s.closed).collect();
        let pick = self.chance.random_range(0..open.len());
        if open.len() < 4 && self.chance.random_bool(0.6) {
            self.log.split(stream, &open[pick].id);
            return;
        }
        let mut by_range = open;
        by_range.sort_by_key(|s| s.range.start);
        if by_range.len() > 1 {
            let pick = self.chance.random_range(0..by_range.len() - 1);
            self.log.merge(stream, &by_range[pick].id, &by_range[pick + 1].id);
        }
    }

    /// Two minutes without a fault.
    pub(crate) async fn calm(&mut self) {
        self.start(0);
        for _ in 0..40 {
            self.produce(5).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }

    /// Some minutes of everything that can go wrong.
    pub(crate) async fn storm(&mut self) {
        for _ in 0..3 {
            self.start(30);
        }
        for _ in 0..60 {
            let count = self.chance.random_range(0..12);
            self.produce(count).await;
            let pause = self.chance.random_range(200..6_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            match self.chance.random_range(0..24) {
                0..4 if !self.processes.is_empty() => {
                    let index = self.chance.random_range(0..self.processes.len());
                    self.kill(index);
                }
                4..6 if !self.processes.is_empty() => {
                    let index = self.chance.random_range(0..self.processes.len());
                    self.processes.remove(index).leave.cancel();
                }
                6..8 => {
                    if let Some(process) = self.processes.first() {
                        let pause = Duration::from_secs(self.chance.random_range(8..40));
                        *process.port.frozen_until.lock().unwrap() = Some(Instant::now() + pause);
                    }
                }
                8..10 => self.reshard(INPUT).await,
                10..12 => self.reshard(EXCHANGE).await,
                _ => {}
            }
            while self.processes.len() < 2 {
                self.start(30);
            }
        }
    }

    /// Everyone dies; a last worker carries the input to its end.
    pub(crate) async fn finish(&mut self) -> Result<(), String> {
        while !self.processes.is_empty() {
            self.kill(0);
        }
        let ends = self.start(0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        ends.send_replace(Some(Instant::now()));
        let last = self.processes.remove(0);
        match tokio::time::timeout(Duration::from_secs(3600), last.handle).await {
            Ok(ended) => ended.map_err(|e| e.to_string()),
            Err(_) => Err(format!("did not come to an end:\n{}", self.rows().await)),
        }
    }

    async fn rows(&self) -> String {
        let mut text = String::new();
        for stream in [INPUT, EXCHANGE] {
            for row in inspect::rows(&*self.table, &tables(), stream).await.unwrap() {
                let parents: Vec<&str> = row.parents.iter().map(ShardId::as_str).collect();
                let (shard, owner, checkpoint) = (&row.shard, &row.owner, &row.checkpoint);
                text += &format!("{stream} {shard} owner {owner:?} at {checkpoint} from {parents:?}\n");
            }
        }
        text
    }

    /// Sums over the committed lanes.
    pub(crate) async fn counted(&self) -> BTreeMap<String, u64> {
        let table: Arc<dyn Table> = self.table.clone();
        let stream = self.log.identify(EXCHANGE).await.unwrap();
        let mut counts = BTreeMap::new();
        for (key, bytes) in inspect::parts(&table, &tables(), &stream).await.unwrap() {
            if !key.starts_with("lane-") {
                continue;
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            for (key, n) in parse_counts(text.split_once('\n').unwrap().1) {
                *counts.entry(key).or_default() += n;
            }
        }
        counts
    }

    /// A step of a lane was told once, or again with the same bytes; the last word of every lane is the total.
    pub(crate) fn evidence_is_consistent(&self) -> Result<(), String> {
        let mut told: BTreeMap<(String, i64), String> = BTreeMap::new();
        for record in self.log.dump(EVIDENCE) {
            let text = String::from_utf8_lossy(&record.data).into_owned();
            let words: Vec<&str> = text.split(' ').collect();
            let key = (words[0].to_owned(), words[1].parse::<i64>().unwrap());
            if let Some(before) = told.insert(key, text.clone())
                && before != text
            {
                return Err(format!("told twice and differently: {before:?} and {text:?}"));
            }
        }
        let last = told.iter().filter(|((_, step), _)| *step == i64::MAX);
        let total: u64 = last.map(|(_, text)| text.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        let expected: u64 = self.expected.values().sum();
        if total == expected { Ok(()) } else { Err(format!("last evidence says {total}, expected {expected}")) }
    }
}

fn tables() -> Tables {
    Tables::new("simulation")
}
