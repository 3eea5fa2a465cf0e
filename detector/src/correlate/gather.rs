//! Which incidents take which pairs.
//!
//! For: one incident for one fault: pairs that a shared element explains open it together, join it, or bring their own
//! young incidents into it.
//! Not for: what explains them (see [`super::cover`]) and whose fault it is (see [`super::verdict`]).
//! Invariant: after a step every pair is in at most one open incident of its feed kind and signal.

use std::collections::BTreeSet;

use crate::event::Reason;
use crate::topology::Pair;

use super::cover::{Cover, JOINS_MN, Settled, alarm_mn, best_cover};
use super::incident::Strongest;
use super::life::{Step, is_shared};
use super::verdict::verdict_after;

/// Covers looked at in a step.
const MOST_COVERS: usize = 8;
/// An incident that began this much before the element's pairs spoke together is another fault, s.
const TOGETHER_S: i64 = 300;

impl Step<'_> {
    /// Lets the best shared elements take the fresh pairs and the young incidents that they explain.
    pub(super) fn gather(&mut self, fresh: &mut BTreeSet<Pair>) {
        self.join_known_elements(fresh);
        let any_young = self.open().any(|i| self.is_young(i));
        if fresh.is_empty() && !any_young && !self.view.any_together(alarm_mn(&self.view)) {
            return;
        }
        let mut settled = Settled::default();
        for incident in self.open().filter(|i| !self.is_young(i)) {
            settled.pairs.extend(incident.pairs.keys().cloned());
            settled.elements.extend(is_shared(incident).then(|| incident.element.clone()));
        }
        let dismissed = self.view.rows().map(|(row, _)| &row.pair).filter(|pair| self.is_dismissed(pair));
        settled.pairs.extend(dismissed.cloned());
        for _ in 0..MOST_COVERS {
            let Some(cover) = best_cover(&self.view, &settled, |pair| self.is_explained(pair)) else { return };
            match self.incident_for(&cover, &settled, fresh) {
                Some(index) => {
                    self.take_cover(index, &cover, fresh);
                    settled.pairs.extend(self.incidents[index].pairs.keys().cloned());
                    settled.elements.push(cover.element);
                }
                None => {
                    settled.passed.insert(cover.element);
                }
            }
        }
    }

    /// The incident that is to have a cover: the first of the young ones that it explains, into which the others go, or a
    /// new one when its pairs alarm, alone or together.
    fn incident_for(&mut self, cover: &Cover, settled: &Settled, fresh: &BTreeSet<Pair>) -> Option<usize> {
        let mut mine = Vec::new();
        let since_s = self.view.since_together(&cover.element);
        for (index, incident) in self.incidents.iter().enumerate() {
            if !self.is_mine(incident) || !self.is_young(incident) || settled.elements.contains(&incident.element) {
                continue;
            }
            let inside = incident.pairs.keys().all(|pair| pair.crosses(&cover.element));
            let together = since_s.is_none_or(|since_s| incident.started_s >= since_s.saturating_sub(TOGETHER_S));
            // At the end of a fault a few stragglers may fit another element better: they are no reason to move the blame.
            let stragglers = is_shared(incident) && cover.pairs.len() * 2 < incident.pairs.len();
            if incident.element == cover.element || inside && together && !stragglers {
                mine.push(index);
            } else if inside && stragglers {
                return None;
            }
        }
        if let Some((&first, rest)) = mine.split_first() {
            self.merge(first, rest);
            return Some(first);
        }
        if !cover.alarmed && !cover.pairs.iter().any(|pair| fresh.contains(pair)) {
            return None;
        }
        let member: BTreeSet<&Pair> = self.open().flat_map(|i| i.pairs.keys()).collect();
        if cover.pairs.iter().all(|pair| member.contains(pair)) {
            return None;
        }
        let strongest = self.strongest(&cover.pairs)?;
        Some(self.open_or_reopen(cover.element.clone(), cover.verdict(), strongest))
    }

    fn take_cover(&mut self, index: usize, cover: &Cover, fresh: &mut BTreeSet<Pair>) {
        let elsewhere: BTreeSet<Pair> = self.open().flat_map(|i| i.pairs.keys().cloned()).collect();
        let incident = &mut self.incidents[index];
        let verdict = verdict_after(incident, cover);
        let mut changed = incident.element != cover.element || incident.verdict != verdict;
        for pair in cover.pairs.iter().filter(|pair| !elsewhere.contains(*pair)) {
            let since_s = self.view.row(pair).map_or(self.view.at, |(_, signal)| signal.since_s);
            changed |= incident.join(pair, since_s);
        }
        fresh.retain(|pair| !incident.pairs.contains_key(pair));
        incident.element = cover.element.clone();
        incident.verdict = verdict;
        if changed {
            self.changed.insert(index);
        }
    }

    /// A pair that crosses the element of an open shared incident joins it, however old it is.
    fn join_known_elements(&mut self, fresh: &mut BTreeSet<Pair>) {
        let mut members: BTreeSet<Pair> = self.open().flat_map(|i| i.pairs.keys().cloned()).collect();
        for index in 0..self.incidents.len() {
            if !self.is_mine(&self.incidents[index]) || !is_shared(&self.incidents[index]) {
                continue;
            }
            let element = self.incidents[index].element.clone();
            for (row, signal) in self.view.rows().filter(|(_, s)| (s.alarmed || s.score_mn > JOINS_MN) && !s.new_normal)
            {
                if row.pair.crosses(&element) && !self.is_dismissed(&row.pair) && members.insert(row.pair.clone()) {
                    self.incidents[index].join(&row.pair, signal.since_s);
                    fresh.remove(&row.pair);
                    self.changed.insert(index);
                }
            }
        }
    }

    fn merge(&mut self, into: usize, others: &[usize]) {
        for &other in others {
            let pairs = std::mem::take(&mut self.incidents[other].pairs);
            let id = self.incidents[into].id.clone();
            for (pair, member) in &pairs {
                self.incidents[into].join(pair, member.since_s);
            }
            self.incidents[other].pairs = pairs;
            let event = self.incidents[other].resolve(self.view.at, Reason::Merged, Some(id));
            self.incidents[other].pairs.clear();
            self.events.push(event);
            self.changed.insert(into);
        }
    }

    fn strongest(&self, pairs: &[Pair]) -> Option<Strongest> {
        let rows = pairs.iter().filter_map(|pair| self.view.row(pair));
        rows.max_by(|a, b| a.1.score_mn.cmp(&b.1.score_mn).then_with(|| b.0.pair.cmp(&a.0.pair)))
            .map(|(row, signal)| Strongest::of(row, signal))
    }
}
