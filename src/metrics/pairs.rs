//! The counters of the subnet pairs with the most flows: off by default, because a subnet is a label only where somebody
//! asked for it.
//!
//! Of all pairs whose lanes the process judges, `admin.top_pairs` have series of their own, and the rest are `other` to
//! `other`: at most that many and one, times seven. Every [`ROUND_S`] of event time the places are given anew by the
//! flows of the round. Whoever has a place keeps it unless another has a quarter more, so that series do not come and go;
//! who had no flow loses it, and its series with it, as do all pairs of an owner of lanes that ends. Invariant: no more
//! pairs than places have series, over all owners of lanes in the process. With the option on, a pane costs one lock and one look-up, and every pair of the round some 100
//! bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    owners: Arc<AtomicUsize>,
    board: Arc<Mutex<Board>>,
}

/// Counts panes for one owner of lanes; a pair is one owner's alone.
#[derive(Debug)]
pub struct TopPairs {
    metrics: PairMetrics,
    owner: usize,
}

#[derive(Debug, Default)]
struct Board {
    shown: BTreeMap<Pair, Place>,
    /// The others' flows of the round, each with its owner.
    beside: BTreeMap<Pair, (usize, u64)>,
    rest: Option<Traffic>,
    /// When the round ends, event time in seconds; none before the first pane.
    end_s: Option<i64>,
}

/// A pair with series.
#[derive(Debug)]
struct Place {
    series: Traffic,
    owner: usize,
    /// Of the round.
    flows: u64,
}

impl PairMetrics {
    /// Makes the families; none has a series before [`PairMetrics::show`].
    ///
    /// # Errors
    /// [`MetricsError::Register`] on a name taken twice.
    pub fn new(r: &mut Registrar) -> Result<Self, MetricsError> {
        let ends = "between the subnets with the most flows (admin.top_pairs: at most 200, none by default; all others as other)";
        let traffic = TrafficMetrics::new(r, "pair", ends, &LABELS)?;
        Ok(Self { traffic, places: Arc::default(), owners: Arc::default(), board: Arc::default() })
    }

    /// Gives so many pairs series of their own, at most [`MOST`]; 0: none, and no `other`.
    pub fn show(&self, places: usize) {
        self.places.store(places.min(MOST), Ordering::Relaxed);
    }

