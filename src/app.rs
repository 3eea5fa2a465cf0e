//! The wiring of a job: which stage reads which stream, with what settings. Read [`run`] to see the data's whole way.

mod outlets;

use std::sync::Arc;

use anyhow::Context;
use flowshift_consumer::clock::WallClock;
use flowshift_consumer::commit::Snapshot;
use flowshift_consumer::exchange::{FeedKinds, Lanes};
use flowshift_consumer::kpl::{Kpl, OutOfRange};
use flowshift_consumer::lease::{LeaseTimes, WorkerId};
use flowshift_consumer::log::kinesis::KinesisLog;
use flowshift_consumer::run::{
    CrcMismatch, Fetch, Handle, Reading, RenewalThread, StartPosition, StateMismatch, Tables, Timing, Worker,
    WorkerConfig,
};
use flowshift_consumer::table::aws::DynamoTable;
use flowshift_detector::Settings;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use outlets::endpoint;

use crate::aws::Clients;
use crate::config::{
    Config, CrcMismatchPolicy, FetchMode, InputSettings, JobName, KplOutOfRange, StartAt, StateMismatchPolicy,
};
use crate::metrics::Metrics;
use crate::stage::aggregate::Aggregate;
use crate::stage::correlate::{Correlate, Printer, skip_records};
use crate::stage::detect::{Detect, Seed};
use crate::stage::rules;
use crate::webhook::Switches;
use outlets::Outlets;

/// Feed kinds of a job: reports and flow logs.
pub const KINDS: u8 = 2;

/// Which stages a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Role {
    /// Every stage.
    #[default]
    All,
    /// Flow records to panes.
    Aggregate,
    /// Panes to incidents.
    Detect,
}

impl Role {
    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Aggregate => "aggregate",
            Self::Detect => "detect",
        }
    }
}

/// A job to run in this process.
pub struct Job {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// SDK clients.
    pub clients: Clients,
    /// All metrics.
    pub metrics: Metrics,
    /// The rules batches are mapped by, as they change.
    pub snapshot: watch::Receiver<Snapshot>,
    /// Who this process is; see [`worker_id`].
    pub worker: WorkerId,
    /// Stages to run.
    pub role: Role,
    /// Baselines for lanes without state.
    pub seed: Option<Arc<Seed>>,
    /// Prints events.
    pub printer: Option<Printer>,
    /// Whether events go to the webhooks (`--dry-run`: not).
    pub deliver: bool,
    /// Whether this is the job's only process.
    pub alone: bool,
    /// Where the endpoints of its webhooks are shown, and enabled again.
    pub switches: Switches,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("job", &self.config.job).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Runs the job's stages until `leave`, or until the input that ended at `end_input` has been judged and delivered.
///
/// # Errors
/// A stream, table or secret is missing.
pub async fn run(
    job: Job,
    leave: CancellationToken,
    end_input: watch::Receiver<Option<Instant>>,
) -> anyhow::Result<()> {
    let config = Arc::clone(&job.config);
    let streams = &config.streams;
    let settings = rules::detector_settings(&config)?;
    let (lanes, kinds) = (rules::lanes(&config)?, FeedKinds::new(KINDS));
    let outlets = Arc::new(Outlets::new(&job)?);
    let engine = job.metrics.engine.clone();
    let table = Arc::new(DynamoTable::new(job.clients.dynamodb.clone()).with_metrics(engine.clone()));
    let log = Arc::new(KinesisLog::new(job.clients.kinesis.clone()).with_metrics(engine.clone()));
    // Kept to the end: leases are renewed there while the stages compute.
    let renewals = RenewalThread::start("renewals").context("no thread for lease renewals")?;
    let beside = Arc::new(DynamoTable::new(job.clients.renewals.clone()).with_metrics(engine.clone()));
    let worker = Worker::new(worker_config(&job), table, log, WallClock::system(), engine);
    let mut worker = worker.renewals_on(renewals.handle(), beside).job(
        &streams.flows,
        &streams.exchange,
        &[&streams.evidence],
        lanes,
        kinds,
    );
    worker = worker.start_at(&streams.flows, start(config.input.start_at, WallClock::system().now_ms())?);
    worker = worker.skips(&streams.evidence, skip_records(&settings));
    if job.role != Role::Detect {
        let aggregate = Aggregate::new(lanes);
        worker = worker.map(&streams.flows, &streams.exchange, lanes, kinds, job.snapshot.clone(), aggregate);
        worker = worker.reading(&streams.flows, reading(&config.input, &config.job));
    }
    if job.role != Role::Aggregate {
        let detect = detect(&job, settings.clone());
        worker = worker.reduce(&streams.exchange, Some(&streams.evidence), lanes, kinds, detect);
        let evidence = &streams.evidence;
        worker = worker.stage(evidence, correlate(&job, settings, lanes, outlets));
        worker = worker.reading(evidence, Reading::default());
    }
    worker.run(leave, end_input).await.context("the job cannot run")
}

fn detect(
    job: &Job,
    settings: Settings,
) -> impl Fn(&flowshift_consumer::stage::ShardContext) -> Detect + Send + Sync + 'static {
    let (metrics, seed) = (job.metrics.clone(), job.seed.clone());
    metrics.pairs.show(job.config.admin.top_pairs.into());
    move |_| Detect::new(settings.clone(), &metrics, seed.clone())
}

