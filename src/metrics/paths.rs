//! What paths between availability zones carry: the counters behind a matrix of zones.
//!
//! The labels are the zones of the ends as the topology names them; an end outside the topology's subnets is `edge`, one
//! without a zone `unknown`. A region has a handful of zones; should a topology name more than
//! [`MOST`] paths, those beyond are `other` to `other`. Counted by DETECT as panes reach their lanes, so also again what a
//! new owner reads again behind the last commit, as with every counter of the stages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use flowshift_detector::{Pair, PaneCell, Subnet};

use super::register::{MetricsError, Registrar};
use super::traffic::{Traffic, TrafficMetrics};

/// Most paths with labels of their own in a process: twelve zones to each other.
pub const MOST: usize = 144;

const LABELS: [&str; 2] = ["src_az", "dst_az"];
const OTHER: &str = "other";

/// The families, and which paths have labels of their own.
#[derive(Debug, Clone)]
pub struct PathMetrics {
    traffic: TrafficMetrics,
    named: Arc<Mutex<BTreeSet<(String, String)>>>,
}

impl PathMetrics {
    /// Makes the families; series appear with the first pane of a path.
    ///
    /// # Errors
    /// [`MetricsError::Register`] on a name taken twice.
    pub fn new(r: &mut Registrar) -> Result<Self, MetricsError> {
        let traffic = TrafficMetrics::new(r, "az", "between availability zones", &LABELS)?;
        Ok(Self { traffic, named: Arc::default() })
    }

    fn path(&self, src: &str, dst: &str) -> Traffic {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let own = (src.to_owned(), dst.to_owned());
        let fits = named.contains(&own) || named.len() < MOST && named.insert(own);
        self.traffic.between(if fits { [src, dst] } else { [OTHER, OTHER] })
    }
}

/// Counts panes for one owner of lanes; keeps the series of the paths it has met.
#[derive(Debug)]
pub struct Paths {
    metrics: PathMetrics,
    met: BTreeMap<(Arc<str>, Arc<str>), Traffic>,
    edge: Arc<str>,
    unknown: Arc<str>,
}

impl Paths {
    /// None met.
    #[must_use]
    pub fn new(metrics: PathMetrics) -> Self {
        Self { metrics, met: BTreeMap::new(), edge: "edge".into(), unknown: "unknown".into() }
    }

    /// Counts a pane of a pair. Cost: one look-up and seven additions; allocates for the first pane of a path alone.
    pub fn count(&mut self, pair: &Pair, cell: &PaneCell) {
        let (src, dst) = (self.zone(&pair.src), self.zone(&pair.dst));
        let metrics = &self.metrics;
        self.met.entry((src, dst)).or_insert_with_key(|(src, dst)| metrics.path(src, dst)).count(cell);
    }

    fn zone(&self, end: &Subnet) -> Arc<str> {
        let known = if end.edge { &self.edge } else { end.az.as_ref().unwrap_or(&self.unknown) };
        Arc::clone(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn cell() -> PaneCell {
        let mut cell = PaneCell::default();
        (cell.counters.flows, cell.counters.segments, cell.counters.connects) = (3, 1_000, 4);
        (cell.counters.retransmits.syn, cell.counters.retransmits.est) = (7, 5);
        (cell.counters.connect_failures, cell.counters.rejects) = (2, 1);
        cell.rtt.record(1_500);
        assert!(cell.rtt.record_summary(2, 200, 300, 500));
        cell
    }

    fn pair(src: Subnet, dst: Subnet) -> Pair {
        Pair { src, dst }
    }

    #[test]
    fn a_pane_counts_for_the_zones_of_its_ends_in_its_direction() {
        let metrics = Metrics::new().unwrap();
        let mut paths = Paths::new(metrics.paths.clone());
        let (a, b) = (Subnet::new("subnet-a", Some("use1-az1")), Subnet::new("subnet-b", Some("use1-az2")));
        paths.count(&pair(a.clone(), b.clone()), &cell());
        paths.count(&pair(Subnet::new("subnet-c", Some("use1-az1")), b), &cell());
        paths.count(&pair(Subnet::edge("internet"), a.clone()), &cell());
        paths.count(&pair(a, Subnet::new("subnet-d", None)), &cell());
        let text = metrics.to_text().unwrap();
        for (name, value) in [
            ("flows_total", "6"),
            ("segments_total", "2000"),
            ("retransmits_total", "10"),
            ("connects_total", "8"),
            ("connect_failures_total", "6"),
            ("rtt_seconds_total", "0.004"),
            ("rtt_readings_total", "6"),
        ] {
            let line = format!("flowshift_az_{name}{{dst_az=\"use1-az2\",src_az=\"use1-az1\"}} {value}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains("flowshift_az_flows_total{dst_az=\"use1-az1\",src_az=\"edge\"} 3"), "{text}");
        assert!(text.contains("flowshift_az_flows_total{dst_az=\"unknown\",src_az=\"use1-az1\"} 3"), "{text}");
        assert!(!text.contains("subnet-a"), "{text}");
    }

    /// Over all owners of lanes in the process.
    #[test]
    fn a_topology_of_very_many_zones_makes_no_more_series_than_the_cap() {
        let metrics = Metrics::new().unwrap();
        for owner in 0..2 {
            let mut paths = Paths::new(metrics.paths.clone());
            for number in 0..MOST {
                let zone = format!("zone-{owner}-{number}");
                paths.count(&pair(Subnet::new("a", Some(&zone)), Subnet::new("b", Some(&zone))), &cell());
            }
        }
        let text = metrics.to_text().unwrap();
        let series = text.lines().filter(|line| line.starts_with("flowshift_az_flows_total{")).count();
        assert_eq!(series, MOST + 1);
        let rest = format!("flowshift_az_flows_total{{dst_az=\"other\",src_az=\"other\"}} {}", 3 * MOST);
        assert!(text.contains(&rest), "{text}");
    }
}
