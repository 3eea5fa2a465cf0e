//! Where a batch came from, and how far event time has come there.
//!
//! A source is a shard of the input stream, told apart over re-creations of the stream by its creation time. Feed kinds
//! have watermarks of their own, because flow logs come minutes later than reports. Plain values; who decides a
//! source's [`Status`] is `run::control`.

use std::collections::BTreeMap;
use std::fmt;

use crate::log::StreamId;
use crate::shard::ShardId;

/// One input shard over the life of its stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId {
    /// The input stream.
    pub stream: StreamId,
    /// The shard.
    pub shard: ShardId,
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.shard)
    }
}

/// How many kinds of feed a job tells apart; each has its own watermark (1 to 4, fixed for the life of a job).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedKinds(u8);

impl FeedKinds {
    /// The most kinds a job may have.
    pub const MAX: u8 = 4;

    /// Clamped to 1..=4.
    pub fn new(count: u8) -> Self {
        Self(count.clamp(1, Self::MAX))
    }

    /// The number of kinds.
    pub fn count(self) -> usize {
        usize::from(self.0)
    }
}

/// Event-time watermarks in epoch milliseconds, one per feed kind. `i64::MIN`: nothing seen; `i64::MAX`: ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks([i64; FeedKinds::MAX as usize]);

impl Default for Watermarks {
    fn default() -> Self {
        Self::NONE
    }
}

impl Watermarks {
    /// Nothing seen of any kind.
    pub const NONE: Self = Self([i64::MIN; FeedKinds::MAX as usize]);
    /// The end of every kind.
    pub const END: Self = Self([i64::MAX; FeedKinds::MAX as usize]);

    /// The watermark of a kind.
    pub fn get(&self, kind: usize) -> i64 {
        self.0.get(kind).copied().unwrap_or(i64::MIN)
    }

    /// Moves a kind's watermark forward; never back.
    pub fn raise(&mut self, kind: usize, to: i64) {
        if let Some(mark) = self.0.get_mut(kind) {
            *mark = (*mark).max(to);
        }
    }

    /// The larger of both, kind by kind.
    pub fn raise_all(&mut self, other: &Self) {
        for (mark, to) in self.0.iter_mut().zip(other.0) {
            *mark = (*mark).max(to);
        }
    }

    /// The smaller of both, kind by kind.
    #[must_use]
    pub fn min(mut self, other: &Self) -> Self {
        for (mark, to) in self.0.iter_mut().zip(other.0) {
            *mark = (*mark).min(to);
        }
        self
    }

    /// These, but `other`'s where a kind stands at its end.
    #[must_use]
    pub fn below_end_or(mut self, other: &Self) -> Self {
        for (mark, before) in self.0.iter_mut().zip(other.0) {
            *mark = if *mark == i64::MAX { before } else { *mark };
        }
        self
    }

    /// All kinds, in order.
    pub fn as_slice(&self) -> &[i64] {
        &self.0
    }

    /// From a slice; missing kinds have seen nothing.
    pub fn from_slice(marks: &[i64]) -> Self {
        let mut all = Self::NONE;
        for (mark, value) in all.0.iter_mut().zip(marks) {
            *mark = *value;
        }
        all
    }
}

/// Whether a source holds the watermark of a kind back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// It counts.
    #[default]
    Live,
    /// It is out of the minimum: at its tip without records for a while, or stuck.
    Idle,
    /// It wants to come back: it counts again, and waits for its floor before it cuts.
    Return,
}

impl Status {
    /// As stored.
    pub fn code(self) -> u8 {
        match self {
            Self::Live => 0,
            Self::Idle => 1,
            Self::Return => 2,
        }
    }

    /// From storage; an unknown code counts as live, which can only hold a watermark back.
    pub fn from_code(code: i64) -> Self {
        match code {
            1 => Self::Idle,
            2 => Self::Return,
            _ => Self::Live,
        }
    }

    /// What a kind starts with: the first kind counts at once, the others after their first record.
    pub fn initial(kind: usize) -> Self {
        if kind == 0 { Self::Live } else { Self::Idle }
    }
}

/// Every source of the job with its status per kind.
pub type SourceSet = BTreeMap<SourceId, Vec<Status>>;
