//! The collector over HTTP with a sink in memory, the grouping in paused time, and the SDK against a scripted Kinesis.

mod grouping;
mod http;
mod sdk;

use super::*;
use crate::metrics::Metrics;
use crate::metrics::collect::CollectMetrics;

fn metrics() -> CollectMetrics {
    Metrics::new().unwrap().collect
}
