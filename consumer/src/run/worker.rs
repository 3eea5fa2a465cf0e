//! A worker: which streams it serves and what it needs for that.
//!
//! The worker never takes a lease; it runs those the leader assigned to it. Here: how a job is put together and started.
//! Read next: [`super::runner`] (what runs), [`super::leader`] (who decides).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::beat::{beat, enlist};
use super::control::{ControlPlan, SourceControl};
use super::leader::Leader;
use super::map_driver::Exchange;
use super::role::{Handle, MapRole, ReduceRole, Role, StageRole};
use super::runner::{Runner, StreamState};
use super::{Reading, WorkerConfig};
use crate::clock::WallClock;
use crate::commit::Snapshot;
use crate::exchange::{FeedKinds, Lanes};
use crate::log::{Log, LogError, StreamId};
use crate::metrics::EngineMetrics;
use crate::stage::{Mapper, Reducer, ShardContext, Stage};
use crate::table::{Table, TableError};

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

struct RoleSpec {
    stream: String,
    role: Arc<dyn Role>,
}

/// Runs the stages of a job in this process.
pub struct Worker {
    pub(super) config: WorkerConfig,
    pub(super) table: Arc<dyn Table>,
    pub(super) log: Arc<dyn Log>,
    clock: WallClock,
    pub(super) metrics: EngineMetrics,
    roles: Vec<RoleSpec>,
    readings: BTreeMap<String, Reading>,
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
        Self {
            config,
            table,
            log,
            clock,
            metrics,
            roles: Vec::new(),
            readings: BTreeMap::new(),
            job: Vec::new(),
            control: None,
        }
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
        self.reading(exchange, Reading::default())
            .role(exchange, ReduceRole { reducer, lanes, kinds, output: output.map(str::to_owned) })
    }

    /// How a stream is read; call it behind `map`, `reduce` and `stage`, which choose: aggregates of the KPL are
    /// taken apart, but not in an exchange stream, where only the engine writes.
    #[must_use]
    pub fn reading(mut self, stream: &str, reading: Reading) -> Self {
        self.readings.insert(stream.to_owned(), reading);
        self
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
            let reading = self.readings.get(&role.stream).cloned().unwrap_or_else(Reading::with_kpl);
            streams.push(StreamState::new(
                id,
                Arc::clone(&role.role),
                reading,
                std::mem::replace(&mut ends, next),
                done,
            ));
        }
        let roles: BTreeSet<String> = self.roles.iter().map(|r| r.stream.clone()).collect();
        while let Err(e) = enlist(&*self.table, &self.config, &roles).await {
            if !e.is_retryable() {
                return Err(e.into());
            }
            tracing::warn!(error = %e, "worker list cannot be written, trying again");
            tokio::time::sleep(self.config.timing.discovery).await;
        }
        let leading = CancellationToken::new();
        let leader = tokio::spawn(self.leader().await?.run(leading.clone()));
        let beating = beat(Arc::clone(&self.table), self.config.clone(), roles, leave.clone(), leading.clone());
        let beating = tokio::spawn(beating);
        Runner::new(&self, streams).run(&leave).await;
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
}
