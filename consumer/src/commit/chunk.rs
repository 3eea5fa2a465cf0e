//! State chunks: compressed, checksummed, fenced items in the state table.
//!
//! Key: `STREAM:CREATED/KEY/SLOT/INDEX` with slot `A` for odd and `B` for even generations. A put is accepted when the
//! slot is empty, or holds an older fence, or the same fence and no later generation (the owner repeating itself).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Fence, Part, STATE_KEY};
use crate::log::StreamId;
use crate::table::{Condition, Item, Table, TableError, TableName, Value};

/// Bytes of one chunk: well below an item's 400 KB, so that a part spreads over partitions.
const CHUNK_BYTES: usize = 96 * 1024;
/// A part larger than this is a fault, not a state.
const MAX_PART_BYTES: u64 = 1 << 30;
const LEVEL: i32 = 1;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why chunks could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// A later owner has written here: the lease is gone.
    #[error("chunk {0} was written by a later owner")]
    Fenced(String),
    /// A chunk the manifest names is not there.
    #[error("chunk {0} is missing")]
    Missing(String),
    /// What is there is not what the manifest says.
    #[error("chunk {key}: {what}")]
    Damaged {
        /// The chunk or part.
        key: String,
        /// What differs.
        what: String,
    },
    /// The caller gave up before the table answered.
    #[error("cancelled")]
    Cancelled,
    /// The table failed for good.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Reads and writes the parts of one stream's state.
#[derive(Debug, Clone)]
pub struct Chunks {
    table: Arc<dyn Table>,
    name: TableName,
    stream: StreamId,
}

impl Chunks {
    /// Parts of `stream` in the state table `name`.
    pub fn new(table: Arc<dyn Table>, name: TableName, stream: StreamId) -> Self {
        Self { table, name, stream }
    }

    fn key(&self, part: &str, generation: u64, index: u32) -> String {
        let slot = if generation % 2 == 1 { 'A' } else { 'B' };
        format!("{}/{part}/{slot}/{index}", self.stream)
    }

    /// Writes a part under its next generation; nothing refers to it until a commit does.
    ///
    /// # Errors
    /// [`ChunkError::Fenced`] when a later owner has been here; otherwise it retries until `stop` is cancelled.
    pub async fn put(
        &self,
        key: &str,
        generation: u64,
        fence: Fence,
        plain: &[u8],
        stop: &CancellationToken,
    ) -> Result<Part, ChunkError> {
        let packed = zstd::bulk::compress(plain, LEVEL)
            .map_err(|e| ChunkError::Damaged { key: key.to_owned(), what: e.to_string() })?;
        let mut chunks = 0;
        for piece in packed.chunks(CHUNK_BYTES) {
            self.put_chunk(&self.key(key, generation, chunks), generation, fence, piece, stop).await?;
            chunks += 1;
        }
        Ok(Part {
            key: key.to_owned(),
            generation,
            chunks,
            crc: crc32fast::hash(plain),
            length: plain.len() as u64,
            epoch: fence.epoch,
            counter: fence.counter,
        })
    }

