//! The set of metrics as one value that is handed to every part of the engine.

use prometheus::Registry;

use super::kind::Described;
use super::names::{self, Set};

/// The engine's metrics; cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    pub(super) set: Set,
}

impl EngineMetrics {
    /// Every metric: name without prefix, help text, labels.
    pub const ALL: &'static [Described] = names::ALL;

    /// Makes the metrics under names that begin with `PREFIX_` and registers them.
    ///
    /// # Errors
    /// A name is taken or malformed.
    pub fn register(registry: &Registry, prefix: &str) -> Result<Self, prometheus::Error> {
        Ok(Self { set: Set::register(registry, prefix)? })
    }

    /// A shard has left this worker: its series end.
    pub(crate) fn forget(&self, stream: &str, shard: &str) {
        let labels = [stream, shard];
        for gauge in [&self.set.iterator_age, &self.set.watermark, &self.set.lane_watermark, &self.set.state_held] {
            // An error only says that there was no such series.
            gauge.remove_label_values(&labels).ok();
        }
        self.set.progress_age.forget(stream, shard);
        self.set.checkpoint_age.forget(stream, shard);
    }
}

/// A count as a gauge's value.
pub(super) fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
