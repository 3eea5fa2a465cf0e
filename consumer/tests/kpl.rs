//! KPL aggregates as AWS's own library writes them (`tests/data/kpl-aggregates.txt`, made by
//! `tests/python/kpl_fixtures.py`), and a job that reads aggregates through crashes.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::inspect;
use flowshift_consumer::kpl::{Joined, Kpl, Split, hash_key, join, split};
use flowshift_consumer::lease::{Checkpoint, WorkerId, attribute, new_row};
use flowshift_consumer::log::memory::MemoryLog;
use flowshift_consumer::log::{Entry, Log, Record};
use flowshift_consumer::metrics::EngineMetrics;
use flowshift_consumer::run::{Tables, Worker, WorkerConfig};
use flowshift_consumer::shard::{HashRange, SequenceNumber, ShardId};
use flowshift_consumer::stage::{Stage, StageError, StatePart};
use flowshift_consumer::table::memory::MemoryTable;
use flowshift_consumer::table::{Condition, Table, Update, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[path = "../fuzz/check.rs"]
mod check;
#[path = "support/mortal.rs"]
mod mortal;

use mortal::Mortal;

const STREAM: &str = "input";

fn unhex(text: &str) -> Vec<u8> {
    let digits = if text == "-" { "" } else { text };
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// A line of the fixture: what it is, and the record.
fn line(text: &str) -> (&str, Joined) {
    let words: Vec<&str> = text.split(' ').collect();
    let partition_key = String::from_utf8(unhex(words[1])).unwrap();
    let hash_key = (words[2] != "-").then(|| words[2].parse().unwrap());
    (words[0], Joined { partition_key, hash_key, data: unhex(words[3]).into() })
}

/// Aggregates by AWS's library with what is in them.
fn fixture() -> Vec<(Joined, Vec<Joined>)> {
    let mut aggregates: Vec<(Joined, Vec<Joined>)> = Vec::new();
    for text in include_str!("data/kpl-aggregates.txt").lines().filter(|l| !l.starts_with('#')) {
        match line(text) {
            ("aggregate", whole) => aggregates.push((whole, Vec::new())),
            (_, record) => aggregates.last_mut().unwrap().1.push(record),
        }
    }
    assert_eq!(aggregates.iter().map(|(_, inside)| inside.len()).collect::<Vec<_>>(), [1, 12, 9, 3, 300]);
    aggregates
}

#[test]
fn aggregates_by_aws_library_decode_exactly() {
    for (whole, inside) in fixture() {
        let sequence = SequenceNumber::new("1").unwrap();
        let record = Record {
            sequence,
            sub_sequence: 0,
            arrived_ms: 7,
            partition_key: whole.partition_key.into(),
            data: whole.data,
        };
        let Split::Aggregate { records, outside } = split(Kpl::default(), HashRange::ALL, record) else {
            panic!("not taken for an aggregate");
        };
        assert_eq!((records.len(), outside), (inside.len(), 0));
        for ((record, expected), index) in records.iter().zip(&inside).zip(0u64..) {
            assert_eq!((&*record.partition_key, &record.data), (expected.partition_key.as_str(), &expected.data));
            assert_eq!((record.sub_sequence, record.arrived_ms, record.sequence.as_str()), (index, 7, "1"));
        }
    }
}

#[test]
fn aggregates_of_ours_are_byte_for_byte_those_of_aws_library() {
    for (whole, inside) in fixture() {
        assert_eq!(join(&inside), whole.data);
    }
}

#[test]
fn the_range_check_goes_by_the_explicit_hash_key_and_else_by_the_md5_of_the_partition_key() {
    // printf 'a' | md5sum = 0cc175b9c0f1b6a831c399e269772661
    assert_eq!(hash_key("a"), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
    let upper = HashRange { start: u128::MAX / 2 + 1, end: u128::MAX };
    for (whole, inside) in fixture() {
        let lies_inside = |r: &&Joined| upper.contains(r.hash_key.unwrap_or_else(|| hash_key(&r.partition_key)));
        let sequence = SequenceNumber::new("1").unwrap();
        let record = Record { sequence, sub_sequence: 0, arrived_ms: 0, partition_key: "".into(), data: whole.data };
        let Split::Aggregate { records, outside } = split(Kpl::default(), upper, record) else { panic!() };
        let expected: Vec<&Bytes> = inside.iter().filter(lies_inside).map(|r| &r.data).collect();
        assert_eq!(records.iter().map(|r| &r.data).collect::<Vec<_>>(), expected);
        assert_eq!(records.len() as u64 + outside, inside.len() as u64);
    }
}

/// The corpus that the fuzz target begins with, and what is around each of its files.
#[test]
fn every_seed_of_the_fuzz_target_holds_its_promises_whole_and_damaged() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/kpl");
    let seeds =
        std::fs::read_dir(folder).unwrap().map(|seed| Bytes::from(std::fs::read(seed.unwrap().path()).unwrap()));
    let seeds: std::collections::BTreeSet<Bytes> = seeds.collect();
    let real: Vec<Bytes> = fixture().into_iter().map(|(whole, _)| whole.data).collect();
    assert!(real.iter().all(|aggregate| seeds.contains(aggregate)), "every aggregate of AWS's library is a seed");
    for seed in seeds {
        check::check(&seed);
        // Enough places of the long ones, all of the short ones.
        for at in (0..seed.len()).step_by(seed.len() / 200 + 1) {
            let mut damaged = seed.to_vec();
            damaged[at] ^= 1 << (at % 8);
            check::check(&damaged);
            check::check(&seed[..at]);
        }
    }
}

/// Keeps every record it saw, in order, in its state.
struct Seen {
    shard: String,
    lines: String,
}

impl Stage for Seen {
    fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
        self.lines = parts.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
        Ok(())
    }
    fn process(&mut self, record: &Record) -> Result<(), StageError> {
        self.lines += &format!("{}\n", String::from_utf8_lossy(&record.data));
        Ok(())
    }
    fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
        Ok(vec![(self.shard.clone(), self.lines.clone().into())])
    }
    fn finished(&self) -> bool {
        true
    }
}

