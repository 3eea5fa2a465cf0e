//! Chunks: fenced items of the state table, and frames made of them.
//!
//! A frame is compressed bytes at one place of a part, cut into chunks:
//!
//! | key | what |
//! |---|---|
//! | `STREAM:CREATED/PART/A/INDEX`, `…/B/INDEX` | the two places of a base |
//! | `STREAM:CREATED/PART/d07/INDEX` | delta slots 0 to 46 |
//! | `STREAM:CREATED/PART/page/NAME/VERSION/INDEX` | an immutable page |
//!
//! Attributes: `e`, `c` fence; `g` generation; `d` bytes; and since version 2 `p` the generation a delta patches (else
//! 0), `n` chunks of the frame, `l` and `x` length and CRC-32 of the plain bytes.
//! Invariant: a put is accepted when the place is empty, or holds an older fence, or the same fence and no later
//! generation (the owner repeating itself). Read next: [`super::part`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Fence, STATE_KEY};
use crate::log::StreamId;
use crate::table::{Condition, Item, Table, TableError, TableName, Value};

/// Bytes of one chunk: well below an item's 400 KB, so that a part spreads over partitions.
const CHUNK_BYTES: usize = 96 * 1024;
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often a read is tried before its error counts.
const READS: usize = 50;

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

impl ChunkError {
    pub(super) fn damaged(key: &str, what: impl ToString) -> Self {
        Self::Damaged { key: key.to_owned(), what: what.to_string() }
    }

    /// Whether what is stored is not what was committed: trying again reads the same.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Damaged { .. })
    }
}

/// What a frame's chunks say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) fence: Fence,
    pub(super) generation: u64,
    /// Generation of the bytes it patches; 0: it stands for itself.
    pub(super) before: u64,
    /// Length of the plain bytes it leads to.
    pub(super) length: u64,
    /// CRC-32 of them.
    pub(super) crc: u32,
}

impl Stamp {
    pub(super) fn of(plain: &[u8], fence: Fence, generation: u64, before: u64) -> Self {
        Self { fence, generation, before, length: plain.len() as u64, crc: crc32fast::hash(plain) }
    }
}

/// Reads and writes the parts of one stream's state.
#[derive(Debug, Clone)]
pub struct Chunks {
    table: Arc<dyn Table>,
    name: TableName,
    stream: StreamId,
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// That what stands there was written under this fence or an older one.
fn not_later(fence: Fence) -> Condition {
    let epoch = signed(fence.epoch);
    Condition::Any(vec![
        Condition::Below("e", epoch),
        Condition::All(vec![Condition::Equals("e", Value::number(epoch)), Condition::AtMost("c", fence.counter)]),
    ])
}

impl Chunks {
    /// Parts of `stream` in the state table `name`.
    pub fn new(table: Arc<dyn Table>, name: TableName, stream: StreamId) -> Self {
        Self { table, name, stream }
    }

    pub(super) fn key(&self, part: &str, place: &str, index: u32) -> String {
        format!("{}/{part}/{place}/{index}", self.stream)
    }

    /// Writes a frame, chunk by chunk, and says how many. Nothing refers to it until a commit does.
    pub(super) async fn put_frame(
        &self,
        part: &str,
        place: &str,
        stamp: Stamp,
        packed: &[u8],
        stop: &CancellationToken,
    ) -> Result<u32, ChunkError> {
        let Fence { epoch, counter } = stamp.fence;
        let (epoch, generation) = (signed(epoch), signed(stamp.generation));
        let same = |name, value: i64| Condition::Equals(name, Value::number(value));
        let allowed = Condition::Any(vec![
            Condition::Absent(STATE_KEY),
            Condition::Below("e", epoch),
            Condition::All(vec![same("e", epoch), Condition::Below("c", counter)]),
            Condition::All(vec![same("e", epoch), same("c", counter), Condition::AtMost("g", generation)]),
        ]);
        let pieces = packed.chunks(CHUNK_BYTES);
        let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        for (index, piece) in (0u32..).zip(pieces) {
            let item = Item::new()
                .with(STATE_KEY, Value::string(self.key(part, place, index)))
                .with("e", Value::number(epoch))
                .with("c", Value::number(counter))
                .with("g", Value::number(generation))
                .with("p", Value::number(signed(stamp.before)))
                .with("n", Value::number(count))
                .with("l", Value::number(signed(stamp.length)))
                .with("x", Value::number(stamp.crc))
                .with("d", Value::B(Bytes::copy_from_slice(piece)));
            self.put_chunk(item, &allowed, stop).await?;
        }
        Ok(count)
    }

