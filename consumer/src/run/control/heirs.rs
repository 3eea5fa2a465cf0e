//! What a child counts as before anybody has read it: what its parents were when they ended.
//!
//! Lanes wait for a child at its parents' ends, so where all its parents counted, it counts; otherwise lanes may have
//! gone past them, and it asks first, like any source that was out. What parents are is settled by their ends and not
//! before: one that was out when its shard was split may come back to its backlog. So the status in a child's row means
//! nothing until it is taken over: by the leader, once all parents have ended, or by the child's first owner
//! ([`crate::run::map_claim`]), whoever comes first; the other one's write fails then. From there on the row says by
//! itself what the source is. What lanes were told to be out asks in any case. Invariant: nobody changes the status of
//! a row that has cut its END, so all who take it over find the same.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;

use super::{SourceControl, all, has_ended, out_in};
use crate::exchange::Status;
use crate::lease::{Checkpoint, LeaseRow, attribute};
use crate::run::DriveError;
use crate::shard::ShardId;
use crate::table::{Condition, TableError, Update, Value};

/// What the child of these sources counts as; none without any.
pub(crate) fn inherited<'a>(parents: impl IntoIterator<Item = &'a LeaseRow>) -> Option<[Status; 4]> {
    let mut parents = parents.into_iter().map(|parent| parent.status).peekable();
    parents.peek()?;
    Some(parents.fold([Status::Live; 4], |child, parent| {
        std::array::from_fn(|kind| if parent[kind] == Status::Live { child[kind] } else { Status::Idle })
    }))
}

/// A status, but out for these kinds.
pub(crate) fn out_where(status: [Status; 4], out: [bool; 4]) -> [Status; 4] {
    std::array::from_fn(|kind| if out[kind] { Status::Idle } else { status[kind] })
}

/// Whether the status of the row is its own.
pub(super) fn is_settled(row: &LeaseRow) -> bool {
    row.heir || row.epoch.is_some()
}

/// The rows of these shards that there are.
fn found<'a>(rows: &BTreeMap<&ShardId, &'a LeaseRow>, shards: &[ShardId]) -> Vec<&'a LeaseRow> {
    shards.iter().filter_map(|shard| rows.get(shard).copied()).collect()
}

impl SourceControl {
    /// The rows, each with the status that it counts as from the first END of a parent on. Before it counts as nothing:
    /// in no set, and with no watermark.
    pub(super) fn as_they_count<'a>(&self, rows: &'a [LeaseRow]) -> Cow<'a, [LeaseRow]> {
        let by_id: BTreeMap<&ShardId, &LeaseRow> = rows.iter().map(|row| (&row.shard, row)).collect();
        let mut counting = Cow::Borrowed(rows);
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| !is_settled(row)) {
            let ended = found(&by_id, &row.parents).into_iter().filter(|parent| has_ended(parent));
            if let Some(status) = self.heir(row, ended).filter(|status| *status != row.status) {
                counting.to_mut()[index].status = status;
            }
        }
        counting
    }

    /// As its parents say, and as lanes were told: a leader of an older version named it by what its row said.
    fn heir<'a>(&self, row: &LeaseRow, parents: impl IntoIterator<Item = &'a LeaseRow>) -> Option<[Status; 4]> {
        let told_out = out_in(self.committed.as_ref(), &self.source(row));
        inherited(parents).map(|status| out_where(status, told_out))
    }

    /// Writes into the rows of children whose parents have all ended what they count as, unless that is done. A child
    /// of a parent that cannot be read waits.
    pub(super) async fn settle_heirs(
        &self,
        rows: &[LeaseRow],
        unreadable: &BTreeSet<ShardId>,
    ) -> Result<(), DriveError> {
        if rows.iter().all(|row| is_settled(row) || row.parents.is_empty()) {
            return Ok(());
        }
        let by_id: BTreeMap<&ShardId, &LeaseRow> = rows.iter().map(|row| (&row.shard, row)).collect();
        let heirs = rows.iter().filter(|row| !is_settled(row) && row.checkpoint != Checkpoint::ShardEnd);
        let heirs = heirs.filter(|row| !row.parents.iter().any(|parent| unreadable.contains(parent)));
        let heirs = heirs.filter_map(|row| {
            let parents = found(&by_id, &row.parents);
            let ended = parents.iter().all(|parent| parent.checkpoint == Checkpoint::ShardEnd);
            self.heir(row, parents).filter(|_| ended).map(|status| self.settle_heir(row, status).boxed())
        });
        all(heirs.collect()).await
    }

    async fn settle_heir(&self, row: &LeaseRow, status: [Status; 4]) -> Result<(), DriveError> {
        let update = with_status(Update::new().set(attribute::HEIR, Value::number(1)), status);
        let condition = Condition::All(vec![
            Condition::Exists(attribute::KEY),
            Condition::Absent(attribute::EPOCH),
            Condition::Absent(attribute::HEIR),
        ]);
        match self.table.update(&self.leases, row.shard.as_str(), update, condition).await {
            // Its first owner was there before, or another leader.
            Ok(()) | Err(TableError::Conflict { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Also sets the status of every kind.
pub(crate) fn with_status(update: Update, status: [Status; 4]) -> Update {
    let kinds = attribute::STATUS.into_iter().zip(status);
    kinds.fold(update, |update, (name, status)| update.set(name, Value::number(status.code())))
}
