//! A bounded sample of the remote peers of a pair with exact counts.
//!
//! For: telling "the known peers got slower" from "new, farther peers came".
//! Not for: finding heavy hitters; the sample is by hash, not by weight.
//! Invariant: the sample holds the peers with the smallest hashes. A peer that is in the sample of a union is in the
//! sample of every part in which it occurs, so its counts are exact and merging is associative.

use serde::{Deserialize, Serialize};

use crate::sorted::SortedMap;

/// Number of peers kept per pane and pair.
pub const PEER_SAMPLE_SIZE: usize = 16;

/// What one remote peer did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounts {
    /// Flow records.
    pub flows: u64,
    /// Retransmitted segments.
    pub retransmits: u64,
    /// Flow records with a round-trip time.
    pub rtt_n: u64,
    /// Sum of their mean round-trip times, µs.
    pub rtt_sum_us: u64,
}

impl PeerCounts {
    fn add(&mut self, other: &Self) {
        self.flows = self.flows.saturating_add(other.flows);
        self.retransmits = self.retransmits.saturating_add(other.retransmits);
        self.rtt_n = self.rtt_n.saturating_add(other.rtt_n);
        self.rtt_sum_us = self.rtt_sum_us.saturating_add(other.rtt_sum_us);
    }
}

/// Bottom-k-by-hash sample of peers. The hash is the caller's (64 bits of a keyed or fixed-seed hash of the peer's
/// address); the same peer must always give the same hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSample {
    peers: SortedMap<u64, PeerCounts>,
}

impl PeerSample {
    /// Adds what one peer did.
    pub fn record(&mut self, peer_hash: u64, counts: &PeerCounts) {
        self.peers.or_insert_with(peer_hash, PeerCounts::default).add(counts);
        self.peers.truncate(PEER_SAMPLE_SIZE);
    }

    /// Adds `other`.
    pub fn merge(&mut self, other: &Self) {
        self.peers.merge(&other.peers, PEER_SAMPLE_SIZE, PeerCounts::add);
    }

    /// The sampled peers by ascending hash.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &PeerCounts)> + '_ {
        self.peers.iter().map(|(hash, counts)| (*hash, counts))
    }

    /// Number of sampled peers, at most [`PEER_SAMPLE_SIZE`].
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether no peer was recorded.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}
