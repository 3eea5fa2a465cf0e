//! A lease this worker holds: the only way an owner writes its row.
//!
//! One mutex serialises renewals and commits. A refused write is looked at before it is believed: the SDK may have
//! repeated a call whose answer was lost, and then the row already says what we wanted. A lease that could not be
//! renewed for the failover time is given up by its holder on its own clock, before anyone else may take it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{LeaseRow, RowError, WorkerId, attribute};
use crate::table::{Condition, Item, Table, TableError, TableName, Update, Value};

/// How often a lease is renewed and when it is given up.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTimes {
    /// Pause between renewals.
    pub renewal: Duration,
    /// A lease whose counter stands still this long is expired.
    pub failover: Duration,
}

/// Why a write to a held lease failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another worker owns the lease now, or it could not be renewed in time.
    #[error("lease lost")]
    Lost,
    /// The caller's own extra condition did not hold; the lease is still ours. The row as it stands is taken over.
    #[error("row refused the write by its own condition")]
    Refused,
    /// The table refused the request for good.
    #[error(transparent)]
    Table(TableError),
    /// The row stands there but cannot be read.
    #[error(transparent)]
    Row(#[from] RowError),
}

#[derive(Debug)]
struct Held {
    item: Item,
    counter: i64,
}

/// A lease this worker holds.
#[derive(Debug)]
pub struct HeldLease {
    table: Arc<dyn Table>,
    name: TableName,
    key: String,
    worker: WorkerId,
    times: LeaseTimes,
    held: Mutex<Held>,
    fence_counter: i64,
    /// When the last successful write of the row began; none before the first.
    renewed: watch::Sender<Option<Instant>>,
    lost: CancellationToken,
}

