//! Whose fault it is.
//!
//! For: the verdict on a pair that nothing shared explains, and when a verdict changes.
//! Not for: which element explains what; see [`super::cover`], which also judges how sure that is.
//! Invariant: the provider is never blamed on one pair; what other incidents explain counts neither for nor against.

use std::collections::BTreeSet;

use crate::event::{PairCounts, Verdict};
use crate::topology::{ElementKind, Pair};

use super::cover::Cover;
use super::incident::Incident;
use super::life::{Step, is_shared};
use super::view::{QUIET_MN, View};

/// Score from which a pair leans towards a fault.
const LEANS_MN: i64 = 3_000;

impl Step<'_> {
    /// A young single incident that could not be judged for lack of neighbours may be judged later.
    pub(super) fn firm_up_verdicts(&mut self) {
        for index in 0..self.incidents.len() {
            let incident = &self.incidents[index];
            if !self.is_mine(incident) || !self.is_young(incident) || incident.verdict != Verdict::Insufficient {
                continue;
            }
            let verdict = self.verdict_on(&incident.strongest.pair);
            if verdict != Verdict::Insufficient {
                self.incidents[index].verdict = verdict;
                self.changed.insert(index);
            }
        }
    }

    pub(super) fn verdict_on(&self, pair: &Pair) -> Verdict {
        // What other incidents explain says nothing about this one.
        let others = self.open().filter(|i| is_shared(i) || !self.is_young(i));
        let apart: BTreeSet<Pair> = others.flat_map(|i| i.pairs.keys().filter(|p| *p != pair).cloned()).collect();
        let neighbours = self.view.neighbours(pair, &self.view.counts(&apart));
        pair_verdict(neighbours, may_be_shared(&self.view, pair, &apart))
    }
}

/// The verdict on a single pair: workload when most neighbours with enough traffic are quiet, never the provider. While
/// an element of the pair has several pairs that lean the same way (`shared`), nobody knows yet.
fn pair_verdict(neighbours: PairCounts, shared: bool) -> Verdict {
    let all = neighbours.worse + neighbours.quiet;
    if shared || all < 4 || u64::from(neighbours.quiet) * 10 < u64::from(all - 1) * 7 {
        Verdict::Insufficient
    } else {
        Verdict::Workload
    }
}

/// Whether, on some element of a pair, at least three pairs and a tenth of those with enough traffic lean towards a fault:
/// more than chance brings about.
fn may_be_shared(view: &View<'_>, pair: &Pair, apart: &BTreeSet<Pair>) -> bool {
    pair.elements().iter().any(|element| {
        let (mut leaning, mut quiet) = (0, view.pool.elements.get(element).map_or(0, |sum| sum.powered));
        for row in view.pool.rows.values().filter(|row| row.pair.crosses(element) && !apart.contains(&row.pair)) {
            let score = view.row(&row.pair).map_or(0, |(_, signal)| signal.score_mn);
            leaning += u32::from(score > LEANS_MN);
            quiet += u32::from(score < QUIET_MN && view.flows_per_minute(row) >= 5);
        }
        leaning >= 3 + (leaning + quiet) / 10
    })
}

/// The verdict of an incident that has a cover now. One that is decided stays while the blame stays on the same side: at the
/// end of a fault all pairs fall silent and the margins with them.
pub(super) fn verdict_after(incident: &Incident, cover: &Cover) -> Verdict {
    let same_side = side(incident.element.kind) == side(cover.element.kind);
    match cover.verdict() {
        Verdict::SharedUnknown if same_side && incident.verdict != Verdict::Insufficient => incident.verdict,
        verdict => verdict,
    }
}

/// Elements that stand for the same kind of blame are no rivals.
pub(super) fn side(kind: ElementKind) -> ElementKind {
    if kind == ElementKind::AzPath { ElementKind::Az } else { kind }
}
