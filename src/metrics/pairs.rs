//! The counters of the subnet pairs with the most flows: off by default, because a subnet is a label only where somebody
//! asked for it.
//!
//! Of all pairs whose lanes the process judges, `admin.top_pairs` have series of their own, and the rest are `other` to
//! `other`: at most that many and one, times seven. Every [`ROUND_S`] of event time the places are given anew by the
//! flows of the round. Whoever has a place keeps it unless another has a quarter more, so that series do not come and go;
//! who had no flow loses it, and its series with it. Invariant: no more pairs than places have series, over all owners of
//! lanes in the process. With the option on, a pane costs one lock and one look-up, and every pair of the round some 100
//! bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flowshift_detector::{Pair, PaneCell};

use super::register::{MetricsError, Registrar};
use super::traffic::{Traffic, TrafficMetrics};

/// Most pairs that can have series of their own in a process: 1,407 series.
pub const MOST: usize = 200;
/// Event time between two rankings, seconds.
pub const ROUND_S: i64 = 300;

const LABELS: [&str; 2] = ["src_subnet", "dst_subnet"];
const OTHER: [&str; 2] = ["other", "other"];

/// The families and who has places; clones share them.
#[derive(Debug, Clone)]
pub struct PairMetrics {
    traffic: TrafficMetrics,
    places: Arc<AtomicUsize>,
    board: Arc<Mutex<Board>>,
}

#[derive(Debug, Default)]
struct Board {
    /// Pairs with series, and their flows of the round.
    shown: BTreeMap<Pair, (Traffic, u64)>,
    /// The others' flows of the round.
    beside: BTreeMap<Pair, u64>,
    rest: Option<Traffic>,
    /// When the round ends, event time in seconds; none before the first pane.
    end_s: Option<i64>,
}

impl PairMetrics {
    /// Makes the families; none has a series before [`PairMetrics::show`].
    ///
    /// # Errors
    /// [`MetricsError::Register`] on a name taken twice.
    pub fn new(r: &mut Registrar) -> Result<Self, MetricsError> {
        let ends = "between the subnets with the most flows (admin.top_pairs, off by default; all others as other)";
        let traffic = TrafficMetrics::new(r, "pair", ends, &LABELS)?;
        Ok(Self { traffic, places: Arc::default(), board: Arc::default() })
    }

    /// Gives so many pairs series of their own, at most [`MOST`]; 0: none, and no `other`.
    pub fn show(&self, places: usize) {
        self.places.store(places.min(MOST), Ordering::Relaxed);
    }

    /// Counts a pane of a pair that starts at `start_s`, event time in seconds.
    pub fn count(&self, pair: &Pair, start_s: i64, cell: &PaneCell) {
        let places = self.places.load(Ordering::Relaxed);
        if places == 0 {
            return;
        }
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.turn(start_s, places, &self.traffic);
        board.count(pair, cell, places, &self.traffic);
    }
}

impl Board {
    fn count(&mut self, pair: &Pair, cell: &PaneCell, places: usize, traffic: &TrafficMetrics) {
        if !self.shown.contains_key(pair) && self.shown.len() < places {
            self.give(pair.clone(), traffic);
        }
        if let Some((series, flows)) = self.shown.get_mut(pair) {
            *flows = flows.saturating_add(cell.counters.flows);
            return series.count(cell);
        }
        match self.beside.get_mut(pair) {
            Some(flows) => *flows = flows.saturating_add(cell.counters.flows),
            None => drop(self.beside.insert(pair.clone(), cell.counters.flows)),
        }
        self.rest.get_or_insert_with(|| traffic.between(OTHER)).count(cell);
    }

    /// Gives the places anew when a round is over.
    fn turn(&mut self, start_s: i64, places: usize, traffic: &TrafficMetrics) {
        let end = self.end_s.get_or_insert_with(|| after(start_s));
        if start_s < *end {
            return;
        }
        *end = after(start_s);
        let silent: Vec<Pair> =
            self.shown.iter().filter(|(_, (_, flows))| *flows == 0).map(|(pair, _)| pair.clone()).collect();
        silent.iter().for_each(|pair| self.take(pair, traffic));
        let mut asking: Vec<(u64, Pair)> =
            std::mem::take(&mut self.beside).into_iter().map(|(pair, flows)| (flows, pair)).collect();
        asking.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
        for (flows, pair) in asking.into_iter().take(places) {
            if self.shown.len() >= places {
                let weakest = self.shown.iter().min_by_key(|(_, (_, flows))| *flows);
                let Some((weakest, less)) = weakest.map(|(pair, (_, flows))| (pair.clone(), *flows)) else { break };
                if flows <= less.saturating_add(less / 4) {
                    break;
                }
                self.take(&weakest, traffic);
            }
            self.give(pair.clone(), traffic);
            // One that has just got its place does not lose it in the same round.
            self.shown.entry(pair).and_modify(|(_, has)| *has = flows);
        }
        self.shown.values_mut().for_each(|(_, flows)| *flows = 0);
    }

