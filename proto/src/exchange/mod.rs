//! What AGGREGATE sends to DETECT: partial panes of one lane, in parts of bounded size.
//!
//! The envelope (source, number, part) is the engine's. Invariant: the bytes depend only on what was added, not on the
//! order of adding: subnets and panes are sorted, each part carries its own string table, and accounting travels in
//! the first part. What a histogram bin means is the detector's business.

mod build;
mod read;

pub use build::Builder;
pub use read::{Batch, PaneRef};

use crate::flow::FeedKind;
use crate::reason::{Reason, ReasonCounts};
use crate::wire::flowshift::exchange::v1 as wire;
pub use crate::wire::flowshift::exchange::v1::{Counters, PeerRow, Quality, RttHistogram, Subnet};

/// The version written.
pub const VERSION: u32 = 1;
/// Largest payload that is decoded, bytes.
pub const MAX_DECODE_BYTES: usize = 4 << 20;

/// A batch cannot be built or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The protobuf encoding is broken.
    #[error("exchange batch is broken: {0}")]
    Broken(String),
    /// It was written by a program that knows another version.
    #[error("exchange batch has version {0}, known is 1")]
    UnknownVersion(u32),
    /// It is larger than what is decoded.
    #[error("exchange batch has {0} bytes, above {MAX_DECODE_BYTES}")]
    TooLarge(usize),
    /// Its parts contradict each other.
    #[error("exchange batch is inconsistent: {0}")]
    Inconsistent(&'static str),
    /// The same pane of the same pair was added twice.
    #[error("pane {pane_start_s} of {src} to {dst} was added twice")]
    RepeatedPane {
        /// Source.
        src: String,
        /// Destination.
        dst: String,
        /// Start, epoch seconds.
        pane_start_s: i64,
    },
    /// One pane alone is larger than a part may be.
    #[error("pane {pane_start_s} of {src} to {dst} needs {bytes} bytes, a part has {max}")]
    PaneTooLarge {
        /// Source.
        src: String,
        /// Destination.
        dst: String,
        /// Start, epoch seconds.
        pane_start_s: i64,
        /// Bytes needed.
        bytes: usize,
        /// Bytes of a part.
        max: usize,
    },
}

/// What one pair did in one pane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// Sums.
    pub counters: Counters,
    /// RTT.
    pub rtt: RttHistogram,
    /// Peers; sorted by hash when encoded.
    pub peers: Vec<PeerRow>,
    /// Quality of the feed.
    pub quality: Quality,
}

/// What became of the records of a batch: `records_in` = `accounted` + the sum of `reasons`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Records read.
    pub records_in: u64,
    /// Records that are in panes.
    pub accounted: u64,
    /// Records that are not.
    pub reasons: ReasonCounts,
}

impl RttHistogram {
    /// A histogram of `(bin, count)` in ascending order of bins; empty bins are left out.
    ///
    /// # Errors
    /// When the bins do not ascend.
    pub fn from_bins(bins: impl IntoIterator<Item = (u32, u64)>) -> Result<Self, ExchangeError> {
        let mut histogram = Self::default();
        let mut last = None;
        for (bin, count) in bins.into_iter().filter(|(_, count)| *count > 0) {
            let delta = match last {
                None => Some(bin),
                Some(last) => bin.checked_sub(last).filter(|delta| *delta > 0),
            };
            histogram.bin_deltas.push(delta.ok_or(ExchangeError::Inconsistent("bins do not ascend"))?);
            histogram.counts.push(count);
            last = Some(bin);
        }
        Ok(histogram)
    }

    /// `(bin, count)` in ascending order of bins. Deltas of a decoded batch never overflow.
    pub fn bins(&self) -> impl Iterator<Item = (u32, u64)> {
        let bins = self.bin_deltas.iter().scan(0u32, |bin, delta| {
            *bin = bin.saturating_add(*delta);
            Some(*bin)
        });
        bins.zip(self.counts.iter().copied())
    }

    fn check(&self) -> Result<(), ExchangeError> {
        if self.bin_deltas.len() != self.counts.len() {
            return Err(ExchangeError::Inconsistent("bins and counts differ in number"));
        }
        if self.bin_deltas.iter().skip(1).any(|delta| *delta == 0) || self.counts.contains(&0) {
            return Err(ExchangeError::Inconsistent("bins do not ascend or are empty"));
        }
        if self.bin_deltas.iter().map(|delta| u64::from(*delta)).sum::<u64>() > u64::from(u32::MAX) {
            return Err(ExchangeError::Inconsistent("a bin is above 2^32"));
        }
        Ok(())
    }
}

/// Order of panes: source, destination (as ranks in the string table), feed, start.
type Key = (usize, usize, FeedKind, i64);

impl Accounting {
    /// Whether every record read is accounted or counted under a reason.
    pub fn balances(&self) -> bool {
        self.accounted.checked_add(self.reasons.total()) == Some(self.records_in)
    }

    pub(super) fn to_wire(self) -> wire::Accounting {
        let reasons = self.reasons.iter().filter(|(_, count)| *count > 0);
        wire::Accounting {
            records_in: self.records_in,
            accounted: self.accounted,
            reasons: reasons
                .map(|(reason, count)| wire::ReasonCount { reason: reason.to_wire() as i32, count })
                .collect(),
        }
    }

    fn from_wire(accounting: &wire::Accounting) -> Result<Self, ExchangeError> {
        let mut reasons = ReasonCounts::default();
        for row in &accounting.reasons {
            let reason = Reason::from_wire(row.reason).ok_or(ExchangeError::Inconsistent("a reason is unknown"))?;
            reasons.add(reason, row.count);
        }
        Ok(Self { records_in: accounting.records_in, accounted: accounting.accounted, reasons })
    }
}
