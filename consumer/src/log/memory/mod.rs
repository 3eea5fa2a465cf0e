//! The log seam in memory: shards, splits and merges with Kinesis' ordering rules, for tests and simulations.
//!
//! Time is tokio's clock, so a paused runtime makes arrival times deterministic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{ConsumerId, Entry, Log, LogError, Page, ReadToken, Record, StreamId, Subscription};
use crate::kpl::hash_key;
use crate::shard::{HashRange, Position, SequenceNumber, Shard, ShardId};

mod push;

use push::{Push, Subscriptions};

const PAGE_RECORDS: usize = 10_000;

#[derive(Debug)]
struct MemoryShard {
    shard: Shard,
    records: Vec<Record>,
    /// Number of records that expired.
    trimmed: usize,
    expired: bool,
}

/// What a reader sees of a shard from some place on.
struct View {
    records: Vec<Record>,
    /// Where to go on.
    end: usize,
    /// Whether a closed shard has been seen to its end.
    at_end: bool,
    behind_ms: i64,
}

impl MemoryShard {
    fn view(&self, offset: usize, most: usize, now_ms: i64) -> View {
        let offset = offset.max(self.trimmed);
        let end = self.records.len().min(offset + most);
        let unread = self.records.get(end);
        View {
            records: self.records.get(offset..end).unwrap_or_default().to_vec(),
            end,
            at_end: unread.is_none() && self.shard.closed,
            behind_ms: unread.map_or(0, |r| (now_ms - r.arrived_ms).max(1)),
        }
    }
}

#[derive(Debug)]
struct MemoryStream {
    id: StreamId,
    shards: Vec<MemoryShard>,
    next_sequence: u64,
    retention: Duration,
    subscriptions: Subscriptions,
}

/// Streams in memory. Nothing is throttled, and records expire only when they are told to.
#[derive(Debug)]
pub struct MemoryLog {
    streams: Arc<Mutex<BTreeMap<String, MemoryStream>>>,
    clock: Clock,
}

/// The log's wall clock, which runs with tokio's.
#[derive(Debug, Clone, Copy)]
struct Clock {
    epoch_ms: i64,
    started: Instant,
}

impl Clock {
    fn now_ms(&self) -> i64 {
        self.epoch_ms + i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }
}

impl MemoryLog {
    /// A log whose clock shows `epoch_ms` (epoch milliseconds) now and runs with tokio's clock.
    pub fn new(epoch_ms: i64) -> Self {
        Self { streams: Arc::default(), clock: Clock { epoch_ms, started: Instant::now() } }
    }

    /// The log's wall clock, epoch milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Makes a stream of `count` shards of equal hash ranges.
    pub fn create(&self, name: &str, count: u32) {
        let width = u128::MAX / u128::from(count.max(1));
        let ranges = (0..count.max(1)).map(|i| {
            let start = if i == 0 { 0 } else { width * u128::from(i) + 1 };
            let end = if i + 1 == count.max(1) { u128::MAX } else { width * u128::from(i + 1) };
            HashRange { start, end }
        });
        let id = StreamId { name: name.to_owned(), created_ms: self.now_ms() };
        let (shards, retention, subscriptions) = (Vec::new(), Duration::ZERO, Subscriptions::new());
        let mut stream = MemoryStream { id, shards, next_sequence: 1, retention, subscriptions };
        for range in ranges {
            stream.open(range, Vec::new());
        }
        self.lock().insert(name.to_owned(), stream);
    }

    /// Splits an open shard in the middle of its range.
    pub fn split(&self, stream: &str, shard: &ShardId) {
        if let Some(stream) = self.lock().get_mut(stream)
            && let Some(range) = stream.close(shard)
        {
            let middle = range.start + (range.end - range.start) / 2;
            stream.open(HashRange { start: range.start, end: middle }, vec![shard.clone()]);
            stream.open(HashRange { start: middle + 1, end: range.end }, vec![shard.clone()]);
        }
    }

    /// Merges two open shards with adjacent ranges.
    pub fn merge(&self, stream: &str, first: &ShardId, second: &ShardId) {
        if let Some(stream) = self.lock().get_mut(stream)
            && let (Some(a), Some(b)) = (stream.close(first), stream.close(second))
        {
            let range = HashRange { start: a.start.min(b.start), end: a.end.max(b.end) };
            stream.open(range, vec![first.clone(), second.clone()]);
        }
    }

    /// Promises that records are kept for at least so long, which whoever lets them expire must hold; at first nothing
    /// is.
    pub fn keep(&self, stream: &str, retention: Duration) {
        if let Some(stream) = self.lock().get_mut(stream) {
            stream.retention = retention;
        }
    }

    /// Records of a shard up to and with this one expire: reading begins behind them, as at a trim horizon.
    pub fn trim(&self, stream: &str, shard: &ShardId, last: &SequenceNumber) {
        if let Some(stream) = self.lock().get_mut(stream)
            && let Some(shard) = stream.shards.iter_mut().find(|m| m.shard.id == *shard)
        {
            shard.trimmed = shard.records.partition_point(|r| r.sequence <= *last);
        }
    }

    /// A closed shard whose last record expired: the stream knows it no longer.
    pub fn expire(&self, stream: &str, shard: &ShardId) {
        if let Some(stream) = self.lock().get_mut(stream)
            && let Some(shard) = stream.shards.iter_mut().find(|m| m.shard.id == *shard)
        {
            shard.expired = true;
        }
    }

