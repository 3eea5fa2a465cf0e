//! What is counted of leases: who owns them, how they move, whether they make progress.

use std::time::Duration;

use super::EngineMetrics;
use super::engine::gauge_value;

impl EngineMetrics {
    /// How many leases of a stream this worker runs.
    pub(crate) fn owned(&self, stream: &str, leases: usize) {
        self.set.owned.with_label_values(&[stream]).set(gauge_value(leases));
    }

    /// A lease was acquired: the ages of its shard begin.
    pub(crate) fn acquired(&self, stream: &str, shard: &str) {
        self.set.progress_age.reset(stream, shard);
        self.set.checkpoint_age.reset(stream, shard);
    }

    /// An owned shard stands at its tip with nothing to commit. A commit says so itself ([`EngineMetrics::committed`]).
    pub(crate) fn progressed(&self, stream: &str, shard: &str) {
        self.set.progress_age.reset(stream, shard);
    }

    /// A lease was lost that this worker had not given up.
    pub(crate) fn lease_lost(&self, stream: &str) {
        self.set.lost.with_label_values(&[stream]).inc();
    }

    /// The leader took a lease whose counter stood still from its owner.
    pub(crate) fn lease_expired(&self, stream: &str) {
        self.set.expired.with_label_values(&[stream]).inc();
    }

    /// A write to a lease row was refused.
    pub(crate) fn commit_conflict(&self, stream: &str) {
        self.set.conflicts.with_label_values(&[stream]).inc();
    }

    /// A refused write to a lease row was our own, whose answer was lost.
    pub(crate) fn spurious_recovery(&self, stream: &str) {
        self.set.spurious.with_label_values(&[stream]).inc();
    }

    /// Time from seeing a lease assigned to us to the first read of its shard.
    pub(crate) fn handed_over(&self, stream: &str, took: Duration) {
        self.set.hand_over.with_label_values(&[stream]).observe(took.as_secs_f64());
    }

    /// A shard starts again from its commit after an error.
    pub(crate) fn restarted(&self, stream: &str) {
        self.set.restarts.with_label_values(&[stream]).inc();
    }

    /// Whether this worker leads the job. One that does not says nothing of what only a leader sees: its last word
    /// would stand beside the next leader's for ever.
    pub(crate) fn leader(&self, leads: bool) {
        self.set.leader.with_label_values::<&str>(&[]).set(i64::from(leads));
        if !leads {
            self.set.holes.reset();
            self.set.skipped.reset();
            self.set.sources.reset();
        }
    }

    /// Holes in the hash range of a stream's open leases, as the leader sees them.
    pub(crate) fn hash_holes(&self, stream: &str, holes: usize) {
        self.set.holes.with_label_values(&[stream]).set(gauge_value(holes));
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use crate::metrics::EngineMetrics;

    /// Holes and shards by status stayed as the worker had seen them last, beside those of the next leader.
    #[test]
    fn a_worker_that_leads_no_more_says_nothing_of_what_only_a_leader_sees() {
        let registry = Registry::new();
        let metrics = EngineMetrics::register(&registry, "f").unwrap();
        let seen = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let told = ["f_hash_range_holes{stream=\"s\"} 3", "f_lanes_skipped 2", "f_sources{status=\"active\"} 4"];
        metrics.leader(true);
        metrics.hash_holes("s", 3);
        metrics.lanes_skipped(2);
        metrics.sources("active", 4);
        for line in told {
            assert!(seen().contains(line), "{line} is not in\n{}", seen());
        }
        metrics.leader(false);
        for line in ["f_hash_range_holes{", "f_lanes_skipped ", "f_sources{"] {
            assert!(!seen().contains(line), "{line} is still in\n{}", seen());
        }
        assert!(seen().contains("f_leader 0"));
    }
}
