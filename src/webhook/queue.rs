//! The entries waiting at one endpoint.
//!
//! First in, first out inside an incident; between incidents whoever is due first. Pure: instants come in as arguments.
//! An update that waits behind another of its incident takes its place: updates tell the whole present state.
//! Invariant: at most one entry of an incident is out at a time, and it is that incident's oldest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use flowshift_proto::anomaly::EventType;
use tokio::time::Instant;

use super::Delivery;

/// An entry at one endpoint.
#[derive(Debug)]
pub(super) struct Item {
    /// What to send.
    pub(super) delivery: Arc<Delivery>,
    /// Order of arrival; breaks ties between incidents.
    number: u64,
    /// Attempts that failed.
    pub(super) failures: u32,
    /// The endpoint was told nothing of the incident before.
    pub(super) first: bool,
    /// Not to be tried before.
    due: Instant,
    /// Dropped from then on.
    expires: Instant,
}

#[derive(Debug, Default)]
struct Incident {
    waiting: VecDeque<Item>,
    /// The oldest entry is with a request now.
    out: bool,
}

/// Entries by incident.
#[derive(Debug, Default)]
pub(super) struct Queue {
    incidents: BTreeMap<String, Incident>,
    next_number: u64,
    len: usize,
}

impl Queue {
    /// Entries waiting or out.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a new entry, due at once. Returns the waiting update whose place it takes, if it does; then it is due when
    /// that was.
    pub(super) fn push(
        &mut self,
        delivery: Arc<Delivery>,
        first: bool,
        now: Instant,
        expires: Instant,
    ) -> Option<Arc<Delivery>> {
        let is_update = |delivery: &Delivery| delivery.kind() == Some(EventType::Updated);
        let incident = self.incidents.entry(delivery.incident.clone()).or_default();
        let number = self.next_number;
        self.next_number += 1;
        if let Some(last) = incident.waiting.back_mut()
            && is_update(&last.delivery)
            && is_update(&delivery)
        {
            last.expires = expires;
            return Some(std::mem::replace(&mut last.delivery, delivery));
        }
        incident.waiting.push_back(Item { delivery, number, failures: 0, first, due: now, expires });
        self.len += 1;
        None
    }

    /// Takes the entry that is due first, if one is. It must come back by [`Queue::put_back`] or [`Queue::done`].
    pub(super) fn take(&mut self, now: Instant) -> Option<Item> {
        let (_, name) = self
            .heads()
            .filter(|(head, _)| head.due <= now)
            .map(|(head, name)| ((head.due, head.number), name))
            .min()?;
        let name = name.clone();
        let incident = self.incidents.get_mut(&name)?;
        incident.out = true;
        incident.waiting.pop_front()
    }

    /// Returns a taken entry after a failed attempt.
    pub(super) fn put_back(&mut self, mut item: Item, due: Instant) {
        item.failures = item.failures.saturating_add(1);
        item.due = due;
        if let Some(incident) = self.incidents.get_mut(&item.delivery.incident) {
            incident.out = false;
            incident.waiting.push_front(item);
        }
    }

    /// Ends a taken entry.
    pub(super) fn done(&mut self, item: &Item) {
        self.len -= 1;
        if let Some(incident) = self.incidents.get_mut(&item.delivery.incident) {
            incident.out = false;
            if incident.waiting.is_empty() {
                self.incidents.remove(&item.delivery.incident);
            }
        }
    }

