//! Runs the shards this worker was given, each on a task of its own, and carries the end of the input from stream to
//! stream.
//!
//! The worker looks at its bell and reads the lease tables when it rang, when a shard's task ended, and every
//! [`Timing::look`](super::Timing) or, in a large fleet, more rarely as a safety net; while a finite input ends, at
//! every turn. Invariants: a shard runs at most once here; on leaving, every shard commits and is given away before
//! [`Runner::run`] returns.
//! Read next: [`super::shard`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::beat::bell;
use super::retention::Retention;
use super::role::Role;
use super::roster::{Successors, fleet};
use super::shard::{Renewals, Shard};
use super::worker::Worker;
use super::{Exit, Reading};
use crate::lease::{Checkpoint, LeaseRow, attribute};
use crate::log::StreamId;
use crate::shard::ShardId;
use crate::stage::ShardContext;
use crate::table::{Condition, TableError, Update, Value};

/// One stream of the job while the worker runs.
pub(super) struct StreamState {
    id: StreamId,
    role: Arc<dyn Role>,
    reading: Reading,
    /// When the stream's input is known to be over.
    ends: watch::Receiver<Option<Instant>>,
    /// Tells the next stream that this one is done.
    done: watch::Sender<Option<Instant>>,
    /// What runs here, with the token that asks it to commit and give its lease away.
    running: BTreeMap<String, CancellationToken>,
    finished: BTreeSet<String>,
}

impl StreamState {
    /// A stream whose input is over when `ends` says so, and which then tells `done`.
    pub(super) fn new(
        id: StreamId,
        role: Arc<dyn Role>,
        reading: Reading,
        ends: watch::Receiver<Option<Instant>>,
        done: watch::Sender<Option<Instant>>,
    ) -> Self {
        Self { id, role, reading, ends, done, running: BTreeMap::new(), finished: BTreeSet::new() }
    }

    fn rests(&self, row: &LeaseRow) -> bool {
        row.checkpoint == Checkpoint::ShardEnd || self.finished.contains(row.shard.as_str())
    }

    fn is_ending(&self) -> bool {
        self.ends.borrow().is_some() && self.done.borrow().is_none()
    }
}

/// The worker's streams and the tasks of its shards.
pub(super) struct Runner<'a> {
    worker: &'a Worker,
    renewals: Renewals,
    successors: Arc<Successors>,
    streams: Vec<StreamState>,
    /// Each ends with its stream's index, its shard and how it ended.
    tasks: JoinSet<(usize, String, Exit)>,
    /// What the bell showed before the last look at the tables; outer none: look in any case.
    heard: Option<Option<i64>>,
    looked: Option<Instant>,
    /// When what the leader publishes was read.
    learned: Option<Instant>,
    /// Owners of leases at the last look.
    owners: usize,
}

/// A safety net must not cost more than what it secures: that many workers look every
/// [`Timing::look`](super::Timing), more of them more rarely, up to so many times.
const LOOKERS: usize = 4;
const RARELY: u32 = 6;

/// Time between two looks in a fleet of this many workers.
fn pause(look: Duration, workers: usize) -> Duration {
    look * u32::try_from(workers.div_ceil(LOOKERS)).unwrap_or(RARELY).clamp(1, RARELY)
}

impl<'a> Runner<'a> {
    pub(super) fn new(worker: &'a Worker, renewals: Renewals, streams: Vec<StreamState>) -> Self {
        let names = streams.iter().map(|s| s.id.name.clone()).collect();
        let successors = Arc::new(Successors::new(Arc::clone(&worker.table), worker.config.clone(), names));
        let tasks = JoinSet::new();
        Self { worker, renewals, successors, streams, tasks, heard: None, looked: None, learned: None, owners: 0 }
    }