    /// For another owner of lanes.
    #[must_use]
    pub fn owner(&self) -> TopPairs {
        TopPairs { metrics: self.clone(), owner: self.owners.fetch_add(1, Ordering::Relaxed) }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TopPairs {
    /// Counts a pane of a pair that starts at `start_s`, event time in seconds.
    pub fn count(&self, pair: &Pair, start_s: i64, cell: &PaneCell) {
        let places = self.metrics.places.load(Ordering::Relaxed);
        if places == 0 {
            return;
        }
        let (mut board, traffic) = (self.metrics.board(), &self.metrics.traffic);
        board.turn(start_s, places, traffic);
        board.count((pair, self.owner), cell, places, traffic);
    }
}

impl Drop for TopPairs {
    fn drop(&mut self) {
        self.metrics.board().leave(self.owner, &self.metrics.traffic);
    }
}

impl Board {
    fn count(&mut self, (pair, owner): (&Pair, usize), cell: &PaneCell, places: usize, traffic: &TrafficMetrics) {
        // Subnets of that name share the series of all others.
        let named = [&*pair.src.id, &*pair.dst.id] != OTHER;
        if named && !self.shown.contains_key(pair) && self.shown.len() < places {
            self.give(pair.clone(), owner, traffic);
        }
        if let Some(place) = self.shown.get_mut(pair) {
            place.flows = place.flows.saturating_add(cell.counters.flows);
            return place.series.count(cell);
        }
        match self.beside.get_mut(pair) {
            Some((_, flows)) => *flows = flows.saturating_add(cell.counters.flows),
            None if named => drop(self.beside.insert(pair.clone(), (owner, cell.counters.flows))),
            None => {}
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
        self.take_where(|place| place.flows == 0, traffic);
        let mut asking: Vec<(Pair, (usize, u64))> = std::mem::take(&mut self.beside).into_iter().collect();
        asking.sort_by(|(one, (_, less)), (other, (_, more))| more.cmp(less).then_with(|| one.cmp(other)));
        for (pair, (owner, flows)) in asking.into_iter().take(places) {
            if self.shown.len() >= places {
                let weakest = self.shown.iter().min_by_key(|(_, place)| place.flows);
                let Some((weakest, less)) = weakest.map(|(pair, place)| (pair.clone(), place.flows)) else { break };
                if flows <= less.saturating_add(less / 4) {
                    break;
                }
                self.take(&weakest, traffic);
            }
            self.give(pair.clone(), owner, traffic);
            // One that has just got its place does not lose it in the same round.
            self.shown.entry(pair).and_modify(|place| place.flows = flows);
        }
        self.shown.values_mut().for_each(|place| place.flows = 0);
    }

    /// The pairs of an owner are another process's from now on, or another owner's.
    fn leave(&mut self, owner: usize, traffic: &TrafficMetrics) {
        self.take_where(|place| place.owner == owner, traffic);
        self.beside.retain(|_, (of, _)| *of != owner);
    }

    fn give(&mut self, pair: Pair, owner: usize, traffic: &TrafficMetrics) {
        let series = traffic.between([&pair.src.id, &pair.dst.id]);
        self.shown.insert(pair, Place { series, owner, flows: 0 });
    }

    fn take(&mut self, pair: &Pair, traffic: &TrafficMetrics) {
        self.shown.remove(pair);
        traffic.forget([&pair.src.id, &pair.dst.id]);
    }

    fn take_where(&mut self, goes: impl Fn(&Place) -> bool, traffic: &TrafficMetrics) {
        let gone: Vec<Pair> =
            self.shown.iter().filter(|(_, place)| goes(place)).map(|(pair, _)| pair.clone()).collect();
        gone.iter().for_each(|pair| self.take(pair, traffic));
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

    fn count(top: &TopPairs, number: u64, start_s: i64, flows: u64) {
        let mut cell = PaneCell::default();
        (cell.counters.flows, cell.counters.segments) = (flows, 10 * flows);
        top.count(&pair(number), start_s, &cell);
    }

    fn asked() -> (Metrics, TopPairs) {
        let metrics = Metrics::new().unwrap();
        let top = metrics.pairs.owner();
        (metrics, top)
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
        let (metrics, top) = asked();
        count(&top, 1, 0, 5);
        assert!(!metrics.to_text().unwrap().contains("flowshift_pair_"));
    }

    #[test]
    fn no_more_pairs_than_places_have_series_and_the_others_share_one() {
        let (metrics, top) = asked();
        metrics.pairs.show(2);
        (1..=4).for_each(|number| count(&top, number, 0, number));
        assert_eq!(shown(&metrics), ["other 7", "subnet-1 1", "subnet-2 2"]);
        metrics.pairs.show(100_000);
        (1..=1_000).for_each(|number| count(&top, number, 10, 1));
        assert_eq!(shown(&metrics).len(), MOST + 1);
    }

    #[test]
    fn a_round_later_the_places_are_those_of_the_pairs_with_the_most_flows() {
        let (metrics, top) = asked();
        metrics.pairs.show(2);
        (1..=4).for_each(|number| count(&top, number, 0, 100 * number));
        count(&top, 4, ROUND_S, 1);
        assert_eq!(shown(&metrics), ["other 700", "subnet-3 0", "subnet-4 1"]);
        let text = metrics.to_text().unwrap();
        assert!(!text.contains("subnet-1") && !text.contains("subnet-2"), "{text}");
    }

    /// Two pairs of about as many flows would change places in every round.
    #[test]
    fn who_has_a_place_keeps_it_unless_another_has_a_quarter_more() {
        let (metrics, top) = asked();
        metrics.pairs.show(1);
        let round = |start_s, first, second| {
            count(&top, 1, start_s, first);
            count(&top, 2, start_s, second);
            shown(&metrics).pop().unwrap().split(' ').next().unwrap().to_owned()
        };
        assert_eq!(round(0, 100, 125), "subnet-1");
        assert_eq!(round(ROUND_S, 100, 126), "subnet-1", "of the round before");
        assert_eq!(round(2 * ROUND_S, 100, 100), "subnet-2");
    }

    #[test]
    fn a_pair_without_flows_for_a_round_has_no_series_any_more() {
        let (metrics, top) = asked();
        metrics.pairs.show(5);
        (1..=2).for_each(|number| count(&top, number, 0, 3));
        count(&top, 1, ROUND_S, 3);
        count(&top, 1, 2 * ROUND_S, 3);
        assert_eq!(shown(&metrics), ["subnet-1 9"]);
    }

    /// They stood in its scrapes for ever, as they were when its lanes went to another worker.
    #[test]
    fn the_pairs_of_an_owner_that_ends_have_no_series_any_more() {
        let (metrics, top) = asked();
        metrics.pairs.show(5);
        let other = metrics.pairs.owner();
        count(&top, 1, 0, 3);
        count(&other, 2, 0, 4);
        drop(top);
        assert_eq!(shown(&metrics), ["subnet-2 4"]);
    }

    /// It would have taken the series of all others with it when it lost its place.
    #[test]
    fn subnets_called_other_are_among_the_others() {
        let (metrics, top) = asked();
        metrics.pairs.show(1);
        let mut cell = PaneCell::default();
        cell.counters.flows = 9;
        let named = Pair { src: Subnet::new("other", None), dst: Subnet::new("other", None) };
        top.count(&named, 0, &cell);
        count(&top, 1, 0, 3);
        count(&top, 1, ROUND_S, 3);
        assert_eq!(shown(&metrics), ["other 9", "subnet-1 6"]);
    }
}
