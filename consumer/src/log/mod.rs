//! The log seam: the Kinesis calls the engine makes.
//!
//! Polling is [`Log::read`], enhanced fan-out [`Log::subscribe`]; nothing in the engine knows a Kinesis request.
//! [`kinesis::KinesisLog`] speaks to Kinesis; [`memory::MemoryLog`] is the same rules in memory for simulations.

mod fan_out;
pub mod kinesis;
pub mod memory;
mod put;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use put::put_all_within;
pub use put::{PutError, put_all};

use crate::shard::{Position, SequenceNumber, Shard, ShardId};

/// What identifies a stream over its life: a stream of the same name made anew has another creation time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Stream name.
    pub name: String,
    /// Creation time, epoch milliseconds.
    pub created_ms: i64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.created_ms)
    }
}

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the shard.
    pub sequence: SequenceNumber,
    /// Its place inside an aggregate ([`crate::kpl`]), from 0; 0 for a plain record.
    pub sub_sequence: u64,
    /// When the stream took it, epoch milliseconds by the stream's clock.
    pub arrived_ms: i64,
    /// The producer's partition key.
    pub partition_key: Arc<str>,
    /// The payload. One inside an aggregate is a slice of it and keeps all of it in memory: copy what is to last.
    pub data: Bytes,
}

/// One answer to a read.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Records in order, possibly none.
    pub records: Vec<Record>,
    /// Where to go on; none when a closed shard has been read to its end.
    pub next: Option<ReadToken>,
    /// Age of the next unread record in milliseconds, 0 at the tip.
    pub behind_ms: i64,
}

/// Opaque place in a shard that expires after some minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadToken(pub(crate) String);

impl ReadToken {
    /// A place as a log of one's own writes it.
    pub fn new(place: impl Into<String>) -> Self {
        Self(place.into())
    }

    /// The place as the log that made it wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A consumer registered for enhanced fan-out of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerId {
    /// The stream's name.
    pub(crate) stream: String,
    /// How the log names the consumer.
    pub(crate) arn: String,
}

impl ConsumerId {
    /// A consumer as a log of one's own names it.
    pub fn new(stream: impl Into<String>, name: impl Into<String>) -> Self {
        Self { stream: stream.into(), arn: name.into() }
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The consumer as the log that registered it named it: on Kinesis its ARN.
    pub fn as_str(&self) -> &str {
        &self.arn
    }
}

/// What a subscription pushes at once.
#[derive(Debug, Clone)]
pub struct Event {
    /// Records in order, possibly none.
    pub records: Vec<Record>,
    /// The next subscription begins after it; none when a closed shard has been read to its end.
    pub continuation: Option<SequenceNumber>,
    /// Age of the next unread record in milliseconds, 0 at the tip.
    pub behind_ms: i64,
}

/// A subscription to one shard. It ends by itself after some minutes, and when another takes its place.
#[async_trait::async_trait]
pub trait Subscription: Send {
    /// The next event; none at the end. Not asking is back-pressure.
    async fn next(&mut self) -> Option<Result<Event, LogError>>;
}

/// Bytes of payload and partition key that a record may have.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Partition key, 1 to 256 characters.
    pub partition_key: String,
    /// Hash key that decides the shard, overriding the partition key's hash.
    pub hash_key: Option<u128>,
    /// The payload, at most [`MAX_RECORD_BYTES`] together with the partition key.
    pub data: Bytes,
}

/// Why a call on a stream failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The place expired; take a new one after the last record seen.
    #[error("shard iterator expired")]
    Expired,
    /// The stream refused for capacity.
    #[error("throttled by the stream")]
    Throttled,
    /// The stream or shard does not exist (any more).
    #[error("not found: {0}")]
    NotFound(String),
    /// No answer, or an answer of 5xx: an append may or may not have been applied.
    #[error("stream unavailable: {0}")]
    Unavailable(String),
    /// Another subscription of the same consumer to the shard began moments ago.
    #[error("another subscription to the shard is younger than five seconds")]
    InUse,
    /// The request is wrong and will stay wrong.
    #[error("stream refused the request: {0}")]
    Invalid(String),
}

impl LogError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable(_) | Self::InUse)
    }
}

/// The calls the engine makes.
#[async_trait::async_trait]
pub trait Log: Send + Sync + fmt::Debug {
    /// The identity of the stream with this name.
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError>;
    /// How long the stream keeps a record, at least; zero: a record may be gone at any time.
    async fn retention(&self, stream: &str) -> Result<Duration, LogError> {
        let _ = stream;
        Ok(Duration::ZERO)
    }
    /// All shards still known, closed ones included.
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError>;
    /// A place to read from.
    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError>;
    /// Reads on from a place: at most 10 MB and 10,000 records.
    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError>;
    /// A consumer of this name, registered when there is none, and active.
    async fn register(&self, stream: &str, consumer: &str) -> Result<ConsumerId, LogError> {
        Err(LogError::Invalid(format!("no enhanced fan-out here for consumer {consumer} of {stream}")))
    }
    /// Subscribes to a shard; takes the place of a subscription of this consumer that is older than five seconds.
    async fn subscribe(
        &self,
        consumer: &ConsumerId,
        shard: &ShardId,
        position: &Position,
    ) -> Result<Box<dyn Subscription>, LogError> {
        let _ = position;
        Err(LogError::Invalid(format!("no enhanced fan-out here for {shard} of {}", consumer.stream)))
    }
    /// Appends up to 500 records in one request; each has its own answer. The order of a request's records is kept
    /// per shard unless one is refused.
    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError>;
}
