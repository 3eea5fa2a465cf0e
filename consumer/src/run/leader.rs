//! The leader: makes lease rows for new shards, assigns leases, looks after the source set.
//!
//! One worker leads, by a lock item whose beat others watch. Everything it writes is conditional on what it read, so
//! two leaders at once cost work, not correctness. Expiry is a counter standing still, never a clock comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::beat::strike_off;
use super::control::SourceControl;
use super::missing::missing;
use super::{DriveError, WorkerConfig};
use crate::clock::WallClock;
use crate::commit::STATE_KEY;
use crate::exchange::Status;
use crate::lease::{Checkpoint, LeaseRow, attribute, new_row};
use crate::log::Log;
use crate::metrics::EngineMetrics;
use crate::shard::Shard;
use crate::table::{Condition, Item, Table, TableError, TableName, Update, Value};

const LOCK: &str = "leader";
/// A worker whose beat stood still this long is struck off the list.
const FORGOTTEN: Duration = Duration::from_secs(600);
pub(crate) const WORKER_PREFIX: &str = "worker/";

/// Something seen to stand still since a moment.
#[derive(Debug, Default)]
struct Observed(BTreeMap<String, (i64, Instant)>);

impl Observed {
    fn age(&mut self, key: &str, value: i64) -> Duration {
        let now = Instant::now();
        let entry = self.0.entry(key.to_owned()).or_insert((value, now));
        if entry.0 != value {
            *entry = (value, now);
        }
        now.duration_since(entry.1)
    }
}

/// A worker's view of leading.
#[derive(Debug)]
pub(crate) struct Leader {
    config: WorkerConfig,
    table: Arc<dyn Table>,
    log: Arc<dyn Log>,
    clock: WallClock,
    metrics: EngineMetrics,
    /// Streams of the job whose leases are assigned here.
    streams: Vec<String>,
    control: Option<SourceControl>,
    leads: bool,
    beat: i64,
    locks: Observed,
    leases: Observed,
    workers: Observed,
    synced: Option<Instant>,
}

impl Leader {
    pub(crate) fn new(
        config: WorkerConfig,
        table: Arc<dyn Table>,
        log: Arc<dyn Log>,
        clock: WallClock,
        metrics: EngineMetrics,
        streams: Vec<String>,
        control: Option<SourceControl>,
    ) -> Self {
        Self {
            config,
            table,
            log,
            clock,
            metrics,
            streams,
            control,
            leads: false,
            beat: 0,
            locks: Observed::default(),
            leases: Observed::default(),
            workers: Observed::default(),
            synced: None,
        }
    }

