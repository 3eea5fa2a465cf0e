//! The leader's care for the source set: who holds watermarks back.
//!
//! Every change is first written where it fences the source's owner (its row), then committed as a numbered control
//! record, then put to all lanes. A new leader puts the committed number again before anything else. Idleness is judged
//! here, by watching rows with a monotonic clock; lanes have no clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::DriveError;
use super::map_run::lane_entry;
use super::task::ShardTask;
use crate::commit::STATE_KEY;
use crate::exchange::{Control, Envelope, FeedKinds, Lanes, Message, SourceId, SourceSet, Status};
use crate::lease::{Checkpoint, LeaseRow, attribute};
use crate::log::{Log, StreamId, put_all};
use crate::metrics::EngineMetrics;
use crate::shard::ShardId;
use crate::table::{Condition, Item, Table, TableError, TableName, Update, Value};

const KEY: &str = "control";

/// What the leader needs to know of the job's exchange.
#[derive(Debug, Clone)]
pub(crate) struct ControlPlan {
    pub(crate) input: String,
    pub(crate) exchange: String,
    pub(crate) lanes: Lanes,
    pub(crate) kinds: FeedKinds,
    pub(crate) idle_after: Duration,
    pub(crate) stuck_after: Duration,
}

/// The source set as one leader sees it.
#[derive(Debug)]
pub(crate) struct SourceControl {
    plan: ControlPlan,
    table: Arc<dyn Table>,
    log: Arc<dyn Log>,
    leases: TableName,
    state: TableName,
    metrics: EngineMetrics,
    stream: StreamId,
    committed: Option<Control>,
    acknowledged: u64,
    /// Since when a value of a row has been standing still, by (shard, what).
    still: BTreeMap<(String, &'static str), (i64, Instant)>,
}

/// Puts the committed control record again, for a shard whose lanes start without state: they close nothing before
/// their first source set. Lanes that know its number drop it.
pub(crate) async fn tell_again(task: &ShardTask, lanes: Option<Lanes>) -> Result<(), DriveError> {
    let Some(lanes) = lanes else { return Ok(()) };
    let item = task.table.get(&task.state, KEY).await?;
    let Some(Ok(message @ Message::Control(_))) = item.as_ref().and_then(|i| i.bytes("d")).map(Envelope::decode) else {
        return Ok(());
    };
    let entries = lanes.within(task.context.range).into_iter().map(|lane| lane_entry(lanes, lane, &message)).collect();
    put_all(&*task.log, task.stream(), entries, task.lease.lost(), |_| {}).await?;
    Ok(())
}

impl SourceControl {
    #[allow(clippy::too_many_arguments, reason = "wiring, called once")]
    pub(crate) fn new(
        plan: ControlPlan,
        table: Arc<dyn Table>,
        log: Arc<dyn Log>,
        leases: TableName,
        state: TableName,
        metrics: EngineMetrics,
        stream: StreamId,
    ) -> Self {
        let still = BTreeMap::new();
        Self { plan, table, log, leases, state, metrics, stream, committed: None, acknowledged: 0, still }
    }

    /// The input stream and the exchange stream.
    pub(crate) fn streams(&self) -> (&str, &str) {
        (&self.plan.input, &self.plan.exchange)
    }

    /// A new term: what an earlier leader committed is read and put again.
    pub(crate) async fn begin(&mut self) -> Result<(), DriveError> {
        self.still.clear();
        self.acknowledged = 0;
        self.committed = match self.table.get(&self.state, KEY).await? {
            None => None,
            Some(item) => item.bytes("d").and_then(|bytes| match Envelope::decode(bytes) {
                Ok(Message::Control(control)) => Some(control),
                _ => None,
            }),
        };
        Ok(())
    }

