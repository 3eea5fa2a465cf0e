//! A lease this worker holds: the only way an owner writes its row.
//!
//! One turn at a time for renewals and commits; each raises `leaseCounter` by one. A refused write is looked at before
//! it is believed (see [`write`](self::write)). A lease that could not be renewed for the failover time is given up by
//! its holder on its own clock, before anyone else may take it.
//!
//! Writes run where the renewals run ([`LeasePlace::runs_on`]), commits too: a commit that waited on a runtime whose
//! threads all compute would hold the turn, and the renewals of its lease would wait with it.

mod throughput;
mod write;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{LeaseError, LeaseRow, LeaseTimes, WorkerId, attribute};
use crate::metrics::EngineMetrics;
use crate::table::{Condition, Item, Table, TableName, Update};
pub(super) use throughput::bytes_per_second;
use write::{Change, Writer};

/// The leases of one stream, as a worker reaches them.
#[derive(Debug, Clone)]
pub struct LeasePlace {
    /// The stream, for metrics and logs.
    pub stream: String,
    /// The table they are in.
    pub table: Arc<dyn Table>,
    /// Its name.
    pub name: TableName,
    /// Who holds them.
    pub worker: WorkerId,
    /// How often they are renewed and when they are given up.
    pub times: LeaseTimes,
    /// The runtime that every write of a row runs on; none: the caller's.
    pub runs_on: Option<Handle>,
    /// What is counted.
    pub metrics: EngineMetrics,
}

/// A lease this worker holds.
#[derive(Debug)]
pub struct HeldLease {
    writer: Arc<Writer>,
    fence_counter: i64,
}

impl HeldLease {
    /// Acquires a lease that its row already assigns to the worker, by raising its counter once: every acquisition has
    /// a counter of its own, which is half of its fence. While an old owner may still commit (`checkpointOwner`), the
    /// row is not the next one's yet. `stop` is cancelled when the leader wants the lease to go elsewhere.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when the row is not (yet, or any more) this worker's.
    pub async fn acquire(place: LeasePlace, key: &str, stop: CancellationToken) -> Result<Self, LeaseError> {
        let (runs_on, key) = (place.runs_on.clone(), key.to_owned());
        beside(runs_on.as_ref(), async move {
            let item = place.table.get(&place.name, &key).await.map_err(LeaseError::Table)?.ok_or(LeaseError::Lost)?;
            let counter = item.number(attribute::COUNTER).ok_or(LeaseError::Lost)?;
            let handing = item.string(attribute::CHECKPOINT_OWNER).is_some();
            if item.string(attribute::OWNER) != Some(place.worker.as_str()) || handing {
                return Err(LeaseError::Lost);
            }
            let writer = Arc::new(Writer::new(place, key, item, counter, stop));
            writer.write(Change::Set(Update::new()), Condition::None).await?;
            let fence_counter = writer.counter();
            Ok(Self { writer, fence_counter })
        })
        .await
    }

    /// The counter this acquisition fences its chunks with.
    pub fn fence_counter(&self) -> i64 {
        self.fence_counter
    }

    /// Cancelled once the lease is lost; nothing may be written or delivered for it afterwards.
    pub fn lost(&self) -> &CancellationToken {
        self.writer.lost()
    }

    /// The shard's lease key.
    pub fn key(&self) -> &str {
        self.writer.key()
    }

    /// When the last successful write of the row began: for failover from then on nobody else can own the lease.
    pub fn renewed(&self) -> watch::Receiver<Option<Instant>> {
        self.writer.renewed()
    }

    /// Notes bytes delivered to the stage; the next write of the row carries the throughput.
    pub fn delivered(&self, bytes: u64) {
        self.writer.delivered(bytes);
    }

    /// The row as last known.
    ///
    /// # Errors
    /// The row cannot be read.
    pub async fn row(&self) -> Result<LeaseRow, LeaseError> {
        self.writer.row()
    }

    /// Reads the row again, for attributes that others write (status, floors).
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when it is no longer ours.
    pub async fn refresh(&self) -> Result<LeaseRow, LeaseError> {
        let writer = Arc::clone(&self.writer);
        beside(self.writer.runs_on(), async move { writer.refresh().await }).await
    }

    /// Raises the counter, as [`HeldLease::keep`] does.
    #[cfg(test)]
    pub(crate) async fn renew(&self) -> Result<(), LeaseError> {
        self.write(Update::new(), Condition::None).await
    }

    /// Gives the lease away, with whatever is committed: to `successor`, else to the owner the leader chose when this
    /// is a hand-over, else to nobody. Returns who has it now. The lease is lost to its holder in any case.
    ///
    /// # Errors
    /// As [`HeldLease::write`].
    pub async fn hand_on(&self, successor: Option<&str>) -> Result<Option<String>, LeaseError> {
        let done = self.run(Change::HandOn(successor.map(str::to_owned)), Condition::None).await;
        self.lost().cancel();
        done
    }

    /// Who gets the lease next, when the leader has begun a hand-over that this holder knows of.
    pub fn next_owner(&self) -> Option<String> {
        self.writer.next_owner()
    }

    /// Writes the row: `update` and the counter, if the row is ours, unchanged by others, and `extra` holds.
    ///
    /// Retries until it knows the outcome or the lease is lost.
    ///
    /// # Errors
    /// [`LeaseError::Lost`], [`LeaseError::Refused`] (only with an `extra` condition), [`LeaseError::Table`].
    pub async fn write(&self, update: Update, extra: Condition) -> Result<(), LeaseError> {
        self.run(Change::Set(update), extra).await.map(|_| ())
    }

    async fn run(&self, change: Change, extra: Condition) -> Result<Option<String>, LeaseError> {
        let writer = Arc::clone(&self.writer);
        beside(self.writer.runs_on(), async move { writer.write(change, extra).await }).await
    }

    /// Renews until the lease is lost or given away; run it on a task of its own, on [`LeasePlace::runs_on`].
    pub async fn keep(self: Arc<Self>) {
        self.writer.keep().await;
    }
}

/// Runs a call where the renewals run. Reads too: a connection that was opened elsewhere is driven elsewhere, and would
/// come back out of the client's pool for a renewal.
async fn beside<T: Send + 'static>(
    runs_on: Option<&Handle>,
    call: impl Future<Output = Result<T, LeaseError>> + Send + 'static,
) -> Result<T, LeaseError> {
    match runs_on {
        None => call.await,
        // A runtime that is gone renews nothing: the lease is as good as lost.
        Some(handle) => handle.spawn(call).await.unwrap_or(Err(LeaseError::Lost)),
    }
}

/// The rows an owner may write. Given as the row is known to stand, so that a hand-over which began since is noticed by
/// the refusal of the next write.
fn owned(worker: &WorkerId, known: &Item) -> Condition {
    let me = || crate::table::Value::string(worker.as_str());
    if known.string(attribute::CHECKPOINT_OWNER) == Some(worker.as_str()) {
        return Condition::Equals(attribute::CHECKPOINT_OWNER, me());
    }
    Condition::All(vec![Condition::Equals(attribute::OWNER, me()), Condition::Absent(attribute::CHECKPOINT_OWNER)])
}

/// Whether the row is this worker's to write. The old owner of a hand-over may still commit; a test on the owner alone
/// would refuse its last commit.
fn is_mine(worker: &WorkerId, item: &Item) -> bool {
    match item.string(attribute::CHECKPOINT_OWNER) {
        Some(old) => old == worker.as_str(),
        None => item.string(attribute::OWNER) == Some(worker.as_str()),
    }
}

const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
