//! One pane of one directed pair.
//!
//! For: collecting what records say, and merging what several batches said.
//! Not for: deciding which pane a record belongs to; see [`super::apportion`].
//! Invariant: [`PaneCell::merge`] is commutative and associative, with the empty cell as its neutral element.

use serde::{Deserialize, Serialize};

use super::{Counters, PeerSample, Quality, RttCell};

/// Everything one directed pair did in one pane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaneCell {
    /// Additive counters.
    pub counters: Counters,
    /// Largest number of retransmitted segments in a single flow record.
    pub max_retransmits: u64,
    /// Round-trip times, one value per flow record.
    pub rtt: RttCell,
    /// Sample of remote peers.
    pub peers: PeerSample,
    /// How far the pane can be trusted.
    pub quality: Quality,
}

impl PaneCell {
    /// Adds `other`.
    pub fn merge(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        self.max_retransmits = self.max_retransmits.max(other.max_retransmits);
        self.rtt.merge(&other.rtt);
        self.peers.merge(&other.peers);
        self.quality.merge(&other.quality);
    }

    /// Whether nothing at all was recorded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
