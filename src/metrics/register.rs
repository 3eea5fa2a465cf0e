//! Makes metrics and writes down what was made.
//!
//! A family with labels shows up in a scrape only after its first use, so a scrape cannot say which metrics exist. The
//! [`Registrar`] keeps that list for the README table, the dashboard and the alert rules to be compared with.
//! Invariant: every metric of the program was made here, so the list is complete.

use flowshift_consumer::metrics::EngineMetrics;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

/// A metric could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Two metrics share a name, or a name or label is not valid; a mistake in this folder.
    #[error("metric {name} cannot be registered: {source}")]
    Register {
        /// The metric's full name.
        name: String,
        /// What the registry said.
        source: prometheus::Error,
    },
    /// The registry could not be written as text.
    #[error("metrics cannot be written as text: {0}")]
    Encode(#[from] prometheus::Error),
}

/// One metric as the README's table shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Described {
    /// Full name, `flowshift_…`.
    pub name: String,
    /// Help text, one sentence.
    pub help: String,
    /// Label names in order; empty for a single series.
    pub labels: Vec<String>,
}

/// Makes metrics in one registry and remembers each.
#[derive(Debug, Default)]
pub struct Registrar {
    registry: Registry,
    described: Vec<Described>,
}

/// What every name begins with.
const PREFIX: &str = "flowshift";

/// Upper bounds in seconds of every duration histogram: 5 ms to 60 s.
const SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Registrar {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The engine's metrics, which it names itself.
    pub(super) fn engine(&mut self) -> Result<EngineMetrics, MetricsError> {
        let metrics = EngineMetrics::register(&self.registry, PREFIX)
            .map_err(|source| MetricsError::Register { name: format!("{PREFIX}_*"), source })?;
        self.described.extend(EngineMetrics::ALL.iter().map(|metric| Described {
            name: format!("{PREFIX}_{}", metric.name),
            help: metric.help.to_owned(),
            labels: metric.labels.iter().map(|label| (*label).to_owned()).collect(),
        }));
        Ok(metrics)
    }

    /// The registry and the sorted list of what it holds.
    pub(super) fn finish(mut self) -> (Registry, Vec<Described>) {
        self.described.sort();
        (self.registry, self.described)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.add(name, IntCounter::new(name, help))
    }

    pub(super) fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, MetricsError> {
        self.add(name, IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn float_counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<CounterVec, MetricsError> {
        self.add(name, CounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn int_gauge(&mut self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.add(name, IntGauge::new(name, help))
    }

    pub(super) fn int_gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricsError> {
        self.add(name, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, MetricsError> {
        self.add(name, GaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn seconds(&mut self, name: &str, help: &str) -> Result<Histogram, MetricsError> {
        self.add(name, Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec())))
    }

    pub(super) fn seconds_by(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, MetricsError> {
        self.add(name, HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels))
    }

    fn add<M>(&mut self, name: &str, made: prometheus::Result<M>) -> Result<M, MetricsError>
    where
        M: Collector + Clone + 'static,
    {
        let failed = |source| MetricsError::Register { name: name.to_owned(), source };
        let metric = made.map_err(failed)?;
        let described = metric
            .desc()
            .into_iter()
            .map(|desc| Described {
                name: desc.fq_name.clone(),
                help: desc.help.clone(),
                labels: desc.variable_labels.clone(),
            })
            .collect::<Vec<_>>();
        self.registry.register(Box::new(metric.clone())).map_err(failed)?;
        self.described.extend(described);
        Ok(metric)
    }
}