    /// Leads, or waits to, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut beaten: Option<Instant> = None;
        loop {
            if beaten.is_none_or(|at| at.elapsed() >= self.config.timing.leader_beat) || !self.leads {
                beaten = Some(Instant::now());
                if let Err(e) = self.hold_lock().await {
                    tracing::warn!(error = %e, "leader lock cannot be held");
                    self.leads = false;
                }
                self.metrics.leader(self.leads);
            }
            if self.leads
                && let Err(e) = self.lead(&stop).await
                && !stop.is_cancelled()
            {
                tracing::warn!(error = %e, "leading failed, trying again");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.config.timing.assign) => {}
            }
        }
        if self.leads {
            let mine = Condition::Equals("owner", Value::string(self.config.worker.as_str()));
            if let Err(e) = self.table.delete(&self.state(), LOCK, mine).await {
                tracing::debug!(error = %e, "leader lock not released");
            }
        }
    }

    fn state(&self) -> TableName {
        self.config.tables.state()
    }

    /// Beats when leading; otherwise takes the lock when it is free or its beat has stood still.
    async fn hold_lock(&mut self) -> Result<(), DriveError> {
        let me = Value::string(self.config.worker.as_str());
        let item = self.table.get(&self.state(), LOCK).await?;
        let seen = item.as_ref().and_then(|i| i.number("beat"));
        let mine = item.as_ref().and_then(|i| i.string("owner")) == Some(self.config.worker.as_str());
        let expired = match seen {
            None => true,
            Some(beat) => self.locks.age(LOCK, beat) >= self.config.timing.leader_lock,
        };
        if !mine && !expired && !self.config.alone {
            self.leads = false;
            return Ok(());
        }
        let as_seen = match seen {
            None => Condition::Absent(STATE_KEY),
            Some(beat) => Condition::Equals("beat", Value::number(beat)),
        };
        self.beat = seen.unwrap_or_default() + 1;
        let lock =
            Item::new().with(STATE_KEY, Value::string(LOCK)).with("owner", me).with("beat", Value::number(self.beat));
        match self.table.put(&self.state(), lock, as_seen).await {
            Ok(()) => {
                if !self.leads {
                    tracing::info!(worker = %self.config.worker, "leading the job");
                    if let Some(control) = &mut self.control {
                        control.begin().await?;
                    }
                    self.synced = None;
                }
                self.leads = true;
            }
            Err(TableError::Conflict { .. }) => self.leads = false,
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    async fn lead(&mut self, stop: &CancellationToken) -> Result<(), DriveError> {
        let live = self.live_workers().await?;
        let sync = self.synced.is_none_or(|at| at.elapsed() >= self.config.timing.shard_sync);
        let mut all_synced = true;
        let mut input = Vec::new();
        for (index, stream) in self.streams.clone().into_iter().enumerate() {
            let mut rows = self.rows(&stream).await?;
            if sync || has_unknown_children(&rows) {
                all_synced &= self.sync(&stream, &mut rows).await?;
            }
            let workers: Vec<String> =
                live.iter().filter(|(_, roles)| roles.contains(&stream)).map(|(id, _)| id.clone()).collect();
            self.assign(&stream, &rows, &workers).await?;
            if index == 0 {
                input = rows;
            }
        }
        // Last, because its records may have to wait for the exchange stream, and no lease should wait with them.
        if let Some(control) = &mut self.control {
            control.tick(&input, stop).await?;
        }
        if sync && all_synced {
            self.synced = Some(Instant::now());
        }
        Ok(())
    }

    async fn rows(&self, stream: &str) -> Result<Vec<LeaseRow>, DriveError> {
        let items = self.table.scan(&self.config.tables.leases(stream)).await?;
        let mut rows = Vec::new();
        for item in &items {
            match LeaseRow::read(item) {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => {}
                Err(e) => tracing::error!(stream, error = %e, "lease row cannot be read"),
            }
        }
        rows.sort_by(|a, b| a.shard.cmp(&b.shard));
        Ok(rows)
    }

    /// Makes rows for shards that have none. A shard's row is made only when its parents' are there (or the parents
    /// are gone from the stream), so that no child is taken for an orphan.
    async fn sync(&self, stream: &str, rows: &mut Vec<LeaseRow>) -> Result<bool, DriveError> {
        let known: BTreeSet<_> = rows.iter().map(|row| row.shard.clone()).collect();
        let table = self.config.tables.leases(stream);
        let shards = self.log.shards(stream).await?;
        for shard in missing(&shards, &known) {
            let mut item = new_row(shard, &Checkpoint::TrimHorizon, self.clock.now_ms());
            inherit_status(&mut item, shard, rows);
            match self.table.put(&table, item, Condition::Absent(attribute::KEY)).await {
                Ok(()) | Err(TableError::Conflict { .. }) => tracing::debug!(stream, shard = %shard.id, "lease made"),
                Err(e) => return Err(e.into()),
            }
        }
        *rows = self.rows(stream).await?;
        Ok(true)
    }

    /// Workers whose beat moves, with the streams they take leases of.
    async fn live_workers(&mut self) -> Result<Vec<(String, BTreeSet<String>)>, DriveError> {
        let mut live = Vec::new();
        for id in self.known_workers().await? {
            // Without a beat it has left, or is leaving: also when it is this worker.
            let Some(item) = self.table.get(&self.state(), &format!("{WORKER_PREFIX}{id}")).await? else { continue };
            let beat = item.number("beat").unwrap_or_default();
            let age = self.workers.age(&id, beat);
            let me = id == self.config.worker.as_str();
            if me || age < self.config.timing.lease.failover {
                live.push((id, item.strings("roles")));
            } else if age > FORGOTTEN {
                strike_off(&*self.table, &self.config, &id).await?;
            }
        }
        live.sort();
        Ok(live)
    }

    async fn known_workers(&self) -> Result<BTreeSet<String>, DriveError> {
        let list = self.table.get(&self.state(), "workers").await?;
        Ok(list.map(|item| item.strings("ids")).unwrap_or_default())
    }

    /// Gives every lease that nobody renews to the live worker with the fewest.
    async fn assign(&mut self, stream: &str, rows: &[LeaseRow], workers: &[String]) -> Result<(), DriveError> {
        if workers.is_empty() {
            return Ok(());
        }
        let mut load: BTreeMap<&String, usize> = workers.iter().map(|w| (w, 0)).collect();
        for row in rows.iter().filter(|row| row.checkpoint != Checkpoint::ShardEnd) {
            if let Some(count) = row.owner.as_ref().and_then(|owner| load.get_mut(owner)) {
                *count += 1;
            }
        }
        let table = self.config.tables.leases(stream);
        for row in rows {
            let age = self.leases.age(&format!("{stream}/{}", row.shard), row.counter);
            let owner_gone = row.owner.as_ref().is_none_or(|owner| self.config.alone && !workers.contains(owner));
            let expired = owner_gone || age >= self.config.timing.lease.failover;
            if !expired || row.checkpoint == Checkpoint::ShardEnd || !parents_done(row, rows) {
                continue;
            }
            let Some((worker, _)) = load.iter().min_by_key(|(id, count)| (**count, **id)) else { break };
            let worker = String::clone(worker);
            let update = Update::new()
                .set(attribute::OWNER, Value::string(worker.clone()))
                .set(attribute::COUNTER, Value::number(row.counter + 1))
                .remove(attribute::CHECKPOINT_OWNER);
            let as_seen = Condition::All(vec![
                Condition::Equals(attribute::COUNTER, Value::number(row.counter)),
                match &row.owner {
                    None => Condition::Absent(attribute::OWNER),
                    Some(owner) => Condition::Equals(attribute::OWNER, Value::string(owner.clone())),
                },
            ]);
            match self.table.update(&table, row.shard.as_str(), update, as_seen).await {
                Ok(()) => {
                    tracing::info!(stream, shard = %row.shard, worker, from = row.owner, "lease assigned");
                    if let Some(count) = load.iter_mut().find(|(id, _)| ***id == worker) {
                        *count.1 += 1;
                    }
                }
                Err(TableError::Conflict { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// A child counts from its start for the kinds in which all its parents do; otherwise it asks first, like any source that
/// was out, because lanes may have gone past where its parents stood.
fn inherit_status(item: &mut Item, shard: &Shard, rows: &[LeaseRow]) {
    let parents: Vec<&LeaseRow> = rows.iter().filter(|row| shard.parents.contains(&row.shard)).collect();
    if parents.is_empty() {
        return;
    }
    for (kind, name) in attribute::STATUS.into_iter().enumerate() {
        let live = parents.iter().all(|parent| parent.status[kind] == Status::Live);
        let status = if live { Status::Live } else { Status::Idle };
        item.set(name, Value::number(status.code()));
    }
}

/// Whether every parent with a row has been consumed; a parent without a row is gone and blocks nothing.
fn parents_done(row: &LeaseRow, rows: &[LeaseRow]) -> bool {
    let parents = rows.iter().filter(|parent| row.parents.contains(&parent.shard));
    parents.into_iter().all(|parent| parent.checkpoint == Checkpoint::ShardEnd)
}

/// Whether a consumed shard has no child among the rows: its children must be listed.
fn has_unknown_children(rows: &[LeaseRow]) -> bool {
    let ended = rows.iter().filter(|row| row.checkpoint == Checkpoint::ShardEnd);
    ended.into_iter().any(|row| !rows.iter().any(|child| child.parents.contains(&row.shard)))
}
