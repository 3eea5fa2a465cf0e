//! Runs the shards this worker was given, each on a task of its own, and carries the end of the input from stream to
//! stream.
//!
//! Invariants: a shard runs at most once here; a failed one starts again from its commit under a new fence; on leaving,
//! every shard commits and releases before [`Runner::run`] returns.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::role::Role;
use super::task::ShardTask;
use super::worker::Worker;
use super::{DriveError, Exit, Reading, WorkerConfig};
use crate::commit::{Chunks, Epochs, Snapshots};
use crate::lease::{Checkpoint, HeldLease, LeaseRow};
use crate::log::{Log, StreamId};
use crate::metrics::EngineMetrics;
use crate::stage::ShardContext;
use crate::table::{Table, TableError};

/// The longest pause before a failed shard is tried again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// One stream of the job while the worker runs.
pub(super) struct StreamState {
    id: StreamId,
    role: Arc<dyn Role>,
    reading: Reading,
    /// When the stream's input is known to be over.
    ends: watch::Receiver<Option<Instant>>,
    /// Tells the next stream that this one is done.
    done: watch::Sender<Option<Instant>>,
    running: BTreeSet<String>,
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
        Self { id, role, reading, ends, done, running: BTreeSet::new(), finished: BTreeSet::new() }
    }
}

/// The worker's streams and the tasks of its shards.
pub(super) struct Runner<'a> {
    worker: &'a Worker,
    streams: Vec<StreamState>,
    /// Each ends with its stream's index, its shard and how it ended.
    tasks: JoinSet<(usize, String, Exit)>,
}

impl<'a> Runner<'a> {
    pub(super) fn new(worker: &'a Worker, streams: Vec<StreamState>) -> Self {
        Self { worker, streams, tasks: JoinSet::new() }
    }

