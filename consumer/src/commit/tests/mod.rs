//! What the commit layer promises, on tables in memory.

mod pages;
mod random;
mod saves;
mod stale;

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{ChunkError, Chunks, Fence, Manifest, STATE_KEY, Saver, Written};
use crate::log::StreamId;
use crate::stage::StatePart;
use crate::table::memory::MemoryTable;
use crate::table::{Table, TableName};

pub(super) fn state_table() -> TableName {
    TableName { name: "state".into(), key: STATE_KEY }
}

pub(super) fn chunks_in(table: Arc<dyn Table>) -> Chunks {
    Chunks::new(table, state_table(), StreamId { name: "flows".into(), created_ms: 7 })
}

pub(super) fn chunks() -> Chunks {
    chunks_in(Arc::new(MemoryTable::default()))
}

pub(super) fn fence(epoch: u64, counter: i64) -> Fence {
    Fence { epoch, counter }
}

/// Bytes that do not compress, the same for a seed.
pub(super) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

pub(super) async fn put(
    saver: &mut Saver,
    saved: Vec<(&str, Vec<u8>)>,
) -> Result<(Manifest, Vec<Written>), ChunkError> {
    let saved = saved.into_iter().map(|(key, bytes)| (key.to_owned(), Bytes::from(bytes))).collect();
    saver.put("1".into(), saved, |_| true, &CancellationToken::new()).await
}

/// Puts and commits.
pub(super) async fn save(saver: &mut Saver, saved: Vec<(&str, Vec<u8>)>) -> (Manifest, Vec<Written>) {
    let done = put(saver, saved).await.unwrap();
    saver.committed();
    done
}

/// Everything a manifest names.
pub(super) async fn restore(chunks: &Chunks, manifest: &Manifest) -> Result<Vec<StatePart>, ChunkError> {
    let mut read = Vec::new();
    for part in chunks.parts(manifest).await? {
        read.push((part.key.clone(), chunks.get(&part).await?));
    }
    Ok(read)
}