    fn give(&mut self, pair: Pair, traffic: &TrafficMetrics) {
        let series = traffic.between([&pair.src.id, &pair.dst.id]);
        self.shown.insert(pair, (series, 0));
    }

    fn take(&mut self, pair: &Pair, traffic: &TrafficMetrics) {
        self.shown.remove(pair);
        traffic.forget([&pair.src.id, &pair.dst.id]);
    }
}

/// The end of the round of a moment.
fn after(start_s: i64) -> i64 {
    start_s.div_euclid(ROUND_S).saturating_add(1).saturating_mul(ROUND_S)
}

#[cfg(test)]
mod tests {
    use flowshift_detector::Subnet;

    use super::*;
    use crate::metrics::Metrics;

    fn pair(number: u64) -> Pair {
        Pair { src: Subnet::new(&format!("subnet-{number}"), None), dst: Subnet::new("subnet-z", None) }
    }

    fn count(metrics: &Metrics, number: u64, start_s: i64, flows: u64) {
        let mut cell = PaneCell::default();
        (cell.counters.flows, cell.counters.segments) = (flows, 10 * flows);
        metrics.pairs.count(&pair(number), start_s, &cell);
    }

    /// The sources with series, each with its flows.
    fn shown(metrics: &Metrics) -> Vec<String> {
        let text = metrics.to_text().unwrap();
        let lines = text.lines().filter(|line| line.starts_with("flowshift_pair_flows_total{"));
        let short = |line: &str| line.rsplit_once("src_subnet=\"").map(|(_, end)| end.replace("\"} ", " "));
        lines.filter_map(short).collect()
    }

    #[test]
    fn by_default_no_pair_has_a_series() {
        let metrics = Metrics::new().unwrap();
        count(&metrics, 1, 0, 5);
        assert!(!metrics.to_text().unwrap().contains("flowshift_pair_"));
    }

    #[test]
    fn no_more_pairs_than_places_have_series_and_the_others_share_one() {
        let metrics = Metrics::new().unwrap();
        metrics.pairs.show(2);
        (1..=4).for_each(|number| count(&metrics, number, 0, number));
        assert_eq!(shown(&metrics), ["other 7", "subnet-1 1", "subnet-2 2"]);
        metrics.pairs.show(100_000);
        (1..=1_000).for_each(|number| count(&metrics, number, 10, 1));
        assert_eq!(shown(&metrics).len(), MOST + 1);
    }

    #[test]
    fn a_round_later_the_places_are_those_of_the_pairs_with_the_most_flows() {
        let metrics = Metrics::new().unwrap();
        metrics.pairs.show(2);
        (1..=4).for_each(|number| count(&metrics, number, 0, 100 * number));
        count(&metrics, 4, ROUND_S, 1);
        assert_eq!(shown(&metrics), ["other 700", "subnet-3 0", "subnet-4 1"]);
        let text = metrics.to_text().unwrap();
        assert!(!text.contains("subnet-1") && !text.contains("subnet-2"), "{text}");
    }

    /// Two pairs of about as many flows would change places in every round.
    #[test]
    fn who_has_a_place_keeps_it_unless_another_has_a_quarter_more() {
        let metrics = Metrics::new().unwrap();
        metrics.pairs.show(1);
        let round = |start_s, first, second| {
            count(&metrics, 1, start_s, first);
            count(&metrics, 2, start_s, second);
            shown(&metrics).pop().unwrap().split(' ').next().unwrap().to_owned()
        };
        assert_eq!(round(0, 100, 125), "subnet-1");
        assert_eq!(round(ROUND_S, 100, 126), "subnet-1", "of the round before");
        assert_eq!(round(2 * ROUND_S, 100, 100), "subnet-2");
    }

    #[test]
    fn a_pair_without_flows_for_a_round_has_no_series_any_more() {
        let metrics = Metrics::new().unwrap();
        metrics.pairs.show(5);
        (1..=2).for_each(|number| count(&metrics, number, 0, 3));
        count(&metrics, 1, ROUND_S, 3);
        count(&metrics, 1, 2 * ROUND_S, 3);
        assert_eq!(shown(&metrics), ["subnet-1 9"]);
    }
}
