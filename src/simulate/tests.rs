//! Tests of the simulation: reproducible, in the agents' shape, and each planted change moves what it must.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::*;
use crate::topology::{Place, Topology};

/// What the rows of a pair add up to.
#[derive(Clone, Debug, Default)]
struct Sums {
    rows: f64,
    segments: f64,
    retransmits: f64,
    connects: f64,
    failures: f64,
    /// Sum of ln(mean RTT), and rows with RTT.
    log_rtt: f64,
    rtt_rows: f64,
    peers: BTreeMap<IpAddr, (f64, f64)>,
}

impl Sums {
    fn loss(&self) -> f64 {
        self.retransmits / self.segments
    }

    fn rtt(&self) -> f64 {
        (self.log_rtt / self.rtt_rows).exp()
    }

    fn add(&mut self, flow: &SimFlow) {
        self.rows += 1.0;
        self.segments += flow.segments as f64;
        self.retransmits += flow.retransmits as f64;
        self.connects += flow.connects as f64;
        self.failures += flow.connect_failures as f64;
        if flow.rtt.count > 0 {
            let log = (flow.rtt.sum_us as f64 / flow.rtt.count as f64).ln();
            self.log_rtt += log;
            self.rtt_rows += 1.0;
            let peer = self.peers.entry(flow.remote).or_default();
            *peer = (peer.0 + log, peer.1 + 1.0);
        }
    }
}

fn id(topology: &Topology, ip: IpAddr) -> String {
    match topology.lookup(ip, None) {
        Place::Subnet(index) => topology.subnet(index).unwrap().id.clone(),
        Place::Edge(name) => name.to_owned(),
        Place::Unmapped => panic!("{ip} is unmapped"),
    }
}

/// Sums by (source, destination).
type ByPair = BTreeMap<(String, String), Sums>;

/// Sums by pair over the reports whose whole interval lies in the given minutes.
fn sums(region: &Region, from_minute: i64, to_minute: i64) -> ByPair {
    let topology = Topology::parse(&region.topology_yaml()).unwrap();
    let mut sums: ByPair = BTreeMap::new();
    for report in region.reports(from_minute * 60, to_minute * 60) {
        if report.time_ms - report.interval_ms < (region.start_s() + from_minute * 60) * 1000 {
            continue;
        }
        for flow in &report.flows {
            sums.entry((id(&topology, flow.local), id(&topology, flow.remote))).or_default().add(flow);
        }
    }
    sums
}

fn planted(region: &Region, kind: PlantedKind) -> Planted {
    region.planted().iter().find(|planted| planted.kind == kind).unwrap().clone()
}

/// Sums while `kind` is planted: with it and in the same time without it.
fn during(region: &Region, kind: PlantedKind) -> (Planted, [ByPair; 2]) {
    let planted = planted(region, kind);
    let (from, to) = (planted.start_s / 60, planted.end_s / 60);
    let clean = region.clone().without_planted();
    (planted, [sums(region, from, to), sums(&clean, from, to)])
}

fn near(value: f64, want: f64, tolerance: f64) {
    assert!((value / want - 1.0).abs() < tolerance, "{value} is not within {tolerance} of {want}");
}

#[test]
fn five_per_cent_loss_shows_as_five_per_cent_more_retransmits_on_that_pair_only() {
    let region = Region::demo(1);
    let (planted, [with, without]) = during(&region, PlantedKind::Loss);
    let pair = &planted.pairs[0];
    let base = without[pair].loss();
    assert!((2e-5..2e-3).contains(&base), "{base}");
    near(with[pair].loss() - base, 0.05, 0.06);
    near(with[pair].rtt(), without[pair].rtt(), 0.04);
    for (other, sums) in with.iter().filter(|(other, _)| *other != pair) {
        assert!(sums.loss() < 5e-3, "{other:?} {}", sums.loss());
    }
    let after = self::sums(&region, planted.end_s / 60, planted.end_s / 60 + 6);
    assert!(after[pair].loss() < 2e-3);
}

#[test]
fn the_zone_path_fault_lengthens_rtt_by_a_quarter_on_all_its_pairs_and_nothing_else() {
    let region = Region::demo(2);
    let (planted, [with, without]) = during(&region, PlantedKind::Rtt);
    assert_eq!(planted.pairs.len(), 10);
    let mut logs = 0.0;
    for pair in &planted.pairs {
        let change = with[pair].rtt() / without[pair].rtt();
        near(change, 1.25, 0.08);
        logs += change.ln();
        near(with[pair].rows, without[pair].rows, 0.25);
    }
    near((logs / 10.0).exp(), 1.25, 0.02);
    let new_clients = self::planted(&region, PlantedKind::NewClients);
    for (pair, sums) in &with {
        if !planted.pairs.contains(pair) && !new_clients.pairs.contains(pair) {
            near(sums.rtt(), without[pair].rtt(), 0.08);
        }
    }
}

#[test]
fn refused_connections_fail_three_in_ten_attempts() {
    let (planted, [with, without]) = during(&Region::demo(3), PlantedKind::ConnectFailures);
    let pair = &planted.pairs[0];
    near(with[pair].failures / with[pair].connects, 0.30, 0.12);
    assert!(without[pair].failures / without[pair].connects < 0.01);
    near(with[pair].connects, without[pair].connects, 0.12);
}

#[test]
fn a_surge_changes_the_volume_only() {
    let (planted, [with, without]) = during(&Region::demo(4), PlantedKind::Surge);
    let pair = &planted.pairs[0];
    near(with[pair].rows, 5.0 * without[pair].rows, 0.12);
    near(with[pair].rtt(), without[pair].rtt(), 0.05);
    near(with[pair].segments / with[pair].rows, without[pair].segments / without[pair].rows, 0.12);
    assert!((with[pair].loss() - without[pair].loss()).abs() < 1e-3);
}

