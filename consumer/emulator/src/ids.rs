//! Ids and units: shard ids, positions, sequence numbers and hash keys.
//!
//! A shard numbers its records with consecutive [`Position`]s. A [`SequenceNumber`] is a position and its shard,
//! printed as 56 digits of fixed width as on AWS (too wide for 128 bits, so that a client which parses them as
//! `u128` fails here and not first in production). Invariant: the order of the numbers, of their texts and of the
//! positions is the same, and no two shards of a stream share a number.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The digits in front of every sequence number.
const SEQUENCE_PREFIX: &str = "495903382714902566085596925";
/// Digits behind the prefix: 64 bits of position and 32 bits of shard number.
const SEQUENCE_DIGITS: usize = 29;
const SHARD_PREFIX: &str = "shardId-";

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {what}")]
pub(crate) struct IdError {
    what: &'static str,
    value: String,
}

impl IdError {
    fn new(what: &'static str, value: &str) -> Self {
        Self { what, value: value.chars().take(80).collect() }
    }
}

/// The number of a shard within its stream, in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ShardIndex(pub(crate) u32);

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SHARD_PREFIX}{:012}", self.0)
    }
}

impl FromStr for ShardIndex {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix(SHARD_PREFIX)
            .filter(|digits| digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| IdError::new("shard id", text))
    }
}

/// The place of a record within its shard; consecutive records have consecutive positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Position(pub(crate) u64);

impl Position {
    /// The position `count` records later.
    pub(crate) fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The position just before this one.
    pub(crate) fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many records lie between `earlier` and this position; 0 when `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A position in one shard of a stream, as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SequenceNumber {
    pub(crate) position: Position,
    pub(crate) shard: ShardIndex,
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = (u128::from(self.position.0) << 32) | u128::from(self.shard.0);
        write!(f, "{SEQUENCE_PREFIX}{number:0SEQUENCE_DIGITS$}")
    }
}

impl FromStr for SequenceNumber {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::new("sequence number", text);
        let digits = text.strip_prefix(SEQUENCE_PREFIX).ok_or_else(error)?;
        if digits.len() != SEQUENCE_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let number: u128 = digits.parse().map_err(|_| error())?;
        let position = u64::try_from(number >> 32).map_err(|_| error())?;
        let shard = u32::try_from(number & u128::from(u32::MAX)).map_err(|_| error())?;
        Ok(Self { position: Position(position), shard: ShardIndex(shard) })
    }
}

/// A point in the space that partition keys are hashed into, `0..=2^128 - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HashKey(pub(crate) u128);

impl HashKey {
    /// The MD5 of a partition key, read as a big-endian number.
    pub(crate) fn of_partition_key(key: &str) -> Self {
        use md5::Digest as _;
        let digest: [u8; 16] = md5::Md5::digest(key.as_bytes()).into();
        Self(u128::from_be_bytes(digest))
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for HashKey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
        let parsed = if canonical { text.parse().ok() } else { None };
        parsed.map(Self).ok_or_else(|| IdError::new("hash key", text))
    }
}

/// The hash keys of one shard, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashRange {
    pub(crate) start: HashKey,
    pub(crate) end: HashKey,
}

impl HashRange {
    /// Cuts the whole space into `count` ranges (at least one); range `i` starts at `floor(i * 2^128 / count)`, so
    /// that the boundaries of `count` ranges are among those of `2 * count`.
    pub(crate) fn uniform(count: u32) -> Vec<Self> {
        let count = u128::from(count.max(1));
        let remainder = (u128::MAX % count + 1) % count;
        let width = u128::MAX / count + u128::from(remainder == 0 && count > 1);
        // `count` is below 2^32, so neither product overflows for i < count.
        let start = |i: u128| if i == 0 { 0 } else { width * i + remainder * i / count };
        (0..count)
            .map(|i| {
                let end = if i + 1 == count { u128::MAX } else { start(i + 1) - 1 };
                Self { start: HashKey(start(i)), end: HashKey(end) }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_keep_their_order_as_text_and_come_back() {
        let number = |p, s| SequenceNumber { position: Position(p), shard: ShardIndex(s) };
        let all = [number(0, 3), number(1, 0), number(1, 7), number(1 << 62, 0), number(u64::MAX, u32::MAX)];
        for pair in all.windows(2) {
            assert!(pair[0].to_string() < pair[1].to_string());
        }
        for n in all {
            assert_eq!(n.to_string().len(), 56);
            assert_eq!(n.to_string().parse(), Ok(n));
        }
    }

    #[test]
    fn texts_that_are_not_ids_are_refused() {
        for text in ["", "0", "49", "abc", &"9".repeat(56), &format!("{SEQUENCE_PREFIX}{}", "9".repeat(29))] {
            assert!(text.parse::<SequenceNumber>().is_err(), "{text}");
        }
        for text in ["shardId-1", "shardId-0000000000000", "shardid-000000000000", "shardId-99999999999x"] {
            assert!(text.parse::<ShardIndex>().is_err(), "{text}");
        }
        for text in ["", "01", "-1", "+1", "340282366920938463463374607431768211456"] {
            assert!(text.parse::<HashKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn uniform_ranges_cover_the_space_without_gap() {
        for count in [1, 2, 3, 4, 7, 64] {
            let ranges = HashRange::uniform(count);
            assert_eq!(ranges.len(), count as usize);
            assert_eq!(ranges[0].start, HashKey(0));
            assert_eq!(ranges[ranges.len() - 1].end, HashKey(u128::MAX));
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].end.0 + 1, pair[1].start.0);
            }
        }
        assert_eq!(HashRange::uniform(2)[1].start, HashKey(1 << 127));
        assert_eq!(HashRange::uniform(3)[2].start.to_string(), "226854911280625642308916404954512140970");
        assert_eq!(HashRange::uniform(7)[3].start, HashRange::uniform(14)[6].start);
    }

    #[test]
    fn a_partition_key_hashes_to_its_md5() {
        // printf 'a' | md5sum = 0cc175b9c0f1b6a831c399e269772661
        assert_eq!(HashKey::of_partition_key("a"), HashKey(0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661));
    }
}
