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

use super::cover::SIGNALS;
use super::incident::{Incident, Strongest};
use super::view::View;
use super::words::Words;

/// Incidents younger than this may still be gathered into a shared one, s.
const YOUNG_S: i64 = 900;
/// A change that comes back within this time re-opens its incident, s.
const REOPEN_S: i64 = 1_800;
/// A change explains those that began up to this time before it, s: both starts are estimates.
const BEFORE_S: i64 = 180;
/// On a shared element it explains those that began up to this time after it, s.
const AFTER_S: i64 = 300;
pub(super) const CALM_STEPS: u8 = 5;
const CALM_MN: i64 = 5_000;

/// Takes one step and tells what changed; `partial`: without a lane that was skipped.
pub(super) fn step(incidents: &mut Vec<Incident>, words: &Words, view: View<'_>) -> Vec<AnomalyEvent> {
    let mut events = Vec::new();
    for signal in SIGNALS {
        let view = View { signal, ..view };
        let counts = view.counts(&BTreeSet::new());
        Step { view, counts, incidents, words, events: &mut events, changed: BTreeSet::new() }.run();
    }
    incidents.retain(|i| i.resolved_s.is_none_or(|resolved| view.at.saturating_sub(resolved) <= REOPEN_S));
    events
}

pub(super) fn is_shared(incident: &Incident) -> bool {
    incident.element.kind != ElementKind::Pair
}

/// Whether any incident of the kind is open.
pub(super) fn is_idle(incidents: &[Incident], kind: FeedKind) -> bool {
    !incidents.iter().any(|i| i.kind == kind && i.resolved_s.is_none())
}

/// One step of one signal.
pub(super) struct Step<'a> {
    pub(super) view: View<'a>,
    counts: BTreeMap<Element, PairCounts>,
    pub(super) incidents: &'a mut Vec<Incident>,
    words: &'a Words,
    pub(super) events: &'a mut Vec<AnomalyEvent>,
    /// Indices of incidents that must be told about.
    pub(super) changed: BTreeSet<usize>,
}

impl Step<'_> {
    fn run(&mut self) {
        let mut fresh = self.fresh_alarms();
        self.gather(&mut fresh);
        for pair in fresh {
            self.open_single(&pair);
        }
        self.firm_up_verdicts();
        self.leave();
        self.tell();
    }

    pub(super) fn is_mine(&self, incident: &Incident) -> bool {
        incident.kind == self.view.kind && incident.signal == self.view.signal && incident.resolved_s.is_none()
    }

    pub(super) fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(|i| self.is_mine(i))
    }

    pub(super) fn is_young(&self, incident: &Incident) -> bool {
        self.view.at.saturating_sub(incident.opened_s) <= YOUNG_S
    }

    /// Alarmed pairs that are in no incident and are not explained by a stronger signal.
    fn fresh_alarms(&self) -> BTreeSet<Pair> {
        let member: BTreeSet<&Pair> = self.open().flat_map(|i| i.pairs.keys()).collect();
        let alarmed = self.view.rows().filter(|(_, signal)| signal.alarmed).map(|(row, _)| &row.pair);
        let fresh = alarmed.filter(|pair| !member.contains(pair) && !self.is_explained(pair));
        fresh.filter(|pair| !self.is_dismissed(pair)).cloned().collect()
    }

    /// Whether an operator said that what the pair shows is no issue.
    pub(super) fn is_dismissed(&self, pair: &Pair) -> bool {
        let View { kind, signal, at, .. } = self.view;
        if self.words.dismissals().next().is_none() {
            return false;
        }
        self.view.row(pair).is_some_and(|(row, said)| {
            self.words.dismisses((kind, signal), pair, &said.effect, self.view.flows_per_minute(row), at)
        })
    }

    fn open_single(&mut self, pair: &Pair) {
        let Some((row, signal)) = self.view.row(pair) else { return };
        let strongest = Strongest::of(row, signal);
        let verdict = self.verdict_on(pair);
        let index = self.open_or_reopen(pair.element(), verdict, strongest);
        self.incidents[index].join(pair, signal.since_s);
        self.changed.insert(index);
    }

    /// A new incident, or the one that recovered a short while ago from the same: on the same shared element, or with the
    /// same strongest pair.
    pub(super) fn open_or_reopen(&mut self, element: Element, verdict: Verdict, strongest: Strongest) -> usize {
        let is_same = |i: &Incident| match element.kind {
            ElementKind::Pair => i.strongest.pair == strongest.pair,
            _ => i.element == element,
        };
        let before = self.incidents.iter().rposition(|i| {
            i.kind == self.view.kind
                && i.signal == self.view.signal
                && i.resolved_s.is_some()
                && i.reason == Some(Reason::Recovered)
                && is_same(i)
        });
        let Some(index) = before else {
            self.incidents.push(Incident::open(&self.view, element, verdict, strongest));
            return self.incidents.len() - 1;
        };
        let incident = &mut self.incidents[index];
        incident.resolved_s = None;
        incident.pairs.clear();
        (incident.opened_s, incident.started_s) = (self.view.at, self.view.at);
        (incident.element, incident.verdict) = (element, verdict);
        index
    }

    /// Whether a stronger kind of signal explains what this one says of a pair: it is alarmed on the pair now, or the change
    /// began while it was, or about when an incident of it on an element of the pair began.
    pub(super) fn is_explained(&self, pair: &Pair) -> bool {
        if self.view.is_explained(pair) {
            return true;
        }
        let Some(since_s) = self.view.row(pair).map(|(_, signal)| signal.since_s) else { return false };
        self.incidents
            .iter()
            .filter(|i| i.kind == self.view.kind && i.signal < self.view.signal)
            .filter(|i| since_s >= i.started_s.saturating_sub(BEFORE_S))
            .any(|i| {
                let together = since_s <= i.started_s.saturating_add(AFTER_S) && pair.crosses(&i.element);
                let on_it = i.pairs.contains_key(pair) || i.strongest.pair == *pair;
                together || on_it && since_s < i.active_until_s(&self.view)
            })
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
}
