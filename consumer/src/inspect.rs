//! Reading committed state from outside, without holding any lease.
//!
//! What is read is one committed generation per part. A commit going on meanwhile may overwrite a slot that was just
//! named; then the whole read is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::commit::{ChunkError, Chunks, Part};
use crate::lease::{LeaseRow, RowError};
use crate::log::StreamId;
use crate::run::Tables;
use crate::stage::StatePart;
use crate::table::{Table, TableError};

const ATTEMPTS: usize = 20;

/// Why committed state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The table failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A lease row is malformed.
    #[error(transparent)]
    Row(#[from] RowError),
    /// State is missing or damaged.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// The lease rows of a stream, by shard.
///
/// # Errors
/// The table failed or a row is malformed.
pub async fn rows(table: &dyn Table, tables: &Tables, stream: &str) -> Result<Vec<LeaseRow>, InspectError> {
    let mut rows = Vec::new();
    for item in table.scan(&tables.leases(stream)).await? {
        rows.extend(LeaseRow::read(&item)?);
    }
    rows.sort_by(|a, b| a.shard.cmp(&b.shard));
    Ok(rows)
}

/// Every committed part of a stream's state, in key order. A part that moved to a child shard is taken from there.
///
/// # Errors
/// The table failed, a row is malformed, or state is missing or damaged.
pub async fn parts(table: &Arc<dyn Table>, tables: &Tables, stream: &StreamId) -> Result<Vec<StatePart>, InspectError> {
    let chunks = Chunks::new(Arc::clone(table), tables.state(), stream.clone());
    let mut attempt = 1;
    loop {
        match read(&chunks, &newest(&rows(&**table, tables, &stream.name).await?)).await {
            Err(ChunkError::Damaged { .. }) if attempt < ATTEMPTS => attempt += 1,
            other => return Ok(other?),
        }
    }
}

fn newest(rows: &[LeaseRow]) -> Vec<Part> {
    let mut newest: BTreeMap<String, Part> = BTreeMap::new();
    for part in rows.iter().filter_map(|row| row.manifest.as_ref()).flat_map(|m| m.parts.iter()) {
        let order = |p: &Part| (p.epoch, p.generation);
        let slot = newest.entry(part.key.clone()).or_insert_with(|| part.clone());
        if order(part) > order(slot) {
            *slot = part.clone();
        }
    }
    newest.into_values().collect()
}

async fn read(chunks: &Chunks, parts: &[Part]) -> Result<Vec<StatePart>, ChunkError> {
    let mut read = Vec::new();
    for part in parts {
        read.push((part.key.clone(), chunks.get(part).await?));
    }
    Ok(read)
}
