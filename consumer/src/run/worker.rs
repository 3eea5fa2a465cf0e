//! A worker: which streams it serves and what it needs for that.
//!
//! The worker never takes a lease; it runs those the leader assigned to it. Here: how a job is put together and
//! started. Read next: [`super::runner`] (what runs), [`super::leader`] (who decides).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::beat::{beat, enlist};
use super::control::{ControlPlan, SourceControl};
use super::leader::{Leader, LeaderParts, Lock, SkipControl, SkipPlan};
use super::map_driver::Exchange;
use super::retention::Retentions;
use super::role::{self, MapRole, ReduceRole, Role, StageRole};
use super::runner::{Runner, StreamState};
use super::shard::{AbortOnDrop, Renewals};
use super::{Reading, StartPosition, WorkerConfig, foreign};
use crate::clock::WallClock;
use crate::commit::Snapshot;
use crate::exchange::{FeedKinds, Lanes, ShardCounts};
use crate::log::{Log, LogError, StreamId};
use crate::metrics::EngineMetrics;
use crate::skip::SkipRecords;
use crate::stage::{Mapper, Reducer, ShardContext, Stage};
use crate::table::{Table, TableError, TableName};

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
    /// Another program's worker renews leases of this job's table.
    #[error(
        "lease table {table}: {owner} is at work on shard {shard} and is not of this job; \
         stop that application first, its checkpoints will be taken over"
    )]
    Foreign {
        /// The lease table.
        table: String,
        /// The other worker.
        owner: String,
        /// A shard it renews.
        shard: String,
    },
    /// A lease table holds the leases of several streams, as KCL's multi-stream mode has it.
    #[error(
        "lease table {table}: row {row} is of a KCL application of several streams (here {stream}); a table of this job \
         holds one stream: name another table, and to go on at that application's checkpoints copy its rows of the \
         stream there first, each under its shard's id alone and without streamName"
    )]
    MultiStream {
        /// The lease table.
        table: String,
        /// The row's key.
        row: String,
        /// The stream it names.
        stream: String,
    },
    /// A table cannot be made or reached.
    #[error("table: {0}")]
    Table(#[from] TableError),
}

/// Between two questions at the start; and how often a start that gets no answer says so.
const START_PAUSE: Duration = Duration::from_millis(500);
const START_SAYS: Duration = Duration::from_secs(15);