    async fn put_chunk(&self, item: Item, allowed: &Condition, stop: &CancellationToken) -> Result<(), ChunkError> {
        loop {
            match self.table.put(&self.name, item.clone(), allowed.clone()).await {
                Ok(()) => return Ok(()),
                Err(TableError::Conflict { .. }) => {
                    return Err(ChunkError::Fenced(item.string(STATE_KEY).unwrap_or_default().to_owned()));
                }
                Err(e) if e.is_retryable() => tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(ChunkError::Cancelled),
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                },
                Err(e) => return Err(ChunkError::Table(e)),
            }
        }
    }

    /// Reads the frame at a place; `chunks`: how many it has, if the caller knows. The chunks must all be of one frame,
    /// written under `fence`.
    pub(super) async fn read_frame(
        &self,
        part: &str,
        place: &str,
        fence: Fence,
        chunks: Option<u32>,
    ) -> Result<(Stamp, Vec<u8>), ChunkError> {
        let mut frame: Option<(Stamp, Vec<u8>)> = None;
        let mut count = chunks.unwrap_or(1);
        let mut index = 0;
        while index < count {
            let key = self.key(part, place, index);
            let item = self.read(&key).await?.ok_or_else(|| ChunkError::Missing(key.clone()))?;
            let number = |name| item.number(name).unwrap_or_default();
            let unsigned = |name| u64::try_from(number(name)).unwrap_or_default();
            let written = Fence { epoch: unsigned("e"), counter: number("c") };
            if written != fence {
                return Err(ChunkError::damaged(&key, format!("written under {written:?}, expected {fence:?}")));
            }
            let stamp = Stamp {
                fence,
                generation: unsigned("g"),
                before: unsigned("p"),
                length: unsigned("l"),
                crc: u32::try_from(number("x")).unwrap_or_default(),
            };
            let (first, packed) = frame.get_or_insert_with(|| (stamp, Vec::new()));
            if *first != stamp {
                return Err(ChunkError::damaged(&key, format!("is of {stamp:?}, chunk 0 of {first:?}")));
            }
            if chunks.is_none() && index == 0 {
                count = u32::try_from(number("n")).unwrap_or_default();
            }
            packed.extend_from_slice(item.bytes("d").map(|b| b.as_ref()).unwrap_or_default());
            index += 1;
        }
        frame.ok_or_else(|| ChunkError::damaged(part, format!("{place} has no chunks")))
    }

    async fn read(&self, key: &str) -> Result<Option<Item>, ChunkError> {
        for _ in 0..READS {
            match self.table.get(&self.name, key).await {
                Err(e) if e.is_retryable() => tokio::time::sleep(RETRY_PAUSE).await,
                other => return Ok(other?),
            }
        }
        Ok(self.table.get(&self.name, key).await?)
    }

    /// Deletes a frame, unless someone later than `fence` wrote there. Says how many chunks there were.
    pub(super) async fn delete_frame(&self, part: &str, place: &str, fence: Fence) -> Result<u64, ChunkError> {
        let mut deleted = 0;
        for index in 0u32.. {
            let key = self.key(part, place, index);
            let mut tries = 0;
            loop {
                match self.table.delete(&self.name, &key, not_later(fence)).await {
                    Ok(()) => break deleted += 1,
                    // Gone already by a delete whose answer was lost.
                    Err(TableError::Conflict { current: None }) if tries > 0 => break deleted += 1,
                    Err(TableError::Conflict { .. }) => return Ok(deleted),
                    Err(e) if e.is_retryable() && tries < READS => {
                        tries += 1;
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(deleted)
    }
}
