//! Skips lanes of exchange shards that stand still, so that the stage behind the exchange goes on without them.
//!
//! A shard is stuck when its checkpoint has not moved for `stuck_after`, by this leader's watching or an earlier one's,
//! while other shards move and have come further: its owner commits nothing, whatever the reason. A shard at its tip is
//! no further back than the others and is left alone; so are all when none moves. Each pass skips a stuck shard's lanes
//! up to where every shard on the move has come, one record per lane at most. What is to be skipped is committed before
//! it is put, and put again by a new leader, which also goes on at once with shards that still stand where they stood.
//! Not here: what a record says ([`crate::skip`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commit::STATE_KEY;
use crate::exchange::Lanes;
use crate::lease::{Checkpoint, LeaseRow};
use crate::log::{Log, put_all_within};
use crate::metrics::EngineMetrics;
use crate::run::{DriveError, control};
use crate::shard::ShardId;
use crate::skip::{LaneShard, SkipRecords, all_reached};
use crate::table::{Condition, Item, Table, TableError, TableName, Value};

/// The item with what is committed.
const KEY: &str = "skips";

/// What the leader needs to know to skip lanes.
#[derive(Debug, Clone)]
pub(crate) struct SkipPlan {
    /// The stream of the stage that waits for the lanes.
    pub(crate) stream: String,
    pub(crate) lanes: Lanes,
    pub(crate) stuck_after: Duration,
    pub(crate) records: SkipRecords,
}

/// What stands still, as one leader sees it.
#[derive(Debug)]
pub(crate) struct SkipControl {
    plan: SkipPlan,
    table: Arc<dyn Table>,
    log: Arc<dyn Log>,
    state: TableName,
    metrics: EngineMetrics,
    /// Since when each shard stands where it stands.
    still: BTreeMap<ShardId, (Checkpoint, Instant)>,
    number: Option<i64>,
    stuck: BTreeMap<ShardId, Stuck>,
    /// What this leader knows to be in the stream, by shard.
    acknowledged: BTreeMap<ShardId, Stuck>,
}

/// A shard whose lanes are skipped: where it stands, and by kind up to where it is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stuck {
    checkpoint: String,
    until_ms: BTreeMap<usize, i64>,
}

impl SkipControl {
    pub(crate) fn new(
        plan: SkipPlan,
        table: Arc<dyn Table>,
        log: Arc<dyn Log>,
        state: TableName,
        metrics: EngineMetrics,
    ) -> Self {
        let (still, stuck, acknowledged) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { plan, table, log, state, metrics, still, number: None, stuck, acknowledged }
    }

    /// A new term: what an earlier leader committed is read, and put again for shards that still stand there.
    pub(super) async fn begin(&mut self) -> Result<(), DriveError> {
        self.acknowledged.clear();
        let item = self.table.get(&self.state, KEY).await?;
        self.number = item.as_ref().and_then(|item| item.number("n"));
        self.stuck = item.as_ref().and_then(|item| item.bytes("d")).map(|bytes| read(bytes)).unwrap_or_default();
        Ok(())
    }

    /// Notes where the shards stand, as a standby too: a checkpoint never comes back to a place it left, so whoever saw
    /// it twice knows that it stood there in between.
    pub(super) fn observe(&mut self, rows: &[LeaseRow]) -> Vec<LaneShard> {
        let (shards, now) = (LaneShard::of_rows(rows, self.plan.lanes), Instant::now());
        self.still.retain(|shard, _| shards.iter().any(|s| s.shard == *shard));
        for shard in &shards {
            let entry = self.still.entry(shard.shard.clone()).or_insert_with(|| (shard.checkpoint.clone(), now));
            if entry.0 != shard.checkpoint {
                *entry = (shard.checkpoint.clone(), now);
            }
        }
        shards
    }

    /// One look of the leader at the rows of the exchange.
    pub(super) async fn tick(&mut self, rows: &[LeaseRow], stop: &CancellationToken) -> Result<(), DriveError> {
        let shards = self.observe(rows);
        let (standing, moving): (Vec<&LaneShard>, Vec<&LaneShard>) = shards.iter().partition(|s| self.stands(s));
        let reached = all_reached(moving.into_iter());
        let stuck: BTreeMap<ShardId, Stuck> =
            standing.iter().filter_map(|shard| Some((shard.shard.clone(), self.skipped(shard, &reached)?))).collect();
        if stuck != self.stuck {
            self.tell(&stuck);
            if !self.commit(stuck).await? {
                return Ok(());
            }
        }
        let lanes: usize = standing.iter().filter(|s| self.stuck.contains_key(&s.shard)).map(|s| s.lanes.len()).sum();
        self.metrics.lanes_skipped(lanes);
        self.put(&standing, stop).await
    }

    /// Whether the shard has stood where it stands for so long that nobody waits for it.
    fn stands(&self, shard: &LaneShard) -> bool {
        let before = self.stuck.get(&shard.shard).is_some_and(|s| s.checkpoint == shard.checkpoint.to_string());
        let since = self.still.get(&shard.shard).map(|(_, since)| *since);
        before || since.is_some_and(|since| since.elapsed() >= self.plan.stuck_after)
    }

