//! Part keys are global to the stream: a shard's stage saves under its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flowshift_consumer::clock::WallClock;
use flowshift_consumer::inspect;
use flowshift_consumer::lease::WorkerId;
use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Entry, Log, Record};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Worker, WorkerConfig};
use flowshift_consumer::stage::{ShardContext, Stage, StageError, StatePart};
use flowshift_consumer::table::Table;
use flowshift_consumer::table::memory::MemoryTable;
use prometheus::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::world::{World, counted};

const STREAM: &str = "words";

/// Counts the records of a shard, under a key.
struct Count {
    key: String,
    count: u64,
}

impl Stage for Count {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        let own = parts.iter().find(|(key, _)| *key == self.key);
        self.count = own.and_then(|(_, count)| String::from_utf8_lossy(count).parse().ok()).unwrap_or_default();
        Ok(())
    }
    fn process(&mut self, _: &Record) -> Result<(), StageError> {
        self.count += 1;
        Ok(())
    }
    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        Ok(vec![(self.key.clone(), self.count.to_string().into())])
    }
}

/// Forty records of a stream with two shards, counted by two workers one after the other; what is committed, and how
/// often a shard was started again.
async fn count(key: fn(&ShardContext) -> String) -> (BTreeMap<String, u64>, f64) {
    let (log, table) = (Arc::new(MemoryLog::new(1_800_000_000_000)), Arc::new(MemoryTable::default()));
    log.create(STREAM, 2);
    let registry = Registry::new();
    for worker in ["a", "b"] {
        for n in 0..20 {
            let entry = Entry { partition_key: n.to_string(), hash_key: None, data: "x".into() };
            log.append(STREAM, &[entry]).await.unwrap();
        }
        let config = WorkerConfig::new(WorkerId::new(worker), World::tables());
        let metrics = EngineMetrics::register(&registry, &format!("test_{worker}")).unwrap();
        let clock = WallClock::new({
            let log = log.clone();
            move || log.now_ms()
        });
        let worker = Worker::new(config, table.clone(), log.clone(), clock, metrics)
            .stage(STREAM, move |context, _| Count { key: key(context), count: 0 });
        let leave = CancellationToken::new();
        let left = leave.clone();
        let running = tokio::spawn(async move {
            let (_ends, end_input) = watch::channel(None);
            worker.run(left, end_input).await
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        leave.cancel();
        running.await.unwrap().unwrap();
    }
    let table: Arc<dyn Table> = table;
    let parts = inspect::parts(&table, &World::tables(), &log.identify(STREAM).await.unwrap()).await.unwrap();
    let counts = parts.iter().map(|(key, n)| (key.clone(), String::from_utf8_lossy(n).parse().unwrap())).collect();
    let restarts = |worker: &str| counted(&registry, &format!("test_{worker}_shard_restarts_total"), &[STREAM]);
    (counts, restarts("a") + restarts("b"))
}

#[tokio::test(start_paused = true)]
async fn parts_under_a_shards_key_or_below_it_are_each_shards_own() {
    let keys: [fn(&ShardContext) -> String; 2] = [|c| c.shard.to_string(), |c| format!("{}/words/all", c.shard)];
    for key in keys {
        let (counts, restarts) = count(key).await;
        assert_eq!((counts.len(), counts.values().sum::<u64>(), restarts), (2, 40, 0.0), "{counts:?}");
    }
}

/// Two shards that began together have the same fence and generation: the second overwrote the first's committed part,
/// whose shard then stopped for ever at state that is not its own.
#[tokio::test(start_paused = true)]
async fn a_key_that_does_not_name_the_shard_is_refused_before_anything_is_committed() {
    let (counts, restarts) = count(|_| "all".to_owned()).await;
    assert_eq!(counts, BTreeMap::new());
    assert!(restarts > 0.0);
}
