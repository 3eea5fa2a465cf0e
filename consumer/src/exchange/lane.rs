//! Lanes: the fixed units of keyed state, each ONE point of the 2^128 hash-key space.
//!
//! A split or merge of exchange shards moves whole lanes, because a point is never cut. The number of lanes is fixed
//! for the life of a job: changing it re-keys everything and needs a new job.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::shard::HashRange;

/// Seed of the key hash; part of the format, never to change.
const SEED: u64 = 0x666c_6f77_7368_6966;

/// A lane's number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u16);

impl LaneId {
    /// The number.
    pub fn index(self) -> u16 {
        self.0
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of lanes is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} lanes: expected 1 to 1024")]
pub struct LanesError(u32);

/// How many lanes a job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes(u16);

impl Lanes {
    /// From 1 to 1,024 lanes.
    pub fn new(count: u32) -> Result<Self, LanesError> {
        match u16::try_from(count) {
            Ok(n @ 1..=1024) => Ok(Self(n)),
            _ => Err(LanesError(count)),
        }
    }

    /// The number of lanes.
    pub fn count(self) -> u16 {
        self.0
    }

    /// All lanes in order.
    pub fn all(self) -> impl Iterator<Item = LaneId> {
        (0..self.0).map(LaneId)
    }

    /// The lane with this number, if the job has it.
    pub fn get(self, index: u16) -> Option<LaneId> {
        (index < self.0).then_some(LaneId(index))
    }

    /// The lane that owns a key.
    pub fn of(self, key: &[u8]) -> LaneId {
        let lane = xxh3_64_with_seed(key, SEED) % u64::from(self.0);
        LaneId(u16::try_from(lane).unwrap_or_default())
    }

    /// The lane's point: the centre of its slice of the hash-key space.
    pub fn hash_key(self, lane: LaneId) -> u128 {
        let width = u128::MAX / u128::from(self.0);
        width * u128::from(lane.0) + width / 2
    }

    /// The lanes whose points lie in a shard's range.
    pub fn within(self, range: HashRange) -> Vec<LaneId> {
        self.all().filter(|lane| range.contains(self.hash_key(*lane))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_of_the_hash_space_parts_the_lanes_and_loses_none() {
        let lanes = Lanes::new(64).unwrap();
        let cut = u128::MAX / 3;
        let low = lanes.within(HashRange { start: 0, end: cut });
        let high = lanes.within(HashRange { start: cut + 1, end: u128::MAX });
        assert!(!low.is_empty() && !high.is_empty());
        assert_eq!(low.len() + high.len(), 64);
        assert!(low.iter().all(|lane| !high.contains(lane)));
    }

    #[test]
    fn the_lane_of_a_key_is_part_of_the_format() {
        let lanes = Lanes::new(64).unwrap();
        assert_eq!(lanes.of(b"subnet-a|subnet-b"), lanes.of(b"subnet-a|subnet-b"));
        let used: std::collections::BTreeSet<_> = (0..1000u32).map(|i| lanes.of(&i.to_le_bytes())).collect();
        assert_eq!(used.len(), 64);
    }
}
