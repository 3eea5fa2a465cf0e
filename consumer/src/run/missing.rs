//! Which shards need a lease row: those that nobody has consumed or begun.
//!
//! A closed shard without a row is either new to us or long done: KCL deletes the row of a consumed shard as soon as
//! its children are under way, while the stream lists the shard until its records expire. A new row for it would read
//! all of it again. Rows are made parents first, here and by KCL, so a shard with a descendant that has a row is done.

use std::collections::{BTreeMap, BTreeSet};

use crate::shard::{Shard, ShardId};

/// The shards that need a row, parents before their children.
pub(super) fn missing<'a>(shards: &'a [Shard], rows: &BTreeSet<ShardId>) -> Vec<&'a Shard> {
    let by_id: BTreeMap<&ShardId, &Shard> = shards.iter().map(|shard| (&shard.id, shard)).collect();
    let mut begun = BTreeSet::new();
    let mut ancestors: Vec<&ShardId> = rows.iter().collect();
    while let Some(id) = ancestors.pop() {
        if begun.insert(id) {
            ancestors.extend(by_id.get(id).into_iter().flat_map(|shard| &shard.parents));
        }
    }
    let mut missing: Vec<&Shard> = shards.iter().filter(|shard| !begun.contains(&shard.id)).collect();
    missing.sort_by_key(|shard| (generation(shard, &by_id), &shard.id));
    missing
}

/// How many listed generations come before a shard.
fn generation(shard: &Shard, by_id: &BTreeMap<&ShardId, &Shard>) -> usize {
    let mut generation = 0;
    let mut parents: BTreeSet<&ShardId> = shard.parents.iter().collect();
    // A parent is older than its child; should a stream ever say otherwise, this must end all the same.
    while generation < by_id.len() {
        let listed: Vec<&Shard> = parents.iter().filter_map(|id| by_id.get(id).copied()).collect();
        if listed.is_empty() {
            break;
        }
        generation += 1;
        parents = listed.into_iter().flat_map(|shard| &shard.parents).collect();
    }
    generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::HashRange;

    fn shard(id: &str, parents: &[&str]) -> Shard {
        let parents = parents.iter().map(|id| ShardId::new(*id)).collect();
        Shard { id: ShardId::new(id), parents, range: HashRange::ALL, closed: false }
    }

    fn ids(shards: &[Shard], rows: &[&str]) -> Vec<String> {
        let rows = rows.iter().map(|id| ShardId::new(*id)).collect();
        missing(shards, &rows).iter().map(|shard| shard.id.to_string()).collect()
    }

    /// 0 was split into 2 and 3, and 1 and 3 merged into 4.
    fn stream() -> Vec<Shard> {
        vec![shard("4", &["1", "3"]), shard("0", &[]), shard("1", &[]), shard("2", &["0"]), shard("3", &["0"])]
    }

    #[test]
    fn an_empty_table_gets_all_rows_parents_first() {
        assert_eq!(ids(&stream(), &[]), ["0", "1", "2", "3", "4"]);
    }

    /// It would have been read again from its oldest record.
    #[test]
    fn a_consumed_shard_whose_row_kcl_deleted_gets_no_new_one() {
        assert_eq!(ids(&stream(), &["2", "4"]), [""; 0]);
        assert_eq!(ids(&stream(), &["1", "2", "3"]), ["4"]);
    }

    #[test]
    fn one_child_with_a_row_does_not_hide_the_other() {
        assert_eq!(ids(&stream(), &["0", "1", "2"]), ["3", "4"]);
    }

    #[test]
    fn a_parent_that_is_no_longer_listed_and_a_circle_hide_nothing() {
        assert_eq!(ids(&[shard("7", &["3"])], &[]), ["7"]);
        assert_eq!(ids(&[shard("a", &["b"]), shard("b", &["a"])], &[]), ["a", "b"]);
    }
}
