//! Sources that wait and must be waited for: nobody may be put out for what it cannot help, so that nothing is late but
//! by its own shard's records ([`super::account`]).
//!
//! Reads that fail, a parent whose backlog keeps its children waiting, mappers that are gone, a word to the lanes that
//! is held up. Everything else is calm, and
//! every shard has records all the time: whoever goes out of the source set here was put out wrongly.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flowshift_consumer::exchange::Status;
use flowshift_consumer::lease::{Checkpoint, LeaseRow};
use flowshift_consumer::log::Log;
use flowshift_consumer::shard::{Shard, ShardId};
use flowshift_consumer::table::Table;
use flowshift_consumer::{inspect, resolve};
use tokio::time::Instant;

use super::account::Floors;
use super::job::STEP_MS;
use super::port::{Faults, Hindrance};
use super::world::{EXCHANGE, INPUT, Roles, World, tables};

/// Of the simulation's workers (`world`): when a silent source is idle.
pub(crate) const IDLE_AFTER: Duration = Duration::from_secs(8);
const STUCK_AFTER: Duration = Duration::from_secs(40);
/// How long lanes wait to be told the source set again.
const HELD_UP: Duration = Duration::from_secs(60);
const ROUND: Duration = Duration::from_secs(2);
/// How much later than a source's watermark is committed the lanes have committed what it closes.
const FOLLOWS: Duration = Duration::from_secs(12);

