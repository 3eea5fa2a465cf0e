//! Fetching from a stream that answers by a script: what it is asked, and when.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::kpl::{Joined, join};
use crate::lease::{LeaseRow, new_row};
use crate::log::{ConsumerId, Entry, Page, ReadToken, StreamId, Subscription, memory::MemoryLog};
use crate::shard::{HashRange, Shard};

mod trimmed;

const STREAM: &str = "s";

fn shard_id() -> ShardId {
    ShardId::new("shardId-000000000000")
}

/// A log in memory whose reads fail as told, and that notes what it is asked.
#[derive(Debug)]
struct Scripted {
    log: MemoryLog,
    failures: Mutex<VecDeque<LogError>>,
    seeks: Mutex<Vec<Position>>,
    reads: Mutex<Vec<Instant>>,
    kept: Duration,
}

impl Scripted {
    fn new() -> Arc<Self> {
        Self::keeping(Duration::ZERO)
    }

    /// Of a stream that keeps its records so long.
    fn keeping(kept: Duration) -> Arc<Self> {
        let log = MemoryLog::new(1_000_000);
        log.create(STREAM, 1);
        let (failures, seeks, reads) = Default::default();
        Arc::new(Self { log, failures, seeks, reads, kept })
    }

    async fn put(&self, data: impl Into<Bytes>) -> SequenceNumber {
        let entry = Entry { partition_key: "k".into(), hash_key: None, data: data.into() };
        self.log.append(STREAM, &[entry]).await.unwrap().remove(0).unwrap()
    }
}

#[async_trait::async_trait]
impl Log for Scripted {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        self.log.identify(stream).await
    }
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        self.log.shards(stream).await
    }
    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError> {
        self.seeks.lock().unwrap().push(position.clone());
        self.log.seek(stream, shard, position).await
    }
    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        self.reads.lock().unwrap().push(Instant::now());
        let failure = self.failures.lock().unwrap().pop_front();
        match failure {
            Some(failure) => Err(failure),
            None => self.log.read(stream, token).await,
        }
    }
    async fn register(&self, stream: &str, consumer: &str) -> Result<ConsumerId, LogError> {
        self.log.register(stream, consumer).await
    }
    async fn subscribe(
        &self,
        consumer: &ConsumerId,
        shard: &ShardId,
        position: &Position,
    ) -> Result<Box<dyn Subscription>, LogError> {
        self.reads.lock().unwrap().push(Instant::now());
        self.seeks.lock().unwrap().push(position.clone());
        let failure = self.failures.lock().unwrap().pop_front();
        match failure {
            Some(failure) => Err(failure),
            None => self.log.subscribe(consumer, shard, position).await,
        }
    }
    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        self.log.append(stream, entries).await
    }
}

fn row() -> LeaseRow {
    let shard = Shard { id: shard_id(), parents: vec![], range: HashRange::ALL, closed: false };
    LeaseRow::read(&new_row(&shard, &Checkpoint::TrimHorizon, 0)).unwrap().unwrap()
}

fn fetch(log: &Arc<Scripted>, checkpoint: &Checkpoint, sub_sequence: u64) -> mpsc::Receiver<Fetched> {
    fetch_by(Fetch::Polling, log, checkpoint, sub_sequence)
}

fn fan_out() -> Fetch {
    Fetch::FanOut { consumer: "c".into() }
}

fn fetch_by(fetch: Fetch, log: &Arc<Scripted>, checkpoint: &Checkpoint, sub_sequence: u64) -> mpsc::Receiver<Fetched> {
    let shard = ShardContext {
        stream: StreamId { name: STREAM.into(), created_ms: 0 },
        shard: shard_id(),
        range: HashRange::ALL,
    };
    let metrics = EngineMetrics::register(&prometheus::Registry::new(), "t").unwrap();
    let start = Start::behind(&row(), checkpoint, sub_sequence);
    let (reading, timing) = (Reading { fetch, ..Reading::with_kpl() }, Timing::default());
    let (_, ends) = watch::channel(None);
    let (_, kept) = watch::channel([(STREAM.to_owned(), log.kept)].into());
    let retention = Retention::new(kept, STREAM);
    let source = Source { shard: &shard, log: log.clone(), reading: &reading, timing: &timing, retention, ends };
    read_on(source, metrics, start, CancellationToken::new())
}

fn aggregate(texts: &[&str]) -> Bytes {
    let joined =
        |text: &&str| Joined { partition_key: "k".into(), hash_key: None, data: Bytes::from((*text).to_owned()) };
    join(&texts.iter().map(joined).collect::<Vec<_>>())
}

