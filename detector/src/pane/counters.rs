//! The additive counters of a pane.
//!
//! For: sums that stay exact however the records were split over shards and batches.
//! Not for: maxima and samples, which cannot be subtracted from a window; see [`super::PaneCell`].
//! Invariant: every field is a plain sum; additions saturate at `u64::MAX` instead of wrapping.

use serde::{Deserialize, Serialize};

/// A count split by the state of the TCP connection in which it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByState {
    /// While the connection was being opened (SYN sent or received).
    pub syn: u64,
    /// While it was established.
    pub est: u64,
    /// While it was being closed.
    pub close: u64,
}

impl ByState {
    /// Sum over the three states, saturating.
    pub fn total(&self) -> u64 {
        self.syn.saturating_add(self.est).saturating_add(self.close)
    }

    fn zip(self, other: Self, f: fn(u64, u64) -> u64) -> Self {
        Self { syn: f(self.syn, other.syn), est: f(self.est, other.est), close: f(self.close, other.close) }
    }
}

/// Additive counters of one directed pair; all are counts except `bytes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Flow records.
    pub flows: u64,
    /// Flow records with at least one retransmitted segment.
    pub retransmit_flows: u64,
    /// Segments sent, retransmitted ones included.
    pub segments: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Retransmitted segments by connection state.
    pub retransmits: ByState,
    /// Retransmission timeouts by connection state.
    pub timeouts: ByState,
    /// Connection attempts, SYN retransmissions not counted again.
    pub connects: u64,
    /// Attempts that were refused or never answered.
    pub connect_failures: u64,
    /// Established connections that were torn down by a reset.
    pub resets: u64,
    /// Flows refused by a filter (flow logs: REJECT).
    pub rejects: u64,
}

impl Counters {
    /// Adds `other`, saturating.
    pub fn add(&mut self, other: &Self) {
        *self = self.zip(other, u64::saturating_add);
    }

    /// Takes `other` away again; `other` must have been added before, otherwise fields stop at zero.
    pub fn subtract(&mut self, other: &Self) {
        *self = self.zip(other, u64::saturating_sub);
    }

    /// Retransmitted data segments: those of established and closing connections. SYN retransmissions belong to the
    /// connection attempts.
    pub fn data_retransmits(&self) -> u64 {
        self.retransmits.est.saturating_add(self.retransmits.close)
    }

    /// Connection attempts for the failure test: never fewer than the failures seen.
    pub fn attempts(&self) -> u64 {
        self.connects.max(self.failures())
    }

    /// Failed attempts: refused, unanswered, or rejected by a filter.
    pub fn failures(&self) -> u64 {
        self.connect_failures.saturating_add(self.rejects)
    }

    fn zip(&self, o: &Self, f: fn(u64, u64) -> u64) -> Self {
        Self {
            flows: f(self.flows, o.flows),
            retransmit_flows: f(self.retransmit_flows, o.retransmit_flows),
            segments: f(self.segments, o.segments),
            bytes: f(self.bytes, o.bytes),
            retransmits: self.retransmits.zip(o.retransmits, f),
            timeouts: self.timeouts.zip(o.timeouts, f),
            connects: f(self.connects, o.connects),
            connect_failures: f(self.connect_failures, o.connect_failures),
            resets: f(self.resets, o.resets),
            rejects: f(self.rejects, o.rejects),
        }
    }
}
