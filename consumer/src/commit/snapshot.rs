//! Snapshots: what a batch's result depends on besides its records and the stage's state.
//!
//! Stored under the hash of their content before any cut names them, and never changed, so that a batch can be
//! recomputed after the configuration moved on.

use std::sync::Arc;

use bytes::Bytes;

use super::STATE_KEY;
use crate::table::{Condition, Item, Table, TableError, TableName, Value};

const CHUNK_BYTES: usize = 300 * 1024;

/// Why a snapshot cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A cut names it, but it is not in the state table.
    #[error("snapshot {0} is missing from the state table")]
    Missing(String),
    /// The stored bytes do not have the hash they are stored under.
    #[error("snapshot {0} is damaged")]
    Damaged(String),
    /// The table failed.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A snapshot's bytes and the hash of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    hash: String,
    bytes: Bytes,
}

impl Snapshot {
    /// Names the bytes by their xxh3-128 hash.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { hash: format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes)), bytes }
    }

    /// The hash, 32 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Stored snapshots.
#[derive(Debug, Clone)]
pub struct Snapshots {
    table: Arc<dyn Table>,
    name: TableName,
}

impl Snapshots {
    /// In the state table `name`.
    pub fn new(table: Arc<dyn Table>, name: TableName) -> Self {
        Self { table, name }
    }

    /// Stores a snapshot; storing it again changes nothing.
    ///
    /// # Errors
    /// The table failed.
    pub async fn store(&self, snapshot: &Snapshot) -> Result<(), TableError> {
        // One piece at least: nothing stored would be nothing to find.
        let rest = snapshot.bytes.len().min(CHUNK_BYTES);
        let (first, rest) = snapshot.bytes.split_at(rest);
        let pieces: Vec<&[u8]> = std::iter::once(first).chain(rest.chunks(CHUNK_BYTES)).collect();
        // The first piece says how many there are and is put last: seeing it means all are there.
        for (index, piece) in pieces.iter().enumerate().rev() {
            let item = Item::new()
                .with(STATE_KEY, Value::string(format!("snapshot/{}/{index}", snapshot.hash)))
                .with("pieces", Value::number(pieces.len() as i128))
                .with("d", Value::B(Bytes::copy_from_slice(piece)));
            match self.table.put(&self.name, item, Condition::Absent(STATE_KEY)).await {
                Ok(()) | Err(TableError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads a snapshot back.
    ///
    /// # Errors
    /// It is missing or damaged, or the table failed.
    pub async fn load(&self, hash: &str) -> Result<Snapshot, SnapshotError> {
        let missing = || SnapshotError::Missing(hash.to_owned());
        let mut bytes = Vec::new();
        let mut index = 0;
        loop {
            let item = self.table.get(&self.name, &format!("snapshot/{hash}/{index}")).await?;
            let item = item.ok_or_else(missing)?;
            bytes.extend_from_slice(item.bytes("d").map(|b| b.as_ref()).unwrap_or_default());
            index += 1;
            if index >= item.number("pieces").unwrap_or_default() {
                break;
            }
        }
        let snapshot = Snapshot::new(bytes);
        if snapshot.hash == hash { Ok(snapshot) } else { Err(SnapshotError::Damaged(hash.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Tables;
    use crate::table::memory::MemoryTable;

    /// Nothing was stored of an empty one: a batch that was cut with it could not be made again, and its shard stood
    /// still.
    #[tokio::test]
    async fn what_was_stored_is_read_back_also_when_it_is_empty_or_of_several_pieces() {
        let snapshots = Snapshots::new(Arc::new(MemoryTable::default()), Tables::new("test").state());
        for bytes in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let snapshot = Snapshot::new((0..bytes).map(|i| (i % 251) as u8).collect::<Vec<u8>>());
            assert!(matches!(snapshots.load(snapshot.hash()).await, Err(SnapshotError::Missing(_))), "{bytes} bytes");
            for _ in 0..2 {
                snapshots.store(&snapshot).await.unwrap();
                assert_eq!(snapshots.load(snapshot.hash()).await.unwrap(), snapshot, "{bytes} bytes");
            }
        }
    }
}
