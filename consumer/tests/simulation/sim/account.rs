//! What becomes of every record by the job's own rule of lateness, computed from what was put into the input stream.
//!
//! No code of the engine takes part: aggregates are known as they were put together, a source's watermark is its
//! shard's records so far, and a child begins at the slower of its parents. So many records must be late, and no more:
//! that more are needs a floor, which a source is given when it comes back or begins a new epoch ([`Floor`], as `audit`
//! saw it written). Not here: whether the source had to be put out before, which the stories themselves judge
//! (`waits`).

use std::collections::BTreeMap;

use flowshift_consumer::lease::{Checkpoint, LeaseRow};
use flowshift_consumer::log::Record;
use flowshift_consumer::shard::{SequenceNumber, ShardId};

use super::job::{Count, Counts, KINDS, Marks};
use super::world::{INPUT, World};

/// A record of the input as it was put: its key and its time, epoch milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) key: String,
    pub(crate) time: i64,
}

/// From a place of its shard on a source's watermark is at least `to_ms`.
#[derive(Debug, Clone)]
pub(crate) struct Floor {
    /// The last place before it; none: the shard's beginning.
    behind: Option<SequenceNumber>,
    kind: usize,
    to_ms: i64,
}

/// All floors that were given, by shard, in the order of their writes.
pub(crate) type Floors = BTreeMap<ShardId, Vec<Floor>>;

impl Floor {
    /// The floors that a write gave, behind what the row had cut by then: who waits for a floor cuts nothing.
    pub(crate) fn of_write(old: &LeaseRow, new: &LeaseRow) -> Vec<Self> {
        let behind = match new.pending.as_ref().unwrap_or(&new.checkpoint) {
            Checkpoint::At(last) => Some(last.clone()),
            _ => None,
        };
        let given = (0..KINDS).filter(|kind| new.floor[*kind] != old.floor[*kind]);
        given.filter_map(|kind| Some(Self { behind: behind.clone(), kind, to_ms: new.floor[kind]? })).collect()
    }

    fn counts_at(&self, record: &SequenceNumber) -> bool {
        self.behind.as_ref().is_none_or(|behind| record > behind)
    }
}

impl World {
    /// The counters that records come to when sources were given these floors.
    pub(crate) fn account(&self, floors: &Floors) -> Counts {
        let (mut ends, mut counts) = (BTreeMap::<ShardId, Marks>::new(), Counts::new());
        let records: BTreeMap<ShardId, Vec<Record>> = self.log.dump_by_shard(INPUT).into_iter().collect();
        // Parents stand before their children.
        for shard in self.log.lineage(INPUT) {
            let mut marks =
                shard.parents.iter().map(|parent| ends[parent].clone()).reduce(Marks::slower).unwrap_or_default();
            let floors = floors.get(&shard.id).map(Vec::as_slice).unwrap_or_default();
            for record in records.get(&shard.id).into_iter().flatten() {
                for floor in floors.iter().filter(|floor| floor.counts_at(&record.sequence)) {
                    marks.raise_to(floor.kind, floor.to_ms);
                }
                for Put { key, time } in self.put.get(&record.sequence).into_iter().flatten() {
                    let (_, name) = Count::place(&mut marks, key, *time, record.arrived_ms);
                    *counts.entry(name).or_default() += 1;
                }
            }
            ends.insert(shard.id, marks);
        }
        counts
    }

    /// Each record is counted as what the account says: in its step, as late or as of the future, key by key.
    pub(crate) fn every_record_is_late_only_by_the_account(
        &self,
        counters: &Counts,
        floors: &Floors,
    ) -> Result<(), String> {
        let account = self.account(floors);
        let names = || account.keys().chain(counters.keys());
        let of = |counts: &Counts, name: &str| counts.get(name).copied().unwrap_or_default();
        let wrong: BTreeMap<&String, String> = names()
            .filter(|name| of(&account, name) != of(counters, name))
            .map(|name| {
                (name, format!("{name}: {} counted, {} by the account", of(counters, name), of(&account, name)))
            })
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        let late =
            |counts: &Counts| counts.iter().filter(|(name, _)| name.starts_with("late ")).map(|(_, n)| n).sum::<u64>();
        let (found, expected) = (late(counters), late(&account));
        let wrong: Vec<String> = wrong.into_values().collect();
        Err(format!("{found} records are late, {expected} by the account of floors {floors:?}: {}", wrong.join("; ")))
    }
}
