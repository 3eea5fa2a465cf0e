//! What a metric is before it has a name: the vector types in use, and how each is made from its description.
//!
//! Not here: which metrics there are ([`names`](super::names)).

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

/// Upper bounds in seconds of every duration histogram: 1 ms to 60 s.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 20.0, 60.0];

/// A metric's name without its prefix, its help text, its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// Name without prefix; the unit is its ending.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Label names in order.
    pub labels: &'static [&'static str],
}

impl Described {
    pub(super) fn opts(&self, prefix: &str) -> Opts {
        Opts::new(format!("{prefix}_{}", self.name), self.help)
    }
}

/// A kind of metric that can be made from its description.
pub(super) trait Metric: Collector + Clone + 'static {
    fn make(described: &Described, prefix: &str) -> prometheus::Result<Self>;
}

impl Metric for IntCounterVec {
    fn make(described: &Described, prefix: &str) -> prometheus::Result<Self> {
        Self::new(described.opts(prefix), described.labels)
    }
}

impl Metric for prometheus::CounterVec {
    fn make(described: &Described, prefix: &str) -> prometheus::Result<Self> {
        Self::new(described.opts(prefix), described.labels)
    }
}

impl Metric for IntGaugeVec {
    fn make(described: &Described, prefix: &str) -> prometheus::Result<Self> {
        Self::new(described.opts(prefix), described.labels)
    }
}

impl Metric for GaugeVec {
    fn make(described: &Described, prefix: &str) -> prometheus::Result<Self> {
        Self::new(described.opts(prefix), described.labels)
    }
}

impl Metric for HistogramVec {
    fn make(described: &Described, prefix: &str) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::from(described.opts(prefix)).buckets(SECONDS.to_vec()), described.labels)
    }
}
