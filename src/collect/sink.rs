//! Where records go: the seam between the collector and Kinesis.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_128;

/// Most bytes of data and partition key of one Kinesis record.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// A Kinesis partition key: 1 to 256 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKey(String);

impl PartitionKey {
    const MAX_CHARS: usize = 256;

    /// The key of an agent: its id, or its hash when it is empty or too long for a key.
    #[must_use]
    pub fn of_agent(id: &str) -> Self {
        if id.is_empty() || id.chars().count() > Self::MAX_CHARS {
            return Self::of_content(id.as_bytes());
        }
        Self(id.to_owned())
    }

    /// The key of a batch without a sender's name: the hash of its bytes, so that a repeat meets the first in one shard.
    #[must_use]
    pub fn of_content(bytes: &[u8]) -> Self {
        Self(format!("{:032x}", xxh3_128(bytes)))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One record for the flows stream. Data and key together must not exceed [`MAX_RECORD_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Decides the shard.
    pub partition_key: PartitionKey,
    /// The payload.
    pub data: Bytes,
}

impl Record {
    /// Bytes that count against Kinesis limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.partition_key.0.len()
    }
}

/// Records are not in Kinesis, or it is not known that they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Too much for now.
    #[error("throttled, try again in {retry_after:?}")]
    Throttled {
        /// When to come again.
        retry_after: Duration,
    },
    /// No connection, no permission, no stream.
    #[error("unavailable: {detail}")]
    Unavailable {
        /// What was said last; for the log.
        detail: String,
    },
}

/// Puts records where the pipeline reads them.
pub trait RecordSink: Send + Sync + fmt::Debug {
    /// Puts all records. `Ok` only when every one is acknowledged; after an error some may be in, and the caller must
    /// repeat all.
    fn put(&self, records: Vec<Record>) -> BoxFuture<'_, Result<(), SinkError>>;
}
