//! Reading committed state from outside, without holding any lease.
//!
//! What is read is one committed generation per part. A commit going on meanwhile may overwrite a slot that was just
//! named; then the whole read is tried again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::commit::{ChunkError, Chunks, Part, indexed_part};
use crate::lease::{Checkpoint, LeaseRow, RowError};
use crate::log::StreamId;
use crate::run::{Tables, items};
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

/// The parts that a row's manifest names, from the row or its directory; none without a manifest.
///
/// # Errors
/// The table failed, or the directory is missing or damaged.
pub async fn row_parts(
    table: &Arc<dyn Table>,
    tables: &Tables,
    stream: &StreamId,
    row: &LeaseRow,
) -> Result<Vec<Part>, InspectError> {
    let chunks = Chunks::new(Arc::clone(table), tables.state(), stream.clone());
    match &row.manifest {
        None => Ok(Vec::new()),
        Some(manifest) => Ok(chunks.parts(manifest).await?),
    }
}

/// The workers of a job as their own items tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workers {
    /// The beat of each listed worker, by id; none: it has left, or never began. Only a beat that moves says that a
    /// worker lives.
    pub beats: BTreeMap<String, Option<i64>>,
    /// Who held the leader's lock last.
    pub leader: Option<String>,
}

/// Reads the list of workers, their beats and the leader's lock.
///
/// # Errors
/// The table failed.
pub async fn workers(table: &dyn Table, tables: &Tables) -> Result<Workers, InspectError> {
    let state = tables.state();
    let list = table.get(&state, items::WORKERS).await?.map(|item| item.strings("ids")).unwrap_or_default();
    let mut beats = BTreeMap::new();
    for id in list {
        let beat = table.get(&state, &items::worker_key(&id)).await?.and_then(|item| item.number("beat"));
        beats.insert(id, beat);
    }
    let leader = table.get(&state, items::LOCK).await?;
    Ok(Workers { beats, leader: leader.and_then(|item| item.string("owner").map(str::to_owned)) })
}

/// Every committed part of a stream's state, in key order, without its pages. A part that moved to a child shard is
/// taken from there.
///
/// # Errors
/// The table failed, a row is malformed, or state is missing or damaged.
pub async fn parts(table: &Arc<dyn Table>, tables: &Tables, stream: &StreamId) -> Result<Vec<StatePart>, InspectError> {
    let chunks = Chunks::new(Arc::clone(table), tables.state(), stream.clone());
    let mut attempt = 1;
    loop {
        match read(&chunks, &rows(&**table, tables, &stream.name).await?).await {
            Err(e) if e.is_damage() && attempt < ATTEMPTS => attempt += 1,
            other => return Ok(other?),
        }
    }
}

/// The newest of every part that the rows name.
async fn newest(chunks: &Chunks, rows: &[LeaseRow]) -> Result<Vec<Part>, ChunkError> {
    let mut newest: BTreeMap<String, Part> = BTreeMap::new();
    for row in rows {
        let Some(manifest) = &row.manifest else { continue };
        let parts = match chunks.parts(manifest).await {
            // A finished row that is being cleaned up: its lanes went on with its children.
            Err(ChunkError::Missing(_)) if row.checkpoint == Checkpoint::ShardEnd => continue,
            other => other?,
        };
        for part in parts {
            let order = |p: &Part| (p.epoch, p.generation);
            match newest.get(&part.key) {
                Some(known) if order(known) >= order(&part) => {}
                _ => drop(newest.insert(part.key.clone(), part)),
            }
        }
    }
    Ok(newest.into_values().collect())
}

async fn read(chunks: &Chunks, rows: &[LeaseRow]) -> Result<Vec<StatePart>, ChunkError> {
    let mut read = Vec::new();
    for part in newest(chunks, rows).await?.into_iter().filter(|part| indexed_part(&part.key).is_none()) {
        read.push((part.key.clone(), chunks.get(&part).await?));
    }
    Ok(read)
}
