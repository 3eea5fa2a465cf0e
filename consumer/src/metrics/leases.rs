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

    /// Whether this worker leads the job.
    pub(crate) fn leader(&self, leads: bool) {
        self.set.leader.with_label_values::<&str>(&[]).set(i64::from(leads));
    }

    /// Holes in the hash range of a stream's open leases, as the leader sees them.
    pub(crate) fn hash_holes(&self, stream: &str, holes: usize) {
        self.set.holes.with_label_values(&[stream]).set(gauge_value(holes));
    }
}
