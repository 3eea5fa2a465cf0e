//! The world: streams, tables, the workers that live and die in it, and the books of what was put in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{FeedKinds, Lanes};
use flowshift_consumer::inspect;
use flowshift_consumer::kpl::{Joined, join};
use flowshift_consumer::lease::{LeaseTimes, WorkerId};
use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Entry, Log};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Fetch, Reading, Tables, Timing, Worker, WorkerConfig};
use flowshift_consumer::shard::{SequenceNumber, Shard, ShardId};
use flowshift_consumer::skip::SkipRecords;
use flowshift_consumer::stage::ShardContext;
use flowshift_consumer::table::Table;
use flowshift_consumer::table::memory::MemoryTable;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Violations;
use super::account::{Floors, Put};
use super::ambush::Ambush;
use super::audit::{Audited, Books, Ledger};
use super::job::{Broken, Count, KINDS, Sum};
use super::judge::{Judge, Outside, skip_record};
use super::port::{Faults, HeldUp, Hindered, Horizons, Port};
use super::trips::Trips;
use super::waits::IDLE_AFTER;

pub(crate) const INPUT: &str = "input";
pub(crate) const EXCHANGE: &str = "exchange";
pub(crate) const EVIDENCE: &str = "evidence";
/// The job's registered consumer, where a stream is read by enhanced fan-out.
pub(crate) const CONSUMER: &str = "job";
pub(crate) const EPOCH_MS: i64 = 1_800_000_000_000;

/// A worker process.
pub(crate) struct Process {
    pub(crate) port: Arc<Port>,
    pub(crate) leave: CancellationToken,
    pub(crate) handle: JoinHandle<()>,
}

/// Which stages a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Roles {
    All,
    Map,
    Reduce,
}

/// Puts something between the workers and their tables: where a bug can be planted.
pub(crate) type Wrap = fn(Arc<dyn Table>) -> Arc<dyn Table>;

