//! What is counted of AWS: calls by outcome, their time, the SDK's retries, DynamoDB capacity.

use std::collections::BTreeMap;
use std::time::Duration;

use super::EngineMetrics;
use crate::aws::Outcome;

impl EngineMetrics {
    /// A call to AWS ended after `attempts` attempts.
    pub fn call(&self, service: &str, operation: &str, outcome: Outcome, took: Duration, attempts: u32) {
        self.set.calls.with_label_values(&[service, operation, outcome.as_str()]).inc();
        self.set.call_seconds.with_label_values(&[service, operation]).observe(took.as_secs_f64());
        let retries = u64::from(attempts.saturating_sub(1));
        self.set.retries.with_label_values(&[service, operation]).inc_by(retries);
    }

    /// Kinesis did not take these records of an answered call, by why.
    pub(crate) fn put_failures(&self, stream: &str, records: &BTreeMap<Outcome, u64>) {
        for (outcome, count) in records {
            self.set.put_failures.with_label_values(&[stream, outcome.as_str()]).inc_by(*count);
        }
    }

    /// A call used read capacity of a table.
    pub(crate) fn read_units(&self, table: &str, units: f64) {
        self.set.read_units.with_label_values(&[table]).inc_by(units.max(0.0));
    }

    /// A call used write capacity of a table.
    pub(crate) fn write_units(&self, table: &str, units: f64) {
        self.set.write_units.with_label_values(&[table]).inc_by(units.max(0.0));
    }
}
