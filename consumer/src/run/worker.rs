//! A worker: holds leases of the job's streams and runs a driver for each.
//!
//! The worker never takes a lease; it finds those the leader assigned to it. It runs a shard at most once, renews on a
//! task of its own, starts a failed driver again from the commit, and on leaving commits and releases everything.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::control::{ControlPlan, SourceControl};
use super::lane_stage::LaneStage;
use super::leader::{Leader, WORKER_PREFIX};
use super::map_driver::{self, Exchange};
use super::stage_driver;
use super::{DriveError, Exit, Timing, WorkerConfig};
use crate::clock::WallClock;
use crate::commit::{Chunks, Epochs, Part, Snapshot, Snapshots};
use crate::exchange::{FeedKinds, Lanes};
use crate::lease::{Checkpoint, HeldLease, LeaseRow, attribute};
use crate::log::{Log, LogError, StreamId};
use crate::metrics::EngineMetrics;
use crate::shard::ShardId;
use crate::stage::{Mapper, Reducer, ShardContext, Stage};
use crate::table::{Condition, Item, Table, TableError, TableName, Update, Value};

/// The longest pause before a failed shard is tried again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// A worker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A stream cannot be found or reached.
    #[error("stream {stream}: {source}")]
    Stream {
        /// Its name.
        stream: String,
        /// What happened.
        source: LogError,
    },
    /// A table cannot be made or reached.
    #[error("table: {0}")]
    Table(#[from] TableError),
}

/// Everything a driver knows of its shard.
#[derive(Debug)]
pub(crate) struct ShardTask {
    pub(crate) context: ShardContext,
    pub(crate) lease: Arc<HeldLease>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) table: Arc<dyn Table>,
    pub(crate) leases: TableName,
    pub(crate) chunks: Chunks,
    pub(crate) epochs: Epochs,
    pub(crate) snapshots: Snapshots,
    pub(crate) timing: Timing,
    pub(crate) leave: CancellationToken,
    pub(crate) ends: watch::Receiver<Option<Instant>>,
    pub(crate) metrics: EngineMetrics,
    pub(crate) state_keys: Vec<String>,
}

impl ShardTask {
    pub(crate) fn stream(&self) -> &str {
        &self.context.stream.name
    }

    /// Whether nothing new can be in the shard after what a read begun at `asked` saw.
    pub(crate) fn input_ended_before(&self, asked: Instant) -> bool {
        self.ends.borrow().is_some_and(|at| asked >= at)
    }