    async fn put_chunk(
        &self,
        key: &str,
        generation: u64,
        fence: Fence,
        data: &[u8],
        stop: &CancellationToken,
    ) -> Result<(), ChunkError> {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (epoch, generation) = (signed(fence.epoch), signed(generation));
        let item = Item::new()
            .with(STATE_KEY, Value::string(key))
            .with("e", Value::number(epoch))
            .with("c", Value::number(fence.counter))
            .with("g", Value::number(generation))
            .with("d", Value::B(Bytes::copy_from_slice(data)));
        let same_epoch = || Condition::Equals("e", Value::number(epoch));
        let allowed = Condition::Any(vec![
            Condition::Absent(STATE_KEY),
            Condition::Below("e", epoch),
            Condition::All(vec![same_epoch(), Condition::Below("c", fence.counter)]),
            Condition::All(vec![
                same_epoch(),
                Condition::Equals("c", Value::number(fence.counter)),
                Condition::AtMost("g", generation),
            ]),
        ]);
        loop {
            match self.table.put(&self.name, item.clone(), allowed.clone()).await {
                Ok(()) => return Ok(()),
                Err(TableError::Conflict { .. }) => return Err(ChunkError::Fenced(key.to_owned())),
                Err(e) if e.is_retryable() => tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(ChunkError::Cancelled),
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                },
                Err(e) => return Err(ChunkError::Table(e)),
            }
        }
    }

    /// Reads a committed part and proves it.
    ///
    /// # Errors
    /// [`ChunkError::Missing`] or [`ChunkError::Damaged`] when the state is not what the manifest names.
    pub async fn get(&self, part: &Part) -> Result<Bytes, ChunkError> {
        let damaged = |key: &str, what: String| ChunkError::Damaged { key: key.to_owned(), what };
        if part.length > MAX_PART_BYTES {
            return Err(damaged(&part.key, format!("{} bytes is beyond any state", part.length)));
        }
        let mut packed = Vec::new();
        for index in 0..part.chunks {
            let key = self.key(&part.key, part.generation, index);
            let item = self.read(&key).await?.ok_or_else(|| ChunkError::Missing(key.clone()))?;
            let generation = item.number("g").and_then(|g| u64::try_from(g).ok());
            if generation != Some(part.generation) {
                return Err(damaged(&key, format!("generation {generation:?}, expected {}", part.generation)));
            }
            packed.extend_from_slice(item.bytes("d").map(|b| b.as_ref()).unwrap_or_default());
        }
        let capacity = usize::try_from(part.length).unwrap_or(usize::MAX);
        let plain = zstd::bulk::decompress(&packed, capacity).map_err(|e| damaged(&part.key, e.to_string()))?;
        if plain.len() as u64 != part.length || crc32fast::hash(&plain) != part.crc {
            return Err(damaged(&part.key, "length or checksum differs from the manifest".into()));
        }
        Ok(Bytes::from(plain))
    }

    async fn read(&self, key: &str) -> Result<Option<Item>, ChunkError> {
        for _ in 0..50 {
            match self.table.get(&self.name, key).await {
                Err(e) if e.is_retryable() => tokio::time::sleep(RETRY_PAUSE).await,
                other => return Ok(other?),
            }
        }
        Ok(self.table.get(&self.name, key).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::memory::MemoryTable;

    fn chunks() -> Chunks {
        let stream = StreamId { name: "flows".into(), created_ms: 7 };
        let name = TableName { name: "state".into(), key: STATE_KEY };
        Chunks::new(Arc::new(MemoryTable::default()), name, stream)
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    }

    #[tokio::test]
    async fn a_part_of_many_chunks_comes_back_and_an_empty_one_too() {
        let (chunks, stop) = (chunks(), CancellationToken::new());
        let fence = Fence { epoch: 1, counter: 1 };
        for plain in [noise(500_000), Vec::new()] {
            let part = chunks.put("lane-1", 1, fence, &plain, &stop).await.unwrap();
            assert_eq!(chunks.get(&part).await.unwrap(), plain);
        }
    }

    #[tokio::test]
    async fn an_older_owner_cannot_write_over_a_later_one() {
        let (chunks, stop) = (chunks(), CancellationToken::new());
        let put = |epoch, counter, generation| {
            let chunks = chunks.clone();
            let stop = stop.clone();
            async move { chunks.put("lane-1", generation, Fence { epoch, counter }, b"x", &stop).await }
        };
        put(1, 5, 3).await.unwrap();
        put(1, 5, 3).await.unwrap();
        assert!(matches!(put(1, 4, 3).await, Err(ChunkError::Fenced(_))), "older counter");
        assert!(matches!(put(1, 5, 1).await, Err(ChunkError::Fenced(_))), "older generation");
        put(2, 1, 1).await.unwrap();
        assert!(matches!(put(1, 9, 9).await, Err(ChunkError::Fenced(_))), "older epoch");
    }

    #[tokio::test]
    async fn a_slot_written_again_is_not_taken_for_the_committed_one() {
        let (chunks, stop) = (chunks(), CancellationToken::new());
        let fence = Fence { epoch: 1, counter: 1 };
        let first = chunks.put("lane-1", 1, fence, b"one", &stop).await.unwrap();
        chunks.put("lane-1", 3, fence, b"three", &stop).await.unwrap();
        assert!(matches!(chunks.get(&first).await, Err(ChunkError::Damaged { .. })));
    }
}
