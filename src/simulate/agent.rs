//! The agents: who reports for a subnet, and when.
//!
//! Report `k` of an agent is published at `30 s * k + phase + jitter`, the jitter within 2.5 s either way, so
//! intervals are 25 to 35 s as with the real agent.

use super::random::{Purpose, hash};

/// Nominal time between two reports of one agent, milliseconds.
pub(super) const CADENCE_MS: i64 = 30_000;
/// Half the width of the jitter, milliseconds.
const JITTER_MS: i64 = 2_500;

/// One agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    /// Position in the region.
    pub(super) number: usize,
    pub(super) instance_id: String,
    /// The subnet it runs in.
    pub(super) subnet: usize,
    /// Position among the agents of its subnet.
    pub(super) within: usize,
    phase_ms: i64,
}

impl Agent {
    pub(super) fn new(seed: u64, number: usize, subnet: usize, within: usize) -> Self {
        let random = hash(seed, Purpose::Agent, number as u64, 0);
        let phase_ms = i64::try_from(random % CADENCE_MS.unsigned_abs()).unwrap_or_default();
        Self { number, instance_id: format!("i-{:017x}", random >> 4), subnet, within, phase_ms }
    }

    /// When report `k` is published, milliseconds after the region's start.
    pub(super) fn published_ms(&self, seed: u64, k: i64) -> i64 {
        let width = (2 * JITTER_MS + 1).unsigned_abs();
        let random = hash(seed, Purpose::Jitter, self.number as u64, k) % width;
        let jitter = i64::try_from(random).unwrap_or_default() - JITTER_MS;
        k.saturating_mul(CADENCE_MS).saturating_add(self.phase_ms + jitter)
    }

    /// The first report published at or after `from_ms`.
    pub(super) fn first_at(&self, seed: u64, from_ms: i64) -> i64 {
        let mut k = (from_ms - self.phase_ms).div_euclid(CADENCE_MS) - 1;
        while self.published_ms(seed, k) < from_ms {
            k += 1;
        }
        k
    }
}
