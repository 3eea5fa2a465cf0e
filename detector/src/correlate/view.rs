//! One step of all lanes, seen for one signal.
//!
//! For: scores of pairs, and counts of worse and quiet pairs across an element.
//! Not for: history.
//! Invariant: a pair without a row is quiet and stands in the element sums, one with a row does not.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::PairCounts;
use crate::evidence::{PairRow, Signal, SignalRow};
use crate::feed::FeedKind;
use crate::topology::{Element, ElementKind, Pair};

use super::progress::StepPool;
use super::together::Elements;

/// Score in milli-nats from which a pair counts as worse.
pub(super) const WORSE_MN: i64 = 6_000;
/// Score in milli-nats below which a pair counts as quiet.
pub(super) const QUIET_MN: i64 = 2_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) pool: &'a StepPool,
    /// What the pairs of each element said together until now.
    pub(super) together: Option<&'a Elements>,
    pub(super) kind: FeedKind,
    pub(super) signal: Signal,
    /// End of the step, epoch s.
    pub(super) at: i64,
    pub(super) step_s: u32,
    /// Score that opens, milli-nats.
    pub(super) threshold_mn: i64,
    /// A lane is not in it: a pair without a row may be quiet or not heard.
    pub(super) partial: bool,
}

impl<'a> View<'a> {
    /// All rows that speak about the signal.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&'a PairRow, &'a SignalRow)> + use<'a> {
        let signal = self.signal;
        self.pool.rows.values().filter_map(move |row| Some((row, row.signals.iter().find(|s| s.signal == signal)?)))
    }

    pub(super) fn row(&self, pair: &Pair) -> Option<(&'a PairRow, &'a SignalRow)> {
        let row = self.pool.rows.get(pair)?;
        Some((row, row.signals.iter().find(|s| s.signal == self.signal)?))
    }

    /// Evidence that more than one pair of the element is worse, milli-nats; what opens is the threshold.
    pub(super) fn score_together(&self, element: &Element) -> i64 {
        self.together.map_or(0, |together| together.score_mn(element, self.signal))
    }

    /// What speaks for the element now, milli-nats; comparable between elements.
    pub(super) fn value_together(&self, element: &Element) -> i64 {
        self.together.map_or(0, |together| together.value_mn(element, self.signal))
    }

    /// Estimated start of what the pairs of the element score together, epoch s; `None` while they score nothing.
    pub(super) fn since_together(&self, element: &Element) -> Option<i64> {
        self.together.and_then(|together| together.since_s(element, self.signal))
    }

    /// Whether the pairs of any element score at least `least_mn` together.
    pub(super) fn any_together(&self, least_mn: i64) -> bool {
        self.together.is_some_and(|together| together.any(self.signal, least_mn))
    }

    /// Flow records a minute of a row's pair.
    pub(super) fn flows_per_minute(&self, row: &PairRow) -> u64 {
        row.flows.saturating_mul(60) / u64::from(self.step_s.max(1))
    }

    /// Whether a stronger kind of signal is alarmed on the pair right now and explains this one: failing connections
    /// explain the rest, loss explains latency.
    pub(super) fn is_explained(&self, pair: &Pair) -> bool {
        let Some(row) = self.pool.rows.get(pair) else { return false };
        row.signals.iter().any(|s| s.signal < self.signal && s.alarmed)
    }

    /// Worse and quiet pairs with enough traffic, without those set `apart`, for every element that a row's pair crosses or a sum tells about.
    pub(super) fn counts(&self, apart: &BTreeSet<Pair>) -> BTreeMap<Element, PairCounts> {
        let mut counts: BTreeMap<Element, PairCounts> = BTreeMap::new();
        for (element, sum) in &self.pool.elements {
            counts.entry(element.clone()).or_default().quiet += sum.powered;
        }
        for row in self.pool.rows.values().filter(|row| !apart.contains(&row.pair)) {
            let score = self.row(&row.pair).map_or(0, |(_, signal)| signal.score_mn);
            let worse = score > WORSE_MN;
            let quiet = score < QUIET_MN && self.flows_per_minute(row) >= 5;
            if !worse && !quiet {
                continue;
            }
            for element in row.pair.elements() {
                let count = counts.entry(element).or_default();
                count.worse += u32::from(worse);
                count.quiet += u32::from(quiet && !worse);
            }
        }
        counts
    }

    /// Worse and quiet pairs that share a zone or an end with `pair`, itself included, each counted once: pairs touching
    /// both zones are exactly those of the zone path.
    pub(super) fn neighbours(&self, pair: &Pair, counts: &BTreeMap<Element, PairCounts>) -> PairCounts {
        let mut sum = PairCounts::default();
        let elements = pair.elements();
        let zones = elements.iter().any(|e| e.kind == ElementKind::Az);
        for element in &elements {
            let Some(count) = counts.get(element) else { continue };
            match element.kind {
                ElementKind::AzPath => {
                    sum.worse = sum.worse.saturating_sub(count.worse);
                    sum.quiet = sum.quiet.saturating_sub(count.quiet);
                }
                ElementKind::Az => {
                    sum.worse += count.worse;
                    sum.quiet += count.quiet;
                }
                ElementKind::Subnet | ElementKind::Internet if !zones => {
                    sum.worse = sum.worse.max(count.worse);
                    sum.quiet = sum.quiet.max(count.quiet);
                }
                _ => {}
            }
        }
        sum
    }
}
