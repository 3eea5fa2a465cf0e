//! The whole set of metrics, made once at start and handed out by component.
//!
//! The registry is the program's own, not the process-wide default: two sets can live side by side in a test. Nothing
//! here counts; each component gets its part (all cheap clones of shared counters).

use prometheus::{Registry, TextEncoder};

use super::register::{Described, MetricsError, Registrar};
use super::{collect, pairs, paths, pipeline, webhook};
use flowshift_consumer::metrics::EngineMetrics;

/// Every metric of the program.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Records, reasons, incidents and lags.
    pub pipeline: pipeline::PipelineMetrics,
    /// What goes between availability zones.
    pub paths: paths::PathMetrics,
    /// What goes between the subnets with the most flows, when it is asked for.
    pub pairs: pairs::PairMetrics,
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
        let paths = paths::PathMetrics::new(&mut registrar)?;
        let pairs = pairs::PairMetrics::new(&mut registrar)?;
        let engine = registrar.engine()?;
        let collect = collect::CollectMetrics::new(&mut registrar)?;
        let webhook = webhook::WebhookMetrics::new(&mut registrar)?;
        let (registry, described) = registrar.finish();
        Ok(Self { pipeline, paths, pairs, engine, collect, webhook, registry, described })
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

    /// The rows of the README's table of metrics: name, labels, meaning.
    fn readme_rows() -> Vec<Described> {
        let rows = include_str!("../../README.md").lines().filter(|line| line.starts_with("| `flowshift_"));
        let described = rows.map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').splitn(3, '|').map(str::trim).collect();
            let code = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
            Described { name: code(cells[0]).concat(), help: cells[2].to_owned(), labels: code(cells[1]) }
        });
        described.collect()
    }

    #[test]
    fn the_readme_lists_every_metric_with_its_labels_and_meaning() {
        let metrics = Metrics::new().unwrap();
        for (row, described) in readme_rows().iter().zip(metrics.described()) {
            assert_eq!(row, described, "the README's table on the left, the program on the right");
        }
        let names = |all: &[Described]| all.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&readme_rows()), names(metrics.described()));
    }

    #[test]
    fn every_metric_has_the_prefix_and_a_sentence() {
        for described in Metrics::new().unwrap().described() {
            assert!(described.name.starts_with("flowshift_"), "{}", described.name);
            assert!(described.help.ends_with('.'), "{} has no sentence", described.name);
        }
    }

    #[test]
    fn no_label_can_grow_with_the_network() {
        let metrics = Metrics::new().unwrap();
        // Those of the top pairs have their own cap, and no series unless they are asked for.
        let pairs = |name: &str| name.starts_with("flowshift_pair_");
        for described in metrics.described().iter().filter(|described| !pairs(&described.name)) {
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
        "dst_az",
        "endpoint",
        "feed",
        "form",
        "operation",
        "outcome",
        "reason",
        "route",
        "service",
        "severity",
        "shard",
        "signal",
        "src_az",
        "status",
        "stream",
        "table",
        "verb",
        "verdict",
        "version",
        "when",
    ];
}