/// The attributes whose values say which state is committed.
const COMMITTED: [&str; 4] = [attribute::CHECKPOINT, attribute::PENDING, attribute::MANIFEST, attribute::CUT];
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl HeldLease {
    /// Acquires a lease that its row already assigns to `worker`, by raising its counter once: every acquisition has a
    /// counter of its own, which is half of its fence.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when the row is not (any more) this worker's.
    pub async fn acquire(
        table: Arc<dyn Table>,
        name: TableName,
        key: &str,
        worker: WorkerId,
        times: LeaseTimes,
    ) -> Result<Self, LeaseError> {
        let item = table.get(&name, key).await.map_err(LeaseError::Table)?.ok_or(LeaseError::Lost)?;
        let counter = item.number(attribute::COUNTER).ok_or(LeaseError::Lost)?;
        if item.string(attribute::OWNER) != Some(worker.as_str()) {
            return Err(LeaseError::Lost);
        }
        let held = Mutex::new(Held { item, counter });
        let renewed = watch::Sender::new(Some(Instant::now()));
        let lost = CancellationToken::new();
        let mut lease =
            Self { table, name, key: key.to_owned(), worker, times, held, fence_counter: counter + 1, renewed, lost };
        lease.renew().await?;
        lease.fence_counter = lease.held.lock().await.counter;
        Ok(lease)
    }

    /// The counter this acquisition fences its chunks with.
    pub fn fence_counter(&self) -> i64 {
        self.fence_counter
    }

    /// Cancelled once the lease is lost; nothing may be written or delivered for it afterwards.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// The shard's lease key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// When the last successful write of the row began: for failover from then on nobody else can own the lease.
    pub fn renewed(&self) -> watch::Receiver<Option<Instant>> {
        self.renewed.subscribe()
    }

    fn age(&self) -> Duration {
        self.renewed.borrow().map_or(Duration::MAX, |at| at.elapsed())
    }

    /// The row as last known.
    ///
    /// # Errors
    /// The row cannot be read.
    pub async fn row(&self) -> Result<LeaseRow, LeaseError> {
        let held = self.held.lock().await;
        LeaseRow::read(&held.item)?.ok_or(LeaseError::Lost)
    }

    /// Reads the row again, for attributes that others write (status, floors).
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when it is no longer ours.
    pub async fn refresh(&self) -> Result<LeaseRow, LeaseError> {
        let current = self.table.get(&self.name, &self.key).await.map_err(LeaseError::Table)?;
        let mut held = self.held.lock().await;
        match current {
            Some(item) if self.is_mine(&item) => {
                // Our own counter is kept: a read may be older than a write that went through meanwhile.
                if item.number(attribute::COUNTER) == Some(held.counter) {
                    held.item = item;
                }
            }
            _ => return Err(self.lose()),
        }
        LeaseRow::read(&held.item)?.ok_or(LeaseError::Lost)
    }

    /// Raises the counter.
    ///
    /// # Errors
    /// [`LeaseError::Lost`].
    pub async fn renew(&self) -> Result<(), LeaseError> {
        self.write(Update::new(), Condition::None).await
    }

    /// Gives the lease up: the row has no owner afterwards.
    ///
    /// # Errors
    /// As [`HeldLease::write`].
    pub async fn release(&self) -> Result<(), LeaseError> {
        let done = self.write(Update::new().remove(attribute::OWNER), Condition::None).await;
        self.lost.cancel();
        done
    }

    /// Writes the row: `update` and the counter, if the row is ours, unchanged by others, and `extra` holds.
    ///
    /// Retries until it knows the outcome or the lease is lost.
    ///
    /// # Errors
    /// [`LeaseError::Lost`], [`LeaseError::Refused`] (only with an `extra` condition), [`LeaseError::Table`].
    pub async fn write(&self, update: Update, extra: Condition) -> Result<(), LeaseError> {
        let mut held = self.held.lock().await;
        loop {
            if self.lost.is_cancelled() || self.age() > self.times.failover {
                return Err(self.lose());
            }
            let next = held.counter + 1;
            let update = update.clone().set(attribute::COUNTER, Value::number(next));
            let condition = Condition::All(vec![
                Condition::Equals(attribute::COUNTER, Value::number(held.counter)),
                self.owned(),
                extra.clone(),
            ]);
            let started = Instant::now();
            match self.table.update(&self.name, &self.key, update.clone(), condition).await {
                Ok(()) => {
                    update.apply(&mut held.item);
                    held.counter = next;
                    self.renewed.send_replace(Some(started));
                    return Ok(());
                }
                Err(TableError::Conflict { current }) => {
                    let Some(current) = current.filter(|item| self.is_mine(item)) else {
                        return Err(self.lose());
                    };
                    let counter = current.number(attribute::COUNTER).unwrap_or_default();
                    if counter == next && applied(&update, &held.item, &current) {
                        held.item = *current;
                        held.counter = next;
                        self.renewed.send_replace(Some(started));
                        return Ok(());
                    }
                    let same = COMMITTED.iter().all(|name| current.get(name) == held.item.get(name));
                    if !same || counter < held.counter {
                        return Err(self.lose());
                    }
                    let refused = counter == held.counter;
                    held.item = *current;
                    held.counter = counter;
                    if refused {
                        return Err(LeaseError::Refused);
                    }
                    tracing::debug!(lease = self.key, counter, "took over a counter whose answer was lost");
                }
                Err(e) if e.is_retryable() => {
                    tracing::debug!(lease = self.key, error = %e, "lease write will be repeated");
                    tokio::select! {
                        biased;
                        () = self.lost.cancelled() => {}
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                    }
                }
                Err(e) => return Err(LeaseError::Table(e)),
            }
        }
    }

    /// Renews until the lease is lost or released; run it on a task of its own.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.lost.cancelled() => return,
                () = tokio::time::sleep(self.times.renewal) => {}
            }
            if self.age() < self.times.renewal / 2 {
                continue;
            }
            match self.renew().await {
                Ok(()) | Err(LeaseError::Refused) => {}
                Err(LeaseError::Lost) => return,
                Err(e) => tracing::warn!(lease = self.key, error = %e, "lease renewal failed"),
            }
        }
    }

    fn lose(&self) -> LeaseError {
        if !self.lost.is_cancelled() {
            tracing::warn!(lease = self.key, worker = %self.worker, "lease lost");
            self.lost.cancel();
        }
        LeaseError::Lost
    }

    fn is_mine(&self, item: &Item) -> bool {
        self.owned().holds(Some(item))
    }

    /// The old owner of a hand-over may still commit; a test on the owner alone would refuse its last commit.
    fn owned(&self) -> Condition {
        let me = || Value::string(self.worker.as_str());
        Condition::Any(vec![
            Condition::Equals(attribute::CHECKPOINT_OWNER, me()),
            Condition::All(vec![
                Condition::Equals(attribute::OWNER, me()),
                Condition::Absent(attribute::CHECKPOINT_OWNER),
            ]),
        ])
    }
}

