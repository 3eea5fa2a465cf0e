//! The workers' way to the streams, on which puts can be refused and listings can be incomplete.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Entry, Log, LogError, Page, ReadToken, StreamId};
use flowshift_consumer::shard::{Position, SequenceNumber, Shard, ShardId};

/// A log in memory that takes nothing while `refuses` is set and lists no shard that has parents while `childless` is.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) refuses: Arc<AtomicBool>,
    pub(crate) childless: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl Log for Port {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        self.log.identify(stream).await
    }
    async fn retention(&self, stream: &str) -> Result<Duration, LogError> {
        self.log.retention(stream).await
    }
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        let mut shards = self.log.shards(stream).await?;
        shards.retain(|shard| shard.parents.is_empty() || !self.childless.load(Ordering::Relaxed));
        Ok(shards)
    }
    async fn seek(&self, stream: &str, shard: &ShardId, position: &Position) -> Result<ReadToken, LogError> {
        self.log.seek(stream, shard, position).await
    }
    async fn read(&self, stream: &str, token: &ReadToken) -> Result<Page, LogError> {
        self.log.read(stream, token).await
    }
    async fn append(&self, stream: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        if self.refuses.load(Ordering::Relaxed) {
            Err(LogError::Throttled)
        } else {
            self.log.append(stream, entries).await
        }
    }
}
