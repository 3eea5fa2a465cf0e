//! What is done to the world: a calm run, and a storm of everything that can go wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flowshift_consumer::inspect;
use flowshift_consumer::lease::Checkpoint;
use flowshift_consumer::log::Log;
use flowshift_consumer::resolve;
use flowshift_consumer::shard::{Position, Shard};
use rand::Rng;
use tokio::time::Instant;

use super::ambush::{Ambush, Moment};
use super::port::Faults;
use super::world::{CONSUMER, EXCHANGE, INPUT, Process, Roles, World, tables};

impl World {
    /// Two minutes without a fault.
    pub(crate) async fn calm(&mut self) {
        self.start(Roles::All, Faults::default());
        for _ in 0..40 {
            self.produce(5).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }

    /// Some minutes of kills, leaves, pauses longer than a lease, faults on every hop, and reshards of both streams.
    pub(crate) async fn storm(&mut self) {
        for _ in 0..3 {
            self.start_any();
        }
        self.rounds(60).await;
    }

    pub(crate) async fn rounds(&mut self, count: u32) {
        for _ in 0..count {
            // Bursts, and pauses in which sources go idle.
            let count = if self.chance.random_bool(0.2) { 0 } else { self.chance.random_range(0..12) };
            self.produce(count).await;
            let pause = if self.chance.random_bool(0.05) { 20_000 } else { 6_000 };
            let pause = self.chance.random_range(200..pause);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.fill_up();
            self.strike().await;
            self.fill_up();
        }
    }

    /// A storm in which faults are placed at a moment, shards are resharded often, and closed ones go from their
    /// streams soon after they were consumed.
    pub(crate) async fn ambushed(&mut self, moment: Moment) -> Result<(), String> {
        let ambush = Arc::new(Ambush::new(moment, 16));
        self.ambush = Some(Arc::clone(&ambush));
        let mut rounds = 0;
        while rounds < 60 || ambush.used() == 0 && rounds < 600 {
            rounds += 1;
            if rounds == 300 {
                // Where half of all calls fail, no commit of several comes through: it takes one that is spared.
                self.start(Roles::All, Faults::default());
            }
            self.fill_up();
            let count = self.chance.random_range(0..8);
            self.produce(count).await;
            let pause = self.chance.random_range(200..6_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if self.chance.random_bool(0.25) {
                let stream = if self.chance.random_bool(0.5) { INPUT } else { EXCHANGE };
                self.reshard(stream).await;
            }
            self.expire_what_is_consumed().await;
        }
        self.ambush = None;
        if ambush.used() == 0 { Err("the moment never came".into()) } else { Ok(()) }
    }

    /// Closed shards that were read to their end, records and all.
    async fn expire_what_is_consumed(&mut self) {
        for stream in [INPUT, EXCHANGE] {
            for row in inspect::rows(&*self.table, &tables(), stream).await.unwrap() {
                if row.checkpoint == Checkpoint::ShardEnd && self.chance.random_bool(0.3) {
                    self.log.expire(stream, &row.shard);
                }
            }
        }
    }

    /// Buries processes that died by themselves, and starts others.
    fn fill_up(&mut self) {
        let dead = |process: &Process| process.port.dead.load(Ordering::Relaxed);
        while let Some(index) = self.processes.iter().position(dead) {
            self.kill(index);
        }
        while self.processes.len() < 2 {
            self.start_any();
        }
    }

    pub(crate) fn start_any(&mut self) {
        let roles = match self.chance.random_range(0..4) {
            0 => Roles::Map,
            1 => Roles::Reduce,
            _ => Roles::All,
        };
        let faults = Faults::draw(&mut self.chance);
        self.start(roles, faults);
    }

    async fn strike(&mut self) {
        let action = self.chance.random_range(0..26);
        let victim = self.chance.random_range(0..self.processes.len());
        match action {
            0..4 => self.kill(victim),
            4..6 => self.processes.remove(victim).leave.cancel(),
            6..9 => {
                let pause = Duration::from_secs(self.chance.random_range(5..40));
                *self.processes[victim].port.frozen_until.lock().unwrap() = Some(Instant::now() + pause);
            }
            9..11 => self.reshard(INPUT).await,
            11..13 => self.reshard(EXCHANGE).await,
            13 => {
                // UpdateShardCount: several splits or merges at once.
                let stream = if self.chance.random_bool(0.5) { INPUT } else { EXCHANGE };
                self.reshard(stream).await;
                self.reshard(stream).await;
            }
            14..17 => self.take_a_subscription().await,
            _ => {}
        }
    }

    /// Someone of our name, whom nobody knows, subscribes to a shard and is told everything from its beginning.
    async fn take_a_subscription(&mut self) {
        let Some(stream) = self.pushed.get(self.chance.random_range(0..3)) else { return };
        let shards = self.log.shards(stream).await.unwrap();
        let shard = &shards[self.chance.random_range(0..shards.len())];
        let consumer = self.log.register(stream, CONSUMER).await.unwrap();
        // It may come too early, and is refused.
        if let Ok(mut taken) = self.log.subscribe(&consumer, &shard.id, &Position::TrimHorizon).await {
            let until = Instant::now() + Duration::from_secs(self.chance.random_range(1..60));
            tokio::spawn(tokio::time::timeout_at(until, async move { while taken.next().await.is_some() {} }));
        }
    }

    pub(crate) async fn reshard(&mut self, stream: &str) {
        // Merged with a broken lane all would be: then there is nothing to go on with.
        if stream == EXCHANGE && !self.broken.lock().unwrap().is_empty() {
            return;
        }
        let open: Vec<Shard> = self.log.shards(stream).await.unwrap().into_iter().filter(|s| !s.closed).collect();
        let pick = self.chance.random_range(0..open.len());
        if open.len() < 4 && self.chance.random_bool(0.6) {
            self.log.split(stream, &open[pick].id);
            return;
        }
        let mut by_range = open;
        by_range.sort_by_key(|s| s.range.start);
        if by_range.len() > 1 {
            let pick = self.chance.random_range(0..by_range.len() - 1);
            self.log.merge(stream, &by_range[pick].id, &by_range[pick + 1].id);
        }
    }
}

impl World {
    /// A calm run in which everyone leaves, an operator discards the state of every input shard, and work goes on: from
    /// the same checkpoints, under new epochs.
    pub(crate) async fn calm_with_a_reset(&mut self) {
        self.start(Roles::All, Faults::default());
        for _ in 0..10 {
            self.produce(5).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        for process in std::mem::take(&mut self.processes) {
            process.leave.cancel();
            process.handle.await.unwrap();
        }
        for row in inspect::rows(&*self.table, &tables(), INPUT).await.unwrap() {
            resolve::discard_state(&*self.table, &tables(), INPUT, &row.shard).await.unwrap();
        }
        self.start(Roles::All, Faults::default());
        for _ in 0..10 {
            self.produce(5).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
}