struct World {
    log: Arc<MemoryLog>,
    table: Arc<MemoryTable>,
    started: Mutex<u32>,
    put: Mutex<u32>,
}

impl World {
    fn new() -> Self {
        let log = Arc::new(MemoryLog::new(1_800_000_000_000));
        log.create(STREAM, 1);
        Self { log, table: Arc::default(), started: Mutex::default(), put: Mutex::default() }
    }

    /// A worker that lives until the token is cancelled.
    fn worker(&self, dead: CancellationToken) -> Worker {
        let mut started = self.started.lock().unwrap();
        *started += 1;
        let worker = WorkerId::new(format!("worker-{started}"));
        let config = WorkerConfig::new(worker, tables());
        let metrics = EngineMetrics::register(&prometheus::Registry::new(), "t").unwrap();
        let clock = {
            let log = Arc::clone(&self.log);
            WallClock::new(move || log.now_ms())
        };
        let table = Arc::new(Mortal { table: self.table.clone(), dead });
        Worker::new(config, table, self.log.clone(), clock, metrics)
            .stage(STREAM, |context, _| Seen { shard: context.shard.to_string(), lines: String::new() })
    }

    /// An aggregate of `count` records, or a plain record for 0.
    async fn put(&self, count: u32) -> SequenceNumber {
        let number = || {
            let mut put = self.put.lock().unwrap();
            *put += 1;
            Bytes::from(put.to_string())
        };
        let inside = |_| Joined { partition_key: "k".into(), hash_key: None, data: number() };
        let data = if count == 0 { number() } else { join(&(0..count).map(inside).collect::<Vec<_>>()) };
        let entry = Entry { partition_key: "k".into(), hash_key: None, data };
        self.log.append(STREAM, &[entry]).await.unwrap().remove(0).unwrap()
    }

    /// Runs a worker until everything in the stream is committed.
    async fn drain(&self) {
        let (_ends, end_input) = watch::channel(Some(Instant::now()));
        self.worker(CancellationToken::new()).run(CancellationToken::new(), end_input).await.unwrap();
    }

    async fn seen(&self) -> Vec<u32> {
        let table: Arc<dyn Table> = self.table.clone();
        let parts = inspect::parts(&table, &tables(), &self.log.identify(STREAM).await.unwrap()).await.unwrap();
        parts
            .iter()
            .flat_map(|(_, b)| String::from_utf8_lossy(b).lines().map(|l| l.parse().unwrap()).collect::<Vec<_>>())
            .collect()
    }
}

fn tables() -> Tables {
    Tables::new("kpl")
}

#[tokio::test(start_paused = true)]
async fn every_sub_record_counts_once_when_workers_die_while_aggregates_come() {
    let world = World::new();
    // Longer than a lease, so that each worker in turn gets the shard, reads, and dies at another place.
    for round in 0..8u32 {
        let (_ends, end_input) = watch::channel(None);
        let dead = CancellationToken::new();
        let worker = tokio::spawn(world.worker(dead.clone()).run(CancellationToken::new(), end_input));
        for step in 0..20 {
            world.put((round * 7 + step) % 5).await;
            tokio::time::sleep(Duration::from_millis(1_030 + u64::from(round) * 97)).await;
        }
        dead.cancel();
        worker.abort();
    }
    world.drain().await;
    let put = *world.put.lock().unwrap();
    assert_eq!(world.seen().await, (1..=put).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_row_of_a_kcl_application_that_stopped_inside_an_aggregate_goes_on_behind_its_last_record() {
    let world = World::new();
    world.put(3).await;
    let half = world.put(4).await;
    world.put(2).await;
    let leases = tables().leases(STREAM);
    world.table.ensure(&leases).await.unwrap();
    let shard = world.log.shards(STREAM).await.unwrap().remove(0);
    let row = new_row(&shard, &Checkpoint::TrimHorizon, 0);
    world.table.put(&leases, row, Condition::None).await.unwrap();
    let stopped = Update::new()
        .set(attribute::CHECKPOINT, Value::string(half.as_str()))
        .set(attribute::SUB_SEQUENCE, Value::number(1));
    world.table.update(&leases, shard.id.as_str(), stopped, Condition::None).await.unwrap();
    world.drain().await;
    // 1 to 3 and the first two of the second aggregate were the application's.
    assert_eq!(world.seen().await, [6, 7, 8, 9]);
    let row = world.table.get(&leases, shard.id.as_str()).await.unwrap().unwrap();
    let checkpoint = (row.string(attribute::CHECKPOINT), row.number(attribute::SUB_SEQUENCE));
    assert_eq!(checkpoint, (Some("3"), Some(1)), "KCL goes on behind the last sub-record of the last aggregate");
    assert_eq!(shard.id, ShardId::new("shardId-000000000000"));
}