/// Asks again while a later answer may be better, for as long as it takes: a worker that starts while AWS is down works
/// once it is back, as one that was there before does.
async fn patiently<T, E: fmt::Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    ask: impl Fn() -> F,
    is_retryable: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let began = Instant::now();
    let mut said: Option<Instant> = None;
    loop {
        match ask().await {
            Err(error) if is_retryable(&error) => {
                if said.is_none_or(|said| said.elapsed() >= START_SAYS) {
                    said = Some(Instant::now());
                    let waited_s = began.elapsed().as_secs();
                    tracing::warn!(what, %error, waited_s, "the start waits; is aws.region right, and may the pod reach AWS?");
                }
                tokio::time::sleep(START_PAUSE).await;
            }
            answer => return answer,
        }
    }
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
    pub(super) clock: WallClock,
    pub(super) metrics: EngineMetrics,
    roles: Vec<RoleSpec>,
    readings: BTreeMap<String, Reading>,
    /// All streams of the job, the input first, when this worker runs only some of the roles.
    job: Vec<String>,
    control: Option<ControlPlan>,
    skips: Option<(String, SkipRecords)>,
    starts: BTreeMap<String, StartPosition>,
    renewals: Option<(Handle, Arc<dyn Table>)>,
    /// Open shards as the leader published them, for this worker's mappers.
    pub(super) counts: watch::Sender<Option<ShardCounts>>,
    /// How long streams keep their records, as the leader published it.
    pub(super) retentions: watch::Sender<Retentions>,
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
            skips: None,
            starts: BTreeMap::new(),
            renewals: None,
            counts: watch::Sender::new(None),
            retentions: watch::Sender::default(),
        }
    }

    /// Where new rows of a stream start; without this at the oldest record. An exchange and what reducers put out must
    /// be read from their beginning: leave those streams alone.
    #[must_use]
    pub fn start_at(mut self, stream: &str, start: StartPosition) -> Self {
        self.starts.insert(stream.to_owned(), start);
        self
    }

    /// Renews leases, commits rows, beats and holds the leader's lock on another runtime than the stages', so that a
    /// stage that computes for long loses no lease. `table` must be a client of its own, used nowhere else: connections
    /// are driven by the runtime that opened them. See [`RenewalThread`](super::RenewalThread).
    #[must_use]
    pub fn renewals_on(mut self, handle: Handle, table: Arc<dyn Table>) -> Self {
        self.renewals = Some((handle, table));
        self
    }

    /// Names the whole job, so that this worker can lead it whatever roles it runs itself.
    #[must_use]
    pub fn job(mut self, input: &str, exchange: &str, others: &[&str], lanes: Lanes, kinds: FeedKinds) -> Self {
        self.control = Some(self.plan(input, exchange, lanes, kinds));
        self.job = [input, exchange].iter().chain(others).map(|s| (*s).to_owned()).collect();
        self
    }

    /// Lets the leader skip lanes that stand still for [`Timing::stuck_after`](super::Timing) in `stream`, where a
    /// stage waits for all of them; without this it waits for as long as it takes. Set it on every worker of the job.
    #[must_use]
    pub fn skips(mut self, stream: &str, records: SkipRecords) -> Self {
        self.skips = Some((stream.to_owned(), records));
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
        let id = patiently(stream, || self.log.identify(stream), LogError::is_retryable).await;
        id.map_err(|source| WorkerError::Stream { stream: stream.to_owned(), source })
    }

    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        patiently(&table.name, || self.table.ensure(table), TableError::is_retryable).await
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
        let counts = self.counts.subscribe();
        let exchange = Exchange { stream: exchange.to_owned(), lanes, snapshot, counts };
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
        stage: impl Fn(&ShardContext, role::Handle) -> S + Send + Sync + 'static,
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
    /// While AWS does not answer, the start waits, and says so in the log.
    ///
    /// # Errors
    /// A stream or table is missing, or may not be used.
    pub async fn run(
        self,
        leave: CancellationToken,
        end_input: watch::Receiver<Option<Instant>>,
    ) -> Result<(), WorkerError> {
        let roles: BTreeSet<String> = self.roles.iter().map(|r| r.stream.clone()).collect();
        let streams = tokio::select! {
            biased;
            () = leave.cancelled() => return Ok(()),
            streams = self.begin(&roles, end_input) => streams?,
        };
        let renewals = match &self.renewals {
            Some((handle, table)) => Renewals { handle: Some(handle.clone()), table: Arc::clone(table) },
            None => Renewals { handle: None, table: Arc::clone(&self.table) },
        };
        // A leaving worker lets go of the lock at once; one whose input has ended leads until all is done.
        let leading = leave.child_token();
        let (standby, named) = watch::channel(None);
        let lock = Lock::new(self.config.clone(), Arc::clone(&renewals.table), self.metrics.clone(), named);
        let leader =
            Leader::new(self.leader_parts(), self.control().await?, self.skip_control(), lock.standing(), standby);
        // Whoever drops this future ends them, too: nobody leads, and beats, for a worker that is no more.
        let leader = AbortOnDrop(tokio::spawn(leader.run(leading.clone())));
        let locking = AbortOnDrop(renewals.spawn(lock.run(leading.clone())));
        let beating = beat(Arc::clone(&renewals.table), self.config.clone(), roles, leave.clone(), leading.clone());
        let beating = AbortOnDrop(renewals.spawn(beating));
        Runner::new(&self, renewals, streams).run(&leave).await;
        leading.cancel();
        for mut task in [leader, locking, beating] {
            if let Err(e) = (&mut task.0).await {
                tracing::error!(error = %e, "background task failed");
            }
        }
        Ok(())
    }

    /// Makes what is missing, looks whom it would run beside, and enters the worker's name.
    async fn begin(
        &self,
        roles: &BTreeSet<String>,
        end_input: watch::Receiver<Option<Instant>>,
    ) -> Result<Vec<StreamState>, WorkerError> {
        self.ensure(&self.config.tables.state()).await?;
        let mut streams = Vec::new();
        let mut ends = end_input;
        for stream in self.streams() {
            self.ensure(&self.config.tables.leases(&stream)).await?;
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
        foreign::refuse(&*self.table, &self.config, &self.streams()).await?;
        while let Err(e) = enlist(&*self.table, &self.config, roles).await {
            if !e.is_retryable() {
                return Err(e.into());
            }
            tracing::warn!(error = %e, "worker list cannot be written, trying again");
            tokio::time::sleep(self.config.timing.discovery).await;
        }
        Ok(streams)
    }

    fn leader_parts(&self) -> LeaderParts {
        LeaderParts {
            config: self.config.clone(),
            table: Arc::clone(&self.table),
            log: Arc::clone(&self.log),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            streams: self.streams(),
            starts: self.starts.clone(),
        }
    }

    fn skip_control(&self) -> Option<SkipControl> {
        let ((stream, records), control) = (self.skips.clone()?, self.control.as_ref()?);
        // A shard at work stands still from commit to commit.
        let stuck_after = control.stuck_after.max(self.config.timing.commit * 3);
        let plan = SkipPlan { stream, lanes: control.lanes, stuck_after, records };
        let (table, log) = (Arc::clone(&self.table), Arc::clone(&self.log));
        Some(SkipControl::new(plan, table, log, self.config.tables.state(), self.metrics.clone()))
    }

    async fn control(&self) -> Result<Option<SourceControl>, WorkerError> {
        let Some(plan) = self.control.clone() else { return Ok(None) };
        let stream = self.identify(&plan.input).await?;
        let (leases, state) = (self.config.tables.leases(&plan.input), self.config.tables.state());
        let (table, log) = (Arc::clone(&self.table), Arc::clone(&self.log));
        Ok(Some(SourceControl::new(plan, table, log, leases, state, self.metrics.clone(), stream)))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A worker that started while DynamoDB throttled ended with an error: found by the fleet of real processes. And one
    /// that started in an outage of half a minute: a rollout would have put it in the place of one that worked.
    #[tokio::test(start_paused = true)]
    async fn a_start_outlasts_throttling_and_outages_and_not_a_wrong_request() {
        let asked = Cell::new(0);
        let down_for_an_hour = || async {
            asked.set(asked.get() + 1);
            match asked.get() {
                1 => Err(TableError::Throttled),
                2..7_200 => Err(TableError::Unavailable("nobody there".into())),
                _ => Ok(()),
            }
        };
        assert!(patiently("t", down_for_an_hour, TableError::is_retryable).await.is_ok());
        assert_eq!(asked.get(), 7_200);
        let refused = || async { Err::<(), _>(TableError::Invalid("no such thing".into())) };
        assert!(patiently("t", refused, TableError::is_retryable).await.is_err());
    }
}