    /// Runs until `leave` is cancelled or the last stream is consumed to its end.
    pub(super) async fn run(mut self, leave: &CancellationToken) {
        let mut turn = tokio::time::interval(self.worker.config.timing.discovery);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = leave.cancelled() => break,
                Some(ended) = self.tasks.join_next() => self.note(ended),
                _ = turn.tick() => {
                    if let Err(e) = self.turn(leave).await {
                        tracing::warn!(error = %e, "leases cannot be read");
                        self.heard = None;
                    }
                    if self.streams.last().is_none_or(|s| s.done.borrow().is_some()) {
                        return;
                    }
                }
            }
        }
        while let Some(ended) = self.tasks.join_next().await {
            self.note(ended);
        }
        if let Err(e) = self.pass_on().await {
            tracing::debug!(error = %e, "leases given to a leaving worker are left to expire");
        }
    }

    /// What was given to this worker while it left, and does not run here, goes to the others at once. A row that was
    /// written since the look is looked at once more: a shard that was cut short may have had its last word on the way.
    async fn pass_on(&self) -> Result<(), TableError> {
        if self.pass_all_on().await? { Ok(()) } else { self.pass_all_on().await.map(|_| ()) }
    }

    /// Returns whether no row was written by anybody else meanwhile.
    async fn pass_all_on(&self) -> Result<bool, TableError> {
        let (me, mut all) = (self.worker.config.worker.as_str(), true);
        for stream in &self.streams {
            let table = self.worker.config.tables.leases(&stream.id.name);
            for item in self.worker.table.scan(&table).await? {
                let Ok(Some(row)) = LeaseRow::read(&item) else { continue };
                // A hand-over under way ends with a look at whether its next owner is still there.
                let ours = row.owner.as_deref() == Some(me) && row.checkpoint_owner.is_none();
                if !ours || stream.rests(&row) {
                    continue;
                }
                let as_seen = Condition::All(vec![
                    Condition::Equals(attribute::COUNTER, Value::number(row.counter)),
                    Condition::Equals(attribute::OWNER, Value::string(me)),
                    Condition::Absent(attribute::CHECKPOINT_OWNER),
                ]);
                let next = self.successors.next(&stream.id.name).await;
                let counted = Update::new().set(attribute::COUNTER, Value::number(row.counter.saturating_add(1)));
                let update = match &next {
                    None => counted.remove(attribute::OWNER),
                    Some(next) => counted
                        .set(attribute::OWNER, Value::string(next))
                        .set(attribute::ASSIGNED, Value::string(next))
                        .set(attribute::SWITCHES, Value::number(row.switches.saturating_add(1))),
                };
                match (self.worker.table.update(&table, row.shard.as_str(), update, as_seen).await, next) {
                    (Ok(()), Some(next)) => self.successors.ring(&next).await,
                    (Ok(()), None) => {}
                    (Err(TableError::Conflict { .. }), next) => {
                        all = false;
                        // It may have been our own write, whose answer was lost: a bell too many is only a look.
                        if let Some(next) = next {
                            self.successors.ring(&next).await;
                        }
                    }
                    (Err(e), _) => return Err(e),
                }
            }
        }
        Ok(all)
    }

    fn note(&mut self, ended: Result<(usize, String, Exit), tokio::task::JoinError>) {
        match ended {
            Ok((index, key, exit)) => {
                let stream = &mut self.streams[index];
                stream.running.remove(&key);
                self.worker.metrics.owned(&stream.id.name, stream.running.len());
                self.worker.metrics.forget(&stream.id.name, &key);
                if exit == Exit::Finished {
                    stream.finished.insert(key);
                }
                // The row may be ours again already, or still.
                self.heard = None;
            }
            Err(e) => tracing::error!(error = %e, "a shard's task failed"),
        }
    }

    /// Looks at the tables when there may be something new in them.
    async fn turn(&mut self, leave: &CancellationToken) -> Result<(), TableError> {
        let ending = self.streams.iter().any(StreamState::is_ending);
        let look = self.worker.config.timing.look;
        let pause = pause(look, self.owners);
        let overdue = self.looked.is_none_or(|at| at.elapsed() >= pause);
        let rung = bell(&*self.worker.table, &self.worker.config).await?;
        if self.heard == Some(rung) && !ending && !overdue {
            // What the leader publishes is one item: it may be read as often as in a small fleet.
            if self.learned.is_none_or(|at| at.elapsed() >= look) {
                self.learn().await;
            }
            return Ok(());
        }
        self.discover(leave).await?;
        // The bell as it was before the tables were read: a later ring is another look.
        self.heard = Some(rung);
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Starts what was assigned, stops what is to go to others, and tells the next stream when this one has nothing
    /// left.
    async fn discover(&mut self, leave: &CancellationToken) -> Result<(), TableError> {
        self.learn().await;
        let me = self.worker.config.worker.as_str();
        let mut owners = BTreeSet::new();
        for index in 0..self.streams.len() {
            let name = self.streams[index].id.name.clone();
            let items = self.worker.table.scan(&self.worker.config.tables.leases(&name)).await?;
            let rows: Vec<LeaseRow> = items.iter().filter_map(|i| LeaseRow::read(i).ok().flatten()).collect();
            for row in &rows {
                let stream = &self.streams[index];
                let running = stream.running.get(row.shard.as_str());
                match (row.checkpoint_owner.as_deref(), running) {
                    (Some(old), Some(stop)) if old == me => stop.cancel(),
                    (Some(old), None) if old == me => self.finish_hand_over(&name, row).await?,
                    (None, None) if row.owner.as_deref() == Some(me) && !stream.rests(row) => {
                        self.start(index, row, leave);
                    }
                    _ => {}
                }
            }
            owners.extend(rows.iter().filter_map(|row| row.owner.clone()));
            let stream = &self.streams[index];
            self.worker.metrics.owned(&name, stream.running.len());
            let over = stream.is_ending() && !rows.is_empty();
            // Of a shard that has just ended the leader may not have made the children's rows yet.
            let parents: BTreeSet<&ShardId> = rows.iter().flat_map(|row| &row.parents).collect();
            let known = |row: &LeaseRow| parents.contains(&row.shard);
            let complete = rows.iter().all(|row| row.checkpoint != Checkpoint::ShardEnd || known(row));
            if over && complete && rows.iter().all(|row| stream.rests(row)) {
                tracing::info!(stream = name, "consumed to its end");
                stream.done.send_replace(Some(Instant::now()));
            }
        }
        self.owners = owners.len();
        Ok(())
    }

    /// Tells this worker's shards what the leader counted and found out. Without an answer they go on as before.
    async fn learn(&mut self) {
        self.learned = Some(Instant::now());
        let seen = match fleet(&*self.worker.table, &self.worker.config).await {
            Ok(seen) => seen,
            Err(e) => return tracing::debug!(error = %e, "what the leader publishes cannot be read"),
        };
        if seen.counts.is_some() {
            self.worker.counts.send_if_modified(|known| std::mem::replace(known, seen.counts) != seen.counts);
        }
        self.worker.retentions.send_if_modified(|known| {
            let is_new = *known != seen.retention;
            *known = seen.retention;
            is_new
        });
    }

    /// A hand-over that began when nothing of the shard ran here (any more): there is nothing to commit.
    async fn finish_hand_over(&self, stream: &str, row: &LeaseRow) -> Result<(), TableError> {
        let (Some(old), Some(next)) = (&row.checkpoint_owner, &row.owner) else { return Ok(()) };
        let update = Update::new()
            .set(attribute::ASSIGNED, Value::string(next))
            .set(attribute::COUNTER, Value::number(row.counter.saturating_add(1)))
            .set(attribute::SWITCHES, Value::number(row.switches.saturating_add(1)))
            .remove(attribute::CHECKPOINT_OWNER);
        let as_seen = Condition::All(vec![
            Condition::Equals(attribute::COUNTER, Value::number(row.counter)),
            Condition::Equals(attribute::OWNER, Value::string(next)),
            Condition::Equals(attribute::CHECKPOINT_OWNER, Value::string(old)),
        ]);
        let table = self.worker.config.tables.leases(stream);
        match self.worker.table.update(&table, row.shard.as_str(), update, as_seen).await {
            Ok(()) => self.successors.ring(next).await,
            Err(TableError::Conflict { .. }) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn start(&mut self, index: usize, row: &LeaseRow, leave: &CancellationToken) {
        let (worker, stop) = (self.worker, leave.child_token());
        let stream = &mut self.streams[index];
        let key = row.shard.as_str().to_owned();
        stream.running.insert(key.clone(), stop.clone());
        let shard = Shard {
            context: ShardContext { stream: stream.id.clone(), shard: row.shard.clone(), range: row.range },
            role: Arc::clone(&stream.role),
            reading: stream.reading.clone(),
            config: worker.config.clone(),
            table: Arc::clone(&worker.table),
            renewals: self.renewals.clone(),
            log: Arc::clone(&worker.log),
            metrics: worker.metrics.clone(),
            clock: worker.clock.clone(),
            retention: Retention::new(worker.retentions.subscribe(), &stream.id.name),
            ends: stream.ends.clone(),
            successors: Arc::clone(&self.successors),
            stop,
        };
        self.tasks.spawn(async move { (index, key, shard.run().await) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of 40 workers read 1,000 rows every 10 s: four times what leader and standby read together.
    #[test]
    fn the_looks_of_a_fleet_do_not_grow_with_it_until_they_are_a_minute_apart() {
        let look = Duration::from_secs(10);
        let pauses = [0, 1, 4, 5, 8, 24, 25, 1_000].map(|workers| pause(look, workers).as_secs());
        assert_eq!(pauses, [10, 10, 10, 20, 20, 60, 60, 60]);
    }
}
