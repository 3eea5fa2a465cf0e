//! Splitting, merging and uniform scaling: closing shards and opening their children.
//!
//! Invariants: a child starts above the ending position of every parent; every new shard has its parents recorded,
//! at most two, and every closed shard at most two children, also when a stream goes from 4 shards to 3. Uniform
//! scaling first splits at every new boundary, then merges inside each new range, as AWS does.

use std::sync::Arc;

use crate::{
    config::now_ms,
    error::ApiError,
    ids::{HashKey, HashRange, Position, ShardIndex},
    shard::{Shard, ShardSpec},
    stream::{Status, Stream, Topology, storage_failure},
};

/// What a reshard did, so that it can be taken back when it cannot be recorded.
#[derive(Debug, Default)]
struct Done {
    closed: Vec<Arc<Shard>>,
    created: Vec<ShardIndex>,
    next_index: u32,
    phase: Option<(Status, u64)>,
}

impl Stream {
    /// Splits an open shard so that the second child starts at `at`.
    pub(crate) fn split(&self, shard: ShardIndex, at: HashKey) -> Result<(), ApiError> {
        self.reshard(|topology, done| {
            let range = self.open_shard_of(topology, shard)?.spec.range;
            if at <= range.start || at > range.end {
                return Err(ApiError::invalid_argument(format!(
                    "NewStartingHashKey {at} used in SplitShard() on shard {shard} is not both greater than one plus the shard's StartingHashKey {} and less than the shard's EndingHashKey {}.",
                    range.start, range.end
                )));
            }
            self.check_count(topology.open.len() + 1)?;
            self.replace(topology, &[shard], &cut(range, at), done)
        })
    }

    /// Merges two open shards whose ranges touch.
    pub(crate) fn merge(&self, shard: ShardIndex, adjacent: ShardIndex) -> Result<(), ApiError> {
        self.reshard(|topology, done| {
            let first = self.open_shard_of(topology, shard)?.spec.range;
            let second = self.open_shard_of(topology, adjacent)?.spec.range;
            let (low, high) = if first.start <= second.start { (first, second) } else { (second, first) };
            if low.end.0.checked_add(1) != Some(high.start.0) {
                return Err(ApiError::invalid_argument(format!(
                    "Shards {shard} and {adjacent} in stream {} are not an adjacent pair of shards eligible for merging",
                    self.name
                )));
            }
            self.replace(topology, &[shard, adjacent], &[HashRange { start: low.start, end: high.end }], done)
        })
    }

    /// Scales to `target` open shards of equal size; returns how many were open before.
    pub(crate) fn scale(&self, target: u32) -> Result<u32, ApiError> {
        let mut before = 0;
        self.reshard(|topology, done| {
            before = u32::try_from(topology.open.len()).unwrap_or(u32::MAX);
            if target > before.saturating_mul(2) || target.saturating_mul(2) < before {
                return Err(ApiError::limit_exceeded(format!(
                    "UpdateShardCount cannot scale from {before} to {target} shards: the target must be between half and double the current open shard count."
                )));
            }
            self.check_count(usize::try_from(target).unwrap_or(usize::MAX))?;
            for range in HashRange::uniform(target) {
                let position = topology.open.partition_point(|s| s.spec.range.start <= range.start);
                if let Some(owner) = position.checked_sub(1).and_then(|i| topology.open.get(i)).cloned()
                    && owner.spec.range.start != range.start
                {
                    self.replace(topology, &[owner.spec.index], &cut(owner.spec.range, range.start), done)?;
                }
            }
            for range in HashRange::uniform(target) {
                self.merge_inside(topology, range, done)?;
            }
            Ok(())
        })?;
        Ok(before)
    }