    /// Takes out, in order of arrival, every waiting entry whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Arc<Delivery>> {
        self.remove_waiting(|item| item.expires <= now)
    }

    /// Takes out every waiting entry in order of arrival.
    pub(super) fn clear(&mut self) -> Vec<Arc<Delivery>> {
        self.remove_waiting(|_| true)
    }

    /// Makes every entry due now and forgets its failures: a last effort before leaving.
    pub(super) fn hurry(&mut self, now: Instant) {
        for item in self.incidents.values_mut().flat_map(|incident| &mut incident.waiting) {
            item.due = now;
            item.failures = 0;
        }
    }

    /// When the first entry can be taken; `None` when none can.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heads().map(|(head, _)| head.due).min()
    }

    /// When the first waiting entry's time is over.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.waiting().map(|item| item.expires).min()
    }

    /// The smallest `created_ms` of the waiting entries.
    pub(super) fn oldest_created_ms(&self) -> Option<i64> {
        self.waiting().map(|item| item.delivery.created_ms).min()
    }

    fn waiting(&self) -> impl Iterator<Item = &Item> {
        self.incidents.values().flat_map(|incident| &incident.waiting)
    }

    fn heads(&self) -> impl Iterator<Item = (&Item, &String)> {
        self.incidents
            .iter()
            .filter(|(_, incident)| !incident.out)
            .filter_map(|(name, incident)| incident.waiting.front().map(|head| (head, name)))
    }

    fn remove_waiting(&mut self, leaves: impl Fn(&Item) -> bool) -> Vec<Arc<Delivery>> {
        let mut removed = Vec::new();
        self.incidents.retain(|_, incident| {
            let (gone, kept) = std::mem::take(&mut incident.waiting).into_iter().partition(&leaves);
            incident.waiting = kept;
            removed.extend::<VecDeque<Item>>(gone);
            incident.out || !incident.waiting.is_empty()
        });
        self.len -= removed.len();
        removed.sort_by_key(|item| item.number);
        removed.into_iter().map(|item| item.delivery).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn entry(incident: &str, sequence: u64) -> Arc<Delivery> {
        Arc::new(Delivery {
            id: format!("{incident}-{sequence}"),
            incident: incident.to_owned(),
            sequence,
            created_ms: 0,
            muted: false,
            past: false,
            body: Bytes::from_static(b"{}"),
            event: None,
        })
    }

    fn filled(now: Instant, entries: &[(&str, u64)]) -> Queue {
        let mut queue = Queue::default();
        for (incident, sequence) in entries {
            queue.push(entry(incident, *sequence), false, now, now + Duration::from_secs(60 + *sequence));
        }
        queue
    }

    #[test]
    fn an_incident_has_one_entry_out_at_a_time_and_others_go_on() {
        let now = Instant::now();
        let mut queue = filled(now, &[("b", 1), ("b", 2), ("a", 1)]);
        let first = queue.take(now).unwrap();
        assert_eq!(first.delivery.id, "b-1", "arrival breaks the tie, not the name");
        assert_eq!(queue.take(now).unwrap().delivery.id, "a-1");
        assert!(queue.take(now).is_none(), "b-2 must wait for b-1");
        queue.done(&first);
        assert_eq!(queue.take(now).unwrap().delivery.id, "b-2");
    }

    #[test]
    fn a_failed_entry_comes_back_in_front_of_its_successors() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut queue = filled(now, &[("a", 1), ("a", 2)]);
        let first = queue.take(now).unwrap();
        queue.put_back(first, later);
        assert!(queue.take(now).is_none());
        assert_eq!(queue.next_due(), Some(later));
        let again = queue.take(later).unwrap();
        assert_eq!((again.delivery.id.as_str(), again.failures), ("a-1", 1));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn expiry_takes_old_entries_in_order_and_leaves_the_rest() {
        let now = Instant::now();
        let mut queue = filled(now, &[("b", 1), ("a", 1), ("a", 9)]);
        assert_eq!(queue.next_expiry(), Some(now + Duration::from_secs(61)));
        let gone = queue.expire(now + Duration::from_secs(61));
        assert_eq!(gone.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["b-1", "a-1"]);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.take(now).unwrap().delivery.id, "a-9");
    }

    #[test]
    fn an_entry_that_is_out_survives_a_clear() {
        let now = Instant::now();
        let mut queue = filled(now, &[("a", 1), ("a", 2)]);
        let out = queue.take(now).unwrap();
        assert_eq!(queue.clear().len(), 1);
        assert_eq!(queue.len(), 1);
        queue.done(&out);
        assert_eq!(queue.len(), 0);
        assert!(queue.incidents.is_empty());
    }

    #[test]
    fn hurry_makes_everything_due() {
        let now = Instant::now();
        let mut queue = filled(now, &[("a", 1)]);
        let item = queue.take(now).unwrap();
        queue.put_back(item, now + Duration::from_secs(1_800));
        queue.hurry(now);
        assert_eq!(queue.take(now).unwrap().failures, 0);
    }
}
