//! Real processes: four workers over 16 input shards and 4 exchange shards, with everything done to them at once, give
//! exactly the sums of an oracle that shares no code, and exactly the incident log of a calm run.
//!
//! Kinesis is the emulator with the real limits on, DynamoDB is dynoxide behind a door that makes weather; both run in
//! this process, which nobody strikes. A seed decides the script; a run that fails keeps its folder, prints the ends of
//! the workers' logs and the one command that plays it again. Read `script` (what happens), then `judge` (what must
//! hold), then here.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod aws;
mod chance;
mod input;
mod judge;
mod producer;
mod proxy;
mod same;
mod script;
mod workers;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flowshift_kinesis_emulator::Limits;

use aws::Aws;
use input::Input;
use judge::{Oracle, Outcome};
use producer::{PER_RECORD, Producer};
use script::Fleet;
use support::tools;
use workers::Job;

/// The longest the end of the input may take on a machine that is busy with other tests.
const DRAIN: Duration = Duration::from_secs(600);

/// One fleet at a time: two of them on one machine are slow, and lost in each other's folder.
static ALONE: Mutex<()> = Mutex::new(());

/// A folder that stays when the test fails, with the way to play it again.
struct Stage {
    _alone: MutexGuard<'static, ()>,
    folder: PathBuf,
    replay: String,
    jobs: Vec<Job>,
}

impl Stage {
    fn new(seed: u64, records: usize) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fleet-{seed}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let replay = format!(
            "FLOWSHIFT_FLEET_SEED={seed} FLOWSHIFT_FLEET_RECORDS={records} cargo test --release --test fleet -- --nocapture"
        );
        Self { _alone: alone, folder, replay, jobs: Vec::new() }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.folder).ok();
            return;
        }
        for job in &self.jobs {
            eprintln!("{}", job.log_tails());
        }
        eprintln!("kept: {}\nreplay: {}", self.folder.display(), self.replay);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// One process, no faults, no limits, another number of shards: what everything else is held to.
fn calm(stage: &mut Stage, input: &Input) -> Outcome {
    let aws = Aws::start(&stage.folder.join("calm-kinesis"), Limits::Off, 0);
    let job = Job::make("calm", &aws, &stage.folder, &input.topology, (3, 2));
    stage.jobs.push(job.clone());
    let worker = job.start("only", "all", &["--drain"]);
    Producer::start(&aws.kinesis, &job.stream("flows"), &input.flows, Duration::ZERO).finish();
    worker.signal("TERM");
    let printed = vec![worker.ended(DRAIN).0];
    Outcome { export: job.export(), printed }
}

/// Four processes through a seed's script.
fn wild(stage: &mut Stage, input: &Input, seed: u64) -> Outcome {
    let aws = Aws::start(&stage.folder.join("wild-kinesis"), Limits::Aws, seed);
    let job = Job::make("wild", &aws, &stage.folder, &input.topology, (16, 4));
    stage.jobs.push(job.clone());
    let mut fleet = Fleet::start(&aws, &job, seed);
    let producer = Producer::start(&aws.kinesis, &job.stream("flows"), &input.flows, Duration::from_secs(60));
    let began = Instant::now();
    fleet.play();
    while !producer.is_done() {
        fleet.play();
    }
    let produced = producer.finish();
    eprintln!("seed {seed}: script played in {:?}, {produced:?}", began.elapsed());
    let printed = fleet.drain(DRAIN);
    eprintln!(
        "seed {seed}: drained after {:?}; DynamoDB {:?}; Kinesis {}",
        began.elapsed(),
        aws.proxy.seen(),
        aws.stats()
    );
    Outcome { export: job.export(), printed }
}

fn play(seed: u64, records: usize) {
    let Some(python) = tools::python() else {
        return tools::skip("fleet", "no python3 for the independent sums");
    };
    let mut stage = Stage::new(seed, records);
    let began = Instant::now();
    let input = Input::make(&stage.folder, seed, records);
    let oracle = Oracle::of(&python, &input);
    assert_eq!(oracle.records, input.records);
    eprintln!(
        "seed {seed}: {records} flow records in {} Kinesis records: {:?}",
        records.div_ceil(PER_RECORD),
        began.elapsed()
    );
    let calm = calm(&mut stage, &input);
    calm.holds("calm run", &oracle);
    let log = calm.log();
    assert!(log.len() >= 2 || records < 150_000, "too few events to compare: {log:#?}");
    eprintln!("seed {seed}: calm run of {} events: {:?}", log.len(), began.elapsed());
    let wild = wild(&mut stage, &input, seed);
    wild.holds("wild run", &oracle);
    assert_eq!(wild.log(), log, "incident log");
    for bad in ["panicked", "task failed"] {
        assert_eq!(stage.jobs[1].logged(bad), 0, "logs tell of {bad:?}");
    }
    eprintln!("seed {seed}: all in {:?}", began.elapsed());
}

#[test]
fn four_workers_through_everything_at_once_count_exactly_and_tell_what_a_calm_run_tells() {
    // A million in the long form; this many make incidents to compare and take about two minutes.
    let usual = if tools::long() { 1_000_000 } else { 200_000 };
    let records = number("FLOWSHIFT_FLEET_RECORDS").map_or(usual, |n| usize::try_from(n).unwrap());
    match number("FLOWSHIFT_FLEET_SEED") {
        Some(seed) => play(seed, records),
        None => play(1, records),
    }
}

#[test]
fn the_same_log_through_one_three_and_seven_workers_and_exchange_shards_tells_the_same() {
    let Some(python) = tools::python() else {
        return tools::skip("fleet", "no python3 for the independent sums");
    };
    let seed = number("FLOWSHIFT_FLEET_SEED").unwrap_or(1);
    let records = number("FLOWSHIFT_FLEET_RECORDS").map_or(200_000, |n| usize::try_from(n).unwrap());
    let mut stage = Stage::new(seed, records);
    let input = Input::make(&stage.folder, seed, records);
    let oracle = Oracle::of(&python, &input);
    let mut logs: Vec<Vec<String>> = Vec::new();
    for (name, workers) in [("one", 1), ("three", 3), ("seven", 7)] {
        let began = Instant::now();
        let aws = Aws::start(&stage.folder.join(format!("{name}-kinesis")), Limits::Off, seed);
        let job = Job::make(name, &aws, &stage.folder, &input.topology, (workers + 1, workers));
        stage.jobs.push(job.clone());
        let outcome = same::play(&aws, &job, &input, workers, seed);
        outcome.holds(name, &oracle);
        let log = outcome.log();
        eprintln!("{workers} workers: {} events in {:?}", log.len(), began.elapsed());
        logs.push(log);
    }
    let marked = logs[0].iter().filter(|event| event.contains("\"muted\":{")).count();
    assert!(records < 150_000 || (marked > 0 && marked <= logs[0].len()), "{:#?}", logs[0]);
    assert_eq!(logs[1], logs[0], "three workers");
    assert_eq!(logs[2], logs[0], "seven workers");
}

#[test]
fn more_seeds_of_the_script_change_nothing() {
    if !tools::long() || number("FLOWSHIFT_FLEET_SEED").is_some() {
        return tools::skip("fleet", "seeds 2 to 6 of the script: only with tests/run --long");
    }
    for seed in 2..7 {
        play(seed, 300_000);
    }
}
