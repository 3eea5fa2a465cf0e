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
use crate::commit::{Chunks, Epochs, Snapshots, indexed_part};
use crate::lease::{HeldLease, LeaseRow, attribute};
use crate::log::{Log, Record};
use crate::metrics::EngineMetrics;
use crate::shard::{HashRange, SequenceNumber, Shard, ShardId};
use crate::stage::ShardContext;
use crate::table::{Table, TableName, Update, Value};

/// Pause before a list without the children of a closed shard is asked for again.
const CHILDREN_PAUSE: Duration = Duration::from_secs(1);

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
    /// Keys that the shard's epoch is raised for. It alone writes parts under them and, in a plain stage, below them
    /// (`KEY/NAME`); what stands under any other key is another shard's.
    pub(crate) state_keys: BTreeSet<String>,
    pub(crate) state_mismatch: StateMismatch,
    pub(crate) crc_mismatch: CrcMismatch,
}

impl ShardTask {
    pub(crate) fn stream(&self) -> &str {
        &self.context.stream.name
    }

    /// Gives the lease away after the last commit: to the owner the leader chose, or, when the worker leaves, to the
    /// least loaded of the living; and tells it.
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

    /// Whether nothing can have expired unread behind the checkpoint of a row that nobody else has written: the shard
    /// was read to its tip a short while ago, by whoever had it.
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

    /// That a stage saves parts of this shard only: a part's key names it in the whole stream, and two shards that save
    /// under one key overwrite each other's live state.
    pub(crate) fn owns<'a>(&self, keys: impl IntoIterator<Item = &'a String>) -> Result<(), DriveError> {
        match keys.into_iter().find(|key| !is_own(&self.state_keys, key)) {
            None => Ok(()),
            Some(key) => Err(DriveError::ForeignPart { key: key.clone(), shard: self.context.shard.clone() }),
        }
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

    /// The shards that came from this one, which is read to its end. A list of shards may be late or incomplete, and
    /// who goes on is said once: it is asked for again until it is whole; none, when the lease is to go or is gone
    /// before.
    pub(crate) async fn children(&self) -> Result<Option<Vec<ShardId>>, DriveError> {
        loop {
            let shards = self.log.shards(self.stream()).await?;
            if let Some(children) = children_of(&self.context, &shards) {
                return Ok(Some(children));
            }
            tracing::warn!(stream = self.stream(), shard = %self.context.shard, "closed shard is listed without its children");
            tokio::select! {
                biased;
                () = self.lease.lost().cancelled() => return Ok(None),
                () = self.leave.cancelled() => return Ok(None),
                () = tokio::time::sleep(CHILDREN_PAUSE) => {}
            }
        }
    }
}

/// Adds `childShardIds`, as KCL writes them at shard end.
pub(super) fn with_children(update: Update, children: &[ShardId]) -> Update {
    let children: BTreeSet<String> = children.iter().map(|c| c.as_str().to_owned()).collect();
    if children.is_empty() { update } else { update.set(attribute::CHILDREN, Value::Ss(children)) }
}

/// The children of a closed shard; none: some must be missing from the list, because the shard still stands in it (as
/// long as it does, its children do) and they do not cover its hash range.
fn children_of(closed: &ShardContext, shards: &[Shard]) -> Option<Vec<ShardId>> {
    let children: Vec<&Shard> = shards.iter().filter(|s| s.parents.contains(&closed.shard)).collect();
    let listed = shards.is_empty() || shards.iter().any(|s| s.id == closed.shard);
    let whole = !listed || covers(children.iter().map(|s| s.range), closed.range);
    whole.then(|| children.into_iter().map(|s| s.id.clone()).collect())
}

fn covers(parts: impl Iterator<Item = HashRange>, whole: HashRange) -> bool {
    let mut parts: Vec<HashRange> = parts.collect();
    parts.sort_by_key(|part| part.start);
    let mut from = Some(whole.start);
    for part in parts {
        if from.is_some_and(|from| part.start <= from && from <= part.end) {
            from = part.end.checked_add(1);
        }
    }
    from.is_none_or(|from| from > whole.end)
}

/// Whether a part is one of `keys` or lies below one of them, and is not what the engine keeps there for itself.
fn is_own(keys: &BTreeSet<String>, key: &str) -> bool {
    let above = key.match_indices('/').any(|(end, _)| keys.contains(&key[..end]));
    indexed_part(key).is_none() && (above || keys.contains(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::StreamId;

    fn shard(id: &str, parents: &[&str], start: u128, end: u128) -> Shard {
        let parents = parents.iter().map(|parent| ShardId::new(*parent)).collect();
        Shard { id: ShardId::new(id), parents, range: HashRange { start, end }, closed: false }
    }

    #[test]
    fn a_closed_shard_has_the_children_that_cover_it_or_the_list_is_not_whole() {
        let end = u128::MAX;
        let range = HashRange { start: 100, end };
        let stream = StreamId { name: "flows".into(), created_ms: 1 };
        let closed = ShardContext { stream, shard: ShardId::new("p"), range };
        let (parent, other) = (shard("p", &[], 100, end), shard("o", &[], 0, 99));
        let (low, high) = (shard("l", &["p"], 100, 199), shard("h", &["p"], 200, end));
        let merged = shard("m", &["p", "o"], 0, end);
        let names = |shards: &[&Shard]| {
            let shards: Vec<Shard> = shards.iter().map(|shard| (*shard).clone()).collect();
            children_of(&closed, &shards).map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>().concat())
        };
        for partial in [&[][..], &[&parent], &[&parent, &other], &[&parent, &low], &[&high, &parent]] {
            assert_eq!(names(partial), None, "{partial:?}");
        }
        assert_eq!(names(&[&high, &low, &parent]).unwrap(), "hl");
        assert_eq!(names(&[&other, &parent, &merged]).unwrap(), "m");
        // The stream has forgotten the parent, and perhaps some of its children.
        assert_eq!(names(&[&high]).unwrap(), "h");
        assert_eq!(names(&[&other]).unwrap(), "");
    }

    #[test]
    fn a_shard_owns_its_key_and_what_lies_below_it_and_nothing_of_the_engine_or_of_others() {
        let keys = BTreeSet::from(["shardId-1".to_owned()]);
        for own in ["shardId-1", "shardId-1/counts", "shardId-1/counts/of/a"] {
            assert!(is_own(&keys, own), "{own}");
        }
        for foreign in ["counts", "", "shardId-10", "shardId-10/counts", "shardId-", "/shardId-1", "shardId-1/pages"] {
            assert!(!is_own(&keys, foreign), "{foreign}");
        }
    }
}