    /// The committed parts of the shard's parents.
    pub(crate) async fn parents_parts(&self, row: &LeaseRow) -> Result<Vec<Part>, DriveError> {
        let mut parts: Vec<Part> = Vec::new();
        for parent in &row.parents {
            let Some(item) = self.table.get(&self.leases, parent.as_str()).await? else { continue };
            let parent = LeaseRow::read(&item).map_err(crate::lease::LeaseError::Row)?;
            parts.extend(parent.and_then(|p| p.manifest).into_iter().flat_map(|m| m.parts));
        }
        Ok(parts)
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

/// What a worker does with the leases of one stream.
#[async_trait::async_trait]
trait Role: Send + Sync {
    /// Keys of the state parts of a shard, for its epochs.
    fn keys(&self, context: &ShardContext) -> Vec<String>;
    async fn drive(&self, task: &ShardTask) -> Result<Exit, DriveError>;
}

struct MapRole<M> {
    mapper: M,
    exchange: Exchange,
}

#[async_trait::async_trait]
impl<M: Mapper> Role for MapRole<M> {
    fn keys(&self, context: &ShardContext) -> Vec<String> {
        vec![context.shard.as_str().to_owned()]
    }

    async fn drive(&self, task: &ShardTask) -> Result<Exit, DriveError> {
        map_driver::drive(task, &self.mapper, self.exchange.clone()).await
    }
}

struct ReduceRole<F> {
    reducer: F,
    lanes: Lanes,
    kinds: FeedKinds,
    output: Option<String>,
}

#[async_trait::async_trait]
impl<R: Reducer, F: Fn(&ShardContext) -> R + Send + Sync> Role for ReduceRole<F> {
    fn keys(&self, context: &ShardContext) -> Vec<String> {
        LaneStage::new((self.reducer)(context), context, self.lanes, self.kinds).keys()
    }

    async fn drive(&self, task: &ShardTask) -> Result<Exit, DriveError> {
        let reducer = (self.reducer)(&task.context);
        let mut stage = LaneStage::new(reducer, &task.context, self.lanes, self.kinds);
        stage_driver::drive(task, &mut stage, self.output.as_deref()).await
    }
}

struct StageRole<F>(F);

#[async_trait::async_trait]
impl<S: Stage, F: Fn(&ShardContext, Handle) -> S + Send + Sync> Role for StageRole<F> {
    fn keys(&self, context: &ShardContext) -> Vec<String> {
        vec![context.shard.as_str().to_owned()]
    }

    async fn drive(&self, task: &ShardTask) -> Result<Exit, DriveError> {
        let mut stage = (self.0)(&task.context, Handle { lease: Arc::clone(&task.lease) });
        stage_driver::drive(task, &mut stage, None).await
    }
}

/// What a stage may ask about its lease, for side effects that must not outlive it.
#[derive(Debug, Clone)]
pub struct Handle {
    lease: Arc<HeldLease>,
}

impl Handle {
    /// Cancelled once the lease is lost or given up.
    pub fn lost(&self) -> CancellationToken {
        self.lease.lost().clone()
    }

    /// When the last successful write of the lease row began: nobody else can own the lease for failover from then on.
    pub fn renewed(&self) -> watch::Receiver<Option<Instant>> {
        self.lease.renewed()
    }
}

struct RoleSpec {
    stream: String,
    role: Arc<dyn Role>,
}

/// Runs the stages of a job in this process.
pub struct Worker {
    config: WorkerConfig,
    table: Arc<dyn Table>,
    log: Arc<dyn Log>,
    clock: WallClock,
    metrics: EngineMetrics,
    roles: Vec<RoleSpec>,
    /// All streams of the job, the input first, when this worker runs only some of the roles.
    job: Vec<String>,
    control: Option<ControlPlan>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams: Vec<&str> = self.roles.iter().map(|r| r.stream.as_str()).collect();
        f.debug_struct("Worker").field("worker", &self.config.worker).field("streams", &streams).finish()
    }
}

impl Worker {
    /// A worker without roles.
    pub fn new(
        config: WorkerConfig,
        table: Arc<dyn Table>,
        log: Arc<dyn Log>,
        clock: WallClock,
        metrics: EngineMetrics,
    ) -> Self {
        Self { config, table, log, clock, metrics, roles: Vec::new(), job: Vec::new(), control: None }
    }

    /// Names the whole job, so that this worker can lead it whatever roles it runs itself.
    #[must_use]
    pub fn job(mut self, input: &str, exchange: &str, others: &[&str], lanes: Lanes, kinds: FeedKinds) -> Self {
        self.control = Some(self.plan(input, exchange, lanes, kinds));
        self.job = [input, exchange].iter().chain(others).map(|s| (*s).to_owned()).collect();
        self
    }

    fn plan(&self, input: &str, exchange: &str, lanes: Lanes, kinds: FeedKinds) -> ControlPlan {
        ControlPlan {
            input: input.to_owned(),
            exchange: exchange.to_owned(),
            lanes,
            kinds,
            idle_after: self.config.timing.idle_after,
            stuck_after: self.config.timing.stuck_after,
        }
    }

    /// The streams whose leases the leader assigns.
    fn streams(&self) -> Vec<String> {
        if self.job.is_empty() { self.roles.iter().map(|r| r.stream.clone()).collect() } else { self.job.clone() }
    }

    async fn identify(&self, stream: &str) -> Result<StreamId, WorkerError> {
        let id = self.log.identify(stream).await;
        id.map_err(|source| WorkerError::Stream { stream: stream.to_owned(), source })
    }

