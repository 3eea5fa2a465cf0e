//! An outbox that nobody empties: it stays bounded, and says what it lost.

use flowshift_proto::anomaly::{AnomalyEvent, EventType};

use super::super::Outbox;
use super::super::outbox::KEPT;

fn event(incident: usize, kind: EventType) -> AnomalyEvent {
    let example = include_str!("../../../../proto/examples/anomaly.opened.json");
    let body: flowshift_proto::anomaly::WebhookBody = serde_json::from_str(example).unwrap();
    AnomalyEvent { incident: format!("inc-{incident}"), kind, ..body.data }
}

/// It was dropped without a word.
#[test]
fn what_is_dropped_undelivered_is_counted_and_updates_go_before_the_rest() {
    let mut outbox = Outbox::default();
    let add = |outbox: &mut Outbox, incident, kind| outbox.add(&event(incident, kind)).unwrap();
    assert_eq!(add(&mut outbox, 0, EventType::Opened), 0);
    assert_eq!(add(&mut outbox, 0, EventType::Updated), 0);
    for incident in 1..KEPT - 1 {
        assert_eq!(add(&mut outbox, incident, EventType::Opened), 0);
    }
    assert_eq!(add(&mut outbox, KEPT, EventType::Opened), 1);
    let kinds = |outbox: &Outbox| outbox.entries().iter().map(|entry| entry.kind.clone()).collect::<Vec<_>>();
    assert!(!kinds(&outbox).contains(&EventType::Updated.as_str().to_owned()), "the update went");
    assert_eq!(add(&mut outbox, KEPT + 1, EventType::Opened), 1);
    assert_eq!((outbox.entries().len(), outbox.entries()[0].incident.as_str()), (KEPT, "inc-1"));
    assert_eq!(outbox.dropped, 2);
}
