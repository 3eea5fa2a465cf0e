//! The wiring of a job: which stage reads which stream, with what settings. Read [`run`] to see the data's whole way.

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
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::aws::Clients;
use crate::config::{
    Config, CrcMismatchPolicy, FetchMode, InputSettings, JobName, KplOutOfRange, SecretSource, StartAt,
    StateMismatchPolicy, Webhook,
};
use crate::metrics::Metrics;
use crate::stage::aggregate::Aggregate;
use crate::stage::correlate::{Correlate, Deliveries, Outlet, Printer, skip_records};
use crate::stage::detect::{Detect, Seed};
use crate::stage::rules;
use crate::webhook::{Deliverer, Endpoint, Gate, Secrets};

/// Feed kinds of a job: reports and flow logs.
pub const KINDS: u8 = 2;
/// Events waiting for the deliverer.
const QUEUE: usize = 256;

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
    let (metrics, seed) = (job.metrics.pipeline.clone(), job.seed.clone());
    move |_| Detect::new(settings.clone(), metrics.clone(), seed.clone())
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
    let worker = WorkerId::new(worker_name());
    let crc_mismatch = match engine.crc_mismatch {
        CrcMismatchPolicy::Fail => CrcMismatch::Fail,
        CrcMismatchPolicy::Emit => CrcMismatch::Emit,
    };
    let (alone, config) = (job.alone, WorkerConfig::new(worker, tables(config)));
    WorkerConfig { timing, alone, state_mismatch, crc_mismatch, ..config }
}

/// Unique per process start: a restarted process must not be taken for the one before.
fn worker_name() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "worker".into());
    format!("{host}-{}-{:08x}", std::process::id(), rand::random::<u32>())
}

/// Makes an outlet for each owner of the evidence stream's lease.
struct Outlets {
    printer: Option<Printer>,
    webhooks: Vec<Webhook>,
    metrics: Metrics,
    failover: std::time::Duration,
}

impl Outlets {
    fn new(job: &Job) -> anyhow::Result<Self> {
        let webhooks = if job.deliver { job.config.webhooks.as_slice() } else { &[] };
        // Made once at the start, so that a missing secret is told now and not with the first incident.
        for webhook in webhooks {
            endpoint(webhook)?;
        }
        Ok(Self {
            printer: job.printer.clone(),
            webhooks: webhooks.to_vec(),
            metrics: job.metrics.clone(),
            failover: job.config.engine.failover.get(),
        })
    }

    /// An outlet whose deliveries stop with the lease.
    fn open(&self, renewed: watch::Receiver<Option<Instant>>, lost: CancellationToken) -> Outlet {
        if self.webhooks.is_empty() {
            return Outlet::new(self.printer.clone(), None);
        }
        let longest = self.webhooks.iter().map(|w| w.timeout).max().unwrap_or_default();
        let gate = Gate::renewal(renewed, self.failover.saturating_sub(longest));
        let endpoints: Result<Vec<_>, _> = self.webhooks.iter().map(endpoint).collect();
        let deliverer = endpoints.and_then(|e| Ok(Deliverer::new(e, self.metrics.webhook.clone())?));
        let deliverer = match deliverer {
            Ok(deliverer) => deliverer,
            Err(error) => {
                // The same endpoints were made at the start: a secret has gone since. What is due stays in the outbox.
                tracing::error!(error = format!("{error:#}"), "webhooks cannot be delivered by this owner");
                return Outlet::held(self.printer.clone());
            }
        };
        let (queue, entries) = mpsc::channel(QUEUE);
        let (done, outcomes) = mpsc::channel(QUEUE);
        let drain = deliverer.drain_handle();
        tokio::spawn(deliverer.run(entries, done, gate, lost));
        Outlet::new(self.printer.clone(), Some(Deliveries { queue, outcomes, drain }))
    }
}

fn secrets(webhook: &Webhook) -> anyhow::Result<Secrets> {
    let read = match &webhook.secret {
        SecretSource::File(path) => Secrets::from_file(path),
        SecretSource::Env(name) => Secrets::from_env(name),
    };
    read.with_context(|| format!("secret of webhook {}", webhook.name))
}

/// The endpoint of a configured webhook.
///
/// # Errors
/// Its secret is missing, or its address forbidden.
pub fn endpoint(webhook: &Webhook) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::new(&webhook.name, webhook.url.as_str(), secrets(webhook)?)?;
    Ok(endpoint.with_timeout(webhook.timeout)?.with_max_age(webhook.max_age)?.with_muted(webhook.muted))
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

    /// It counted as delivered what nobody had sent, because there was no deliverer to wait for.
    #[tokio::test]
    async fn an_owner_whose_secret_is_gone_holds_what_is_due_and_the_next_owner_that_has_it_sends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let webhook = Webhook {
            name: "ops".into(),
            url: "http://127.0.0.1:9/hook".parse().unwrap(),
            secret: SecretSource::File(file.clone()),
            timeout: std::time::Duration::from_secs(1),
            max_age: std::time::Duration::from_secs(60),
            muted: false,
        };
        let metrics = Metrics::new().unwrap();
        let outlets =
            Outlets { printer: None, webhooks: vec![webhook], metrics, failover: std::time::Duration::from_secs(10) };
        let event = serde_json::json!({
            "id": "evt_1", "incident": "inc", "sequence": 1, "kind": "opened", "event": "{}", "body": "{}",
            "created_ms": 0, "printed": false, "delivered": false,
        });
        let outbox = serde_json::json!({ "entries": [event], "open": ["inc"], "dropped": 0 });
        let mut outbox: crate::stage::correlate::Outbox = serde_json::from_value(outbox).unwrap();
        outbox.commit();
        let (renewed, owner) = watch::channel(None);
        let mut without = outlets.open(owner, CancellationToken::new());
        without.send(&mut outbox);
        without.collect(&mut outbox);
        assert!(!outbox.is_delivered(), "{:?}", outbox.entries());

        std::fs::write(&file, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n").unwrap();
        let mut with = outlets.open(renewed.subscribe(), CancellationToken::new());
        with.send(&mut outbox);
        assert!(!outbox.is_delivered(), "not before the receiver has it");
        assert!(format!("{with:?}").contains("handed: 1"), "{with:?}");
    }

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
