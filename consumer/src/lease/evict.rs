//! Taking a lease from its owner by an operator's hand, as KCL's evict: the owner goes, the counter rises.
//!
//! Safe at any moment: the owner's next write is refused, and the leader assigns the lease anew. Whether the owner
//! still lives is the caller's question; evicting a live one costs a hand-over. A hand-over under way is ended instead:
//! the old owner (`checkpointOwner`) goes, the next one stays.

use super::{LeaseRow, RowError, attribute};
use crate::shard::ShardId;
use crate::table::{Condition, Item, Table, TableError, TableName, Update, Value};

/// How often a write is tried against an owner that keeps renewing.
const TRIES: usize = 20;

/// What an eviction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evicted {
    /// The lease had no owner, or has another one by now; nothing was written.
    Unchanged,
    /// This owner has lost it.
    Owner(String),
    /// The old owner of a hand-over has lost it; the next one takes it.
    OldOwner(String),
}

/// Why a lease cannot be evicted.
#[derive(Debug, thiserror::Error)]
pub enum EvictError {
    /// There is no such row.
    #[error("there is no lease row {0}")]
    NoRow(ShardId),
    /// The row changed each time it was to be written.
    #[error("lease row {0} changes too fast to be written; try again")]
    Busy(ShardId),
    /// The row cannot be read.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The table failed.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Takes a lease from `owner` (the old owner in a hand-over), if it still is its owner.
///
/// # Errors
/// [`EvictError`]; nothing is written then, or it is unknown whether it was ([`TableError::Unavailable`]): look again.
pub async fn evict(table: &dyn Table, leases: &TableName, shard: &ShardId, owner: &str) -> Result<Evicted, EvictError> {
    for _ in 0..TRIES {
        let item = table.get(leases, shard.as_str()).await?.ok_or_else(|| EvictError::NoRow(shard.clone()))?;
        let row = LeaseRow::read(&item)?.ok_or_else(|| EvictError::NoRow(shard.clone()))?;
        let (goes, done) = match (&row.checkpoint_owner, &row.owner) {
            (Some(old), _) if old == owner => (attribute::CHECKPOINT_OWNER, Evicted::OldOwner(old.clone())),
            (None, Some(now)) if now == owner => (attribute::OWNER, Evicted::Owner(now.clone())),
            _ => return Ok(Evicted::Unchanged),
        };
        let as_seen = |name| match item.string(name) {
            None => Condition::Absent(name),
            Some(text) => Condition::Equals(name, Value::string(text)),
        };
        // The counter as seen too: it must never go back.
        let counter = Condition::Equals(attribute::COUNTER, Value::number(row.counter));
        let owners = vec![counter, as_seen(attribute::OWNER), as_seen(attribute::CHECKPOINT_OWNER)];
        let next = Value::number(row.counter.saturating_add(1));
        let update = Update::new().remove(goes).set(attribute::COUNTER, next);
        match table.update(leases, shard.as_str(), update, Condition::All(owners)).await {
            Ok(()) => {
                tracing::warn!(table = %leases, %shard, owner, "an operator took a lease from its owner");
                return Ok(done);
            }
            // Our own write whose answer was lost counts as done.
            Err(TableError::Conflict { current: Some(now) }) if is_ours(&now, row.counter, goes) => return Ok(done),
            Err(TableError::Conflict { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(EvictError::Busy(shard.clone()))
}

fn is_ours(now: &Item, counter: i64, gone: &str) -> bool {
    now.number(attribute::COUNTER) == Some(counter.saturating_add(1)) && now.get(gone).is_none()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::lease::{Checkpoint, new_row};
    use crate::shard::{HashRange, Shard};
    use crate::table::memory::MemoryTable;

    fn leases() -> TableName {
        TableName { name: "leases".into(), key: attribute::KEY }
    }

    async fn row(attributes: &[(&'static str, &str)]) -> Arc<MemoryTable> {
        let memory = Arc::new(MemoryTable::default());
        let shard = Shard { id: ShardId::new("s"), parents: vec![], range: HashRange::ALL, closed: false };
        let mut row = new_row(&shard, &Checkpoint::TrimHorizon, 0);
        for (name, value) in attributes {
            row.set(name, Value::string(*value));
        }
        row.set(attribute::COUNTER, Value::number(7));
        memory.put(&leases(), row, Condition::None).await.unwrap();
        memory
    }

    async fn evict_from(memory: &MemoryTable, owner: &str) -> Evicted {
        tokio::time::timeout(Duration::from_secs(1), evict(memory, &leases(), &ShardId::new("s"), owner))
            .await
            .unwrap()
            .unwrap()
    }

    async fn read(memory: &MemoryTable) -> LeaseRow {
        LeaseRow::read(&memory.get(&leases(), "s").await.unwrap().unwrap()).unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_owner_goes_and_the_counter_rises() {
        let memory = row(&[(attribute::OWNER, "a")]).await;
        assert_eq!(evict_from(&memory, "a").await, Evicted::Owner("a".into()));
        let after = read(&memory).await;
        assert_eq!((after.owner, after.counter), (None, 8));
    }

    #[tokio::test]
    async fn another_owner_is_left_alone() {
        let memory = row(&[(attribute::OWNER, "b")]).await;
        assert_eq!(evict_from(&memory, "a").await, Evicted::Unchanged);
        let after = read(&memory).await;
        assert_eq!((after.owner.as_deref(), after.counter), (Some("b"), 7));
    }

    #[tokio::test]
    async fn a_hand_over_loses_its_old_owner_only() {
        let memory = row(&[(attribute::OWNER, "next"), (attribute::CHECKPOINT_OWNER, "old")]).await;
        assert_eq!(evict_from(&memory, "next").await, Evicted::Unchanged, "the next owner has nothing yet");
        assert_eq!(evict_from(&memory, "old").await, Evicted::OldOwner("old".into()));
        let after = read(&memory).await;
        assert_eq!((after.owner.as_deref(), after.checkpoint_owner, after.counter), (Some("next"), None, 8));
    }
}
