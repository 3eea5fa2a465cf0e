//! Reads lease rows as they stand, one stream after the other.
//!
//! A row that cannot be read is shown with its problem: one broken row must not hide the others.

use anyhow::Context;
use flowshift_consumer::lease::{LeaseRow, attribute};
use flowshift_consumer::table::TableError;

use crate::command::Failure;
use crate::command::store::Store;

/// A lease row, or what is wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) stream: String,
    /// The lease key: the shard's id.
    pub(super) shard: String,
    pub(super) children: Vec<String>,
    pub(super) row: Result<LeaseRow, String>,
}

impl Lease {
    /// Who may write the row now: the old owner of a hand-over, else the owner.
    pub(super) fn holder(&self) -> Option<&str> {
        let row = self.row.as_ref().ok()?;
        row.checkpoint_owner.as_deref().or(row.owner.as_deref())
    }
}

/// The rows of some streams, by stream in the given order and shard. A table that is not there has none.
pub(super) async fn leases(store: &Store, streams: &[String]) -> Result<Vec<Lease>, Failure> {
    let mut leases = Vec::new();
    for stream in streams {
        let table = store.tables.leases(stream);
        let items = match store.table.scan(&table).await {
            // The first worker of a job makes its tables.
            Err(TableError::NotFound(_)) => continue,
            other => other.with_context(|| format!("lease table {table} of stream {stream} cannot be read"))?,
        };
        let mut of_stream: Vec<Lease> = items
            .iter()
            .filter_map(|item| {
                let row = match LeaseRow::read(item) {
                    Ok(None) => return None,
                    Ok(Some(row)) => Ok(row),
                    Err(error) => Err(error.to_string()),
                };
                Some(Lease {
                    stream: stream.clone(),
                    shard: item.string(attribute::KEY).unwrap_or_default().to_owned(),
                    children: item.strings(attribute::CHILDREN).into_iter().collect(),
                    row,
                })
            })
            .collect();
        of_stream.sort_by(|one, other| one.shard.cmp(&other.shard));
        leases.extend(of_stream);
    }
    Ok(leases)
}
