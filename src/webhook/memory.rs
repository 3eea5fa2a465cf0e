//! What one endpoint has been told, and so what it must hear next.
//!
//! An incident that was told once is told to its end, also when it drops below the filter meanwhile; one that was not told
//! does not begin with its end. Built anew by each owner from the entries earlier owners were done with. Invariant: at most
//! one record per open incident.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowshift_proto::anomaly::EventType;

use super::filter::Places;
use super::{Delivery, Endpoint};

/// What becomes of an entry at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is sent; `first`: the endpoint knows nothing of the incident.
    Send { first: bool },
    /// Its incident is muted, and the endpoint does not ask for such.
    Muted,
    /// The filter leaves it out.
    Filtered,
}

/// What an endpoint has been told.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Incidents that were told and are not over.
    followed: BTreeSet<String>,
    /// The entry it was given last of each of them, kept where the receiver forgets.
    last: BTreeMap<String, Arc<Delivery>>,
}

impl Memory {
    /// Decides about the next entry.
    pub(super) fn choose(&mut self, endpoint: &Endpoint, delivery: &Delivery, places: &Places) -> Choice {
        if delivery.muted && !endpoint.muted {
            return Choice::Muted;
        }
        // What cannot be read cannot be filtered, and nothing is kept back in silence.
        let Some(event) = &delivery.event else { return Choice::Send { first: false } };
        let known = self.followed.contains(&delivery.incident);
        if !known && !endpoint.filter.passes(event, places) {
            return Choice::Filtered;
        }
        if event.kind == EventType::Resolved {
            self.followed.remove(&delivery.incident);
        } else if !known {
            self.followed.insert(delivery.incident.clone());
        }
        Choice::Send { first: !known }
    }

    /// Notes an entry that an earlier owner was done with.
    pub(super) fn recall(&mut self, endpoint: &Endpoint, delivery: &Arc<Delivery>, places: &Places) {
        if let Choice::Send { .. } = self.choose(endpoint, delivery, places) {
            self.given(endpoint, delivery);
        }
    }

    /// Notes that the endpoint has an entry, or will never get it.
    pub(super) fn given(&mut self, endpoint: &Endpoint, delivery: &Arc<Delivery>) {
        if !endpoint.format().forgets() {
            return;
        }
        match delivery.kind() {
            Some(EventType::Resolved) => {
                self.last.remove(&delivery.incident);
            }
            Some(_) => {
                self.last.insert(delivery.incident.clone(), Arc::clone(delivery));
            }
            None => {}
        }
    }

    /// What it was given last of an incident.
    pub(super) fn before(&self, incident: &str) -> Option<&Arc<Delivery>> {
        self.last.get(incident)
    }

    /// What it was given last of every open incident.
    pub(super) fn open(&self) -> Vec<Arc<Delivery>> {
        self.last.values().cloned().collect()
    }

    /// Whether there is anything to be told again.
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_empty()
    }
}
