//! The two-subnet capture as flow rows, and its way through the detector.
//!
//! For: tests on real agent reports; the rows are derived from the reports by the mapping the program uses.
//! Not for: decoding; the raw form is read here with a plain JSON reader, on purpose not the program's.
//! Invariant: the committed sample equals what the raw capture gives.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use flowshift_detector::pane::{ByState, Counters, PeerCounts, apportion, pane_of_last_ms};
use flowshift_detector::{
    AnomalyEvent, Applied, Correlator, FeedKind, LaneDetector, MergeOutcome, Pair, PaneCell, Settings, StepEvidence,
    Subnet,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One agent report: when it was sent and what it says per flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) agent: String,
    pub(crate) at_ms: i64,
    pub(crate) flows: Vec<Flow>,
}

/// One flow of a report, local to remote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) src: String,
    pub(crate) dst: String,
    pub(crate) peer: u64,
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
    pub(crate) retransmits: [u64; 3],
    pub(crate) timeouts: [u64; 3],
    pub(crate) connects: u64,
    pub(crate) failures: u64,
    pub(crate) resets: u64,
    /// count, min, max, sum in µs
    pub(crate) rtt: [u64; 4],
}

pub(crate) fn sample_path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/two-subnets.jsonl"))
}

pub(crate) fn sample() -> Vec<Report> {
    let text = std::fs::read_to_string(sample_path()).unwrap();
    text.lines().filter(|l| !l.starts_with('#')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Reads the raw capture; `None` when it is not there.
pub(crate) fn raw() -> Option<Vec<Report>> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/nfm/two-subnets"));
    let mut reports = Vec::new();
    for agent in ["a", "b"] {
        let text = std::fs::read_to_string(folder.join(format!("agent-{agent}/reports.jsonl"))).ok()?;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let at_ms = (line["logged_at"].as_f64().unwrap() * 1_000.0).round() as i64;
            let flows = line["report"]["network_stats"].as_array().unwrap().iter().map(flow).collect();
            reports.push(Report { agent: agent.to_owned(), at_ms, flows });
        }
    }
    reports.sort_by(|a, b| (a.at_ms, &a.agent).cmp(&(b.at_ms, &b.agent)));
    Some(reports)
}

fn flow(entry: &Value) -> Flow {
    let (key, stats) = (&entry["flow"], &entry["stats"]);
    let count = |name: &str| stats[name].as_u64().unwrap();
    let states = |name: &str| ["syn", "est", "close"].map(|state| count(&format!("{name}_{state}")));
    let rtt = &stats["rtt_us"];
    let remote = key["remote_address"].as_str().unwrap();
    Flow {
        src: subnet(key["local_address"].as_str().unwrap()),
        dst: subnet(remote),
        peer: remote.bytes().fold(7, |h: u64, b| h.wrapping_mul(0x0100_0000_01b3) ^ u64::from(b)),
        bytes: count("bytes_delivered"),
        segments: count("segments_delivered"),
        retransmits: states("retrans"),
        timeouts: states("rtos"),
        connects: count("connect_attempts").saturating_sub(count("retrans_syn")),
        failures: count("severed_connect"),
        resets: count("severed_establish"),
        rtt: ["count", "min", "max", "sum"].map(|name| rtt[name].as_u64().unwrap()),
    }
}

fn subnet(address: &str) -> String {
    let ip: IpAddr = address.parse().unwrap();
    let ip = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        v4 => v4,
    };
    let in_a = match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [10, 77, 1],
        IpAddr::V6(v6) => v6.segments()[..4] == "fd77:1::".parse::<Ipv6Addr>().unwrap().segments()[..4],
    };
    if in_a { "subnet-a".into() } else { "subnet-b".into() }
}

/// Everything a run over the capture gives.
pub(crate) struct Run {
    pub(crate) lane: LaneDetector,
    pub(crate) evidence: Vec<StepEvidence>,
    pub(crate) events: Vec<AnomalyEvent>,
}

