//! The whole set of metrics, made once at start and handed out by component.
//!
//! The registry is the program's own, not the process-wide default: two sets can live side by side in a test. Nothing
//! here counts; each component gets its part (all cheap clones of shared counters).

use prometheus::{Registry, TextEncoder};

use super::register::{Described, MetricsError, Registrar};
use super::{collect, pipeline, webhook};
use flowshift_consumer::metrics::EngineMetrics;

/// Every metric of the program.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Records, reasons, incidents and lags.
    pub pipeline: pipeline::PipelineMetrics,
    /// Leases, commits, batches and sources, named by the engine itself.
    pub engine: EngineMetrics,
    /// Requests at the door for agents.
    pub collect: collect::CollectMetrics,
    /// Deliveries to receivers.
    pub webhook: webhook::WebhookMetrics,
    registry: Registry,
    described: Vec<Described>,
}

impl Metrics {
    /// Makes the set in a registry of its own, every closed label set already at zero.
    ///
    /// # Errors
    /// [`MetricsError::Register`] when two metrics share a name or a name is not valid: a mistake in the program.
    pub fn new() -> Result<Self, MetricsError> {
        let mut registrar = Registrar::new();
        let build_info = registrar.int_gauges(
            "flowshift_build_info",
            "Always 1; the label says which version runs.",
            &["version"],
        )?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let pipeline = pipeline::PipelineMetrics::new(&mut registrar)?;
        let engine = registrar.engine()?;
        let collect = collect::CollectMetrics::new(&mut registrar)?;
        let webhook = webhook::WebhookMetrics::new(&mut registrar)?;
        let (registry, described) = registrar.finish();
        Ok(Self { pipeline, engine, collect, webhook, registry, described })
    }

    /// The registry, for a scrape.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Every metric sorted by name, also those that have no series yet.
    #[must_use]
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// The scrape in Prometheus text format 0.0.4.
    ///
    /// # Errors
    /// [`MetricsError::Encode`] when a family cannot be written.
    pub fn to_text(&self) -> Result<String, MetricsError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_listed_once_with_prefix_and_help() {
        let metrics = Metrics::new().unwrap();
        let names = metrics.described().iter().map(|d| d.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names, NAMES, "update the README's metrics table together with this list");
        for described in metrics.described() {
            assert!(described.help.ends_with('.'), "{} has no sentence", described.name);
        }
    }

    #[test]
    fn no_label_can_grow_with_the_network() {
        let metrics = Metrics::new().unwrap();
        for described in metrics.described() {
            for label in &described.labels {
                assert!(LABELS.contains(&label.as_str()), "{} has label {label}", described.name);
            }
        }
    }

    #[test]
    fn a_scrape_shows_every_closed_label_set_before_the_first_event() {
        let text = Metrics::new().unwrap().to_text().unwrap();
        for line in [
            "flowshift_records_rejected_total{reason=\"late\"} 0",
            "flowshift_records_rejected_total{reason=\"malformed\"} 0",
            "flowshift_collect_requests_total{outcome=\"accepted\",route=\"agent_reports\"} 0",
            "flowshift_incidents_open 0",
        ] {
            assert!(text.contains(line), "no line {line} in:\n{text}");
        }
    }

    #[test]
    fn two_sets_do_not_share_counts() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.pipeline.incidents_open.set(3);
        assert_eq!(other.pipeline.incidents_open.get(), 0);
    }

    const LABELS: &[&str] = &[
        "endpoint",
        "feed",
        "operation",
        "outcome",
        "reason",
        "route",
        "service",
        "severity",
        "shard",
        "signal",
        "stream",
        "verdict",
        "version",
    ];

    const NAMES: &[&str] = &[
        "flowshift_aws_throttles_total",
        "flowshift_batch_gaps_total",
        "flowshift_batches_repeated_total",
        "flowshift_build_info",
        "flowshift_checkpoint_age_seconds",
        "flowshift_collect_body_bytes_total",
        "flowshift_collect_flows_total",
        "flowshift_collect_in_flight_requests",
        "flowshift_collect_put_bytes_total",
        "flowshift_collect_put_failures_total",
        "flowshift_collect_put_records_total",
        "flowshift_collect_queue_bytes",
        "flowshift_collect_request_duration_seconds",
        "flowshift_collect_requests_total",
        "flowshift_commit_duration_seconds",
        "flowshift_commits_fenced_total",
        "flowshift_cuts_replayed_total",
        "flowshift_cuts_total",
        "flowshift_event_time_lag_seconds",
        "flowshift_incidents_open",
        "flowshift_incidents_opened_total",
        "flowshift_incidents_resolved_total",
        "flowshift_input_bytes_total",
        "flowshift_iterator_age_seconds",
        "flowshift_lanes_owned",
        "flowshift_leader",
        "flowshift_lease_renewal_failures_total",
        "flowshift_leases_owned",
        "flowshift_leases_taken_total",
        "flowshift_records_accounted_total",
        "flowshift_records_in_total",
        "flowshift_records_rejected_total",
        "flowshift_shards_stopped",
        "flowshift_state_written_bytes_total",
        "flowshift_steps_judged_total",
        "flowshift_subnet_pairs",
        "flowshift_watermark_lag_seconds",
        "flowshift_webhook_attempt_duration_seconds",
        "flowshift_webhook_attempts_total",
        "flowshift_webhook_deliveries_total",
        "flowshift_webhook_endpoint_disabled",
        "flowshift_webhook_oldest_seconds",
        "flowshift_webhook_queue_length",
    ];
}
