//! What is counted between mappers and lanes: batches, gaps, watermarks, sources.

use super::EngineMetrics;
use super::engine::gauge_value;

impl EngineMetrics {
    /// A batch was cut and emitted, which is a mapper's commit; `watermark_ms` is the first feed kind's after it.
    pub(crate) fn batch(&self, stream: &str, shard: &str, watermark_ms: i64) {
        self.set.batches.with_label_values(&[stream]).inc();
        self.set.checkpoint_age.reset(stream, shard);
        self.set.progress_age.reset(stream, shard);
        if let Some(seconds) = watermark_seconds(watermark_ms) {
            self.set.watermark.with_label_values(&[stream, shard]).set(seconds);
        }
    }

    /// Where the slowest lane of an exchange shard stands, event time, epoch milliseconds.
    pub(crate) fn lane_watermark(&self, stream: &str, shard: &str, watermark_ms: i64) {
        if let Some(seconds) = watermark_seconds(watermark_ms) {
            self.set.lane_watermark.with_label_values(&[stream, shard]).set(seconds);
        }
    }

    /// A lane found batches missing, or two that differ, and its shard stopped.
    pub(crate) fn gap_stopped(&self, stream: &str) {
        self.set.gaps.with_label_values(&[stream]).inc();
    }

    /// A batch that was cut is computed again; `outcome` is `same`, `expired`, `stopped` or `emitted`.
    pub(crate) fn recomputed(&self, stream: &str, outcome: &'static str) {
        self.set.recomputed.with_label_values(&[stream, outcome]).inc();
    }

    /// A lane goes on behind an accepted loss; `reason` is [`Loss::name`](crate::exchange::Loss::name), or `partial`
    /// when it keeps a part of an earlier emission.
    pub(crate) fn lane_incomplete(&self, stream: &str, reason: &'static str) {
        self.set.incomplete.with_label_values(&[stream, reason]).inc();
    }

    /// Lanes that nobody waits for, as the leader sees them.
    pub(crate) fn lanes_skipped(&self, lanes: usize) {
        self.set.skipped.with_label_values::<&str>(&[]).set(gauge_value(lanes));
    }

    /// Records that skip lanes were put.
    pub(crate) fn skips_put(&self, stream: &str, records: usize) {
        self.set.skips.with_label_values(&[stream]).inc_by(records as u64);
    }

    /// Number of input shards with this status.
    pub(crate) fn sources(&self, status: &str, count: usize) {
        self.set.sources.with_label_values(&[status]).set(gauge_value(count));
    }
}

/// None for the ends of time, which mean "nothing yet" and "no more".
fn watermark_seconds(ms: i64) -> Option<f64> {
    (ms != i64::MIN && ms != i64::MAX).then_some(ms as f64 / 1000.0)
}
