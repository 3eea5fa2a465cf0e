//! Was it found? What was planted against the incidents that were told, by the rules the README states.
//!
//! An incident belongs to a planted fault when it opened after its start and not long after its end, is of its signal, and
//! concerns a pair that was hit. Everything else is a false alarm. A fault is found when one of its incidents named its
//! place in the end and all of them are over. Pure.

use std::collections::{BTreeMap, BTreeSet};

use flowshift_proto::anomaly::{AnomalyEvent, EventType, ResolveReason};

use crate::simulate::Planted;

/// How long after its end a fault may still open an incident, seconds: its last reports come up to 35 s later.
const AFTER_S: i64 = 120;

/// What became of one planted change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Benign, and no incident.
    Quiet,
    /// Found, in the right place, and over: event time from its start to the opening, and from its end to the resolution.
    Found { opened_after_s: i64, resolved_after_s: i64 },
    /// A fault without incident.
    Missed,
    /// An incident, but it named another place.
    Misplaced { named: String },
    /// Found, but the incident did not end.
    Open,
    /// Benign, but with an incident.
    Alarmed,
}

impl Finding {
    /// Whether it is as it should be.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Self::Quiet | Self::Found { .. })
    }
}

/// The outcome of a demo.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    /// By start.
    pub(super) findings: Vec<(&'a Planted, Finding)>,
    /// Places of incidents that belong to no fault.
    pub(super) false_alarms: Vec<String>,
}

/// One incident, from its events.
struct Tale<'a> {
    opened: &'a AnomalyEvent,
    /// The last event that says how things stand.
    last: &'a AnomalyEvent,
    resolved: Option<&'a AnomalyEvent>,
    pairs: BTreeSet<(&'a str, &'a str)>,
}

impl Tale<'_> {
    fn is_merged(&self) -> bool {
        self.resolved.is_some_and(|event| event.reason == Some(ResolveReason::Merged))
    }

    fn is_of(&self, planted: &Planted, start_s: i64) -> bool {
        let (from, to) = (start_s + planted.start_s, start_s + planted.end_s + AFTER_S);
        let hit = |(src, dst): &(String, String)| self.pairs.contains(&(src.as_str(), dst.as_str()));
        (from..=to).contains(&self.opened.at)
            && planted.signal.is_none_or(|signal| signal == self.opened.signal.as_str())
            && planted.pairs.iter().any(hit)
    }
}

impl<'a> Outcome<'a> {
    /// Judges the events of a region that started at `start_s` (epoch seconds).
    pub(super) fn judge(planted: &'a [Planted], start_s: i64, events: &[AnomalyEvent]) -> Self {
        let tales = tales(events);
        let findings = planted.iter().map(|p| (p, finding(p, start_s, &tales))).collect();
        let faults: Vec<&Planted> = planted.iter().filter(|p| p.signal.is_some()).collect();
        let stray = tales.iter().filter(|tale| !faults.iter().any(|fault| tale.is_of(fault, start_s)));
        Self { findings, false_alarms: stray.map(|tale| tale.opened.element.id.clone()).collect() }
    }

    /// What is not as planted, one text each.
    pub(super) fn problems(&self) -> Vec<String> {
        let bad = self.findings.iter().filter(|(_, finding)| !finding.is_good());
        let mut problems: Vec<String> = bad
            .map(|(planted, finding)| {
                let what = match finding {
                    Finding::Missed => "has no incident".to_owned(),
                    Finding::Misplaced { named } => format!("was placed at {named}"),
                    Finding::Open => "has an incident that did not end".to_owned(),
                    _ => "has an incident".to_owned(),
                };
                format!("{} ({}) {what}", planted.name, planted.element.id)
            })
            .collect();
        problems.extend(self.false_alarms.iter().map(|place| format!("false alarm at {place}")));
        problems
    }
}

fn tales(events: &[AnomalyEvent]) -> Vec<Tale<'_>> {
    let mut order: Vec<&str> = Vec::new();
    let mut tales: BTreeMap<&str, Tale<'_>> = BTreeMap::new();
    for event in events {
        let tale = tales.entry(&event.incident).or_insert_with(|| {
            order.push(&event.incident);
            Tale { opened: event, last: event, resolved: None, pairs: BTreeSet::new() }
        });
        tale.pairs.extend(event.pairs.iter().map(|pair| (pair.src.as_str(), pair.dst.as_str())));
        tale.resolved = (event.kind == EventType::Resolved).then_some(event);
        if tale.resolved.is_none() {
            tale.last = event;
        }
    }
    order.into_iter().filter_map(|incident| tales.remove(incident)).collect()
}

