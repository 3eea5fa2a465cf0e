//! Enhanced fan-out beside polling, by the real SDK against the emulator: the same stream, split and merged while both
//! read it, gives both the same counts, which are what was put.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::inspect;
use flowshift_consumer::kpl::{Joined, join};
use flowshift_consumer::lease::WorkerId;
use flowshift_consumer::log::kinesis::KinesisLog;
use flowshift_consumer::log::{Entry, Log, Record, put_all};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Fetch, Reading, Tables, Timing, Worker, WorkerConfig};
use flowshift_consumer::stage::{Stage, StageError, StatePart};
use flowshift_consumer::table::{Table, memory::MemoryTable};
use flowshift_kinesis_emulator::{Emulator, EmulatorConfig, Limits};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const STREAM: &str = "input";

/// Counts of each text, by shard.
#[derive(Default)]
struct Count {
    key: String,
    counts: BTreeMap<String, u64>,
}

impl Stage for Count {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        // Parents keep their own parts; the sum over all of them is the total.
        let own = parts.iter().filter(|(key, _)| *key == self.key);
        self.counts = own.flat_map(|(_, bytes)| decode(bytes)).collect();
        Ok(())
    }
    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        *self.counts.entry(String::from_utf8_lossy(&record.data).into_owned()).or_default() += 1;
        Ok(())
    }
    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        let text: String = self.counts.iter().map(|(word, n)| format!("{word} {n}\n")).collect();
        Ok(vec![(self.key.clone(), text.into())])
    }
    fn keeps(&self, key: &str) -> bool {
        key == self.key
    }
    fn restores(&self, key: &str) -> bool {
        key == self.key
    }
    fn finished(&self) -> bool {
        true
    }
}

fn decode(bytes: &Bytes) -> Vec<(String, u64)> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let pair = |line: &str| line.split_once(' ').map(|(word, n)| (word.to_owned(), n.parse().unwrap())).unwrap();
    text.lines().map(pair).collect()
}

fn client(emulator: &Emulator) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new("test", "test", None, None, "static"))
        .region(Region::new("us-east-1"))
        .endpoint_url(emulator.endpoint_url())
        .build();
    Client::from_conf(config)
}

/// A job of its own over the stream.
struct Job {
    tables: Tables,
    table: Arc<MemoryTable>,
    running: tokio::task::JoinHandle<()>,
}

fn start(name: &str, log: &Arc<KinesisLog>, fetch: Fetch, ends: watch::Receiver<Option<Instant>>) -> Job {
    let (tables, table) = (Tables::new(name), Arc::new(MemoryTable::default()));
    let second = Duration::from_secs(1);
    let timing = Timing { commit: second, shard_sync: second, assign: second / 2, ..Timing::default() };
    let config = WorkerConfig { timing, alone: true, ..WorkerConfig::new(WorkerId::new(name), tables.clone()) };
    let metrics = EngineMetrics::register(&prometheus::Registry::new(), "t").unwrap();
    let worker = Worker::new(config, table.clone(), log.clone(), WallClock::system(), metrics)
        .stage(STREAM, |shard, _| Count { key: shard.shard.to_string(), ..Count::default() })
        .reading(STREAM, Reading { fetch, ..Reading::with_kpl() });
    let running = tokio::spawn(async move { worker.run(CancellationToken::new(), ends).await.unwrap() });
    Job { tables, table, running }
}

impl Job {
    async fn counts(self, log: &Arc<KinesisLog>) -> BTreeMap<String, u64> {
        tokio::time::timeout(Duration::from_secs(120), self.running).await.unwrap().unwrap();
        let table: Arc<dyn Table> = self.table;
        let parts = inspect::parts(&table, &self.tables, &log.identify(STREAM).await.unwrap()).await.unwrap();
        let mut sum = BTreeMap::new();
        for (word, n) in parts.iter().flat_map(|(_, bytes)| decode(bytes)) {
            *sum.entry(word).or_default() += n;
        }
        sum
    }
}

/// Puts texts, every fifth record an aggregate of three, and notes them.
async fn put(log: &Arc<KinesisLog>, round: u32, produced: &mut BTreeMap<String, u64>) {
    let mut entries = Vec::new();
    for n in 0..200 {
        let mut text = |part: u32| {
            let text = format!("{round}/{}/{part}", n % 40);
            *produced.entry(text.clone()).or_default() += 1;
            Bytes::from(text)
        };
        let partition_key = format!("{round}-{n}");
        let hash_key = (n % 5 == 0).then(|| u128::MAX / 200 * n);
        let data = match hash_key {
            None => text(0),
            Some(_) => {
                let joined = |part| Joined { partition_key: partition_key.clone(), hash_key, data: text(part) };
                join(&(0..3).map(joined).collect::<Vec<_>>())
            }
        };
        entries.push(Entry { partition_key, hash_key, data });
    }
    put_all(&**log, STREAM, entries, &CancellationToken::new(), |_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fan_out_and_polling_count_the_same_through_a_split_and_a_merge() {
    let config = EmulatorConfig {
        limits: Limits::Aws,
        // Short lives and slow making, so that both are met.
        subscription_lifetime: Duration::from_secs(7),
        subscription_heartbeat: Duration::from_secs(1),
        transition_delay: Duration::from_millis(300),
        ..EmulatorConfig::default()
    };
    let emulator = Emulator::start(config, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let client = client(&emulator);
    client.create_stream().stream_name(STREAM).shard_count(2).send().await.unwrap();
    active(&client).await;
    let log = Arc::new(KinesisLog::new(client.clone()));
    let (end, ends) = watch::channel(None);
    let polling = start("polling", &log, Fetch::Polling, ends.clone());
    let fan_out = start("fan-out", &log, Fetch::FanOut { consumer: "counter".into() }, ends);

    let mut produced = BTreeMap::new();
    put(&log, 0, &mut produced).await;
    let middle = (u128::MAX / 4).to_string();
    let split = client.split_shard().stream_name(STREAM).shard_to_split("shardId-000000000000");
    split.new_starting_hash_key(middle).send().await.unwrap();
    active(&client).await;
    put(&log, 1, &mut produced).await;
    let merge = client.merge_shards().stream_name(STREAM).shard_to_merge("shardId-000000000003");
    merge.adjacent_shard_to_merge("shardId-000000000001").send().await.unwrap();
    active(&client).await;
    put(&log, 2, &mut produced).await;
    end.send_replace(Some(Instant::now()));

    let (polled, pushed) = (polling.counts(&log).await, fan_out.counts(&log).await);
    assert_eq!(polled, produced, "polling");
    assert_eq!(pushed, produced, "enhanced fan-out");
    let answers = emulator.stats().answers;
    assert!(answers["SubscribeToShard"]["ok"] >= 5, "five shards were subscribed to: {answers:?}");
    assert_eq!(answers["RegisterStreamConsumer"]["ok"], 1, "registered once: {answers:?}");
    emulator.shutdown().await;
}

/// Waits until the stream takes its next change.
async fn active(client: &Client) {
    loop {
        let summary = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        let status = summary.stream_description_summary().map(|s| s.stream_status().as_str().to_owned());
        if status.as_deref() == Some("ACTIVE") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
