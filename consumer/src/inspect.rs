//! Reading committed state from outside, without holding any lease.
//!
//! What is read is one committed generation per part. A commit going on meanwhile may overwrite a slot that was just
//! named; then the row is read again, and what it names by now. Only what is damaged while its row stays the same is
//! damage; what is overtaken at every try is told as that ([`InspectError::Overtaken`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::commit::{ChunkError, Chunks, Manifest, Part, indexed_part};
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
    /// It was committed anew at each try, before it was read.
    #[error("state of shard {shard} was committed anew during each of {ATTEMPTS} reads; try again")]
    Overtaken {
        /// The shard.
        shard: String,
    },
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

/// The parts that a row's manifest names, from the row or its directory; none without a manifest. When a commit has
/// overtaken `row`, those that the row names by then.
///
/// # Errors
/// The table failed, the directory is missing or damaged, or commits overtook every try.
pub async fn row_parts(
    table: &Arc<dyn Table>,
    tables: &Tables,
    stream: &StreamId,
    row: &LeaseRow,
) -> Result<Vec<Part>, InspectError> {
    let chunks = Chunks::new(Arc::clone(table), tables.state(), stream.clone());
    let mut seen = Seen { table: &**table, tables, stream, shard: row.shard.as_str(), manifest: row.manifest.clone() };
    for _ in 0..ATTEMPTS {
        let Some(manifest) = &seen.manifest else { return Ok(Vec::new()) };
        match chunks.parts(manifest).await {
            Err(error) if error.is_damage() => seen.look_again(error).await?,
            other => return Ok(other?),
        }
    }
    Err(seen.overtaken())
}

/// Reads a part of a row by `read`, which is given the part. When a commit has overtaken it, the part as the row names
/// it by then is read; which one it was is returned.
///
/// # Errors
/// As `read`, or commits overtook every try.
pub async fn read_part<T>(
    table: &Arc<dyn Table>,
    tables: &Tables,
    stream: &StreamId,
    row: &LeaseRow,
    part: &Part,
    read: impl AsyncFn(&Part) -> Result<T, ChunkError>,
) -> Result<(Part, T), InspectError> {
    let chunks = Chunks::new(Arc::clone(table), tables.state(), stream.clone());
    let mut seen = Seen { table: &**table, tables, stream, shard: row.shard.as_str(), manifest: row.manifest.clone() };
    let mut part = part.clone();
    for _ in 0..ATTEMPTS {
        let error = match read(&part).await {
            Err(error) if error.is_damage() => error,
            other => return Ok((part, other?)),
        };
        // The caller may know the part from a manifest that was the row's after the one in `row`.
        let parts = match &seen.manifest {
            Some(manifest) => chunks.parts(manifest).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let named = |parts: Vec<Part>| parts.into_iter().find(|other| other.key == part.key);
        if let Some(newer) = named(parts).filter(|newer| *newer != part) {
            part = newer;
            continue;
        }
        seen.look_again(error).await?;
    }
    Err(seen.overtaken())
}

/// What was last seen of a row.
struct Seen<'a> {
    table: &'a dyn Table,
    tables: &'a Tables,
    stream: &'a StreamId,
    shard: &'a str,
    manifest: Option<Manifest>,
}

impl Seen<'_> {
    /// Reads the row anew after `error`; the error stands when the row names what it named before.
    async fn look_again(&mut self, error: ChunkError) -> Result<(), InspectError> {
        let item = self.table.get(&self.tables.leases(&self.stream.name), self.shard).await?;
        let row = item.map(|item| LeaseRow::read(&item)).transpose()?.flatten();
        let manifest = row.and_then(|row| row.manifest);
        // A row that is gone was cleaned up: what it named went with it.
        if manifest.is_none() || manifest == self.manifest {
            return Err(error.into());
        }
        self.manifest = manifest;
        Ok(())
    }

    fn overtaken(&self) -> InspectError {
        InspectError::Overtaken { shard: format!("{}/{}", self.stream.name, self.shard) }
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

#[cfg(test)]
mod tests;