/// One simulated world.
pub(crate) struct World {
    pub(crate) table: Arc<MemoryTable>,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) chance: SmallRng,
    pub(crate) violations: Violations,
    pub(crate) outside: Outside,
    pub(crate) processes: Vec<Process>,
    /// Records put into the input stream, by key.
    pub(crate) produced: BTreeMap<String, u64>,
    /// What each record of the input stream holds: one record, or those of an aggregate.
    pub(crate) put: BTreeMap<SequenceNumber, Vec<Put>>,
    /// A planted bug: what stands before the tables.
    pub(crate) wrap: Option<Wrap>,
    /// A planted bug: reducers look at their clock.
    pub(crate) clocks: bool,
    pub(crate) horizons: Horizons,
    pub(crate) hindered: Hindered,
    pub(crate) held_up: HeldUp,
    /// Only records of the first feed kind, which no source has to ask back for.
    pub(crate) one_kind: bool,
    /// Which streams are read by enhanced fan-out.
    pub(crate) pushed: Vec<&'static str>,
    /// Where stages may panic.
    pub(crate) trips: Trips,
    /// Where faults are placed.
    pub(crate) ambush: Option<Arc<Ambush>>,
    pub(crate) broken: Broken,
    pub(crate) stuck_after: Duration,
    pub(crate) lanes: Lanes,
    books: Books,
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
            violations: Violations::default(),
            outside: Outside::default(),
            processes: Vec::new(),
            produced: BTreeMap::new(),
            put: BTreeMap::new(),
            wrap: None,
            clocks: false,
            horizons: Horizons::default(),
            hindered: Hindered::default(),
            held_up: HeldUp::default(),
            one_kind: false,
            trips: Trips::default(),
            ambush: None,
            // Not drawn from `chance`: the storm of a seed is the same however its streams are read.
            pushed: [&[][..], &[INPUT], &[EXCHANGE, EVIDENCE], &[INPUT, EXCHANGE, EVIDENCE]][seed as usize % 4]
                .to_vec(),
            broken: Broken::default(),
            stuck_after: Timing::default().stuck_after,
            lanes: Lanes::new(8).unwrap(),
            books: Books::default(),
            started: 0,
        }
    }

    fn port(&mut self, worker: &str, faults: Faults) -> Arc<Port> {
        let table: Arc<dyn Table> = Arc::new(Audited {
            table: Arc::clone(&self.table),
            log: Arc::clone(&self.log),
            worker: worker.to_owned(),
            violations: self.violations.clone(),
            books: Arc::clone(&self.books),
        });
        Arc::new_cyclic(|itself| Port {
            table: self.wrap.map_or(table.clone(), |wrap| wrap(table)),
            log: Arc::clone(&self.log),
            streams: [INPUT, EXCHANGE, EVIDENCE],
            chance: Mutex::new(SmallRng::seed_from_u64(self.chance.random())),
            faults,
            horizons: Arc::clone(&self.horizons),
            hindered: Arc::clone(&self.hindered),
            held_up: Arc::clone(&self.held_up),
            dead: AtomicBool::new(false),
            frozen_until: Mutex::new(None),
            ambush: self.ambush.clone(),
            itself: itself.clone(),
        })
    }

    /// Starts a worker; its end of input is told through what is returned.
    pub(crate) fn start(&mut self, roles: Roles, faults: Faults) -> watch::Sender<Option<Instant>> {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let port = self.port(&name, faults);
        let timing = Timing { stuck_after: self.stuck_after, ..timing() };
        let config = WorkerConfig { timing, ..WorkerConfig::new(WorkerId::new(name), tables()) };
        let metrics = EngineMetrics::register(&prometheus::Registry::new(), "simulation").unwrap();
        // Every worker's wall clock is wrong by its own amount, up to an hour.
        let skew = self.chance.random_range(-3_600_000..3_600_000);
        let log = Arc::clone(&self.log);
        let clock = WallClock::new(move || log.now_ms() + skew);
        let (lanes, kinds) = (self.lanes, FeedKinds::new(u8::try_from(KINDS).unwrap()));
        let (_, snapshot) = watch::channel(Snapshot::new("topology"));
        let mut worker = Worker::new(config, port.clone(), port.clone(), clock.clone(), metrics);
        worker = worker.job(INPUT, EXCHANGE, &[EVIDENCE], lanes, kinds);
        worker = worker.skips(EVIDENCE, SkipRecords::new(skip_record));
        if roles != Roles::Reduce {
            worker = worker.map(INPUT, EXCHANGE, lanes, kinds, snapshot, Count { lanes, trips: self.trips.clone() });
        }
        if roles != Roles::Map {
            let (violations, outside) = (self.violations.clone(), Arc::clone(&self.outside));
            let reader = self.clocks.then_some(clock);
            let trips = self.trips.clone();
            worker = worker.reduce(EXCHANGE, Some(EVIDENCE), lanes, kinds, {
                let (violations, trips) = (violations.clone(), trips.clone());
                let broken = Arc::clone(&self.broken);
                move |_| Sum::new(violations.clone(), reader.clone(), trips.clone(), Arc::clone(&broken))
            });
            let judge = move |context: &ShardContext, _| {
                let (violations, outside, trips) = (violations.clone(), Arc::clone(&outside), trips.clone());
                Judge::new(context.shard.to_string(), lanes.count(), violations, outside, trips)
            };
            worker = worker.stage(EVIDENCE, judge);
        }
        for stream in &self.pushed {
            let usual = if *stream == EXCHANGE { Reading::default() } else { Reading::with_kpl() };
            worker = worker.reading(stream, Reading { fetch: Fetch::FanOut { consumer: CONSUMER.into() }, ..usual });
        }
        let (ends, end_input) = watch::channel(None);
        let leave = CancellationToken::new();
        let token = leave.clone();
        let handle = tokio::spawn(async move { worker.run(token, end_input).await.unwrap() });
        self.processes.push(Process { port, leave, handle });
        ends
    }

    /// Kill -9.
    pub(crate) fn kill(&mut self, index: usize) {
        let process = self.processes.remove(index);
        process.port.dead.store(true, Ordering::Relaxed);
        process.handle.abort();
    }

    /// Puts records: most in time, some late, few of the future.
    ///
    /// Half of them as one KPL aggregate, which lies where its records do.
    pub(crate) async fn produce(&mut self, count: u32) {
        let (place, mut joined, mut held) = (self.chance.random::<u128>(), Vec::new(), Vec::new());
        for _ in 0..count {
            let (put, data) = self.record();
            let partition_key = self.chance.random_range(0..1000).to_string();
            if self.chance.random_bool(0.5) {
                joined.push(Joined { partition_key, hash_key: Some(place), data });
                held.push(put);
            } else {
                self.append(Entry { partition_key, hash_key: None, data }, vec![put]).await;
            }
        }
        if !joined.is_empty() {
            let entry = Entry { partition_key: "aggregate".into(), hash_key: Some(place), data: join(&joined) };
            self.append(entry, held).await;
        }
    }

    /// Puts a record into every open shard.
    pub(crate) async fn produce_everywhere(&mut self) {
        for shard in self.log.shards(INPUT).await.unwrap().into_iter().filter(|shard| !shard.closed) {
            self.produce_into(&shard).await;
        }
    }

    /// Puts a record into an open shard.
    pub(crate) async fn produce_into(&mut self, shard: &Shard) {
        let (put, data) = self.record();
        let entry = Entry { partition_key: "here".into(), hash_key: Some(shard.range.start), data };
        self.append(entry, vec![put]).await;
    }

    fn record(&mut self) -> (Put, Bytes) {
        // The second feed kind is rare, so that sources go idle for it and come back.
        let kind = u8::from(self.chance.random_bool(0.06) && !self.one_kind);
        let key = format!("{kind}-{}", self.chance.random_range(0..16));
        let age = match self.chance.random_range(0..30) {
            0 => self.chance.random_range(3_000..60_000),
            1 => -self.chance.random_range(0..200_000),
            _ => self.chance.random_range(0..2_500),
        };
        let time = self.log.now_ms() - age;
        let data = Bytes::from(format!("{key} {time}"));
        (Put { key, time }, data)
    }

    async fn append(&mut self, entry: Entry, holds: Vec<Put>) {
        for put in &holds {
            *self.produced.entry(put.key.clone()).or_default() += 1;
        }
        let sequence = self.log.append(INPUT, &[entry]).await.unwrap().remove(0).unwrap();
        self.put.insert(sequence, holds);
    }

    /// What was seen to be written so far.
    pub(crate) fn books(&self) -> MutexGuard<'_, Ledger> {
        self.books.lock().unwrap()
    }

    /// The floors that sources were given so far.
    pub(crate) fn floors(&self) -> Floors {
        self.books().floors.clone()
    }

    /// Everyone dies; a last worker without faults carries the input to its end.
    pub(crate) async fn finish(&mut self) -> Result<(), String> {
        while !self.processes.is_empty() {
            self.kill(0);
        }
        let ends = self.start(Roles::All, Faults::default());
        tokio::time::sleep(Duration::from_secs(1)).await;
        ends.send_replace(Some(Instant::now()));
        let last = self.processes.remove(0);
        match tokio::time::timeout(Duration::from_secs(600), last.handle).await {
            Ok(ended) => ended.map_err(|e| e.to_string()),
            Err(_) => Err(format!("did not come to an end:\n{}", self.rows().await)),
        }
    }

    async fn rows(&self) -> String {
        let mut text = String::new();
        for stream in [INPUT, EXCHANGE, EVIDENCE] {
            for row in inspect::rows(&*self.table, &tables(), stream).await.unwrap() {
                let parents: Vec<&str> = row.parents.iter().map(ShardId::as_str).collect();
                let (shard, owner, checkpoint) = (&row.shard, &row.owner, &row.checkpoint);
                let status = &row.status[..KINDS];
                text += &format!("{stream} {shard} owner {owner:?} at {checkpoint} from {parents:?} {status:?}\n");
            }
        }
        text
    }
}

/// Short times, so that a few virtual minutes hold everything.
fn timing() -> Timing {
    let seconds = Duration::from_secs;
    Timing {
        lease: LeaseTimes { renewal: seconds(3), failover: seconds(10) },
        commit: seconds(4),
        batch: seconds(2),
        heartbeat: seconds(3),
        idle_after: IDLE_AFTER,
        shard_sync: seconds(10),
        ..Timing::default()
    }
}

pub(crate) fn tables() -> Tables {
    Tables::new("simulation")
}
