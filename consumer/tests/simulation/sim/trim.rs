//! Records that expire before anyone has read them: what is lost is told to every lane it may concern, once, and
//! nothing else is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use flowshift_consumer::exchange::{Envelope, Message};
use flowshift_consumer::inspect;
use flowshift_consumer::lease::{Checkpoint, LeaseRow};
use flowshift_consumer::log::Record;
use rand::Rng;

use super::job::parse_counts;
use super::port::Faults;
use super::world::{EXCHANGE, INPUT, Roles, World, tables};

const SECOND: Duration = Duration::from_secs(1);

/// What was lost.
#[derive(Debug)]
pub(crate) struct Trimmed {
    /// Records of the input that no lane can know.
    pub(crate) records: u64,
    /// Sources that must tell their lanes.
    pub(crate) sources: u64,
}

impl World {
    fn put_so_far(&self) -> u64 {
        self.produced.values().sum()
    }

    async fn rows_of(&self, stream: &str) -> Result<Vec<LeaseRow>, String> {
        inspect::rows(&*self.table, &tables(), stream).await.map_err(|e| e.to_string())
    }

    /// Work stands still while records come and expire. Whoever takes the work up again dies some times over it.
    pub(crate) async fn trim_the_input(&mut self) -> Result<Trimmed, String> {
        self.start(Roles::All, Faults::default());
        self.produce_slowly(80).await;
        tokio::time::sleep(10 * SECOND).await;
        for process in std::mem::take(&mut self.processes) {
            process.leave.cancel();
            process.handle.await.map_err(|e| e.to_string())?;
        }
        let before = self.put_so_far();
        self.produce_slowly(60).await;
        let records = self.put_so_far() - before;
        tokio::time::sleep(SECOND).await;
        self.horizons[0].store(self.log.now_ms(), Ordering::Relaxed);
        self.produce_slowly(80).await;
        let rows = self.rows_of(INPUT).await?;
        let sources = rows.iter().filter(|row| matches!(row.checkpoint, Checkpoint::At(_))).count() as u64;
        self.die_some_times().await;
        Ok(Trimmed { records, sources })
    }

    /// Batches come while no lane is read, sources go idle and come back, the input is resharded; then some of what the
    /// lanes have not read expires. Returns how many records of the input that is.
    pub(crate) async fn trim_the_exchange(&mut self) -> Result<u64, String> {
        self.start(Roles::All, Faults::default());
        self.produce_slowly(80).await;
        tokio::time::sleep(10 * SECOND).await;
        self.kill(0);
        let read: BTreeMap<_, _> =
            self.rows_of(EXCHANGE).await?.into_iter().map(|row| (row.shard, row.checkpoint)).collect();
        self.start(Roles::Map, Faults::default());
        let kept = self.chance.random_range(2..12);
        let mut horizon = 0;
        for round in 0..14 {
            if round == kept {
                horizon = self.log.now_ms();
            }
            let count = self.chance.random_range(0..8);
            self.produce(count).await;
            let pause = self.chance.random_range(200..12_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if self.chance.random_bool(0.2) {
                self.reshard(INPUT).await;
            }
        }
        let mut lost = BTreeMap::new();
        let mut there = BTreeSet::new();
        for shard in self.log.dump_by_shard(EXCHANGE) {
            let behind = |record: &Record| match read.get(&shard.0) {
                Some(Checkpoint::At(last)) => record.sequence <= *last,
                _ => false,
            };
            for record in &shard.1 {
                let Some((part, counted)) = part_of(&record.data, &record.partition_key) else { continue };
                if behind(record) || record.arrived_ms >= horizon {
                    there.insert(part);
                } else {
                    lost.insert(part, counted);
                }
            }
        }
        self.horizons[1].store(horizon, Ordering::Relaxed);
        self.die_some_times().await;
        Ok(lost.iter().filter(|(part, _)| !there.contains(*part)).map(|(_, counted)| counted).sum())
    }

    async fn die_some_times(&mut self) {
        for _ in 0..4 {
            let faults = Faults::draw(&mut self.chance);
            self.start(Roles::All, faults);
            let pause = self.chance.random_range(1_000..25_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.produce(3).await;
            self.kill(0);
        }
    }
}

/// Which part of which batch of which lane a record is, and how many records of the input it counts.
fn part_of(data: &Bytes, lane: &str) -> Option<(String, u64)> {
    let Ok(Message::Batch(part)) = Envelope::decode(data) else { return None };
    let counted = parse_counts(&String::from_utf8_lossy(&part.payload)).values().sum();
    Some((format!("{lane} {} {} {} {}", part.source, part.epoch, part.n, part.part), counted))
}