impl World {
    /// Rounds of [`ROUND`], in each of which every open shard of the input is given records.
    async fn work(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.produce_everywhere().await;
            self.produce(3).await;
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Records of the first kind alone, on more than one shard.
    fn on_several_shards(&mut self) {
        self.one_kind = true;
        if self.log.lineage(INPUT).len() == 1 {
            self.log.split(INPUT, &ShardId::new("shardId-000000000000"));
        }
    }

    async fn open_shards(&self) -> Vec<Shard> {
        self.log.shards(INPUT).await.unwrap().into_iter().filter(|shard| !shard.closed).collect()
    }

    /// Workers come and go with a word, shards split and merge, and no source is ever silent.
    pub(crate) async fn calm_without_silence(&mut self) {
        self.on_several_shards();
        self.start(Roles::All, Faults::default());
        self.work(10).await;
        self.reshard(INPUT).await;
        self.work(10).await;
        self.start(Roles::All, Faults::default());
        self.work(10).await;
        self.reshard(INPUT).await;
        self.processes.remove(0).leave.cancel();
        self.work(20).await;
    }

    /// Reads of one shard fail for much longer than a source is silent before it is idle, while the others go on.
    pub(crate) async fn a_shard_cannot_be_read_for_a_while(&mut self) {
        self.on_several_shards();
        self.start(Roles::All, Faults::default());
        self.work(10).await;
        let shard = self.open_shards().await.remove(0).id;
        self.hindered.lock().unwrap().insert(shard, Hindrance::Fails);
        let until = Instant::now() + IDLE_AFTER * 4;
        while Instant::now() < until {
            self.work(1).await;
        }
        self.hindered.lock().unwrap().clear();
        self.work(15).await;
    }

    /// A shard that is read slowly is split while it is far behind: its children wait for longer than `stuck_after`.
    /// The lanes go on as far as the parent's watermark meanwhile.
    pub(crate) async fn a_reshard_behind_a_backlog(&mut self) -> Result<(), String> {
        self.on_several_shards();
        self.stuck_after = STUCK_AFTER;
        // A subscription cannot be read slowly.
        self.pushed.clear();
        self.start(Roles::All, Faults::default());
        self.work(10).await;
        let parent = self.open_shards().await.remove(0);
        // Two minutes of records, of which it reads a few; then it reads about as fast as they came.
        self.hindered.lock().unwrap().insert(parent.id.clone(), Hindrance::Slow(ROUND * 3));
        self.work(60).await;
        self.hindered.lock().unwrap().insert(parent.id.clone(), Hindrance::Slow(ROUND * 3 / 4));
        self.log.split(INPUT, &parent.id);
        let (split, mut marks) = (Instant::now(), BTreeMap::new());
        loop {
            self.work(1).await;
            let rows = inspect::rows(&*self.table, &tables(), INPUT).await.map_err(|e| e.to_string())?;
            let row = rows.into_iter().find(|row| row.shard == parent.id).ok_or("the parent has no row")?;
            if row.checkpoint == Checkpoint::ShardEnd {
                break;
            }
            marks.insert(Instant::now(), row.cut.map_or(i64::MIN, |cut| cut.watermarks[0]));
            let followed = Instant::now().checked_sub(FOLLOWS).and_then(|by| marks.range(..by).next_back());
            if let Some((_, mark)) = followed.filter(|(_, mark)| **mark > i64::MIN)
                && let told = self.told(0).await?
                && told < mark.div_euclid(STEP_MS) - 1
            {
                let (after, closed) = (split.elapsed(), mark.div_euclid(STEP_MS) - 1);
                return Err(format!(
                    "lanes stand at step {told} {after:?} after the split; the parent had passed {closed}"
                ));
            }
        }
        self.hindered.lock().unwrap().clear();
        if split.elapsed() < STUCK_AFTER * 3 / 2 {
            return Err(format!("the parent's backlog was read within {:?}", split.elapsed()));
        }
        self.work(15).await;
        Ok(())
    }

    /// A shard that was silent is given records and split at once, and cannot be read until its children have rows;
    /// then it comes back, to its backlog and to its end.
    pub(crate) async fn a_reshard_of_a_source_that_is_out(&mut self) -> Result<(), String> {
        self.on_several_shards();
        self.start(Roles::All, Faults::default());
        self.work(10).await;
        let silent = self.open_shards().await.remove(0);
        while !self.put_out().contains(&silent.id) {
            self.work_but_for(&silent.id).await;
        }
        self.hindered.lock().unwrap().insert(silent.id.clone(), Hindrance::Fails);
        self.produce_into(&silent).await;
        self.log.split(INPUT, &silent.id);
        while self.heirs_of(&silent.id).await?.len() < 2 {
            self.work(1).await;
        }
        self.hindered.lock().unwrap().clear();
        self.work(20).await;
        if self.floors().get(&silent.id).is_none_or(Vec::is_empty) {
            return Err("the shard was split when it was back already".into());
        }
        match self.heirs_of(&silent.id).await?.into_iter().find(|child| child.asked > 0) {
            Some(child) => Err(format!("{} was out, though its parent counted when it ended", child.shard)),
            None => Ok(()),
        }
    }

    /// As [`World::work`], one round, but nothing comes into this shard.
    async fn work_but_for(&mut self, silent: &ShardId) {
        for shard in self.open_shards().await.into_iter().filter(|shard| shard.id != *silent) {
            self.produce_into(&shard).await;
        }
        tokio::time::sleep(ROUND).await;
    }

    /// The children of a shard that have rows.
    async fn heirs_of(&self, shard: &ShardId) -> Result<Vec<LeaseRow>, String> {
        let rows = inspect::rows(&*self.table, &tables(), INPUT).await.map_err(|e| e.to_string())?;
        Ok(rows.into_iter().filter(|row| row.parents.contains(shard)).collect())
    }

    /// The only worker is told to leave while sources wait to be let back by the leader, which leaves with it.
    pub(crate) async fn all_leave_while_sources_wait(&mut self) -> Result<(), String> {
        self.on_several_shards();
        self.start(Roles::All, Faults::default());
        self.work(10).await;
        tokio::time::sleep(IDLE_AFTER * 4).await;
        self.produce_everywhere().await;
        let asks = |row: &LeaseRow| row.status[0] == Status::Return;
        while !inspect::rows(&*self.table, &tables(), INPUT).await.map_err(|e| e.to_string())?.iter().any(asks) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let last = self.processes.remove(0);
        last.leave.cancel();
        match tokio::time::timeout(Duration::from_secs(20), last.handle).await {
            Ok(ended) => ended.map_err(|e| e.to_string()),
            Err(_) => Err("it does not leave".into()),
        }
    }

    /// All mappers are gone for a while, and a worker that only reduces leads.
    pub(crate) async fn mappers_gone_for_a_while(&mut self) {
        self.on_several_shards();
        self.start(Roles::Map, Faults::default());
        self.start(Roles::Reduce, Faults::default());
        self.work(15).await;
        self.kill(0);
        let until = Instant::now() + IDLE_AFTER * 4;
        while Instant::now() < until {
            self.work(1).await;
        }
        self.start(Roles::Map, Faults::default());
        self.work(20).await;
    }

    /// Lanes that close nothing before they are told the source set again are told it late: the leader has committed
    /// and put a later one by then, which says nothing to them.
    pub(crate) async fn lanes_are_told_late(&mut self) -> Result<(), String> {
        self.on_several_shards();
        self.start(Roles::All, Faults::default());
        self.work(10).await;
        for process in std::mem::take(&mut self.processes) {
            process.leave.cancel();
            process.handle.await.map_err(|e| e.to_string())?;
        }
        let now_ms = self.log.now_ms();
        for row in inspect::rows(&*self.table, &tables(), EXCHANGE).await.map_err(|e| e.to_string())? {
            let accepted = resolve::accept_gaps(&*self.table, &tables(), EXCHANGE, &row.shard, now_ms).await;
            accepted.map_err(|e| e.to_string())?;
        }
        *self.held_up.lock().unwrap() = Some(Instant::now() + HELD_UP);
        self.start(Roles::All, Faults::default());
        self.work(10).await;
        let before = self.number_of_the_set().await?;
        let parent = self.open_shards().await.remove(0);
        self.log.split(INPUT, &parent.id);
        self.work(20).await;
        if self.number_of_the_set().await? == before {
            return Err("the leader committed no new source set".into());
        }
        *self.held_up.lock().unwrap() = None;
        let told_by = self.log.now_ms();
        self.work(20).await;
        match self.told(0).await? {
            told if told < told_by.div_euclid(STEP_MS) - 1 => {
                Err(format!("lanes stand at step {told}: they were told in vain"))
            }
            _ => Ok(()),
        }
    }

    async fn number_of_the_set(&self) -> Result<Option<i64>, String> {
        let item = self.table.get(&tables().state(), "control").await.map_err(|e| e.to_string())?;
        Ok(item.and_then(|item| item.number("n")))
    }

    /// Nothing is late but by the records of its own shard, and no source was put out or given a floor.
    pub(crate) async fn judge_that_nobody_had_to_wait(&self) -> Result<(), String> {
        let out = self.put_out();
        if !out.is_empty() {
            return Err(format!("sources were put out that had records all the time: {out:?}"));
        }
        self.every_record_is_late_only_by_the_account(&self.counters().await?, &Floors::new())?;
        self.judge().await
    }

    /// Nothing is late but by the records of its own shard, and by the floors of those that had been silent.
    pub(crate) async fn judge_by_the_floors(&self) -> Result<(), String> {
        self.every_record_is_late_only_by_the_account(&self.counters().await?, &self.floors())?;
        self.judge().await
    }

    /// Sources that were put out of the first kind, which all of them begin with.
    fn put_out(&self) -> BTreeSet<ShardId> {
        self.books().put_out.iter().filter(|(_, kind)| *kind == 0).map(|(shard, _)| shard.clone()).collect()
    }
}