fn correlate(
    job: &Job,
    settings: Settings,
    lanes: Lanes,
    outlets: Arc<Outlets>,
) -> impl Fn(&flowshift_consumer::stage::ShardContext, Handle) -> Correlate + Send + Sync + 'static {
    let metrics = job.metrics.pipeline.clone();
    move |context, handle| {
        let outlet = outlets.open(handle.renewed(), handle.lost());
        Correlate::new(context.shard.clone(), settings.clone(), lanes.count(), outlet, metrics.clone())
    }
}

/// How the flows stream is read.
fn reading(input: &InputSettings, job: &JobName) -> Reading {
    let out_of_range = match input.kpl_out_of_range {
        KplOutOfRange::Drop => OutOfRange::Drop,
        KplOutOfRange::Keep => OutOfRange::Keep,
    };
    let fetch = match input.fetch {
        FetchMode::Polling => Fetch::Polling,
        FetchMode::Efo => Fetch::FanOut { consumer: input.consumer.clone().unwrap_or_else(|| job.to_string()) },
    };
    Reading { fetch, kpl: Some(Kpl { verify_md5: input.kpl_verify_md5, out_of_range }) }
}

/// Where a new job starts in the flows stream; the streams between the stages are read from their beginning.
///
/// # Errors
/// The time lies ahead of `now_ms`: Kinesis knows no place there.
fn start(at: StartAt, now_ms: i64) -> anyhow::Result<StartPosition> {
    match at {
        StartAt::TrimHorizon => Ok(StartPosition::TrimHorizon),
        StartAt::Latest => Ok(StartPosition::Latest),
        StartAt::Time(ms) if ms > now_ms => {
            anyhow::bail!("input.start_at: {at} lies in the future; use \"latest\" for what arrives from now on")
        }
        StartAt::Time(ms) => Ok(StartPosition::AtTimestamp(ms)),
    }
}

fn worker_config(job: &Job) -> WorkerConfig {
    let (config, engine) = (&job.config, &job.config.engine);
    let timing = Timing {
        lease: LeaseTimes { renewal: engine.renewal.get(), failover: engine.failover.get() },
        commit: engine.commit_interval.get(),
        batch: engine.batch_interval.get(),
        heartbeat: engine.batch_interval.get().max(engine.idle_after.get() / 6),
        poll: engine.poll_interval.get(),
        leader_lock: engine.leader_lock.get(),
        leader_beat: engine.leader_beat.get(),
        assign: engine.assign_interval.get(),
        discovery: engine.discovery.get(),
        idle_after: engine.idle_after.get(),
        stuck_after: engine.stuck_after.get(),
        foreign_watch: engine.foreign_watch.get(),
        ..Timing::default()
    };
    let state_mismatch = match engine.state_mismatch {
        StateMismatchPolicy::Fail => StateMismatch::Fail,
        StateMismatchPolicy::Discard => StateMismatch::Discard,
    };
    let worker = job.worker.clone();
    let crc_mismatch = match engine.crc_mismatch {
        CrcMismatchPolicy::Fail => CrcMismatch::Fail,
        CrcMismatchPolicy::Emit => CrcMismatch::Emit,
    };
    let (alone, config) = (job.alone, WorkerConfig::new(worker, tables(config)));
    WorkerConfig { timing, alone, state_mismatch, crc_mismatch, ..config }
}

/// A worker's id. Unique per process start: a restarted process must not be taken for the one before.
pub fn worker_id() -> WorkerId {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "worker".into());
    WorkerId::new(format!("{host}-{}-{:08x}", std::process::id(), rand::random::<u32>()))
}

/// Names and values of the tables a job's state is in.
pub fn tables(config: &Config) -> Tables {
    Tables::new(config.job.as_str())
        .with_state(&config.tables.state)
        .with_leases(&config.streams.flows, &config.tables.flows_leases)
        .with_leases(&config.streams.exchange, &config.tables.exchange_leases)
        .with_leases(&config.streams.evidence, &config.tables.evidence_leases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_cannot_start_at_a_time_that_is_to_come() {
        let now_ms = 1_795_334_400_000;
        assert_eq!(start(StartAt::Time(now_ms), now_ms).ok(), Some(StartPosition::AtTimestamp(now_ms)));
        assert_eq!(start(StartAt::Latest, now_ms).ok(), Some(StartPosition::Latest));
        let refused = start(StartAt::Time(now_ms + 1), now_ms).map_err(|e| e.to_string());
        assert_eq!(
            refused,
            Err("input.start_at: 2026-11-22T08:00:00.001Z lies in the future; use \"latest\" for what arrives from now on"
                .into())
        );
    }
}
