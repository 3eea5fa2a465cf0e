//! Which shared element explains the pairs that are worse?
//!
//! For: one incident for one fault, and a verdict that quiet neighbours can refute.
//! Not for: single pairs; they need no explanation.
//! Method: likelihood cover: the evidence of the pairs across an element that lean towards a fault, also of those that
//! could not alarm alone, minus what its quiet pairs say against it, minus a prior; the best element wins, ties by id. Its
//! margin over the best rival of another kind tells how sure the choice is.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{PairCounts, Verdict};
use crate::evidence::Signal;
use crate::topology::{Element, ElementKind, Pair};

use super::view::{QUIET_MN, View};

const LEAST_PAIRS: usize = 3;
const PRIOR_MN: i64 = 4_000;
/// Most that one pair says for an element.
const SUPPORT_MN: i64 = 6_000;
/// Score from which a pair leans towards a fault, and from which it joins the incident of an element.
const LEANS_MN: i64 = 3_000;
const JOINS_MN: i64 = 4_000;
/// An element must be this much better than nothing to gather pairs; less for a subnet on which two alarms meet. (On a zone
/// path, two faults of workloads meet often enough: at small paths that blamed the provider for one workload in forty.)
const GATHER_MN: i64 = 8_000;
const GATHER_ALARMS_MN: i64 = 3_000;
const MARGIN_MN: i64 = 3_000;

/// An element that explains several pairs.
#[derive(Debug, Clone)]
pub(super) struct Cover {
    pub(super) element: Element,
    pub(super) pairs: Vec<Pair>,
    margin_mn: i64,
}

#[derive(Debug, Default)]
struct Said {
    says_mn: i64,
    leaning: usize,
    alarmed: usize,
    pairs: Vec<Pair>,
}

/// The best element that explains at least three of the free pairs that lean, if any is convincing.
pub(super) fn best_cover(view: &View<'_>, taken: &BTreeSet<Pair>) -> Option<Cover> {
    let mut found: BTreeMap<Element, Said> = BTreeMap::new();
    for row in view.pool.rows.values().filter(|row| !taken.contains(&row.pair)) {
        let (score, alarmed) = view.row(&row.pair).map_or((0, false), |(_, signal)| (signal.score_mn, signal.alarmed));
        let says = if score > QUIET_MN {
            (score - QUIET_MN).min(SUPPORT_MN)
        } else {
            let flows = i64::try_from(view.flows_per_minute(row).min(20)).unwrap_or(20);
            -flows * 75 * (QUIET_MN - score) / QUIET_MN
        };
        for element in row.pair.elements() {
            let entry = found.entry(element).or_default();
            entry.says_mn += says;
            entry.leaning += usize::from(score > LEANS_MN);
            entry.alarmed += usize::from(alarmed);
            if score > JOINS_MN {
                entry.pairs.push(row.pair.clone());
            }
        }
    }
    let mut ranked: Vec<(i64, Element, Said)> = found
        .into_iter()
        .filter(|(element, said)| said.leaning >= LEAST_PAIRS || two_suffice(element, said))
        .map(|(element, said)| {
            let sum = view.pool.elements.get(&element);
            let against = sum.map_or(0, |sum| sum.against_mn);
            // What all pairs said together, when it is clearer than what their scores say.
            let together = sum.map_or(i64::MIN, |sum| match view.signal {
                Signal::Retransmit => sum.loss_mn,
                Signal::Latency => sum.latency_mn,
                Signal::Connect | Signal::Silence => i64::MIN,
            });
            ((said.says_mn - against).max(together).saturating_sub(PRIOR_MN), element, said)
        })
        .collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let (value, element, said) = ranked.first()?;
    let (value, element, pairs) = (*value, element.clone(), said.pairs.clone());
    if value <= if two_suffice(&element, said) { GATHER_ALARMS_MN } else { GATHER_MN } {
        return None;
    }
    let rival = ranked.iter().skip(1).filter(|r| side(r.1.kind) != side(element.kind)).map(|r| r.0).max();
    Some(Cover { element, pairs, margin_mn: value - rival.unwrap_or(-9_000) })
}

fn two_suffice(element: &Element, said: &Said) -> bool {
    element.kind == ElementKind::Subnet && said.alarmed >= 2
}

impl Cover {
    /// Whose fault a fault of this element is.
    pub(super) fn verdict(&self) -> Verdict {
        let sources: BTreeSet<&Pair> = self.pairs.iter().collect();
        let sources: BTreeSet<_> = sources.iter().map(|pair| &pair.src).collect();
        match self.element.kind {
            ElementKind::Pair => Verdict::Insufficient,
            ElementKind::Subnet if self.margin_mn >= MARGIN_MN => Verdict::Workload,
            ElementKind::Az | ElementKind::AzPath
                if sources.len() >= 2 && self.pairs.len() >= LEAST_PAIRS && self.margin_mn >= MARGIN_MN =>
            {
                Verdict::ProviderPath
            }
            _ => Verdict::SharedUnknown,
        }
    }
}

/// The verdict on a single pair: workload when most neighbours with enough traffic are quiet, never the provider. While
/// an element of the pair has several pairs that lean the same way (`shared`), nobody knows yet.
pub(super) fn pair_verdict(neighbours: PairCounts, shared: bool) -> Verdict {
    let all = neighbours.worse + neighbours.quiet;
    if shared || all < 4 || u64::from(neighbours.quiet) * 10 < u64::from(all - 1) * 7 {
        Verdict::Insufficient
    } else {
        Verdict::Workload
    }
}

/// Whether, on some element of a pair, at least three pairs and a tenth of those with enough traffic lean towards a fault:
/// more than chance brings about.
pub(super) fn may_be_shared(view: &View<'_>, pair: &Pair) -> bool {
    pair.elements().iter().any(|element| {
        let (mut leaning, mut quiet) = (0, view.pool.elements.get(element).map_or(0, |sum| sum.powered));
        for row in view.pool.rows.values().filter(|row| row.pair.crosses(element)) {
            let score = view.row(&row.pair).map_or(0, |(_, signal)| signal.score_mn);
            leaning += u32::from(score > LEANS_MN);
            quiet += u32::from(score < QUIET_MN && view.flows_per_minute(row) >= 5);
        }
        leaning >= 3 + (leaning + quiet) / 10
    })
}

/// Elements that stand for the same kind of blame are no rivals.
fn side(kind: ElementKind) -> ElementKind {
    if kind == ElementKind::AzPath { ElementKind::Az } else { kind }
}

/// The signals in the order in which they explain each other.
pub(super) const SIGNALS: [Signal; 4] = [Signal::Connect, Signal::Retransmit, Signal::Latency, Signal::Silence];