    /// Every record of a stream, shard by shard, for oracles.
    pub fn dump(&self, stream: &str) -> Vec<Record> {
        self.dump_by_shard(stream).into_iter().flat_map(|(_, records)| records).collect()
    }

    /// The records of each shard of a stream, expired ones too, for oracles.
    pub fn dump_by_shard(&self, stream: &str) -> Vec<(ShardId, Vec<Record>)> {
        let streams = self.lock();
        let shards = streams.get(stream).into_iter().flat_map(|s| &s.shards);
        shards.map(|m| (m.shard.id.clone(), m.records.clone())).collect()
    }

    /// Every shard a stream ever had, expired ones too, parents before children, for oracles.
    pub fn lineage(&self, stream: &str) -> Vec<Shard> {
        let streams = self.lock();
        streams.get(stream).into_iter().flat_map(|s| &s.shards).map(|m| m.shard.clone()).collect()
    }

    /// Index of a shard, and of the record that reading begins with.
    fn place(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<(usize, usize), LogError> {
        let streams = self.lock();
        let shards = &streams.get(stream).ok_or_else(|| not_found(stream))?.shards;
        let index = shards.iter().position(|m| m.shard.id == *shard && !m.expired);
        let index = index.ok_or_else(|| not_found(shard.as_str()))?;
        let records = &shards[index].records;
        let offset = match position {
            Position::TrimHorizon => 0,
            Position::AtTimestamp(ms) => records.partition_point(|r| r.arrived_ms < *ms),
            Position::At(sequence) => records.partition_point(|r| r.sequence < *sequence),
            Position::After(sequence) => records.partition_point(|r| r.sequence <= *sequence),
        };
        Ok((index, offset))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, MemoryStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStream {
    fn open(&mut self, range: HashRange, parents: Vec<ShardId>) {
        let id = ShardId::new(format!("shardId-{:012}", self.shards.len()));
        let shard = Shard { id, parents, range, closed: false };
        self.shards.push(MemoryShard { shard, records: Vec::new(), trimmed: 0, expired: false });
    }

    fn close(&mut self, id: &ShardId) -> Option<HashRange> {
        let shard = self.shards.iter_mut().find(|m| m.shard.id == *id && !m.shard.closed)?;
        shard.shard.closed = true;
        Some(shard.shard.range)
    }

    fn append(&mut self, entry: &Entry, now_ms: i64) -> Result<SequenceNumber, LogError> {
        let key = entry.hash_key.unwrap_or_else(|| hash_key(&entry.partition_key));
        let sequence = SequenceNumber::new(&self.next_sequence.to_string());
        let target = self.shards.iter_mut().find(|m| !m.shard.closed && m.shard.range.contains(key));
        let (Some(target), Some(sequence)) = (target, sequence) else {
            return Err(LogError::Unavailable("no open shard holds the hash key".into()));
        };
        self.next_sequence += 1;
        target.records.push(Record {
            sequence: sequence.clone(),
            sub_sequence: 0,
            arrived_ms: now_ms,
            partition_key: entry.partition_key.as_str().into(),
            data: entry.data.clone(),
        });
        Ok(sequence)
    }
}

fn not_found(what: &str) -> LogError {
    LogError::NotFound(what.to_owned())
}

#[async_trait::async_trait]
impl Log for MemoryLog {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        self.lock().get(stream).map(|s| s.id.clone()).ok_or_else(|| not_found(stream))
    }

    async fn retention(&self, stream: &str) -> Result<Duration, LogError> {
        self.lock().get(stream).map(|s| s.retention).ok_or_else(|| not_found(stream))
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        let streams = self.lock();
        let stream = streams.get(stream).ok_or_else(|| not_found(stream))?;
        Ok(stream.shards.iter().filter(|m| !m.expired).map(|m| m.shard.clone()).collect())
    }

    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError> {
        let (index, offset) = self.place(stream, shard, position)?;
        Ok(ReadToken(format!("{index}:{offset}")))
    }

    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        let bad = || LogError::Invalid(format!("token {}", token.0));
        let (index, offset) = token.0.split_once(':').ok_or_else(bad)?;
        let (index, offset): (usize, usize) = (index.parse().map_err(|_| bad())?, offset.parse().map_err(|_| bad())?);
        let now_ms = self.now_ms();
        let streams = self.lock();
        let shard = streams.get(stream).and_then(|s| s.shards.get(index)).filter(|m| !m.expired);
        let View { records, end, at_end, behind_ms } =
            shard.ok_or_else(|| not_found(stream))?.view(offset, PAGE_RECORDS, now_ms);
        Ok(Page { records, next: (!at_end).then(|| ReadToken(format!("{index}:{end}"))), behind_ms })
    }

    async fn register(&self, stream: &str, consumer: &str) -> Result<ConsumerId, LogError> {
        self.identify(stream).await.map(|id| ConsumerId { stream: id.name, arn: consumer.to_owned() })
    }

    async fn subscribe(
        &self,
        consumer: &ConsumerId,
        shard: &ShardId,
        position: &Position,
    ) -> Result<Box<dyn Subscription>, LogError> {
        let place = self.place(&consumer.stream, shard, position)?;
        let push = Push::begin(&self.streams, self.clock, (&consumer.stream, &consumer.arn), place)?;
        Ok(Box::new(push))
    }

    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        let now_ms = self.now_ms();
        let mut streams = self.lock();
        let stream = streams.get_mut(stream).ok_or_else(|| not_found(stream))?;
        Ok(entries.iter().map(|entry| stream.append(entry, now_ms)).collect())
    }
}
