//! Records that expire before they were carried on: what is lost is counted, and nothing counts twice.

use std::sync::atomic::Ordering;
use std::time::Duration;

use flowshift_consumer::{inspect, resolve};

use super::port::{ALL_REFUSED, Faults};
use super::world::{EXCHANGE, INPUT, Roles, World, tables};

const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// Puts `count` records, a tenth of a second apart.
    pub(crate) async fn produce_slowly(&mut self, count: u32) {
        for _ in 0..count {
            self.produce(1).await;
            tokio::time::sleep(SECOND / 10).await;
        }
    }

    /// Half of what is in the stream is gone from now on. Returns how many records that is.
    fn expire_half(&self, stream: &str) -> u64 {
        let mut arrivals: Vec<i64> = self.log.dump(stream).iter().map(|r| r.arrived_ms).collect();
        arrivals.sort_unstable();
        let horizon = arrivals[arrivals.len() / 2];
        let index = [INPUT, EXCHANGE].iter().position(|s| *s == stream).unwrap();
        self.horizons[index].store(horizon, Ordering::Relaxed);
        arrivals.iter().filter(|ms| **ms < horizon).count() as u64
    }

    /// Batches are cut, and `faults` (per thousand puts) keep them from the lanes; then the worker dies and half of
    /// their records expire. Returns how many.
    pub(crate) async fn expire_what_is_cut(&mut self, faults: u64) -> Result<u64, String> {
        // A source that had to come back first would cut nothing: the lanes cannot be told.
        self.one_kind = true;
        self.produce_slowly(60).await;
        self.start(Roles::All, Faults { puts: [0, faults, 0], ..Faults::default() });
        tokio::time::sleep(15 * SECOND).await;
        for row in inspect::rows(&*self.table, &tables(), INPUT).await.map_err(|e| e.to_string())? {
            // With less than all refused a batch may come through after all: then nothing of it is lost.
            if row.cut.as_ref().is_none_or(|cut| cut.n > 1 && faults >= ALL_REFUSED) {
                return Err(format!("{} did not stop at its first batch", row.shard));
            }
        }
        self.kill(0);
        Ok(self.expire_half(INPUT))
    }

    /// Batches stand in the exchange stream unread until half of it expires. The lanes must stop, until an operator
    /// lets them go on.
    pub(crate) async fn expire_what_was_emitted(&mut self) -> Result<(), String> {
        self.start(Roles::Map, Faults::default());
        self.produce_slowly(200).await;
        tokio::time::sleep(10 * SECOND).await;
        self.expire_half(EXCHANGE);
        self.start(Roles::All, Faults::default());
        tokio::time::sleep(60 * SECOND).await;
        let counted: u64 =
            self.counters().await?.iter().filter(|(name, _)| name.starts_with("c ")).map(|(_, n)| n).sum();
        if counted > 0 {
            return Err(format!("lanes went past a gap on their own and counted {counted}"));
        }
        let now_ms = self.log.now_ms();
        for row in inspect::rows(&*self.table, &tables(), EXCHANGE).await.map_err(|e| e.to_string())? {
            let decided = resolve::accept_gaps(&*self.table, &tables(), EXCHANGE, &row.shard, now_ms).await;
            decided.map_err(|e| e.to_string())?;
        }
        tokio::time::sleep(60 * SECOND).await;
        self.produce_slowly(50).await;
        Ok(())
    }
}