    /// One look at the rows of the input stream.
    pub(crate) async fn tick(&mut self, rows: &[LeaseRow], stop: &CancellationToken) -> Result<(), DriveError> {
        for row in rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd) {
            self.judge(row).await?;
        }
        let set = self.set(rows);
        if !set.is_empty() && self.committed.as_ref().is_none_or(|c| c.sources != set) {
            self.commit(set).await?;
        }
        self.put(stop).await?;
        for row in rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd) {
            self.let_back(row).await?;
        }
        self.count(rows);
        Ok(())
    }

    fn source(&self, row: &LeaseRow) -> SourceId {
        SourceId { stream: self.stream.clone(), shard: row.shard.clone() }
    }

    fn set(&self, rows: &[LeaseRow]) -> SourceSet {
        let open = rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd);
        open.map(|row| (self.source(row), row.status[..self.plan.kinds.count()].to_vec())).collect()
    }

    /// How long this value of a row has stood still, as this leader has observed it.
    fn still(&mut self, row: &LeaseRow, what: &'static str, value: i64) -> Duration {
        let now = Instant::now();
        let key = (row.shard.as_str().to_owned(), what);
        let entry = self.still.entry(key).or_insert((value, now));
        if entry.0 != value {
            *entry = (value, now);
        }
        now.duration_since(entry.1)
    }

    /// Puts a source out that is idle at its tip, or stuck. The condition holds the owner off: it cannot have cut
    /// records since the row was read.
    async fn judge(&mut self, row: &LeaseRow) -> Result<(), DriveError> {
        // A finite input that ended holds nothing back and will cut no more.
        if row.cut.as_ref().is_some_and(|cut| cut.end) {
            return Ok(());
        }
        let n = row.cut.as_ref().map_or(0, |cut| i64::try_from(cut.n).unwrap_or(i64::MAX));
        let stuck = self.still(row, "cut", n) >= self.plan.stuck_after;
        // Records that are cut and perhaps not emitted will still come: lanes must not go past them.
        let emitted = row.pending.is_none() || row.cut.as_ref().is_none_or(|cut| cut.records == 0);
        // A source that is back, or on its way, gets its time anew for every kind: else one kind could be put out again
        // while the batch waits for the floor of another, and so on for ever.
        let asking = row.status.contains(&Status::Return);
        let statuses = row.status.iter().fold(0, |sum, status| sum * 4 + i64::from(status.code()));
        const WHAT: [&str; 4] = ["data0", "data1", "data2", "data3"];
        for (kind, what) in WHAT.into_iter().enumerate().take(self.plan.kinds.count()) {
            let seen = row.data[kind].saturating_mul(256).saturating_add(statuses);
            let quiet = self.still(row, what, seen) >= self.plan.idle_after && !asking;
            if row.status[kind] != Status::Live || !emitted || !(stuck || (quiet && row.at_tip)) {
                continue;
            }
            let data = match row.data[kind] {
                0 => Condition::Absent(attribute::DATA[kind]),
                seen => Condition::Equals(attribute::DATA[kind], Value::number(seen)),
            };
            let mut conditions = vec![Condition::Exists(attribute::KEY), data];
            if !stuck {
                conditions.push(Condition::Equals(attribute::TIP, Value::number(1)));
            }
            let update = Update::new().set(attribute::STATUS[kind], Value::number(Status::Idle.code()));
            match self.table.update(&self.leases, row.shard.as_str(), update, Condition::All(conditions)).await {
                Ok(()) if stuck => {
                    tracing::error!(shard = %row.shard, kind, "source is stuck: watermarks no longer wait for it");
                }
                Ok(()) => tracing::info!(shard = %row.shard, kind, "source is idle at its tip"),
                Err(TableError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    async fn commit(&mut self, sources: SourceSet) -> Result<(), DriveError> {
        let last = self.committed.as_ref().map(|c| c.number);
        let control = Control { number: last.unwrap_or_default() + 1, sources };
        let item = Item::new()
            .with(STATE_KEY, Value::string(KEY))
            .with("n", Value::number(control.number))
            .with("d", Value::B(Envelope::encode(&Message::Control(control.clone()))));
        let expected = match last {
            None => Condition::Absent(STATE_KEY),
            Some(number) => Condition::Equals("n", Value::number(number)),
        };
        match self.table.put(&self.state, item, expected).await {
            Ok(()) => self.committed = Some(control),
            // Another leader, or our own write whose answer was lost: what stands there decides.
            Err(TableError::Conflict { .. }) => self.begin().await?,
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Puts the committed control record to every lane unless this leader knows that it was acknowledged.
    async fn put(&mut self, stop: &CancellationToken) -> Result<(), DriveError> {
        let Some(control) = &self.committed else { return Ok(()) };
        if control.number == self.acknowledged {
            return Ok(());
        }
        let (lanes, number) = (self.plan.lanes, control.number);
        let message = Message::Control(control.clone());
        let entries = lanes.all().map(|lane| lane_entry(lanes, lane, &message)).collect();
        put_all(&*self.log, &self.plan.exchange, entries, stop, |_| {}).await?;
        self.acknowledged = number;
        tracing::debug!(number, "source set acknowledged by every lane");
        Ok(())
    }

    /// A source that asked to come back gets its floor once every lane has been told to wait for it: whatever a lane
    /// has closed by then lies at or below the smallest watermark that a live source has committed.
    async fn let_back(&self, row: &LeaseRow) -> Result<(), DriveError> {
        for kind in 0..self.plan.kinds.count() {
            let told = self.committed.as_ref().and_then(|c| c.sources.get(&self.source(row)));
            let told = told.and_then(|status| status.get(kind)) == Some(&Status::Return);
            if row.status[kind] != Status::Return || !told {
                continue;
            }
            let floor = self.floor(row, kind).await?;
            let mut update = Update::new().set(attribute::STATUS[kind], Value::number(Status::Live.code()));
            if floor > i64::MIN {
                update = update.set(attribute::FLOOR[kind], Value::number(floor));
            }
            let asked = Condition::Equals(attribute::STATUS[kind], Value::number(Status::Return.code()));
            match self.table.update(&self.leases, row.shard.as_str(), update, asked).await {
                Ok(()) => tracing::info!(shard = %row.shard, kind, floor, "source is back"),
                Err(TableError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Read after the acknowledgement, not before.
    async fn floor(&self, asking: &LeaseRow, kind: usize) -> Result<i64, DriveError> {
        let mut rows = BTreeMap::new();
        for item in self.table.scan(&self.leases).await? {
            if let Ok(Some(row)) = LeaseRow::read(&item) {
                rows.insert(row.shard.clone(), row);
            }
        }
        let others = || rows.values().filter(|row| row.shard != asking.shard);
        let live = others().filter(|row| holds_back(row, kind)).filter_map(|row| mark(&rows, row, kind)).min();
        // With nobody live, the lanes have closed up to the last that was; which one it was is not known any more.
        let furthest = || rows.values().filter_map(|row| mark(&rows, row, kind)).max().unwrap_or(i64::MIN);
        Ok(live.unwrap_or_else(furthest))
    }

    fn count(&self, rows: &[LeaseRow]) {
        let open = || rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd);
        for (name, status) in [("live", Status::Live), ("idle", Status::Idle), ("return", Status::Return)] {
            self.metrics.sources(name, open().filter(|row| row.status[0] == status).count());
        }
    }
}

/// Whether lanes wait for the source of this row.
fn holds_back(row: &LeaseRow, kind: usize) -> bool {
    let ended = row.checkpoint == Checkpoint::ShardEnd || row.cut.as_ref().is_some_and(|cut| cut.end);
    row.status[kind] == Status::Live && !ended
}

/// The watermark lanes have of a source at most: its last cut's, its floor, or, before its first cut, where the parents
/// that have ended stood (the furthest of them: it held lanes back there before the others ended). None when lanes have
/// heard nothing of it: what they have closed they closed without it.
fn mark(rows: &BTreeMap<ShardId, LeaseRow>, row: &LeaseRow, kind: usize) -> Option<i64> {
    let ended = |parent: &&LeaseRow| {
        parent.checkpoint == Checkpoint::ShardEnd || parent.cut.as_ref().is_some_and(|cut| cut.end)
    };
    let cut = match &row.cut {
        Some(cut) => Some(cut.watermarks.get(kind).copied().unwrap_or(i64::MIN)),
        None => row.parents.iter().filter_map(|p| rows.get(p)).filter(ended).filter_map(|p| mark(rows, p, kind)).max(),
    };
    cut.max(row.floor[kind])
}
