//! What events tell of an operator's words.
//!
//! For: the acknowledgement and the mark of a mute on every event of an incident, and the event that is owed when a
//! mute ends while its incident is open.
//! Not for: delivery; who leaves marked events out is the receiver's choice.
//! Invariant: whoever was told of an incident without a mark is told of its end without one; and an incident whose mute
//! has ended is told of, if it is still open.

use crate::event::{AnomalyEvent, EventType};
use crate::feed::FeedKind;

use super::super::incident::Incident;
use super::book::{Told, Words};

impl Words {
    /// Marks the events of a step of one feed kind that ends at `at`, and adds what is owed.
    pub(in crate::correlate) fn after_step(
        &mut self,
        incidents: &mut [Incident],
        kind: FeedKind,
        at: i64,
        events: &mut Vec<AnomalyEvent>,
    ) {
        for event in events.iter_mut() {
            let incident = incidents.iter().find(|incident| incident.id == event.incident);
            self.mark(event, incident);
        }
        if self.told.values().all(|told| told.hushed.is_none()) {
            return;
        }
        for incident in incidents.iter_mut().filter(|i| i.kind == kind && i.resolved_s.is_none()) {
            let hushed = self.told.get(&incident.id).is_some_and(|told| told.hushed.is_some());
            if hushed && self.mute_of(incident, at).is_none() {
                let mut event = incident.event(EventType::Updated, at);
                self.mark(&mut event, Some(incident));
                events.push(event);
            }
        }
    }

    /// An open incident as it is in the step that ends at `at`, under the sequence of its last event.
    pub(in crate::correlate) fn present(&self, incident: &Incident, at: i64) -> AnomalyEvent {
        let mut copy = incident.clone();
        copy.sequence = copy.sequence.saturating_sub(1);
        let mut event = copy.event(EventType::Updated, at);
        event.acknowledged = self.acknowledged.get(&incident.id).cloned();
        event.muted = self.mute_of(incident, at);
        event
    }

    /// Marks one event; `incident` is what it tells of, as it is after it.
    pub(super) fn mark(&mut self, event: &mut AnomalyEvent, incident: Option<&Incident>) {
        let id = &event.incident;
        if event.event_type == EventType::Opened {
            // Whoever took on an earlier opening did not take on this one.
            self.acknowledged.remove(id);
            self.told.remove(id);
        }
        event.acknowledged = self.acknowledged.get(id).cloned();
        if event.event_type == EventType::Resolved {
            self.acknowledged.remove(id);
            event.muted = self.told.remove(id).filter(|told| !told.openly).and_then(|told| told.hushed);
            return;
        }
        event.muted = incident.and_then(|incident| self.mute_of(incident, event.at));
        // An incident of which nothing is known was told of before there were mutes.
        let openly = event.event_type != EventType::Opened;
        let told = self.told.entry(id.clone()).or_insert(Told { openly, hushed: None });
        told.openly |= event.muted.is_none();
        told.hushed = event.muted.clone();
    }
}
