//! Gauges that grow by themselves: seconds since something last happened to a shard.
//!
//! The age is taken at the scrape and not when the shard's task last ran, so a task that hangs is seen to hang.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::GaugeVec;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use tokio::time::Instant;

use super::kind::{Described, Metric};

/// Ages by (stream, shard); cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct AgeVec {
    gauge: GaugeVec,
    since: Arc<Mutex<BTreeMap<[String; 2], Instant>>>,
}

impl AgeVec {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<[String; 2], Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It happened now: the age is 0.
    pub(super) fn reset(&self, stream: &str, shard: &str) {
        self.lock().insert([stream.to_owned(), shard.to_owned()], Instant::now());
    }

    /// The shard is not ours any more.
    pub(super) fn forget(&self, stream: &str, shard: &str) {
        self.lock().remove(&[stream.to_owned(), shard.to_owned()]);
    }
}

impl Metric for AgeVec {
    fn make(described: &Described, prefix: &str) -> prometheus::Result<Self> {
        Ok(Self { gauge: GaugeVec::make(described, prefix)?, since: Arc::default() })
    }
}

impl Collector for AgeVec {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Held to the end: two scrapes at once must not clear each other's series.
        let since = self.lock();
        self.gauge.reset();
        for (labels, at) in since.iter() {
            self.gauge.with_label_values(&[&labels[0], &labels[1]]).set(at.elapsed().as_secs_f64());
        }
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::metrics::EngineMetrics;

    #[tokio::test(start_paused = true)]
    async fn the_age_grows_without_anyone_setting_it_and_goes_with_the_shard() {
        let registry = prometheus::Registry::new();
        let metrics = EngineMetrics::register(&registry, "test").unwrap();
        metrics.acquired("flows", "shard-1");
        tokio::time::advance(Duration::from_secs(90)).await;
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let line = |age: &str| format!("test_progress_age_seconds{{shard=\"shard-1\",stream=\"flows\"}} {age}");
        assert!(text().contains(&line("90")), "{}", text());
        metrics.progressed("flows", "shard-1");
        assert!(text().contains(&line("0")), "{}", text());
        metrics.forget("flows", "shard-1");
        assert!(!text().contains("shard-1"), "{}", text());
    }
}
