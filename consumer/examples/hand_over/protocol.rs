//! What a worker tells on its standard output, one line each, and the clock both sides share.
//!
//! Invariant: times are CLOCK_MONOTONIC, one clock for all processes of a machine, in nanoseconds.

use std::fmt;

use rustix::time::{ClockId, clock_gettime};

/// A moment of the machine's monotonic clock, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(i64);

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        Self(now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec))
    }

    /// Seconds from an earlier moment to this one; negative when it is later.
    pub(crate) fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1e9
    }
}

/// A line of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// It runs: its beat is in the table.
    Ready,
    /// It holds the lease of this shard and takes over the state.
    Restored(String, Moment),
    /// Its stage processed a record of this shard.
    Read(String, Moment),
}

impl Line {
    /// Reads a line; `None` when it is none of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let line = match words.next()? {
            "ready" => Self::Ready,
            word @ ("restored" | "read") => {
                let (shard, at) = (words.next()?.to_owned(), Moment(words.next()?.parse().ok()?));
                if word == "read" { Self::Read(shard, at) } else { Self::Restored(shard, at) }
            }
            _ => return None,
        };
        words.next().is_none().then_some(line)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Restored(shard, at) => write!(f, "restored {shard} {}", at.0),
            Self::Read(shard, at) => write!(f, "read {shard} {}", at.0),
        }
    }
}
