//! One shard from its acquisition to its end: errors start it again from its commit, under a new fence.
//!
//! Invariants: the lease is renewed by a task of its own for as long as a driver runs, and no longer; a panic in a
//! stage is a failure of this shard alone. Read next: [`super::task`] (what a driver is given), [`super::role`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::retention::Retention;
use super::role::Role;
use super::roster::Successors;
use super::task::{FirstRead, ShardTask};
use super::{DriveError, Exit, Reading, WorkerConfig};
use crate::clock::WallClock;
use crate::commit::{ChunkError, Chunks, Epochs, SnapshotError, Snapshots};
use crate::lease::{HeldLease, LeaseError, LeasePlace, attribute};
use crate::log::{Log, LogError, PutError};
use crate::metrics::EngineMetrics;
use crate::stage::ShardContext;
use crate::table::{Condition, Table, Update, Value};

/// The longest pause before a failed shard is tried again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Characters of a trouble that its row keeps.
const TOLD: usize = 300;

/// Whether the error passes by itself: a table or a stream that does not answer, a lease that is to go.
fn passes(error: &DriveError) -> bool {
    match error {
        DriveError::Table(e)
        | DriveError::Lease(LeaseError::Table(e))
        | DriveError::Chunk(ChunkError::Table(e))
        | DriveError::Snapshot(SnapshotError::Table(e)) => e.is_retryable(),
        DriveError::Lease(e) => matches!(e, LeaseError::Lost | LeaseError::Refused),
        DriveError::Log(e) => e.is_retryable() || matches!(e, LogError::Expired),
        DriveError::Put(e) => !matches!(e, PutError::Refused(_)),
        _ => false,
    }
}

/// Says in the row why its shard stopped, for whoever looks at it from outside.
async fn tell(lease: &HeldLease, error: &DriveError) {
    if passes(error) {
        return;
    }
    let text: String = error.to_string().chars().take(TOLD).collect();
    // The same at each try: then the row needs no write.
    if lease.row().await.is_ok_and(|row| row.trouble.as_ref() == Some(&text)) {
        return;
    }
    let update = Update::new().set(attribute::TROUBLE, Value::string(text));
    if let Err(error) = lease.write(update, Condition::None).await {
        tracing::debug!(lease = lease.key(), %error, "why it stopped is in the log alone");
    }
}

/// Ends a task with its scope.
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where leases are renewed, when not among the stages.
#[derive(Debug, Clone)]
pub(super) struct Renewals {
    pub(super) handle: Option<Handle>,
    /// The table as reached from there.
    pub(super) table: Arc<dyn Table>,
}

impl Renewals {
    /// Runs a task where the renewals run.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        match &self.handle {
            Some(handle) => handle.spawn(task),
            None => tokio::spawn(task),
        }
    }
}

/// One shard from its acquisition to its end.
pub(super) struct Shard {
    pub(super) context: ShardContext,
    pub(super) role: Arc<dyn Role>,
    pub(super) reading: Reading,
    pub(super) config: WorkerConfig,
    pub(super) table: Arc<dyn Table>,
    pub(super) renewals: Renewals,
    pub(super) log: Arc<dyn Log>,
    pub(super) metrics: EngineMetrics,
    pub(super) clock: WallClock,
    pub(super) retention: Retention,
    pub(super) ends: watch::Receiver<Option<Instant>>,
    pub(super) successors: Arc<Successors>,
    /// Cancelled when the worker leaves or the lease is to go to another.
    pub(super) stop: CancellationToken,
}

impl Shard {
    /// Acquires the lease and drives until it is lost or the shard has ended; errors start it again from the commit,
    /// under a new fence.
    pub(super) async fn run(&self) -> Exit {
        let mut backoff = self.config.timing.discovery;
        let mut seen = Some(Instant::now());
        loop {
            let name = self.context.stream.name.as_str();
            let (again, since) = (seen.is_none(), seen.take());
            let acquired = AssertUnwindSafe(self.acquire(since)).catch_unwind().await;
            let task = match acquired.unwrap_or(Err(DriveError::Panicked)) {
                Ok(task) => task,
                Err(e @ DriveError::Panicked) => {
                    tracing::error!(stream = name, shard = %self.context.shard, error = %e, "lease not acquired");
                    return Exit::Lost;
                }
                Err(e) => {
                    tracing::debug!(stream = name, shard = %self.context.shard, error = %e, "lease not acquired");
                    return Exit::Lost;
                }
            };
            if !again {
                // Not when it is tried again: a shard that stops at the same place each time makes no progress.
                self.metrics.acquired(name, task.lease.key());
            }
            let keeper = AbortOnDrop(self.renewals.spawn(Arc::clone(&task.lease).keep()));
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
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Exit::Lost,
                        () = tell(&task.lease, &e) => {}
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Exit::Lost,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF.min(self.config.timing.lease.failover / 2));
        }
    }

    async fn acquire(&self, seen: Option<Instant>) -> Result<ShardTask, DriveError> {
        let leases = self.config.tables.leases(&self.context.stream.name);
        let place = LeasePlace {
            stream: self.context.stream.name.clone(),
            table: Arc::clone(&self.renewals.table),
            name: leases.clone(),
            worker: self.config.worker.clone(),
            times: self.config.timing.lease,
            runs_on: self.renewals.handle.clone(),
            metrics: self.metrics.clone(),
        };
        let lease = HeldLease::acquire(place, self.context.shard.as_str(), self.stop.clone()).await?;
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
            leave: self.stop.clone(),
            successors: Arc::clone(&self.successors),
            assigned: seen.map_or_else(FirstRead::default, FirstRead::since),
            ends: self.ends.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            retention: self.retention.clone(),
            state_keys: self.role.keys(&self.context),
            state_mismatch: self.config.state_mismatch,
            crc_mismatch: self.config.crc_mismatch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableError;

    /// A refusal for good was taken for an outage, and the row said nothing; a chunk that could not be read for a moment
    /// was told.
    #[test]
    fn what_passes_by_itself_is_not_told_and_what_stays_is() {
        let out = || TableError::Unavailable("no answer".into());
        let wrong = || TableError::Invalid("no such thing".into());
        for passing in [
            DriveError::Table(out()),
            DriveError::Lease(LeaseError::Table(out())),
            DriveError::Lease(LeaseError::Lost),
            DriveError::Chunk(ChunkError::Table(out())),
            DriveError::Snapshot(SnapshotError::Table(out())),
            DriveError::Log(LogError::Throttled),
            DriveError::Put(PutError::Cancelled),
        ] {
            assert!(passes(&passing), "{passing}");
        }
        for staying in [
            DriveError::Table(wrong()),
            DriveError::Lease(LeaseError::Table(wrong())),
            DriveError::Chunk(ChunkError::Table(wrong())),
            DriveError::Log(LogError::Invalid("no such thing".into())),
            DriveError::Put(PutError::Refused(LogError::Invalid("too large".into()))),
            DriveError::Panicked,
        ] {
            assert!(!passes(&staying), "{staying}");
        }
    }
}