    /// Merges the open shards of `range`, two by two, until one is left.
    fn merge_inside(&self, topology: &mut Topology, range: HashRange, done: &mut Done) -> Result<(), ApiError> {
        loop {
            let first = topology.open.partition_point(|s| s.spec.range.start < range.start);
            let pair = topology.open.get(first).zip(topology.open.get(first + 1));
            let Some((low, high)) = pair.filter(|(_, high)| high.spec.range.end <= range.end) else { return Ok(()) };
            let (low, high) = (Arc::clone(low), Arc::clone(high));
            let merged = HashRange { start: low.spec.range.start, end: high.spec.range.end };
            self.replace(topology, &[low.spec.index, high.spec.index], &[merged], done)?;
        }
    }

    fn reshard(&self, work: impl FnOnce(&mut Topology, &mut Done) -> Result<(), ApiError>) -> Result<(), ApiError> {
        let done = std::cell::RefCell::new(Done::default());
        self.change(
            |topology| {
                if topology.on_demand {
                    return Err(ApiError::validation(format!(
                        "Stream {} has capacity mode ON_DEMAND: its shards are managed by the service.",
                        self.name
                    )));
                }
                let mut done = done.borrow_mut();
                done.next_index = topology.next_index;
                done.phase = Some((topology.phase, topology.busy_until_ms));
                work(topology, &mut done)?;
                topology.set_phase(Status::Updating, &self.config);
                Ok(())
            },
            |topology| {
                let done = done.take();
                if let Some((phase, busy_until_ms)) = done.phase {
                    (topology.phase, topology.busy_until_ms) = (phase, busy_until_ms);
                    topology.next_index = done.next_index;
                }
                done.created.iter().for_each(|index| drop(topology.shards.remove(index)));
                done.closed.iter().filter(|s| !done.created.contains(&s.spec.index)).for_each(|s| s.reopen());
                topology.index_open();
            },
        )
    }

    /// Closes `parents` and opens one child per range.
    fn replace(
        &self,
        topology: &mut Topology,
        parents: &[ShardIndex],
        ranges: &[HashRange],
        done: &mut Done,
    ) -> Result<(), ApiError> {
        let now_ms = now_ms();
        let shards: Vec<_> = parents.iter().filter_map(|p| topology.shards.get(p).cloned()).collect();
        let children: Vec<_> = (topology.next_index..).map(ShardIndex).take(ranges.len()).collect();
        let mut start = Position(0);
        for shard in &shards {
            start = start.max(shard.close(now_ms, children.clone()).plus(1));
            done.closed.push(Arc::clone(shard));
        }
        for (index, range) in children.iter().zip(ranges) {
            let (parent, adjacent_parent) = (parents.first().copied(), parents.get(1).copied());
            let spec = ShardSpec { index: *index, parent, adjacent_parent, range: *range, opened_ms: now_ms, start };
            let child = self.open_shard(spec).map_err(|e| storage_failure(&e))?;
            topology.shards.insert(*index, child);
            topology.next_index = index.0 + 1;
            done.created.push(*index);
        }
        topology.index_open();
        Ok(())
    }

    fn open_shard_of(&self, topology: &Topology, index: ShardIndex) -> Result<Arc<Shard>, ApiError> {
        let shard = topology.shards.get(&index).cloned().ok_or_else(|| self.no_shard(&index.to_string()))?;
        if shard.is_open() {
            return Ok(shard);
        }
        Err(ApiError::invalid_argument(format!("Shard {index} in stream {} is closed.", self.name)))
    }

    fn check_count(&self, open: usize) -> Result<(), ApiError> {
        let most = self.config.max_shards_per_stream;
        if u32::try_from(open).is_ok_and(|open| open <= most) {
            return Ok(());
        }
        Err(ApiError::limit_exceeded(format!("This request would exceed the shard limit of {most} per stream.")))
    }
}

/// The two parts of `range`, the second starting at `at`.
fn cut(range: HashRange, at: HashKey) -> [HashRange; 2] {
    [HashRange { start: range.start, end: HashKey(at.0.saturating_sub(1)) }, HashRange { start: at, end: range.end }]
}
