//! What is counted of AWS: calls by outcome, their time, the SDK's retries, DynamoDB capacity.

use std::time::Duration;

use super::EngineMetrics;

/// How a call to AWS ended, for the engine: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It did what was asked.
    Ok,
    /// A condition did not hold.
    Conflict,
    /// Refused for capacity or rate.
    Throttled,
    /// No connection, or an answer of 5xx: it may or may not have been applied.
    Unavailable,
    /// An iterator or a token was too old.
    Expired,
    /// There is no such stream, shard or table.
    NotFound,
    /// The request is wrong and will stay wrong.
    Invalid,
    /// No answer in time: it may or may not have been applied.
    Timeout,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Conflict,
        Self::Throttled,
        Self::Unavailable,
        Self::Expired,
        Self::NotFound,
        Self::Invalid,
        Self::Timeout,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Expired => "expired",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::Timeout => "timeout",
        }
    }
}

impl EngineMetrics {
    /// A call to AWS ended after `attempts` attempts.
    pub fn call(&self, service: &str, operation: &str, outcome: Outcome, took: Duration, attempts: u32) {
        self.set.calls.with_label_values(&[service, operation, outcome.as_str()]).inc();
        self.set.call_seconds.with_label_values(&[service, operation]).observe(took.as_secs_f64());
        let retries = u64::from(attempts.saturating_sub(1));
        self.set.retries.with_label_values(&[service, operation]).inc_by(retries);
    }

    /// Kinesis did not take these records of an answered call.
    pub(crate) fn put_failures(&self, stream: &str, outcome: Outcome, records: u64) {
        self.set.put_failures.with_label_values(&[stream, outcome.as_str()]).inc_by(records);
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
