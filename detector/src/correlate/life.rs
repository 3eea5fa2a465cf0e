//! The life of incidents: opening, gathering, leaving, ending, re-opening.
//!
//! For: turning one step of all lanes into events.
//! Not for: the order of steps.
//! Invariant: per feed kind and signal a pair is in at most one incident; events come in the order merged, changed,
//! opened, resolved, each group in the order in which the incidents opened.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{AnomalyEvent, EventType, PairCounts, Reason, Verdict};
use crate::feed::FeedKind;
use crate::topology::{Element, ElementKind, Pair};

use super::cover::{Cover, SIGNALS, best_cover, may_be_shared, pair_verdict};
use super::incident::{Incident, Strongest};
use super::progress::StepPool;
use super::view::View;
use super::words::Words;

/// Incidents younger than this may still be gathered into a shared one, s.
const YOUNG_S: i64 = 900;
/// A change that comes back within this time re-opens its incident, s.
const REOPEN_S: i64 = 1_800;
const CALM_STEPS: u8 = 5;
const CALM_MN: i64 = 5_000;

/// Takes one step and tells what changed; `partial`: without a lane that was skipped.
pub(super) fn step(
    incidents: &mut Vec<Incident>,
    words: &Words,
    pool: &StepPool,
    kind: FeedKind,
    at: i64,
    step_s: u32,
    partial: bool,
) -> Vec<AnomalyEvent> {
    let mut events = Vec::new();
    for signal in SIGNALS {
        let view = View { pool, kind, signal, at, step_s, partial };
        Step { view, counts: view.counts(), incidents, words, events: &mut events, changed: BTreeSet::new() }.run();
    }
    incidents.retain(|i| i.resolved_s.is_none_or(|resolved| at.saturating_sub(resolved) <= REOPEN_S));
    events
}

/// Whether any incident of the kind is open.
pub(super) fn is_idle(incidents: &[Incident], kind: FeedKind) -> bool {
    !incidents.iter().any(|i| i.kind == kind && i.resolved_s.is_none())
}

struct Step<'a> {
    view: View<'a>,
    counts: BTreeMap<Element, PairCounts>,
    incidents: &'a mut Vec<Incident>,
    words: &'a Words,
    events: &'a mut Vec<AnomalyEvent>,
    /// Indices of incidents that must be told about.
    changed: BTreeSet<usize>,
}

