//! The events of one incident, in their order.
//!
//! For: finding them by the incident's id or a beginning of it, and saying values in the unit of the signal. Not for:
//! drawing. Invariant: a story has at least one event, and each sequence number once.

use std::collections::BTreeMap;

use flowshift_proto::anomaly::{AnomalyEvent, EventType, Signal};
use serde::Serialize;
use thiserror::Error;

/// Ids that are named when none fits.
const NAMED: usize = 5;

/// The incident is not there.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum StoryError {
    /// No event at all.
    #[error("no incidents are told of there")]
    Nothing,
    /// No id begins so.
    #[error("no incident {wanted:?} there; there are {known}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// Some that are there.
        known: String,
    },
    /// Several ids begin so.
    #[error("{wanted:?} begins the ids of several incidents: {found}")]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Some of them.
        found: String,
    },
}

/// One incident.
#[derive(Debug, Clone)]
pub(super) struct Story {
    events: Vec<AnomalyEvent>,
}

impl Story {
    /// Finds the incident whose id is, or alone begins with, `wanted`.
    pub(super) fn find(all: Vec<AnomalyEvent>, wanted: &str) -> Result<Self, StoryError> {
        let mut incidents: BTreeMap<String, BTreeMap<u64, AnomalyEvent>> = BTreeMap::new();
        for event in all {
            incidents.entry(event.incident.clone()).or_default().insert(event.sequence, event);
        }
        if incidents.is_empty() {
            return Err(StoryError::Nothing);
        }
        let wanted = wanted.to_owned();
        let exact = incidents.contains_key(&wanted);
        let fits = |id: &String| if exact { *id == wanted } else { id.starts_with(&wanted) };
        let mut found: Vec<String> = incidents.keys().filter(|id| fits(id)).cloned().collect();
        if found.len() > 1 {
            return Err(StoryError::Ambiguous { wanted, found: some(&found) });
        }
        let events = found.pop().and_then(|id| incidents.remove(&id));
        let known: Vec<String> = incidents.into_keys().collect();
        match events {
            Some(events) => Ok(Self { events: events.into_values().collect() }),
            None => Err(StoryError::Unknown { wanted, known: some(&known) }),
        }
    }

    /// Its events by their sequence number, at least one.
    pub(super) fn events(&self) -> &[AnomalyEvent] {
        &self.events
    }

    /// The last event that says what is wrong, not that it is over; the last of all if there is none.
    pub(super) fn told(&self) -> Option<&AnomalyEvent> {
        let said = self.events.iter().rev().find(|event| event.kind != EventType::Resolved);
        said.or(self.events.last())
    }

    /// The resolution, if it is over.
    pub(super) fn resolved(&self) -> Option<&AnomalyEvent> {
        self.events.last().filter(|event| event.kind == EventType::Resolved)
    }
}

fn some(ids: &[String]) -> String {
    let more = if ids.len() > NAMED { format!(" and {} more", ids.len() - NAMED) } else { String::new() };
    ids.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ") + &more
}

/// A value in the unit people use for the signal.
pub(super) fn value(signal: Signal, value: f64) -> String {
    match signal {
        Signal::Latency if value.abs() < 10_000.0 => format!("{:.2} ms", value / 1_000.0),
        Signal::Latency => format!("{:.0} ms", value / 1_000.0),
        _ if value != 0.0 && value.abs() < 0.001 => format!("{:.3} %", value * 100.0),
        _ => format!("{:.1} %", value * 100.0),
    }
}

/// The name of a member of a closed set, as events have it.
pub(super) fn name(member: &impl Serialize) -> String {
    let json = serde_json::to_value(member).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

/// What the values of a signal are.
pub(super) fn unit(signal: Signal) -> &'static str {
    match signal {
        Signal::Retransmit => "share of segments sent again",
        Signal::Latency => "round-trip time",
        Signal::Connect => "share of connects that failed",
        Signal::Silence => "share of the expected traffic",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// An incident of a retransmission fault as it opened, got worse and ended.
    pub(in super::super) fn incident(id: &str) -> Vec<AnomalyEvent> {
        let event = |sequence: u64, kind: &str, observed: f64, nats: f64| {
            let mut event = json!({
                "type": kind, "incident": id, "sequence": sequence, "at": 1_795_310_600 + 60 * sequence,
                "started_at": 1_795_310_580, "signal": "retransmit", "severity": "s1", "verdict": "workload",
                "element": {"kind": "pair", "id": "subnet-a>subnet-b"},
                "pairs": [{"src": "subnet-a", "dst": "subnet-b", "since": 1_795_310_580}],
                "baseline": {"value": 0.0002, "n": 7_010, "age_s": 4_000, "stage": "pair_rate"},
                "observed": {"value": observed, "n": 3_620, "low": observed - 0.01, "high": observed + 0.01, "change": 9.0},
                "evidence": {"nats": nats, "of": {"worse": 1, "quiet": 13}, "top_flow_share": 0.31, "late_share": 0.0,
                             "truncated": false},
                "summary": "subnet-a → subnet-b: \u{1b}[31m<b> & 4.9 % of segments retransmitted"
            });
            if kind == "anomaly.resolved" {
                event["reason"] = "recovered".into();
            }
            serde_json::from_value(event).unwrap()
        };
        vec![
            event(1, "anomaly.opened", 0.02, 15.0),
            event(2, "anomaly.updated", 0.05, 90.0),
            event(3, "anomaly.resolved", 0.05, 1.0),
        ]
    }

    #[test]
    fn an_incident_is_found_by_a_beginning_that_no_other_has() {
        let both = [incident("inc-12"), incident("inc-13")].concat();
        let found = |wanted| Story::find(both.clone(), wanted).map(|story| story.events()[0].incident.clone());
        assert_eq!(found("inc-13"), Ok("inc-13".to_owned()));
        let ambiguous = StoryError::Ambiguous { wanted: "inc-1".into(), found: "inc-12, inc-13".into() };
        assert_eq!(found("inc-1"), Err(ambiguous));
        assert!(found("inc-2").unwrap_err().to_string().ends_with("there are inc-12, inc-13"));
        assert_eq!(Story::find(Vec::new(), "x").unwrap_err(), StoryError::Nothing);
        let longer = [incident("inc-1"), incident("inc-12")].concat();
        assert_eq!(Story::find(longer, "inc-1").unwrap().events().len(), 3, "a whole id is no beginning");
    }

    #[test]
    fn events_come_in_their_order_and_repeats_once() {
        let mut events = incident("a");
        events.reverse();
        events.push(events[1].clone());
        let story = Story::find(events, "a").unwrap();
        assert_eq!(story.events().iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(story.told().unwrap().sequence, 2);
        assert!(story.resolved().is_some());
    }

    #[test]
    fn values_read_well() {
        let all = [
            (Signal::Latency, 1_234.0),
            (Signal::Latency, 47_400.0),
            (Signal::Connect, 0.05),
            (Signal::Retransmit, 0.00038),
        ];
        assert_eq!(all.map(|(signal, x)| value(signal, x)), ["1.23 ms", "47 ms", "5.0 %", "0.038 %"]);
    }
}