/// Runs reports through one lane and the correlator; an agent's first report covers `first_interval_ms`.
pub(crate) fn run(reports: &[Report], settings: Settings, first_interval_ms: i64) -> Run {
    let mut lane = LaneDetector::new(settings.clone());
    let mut correlator = Correlator::new(settings.clone(), 1);
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    let (mut evidence, mut events) = (Vec::new(), Vec::new());
    let mut newest_ms = i64::MIN;
    for report in reports {
        let start_ms = last.insert(&report.agent, report.at_ms).unwrap_or(report.at_ms - first_interval_ms);
        for ((pair, pane_s), cell) in panes(report, start_ms, settings.pane_s()) {
            let outcome = lane.merge(&pair, FeedKind::Reports, pane_s, &cell);
            assert_eq!(outcome, MergeOutcome::Accepted, "{pair} {pane_s}");
        }
        newest_ms = newest_ms.max(report.at_ms);
        let said = lane.close(FeedKind::Reports, newest_ms - 60_000);
        said.iter().for_each(|e| assert_eq!(correlator.apply(0, e), Applied::Taken));
        evidence.extend(said);
        events.extend(correlator.advance());
    }
    let said = lane.close(FeedKind::Reports, i64::MAX);
    said.iter().for_each(|e| assert_eq!(correlator.apply(0, e), Applied::Taken));
    evidence.extend(said);
    events.extend(correlator.advance());
    Run { lane, evidence, events }
}

fn panes(report: &Report, start_ms: i64, pane_s: u32) -> BTreeMap<(Pair, i64), PaneCell> {
    let mut cells: BTreeMap<(Pair, i64), PaneCell> = BTreeMap::new();
    let end_ms = report.at_ms;
    for flow in &report.flows {
        let pair = Pair { src: Subnet::new(&flow.src, None), dst: Subnet::new(&flow.dst, None) };
        let mut share = |value: u64, put: fn(&mut Counters, u64)| {
            for (pane, part) in apportion(start_ms, end_ms, pane_s, value).filter(|(_, part)| *part > 0) {
                put(&mut cells.entry((pair.clone(), pane)).or_default().counters, part);
            }
        };
        share(flow.bytes, |c, v| c.bytes += v);
        share(flow.segments, |c, v| c.segments += v);
        share(flow.retransmits[0], |c, v| c.retransmits.syn += v);
        share(flow.retransmits[1], |c, v| c.retransmits.est += v);
        share(flow.retransmits[2], |c, v| c.retransmits.close += v);
        share(flow.timeouts[0], |c, v| c.timeouts.syn += v);
        share(flow.timeouts[1], |c, v| c.timeouts.est += v);
        share(flow.timeouts[2], |c, v| c.timeouts.close += v);
        share(flow.connects, |c, v| c.connects += v);
        share(flow.failures, |c, v| c.connect_failures += v);
        share(flow.resets, |c, v| c.resets += v);
        let cell = cells.entry((pair, pane_of_last_ms(end_ms, pane_s))).or_default();
        let again = flow.retransmits.iter().sum();
        cell.counters.flows += 1;
        cell.counters.retransmit_flows += u64::from(again > 0);
        cell.max_retransmits = cell.max_retransmits.max(again);
        let [n, min, max, sum] = flow.rtt;
        let measured = cell.rtt.record_summary(n, min, max, sum);
        let rtt_sum_us = if measured { sum / n } else { 0 };
        let counts = PeerCounts { flows: 1, retransmits: again, rtt_n: u64::from(measured), rtt_sum_us };
        cell.peers.record(flow.peer, &counts);
        cell.quality.records += 1;
        cell.quality.agents.record(u64::from(report.agent.as_bytes()[0]));
    }
    cells
}

/// Sum of the retransmissions by state, for checks against the capture's own totals.
#[allow(dead_code)]
pub(crate) fn by_state(states: ByState) -> [u64; 3] {
    [states.syn, states.est, states.close]
}