#[test]
fn new_clients_come_on_top_and_known_peers_stay_as_they_are() {
    let (planted, [with, without]) = during(&Region::demo(5), PlantedKind::NewClients);
    let pair = &planted.pairs[0];
    near(with[pair].rows, 1.5 * without[pair].rows, 0.12);
    let known: BTreeSet<_> = without[pair].peers.keys().filter(|peer| with[pair].peers.contains_key(peer)).collect();
    let mean = |sums: &Sums, wanted: &dyn Fn(&IpAddr) -> bool| {
        let of = sums.peers.iter().filter(|(peer, _)| wanted(peer)).map(|(_, sums)| *sums);
        let (logs, rows) = of.fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        (logs / rows).exp()
    };
    let is_known = |peer: &IpAddr| known.contains(peer);
    near(mean(&with[pair], &is_known), mean(&without[pair], &is_known), 0.06);
    near(mean(&with[pair], &|peer| !is_known(peer)), 2.5 * without[pair].rtt(), 0.12);
}

#[test]
fn any_stretch_made_alone_equals_the_same_stretch_of_a_longer_run() {
    let region = Region::demo(6);
    let long: Vec<SimReport> = region.reports(-14_700, 300).collect();
    let short: Vec<SimReport> = region.reports(-120, 300).collect();
    assert!(short.len() > 100);
    assert_eq!(&long[long.len() - short.len()..], short);
    let moved = region.clone().starting_at(region.start_s() + 86_400);
    let first = moved.reports(-120, 300).next().unwrap();
    assert_eq!((first.time_ms - short[0].time_ms, &first.flows), (86_400_000, &short[0].flows));
}

#[test]
fn reports_have_the_shape_of_the_agents() {
    let region = Region::demo(7);
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut before = i64::MIN;
    for report in region.reports(0, Region::DEMO_SECONDS) {
        assert!(report.time_ms >= before);
        before = report.time_ms;
        assert!((25_000..=35_000).contains(&report.interval_ms), "{}", report.interval_ms);
        if let Some(last) = last.insert(report.instance_id.clone(), report.time_ms) {
            assert_eq!(last + report.interval_ms, report.time_ms);
        }
        assert!(report.flows.len() < 500, "{} rows would be cut by a real agent", report.flows.len());
        let mut seen = BTreeSet::new();
        for flow in &report.flows {
            assert!(seen.insert((flow.local, flow.remote, flow.local_port, flow.remote_port)));
            assert!(flow.retransmits <= flow.segments && flow.connect_failures <= flow.connects);
            assert_eq!(flow.rtt.count == 0, flow.segments == 0);
            let mean = flow.rtt.sum_us.checked_div(flow.rtt.count).unwrap_or_default();
            assert!(flow.rtt.min_us <= mean && mean <= flow.rtt.max_us);
        }
    }
}

#[test]
fn every_planted_pair_exists_and_the_demo_has_quiet_time_around_them() {
    let region = Region::demo(8);
    let pairs = region.pair_ids();
    assert_eq!(pairs.len(), 58);
    assert_eq!(pairs.iter().collect::<BTreeSet<_>>().len(), 58);
    let mut single = BTreeSet::new();
    for planted in region.planted() {
        assert!(planted.start_s >= 300 && planted.end_s <= Region::DEMO_SECONDS - 300);
        for (src, dst) in &planted.pairs {
            assert!(pairs.contains(&(src.as_str(), dst.as_str())));
            assert!(single.insert((src, dst)), "{src} to {dst} has two planted changes");
        }
    }
    let kinds: Vec<_> = region.planted().iter().map(|planted| (planted.start_s, planted.kind)).collect();
    assert_eq!(region.planted().iter().filter(|planted| planted.signal.is_some()).count(), 3);
    assert!(kinds.is_sorted_by_key(|(start, _)| *start) && kinds.len() == 5);
}

#[test]
fn the_agent_report_says_what_the_rows_say() {
    let report = Region::demo(9).reports(0, 60).next().unwrap();
    let start_ms = report.time_ms - report.interval_ms;
    let rows = report.flows.clone();
    let mut index = 0;
    report.into_agent_report().for_each_record(start_ms, &mut |record| {
        let row = &rows[index];
        assert_eq!((record.src, record.dst, record.start_ms), (row.local, row.remote, start_ms));
        assert_eq!((record.counters.segments, record.counters.bytes), (Some(row.segments), Some(row.bytes)));
        assert_eq!(record.counters.retransmits.total(), Some(row.retransmits));
        assert_eq!(record.counters.connects, Some(row.connects));
        assert_eq!(record.counters.connect_failures, Some(row.connect_failures));
        assert_eq!(record.rtt.summary().map_or(0, |rtt| rtt.sum_us), row.rtt.sum_us);
        index += 1;
    });
    assert_eq!(index, rows.len());
}

fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn the_same_seed_writes_the_same_bytes_and_another_seed_others() {
    let trees = [10, 10, 11].map(|seed| {
        let dir = tempfile::tempdir().unwrap();
        let written = write_files(&Region::demo(seed), dir.path(), 1).unwrap();
        (written, tree(dir.path()))
    });
    let (written, files) = &trees[0];
    assert_eq!(trees[0], trees[1]);
    assert_ne!(trees[0].1["flows.jsonl"], trees[2].1["flows.jsonl"]);
    let lines = |name: &str| files[name].iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!((lines("flows.jsonl"), lines("posts.jsonl")), (written.flows, written.reports));
    assert!(Topology::parse(std::str::from_utf8(&files["topology.yaml"]).unwrap()).is_ok());
    assert_eq!(files.len() as u64, written.reports + 4);
}