    /// Maps the shards of `input` into lanes of the stream `exchange`. Batches are computed with the snapshot's
    /// current value; a change counts from the next batch on.
    #[must_use]
    pub fn map<M: Mapper>(
        mut self,
        input: &str,
        exchange: &str,
        lanes: Lanes,
        kinds: FeedKinds,
        snapshot: watch::Receiver<Snapshot>,
        mapper: M,
    ) -> Self {
        self.control = Some(self.plan(input, exchange, lanes, kinds));
        let exchange = Exchange { stream: exchange.to_owned(), lanes, snapshot };
        self.role(input, MapRole { mapper, exchange })
    }

    /// Reduces the lanes of the stream `exchange`; what the reducer returns is put into `output`.
    #[must_use]
    pub fn reduce<R: Reducer>(
        self,
        exchange: &str,
        output: Option<&str>,
        lanes: Lanes,
        kinds: FeedKinds,
        reducer: impl Fn(&ShardContext) -> R + Send + Sync + 'static,
    ) -> Self {
        self.role(exchange, ReduceRole { reducer, lanes, kinds, output: output.map(str::to_owned) })
    }

    /// Runs a plain stage over a stream.
    #[must_use]
    pub fn stage<S: Stage>(
        self,
        stream: &str,
        stage: impl Fn(&ShardContext, Handle) -> S + Send + Sync + 'static,
    ) -> Self {
        self.role(stream, StageRole(stage))
    }

    fn role(mut self, stream: &str, role: impl Role + 'static) -> Self {
        self.roles.push(RoleSpec { stream: stream.to_owned(), role: Arc::new(role) });
        self
    }

    /// Runs until `leave` is cancelled, or until the input is over: once `end_input` holds a moment, everything that
    /// was in the first stream by then is carried through all stages and the worker returns.
    ///
    /// # Errors
    /// A stream or table is missing or cannot be reached at the start.
    pub async fn run(
        self,
        leave: CancellationToken,
        end_input: watch::Receiver<Option<Instant>>,
    ) -> Result<(), WorkerError> {
        self.table.ensure(&self.config.tables.state()).await?;
        let mut streams = Vec::new();
        let mut ends = end_input;
        for stream in self.streams() {
            self.table.ensure(&self.config.tables.leases(&stream)).await?;
        }
        for role in &self.roles {
            let id = self.identify(&role.stream).await?;
            let (done, next) = watch::channel(None);
            streams.push(StreamState {
                id,
                role: Arc::clone(&role.role),
                ends: std::mem::replace(&mut ends, next),
                done,
                running: BTreeSet::new(),
                finished: BTreeSet::new(),
            });
        }
        while let Err(e) = self.enlist().await {
            if !e.is_retryable() {
                return Err(e.into());
            }
            tracing::warn!(error = %e, "worker list cannot be written, trying again");
            tokio::time::sleep(self.config.timing.discovery).await;
        }
        let leading = CancellationToken::new();
        let leader = tokio::spawn(self.leader().await?.run(leading.clone()));
        let beating = tokio::spawn(beat(
            Arc::clone(&self.table),
            self.config.clone(),
            self.roles.iter().map(|r| r.stream.clone()).collect(),
            leading.clone(),
        ));
        Runner { worker: &self, streams, tasks: JoinSet::new() }.run(&leave).await;
        leading.cancel();
        for task in [leader, beating] {
            if let Err(e) = task.await {
                tracing::error!(error = %e, "background task failed");
            }
        }
        Ok(())
    }

    async fn leader(&self) -> Result<Leader, WorkerError> {
        let (table, log, metrics) = (&self.table, &self.log, &self.metrics);
        let control = match self.control.clone() {
            None => None,
            Some(plan) => {
                let stream = self.identify(&plan.input).await?;
                let leases = self.config.tables.leases(&plan.input);
                let state = self.config.tables.state();
                let (table, log) = (Arc::clone(table), Arc::clone(log));
                Some(SourceControl::new(plan, table, log, leases, state, metrics.clone(), stream))
            }
        };
        let (table, log, clock) = (Arc::clone(table), Arc::clone(log), self.clock.clone());
        Ok(Leader::new(self.config.clone(), table, log, clock, metrics.clone(), self.streams(), control))
    }