    /// Runs until `leave` is cancelled or the last stream is consumed to its end.
    pub(super) async fn run(mut self, leave: &CancellationToken) {
        let mut look = tokio::time::interval(self.worker.config.timing.discovery);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = leave.cancelled() => break,
                Some(ended) = self.tasks.join_next() => self.note(ended),
                _ = look.tick() => {
                    if let Err(e) = self.discover(leave).await {
                        tracing::warn!(error = %e, "leases cannot be read");
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
    }

    fn note(&mut self, ended: Result<(usize, String, Exit), tokio::task::JoinError>) {
        match ended {
            Ok((index, key, exit)) => {
                let stream = &mut self.streams[index];
                stream.running.remove(&key);
                self.worker.metrics.forget(&stream.id.name, &key);
                if exit == Exit::Finished {
                    stream.finished.insert(key);
                }
            }
            Err(e) => tracing::error!(error = %e, "a shard's task failed"),
        }
    }

    /// Starts what was assigned, and tells the next stream when this one has nothing left.
    async fn discover(&mut self, leave: &CancellationToken) -> Result<(), TableError> {
        for index in 0..self.streams.len() {
            let name = self.streams[index].id.name.clone();
            let items = self.worker.table.scan(&self.worker.config.tables.leases(&name)).await?;
            let rows: Vec<LeaseRow> = items.iter().filter_map(|i| LeaseRow::read(i).ok().flatten()).collect();
            for row in &rows {
                let stream = &mut self.streams[index];
                let key = row.shard.as_str().to_owned();
                let mine = row.owner.as_deref() == Some(self.worker.config.worker.as_str());
                let rest = row.checkpoint == Checkpoint::ShardEnd || stream.finished.contains(&key);
                if mine && !rest && stream.running.insert(key) {
                    self.start(index, row, leave);
                }
            }
            let stream = &self.streams[index];
            self.worker.metrics.owned(&name, stream.running.len());
            let over = stream.ends.borrow().is_some() && !rows.is_empty();
            let all = rows
                .iter()
                .all(|row| row.checkpoint == Checkpoint::ShardEnd || stream.finished.contains(row.shard.as_str()));
            if over && all && stream.done.borrow().is_none() {
                tracing::info!(stream = name, "consumed to its end");
                stream.done.send_replace(Some(Instant::now()));
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize, row: &LeaseRow, leave: &CancellationToken) {
        let stream = &self.streams[index];
        let worker = self.worker;
        let context = ShardContext { stream: stream.id.clone(), shard: row.shard.clone(), range: row.range };
        let shard = Shard {
            context,
            role: Arc::clone(&stream.role),
            reading: stream.reading.clone(),
            config: worker.config.clone(),
            table: Arc::clone(&worker.table),
            log: Arc::clone(&worker.log),
            metrics: worker.metrics.clone(),
            ends: stream.ends.clone(),
            leave: leave.clone(),
        };
        let key = row.shard.as_str().to_owned();
        self.tasks.spawn(async move { (index, key, shard.run().await) });
    }
}

/// Ends a task with its scope.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One shard from its acquisition to its end.
struct Shard {
    context: ShardContext,
    role: Arc<dyn Role>,
    reading: Reading,
    config: WorkerConfig,
    table: Arc<dyn Table>,
    log: Arc<dyn Log>,
    metrics: EngineMetrics,
    ends: watch::Receiver<Option<Instant>>,
    leave: CancellationToken,
}

impl Shard {
    /// Acquires the lease and drives until it is lost or the shard has ended; errors start it again from the commit,
    /// under a new fence.
    async fn run(&self) -> Exit {
        let mut backoff = self.config.timing.discovery;
        loop {
            let name = self.context.stream.name.as_str();
            let task = match self.acquire().await {
                Ok(task) => task,
                Err(e) => {
                    tracing::debug!(stream = name, shard = %self.context.shard, error = %e, "lease not acquired");
                    return Exit::Lost;
                }
            };
            let keeper = AbortOnDrop(tokio::spawn(Arc::clone(&task.lease).keep()));
            // A panic in a stage is a failure of this shard alone, and must not leave a lease that nobody drives.
            let driven = AssertUnwindSafe(self.role.drive(&task)).catch_unwind().await;
            drop(keeper);
            match driven.unwrap_or_else(|_| Err(DriveError::Panicked)) {
                Ok(exit) => {
                    tracing::info!(stream = name, shard = %self.context.shard, ?exit, "shard left");
                    return exit;
                }
                Err(e) if e.is_lost() || task.lease.lost().is_cancelled() => return Exit::Lost,
                Err(e) => {
                    tracing::error!(stream = name, shard = %self.context.shard, error = %e, "shard stopped, trying again from its commit");
                    self.metrics.restarted(name);
                }
            }
            tokio::select! {
                biased;
                () = self.leave.cancelled() => return Exit::Lost,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF.min(self.config.timing.lease.failover / 2));
        }
    }

    async fn acquire(&self) -> Result<ShardTask, DriveError> {
        let leases = self.config.tables.leases(&self.context.stream.name);
        let lease = HeldLease::acquire(
            Arc::clone(&self.table),
            leases.clone(),
            self.context.shard.as_str(),
            self.config.worker.clone(),
            self.config.timing.lease,
        )
        .await?;
        self.metrics.acquired(&self.context.stream.name, self.context.shard.as_str());
        let (state, stream) = (self.config.tables.state(), self.context.stream.clone());
        Ok(ShardTask {
            context: self.context.clone(),
            lease: Arc::new(lease),
            log: Arc::clone(&self.log),
            table: Arc::clone(&self.table),
            leases,
            state: state.clone(),
            chunks: Chunks::new(Arc::clone(&self.table), state.clone(), stream.clone()),
            epochs: Epochs::new(Arc::clone(&self.table), state.clone(), stream),
            snapshots: Snapshots::new(Arc::clone(&self.table), state),
            timing: self.config.timing,
            reading: self.reading.clone(),
            leave: self.leave.clone(),
            ends: self.ends.clone(),
            metrics: self.metrics.clone(),
            state_keys: self.role.keys(&self.context),
            state_mismatch: self.config.state_mismatch,
        })
    }
}
