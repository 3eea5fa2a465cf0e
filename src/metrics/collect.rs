//! Requests at the collector: every answer is counted with its reason.
//!
//! `requests` has one series per route and outcome, all of them present from the start; `flows` counts what was inside the
//! accepted bodies.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::register::{MetricsError, Registrar};

/// The routes as label values; `other` is a path or method that does not exist.
pub const ROUTES: [&str; 3] = ["agent_reports", "flows", "other"];

/// Every outcome of a request, `accepted` and the reasons of a refusal.
pub const OUTCOMES: [&str; 17] = [
    "accepted",
    "body_timeout",
    "body_too_large",
    "client_gone",
    "decoded_too_large",
    "draining",
    "empty",
    "internal",
    "malformed",
    "method",
    "not_found",
    "overloaded",
    "record_too_large",
    "throttled",
    "unavailable",
    "unsupported_encoding",
    "unsupported_type",
];

/// Counts of the collector.
#[derive(Debug, Clone)]
pub struct CollectMetrics {
    /// Requests answered, by route and [`OUTCOMES`].
    pub requests: IntCounterVec,
    /// Bytes of request bodies received, as sent.
    pub body_bytes: IntCounterVec,
    /// Flows inside accepted bodies, by route and outcome (`accepted`, `malformed`).
    pub flows: IntCounterVec,
    /// Requests being worked on.
    pub in_flight: IntGauge,
    /// Seconds from the first byte of a request to its answer.
    pub request_seconds: Histogram,
    /// Records acknowledged by Kinesis.
    pub records_put: IntCounter,
    /// Bytes of records acknowledged by Kinesis.
    pub bytes_put: IntCounter,
    /// PutRecords entries that failed and were tried again or given up, by reason (`throttled`, `unavailable`).
    pub put_failures: IntCounterVec,
    /// Bytes of records waiting for Kinesis.
    pub queue_bytes: IntGauge,
}

impl CollectMetrics {
    /// Makes the metrics with every route and outcome at zero.
    ///
    /// # Errors
    /// [`MetricsError::Register`] on a name taken twice.
    pub fn new(r: &mut Registrar) -> Result<Self, MetricsError> {
        let requests = r.counters(
            "flowshift_collect_requests_total",
            "Requests answered by the collector, by reason.",
            &["route", "outcome"],
        )?;
        let body_bytes = r.counters(
            "flowshift_collect_body_bytes_total",
            "Bytes of request bodies received, before decompression.",
            &["route"],
        )?;
        let flows = r.counters(
            "flowshift_collect_flows_total",
            "Flows inside accepted bodies; malformed ones are passed on and counted again downstream.",
            &["route", "outcome"],
        )?;
        let put_failures = r.counters(
            "flowshift_collect_put_failures_total",
            "Records that Kinesis did not take at an attempt.",
            &["reason"],
        )?;
        for route in ROUTES {
            for outcome in OUTCOMES {
                requests.with_label_values(&[route, outcome]).inc_by(0);
            }
            body_bytes.with_label_values(&[route]).inc_by(0);
            for outcome in ["accepted", "malformed"] {
                flows.with_label_values(&[route, outcome]).inc_by(0);
            }
        }
        for reason in ["throttled", "unavailable"] {
            put_failures.with_label_values(&[reason]).inc_by(0);
        }
        Ok(Self {
            requests,
            body_bytes,
            flows,
            put_failures,
            in_flight: r.int_gauge("flowshift_collect_in_flight_requests", "Requests being worked on.")?,
            request_seconds: r.seconds(
                "flowshift_collect_request_duration_seconds",
                "Time from a request's headers to its answer.",
            )?,
            records_put: r
                .counter("flowshift_collect_put_records_total", "Records of the collector acknowledged by Kinesis.")?,
            bytes_put: r.counter("flowshift_collect_put_bytes_total", "Bytes of records acknowledged by Kinesis.")?,
            queue_bytes: r.int_gauge("flowshift_collect_queue_bytes", "Bytes of records waiting for Kinesis.")?,
        })
    }
}
