//! Which shared element explains the pairs that are worse?
//!
//! For: one incident for one fault, and a verdict that quiet neighbours can refute.
//! Not for: single pairs; they need no explanation.
//! Method: likelihood cover: what all pairs across an element say together (see [`super::together`]), or what the scores of
//! those that lean towards a fault say minus what the quiet ones say against it, minus a prior; the best element wins, ties
//! by id. Its margin over the best rival of another kind tells how sure the choice is.
//! Invariant: at least two pairs lean, and without the largest the others speak for the element too.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Verdict;
use crate::evidence::Signal;
use crate::topology::{Element, ElementKind, Pair, Subnet};

use super::verdict::side;
use super::view::{QUIET_MN, View};

const LEAST_PAIRS: usize = 3;
const PRIOR_MN: i64 = 4_000;
/// Most that one pair says for an element.
const SUPPORT_MN: i64 = 6_000;
/// Score from which a pair leans towards a fault, and from which it joins the incident of an element.
const LEANS_MN: i64 = 2_000;
pub(super) const JOINS_MN: i64 = 4_000;
/// An element must be this much better than nothing to gather pairs; less where two pairs that lean suffice: on a subnet,
/// when both alarm (on a zone path two faults of workloads meet often enough: at small paths that blamed the provider for one
/// workload in forty), elsewhere when the pairs without the largest say [`HINTS_MN`] together.
const GATHER_MN: i64 = 8_000;
const GATHER_ALARMS_MN: i64 = 3_000;
const HINTS_MN: i64 = 2_000;
const MARGIN_MN: i64 = 3_000;
/// A zone must be this much better than one of its paths: more than any one pair says.
const WIDER_MN: i64 = 8_000;
/// An element alarms this much below a pair's threshold (ln 10): there are fewer elements than pairs, so that each may have
/// ten times a pair's budget.
const EASE_MN: i64 = 2_303;

/// An element that explains several pairs.
#[derive(Debug, Clone)]
pub(super) struct Cover {
    pub(super) element: Element,
    /// The pairs that are clearly worse.
    pub(super) pairs: Vec<Pair>,
    /// Pairs that lean towards the fault, and their source subnets.
    leaning: usize,
    sources: usize,
    /// Whether its pairs alarm together, so that none need alarm alone.
    pub(super) alarmed: bool,
    margin_mn: i64,
}

/// What no cover may take: pairs and elements that an incident has already, and elements that were looked at.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) pairs: BTreeSet<Pair>,
    pub(super) elements: Vec<Element>,
    pub(super) passed: BTreeSet<Element>,
}

impl Settled {
    fn has(&self, pair: &Pair) -> bool {
        self.pairs.contains(pair) || self.elements.iter().any(|element| pair.crosses(element))
    }
}

#[derive(Debug, Default)]
struct Said {
    says_mn: i64,
    leaning: usize,
    alarmed: usize,
    sources: BTreeSet<Subnet>,
    pairs: Vec<Pair>,
}

/// The best element that explains several of the free pairs that lean, if any is convincing.
pub(super) fn best_cover(view: &View<'_>, settled: &Settled, explained: impl Fn(&Pair) -> bool) -> Option<Cover> {
    let mut found: BTreeMap<Element, Said> = BTreeMap::new();
    for row in view.pool.rows.values().filter(|row| !settled.has(&row.pair) && !explained(&row.pair)) {
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
            if score > LEANS_MN {
                entry.leaning += 1;
                entry.sources.insert(row.pair.src.clone());
            }
            entry.alarmed += usize::from(alarmed);
            if score > JOINS_MN {
                entry.pairs.push(row.pair.clone());
            }
        }
    }
    let tainted: BTreeSet<Element> = settled.pairs.iter().flat_map(Pair::elements).collect();
    let value = |element: &Element, said: &Said| {
        let against = view.pool.elements.get(element).map_or(0, |sum| sum.against_mn);
        // What all pairs said together, when it is clearer than what their scores say.
        let together = if tainted.contains(element) { 0 } else { view.value_together(element) };
        (said.says_mn - against).max(together) - PRIOR_MN
    };
    let enough = |element: &Element, said: &Said| {
        (said.leaning >= LEAST_PAIRS || two_suffice(view, element, said)) && !settled.passed.contains(element)
    };
    let mut ranked: Vec<(i64, &Element, &Said)> = found
        .iter()
        .filter(|(element, said)| enough(element, said))
        .map(|(element, said)| (value(element, said), element, said))
        .collect();
    ranked.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let first = *ranked.first()?;
    // A path's fault speaks for its zones almost as much: the narrower is blamed, also by an incident that has it already.
    let within =
        |other: &Element| other.kind == ElementKind::AzPath && other.id.split('|').any(|az| *az == *first.1.id);
    let close = |r: &&(i64, &Element, &Said)| first.1.kind == ElementKind::Az && r.0 > first.0 - WIDER_MN;
    let (value, element, said) = ranked.iter().filter(close).find(|r| within(r.1)).copied().unwrap_or(first);
    let pairs = said.pairs.clone();
    if pairs.is_empty() || value <= if two_suffice(view, element, said) { GATHER_ALARMS_MN } else { GATHER_MN } {
        return None;
    }
    let alarmed = !tainted.contains(element) && view.score_together(element) >= alarm_mn(view);
    let other_side = |other: &Element| side(other.kind) != side(element.kind);
    let shares = |other: &Element| pairs.iter().any(|pair| pair.crosses(other));
    let rival = ranked.iter().filter(|r| other_side(r.1) && shares(r.1)).map(|r| r.0).max();
    let margin_mn = value - rival.unwrap_or(-9_000);
    let (leaning, sources) = (said.leaning, said.sources.len());
    Some(Cover { element: element.clone(), pairs, leaning, sources, alarmed, margin_mn })
}

/// Score from which the pairs of an element alarm together, milli-nats.
pub(super) fn alarm_mn(view: &View<'_>) -> i64 {
    view.threshold_mn - EASE_MN
}

fn two_suffice(view: &View<'_>, element: &Element, said: &Said) -> bool {
    element.kind == ElementKind::Subnet && said.alarmed >= 2
        || said.leaning >= 2 && view.score_together(element) >= HINTS_MN
}

impl Cover {
    /// Whose fault a fault of this element is.
    pub(super) fn verdict(&self) -> Verdict {
        match self.element.kind {
            ElementKind::Pair => Verdict::Insufficient,
            ElementKind::Subnet if self.margin_mn >= MARGIN_MN => Verdict::Workload,
            ElementKind::Az | ElementKind::AzPath
                if self.sources >= 2 && self.leaning >= LEAST_PAIRS && self.margin_mn >= MARGIN_MN =>
            {
                Verdict::ProviderPath
            }
            _ => Verdict::SharedUnknown,
        }
    }
}

/// The signals in the order in which they explain each other.
pub(super) const SIGNALS: [Signal; 4] = [Signal::Connect, Signal::Retransmit, Signal::Latency, Signal::Silence];
