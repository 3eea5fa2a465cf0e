//! Streams, tables and one worker at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{FeedKinds, Lanes};
use flowshift_consumer::inspect;
use flowshift_consumer::lease::{LeaseRow, WorkerId, attribute};
use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Entry, Log};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{StateMismatch, Tables, Worker, WorkerConfig, WorkerError};
use flowshift_consumer::table::memory::MemoryTable;
use flowshift_consumer::table::{Condition, Table, Update, Value};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::job::{Copy, Keep};
use crate::mortal::Mortal;
use crate::port::Port;

pub(crate) const INPUT: &str = "input";
pub(crate) const EXCHANGE: &str = "exchange";

pub(crate) struct World {
    pub(crate) table: Arc<MemoryTable>,
    pub(crate) log: Arc<MemoryLog>,
    refuses: Arc<AtomicBool>,
    /// While set, workers do not see which shards came from which.
    pub(crate) childless: Arc<AtomicBool>,
    /// So many reducers panic while they are made.
    pub(crate) panics: Arc<AtomicU32>,
    pub(crate) lanes: u32,
    workers: u32,
}

/// A worker at work.
struct Process {
    registry: Registry,
    dead: CancellationToken,
    leave: CancellationToken,
    running: JoinHandle<Result<(), WorkerError>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let log = Arc::new(MemoryLog::new(1_800_000_000_000));
        log.create(INPUT, 1);
        log.create(EXCHANGE, 1);
        Self {
            table: Arc::default(),
            log,
            refuses: Arc::default(),
            childless: Arc::default(),
            panics: Arc::default(),
            lanes: 2,
            workers: 0,
        }
    }

    /// Workers can put nothing into any stream from now on, or again.
    pub(crate) fn refuse_puts(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    pub(crate) fn tables() -> Tables {
        Tables::new("job")
    }

    /// Puts numbers; each is a record of the second that it names.
    pub(crate) async fn put(&self, numbers: impl IntoIterator<Item = u64>) {
        for n in numbers {
            let entry = Entry { partition_key: "1".into(), hash_key: None, data: Bytes::from(n.to_string()) };
            self.log.append(INPUT, &[entry]).await.unwrap();
        }
    }

    /// A worker for two minutes, which then leaves; its metrics.
    pub(crate) async fn work(&mut self, state_mismatch: StateMismatch) -> Registry {
        self.work_with(|config| config.state_mismatch = state_mismatch, Copy::default()).await
    }

    /// The same with other settings and another mapper.
    pub(crate) async fn work_with(&mut self, set: impl FnOnce(&mut WorkerConfig), mapper: Copy) -> Registry {
        let mut process = self.start(set, mapper);
        tokio::time::sleep(Duration::from_secs(120)).await;
        process.leave.cancel();
        (&mut process.running).await.unwrap().unwrap();
        process.registry
    }

    /// A worker that is killed as soon as the input's row is as it should be: nothing is settled or given away.
    pub(crate) async fn work_and_die(&mut self, when: impl Fn(&LeaseRow) -> bool) {
        let row = async |world: &Self| inspect::rows(&*world.table, &Self::tables(), INPUT).await.unwrap().pop();
        let shown = async |world: &Self, _: &Registry| {
            while !row(world).await.as_ref().is_some_and(&when) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        self.work_while(shown).await;
    }

    /// A worker that is killed when this is done.
    pub(crate) async fn work_while(&mut self, meanwhile: impl AsyncFnOnce(&Self, &Registry)) {
        let process = self.start(|_| {}, Copy::default());
        meanwhile(self, &process.registry).await;
        process.dead.cancel();
        process.running.abort();
    }

    fn start(&mut self, set: impl FnOnce(&mut WorkerConfig), mapper: Copy) -> Process {
        self.workers += 1;
        let registry = Registry::new();
        let mut config = WorkerConfig::new(WorkerId::new(format!("worker-{}", self.workers)), Self::tables());
        set(&mut config);
        let metrics = EngineMetrics::register(&registry, "test").unwrap();
        let dead = CancellationToken::new();
        let table = Arc::new(Mortal { table: self.table.clone(), dead: dead.clone() });
        let (refuses, childless) = (self.refuses.clone(), self.childless.clone());
        let log = Arc::new(Port { log: self.log.clone(), refuses, childless });
        let clock = {
            let log = self.log.clone();
            WallClock::new(move || log.now_ms())
        };
        let (lanes, kinds) = (Lanes::new(self.lanes).unwrap(), FeedKinds::new(1));
        let panics = self.panics.clone();
        let keep = move |_: &_| {
            let left = panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            assert!(left.is_err(), "made to panic");
            Keep::default()
        };
        let (sender, snapshot) = watch::channel(Snapshot::new("rules"));
        let worker = Worker::new(config, table, log, clock, metrics)
            .map(INPUT, EXCHANGE, lanes, kinds, snapshot, mapper)
            .reduce(EXCHANGE, None, lanes, kinds, keep);
        let leave = CancellationToken::new();
        let left = leave.clone();
        let running = tokio::spawn(async move {
            let (_sender, (_ends, end_input)) = (sender, watch::channel(None));
            worker.run(left, end_input).await
        });
        Process { registry, dead, leave, running }
    }

    pub(crate) async fn row(&self, stream: &str) -> LeaseRow {
        inspect::rows(&*self.table, &Self::tables(), stream).await.unwrap().remove(0)
    }

    /// Another program moves a checkpoint, as KCL does it.
    pub(crate) async fn move_checkpoint(&self, stream: &str, checkpoint: &str) {
        let update = Update::new().set(attribute::CHECKPOINT, Value::string(checkpoint));
        let update = update.set(attribute::SUB_SEQUENCE, Value::number(0)).remove(attribute::PENDING);
        self.write(stream, update.remove(attribute::PENDING_SUB_SEQUENCE)).await;
    }

    /// Another program prepares a checkpoint, as KCL does it.
    pub(crate) async fn prepare_checkpoint(&self, stream: &str, checkpoint: &str) {
        let update = Update::new().set(attribute::PENDING, Value::string(checkpoint));
        self.write(stream, update.set(attribute::PENDING_SUB_SEQUENCE, Value::number(0))).await;
    }

    /// Another program writes a stream's first row.
    pub(crate) async fn write(&self, stream: &str, update: Update) {
        let row = self.row(stream).await;
        let update = update.set(attribute::COUNTER, Value::number(row.counter + 1));
        let leases = Self::tables().leases(stream);
        self.table.update(&leases, row.shard.as_str(), update, Condition::None).await.unwrap();
    }

    /// Removes the items of the state table whose key contains `text`; how many there were.
    pub(crate) async fn lose(&self, text: &str) -> usize {
        let state = Self::tables().state();
        let mut lost = 0;
        for item in self.table.scan(&state).await.unwrap() {
            let key = item.string(state.key).unwrap();
            if key.contains(text) {
                self.table.delete(&state, key, Condition::None).await.unwrap();
                lost += 1;
            }
        }
        lost
    }

    /// The committed lanes, as text.
    pub(crate) async fn lanes(&self) -> BTreeMap<String, String> {
        let mut parts = self.parts().await;
        parts.retain(|key, _| key.starts_with("lane-"));
        parts
    }

    /// The committed marks of the lanes, as far as they are text.
    pub(crate) async fn marks(&self) -> String {
        let mut parts = self.parts().await;
        parts.retain(|key, _| key.starts_with("marks@"));
        parts.into_values().collect()
    }

    async fn parts(&self) -> BTreeMap<String, String> {
        let table: Arc<dyn Table> = self.table.clone();
        let stream = self.log.identify(EXCHANGE).await.unwrap();
        let parts = inspect::parts(&table, &Self::tables(), &stream).await.unwrap();
        parts.into_iter().map(|(key, bytes)| (key, String::from_utf8_lossy(&bytes).into_owned())).collect()
    }
}

/// The value of a counter or a gauge with these label values, or 0.
pub(crate) fn counted(registry: &Registry, name: &str, labels: &[&str]) -> f64 {
    let families = registry.gather();
    let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
    let has = |metric: &&prometheus::proto::Metric| {
        labels.iter().all(|value| metric.get_label().iter().any(|label| label.value() == *value))
    };
    metrics.filter(has).map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
}