    /// Up to where the lanes of a standing shard are skipped; none when it is not behind the others.
    fn skipped(&self, shard: &LaneShard, reached: &[Option<i64>; 4]) -> Option<Stuck> {
        let checkpoint = shard.checkpoint.to_string();
        let before = self.stuck.get(&shard.shard).filter(|s| s.checkpoint == checkpoint);
        let mut until_ms = before.map(|s| s.until_ms.clone()).unwrap_or_default();
        for (kind, moment) in reached.iter().enumerate() {
            let Some(moment) = moment.filter(|ms| shard.is_behind(kind, *ms)) else { continue };
            let record = shard.lanes.first().and_then(|lane| self.plan.records.record(*lane, kind, moment));
            let Some(until) = record.map(|record| record.until_ms).filter(|ms| shard.is_behind(kind, *ms)) else {
                continue;
            };
            let known = until_ms.entry(kind).or_insert(until);
            *known = until.max(*known);
        }
        (!until_ms.is_empty()).then_some(Stuck { checkpoint, until_ms })
    }

    fn tell(&self, next: &BTreeMap<ShardId, Stuck>) {
        for (shard, stuck) in next.iter().filter(|(shard, _)| !self.stuck.contains_key(*shard)) {
            let (checkpoint, until) = (&stuck.checkpoint, &stuck.until_ms);
            tracing::error!(%shard, checkpoint, ?until, "exchange shard is stuck: nobody waits for its lanes any longer");
        }
        for shard in self.stuck.keys().filter(|shard| !next.contains_key(*shard)) {
            tracing::warn!(%shard, "exchange shard moves again: its lanes are waited for from where they were skipped to");
        }
    }

    /// Commits what is to be skipped from now on; `false` when another leader was first.
    async fn commit(&mut self, stuck: BTreeMap<ShardId, Stuck>) -> Result<bool, DriveError> {
        let number = self.number.unwrap_or_default().saturating_add(1);
        let item = Item::new()
            .with(STATE_KEY, Value::string(KEY))
            .with("n", Value::number(number))
            .with("d", Value::B(write(&stuck).into()));
        let expected = match self.number {
            None => Condition::Absent(STATE_KEY),
            Some(number) => Condition::Equals("n", Value::number(number)),
        };
        match self.table.put(&self.state, item, expected).await {
            Ok(()) => {
                (self.number, self.stuck) = (Some(number), stuck);
                Ok(true)
            }
            // Another leader, or our own write whose answer was lost: what stands there decides.
            Err(TableError::Conflict { .. }) => {
                self.begin().await?;
                Ok(false)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Puts what is committed and not known to be in the stream.
    async fn put(&mut self, standing: &[&LaneShard], stop: &CancellationToken) -> Result<(), DriveError> {
        self.acknowledged.retain(|shard, _| self.stuck.contains_key(shard));
        for shard in standing {
            let mut entries = Vec::new();
            let Some(stuck) = self.stuck.get(&shard.shard) else { continue };
            let known = self.acknowledged.get(&shard.shard).map(|s| &s.until_ms);
            let new = stuck.until_ms.iter().filter(|(kind, ms)| known.and_then(|k| k.get(kind)) != Some(ms));
            for (kind, until_ms) in new {
                let of_lane = |lane| Some(self.plan.records.record(lane, *kind, *until_ms)?.entry);
                entries.extend(shard.lanes.iter().copied().filter_map(of_lane));
            }
            let count = entries.len();
            if count > 0 {
                put_all_within(&*self.log, &self.plan.stream, &mut entries, stop, control::PUT_LIMIT).await?;
                self.metrics.skips_put(&self.plan.stream, count);
            }
            self.acknowledged.insert(shard.shard.clone(), stuck.clone());
        }
        Ok(())
    }
}

/// The stored form; field numbers are the format.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(message, repeated, tag = "1")]
    shards: Vec<StoredShard>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredShard {
    #[prost(string, tag = "1")]
    shard: String,
    #[prost(string, tag = "2")]
    checkpoint: String,
    #[prost(btree_map = "uint32, sint64", tag = "3")]
    until_ms: BTreeMap<u32, i64>,
}

fn write(stuck: &BTreeMap<ShardId, Stuck>) -> Vec<u8> {
    let shards = stuck.iter().map(|(shard, stuck)| StoredShard {
        shard: shard.as_str().to_owned(),
        checkpoint: stuck.checkpoint.clone(),
        until_ms: stuck.until_ms.iter().filter_map(|(kind, ms)| Some((u32::try_from(*kind).ok()?, *ms))).collect(),
    });
    Stored { shards: shards.collect() }.encode_to_vec()
}

/// What cannot be read is found again by watching.
fn read(bytes: &[u8]) -> BTreeMap<ShardId, Stuck> {
    let stored = Stored::decode(bytes).unwrap_or_else(|error| {
        tracing::error!(%error, "what was skipped by earlier leaders cannot be read");
        Stored::default()
    });
    let stuck = |s: StoredShard| {
        let until = s.until_ms.into_iter().filter_map(|(kind, ms)| Some((usize::try_from(kind).ok()?, ms)));
        (ShardId::new(s.shard), Stuck { checkpoint: s.checkpoint, until_ms: until.collect() })
    };
    stored.shards.into_iter().map(stuck).collect()
}

#[cfg(test)]
mod tests;
