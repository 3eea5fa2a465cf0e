//! How far a pane can be trusted.
//!
//! For: keeping biased or incomplete panes out of the evidence.
//! Not for: counting lost records; that is done where records are dropped, by reason.
//! Invariant: merges exactly; the samples of agents hold the smallest hashes.

use serde::{Deserialize, Serialize};

/// Number of agents kept exactly; beyond it the count is an estimate.
pub const AGENT_SAMPLE_SIZE: usize = 32;

/// Bottom-k-by-hash sample of reporting agents: ascending, none twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSample {
    hashes: Vec<u64>,
}

impl AgentSample {
    /// Adds an agent by its 64-bit hash.
    pub fn record(&mut self, agent_hash: u64) {
        if let Err(at) = self.hashes.binary_search(&agent_hash) {
            self.hashes.insert(at, agent_hash);
            self.hashes.truncate(AGENT_SAMPLE_SIZE);
        }
    }

    /// Adds `other`.
    pub fn merge(&mut self, other: &Self) {
        if self.hashes.is_empty() {
            self.hashes.clone_from(&other.hashes);
        } else {
            other.hashes.iter().for_each(|&hash| self.record(hash));
        }
    }

    /// Number of distinct agents: exact below [`AGENT_SAMPLE_SIZE`], estimated from the largest kept hash at it.
    pub fn count(&self) -> u64 {
        match self.hashes.last() {
            Some(&last) if self.hashes.len() == AGENT_SAMPLE_SIZE && last > 0 => {
                ((AGENT_SAMPLE_SIZE - 1) as f64 * (u64::MAX as f64 / last as f64)) as u64
            }
            _ => self.hashes.len() as u64,
        }
    }

    /// The kept hashes in ascending order, for the exchange format.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.hashes.iter().copied()
    }
}

/// Feed quality of a pane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// Records that entered the pane (an interval that touches several panes counts in its last one).
    pub records: u64,
    /// Records that came after others of a later pane of the same source, though still in time.
    pub late: u64,
    /// Agents that reported.
    pub agents: AgentSample,
    /// Agents whose report was cut at its record limit: what is left is chosen by loss, so ratios are biased.
    pub truncated: AgentSample,
}

impl Quality {
    /// Adds `other`.
    pub fn merge(&mut self, other: &Self) {
        self.records = self.records.saturating_add(other.records);
        self.late = self.late.saturating_add(other.late);
        self.agents.merge(&other.agents);
        self.truncated.merge(&other.truncated);
    }

    /// Whether the pane is too biased to be evidence: at least a tenth of its agents were truncated.
    pub fn is_biased(&self) -> bool {
        let cut = self.truncated.count();
        cut > 0 && cut.saturating_mul(10) >= self.agents.count()
    }
}
