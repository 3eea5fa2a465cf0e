//! A source set that an exchange takes only in parts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::log::{Entry, LogError, Page, ReadToken};
use crate::shard::{Position, SequenceNumber};

/// The exchange takes a few of the lanes' records in every pass: those were put again first, and the others never.
#[tokio::test(start_paused = true)]
async fn a_set_that_takes_several_passes_to_put_is_put_to_every_lane() {
    let mut fleet = Fleet::new(1, |_, row| row).await;
    let narrow = Arc::new(Narrow::default());
    fleet.control.log = narrow.clone();
    for pass in 1..=2 {
        narrow.left.store(1, Ordering::Relaxed);
        let put = fleet.control.tick(&fleet.rows().await, &BTreeSet::new(), &CancellationToken::new()).await;
        assert_eq!(put.is_ok(), pass == 2, "{put:?}");
    }
    assert_eq!(*narrow.taken.lock().unwrap(), BTreeSet::from(["0".to_owned(), "1".to_owned()]));
}

/// A stream that takes so many records, and then none.
#[derive(Debug, Default)]
struct Narrow {
    left: AtomicUsize,
    taken: Mutex<BTreeSet<String>>,
}

#[async_trait::async_trait]
impl Log for Narrow {
    async fn identify(&self, stream: &str) -> Result<StreamId, LogError> {
        Err(LogError::NotFound(stream.to_owned()))
    }
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>, LogError> {
        Err(LogError::NotFound(stream.to_owned()))
    }
    async fn seek(&self, stream: &str, _: &ShardId, _: &Position) -> Result<ReadToken, LogError> {
        Err(LogError::NotFound(stream.to_owned()))
    }
    async fn read(&self, stream: &str, _: &ReadToken) -> Result<Page, LogError> {
        Err(LogError::NotFound(stream.to_owned()))
    }
    async fn append(&self, _: &str, entries: &[Entry]) -> Result<Vec<Result<SequenceNumber, LogError>>, LogError> {
        let answer = |entry: &Entry| {
            let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            left.map_err(|_| LogError::Throttled)?;
            self.taken.lock().unwrap().insert(entry.partition_key.clone());
            SequenceNumber::new("1").ok_or(LogError::Throttled)
        };
        Ok(entries.iter().map(answer).collect())
    }
}
