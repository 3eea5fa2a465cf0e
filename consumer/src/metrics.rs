//! The engine's metrics: the only place that names them.
//!
//! Base units, bounded labels (stream, shard, a closed set of reasons), recorded per batch or commit, never per record.

use crate::log::Record;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The engine's metrics; cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    records: IntCounterVec,
    bytes: IntCounterVec,
    watermark: GaugeVec,
    iterator_age: GaugeVec,
    commits: IntCounterVec,
    batches: IntCounterVec,
    state_bytes: IntCounterVec,
    owned: IntGaugeVec,
    restarts: IntCounterVec,
    sources: IntGaugeVec,
    leader: IntGaugeVec,
}

/// A metric's name without its prefix, its help text, its labels.
type Described = (&'static str, &'static str, &'static [&'static str]);

const RECORDS: Described = ("records_read_total", "Records read from a stream.", &["stream"]);
const ITERATOR_AGE: Described =
    ("iterator_age_seconds", "Age of the next unread record of a shard; 0 at the tip.", &["stream", "shard"]);
const BYTES: Described = ("read_bytes_total", "Bytes of records read from a stream.", &["stream"]);
const WATERMARK: Described = (
    "source_watermark_timestamp_seconds",
    "Event time up to which an input shard is complete, Unix time; the lag is time() minus this.",
    &["stream", "shard"],
);
const COMMITS: Described = ("commits_total", "Commits of state and checkpoint together.", &["stream"]);
const BATCHES: Described = ("batches_total", "Numbered batches cut and emitted.", &["stream"]);
const STATE_BYTES: Described = ("state_written_bytes_total", "State written, before compression.", &["stream"]);
const OWNED: Described = ("leases_owned", "Leases this worker runs.", &["stream"]);
const RESTARTS: Described =
    ("shard_restarts_total", "Times a shard was started again from its commit after an error.", &["stream"]);
const SOURCES: Described = ("sources", "Input shards by status, as the leader sees them.", &["status"]);
const LEADER: Described = ("leader", "1 while this worker leads the job.", &[]);

impl EngineMetrics {
    /// Every metric: name without prefix, help text, labels.
    pub const ALL: [Described; 11] =
        [RECORDS, BYTES, WATERMARK, ITERATOR_AGE, COMMITS, BATCHES, STATE_BYTES, OWNED, RESTARTS, SOURCES, LEADER];

    /// Makes the metrics under names that begin with `PREFIX_` and registers them.
    ///
    /// # Errors
    /// A name is taken or malformed.
    pub fn register(registry: &Registry, prefix: &str) -> Result<Self, prometheus::Error> {
        let opts = |(name, help, _): Described| Opts::new(format!("{prefix}_{name}"), help);
        let counter = |described: Described| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(opts(described), described.2)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |described: Described| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(opts(described), described.2)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let iterator_age = GaugeVec::new(opts(ITERATOR_AGE), ITERATOR_AGE.2)?;
        registry.register(Box::new(iterator_age.clone()))?;
        let watermark = GaugeVec::new(opts(WATERMARK), WATERMARK.2)?;
        registry.register(Box::new(watermark.clone()))?;
        Ok(Self {
            bytes: counter(BYTES)?,
            watermark,
            iterator_age,
            records: counter(RECORDS)?,
            commits: counter(COMMITS)?,
            batches: counter(BATCHES)?,
            state_bytes: counter(STATE_BYTES)?,
            owned: gauge(OWNED)?,
            restarts: counter(RESTARTS)?,
            sources: gauge(SOURCES)?,
            leader: gauge(LEADER)?,
        })
    }

    pub(crate) fn read(&self, stream: &str, shard: &str, records: &[Record], behind_ms: i64) {
        self.records.with_label_values(&[stream]).inc_by(records.len() as u64);
        self.bytes.with_label_values(&[stream]).inc_by(records.iter().map(|r| r.data.len() as u64).sum());
        self.iterator_age.with_label_values(&[stream, shard]).set(behind_ms as f64 / 1000.0);
    }

    pub(crate) fn forget(&self, stream: &str, shard: &str) {
        // An error only says that the shard was never read.
        self.iterator_age.remove_label_values(&[stream, shard]).ok();
        self.watermark.remove_label_values(&[stream, shard]).ok();
    }

    pub(crate) fn committed(&self, stream: &str) {
        self.commits.with_label_values(&[stream]).inc();
    }

    /// A batch was emitted; `watermark_ms` is the first feed kind's after it.
    pub(crate) fn batch(&self, stream: &str, shard: &str, watermark_ms: i64) {
        self.batches.with_label_values(&[stream]).inc();
        if watermark_ms != i64::MIN && watermark_ms != i64::MAX {
            self.watermark.with_label_values(&[stream, shard]).set(watermark_ms as f64 / 1000.0);
        }
    }

    pub(crate) fn state_bytes(&self, stream: &str, bytes: u64) {
        self.state_bytes.with_label_values(&[stream]).inc_by(bytes);
    }

    pub(crate) fn owned(&self, stream: &str, leases: usize) {
        self.owned.with_label_values(&[stream]).set(i64::try_from(leases).unwrap_or(i64::MAX));
    }

    pub(crate) fn restarted(&self, stream: &str) {
        self.restarts.with_label_values(&[stream]).inc();
    }

    pub(crate) fn sources(&self, status: &str, count: usize) {
        self.sources.with_label_values(&[status]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn leader(&self, leads: bool) {
        self.leader.with_label_values::<&str>(&[]).set(i64::from(leads));
    }
}
