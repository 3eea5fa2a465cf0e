//! The README's first command: within two minutes an incident for every planted fault, none for the benign events.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::program::flowshift;

/// What the simulated region plants: signal, and the directed pair or the two zones.
const FAULTS: [(&str, &str); 3] = [
    ("retransmit", "subnet-app-1>subnet-db-3"),
    ("connect", "subnet-web-3>subnet-app-3"),
    ("latency", "use1-az1|use1-az2"),
];
/// A surge of flows, and a deploy of new clients.
const BENIGN: [&str; 2] = ["subnet-app-2>subnet-cache-2", "subnet-web-2>internet"];

fn pairs(event: &Value) -> BTreeSet<String> {
    let pairs = event["pairs"].as_array().unwrap();
    pairs.iter().map(|pair| format!("{}>{}", pair["src"].as_str().unwrap(), pair["dst"].as_str().unwrap())).collect()
}

/// Whether every pair runs between the zones 1 and 2: a subnet's name ends in the number of its zone.
fn between_zones_1_and_2(event: &Value) -> bool {
    let zones = |pair: &String| {
        let (src, dst) = pair.split_once('>').unwrap();
        BTreeSet::from([src.chars().last(), dst.chars().last()])
    };
    pairs(event).iter().all(|pair| zones(pair) == BTreeSet::from([Some('1'), Some('2')]))
}

fn is_of(event: &Value, (signal, place): (&str, &str)) -> bool {
    let there = if place.contains('|') { between_zones_1_and_2(event) } else { pairs(event).contains(place) };
    event["signal"] == signal && there
}

#[test]
fn the_demo_finds_what_was_planted_and_nothing_else_within_two_minutes() {
    let began = Instant::now();
    let output = flowshift().args(["demo", "--json"]).output().unwrap();
    let took = began.elapsed();
    let text = String::from_utf8(output.stdout).unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{problem}", output.status);
    assert!(took < Duration::from_secs(120), "took {took:?}");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let events: Vec<Value> =
        lines.filter(|line| line["type"].as_str().is_some_and(|kind| kind.starts_with("anomaly."))).collect();
    let opened: Vec<&Value> = events.iter().filter(|event| event["type"] == "anomaly.opened").collect();
    for fault in FAULTS {
        assert!(opened.iter().any(|event| is_of(event, fault)), "{fault:?} is missing in\n{text}");
    }
    for event in &opened {
        assert!(FAULTS.iter().any(|fault| is_of(event, *fault)), "not planted: {event}");
    }
    for event in &events {
        let pairs = pairs(event);
        assert!(!BENIGN.iter().any(|pair| pairs.contains(*pair)), "a benign event: {event}");
    }
    let path = opened.iter().find(|event| is_of(event, FAULTS[2])).unwrap();
    let of_path = |event: &&Value| event["incident"] == path["incident"] && event["type"] != "anomaly.resolved";
    let last = events.iter().rfind(of_path).unwrap();
    assert_eq!((&last["element"]["kind"], &last["element"]["id"]), (&"az_path".into(), &FAULTS[2].1.into()), "{last}");
    let mut state = BTreeMap::new();
    for event in &events {
        state.insert(event["incident"].as_str().unwrap(), event["type"].as_str().unwrap());
    }
    assert!(state.values().all(|last| *last == "anomaly.resolved"), "not all ended: {state:?}");
}