/// Records until the tip, and what else was told; time runs by itself.
async fn texts(pages: &mut mpsc::Receiver<Fetched>) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        match pages.recv().await.unwrap() {
            Fetched::Page { records, behind_ms, .. } => {
                let tip = records.is_empty() && behind_ms == 0;
                texts.extend(records.iter().map(|r| String::from_utf8_lossy(&r.data).into_owned()));
                if tip {
                    return texts;
                }
            }
            Fetched::Trimmed { after } => texts.push(format!("trimmed after {after}")),
            end => {
                texts.push(format!("{end:?}"));
                return texts;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_that_a_kcl_application_half_consumed_goes_on_at_its_next_record() {
    let log = Scripted::new();
    log.put("before").await;
    let half = log.put(aggregate(&["0", "1", "2", "3"])).await;
    log.put(aggregate(&["4"])).await;
    assert_eq!(texts(&mut fetch(&log, &Checkpoint::At(half.clone()), 1)).await, ["2", "3", "4"]);
    assert_eq!(texts(&mut fetch(&log, &Checkpoint::At(half), 3)).await, ["4"]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_iterator_is_renewed_behind_the_last_record_and_loses_nothing() {
    let log = Scripted::new();
    log.put(aggregate(&["0", "1"])).await;
    let mut pages = fetch(&log, &Checkpoint::TrimHorizon, 0);
    assert_eq!(texts(&mut pages).await, ["0", "1"]);
    log.failures.lock().unwrap().extend([LogError::Expired, LogError::Throttled, LogError::Expired]);
    log.put("2").await;
    assert_eq!(texts(&mut pages).await, ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_read_keeps_its_iterator_and_asks_for_no_new_one() {
    let log = Scripted::new();
    log.put("0").await;
    log.failures.lock().unwrap().extend([LogError::Throttled, LogError::Unavailable("cut".into())]);
    assert_eq!(texts(&mut fetch(&log, &Checkpoint::TrimHorizon, 0)).await, ["0"]);
    assert_eq!(log.seeks.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_place_lost_by_an_odd_answer_is_taken_anew_at_the_last_record_not_at_the_start() {
    // Bug: after such an answer reading began again at the very first position and gave every record twice.
    let log = Scripted::new();
    log.put("0").await;
    let mut pages = fetch(&log, &Checkpoint::TrimHorizon, 0);
    assert_eq!(texts(&mut pages).await, ["0"]);
    log.failures.lock().unwrap().push_back(LogError::Invalid("odd".into()));
    log.put("1").await;
    assert_eq!(texts(&mut pages).await, ["1"]);
}

/// Was told as loss: with the last record gone, whatever came next looked like the first one left.
#[tokio::test(start_paused = true)]
async fn a_shard_that_the_stream_no_longer_has_is_gone_and_a_missing_stream_is_not() {
    let log = Scripted::new();
    let read = log.put("0").await;
    log.log.split(STREAM, &shard_id());
    log.log.expire(STREAM, &shard_id());
    assert_eq!(texts(&mut fetch(&log, &Checkpoint::At(read.clone()), 0)).await, ["Gone"]);

    let other = Arc::new(Scripted { log: MemoryLog::new(0), ..Arc::into_inner(Scripted::new()).unwrap() });
    let mut pages = fetch(&other, &Checkpoint::At(read), 0);
    let told = tokio::time::timeout(Duration::from_secs(600), pages.recv()).await;
    assert!(told.is_err(), "a stream that cannot be found must not end its shards: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_closed_shard_ends_behind_its_last_record() {
    let log = Scripted::new();
    log.put("0").await;
    log.log.split(STREAM, &shard_id());
    assert_eq!(texts(&mut fetch(&log, &Checkpoint::TrimHorizon, 0)).await, ["0", "ShardEnd"]);
}

#[tokio::test(start_paused = true)]
async fn reads_are_never_less_than_200_ms_apart_and_a_quiet_shard_is_read_once_a_second() {
    let log = Scripted::new();
    let mut pages = fetch(&log, &Checkpoint::TrimHorizon, 0);
    let drain = async { while pages.recv().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), drain).await.unwrap_err();
    let reads = log.reads.lock().unwrap().clone();
    let gaps: Vec<Duration> = reads.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(200)), "{gaps:?}");
    assert!((60..65).contains(&reads.len()), "{} reads in a minute", reads.len());
}

#[tokio::test(start_paused = true)]
async fn a_page_of_many_sub_records_is_sent_in_parts_that_cut_no_aggregate() {
    let log = Scripted::new();
    let many = vec!["x"; 6_000];
    for _ in 0..4 {
        log.put(aggregate(&many)).await;
    }
    let mut pages = fetch(&log, &Checkpoint::TrimHorizon, 0);
    let mut sizes = Vec::new();
    while sizes.len() < 2 {
        let Some(Fetched::Page { records, behind_ms, .. }) = pages.recv().await else { panic!("no page") };
        assert_eq!(records.last().unwrap().sub_sequence, 5_999);
        sizes.push((records.len(), behind_ms > 0));
    }
    assert_eq!(sizes, [(12_000, true), (12_000, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_read_again_with_exactly_its_records() {
    let log = Scripted::new();
    let first = log.put(aggregate(&["0", "1", "2"])).await;
    log.put("3").await;
    let last = log.put(aggregate(&["4", "5"])).await;
    log.put("6").await;
    let range = |kpl| Range { first: (first.clone(), 1), last: last.clone(), kpl, hashes: HashRange::ALL };
    let read = async |range: Range| {
        let read = read_range(&*log, STREAM, &shard_id(), &range, Duration::from_millis(1)).await.unwrap();
        read.iter().map(|r| r.data.len()).collect::<Vec<_>>()
    };
    assert_eq!(read(range(Some(crate::kpl::Kpl::default()))).await, [1, 1, 1, 1, 1]);
    log.failures.lock().unwrap().extend([LogError::Throttled, LogError::Expired, LogError::Expired]);
    assert_eq!(read(range(Some(crate::kpl::Kpl::default()))).await, [1, 1, 1, 1, 1]);
    // A batch that was cut without taking apart is read without.
    let plain = Range { first: (first.clone(), 0), ..range(None) };
    assert_eq!(read(plain).await.len(), 3);
    log.log.trim(STREAM, &shard_id(), &first);
    assert_eq!(read(range(Some(crate::kpl::Kpl::default()))).await, [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_gives_what_polling_gives() {
    let log = Scripted::new();
    log.put("before").await;
    let half = log.put(aggregate(&["0", "1", "2", "3"])).await;
    log.put(aggregate(&["4"])).await;
    log.log.split(STREAM, &shard_id());
    let checkpoint = Checkpoint::At(half);
    let pushed = texts(&mut fetch_by(fan_out(), &log, &checkpoint, 1)).await;
    assert_eq!(pushed, ["2", "3", "4", "ShardEnd"]);
    assert_eq!(pushed, texts(&mut fetch(&log, &checkpoint, 1)).await);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_follow_one_another_without_loss_and_never_within_five_seconds() {
    let log = Scripted::new();
    log.failures.lock().unwrap().extend([LogError::InUse, LogError::Throttled, LogError::Unavailable("cut".into())]);
    let mut pages = fetch_by(fan_out(), &log, &Checkpoint::TrimHorizon, 0);
    let mut seen = Vec::new();
    // Past two lives of a subscription.
    for n in 0..140 {
        log.put(n.to_string()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        while let Ok(Fetched::Page { records, .. }) = pages.try_recv() {
            seen.extend(records.iter().map(|r| String::from_utf8_lossy(&r.data).into_owned()));
        }
    }
    seen.extend(texts(&mut pages).await);
    assert_eq!(seen, (0..140).map(|n| n.to_string()).collect::<Vec<_>>());
    let asked = log.reads.lock().unwrap().clone();
    assert!(asked.len() >= 6, "three refusals and three lives: {}", asked.len());
    assert!(asked.windows(2).all(|w| w[1] - w[0] >= Duration::from_secs(5)), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_a_zombie_takes_is_taken_back_and_nothing_is_lost() {
    let log = Scripted::new();
    let mut ours = fetch_by(fan_out(), &log, &Checkpoint::TrimHorizon, 0);
    log.put("0").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut zombie = fetch_by(fan_out(), &log, &Checkpoint::TrimHorizon, 0);
    log.put("1").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let mut seen = [Vec::new(), Vec::new()];
    for _ in 0..20 {
        for (pages, seen) in [&mut ours, &mut zombie].into_iter().zip(&mut seen) {
            while let Ok(Fetched::Page { records, .. }) = pages.try_recv() {
                seen.extend(records.iter().map(|r| r.data.clone()));
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(seen, [["0", "1"], ["0", "1"]]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_vanished_is_gone_for_a_subscription_too() {
    let log = Scripted::new();
    log.log.split(STREAM, &shard_id());
    log.log.expire(STREAM, &shard_id());
    assert_eq!(texts(&mut fetch_by(fan_out(), &log, &Checkpoint::TrimHorizon, 0)).await, ["Gone"]);
}
