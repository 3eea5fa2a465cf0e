//! Names of things in a stream: shards, sequence numbers, hash ranges, positions.
//!
//! Kinesis guarantees that sequence numbers grow within a shard and that a child's are above its parents'; they are
//! decimal integers of up to 128 bits and a bit, so they are compared by length and then by text, never as floats.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A shard's id within its stream, such as `shardId-000000000003`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(String);

impl ShardId {
    /// Takes the id as the stream gives it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A record's sequence number: a decimal integer that grows within a shard lineage. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Arc<str>);

impl SequenceNumber {
    /// Accepts decimal digits only; leading zeros are dropped.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let trimmed = text.trim_start_matches('0');
        Some(Self(if trimmed.is_empty() { "0" } else { trimmed }.into()))
    }

    /// The number as decimal text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An inclusive range of the 2^128 hash-key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashRange {
    /// First hash key of the range.
    pub start: u128,
    /// Last hash key of the range.
    pub end: u128,
}

impl HashRange {
    /// The whole space.
    pub const ALL: Self = Self { start: 0, end: u128::MAX };

    /// Whether the key lies in the range.
    pub fn contains(&self, key: u128) -> bool {
        (self.start..=self.end).contains(&key)
    }
}

/// A shard as ListShards tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The shards it came from: none, one (split) or two (merge).
    pub parents: Vec<ShardId>,
    /// The hash keys it holds.
    pub range: HashRange,
    /// Whether it takes no more records.
    pub closed: bool,
}

/// Where to start reading a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The oldest record still kept.
    TrimHorizon,
    /// The first record that arrived at or after this time (epoch milliseconds).
    AtTimestamp(i64),
    /// This record.
    At(SequenceNumber),
    /// The record after this one.
    After(SequenceNumber),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_compare_as_integers_not_as_text() {
        let n = |s| SequenceNumber::new(s).unwrap();
        assert!(n("9") < n("10"));
        assert!(n("49590338271490256608559692538361571095921575989136588898") > n("99"));
        assert_eq!(n("0007"), n("7"));
        assert_eq!(SequenceNumber::new("12a"), None);
        assert_eq!(SequenceNumber::new(""), None);
    }
}
