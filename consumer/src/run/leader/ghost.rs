//! Rows that should not be: a first row whose put landed when its shard was long consumed and its row deleted.
//!
//! A put whose answer was lost is still on its way for a while. Landing late it makes the row of a consumed shard
//! again, and whoever read that would find the shard gone and tell its lanes of a loss that never happened. Such a row
//! gives itself away: somebody works on a part of its hash range who is none of its ancestors, and no child begins
//! before its parents have ended. It gets no owner and counts for nothing, and goes with the next clean-up.
//! Invariant: a row that anybody ever owned or committed to is no ghost.

use std::collections::{BTreeMap, BTreeSet};

use crate::lease::{Checkpoint, LeaseRow};
use crate::shard::ShardId;

/// Shards of the rows that should not be.
pub(super) fn ghosts(rows: &[LeaseRow]) -> BTreeSet<ShardId> {
    let fresh: Vec<&LeaseRow> = rows.iter().filter(|row| is_fresh(row)).collect();
    let begun: Vec<&LeaseRow> = rows.iter().filter(|row| row.manifest.is_some() || row.cut.is_some()).collect();
    if fresh.is_empty() || begun.is_empty() {
        return BTreeSet::new();
    }
    let by_id: BTreeMap<&ShardId, &LeaseRow> = rows.iter().map(|row| (&row.shard, row)).collect();
    let is_ghost = |row: &&LeaseRow| {
        let mut overlapping = begun.iter().filter(|other| overlap(row, other)).peekable();
        if overlapping.peek().is_none() {
            return false;
        }
        let older = ancestors(row, &by_id);
        overlapping.any(|other| !older.contains(&other.shard))
    };
    fresh.into_iter().filter(is_ghost).map(|row| row.shard.clone()).collect()
}

/// Whether nobody ever had the row.
fn is_fresh(row: &LeaseRow) -> bool {
    let unowned = row.owner.is_none() && row.checkpoint_owner.is_none() && row.assigned.is_none();
    let unread = matches!(row.checkpoint, Checkpoint::TrimHorizon | Checkpoint::AtTimestamp);
    unowned && unread && row.manifest.is_none() && row.cut.is_none() && row.epoch.is_none()
}

fn overlap(a: &LeaseRow, b: &LeaseRow) -> bool {
    a.shard != b.shard && a.range.start <= b.range.end && b.range.start <= a.range.end
}

/// Ancestors that have rows; those of a row nobody began all have theirs, up to the ones that are read.
fn ancestors<'a>(row: &'a LeaseRow, by_id: &BTreeMap<&ShardId, &'a LeaseRow>) -> BTreeSet<&'a ShardId> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&ShardId> = row.parents.iter().collect();
    while let Some(id) = next.pop() {
        if found.insert(id) {
            next.extend(by_id.get(id).into_iter().flat_map(|parent| &parent.parents));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Manifest;
    use crate::lease::{attribute, new_row};
    use crate::shard::{HashRange, Shard};
    use crate::table::{Item, Value};

    fn row(id: &str, parents: &[&str], range: (u128, u128), change: impl FnOnce(Item) -> Item) -> LeaseRow {
        let parents = parents.iter().map(|id| ShardId::new(*id)).collect();
        let range = HashRange { start: range.0, end: range.1 };
        let shard = Shard { id: ShardId::new(id), parents, range, closed: false };
        LeaseRow::read(&change(new_row(&shard, &Checkpoint::TrimHorizon, 0))).unwrap().unwrap()
    }

    fn committed(item: Item) -> Item {
        item.with(attribute::MANIFEST, Value::B(Manifest::new("TRIM_HORIZON".into(), vec![]).encode_bytes()))
    }

    fn of(rows: &[LeaseRow]) -> Vec<String> {
        ghosts(rows).iter().map(ToString::to_string).collect()
    }

    /// It was assigned and found gone, and every lane was told of a loss that never happened.
    #[test]
    fn a_first_row_under_the_feet_of_its_descendants_is_a_ghost() {
        let late = || row("0", &[], (0, 9), |item| item);
        let child = || row("1", &["0"], (0, 4), committed);
        let grandchild = row("3", &["1"], (2, 4), committed);
        assert_eq!(of(&[late(), child()]), ["0"]);
        assert_eq!(of(&[late(), grandchild]), ["0"], "also when its children's rows are deleted");
        let owned = row("0", &[], (0, 9), |item| item.with(attribute::OWNER, Value::string("a")));
        assert_eq!(of(&[owned, child()]), [""; 0]);
        let read = row("0", &[], (0, 9), committed);
        assert_eq!(of(&[read, child()]), [""; 0]);
    }

    #[test]
    fn rows_that_wait_for_their_parents_or_for_a_first_owner_are_none() {
        let whole = row("0", &[], (0, 9), committed);
        let (low, high) = (row("1", &["0"], (0, 4), |i| i), row("2", &["0"], (5, 9), |i| i));
        let low_again = row("3", &["1"], (0, 4), |item| item);
        assert_eq!(of(&[whole, low, high, low_again]), [""; 0]);
        let beside = row("4", &[], (0, 4), committed);
        assert_eq!(of(&[beside, row("5", &[], (5, 9), |item| item)]), [""; 0]);
        assert_eq!(of(&[]), [""; 0]);
    }
}
