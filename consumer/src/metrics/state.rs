//! What is counted of committed state: commits, bytes by form, restores, discards.

use std::time::Duration;

use super::EngineMetrics;
use crate::commit::Written;

impl EngineMetrics {
    /// State and checkpoint of a shard were committed.
    pub(crate) fn committed(&self, stream: &str, shard: &str) {
        self.set.commits.with_label_values(&[stream]).inc();
        self.set.checkpoint_age.reset(stream, shard);
        self.set.progress_age.reset(stream, shard);
    }

    /// A part of state was written.
    pub(crate) fn state_written(&self, stream: &str, written: &Written) {
        let form = written.form.as_str();
        self.set.state_bytes.with_label_values(&[stream]).inc_by(written.plain);
        self.set.state_packed.with_label_values(&[stream, form]).inc_by(written.packed);
        self.set.state_parts.with_label_values(&[stream, form]).inc();
    }

    /// The committed state of a shard is `bytes` long before compression.
    pub(crate) fn state_held(&self, stream: &str, shard: &str, bytes: u64) {
        self.set.state_held.with_label_values(&[stream, shard]).set(bytes as f64);
    }

    /// A shard's committed state was read and proven.
    pub(crate) fn restored(&self, stream: &str, took: Duration) {
        self.set.restore.with_label_values(&[stream]).observe(took.as_secs_f64());
    }

    /// Committed state was given up by policy; `reason` is of a closed set (`moved`, `pending`, `missing`, `damaged`,
    /// `page`, `operator`).
    pub(crate) fn state_discarded(&self, stream: &str, reason: &'static str) {
        self.set.discarded.with_label_values(&[stream, reason]).inc();
    }
}
