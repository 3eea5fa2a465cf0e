//! Streams, tables and one worker at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
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
use flowshift_consumer::run::{StateMismatch, Tables, Timing, Worker, WorkerConfig};
use flowshift_consumer::table::memory::MemoryTable;
use flowshift_consumer::table::{Condition, Table, Update, Value};
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::job::{Copy, Keep};

pub(crate) const INPUT: &str = "input";
pub(crate) const EXCHANGE: &str = "exchange";

pub(crate) struct World {
    pub(crate) table: Arc<MemoryTable>,
    pub(crate) log: Arc<MemoryLog>,
    workers: u32,
}

impl World {
    pub(crate) fn new() -> Self {
        let log = Arc::new(MemoryLog::new(1_800_000_000_000));
        log.create(INPUT, 1);
        log.create(EXCHANGE, 1);
        Self { table: Arc::default(), log, workers: 0 }
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
        self.workers += 1;
        let registry = Registry::new();
        let config = WorkerConfig {
            worker: WorkerId::new(format!("worker-{}", self.workers)),
            tables: Self::tables(),
            timing: Timing::default(),
            alone: false,
            state_mismatch,
        };
        let metrics = EngineMetrics::register(&registry, "test").unwrap();
        let (table, log) = (self.table.clone(), self.log.clone());
        let clock = {
            let log = self.log.clone();
            WallClock::new(move || log.now_ms())
        };
        let (lanes, kinds) = (Lanes::new(2).unwrap(), FeedKinds::new(1));
        let (_sender, snapshot) = watch::channel(Snapshot::new("rules"));
        let worker = Worker::new(config, table, log, clock, metrics)
            .map(INPUT, EXCHANGE, lanes, kinds, snapshot, Copy)
            .reduce(EXCHANGE, None, lanes, kinds, |_| Keep::default());
        let (_ends, end_input) = watch::channel(None);
        let leave = CancellationToken::new();
        let running = tokio::spawn(worker.run(leave.clone(), end_input));
        tokio::time::sleep(Duration::from_secs(120)).await;
        leave.cancel();
        running.await.unwrap().unwrap();
        registry
    }

    pub(crate) async fn row(&self, stream: &str) -> LeaseRow {
        inspect::rows(&*self.table, &Self::tables(), stream).await.unwrap().remove(0)
    }

    /// Another program moves a checkpoint, as KCL does it.
    pub(crate) async fn move_checkpoint(&self, stream: &str, checkpoint: &str) {
        let row = self.row(stream).await;
        let update = Update::new()
            .set(attribute::CHECKPOINT, Value::string(checkpoint))
            .set(attribute::COUNTER, Value::number(row.counter + 1))
            .remove(attribute::PENDING);
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
        let table: Arc<dyn Table> = self.table.clone();
        let stream = self.log.identify(EXCHANGE).await.unwrap();
        let parts = inspect::parts(&table, &Self::tables(), &stream).await.unwrap();
        let lanes = parts.into_iter().filter(|(key, _)| key.starts_with("lane-"));
        lanes.map(|(key, bytes)| (key, String::from_utf8_lossy(&bytes).into_owned())).collect()
    }
}

/// The value of a counter with these label values, or 0.
pub(crate) fn counted(registry: &Registry, name: &str, labels: &[&str]) -> f64 {
    let families = registry.gather();
    let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
    let has = |metric: &&prometheus::proto::Metric| {
        labels.iter().all(|value| metric.get_label().iter().any(|label| label.value() == *value))
    };
    metrics.filter(has).map(|metric| metric.get_counter().get_value()).sum()
}
