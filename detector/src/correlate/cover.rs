//! Which shared element explains the pairs that are worse?
//!
//! For: one incident for one fault, and a verdict that quiet neighbours can refute.
//! Not for: single pairs; they need no explanation.
//! Method: likelihood cover: the evidence of the worse pairs across an element, minus what its quiet pairs say against
//! it, minus a prior; the best element wins, ties by id. Its margin over the best rival of another kind tells how sure
//! the choice is.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{PairCounts, Verdict};
use crate::evidence::Signal;
use crate::topology::{Element, ElementKind, Pair};

use super::view::{QUIET_MN, View, WORSE_MN};

const LEAST_PAIRS: usize = 3;
const PRIOR_MN: i64 = 4_000;
const SUPPORT_MN: i64 = 6_000;
/// An element must be this much better than nothing to gather pairs.
const GATHER_MN: i64 = 8_000;
const MARGIN_MN: i64 = 3_000;

/// An element that explains several pairs.
#[derive(Debug, Clone)]
pub(super) struct Cover {
    pub(super) element: Element,
    pub(super) pairs: Vec<Pair>,
    margin_mn: i64,
}

/// The best element that explains at least three of the free worse pairs, if any is convincing.
pub(super) fn best_cover(view: &View<'_>, taken: &BTreeSet<Pair>) -> Option<Cover> {
    let mut found: BTreeMap<Element, (i64, Vec<Pair>)> = BTreeMap::new();
    for row in view.pool.rows.values().filter(|row| !taken.contains(&row.pair)) {
        let score = view.row(&row.pair).map_or(0, |(_, signal)| signal.score_mn);
        let worse = score > WORSE_MN;
        let says = if worse {
            (score - WORSE_MN + 2_000).min(SUPPORT_MN)
        } else if score > QUIET_MN {
            0
        } else {
            -i64::try_from(view.flows_per_minute(row).min(20)).unwrap_or(20) * 75
        };
        for element in row.pair.elements() {
            let entry = found.entry(element).or_default();
            entry.0 += says;
            if worse {
                entry.1.push(row.pair.clone());
            }
        }
    }
    let mut ranked: Vec<(i64, Element, Vec<Pair>)> = found
        .into_iter()
        .filter(|(_, (_, pairs))| pairs.len() >= LEAST_PAIRS)
        .map(|(element, (says, pairs))| {
            let against = view.pool.elements.get(&element).map_or(0, |sum| sum.against_mn);
            (says - against - PRIOR_MN, element, pairs)
        })
        .collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let (value, element, pairs) = ranked.first()?.clone();
    if value <= GATHER_MN {
        return None;
    }
    let rival = ranked.iter().skip(1).filter(|r| side(r.1.kind) != side(element.kind)).map(|r| r.0).max();
    Some(Cover { element, pairs, margin_mn: value - rival.unwrap_or(-9_000) })
}

impl Cover {
    /// Whose fault a fault of this element is.
    pub(super) fn verdict(&self) -> Verdict {
        let sources: BTreeSet<&Pair> = self.pairs.iter().collect();
        let sources: BTreeSet<_> = sources.iter().map(|pair| &pair.src).collect();
        match self.element.kind {
            ElementKind::Pair => Verdict::Insufficient,
            ElementKind::Subnet if self.margin_mn >= MARGIN_MN => Verdict::Workload,
            ElementKind::Az | ElementKind::AzPath if sources.len() >= 2 && self.margin_mn >= MARGIN_MN => {
                Verdict::ProviderPath
            }
            _ => Verdict::SharedUnknown,
        }
    }
}

/// The verdict on a single pair: workload when most neighbours with enough traffic are quiet, never the provider.
pub(super) fn pair_verdict(neighbours: PairCounts) -> Verdict {
    let all = neighbours.worse + neighbours.quiet;
    if all < 4 || u64::from(neighbours.quiet) * 10 < u64::from(all - 1) * 7 {
        Verdict::Insufficient
    } else {
        Verdict::Workload
    }
}

/// Elements that stand for the same kind of blame are no rivals.
fn side(kind: ElementKind) -> ElementKind {
    if kind == ElementKind::AzPath { ElementKind::Az } else { kind }
}

/// The signals in the order in which they explain each other.
pub(super) const SIGNALS: [Signal; 3] = [Signal::Connect, Signal::Retransmit, Signal::Latency];
