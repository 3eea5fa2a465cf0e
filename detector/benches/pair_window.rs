//! What a pair costs: time per pair and step, bytes in memory and in state.
//!
//! `cargo bench -p flowshift-detector`. One lane of 30 pairs with 25 hours of history, so that its baselines know the time
//! of day; cells are made beforehand and used again and again. `judge` closes step after step for all pairs (60 s of one
//! pane, 60 s of six panes as the job has by default, 10 s), the begin of each quarter of an hour with its pages included;
//! `merge` adds cells to open panes. The throughput is in pair-windows, or cells. The bytes are printed first; those in
//! memory are what the process grew by, divided by its pairs.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/traffic/mod.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flowshift_detector::{LaneDetector, PageKey, Pair, PaneCell, Settings, Subnet};
use rand::SeedableRng;
use rand::rngs::StdRng;
use traffic::{FAIR, KIND, START_S, Weather, cell, pairs};

/// Flow records of a pair in a minute.
const FLOWS: [f64; 3] = [12.0, 60.0, 600.0];
const HISTORY_S: i64 = 25 * 3_600;
/// Cells made per lane; a prime, so that a pair does not always have the same.
const CELLS: usize = 509;

struct Fleet {
    lane: LaneDetector,
    pages: BTreeMap<PageKey, Vec<u8>>,
    pairs: Vec<Pair>,
    cells: Vec<PaneCell>,
    pane_s: i64,
    now_s: i64,
}

impl Fleet {
    /// Pairs of so many flow records a minute, with history.
    fn new(pairs: Vec<Pair>, flows_a_minute: f64, pane_s: u32, step_s: u32, history_s: i64) -> Self {
        let usual = Settings::default();
        let settings = Settings::new(pane_s, 60, step_s, usual.budget(), usual.feeds().clone()).unwrap();
        let mut rng = StdRng::seed_from_u64(7);
        let weather = Weather { flows: flows_a_minute * f64::from(pane_s) / 60.0, ..FAIR };
        let cells = (0..CELLS).map(|_| cell(&mut rng, &weather)).collect();
        let now_s = START_S - START_S % 86_400;
        let (lane, pane_s) = (LaneDetector::new(settings), i64::from(pane_s));
        let mut fleet = Self { lane, pages: BTreeMap::new(), pairs, cells, pane_s, now_s };
        let step_s = i64::from(step_s);
        for _ in 0..history_s / step_s {
            black_box(fleet.step(step_s));
        }
        fleet
    }

    /// Fills and closes a step; the time that closing took. The owner stores the pages and gives back what is wanted.
    fn step(&mut self, step_s: i64) -> Duration {
        self.fill(step_s);
        for (key, bytes) in self.lane.take_pages() {
            match bytes {
                Some(bytes) => self.pages.insert(key, bytes),
                None => self.pages.remove(&key),
            };
        }
        let mark_ms = self.now_s * 1_000;
        for key in self.lane.wanted_pages(KIND, mark_ms) {
            self.lane.give_page(key, self.pages.get(&key).cloned()).unwrap();
        }
        let started = Instant::now();
        black_box(self.lane.close(KIND, mark_ms));
        started.elapsed()
    }

    /// Adds the panes of the next step.
    fn fill(&mut self, step_s: i64) {
        let end_s = self.now_s + step_s;
        while self.now_s < end_s {
            for (index, pair) in self.pairs.iter().enumerate() {
                let pick = (self.now_s / self.pane_s) as usize * 31 + index * 7;
                self.lane.merge(pair, KIND, self.now_s, &self.cells[pick % CELLS]);
            }
            self.now_s += self.pane_s;
        }
    }
}

fn judge(c: &mut Criterion) {
    let mut group = c.benchmark_group("judge");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (name, pane_s, step_s) in [("60s", 60, 60), ("60s-of-10s-panes", 10, 60), ("10s", 10, 10)] {
        for flows in FLOWS {
            let mut fleet = Fleet::new(pairs(), flows, pane_s, step_s, HISTORY_S);
            group.throughput(Throughput::Elements(fleet.pairs.len() as u64));
            group.bench_function(BenchmarkId::new(name, flows), |bencher| {
                bencher.iter_custom(|steps| (0..steps).map(|_| fleet.step(i64::from(step_s))).sum());
            });
        }
    }
    group.finish();
}

fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for flows in FLOWS {
        let mut fleet = Fleet::new(pairs(), flows, 10, 60, 600);
        group.throughput(Throughput::Elements(6 * fleet.pairs.len() as u64));
        group.bench_function(BenchmarkId::new("six-panes", flows), |bencher| {
            bencher.iter_custom(|steps| {
                let mut spent = Duration::ZERO;
                for _ in 0..steps {
                    let started = Instant::now();
                    fleet.fill(60);
                    spent += started.elapsed();
                    fleet.lane.close(KIND, fleet.now_s * 1_000);
                }
                spent
            });
        });
    }
    group.finish();
}

/// What the process holds in memory, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0u64) * 1_024
}

fn sizes(_: &mut Criterion) {
    let subnet = |i: usize| Subnet::new(&format!("subnet-{i}"), Some(&format!("az{}", i % 3)));
    let many = |n: usize| -> Vec<Pair> { (0..n).map(|i| Pair { src: subnet(i), dst: subnet(i + 1) }).collect() };
    for flows in FLOWS {
        let (pairs, history_s) = (1_000, 4_000);
        let before = resident();
        let fleet = Fleet::new(many(pairs), flows, 10, 60, history_s);
        let grown = resident().saturating_sub(before) / pairs as u64;
        let state = postcard::to_allocvec(fleet.lane.state()).unwrap().len() / pairs;
        println!("{flows} flows a minute: a pair takes {grown} bytes in memory and {state} in state");
    }
}

criterion_group!(benches, sizes, judge, merge);
criterion_main!(benches);
