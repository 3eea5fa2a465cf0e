//! Streams in memory that forget: a thousand shards' records of an hour would not fit otherwise.
//!
//! The order rules are [`MemoryLog`](flowshift_consumer::log::memory::MemoryLog)'s without resharding. Records older
//! than [`KEEP`] go; a reader that came too late is counted in [`Tails::late`], which a measurement must find at 0.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flowshift_consumer::log::{Entry, Log, LogError, Page, ReadToken, Record, StreamId};
use flowshift_consumer::shard::{HashRange, Position, SequenceNumber, Shard, ShardId};
use tokio::time::Instant;

/// How long records stay: longer than any lease stands still here.
const KEEP: Duration = Duration::from_secs(90);
const PAGE_RECORDS: usize = 10_000;
const EPOCH_MS: i64 = 1_800_000_000_000;

#[derive(Debug)]
struct Tail {
    shard: Shard,
    /// How many records came before the first that is kept.
    gone: u64,
    records: VecDeque<Record>,
}

#[derive(Debug, Default)]
struct Stream {
    tails: Vec<Tail>,
    appended: u64,
}

/// Streams of open shards with equal hash ranges.
#[derive(Debug)]
pub(crate) struct Tails {
    started: Instant,
    streams: Mutex<BTreeMap<String, Stream>>,
    late: AtomicU64,
}

impl Tails {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), streams: Mutex::default(), late: AtomicU64::new(0) }
    }

    /// The wall clock, epoch milliseconds; it runs with tokio's.
    pub(crate) fn now_ms(&self) -> i64 {
        EPOCH_MS + i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }

    pub(crate) fn create(&self, name: &str, shards: u32) {
        let count = u128::from(shards.max(1));
        let width = u128::MAX / count;
        let tails = (0..count).map(|i| {
            let start = if i == 0 { 0 } else { width * i + 1 };
            let end = if i + 1 == count { u128::MAX } else { width * (i + 1) };
            let id = ShardId::new(format!("shardId-{i:012}"));
            let shard = Shard { id, parents: Vec::new(), range: HashRange { start, end }, closed: false };
            Tail { shard, gone: 0, records: VecDeque::new() }
        });
        let tails = tails.collect();
        self.lock().insert(name.to_owned(), Stream { tails, appended: 0 });
    }

    /// Readers that found their next record gone.
    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// The shard that holds a key, by its place: ranges are equal and ascend.
    fn holder(&mut self, key: u128) -> Option<&mut Tail> {
        let index = self.tails.partition_point(|tail| tail.shard.range.end < key);
        self.tails.get_mut(index)
    }

    fn append(&mut self, entry: &Entry, now_ms: i64) -> Result<SequenceNumber, LogError> {
        let gone = || LogError::Unavailable("no shard holds the hash key".into());
        // Records without one go to the evidence stream, which has one shard.
        let key = entry.hash_key.unwrap_or_default();
        self.appended += 1;
        let sequence = SequenceNumber::new(&self.appended.to_string()).ok_or_else(gone)?;
        let tail = self.holder(key).ok_or_else(gone)?;
        let oldest = now_ms - i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX);
        while tail.records.front().is_some_and(|r| r.arrived_ms < oldest) {
            tail.records.pop_front();
            tail.gone += 1;
        }
        let (partition_key, data) = (entry.partition_key.clone(), entry.data.clone());
        tail.records.push_back(Record {
            sequence: sequence.clone(),
            sub_sequence: 0,
            arrived_ms: now_ms,
            partition_key: partition_key.into(),
            data,
        });
        Ok(sequence)
    }
}

fn not_found(what: &str) -> LogError {
    LogError::NotFound(what.to_owned())
}

#[async_trait::async_trait]
impl Log for Tails {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        if !self.lock().contains_key(stream) {
            return Err(not_found(stream));
        }
        Ok(StreamId { name: stream.to_owned(), created_ms: EPOCH_MS })
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        let streams = self.lock();
        let stream = streams.get(stream).ok_or_else(|| not_found(stream))?;
        Ok(stream.tails.iter().map(|tail| tail.shard.clone()).collect())
    }

    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError> {
        let streams = self.lock();
        let tails = &streams.get(stream).ok_or_else(|| not_found(stream))?.tails;
        let index = tails.iter().position(|t| t.shard.id == *shard).ok_or_else(|| not_found(shard.as_str()))?;
        let tail = &tails[index];
        let before = match position {
            Position::TrimHorizon => 0,
            Position::AtTimestamp(ms) => tail.records.partition_point(|r| r.arrived_ms < *ms),
            Position::At(sequence) => tail.records.partition_point(|r| r.sequence < *sequence),
            Position::After(sequence) => tail.records.partition_point(|r| r.sequence <= *sequence),
        };
        Ok(ReadToken::new(format!("{index}:{}", tail.gone + before as u64)))
    }

    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        let bad = || LogError::Invalid(format!("token {}", token.as_str()));
        let (index, offset) = token.as_str().split_once(':').ok_or_else(bad)?;
        let (index, offset): (usize, u64) = (index.parse().map_err(|_| bad())?, offset.parse().map_err(|_| bad())?);
        let now_ms = self.now_ms();
        let streams = self.lock();
        let tail = streams.get(stream).and_then(|s| s.tails.get(index)).ok_or_else(|| not_found(stream))?;
        if offset < tail.gone {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        let from = usize::try_from(offset.saturating_sub(tail.gone)).unwrap_or(usize::MAX).min(tail.records.len());
        let to = tail.records.len().min(from + PAGE_RECORDS);
        Ok(Page {
            records: tail.records.range(from..to).cloned().collect(),
            next: Some(ReadToken::new(format!("{index}:{}", tail.gone + to as u64))),
            behind_ms: tail.records.get(to).map_or(0, |r| (now_ms - r.arrived_ms).max(1)),
        })
    }

    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        let now_ms = self.now_ms();
        let mut streams = self.lock();
        let stream = streams.get_mut(stream).ok_or_else(|| not_found(stream))?;
        Ok(entries.iter().map(|entry| stream.append(entry, now_ms)).collect())
    }
}