fn finding(planted: &Planted, start_s: i64, tales: &[Tale<'_>]) -> Finding {
    let mine: Vec<&Tale<'_>> = tales.iter().filter(|tale| tale.is_of(planted, start_s)).collect();
    let Some(first) = mine.first() else {
        return if planted.signal.is_some() { Finding::Missed } else { Finding::Quiet };
    };
    if planted.signal.is_none() {
        return Finding::Alarmed;
    }
    if !mine.iter().any(|tale| !tale.is_merged() && tale.last.element.id == planted.element.id) {
        return Finding::Misplaced { named: first.last.element.id.clone() };
    }
    let ends: Option<Vec<i64>> = mine.iter().map(|tale| Some(tale.resolved?.at)).collect();
    let Some(end) = ends.and_then(|ends| ends.into_iter().max()) else { return Finding::Open };
    Finding::Found {
        opened_after_s: first.opened.at - start_s - planted.start_s,
        resolved_after_s: end - start_s - planted.end_s,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::simulate::Region;

    /// An event of the default region, `minute` minutes after its start.
    fn event(kind: &str, incident: &str, minute: i64, signal: &str, element: (&str, &str), pair: &str) -> AnomalyEvent {
        let (src, dst) = pair.split_once('>').unwrap();
        let at = Region::demo(1).start_s() + minute * 60;
        serde_json::from_value(json!({
            "type": format!("anomaly.{kind}"), "incident": incident, "sequence": 1, "at": at, "signal": signal,
            "severity": "s2", "verdict": "workload", "element": {"kind": element.0, "id": element.1},
            "pairs": [{"src": src, "dst": dst, "since": at}], "summary": ""
        }))
        .unwrap()
    }

    const LOSS: &str = "subnet-app-1>subnet-db-3";
    const REFUSED: &str = "subnet-web-3>subnet-app-3";
    const PATH: &str = "use1-az1|use1-az2";
    const ON_PATH: [&str; 2] = ["subnet-web-1>subnet-app-2", "subnet-app-1>subnet-db-2"];

    /// The events of a demo in which everything goes well: one early incident of the path is merged into another.
    fn good() -> Vec<AnomalyEvent> {
        let merged = AnomalyEvent {
            reason: Some(ResolveReason::Merged),
            ..event("resolved", "c", 13, "latency", ("pair", ON_PATH[1]), ON_PATH[1])
        };
        vec![
            event("opened", "a", 9, "retransmit", ("pair", LOSS), LOSS),
            event("opened", "b", 12, "latency", ("pair", ON_PATH[0]), ON_PATH[0]),
            event("opened", "c", 12, "latency", ("pair", ON_PATH[1]), ON_PATH[1]),
            merged,
            event("updated", "b", 13, "latency", ("az_path", PATH), ON_PATH[1]),
            event("opened", "d", 16, "connect", ("pair", REFUSED), REFUSED),
            event("resolved", "a", 22, "retransmit", ("pair", LOSS), LOSS),
            event("resolved", "b", 25, "latency", ("az_path", PATH), ON_PATH[0]),
            event("resolved", "d", 29, "connect", ("pair", REFUSED), REFUSED),
        ]
    }

    fn problems(events: &[AnomalyEvent]) -> Vec<String> {
        let region = Region::demo(1);
        Outcome::judge(region.planted(), region.start_s(), events).problems()
    }

    #[test]
    fn found_faults_tell_their_delays_and_benign_events_are_quiet() {
        let (region, events) = (Region::demo(1), good());
        let outcome = Outcome::judge(region.planted(), region.start_s(), &events);
        assert_eq!(outcome.problems(), Vec::<String>::new());
        let found: Vec<(i64, i64)> = (outcome.findings.iter())
            .filter_map(|(_, finding)| match finding {
                Finding::Found { opened_after_s, resolved_after_s } => Some((*opened_after_s, *resolved_after_s)),
                _ => None,
            })
            .collect();
        assert_eq!(found, [(120, 300), (120, 300), (120, 300)]);
        assert_eq!(outcome.findings.iter().filter(|(_, finding)| *finding == Finding::Quiet).count(), 2);
    }

    #[test]
    fn a_fault_without_incident_is_a_problem() {
        let events: Vec<_> = good().into_iter().filter(|event| event.incident != "d").collect();
        assert_eq!(problems(&events), [format!("refused connections ({REFUSED}) has no incident")]);
    }

    #[test]
    fn an_incident_that_does_not_end_is_a_problem() {
        let mut events = good();
        events.pop();
        assert_eq!(problems(&events), [format!("refused connections ({REFUSED}) has an incident that did not end")]);
    }

    #[test]
    fn a_path_fault_told_as_single_pairs_is_misplaced() {
        let mut events = good();
        events.remove(4);
        events.remove(3);
        let problems = problems(&events);
        assert!(problems[0].contains("was placed at subnet-web-1>subnet-app-2"), "{problems:?}");
    }

    #[test]
    fn an_incident_elsewhere_or_of_another_signal_is_a_false_alarm() {
        let surge = "subnet-app-2>subnet-cache-2";
        for (signal, pair) in [("latency", surge), ("latency", LOSS), ("retransmit", "subnet-web-1>internet")] {
            let mut events = good();
            events.push(event("opened", "x", 10, signal, ("pair", pair), pair));
            let problems = problems(&events);
            assert!(problems.contains(&format!("false alarm at {pair}")), "{problems:?}");
            assert_eq!(problems.len(), if pair == surge { 2 } else { 1 });
        }
    }

    #[test]
    fn an_incident_before_its_fault_does_not_count_for_it() {
        let mut events = good();
        events[0].at -= 5 * 60;
        assert_eq!(problems(&events).len(), 2, "missed, and a false alarm");
    }
}
