//! An exchange shard that stands still for longer than everyone waits: the others go on without its lanes.

use std::time::Duration;

use flowshift_consumer::inspect;
use flowshift_consumer::log::Log;
use flowshift_consumer::shard::Shard;
use flowshift_consumer::skip::LaneShard;
use rand::Rng;

use super::job::STEP_MS;
use super::oracle::Dropped;
use super::port::Faults;
use super::world::{EXCHANGE, Roles, World, tables};

const STUCK_AFTER: Duration = Duration::from_secs(40);
/// How long the shard may take to commit once it can, under faults: up to then its lanes may be skipped.
const BACK_MS: i64 = 120_000;

impl World {
    /// In the middle of a storm the lanes of one exchange shard break and stay so while the storm goes on; the third
    /// stage must go on without them. Then they are mended. Returns from when on they can be whole again, epoch
    /// milliseconds.
    pub(crate) async fn storm_around_a_stuck_shard(&mut self) -> Result<i64, String> {
        self.stuck_after = STUCK_AFTER;
        for _ in 0..3 {
            self.start_any();
        }
        self.rounds(15).await;
        let broken_ms = self.break_a_shard().await?;
        self.rounds(15).await;
        self.merge_the_broken_shard().await;
        self.rounds(25).await;
        // Whatever the storm left: one worker without faults must bring it about.
        while !self.processes.is_empty() {
            self.kill(0);
        }
        self.start(Roles::All, Faults::default());
        for _ in 0..50 {
            self.produce(4).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let judged = self.verdicts().await?.outbox;
        let after = judged.iter().filter_map(|entry| entry.split(' ').nth(1)?.parse::<i64>().ok());
        let last = after.max().unwrap_or(i64::MIN);
        if last.saturating_mul(STEP_MS) < broken_ms + 60_000 {
            return Err(format!(
                "nothing is judged behind step {last}: it waits for the stuck shard\n{}",
                self.verdicts().await?.encode()
            ));
        }
        self.broken.lock().unwrap().clear();
        let mended_ms = self.log.now_ms();
        self.rounds(25).await;
        Ok(mended_ms + BACK_MS)
    }

    /// Breaks the lanes of one of several exchange shards that are read now. Returns when, epoch milliseconds.
    async fn break_a_shard(&mut self) -> Result<i64, String> {
        let open: Vec<Shard> = self.log.shards(EXCHANGE).await.unwrap().into_iter().filter(|s| !s.closed).collect();
        if let [only] = open.as_slice() {
            self.log.split(EXCHANGE, &only.id);
        }
        // A parent that is not consumed holds the lanes of all its children: broken with it, nothing would be left.
        self.start(Roles::All, Faults::default());
        for round in 0..60 {
            if round == 30 {
                // Leases stay with whoever has them, and one whose table fails every fourth time never restores a
                // shard.
                (0..self.processes.len()).for_each(|_| self.kill(0));
                self.start(Roles::All, Faults::default());
                self.start_any();
            }
            self.produce(2).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let shards = self.log.shards(EXCHANGE).await.unwrap();
            let rows = inspect::rows(&*self.table, &tables(), EXCHANGE).await.map_err(|e| e.to_string())?;
            let read = LaneShard::of_rows(&rows, self.lanes);
            let at_rest = read.iter().all(|r| shards.iter().any(|s| s.id == r.shard && !s.closed));
            // The one with the most lanes: few keys may have no record in all that time.
            let most = read.iter().max_by_key(|shard| shard.lanes.len());
            if let Some(most) = most.filter(|_| at_rest && read.len() > 1) {
                self.broken.lock().unwrap().extend(most.lanes.iter().copied());
                return Ok(self.log.now_ms());
            }
        }
        Err("the exchange did not come to rest".into())
    }

    /// Half of the time the shard that stands still is merged with a neighbour, whose lanes then stand still, too, as
    /// long as a third one moves.
    async fn merge_the_broken_shard(&mut self) {
        let mut open: Vec<Shard> = self.log.shards(EXCHANGE).await.unwrap().into_iter().filter(|s| !s.closed).collect();
        open.sort_by_key(|shard| shard.range.start);
        let is_broken = |shard: &Shard| {
            let broken = self.broken.lock().unwrap();
            self.lanes.within(shard.range).iter().any(|lane| broken.contains(lane))
        };
        let broken = open.iter().position(is_broken).unwrap();
        if open.len() > 2 && self.chance.random_bool(0.5) {
            let low = broken.min(open.len() - 2);
            self.log.merge(EXCHANGE, &open[low].id, &open[low + 1].id);
        }
    }

    /// The run's oracle: exact but for what came too late, which is counted and all of the time before `whole_ms`.
    pub(crate) async fn judge_the_stuck_shard(&self, whole_ms: i64) -> Result<(), String> {
        let dropped: Dropped = self.judge_with_skips().await?;
        match dropped.keys().find(|(_, step)| step * STEP_MS > whole_ms) {
            Some(late) => Err(format!("{late:?} was dropped although the lanes were back: {dropped:?}")),
            None if dropped.is_empty() => Err("lanes were skipped and nothing came too late".into()),
            None => Ok(()),
        }
    }
}
