//! How often mappers cut follows the shards that are open: many input shards on a narrow exchange lengthen the batch
//! interval, a wider exchange shortens it again.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{Envelope, FeedKinds, Lanes, Message, Watermarks};
use flowshift_consumer::lease::WorkerId;
use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Entry, Log};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Tables, Timing, Worker, WorkerConfig};
use flowshift_consumer::stage::{Batch, Mapped, Mapper, StageError};
use flowshift_consumer::table::memory::MemoryTable;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const EPOCH_MS: i64 = 1_800_000_000_000;
const INPUT_SHARDS: u32 = 8;
const LANES: u32 = 64;
const SECOND: Duration = Duration::from_secs(1);

/// Says nothing about what it reads; every lane gets its heartbeats.
struct Silent;

impl Mapper for Silent {
    type State = ();
    type Prepared = ();

    fn semantics(&self) -> u32 {
        1
    }
    fn prepare(&self, _: &Snapshot) -> Result<(), StageError> {
        Ok(())
    }
    fn map(&self, (): &mut (), _: &Batch<'_>, (): &()) -> Result<Mapped, StageError> {
        Ok(Mapped::default())
    }
    fn watermarks(&self, (): &()) -> Watermarks {
        Watermarks::NONE
    }
    fn raise(&self, (): &mut (), _: &Watermarks) {}
    fn inherit(&self, _: Vec<()>) {}
    fn save(&self, (): &()) -> Result<Vec<u8>, StageError> {
        Ok(Vec::new())
    }
    fn load(&self, _: &Bytes) -> Result<(), StageError> {
        Ok(())
    }
}

/// A worker that maps, at a batch every second if the exchange lets it.
fn start(id: &str, table: &Arc<MemoryTable>, log: &Arc<MemoryLog>) {
    let timing = Timing { batch: SECOND, heartbeat: SECOND, ..Timing::default() };
    let config = WorkerConfig { timing, ..WorkerConfig::new(WorkerId::new(id), Tables::new("pace")) };
    let metrics = EngineMetrics::register(&prometheus::Registry::new(), "pace").unwrap();
    let clock = Arc::clone(log);
    let clock = WallClock::new(move || clock.now_ms());
    let (lanes, kinds) = (Lanes::new(LANES).unwrap(), FeedKinds::new(1));
    let (_, snapshot) = watch::channel(Snapshot::new("none"));
    let worker = Worker::new(config, table.clone(), log.clone(), clock, metrics)
        .job("input", "exchange", &[], lanes, kinds)
        .map("input", "exchange", lanes, kinds, snapshot, Silent);
    let (ends, end_input) = watch::channel(None);
    tokio::spawn(async move {
        worker.run(CancellationToken::new(), end_input).await.unwrap();
        drop(ends);
    });
}

/// Puts a record into every input shard twice a second, for this long.
async fn produce(log: &MemoryLog, how_long: Duration) {
    let step = u128::MAX / u128::from(INPUT_SHARDS);
    for _ in 0..how_long.as_millis() / 500 {
        for shard in 0..INPUT_SHARDS {
            let hash_key = Some(step * u128::from(shard) + step / 2);
            let entry = Entry { partition_key: "p".into(), hash_key, data: Bytes::from_static(b"r") };
            log.append("input", &[entry]).await.unwrap();
        }
        tokio::time::sleep(SECOND / 2).await;
    }
}

/// Milliseconds between the batches of a source, of all sources, that arrived after a moment; shortest first.
fn intervals(log: &MemoryLog, after_ms: i64) -> Vec<i64> {
    let mut cut: BTreeMap<String, BTreeMap<u64, i64>> = BTreeMap::new();
    for record in log.dump("exchange").iter().filter(|record| record.arrived_ms >= after_ms) {
        if let Ok(Message::Batch(part)) = Envelope::decode(&record.data) {
            cut.entry(part.source.to_string()).or_default().entry(part.n).or_insert(record.arrived_ms);
        }
    }
    assert_eq!(cut.len(), INPUT_SHARDS as usize, "sources that cut anything");
    let mut all: Vec<i64> = Vec::new();
    for batches in cut.values() {
        let at: Vec<i64> = batches.values().copied().collect();
        all.extend(at.windows(2).map(|two| two[1] - two[0]));
    }
    all.sort_unstable();
    all
}

#[tokio::test(start_paused = true)]
async fn many_input_shards_on_a_narrow_exchange_lengthen_the_interval_and_a_wider_one_shortens_it() {
    let (table, log) = (Arc::new(MemoryTable::default()), Arc::new(MemoryLog::new(EPOCH_MS)));
    log.create("input", INPUT_SHARDS);
    log.create("exchange", 1);
    // Two workers: the one that does not lead has to learn it, too.
    start("a", &table, &log);
    start("b", &table, &log);
    produce(&log, 90 * SECOND).await;

    // 8 shards of 64 lanes are 512 records a round, for which one exchange shard takes 2.56 s.
    let narrow = intervals(&log, EPOCH_MS + 40_000);
    assert!(*narrow.first().unwrap() >= 2_500, "{narrow:?}");
    assert!(*narrow.last().unwrap() < 4_000, "{narrow:?}");

    for shard in log.shards("exchange").await.unwrap() {
        log.split("exchange", &shard.id);
    }
    produce(&log, 60 * SECOND).await;
    let wider_since = log.now_ms();
    produce(&log, 40 * SECOND).await;
    let wider = intervals(&log, wider_since);
    assert!(*wider.first().unwrap() >= 1_250 && *wider.last().unwrap() < 2_500, "{wider:?}");
}