    /// Adds this worker to the list that the leader looks through.
    async fn enlist(&self) -> Result<(), TableError> {
        let state = self.config.tables.state();
        let roles = self.roles.iter().map(|r| r.stream.clone()).collect();
        put_beat(&*self.table, &self.config, roles, 0).await?;
        loop {
            let list = self.table.get(&state, "workers").await?;
            let version = list.as_ref().and_then(|i| i.number("v"));
            let mut ids = list.map(|i| i.strings("ids")).unwrap_or_default();
            if self.config.alone {
                ids.clear();
            }
            ids.insert(self.config.worker.as_str().to_owned());
            let item = Item::new()
                .with(crate::commit::STATE_KEY, Value::string("workers"))
                .with("v", Value::number(version.unwrap_or_default() + 1))
                .with("ids", Value::Ss(ids));
            let as_seen = match version {
                None => Condition::Absent("v"),
                Some(v) => Condition::Equals("v", Value::number(v)),
            };
            match self.table.put(&state, item, as_seen).await {
                Ok(()) => return Ok(()),
                Err(TableError::Conflict { .. }) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

async fn put_beat(
    table: &dyn Table,
    config: &WorkerConfig,
    roles: BTreeSet<String>,
    beat: i64,
) -> Result<(), TableError> {
    let item = Item::new()
        .with(crate::commit::STATE_KEY, Value::string(format!("{WORKER_PREFIX}{}", config.worker)))
        .with("beat", Value::number(beat))
        .with("roles", Value::Ss(roles));
    table.put(&config.tables.state(), item, Condition::None).await
}

/// Says that this worker lives, until it stops; then strikes it off.
async fn beat(table: Arc<dyn Table>, config: WorkerConfig, roles: BTreeSet<String>, stop: CancellationToken) {
    let mut number = 1;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(config.timing.lease.renewal) => {}
        }
        if let Err(e) = put_beat(&*table, &config, roles.clone(), number).await {
            tracing::warn!(error = %e, "worker beat failed");
        }
        number += 1;
    }
    let key = format!("{WORKER_PREFIX}{}", config.worker);
    if let Err(e) = table.delete(&config.tables.state(), &key, Condition::None).await {
        tracing::debug!(error = %e, "worker beat not removed");
    }
}

/// One stream of the job while the worker runs.
struct StreamState {
    id: StreamId,
    role: Arc<dyn Role>,
    /// When the stream's input is known to be over.
    ends: watch::Receiver<Option<Instant>>,
    /// Tells the next stream that this one is done.
    done: watch::Sender<Option<Instant>>,
    running: BTreeSet<String>,
    finished: BTreeSet<String>,
}

struct Runner<'a> {
    worker: &'a Worker,
    streams: Vec<StreamState>,
    tasks: JoinSet<(usize, String, Exit)>,
}

impl Runner<'_> {
    async fn run(mut self, leave: &CancellationToken) {
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

/// One shard from its acquisition to its end.
struct Shard {
    context: ShardContext,
    role: Arc<dyn Role>,
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
            let keeper = tokio::spawn(Arc::clone(&task.lease).keep());
            let driven = self.role.drive(&task).await;
            keeper.abort();
            match driven {
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
        let (state, stream) = (self.config.tables.state(), self.context.stream.clone());
        Ok(ShardTask {
            context: self.context.clone(),
            lease: Arc::new(lease),
            log: Arc::clone(&self.log),
            table: Arc::clone(&self.table),
            leases,
            chunks: Chunks::new(Arc::clone(&self.table), state.clone(), stream.clone()),
            epochs: Epochs::new(Arc::clone(&self.table), state.clone(), stream),
            snapshots: Snapshots::new(Arc::clone(&self.table), state),
            timing: self.config.timing,
            leave: self.leave.clone(),
            ends: self.ends.clone(),
            metrics: self.metrics.clone(),
            state_keys: self.role.keys(&self.context),
        })
    }
}