/// Whether the row is what `update` makes of the row we knew: our write went through and its answer was lost.
fn applied(update: &Update, known: &Item, current: &Item) -> bool {
    let mut wanted = known.clone();
    update.apply(&mut wanted);
    COMMITTED.iter().all(|name| current.get(name) == wanted.get(name))
        && update.set.iter().all(|(name, value)| current.get(name) == Some(value))
        && update.remove.iter().all(|name| current.get(name).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{Checkpoint, new_row};
    use crate::shard::{HashRange, Shard, ShardId};
    use crate::table::memory::MemoryTable;

    const TIMES: LeaseTimes = LeaseTimes { renewal: Duration::from_secs(3), failover: Duration::from_secs(10) };

    fn table() -> TableName {
        TableName { name: "leases".into(), key: attribute::KEY }
    }

    async fn assigned(owner: &str) -> Arc<MemoryTable> {
        let memory = Arc::new(MemoryTable::default());
        let shard = Shard { id: ShardId::new("s"), parents: vec![], range: HashRange::ALL, closed: false };
        let row = new_row(&shard, &Checkpoint::TrimHorizon, 0).with(attribute::OWNER, Value::string(owner));
        memory.put(&table(), row, Condition::None).await.unwrap();
        memory
    }

    async fn acquire(memory: &Arc<MemoryTable>, worker: &str) -> Result<HeldLease, LeaseError> {
        HeldLease::acquire(memory.clone(), table(), "s", WorkerId::new(worker), TIMES).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_zombie_cannot_commit_after_its_lease_moved() {
        let memory = assigned("a").await;
        let zombie = acquire(&memory, "a").await.unwrap();
        let steal = Update::new().set(attribute::OWNER, Value::string("b")).set(attribute::COUNTER, Value::number(9));
        memory.update(&table(), "s", steal, Condition::None).await.unwrap();
        let commit = Update::new().set(attribute::CHECKPOINT, Value::string("5"));
        assert!(matches!(zombie.write(commit, Condition::None).await, Err(LeaseError::Lost)));
        assert!(zombie.lost().is_cancelled());
        let row = memory.get(&table(), "s").await.unwrap().unwrap();
        assert_eq!(row.string(attribute::CHECKPOINT), Some("TRIM_HORIZON"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_whose_answer_was_lost_is_recognised_and_not_applied_twice() {
        let memory = assigned("a").await;
        let lease = acquire(&memory, "a").await.unwrap();
        let counter = lease.row().await.unwrap().counter;
        let commit = Update::new().set(attribute::CHECKPOINT, Value::string("5"));
        // The write went through, its answer did not: the row is one ahead of what the holder knows.
        let lost = commit.clone().set(attribute::COUNTER, Value::number(counter + 1));
        memory.update(&table(), "s", lost, Condition::None).await.unwrap();
        lease.write(commit, Condition::None).await.unwrap();
        let row = lease.row().await.unwrap();
        assert_eq!((row.counter, row.checkpoint.to_string().as_str()), (counter + 1, "5"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_foreign_commit_under_our_name_is_a_lost_lease() {
        let memory = assigned("a").await;
        let lease = acquire(&memory, "a").await.unwrap();
        let foreign = Update::new()
            .set(attribute::CHECKPOINT, Value::string("77"))
            .set(attribute::COUNTER, Value::number(lease.row().await.unwrap().counter + 1));
        memory.update(&table(), "s", foreign, Condition::None).await.unwrap();
        assert!(matches!(lease.renew().await, Err(LeaseError::Lost)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_not_renewed_for_the_failover_time_is_given_up_by_its_holder() {
        let memory = assigned("a").await;
        let lease = acquire(&memory, "a").await.unwrap();
        tokio::time::advance(TIMES.failover + Duration::from_millis(1)).await;
        assert!(matches!(lease.renew().await, Err(LeaseError::Lost)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_extra_condition_refuses_without_losing_the_lease() {
        let memory = assigned("a").await;
        let lease = acquire(&memory, "a").await.unwrap();
        let idle = Update::new().set(attribute::STATUS[0], Value::number(1));
        memory.update(&table(), "s", idle, Condition::None).await.unwrap();
        let live = Condition::Absent(attribute::STATUS[0]);
        assert!(matches!(lease.write(Update::new(), live).await, Err(LeaseError::Refused)));
        assert_eq!(lease.row().await.unwrap().status[0], crate::exchange::Status::Idle);
        lease.renew().await.unwrap();
    }
}
