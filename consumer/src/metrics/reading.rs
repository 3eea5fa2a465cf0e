//! What is counted while reading: records, bytes, lag, KPL aggregates, expired records.

use super::EngineMetrics;
use crate::log::Record;

impl EngineMetrics {
    /// One page of a shard was read; `behind_ms` is Kinesis' MillisBehindLatest.
    pub(crate) fn read(&self, stream: &str, shard: &str, records: &[Record], behind_ms: i64) {
        self.set.records.with_label_values(&[stream]).inc_by(records.len() as u64);
        self.set.bytes.with_label_values(&[stream]).inc_by(records.iter().map(|r| r.data.len() as u64).sum());
        self.set.iterator_age.with_label_values(&[stream, shard]).set(behind_ms as f64 / 1000.0);
    }

    /// Reading goes on behind records that expired unread, or the shard expired whole.
    pub(crate) fn trimmed(&self, stream: &str) {
        self.set.trimmed.with_label_values(&[stream]).inc();
    }

    /// KPL aggregates of one page were taken apart.
    pub(crate) fn kpl_aggregates(&self, stream: &str, aggregates: u64) {
        self.set.kpl_aggregates.with_label_values(&[stream]).inc_by(aggregates);
    }

    /// Sub-records of one page lay outside the shard's hash range, soon after a reshard or not.
    pub(crate) fn kpl_out_of_range(&self, stream: &str, shard: &str, resharded: bool, records: u64) {
        let when = if resharded { "reshard" } else { "steady" };
        self.set.kpl_dropped.with_label_values(&[stream, shard, when]).inc_by(records);
    }

    /// Records of one page looked like KPL aggregates and were none; `reason` is of a closed set (`short`, `md5`, …).
    pub(crate) fn kpl_undecodable(&self, stream: &str, reason: &'static str, records: u64) {
        self.set.kpl_plain.with_label_values(&[stream, reason]).inc_by(records);
    }
}
