//! What a driver is given: its shard, the lease it holds, and the stores it may use.
//!
//! Nothing here runs by itself; [`super::runner`] makes a task per acquired lease, the drivers use it.
//! Invariant: a task lives no longer than the lease it was made with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fetch::Fetched;
use super::retention::Retention;
use super::roster::Successors;
use super::{CrcMismatch, DriveError, Reading, StateMismatch, Timing};
use crate::clock::WallClock;
use crate::commit::{Chunks, Epochs, Snapshots};
use crate::lease::{HeldLease, LeaseRow, attribute};
use crate::log::{Log, Record};
use crate::metrics::EngineMetrics;
use crate::shard::{SequenceNumber, ShardId};
use crate::stage::ShardContext;
use crate::table::{Table, TableName, Update, Value};

/// The moment a lease was seen to be ours, until the first read.
#[derive(Debug, Default)]
pub(super) struct FirstRead(std::sync::Mutex<Option<Instant>>);

impl FirstRead {
    pub(super) fn since(seen: Instant) -> Self {
        Self(std::sync::Mutex::new(Some(seen)))
    }

    fn take(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

/// Everything a driver knows of its shard.
#[derive(Debug)]
pub(crate) struct ShardTask {
    pub(crate) context: ShardContext,
    pub(crate) lease: Arc<HeldLease>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) table: Arc<dyn Table>,
    pub(crate) leases: TableName,
    pub(crate) state: TableName,
    pub(crate) chunks: Chunks,
    pub(crate) epochs: Epochs,
    pub(crate) snapshots: Snapshots,
    pub(crate) timing: Timing,
    pub(crate) reading: Reading,
    /// Cancelled when the worker leaves or the lease is to go to another: commit, then [`ShardTask::let_go`].
    pub(crate) leave: CancellationToken,
    pub(super) successors: Arc<Successors>,
    /// When this worker saw that the lease was its own; taken by the first read.
    pub(super) assigned: FirstRead,
    pub(crate) ends: watch::Receiver<Option<Instant>>,
    pub(crate) metrics: EngineMetrics,
    pub(crate) clock: WallClock,
    pub(crate) retention: Retention,
    pub(crate) state_keys: Vec<String>,
    pub(crate) state_mismatch: StateMismatch,
    pub(crate) crc_mismatch: CrcMismatch,
}

impl ShardTask {
    pub(crate) fn stream(&self) -> &str {
        &self.context.stream.name
    }

    /// Gives the lease away after the last commit: to the owner the leader chose, or, when the worker leaves, to the least
    /// loaded of the living; and tells it.
    pub(crate) async fn let_go(&self) -> Result<(), DriveError> {
        let next = match self.lease.next_owner() {
            // The leader chose before it knew that this one leaves, too.
            Some(next) if self.successors.seated(&next).await => None,
            _ => self.successors.next(self.stream()).await,
        };
        if let Some(owner) = self.lease.hand_on(next.as_deref()).await? {
            self.successors.ring(&owner).await;
            tracing::info!(stream = self.stream(), shard = %self.context.shard, to = owner, "lease handed over");
        }
        Ok(())
    }

    /// Whether nothing new can be in the shard after what a read begun at `asked` saw.
    pub(crate) fn input_ended_before(&self, asked: Instant) -> bool {
        self.ends.borrow().is_some_and(|at| asked >= at)
    }

    /// Counts a page before it is given to the stage.
    pub(crate) fn read(&self, records: &[Record], behind_ms: i64) {
        self.metrics.read(self.stream(), self.lease.key(), records, behind_ms);
        self.lease.delivered(records.iter().map(|record| record.data.len() as u64).sum());
        if let Some(seen) = self.assigned.take() {
            self.metrics.handed_over(self.stream(), seen.elapsed());
        }
    }

    /// Notes in a commit when the shard was last read to its tip, which is when a read began.
    pub(crate) fn with_tip(&self, update: Update, asked: Option<Instant>) -> Update {
        let Some(asked) = asked else { return update };
        let ago = i64::try_from(asked.elapsed().as_millis()).unwrap_or(i64::MAX);
        update.set(attribute::SEEN, Value::number(self.clock.now_ms().saturating_sub(ago)))
    }

    /// Whether nothing can have expired unread behind the checkpoint of a row that nobody else has written: the shard was
    /// read to its tip a short while ago, by whoever had it.
    pub(crate) fn nothing_expired(&self, row: &LeaseRow) -> bool {
        let ago = row.seen_ms.map(|seen| self.clock.now_ms().saturating_sub(seen).max(0).unsigned_abs());
        ago.is_some_and(|ago| self.retention.keeps_since(Duration::from_millis(ago)))
    }

    /// Says that records behind `after` may have expired unread.
    pub(crate) fn trimmed(&self, after: &SequenceNumber) {
        self.metrics.trimmed(self.stream());
        let (stream, shard) = (self.stream(), &self.context.shard);
        tracing::error!(stream, %shard, %after, "records may have expired unread: the one last read is no longer there");
    }

    /// Says how the shard ended; `true`: by vanishing, with whatever was unread.
    pub(crate) fn ended(&self, end: &Fetched) -> bool {
        let gone = matches!(end, Fetched::Gone);
        if gone {
            self.metrics.trimmed(self.stream());
            let (stream, shard) = (self.stream(), &self.context.shard);
            tracing::error!(stream, %shard, "the stream no longer has the shard: what was not read by now is lost");
        }
        gone
    }

    /// The shards that came from this one.
    pub(crate) async fn children(&self) -> Result<Vec<ShardId>, DriveError> {
        let shards = self.log.shards(self.stream()).await?;
        let mine = shards.into_iter().filter(|s| s.parents.contains(&self.context.shard));
        Ok(mine.map(|s| s.id).collect())
    }

    /// Adds `childShardIds`, as KCL writes them at shard end.
    pub(crate) async fn with_children(&self, update: Update) -> Result<Update, DriveError> {
        let children: BTreeSet<String> = self.children().await?.iter().map(|c| c.as_str().to_owned()).collect();
        if children.is_empty() { Ok(update) } else { Ok(update.set(attribute::CHILDREN, Value::Ss(children))) }
    }
}