impl Step<'_> {
    fn run(&mut self) {
        let mut fresh = self.fresh_alarms();
        if !fresh.is_empty() || self.open().any(|i| self.is_young(i)) {
            self.gather(&mut fresh);
        }
        for pair in fresh {
            self.open_single(&pair);
        }
        self.firm_up_verdicts();
        self.leave();
        self.tell();
    }

    fn is_mine(&self, incident: &Incident) -> bool {
        incident.kind == self.view.kind && incident.signal == self.view.signal && incident.resolved_s.is_none()
    }

    fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(|i| self.is_mine(i))
    }

    fn is_young(&self, incident: &Incident) -> bool {
        self.view.at.saturating_sub(incident.opened_s) <= YOUNG_S
    }

    /// Alarmed pairs that are in no incident and are not explained by a stronger signal.
    fn fresh_alarms(&self) -> BTreeSet<Pair> {
        let member: BTreeSet<&Pair> = self.open().flat_map(|i| i.pairs.keys()).collect();
        let alarmed = self.view.rows().filter(|(_, signal)| signal.alarmed).map(|(row, _)| &row.pair);
        let fresh = alarmed.filter(|pair| !member.contains(pair) && !self.view.is_explained(pair));
        fresh.filter(|pair| !self.is_dismissed(pair)).cloned().collect()
    }

    /// Whether an operator said that what the pair shows is no issue.
    fn is_dismissed(&self, pair: &Pair) -> bool {
        let View { kind, signal, at, .. } = self.view;
        if self.words.dismissals().next().is_none() {
            return false;
        }
        self.view.row(pair).is_some_and(|(row, said)| {
            self.words.dismisses((kind, signal), pair, &said.effect, self.view.flows_per_minute(row), at)
        })
    }

    /// Lets the best shared element take the fresh pairs and the young incidents that it explains.
    fn gather(&mut self, fresh: &mut BTreeSet<Pair>) {
        self.join_known_elements(fresh);
        let old = self.open().filter(|i| !self.is_young(i)).flat_map(|i| i.pairs.keys().cloned());
        let dismissed = self.view.rows().map(|(row, _)| &row.pair).filter(|pair| self.is_dismissed(pair));
        let taken: BTreeSet<Pair> = old.chain(dismissed.cloned()).collect();
        let Some(cover) = best_cover(&self.view, &taken) else { return };
        let mut mine = Vec::new();
        for (index, incident) in self.incidents.iter().enumerate() {
            if !self.is_mine(incident) || !self.is_young(incident) {
                continue;
            }
            let inside = incident.pairs.keys().all(|pair| pair.elements().contains(&cover.element));
            if inside || incident.element == cover.element {
                mine.push(index);
            }
        }
        if mine.is_empty() && !cover.pairs.iter().any(|pair| fresh.contains(pair)) {
            return;
        }
        let index = match mine.split_first() {
            Some((&first, rest)) => {
                self.merge(first, rest);
                first
            }
            None => {
                let Some(strongest) = self.strongest(&cover.pairs) else { return };
                self.incidents.push(Incident::open(&self.view, cover.element.clone(), cover.verdict(), strongest));
                self.incidents.len() - 1
            }
        };
        self.take_cover(index, &cover, fresh);
    }

    fn take_cover(&mut self, index: usize, cover: &Cover, fresh: &mut BTreeSet<Pair>) {
        let elsewhere: BTreeSet<Pair> = self.open().flat_map(|i| i.pairs.keys().cloned()).collect();
        let verdict = cover.verdict();
        let incident = &mut self.incidents[index];
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
        for index in 0..self.incidents.len() {
            let incident = &self.incidents[index];
            if !self.is_mine(incident) || incident.element.kind == ElementKind::Pair {
                continue;
            }
            let element = incident.element.clone();
            let joining: Vec<Pair> = fresh.iter().filter(|p| p.elements().contains(&element)).cloned().collect();
            for pair in joining {
                let since_s = self.view.row(&pair).map_or(self.view.at, |(_, signal)| signal.since_s);
                self.incidents[index].join(&pair, since_s);
                fresh.remove(&pair);
                self.changed.insert(index);
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

    fn open_single(&mut self, pair: &Pair) {
        let Some((row, signal)) = self.view.row(pair) else { return };
        let strongest = Strongest::of(row, signal);
        let verdict = self.verdict_on(pair);
        let before = self.incidents.iter().rposition(|i| {
            i.kind == self.view.kind
                && i.signal == self.view.signal
                && i.resolved_s.is_some()
                && i.reason == Some(Reason::Recovered)
                && i.strongest.pair == *pair
        });
        let index = match before {
            Some(index) => {
                let incident = &mut self.incidents[index];
                incident.resolved_s = None;
                incident.pairs.clear();
                (incident.opened_s, incident.started_s) = (self.view.at, self.view.at);
                (incident.element, incident.verdict) = (pair.element(), verdict);
                index
            }
            None => {
                self.incidents.push(Incident::open(&self.view, pair.element(), verdict, strongest));
                self.incidents.len() - 1
            }
        };
        self.incidents[index].join(pair, signal.since_s);
        self.changed.insert(index);
    }

    fn verdict_on(&self, pair: &Pair) -> Verdict {
        pair_verdict(self.view.neighbours(pair, &self.counts), may_be_shared(&self.view, pair))
    }

    /// A young single incident that could not be judged for lack of neighbours may be judged later.
    fn firm_up_verdicts(&mut self) {
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

    fn leave(&mut self) {
        for index in 0..self.incidents.len() {
            if !self.is_mine(&self.incidents[index]) {
                continue;
            }
            let before = self.incidents[index].pairs.len();
            let ending = self.incidents[index].clone();
            let view = self.view;
            let mut normal = false;
            self.incidents[index].pairs.retain(|pair, member| {
                if view.partial && view.row(pair).is_none() {
                    return true;
                }
                let (calm, new_normal) =
                    view.row(pair).map_or((true, false), |(_, s)| (!s.alarmed && s.score_mn < CALM_MN, s.new_normal));
                member.calm = if calm { member.calm.saturating_add(1) } else { 0 };
                normal |= new_normal;
                !new_normal && member.calm < CALM_STEPS
            });
            if self.incidents[index].pairs.is_empty() {
                self.incidents[index].pairs = ending.pairs;
                let reason = if normal { Reason::NewNormal } else { Reason::Recovered };
                let event = self.incidents[index].resolve(view.at, reason, None);
                self.events.push(event);
                self.incidents[index].pairs.clear();
                self.changed.remove(&index);
            } else if self.incidents[index].pairs.len() != before {
                self.changed.insert(index);
            }
        }
    }

    /// Refreshes all open incidents; tells of those that are new, changed, or more severe than before.
    fn tell(&mut self) {
        for index in 0..self.incidents.len() {
            if !self.is_mine(&self.incidents[index]) {
                continue;
            }
            let counts = self.counts_of(&self.incidents[index]);
            let incident = &mut self.incidents[index];
            let severity = incident.severity;
            incident.refresh(&self.view, counts);
            let opening = incident.opened_s == self.view.at && self.changed.contains(&index);
            if opening {
                self.events.push(incident.event(EventType::Opened, self.view.at));
            } else if self.changed.contains(&index) || incident.severity < severity {
                self.events.push(incident.event(EventType::Updated, self.view.at));
            } else {
                // A milder moment is not worth telling; the worst stands until something else changes.
                incident.severity = severity;
            }
        }
    }

    fn counts_of(&self, incident: &Incident) -> PairCounts {
        if incident.element.kind == ElementKind::Pair {
            self.view.neighbours(&incident.strongest.pair, &self.counts)
        } else {
            self.counts.get(&incident.element).copied().unwrap_or_default()
        }
    }

    fn strongest(&self, pairs: &[Pair]) -> Option<Strongest> {
        let rows = pairs.iter().filter_map(|pair| self.view.row(pair));
        rows.max_by(|a, b| a.1.score_mn.cmp(&b.1.score_mn).then_with(|| b.0.pair.cmp(&a.0.pair)))
            .map(|(row, signal)| Strongest::of(row, signal))
    }
}
