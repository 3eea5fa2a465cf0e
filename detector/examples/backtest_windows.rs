//! Runs the detector over an exam's `windows.jsonl` and writes the incident log.
//!
//! Each line is one pair in one window, taken as one pane cell. A window is judged as soon as the next one begins, so
//! late lines are refused and counted, and no event claims to know more than was read.
//!
//! `cargo run --release -p flowshift-detector --example backtest_windows -- DIR OUT`
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use flowshift_detector::pane::PeerCounts;
use flowshift_detector::{
    AnomalyEvent, Correlator, FeedKind, LaneDetector, MergeOutcome, Pair, PaneCell, Settings, Subnet,
};
use serde_json::Value;

const KIND: FeedKind = FeedKind::Reports;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, folder, out] = args.as_slice() else {
        eprintln!("usage: backtest_windows DIR OUT");
        std::process::exit(64);
    };
    let folder = Path::new(folder);
    let config: Value = serde_json::from_reader(File::open(folder.join("config.json")).unwrap()).unwrap();
    let step_s = u32::try_from(config["window_s"].as_u64().unwrap()).unwrap();
    let base = Settings::default();
    let settings = Settings::new(step_s, step_s.max(60), step_s, base.budget(), base.feeds().clone()).unwrap();
    let pairs = read_pairs(&folder.join("pairs.jsonl"));
    let mut lane = LaneDetector::new(settings.clone());
    let mut correlator = Correlator::new(settings, 1);
    let mut log = BufWriter::new(File::create(out).unwrap());
    let (mut lines, mut refused, mut events, mut judging) = (0u64, 0u64, 0u64, 0.0);
    let mut now: Option<i64> = None;
    let mut seen = BTreeSet::new();
    for line in BufReader::new(File::open(folder.join("windows.jsonl")).unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        lines += 1;
        let (t, pair) = (line["t"].as_i64().unwrap(), line["pair"].as_u64().unwrap());
        if now.is_none_or(|now| t > now) {
            let started = Instant::now();
            events += judge(&mut lane, &mut correlator, t.saturating_mul(1_000), &mut log);
            judging += started.elapsed().as_secs_f64();
            now = Some(t);
            seen.clear();
        }
        if now == Some(t) && !seen.insert(pair) {
            continue;
        }
        if lane.merge(&pairs[&pair], KIND, t, &cell(&line)) != MergeOutcome::Accepted {
            refused += 1;
        }
    }
    events += judge(&mut lane, &mut correlator, i64::MAX, &mut log);
    log.flush().unwrap();
    let bytes = postcard::to_allocvec(lane.state()).unwrap().len() / pairs.len().max(1);
    eprintln!("{bytes} bytes of lane state per pair");
    let micros = judging * 1e6 / lines.max(1) as f64;
    eprintln!("{lines} lines ({refused} late or repeated), {events} events, {micros:.1} µs per pair-window to judge");
}

fn judge(lane: &mut LaneDetector, correlator: &mut Correlator, watermark_ms: i64, log: &mut impl Write) -> u64 {
    for evidence in lane.close(KIND, watermark_ms) {
        correlator.apply(0, &evidence);
        if std::env::var_os("TRACE").is_some() {
            trace(&evidence);
        }
    }
    let events: Vec<AnomalyEvent> = correlator.advance();
    for event in &events {
        serde_json::to_writer(&mut *log, event).unwrap();
        writeln!(log).unwrap();
    }
    events.len() as u64
}

fn trace(evidence: &flowshift_detector::StepEvidence) {
    for row in &evidence.rows {
        for s in &row.signals {
            let alarm = if s.alarmed { "!" } else { "" };
            println!(
                "{} {}>{} {:?} {:.1}{alarm} base {} obs {} n {}",
                evidence.step_start_s,
                row.pair.src,
                row.pair.dst,
                s.signal,
                s.score_mn as f64 / 1e3,
                s.effect.baseline,
                s.effect.observed,
                s.effect.observed_n
            );
        }
    }
}

fn read_pairs(path: &Path) -> BTreeMap<u64, Pair> {
    let mut pairs = BTreeMap::new();
    for line in BufReader::new(File::open(path).unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let end = |name: &str, az: &str| match line[name].as_str().unwrap() {
            "internet" => Subnet::edge("internet"),
            id => Subnet::new(id, line[az].as_str()),
        };
        pairs.insert(line["pair"].as_u64().unwrap(), Pair { src: end("src", "src_az"), dst: end("dst", "dst_az") });
    }
    pairs
}

fn cell(line: &Value) -> PaneCell {
    let count = |name: &str| line[name].as_u64().unwrap_or(0);
    let mut cell = PaneCell::default();
    let c = &mut cell.counters;
    (c.flows, c.bytes, c.segments) = (count("flows"), count("bytes"), count("packets"));
    (c.retransmits.est, c.retransmit_flows) = (count("retransmits"), count("retransmit_flows"));
    (c.timeouts.est, c.connects, c.connect_failures) =
        (count("timeouts"), count("connects"), count("connect_failures"));
    cell.max_retransmits = count("max_retransmits");
    cell.quality.records = count("flows");
    (0..count("agents")).for_each(|agent| cell.quality.agents.record(agent + 1));
    (0..count("agents_full")).for_each(|agent| cell.quality.truncated.record(agent + 1));
    let first = line["hist"][0].as_i64().unwrap();
    for (bin, n) in (first..).zip(line["hist"][1].as_array().unwrap()) {
        let middle_us = ((bin as f64 + 0.5) * 0.05).exp();
        cell.rtt.record_values(middle_us.round() as u64, n.as_u64().unwrap());
    }
    for row in line["peers"].as_array().unwrap() {
        let field = |i: usize| row[i].as_u64().unwrap();
        if field(0) > 0 {
            let counts = PeerCounts { flows: field(1), retransmits: field(2), rtt_sum_us: field(3), rtt_n: field(4) };
            cell.peers.record(field(0), &counts);
        }
    }
    cell
}
