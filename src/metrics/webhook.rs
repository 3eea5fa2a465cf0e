//! Deliveries to receivers, one set of series per endpoint.
//!
//! The label is the endpoint's configured name, never its URL: URLs can hold secrets. `attempts` counts every request,
//! `deliveries` counts entries at their end.

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};

use super::register::{MetricsError, Registrar};

/// How one request to a receiver ended.
pub const ATTEMPTS: [&str; 8] =
    ["ok", "throttled", "refused", "gone", "redirect", "timeout", "unreachable", "unsendable"];

/// How an entry ended at one endpoint; muted: its incident was, and the endpoint does not ask for such; filtered: the
/// endpoint's filter leaves it out; superseded: a later update of its incident took its place while it waited.
pub const DELIVERIES: [&str; 7] = ["delivered", "muted", "filtered", "superseded", "expired", "disabled", "unsendable"];

/// Counts of the deliverer.
#[derive(Debug, Clone)]
pub struct WebhookMetrics {
    /// Requests, by endpoint and [`ATTEMPTS`].
    pub attempts: IntCounterVec,
    /// Entries finished, by endpoint and [`DELIVERIES`].
    pub deliveries: IntCounterVec,
    /// Entries waiting at an endpoint.
    pub queue_length: IntGaugeVec,
    /// Age in seconds of the oldest entry waiting at an endpoint, 0 when none waits.
    pub oldest_age: GaugeVec,
    /// 1 when the endpoint answered 410 and gets nothing more, else 0; 0 in a process that does not deliver to it.
    pub disabled: IntGaugeVec,
    /// Seconds of one request.
    pub attempt_seconds: HistogramVec,
}

impl WebhookMetrics {
    /// Makes the metrics; series appear with [`WebhookMetrics::add_endpoint`].
    ///
    /// # Errors
    /// [`MetricsError::Register`] on a name taken twice.
    pub fn new(r: &mut Registrar) -> Result<Self, MetricsError> {
        Ok(Self {
            attempts: r.counters(
                "flowshift_webhook_attempts_total",
                "Requests to a receiver, by how they ended.",
                &["endpoint", "outcome"],
            )?,
            deliveries: r.counters(
                "flowshift_webhook_deliveries_total",
                "Outbox entries finished at an endpoint, by how they ended.",
                &["endpoint", "outcome"],
            )?,
            queue_length: r.int_gauges(
                "flowshift_webhook_queue_length",
                "Outbox entries waiting at an endpoint.",
                &["endpoint"],
            )?,
            oldest_age: r.gauges(
                "flowshift_webhook_oldest_seconds",
                "Age of the oldest entry waiting at an endpoint; 0 when none waits.",
                &["endpoint"],
            )?,
            disabled: r.int_gauges(
                "flowshift_webhook_endpoint_disabled",
                "1 when an endpoint answered 410 and gets nothing more until it is enabled; shown by the worker that delivers.",
                &["endpoint"],
            )?,
            attempt_seconds: r.seconds_by(
                "flowshift_webhook_attempt_duration_seconds",
                "Time of one request to a receiver.",
                &["endpoint"],
            )?,
        })
    }

    /// Shows an endpoint's series at zero; `name` is its configured name.
    pub fn add_endpoint(&self, name: &str) {
        for outcome in ATTEMPTS {
            self.attempts.with_label_values(&[name, outcome]).inc_by(0);
        }
        for outcome in DELIVERIES {
            self.deliveries.with_label_values(&[name, outcome]).inc_by(0);
        }
        self.queue_length.with_label_values(&[name]).set(0);
        self.oldest_age.with_label_values(&[name]).set(0.0);
        // Made of shares: an earlier owner in this process may still have its own.
        self.disabled.with_label_values(&[name]).add(0);
    }
}
