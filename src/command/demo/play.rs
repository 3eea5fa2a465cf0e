//! The course of the demo: set up, play, end the input, judge the outcome. Read [`run`] from top to bottom.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use flowshift_proto::anomaly::AnomalyEvent;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::feed::{self, Progress};
use super::outcome::Outcome;
use super::scene::{HISTORY_S, Scene};
use super::screen::Screen;
use super::text::{self, Header, Numbers, Status};
use crate::admin::Health;
use crate::app::{self, Job, Role};
use crate::aws::Clients;
use crate::cli::Demo;
use crate::command::Failure;
use crate::command::services::{self, Door};
use crate::embedded::Embedded;
use crate::metrics::Metrics;
use crate::metrics::pipeline::{PipelineMetrics, REASONS};
use crate::simulate::Region;
use crate::stage::detect::Seed;
use crate::stage::rules;
use crate::telemetry;
use crate::webhook::Switches;

/// How often the status line changes.
const TICK: Duration = Duration::from_millis(200);
/// The job must have ended this long after its input.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Runs the demo.
pub(in crate::command) async fn run(args: Demo) -> Result<(), Failure> {
    let began = Instant::now();
    let scene = Arc::new(Scene::new(args.seed)?);
    telemetry::start(&scene.config.log);
    let screen = Arc::new(Screen::new(args.json));
    let stopping = services::signals(&Health::new())?;
    let threshold = rules::detector_settings(&scene.config).map_err(Failure::start)?.pair_threshold();
    screen.say(&text::header(&header(&scene, threshold), screen.style()));

    screen.doing("  learning the baselines ...");
    let (learning, learned) = (Instant::now(), Arc::clone(&scene));
    let seeded = tokio::task::spawn_blocking(move || learned.baselines());
    let seeded = tokio::select! {
        seeded = seeded => seeded.context("learning the baselines")??,
        () = stopping.cancelled() => return Err(interrupted()),
    };
    let took = learning.elapsed().as_secs_f64();
    screen.end_status();
    screen.say(&text::learned(seeded.records_in, seeded.refused, HISTORY_S, took, screen.style()));

    let metrics = Metrics::new().map_err(Failure::start)?;
    let progress = Arc::new(Progress::default());
    let events = stage(&scene, seeded.lanes, &metrics, &progress, &screen, stopping, threshold).await?;

    let outcome = Outcome::judge(scene.region.planted(), scene.region.start_s(), &events);
    let numbers = numbers(&progress, &metrics.pipeline, began.elapsed());
    screen.say(&text::summary(&outcome, &numbers, screen.style()));
    let mut problems = outcome.problems();
    problems.extend(numbers.problem());
    if problems.is_empty() { Ok(()) } else { Err(anyhow!("not as planted: {}", problems.join("; ")).into()) }
}

/// Starts the services over a folder of their own, plays, and stops them whatever happened.
async fn stage(
    scene: &Scene,
    seed: Seed,
    metrics: &Metrics,
    progress: &Arc<Progress>,
    screen: &Arc<Screen>,
    stopping: CancellationToken,
    threshold: f64,
) -> Result<Vec<AnomalyEvent>, Failure> {
    let folder = tempfile::Builder::new().prefix("flowshift-demo-").tempdir().context("data folder of the demo")?;
    let embedded = Embedded::start(folder.path()).await?;
    let clients = Clients::embedded(embedded.endpoints()).await;
    let leave = CancellationToken::new();
    let teller = Arc::clone(screen);
    let job = Job {
        worker: app::worker_id(),
        config: Arc::clone(&scene.config),
        clients,
        metrics: metrics.clone(),
        snapshot: services::watch_rules(Arc::clone(&scene.config), &scene.topology, leave.clone())?,
        role: Role::All,
        seed: Some(Arc::new(seed)),
        printer: Some(Arc::new(move |event: &str| teller.event(event, threshold))),
        deliver: false,
        alone: true,
        switches: Switches::default(),
    };
    let ticking = tick(scene, metrics.pipeline.clone(), Arc::clone(progress), Arc::clone(screen));
    let played = tokio::select! {
        played = play(scene, job, metrics, progress, leave.clone()) => played.map_err(Failure::from),
        () = ticking => Err(anyhow!("the status ended before the demo").into()),
        () = stopping.cancelled() => Err(interrupted()),
    };
    leave.cancel();
    screen.end_status();
    embedded.stop().await;
    played?;
    Ok(screen.events())
}

/// Opens the door, lets the agents report, closes the door, and waits until everything is judged.
async fn play(
    scene: &Scene,
    job: Job,
    metrics: &Metrics,
    progress: &Progress,
    leave: CancellationToken,
) -> anyhow::Result<()> {
    Embedded::create_streams(&job.clients, &scene.config.streams).await?;
    let door = Door::open(&scene.config, job.clients.kinesis.clone(), metrics).await?;
    let collector = door.served.address;
    let (ends, end_input) = watch::channel(None);
    let mut running = tokio::spawn(app::run(job, leave, end_input));
    tokio::select! {
        played = feed::play(Arc::clone(&scene.region), collector, progress) => played?,
        ended = &mut running => {
            ended??;
            anyhow::bail!("the job ended before its input");
        }
    }
    door.close().await;
    ends.send_replace(Some(tokio::time::Instant::now()));
    tokio::time::timeout(END_LIMIT, running).await.context("the job does not end")??
}

/// Refreshes the status line for ever.
async fn tick(scene: &Scene, pipeline: PipelineMetrics, progress: Arc<Progress>, screen: Arc<Screen>) {
    let mut every = tokio::time::interval(TICK);
    let started = Instant::now();
    loop {
        every.tick().await;
        let offset_s = progress.offset_s.load(Ordering::Relaxed);
        let records = progress.records.load(Ordering::Relaxed);
        screen.status(&Status {
            at_s: scene.region.start_s() + offset_s,
            offset_s,
            length_s: Region::DEMO_SECONDS,
            reports: progress.reports.load(Ordering::Relaxed),
            records_per_s: records as f64 / started.elapsed().as_secs_f64().max(0.2),
            open: pipeline.incidents_open.get(),
        });
    }
}

fn header(scene: &Scene, threshold: f64) -> Header<'_> {
    let zones: std::collections::BTreeSet<&str> = scene.topology.subnets().iter().map(|s| s.az.as_str()).collect();
    Header {
        zones: zones.len(),
        subnets: scene.topology.subnets().len(),
        pairs: scene.region.pair_ids().len(),
        agents: scene.region.agents(),
        start_s: scene.region.start_s(),
        length_s: Region::DEMO_SECONDS,
        speed: feed::SPEED,
        threshold,
        step_s: scene.config.detector.step.get().as_secs(),
        planted: scene.region.planted(),
    }
}

fn numbers(progress: &Progress, pipeline: &PipelineMetrics, wall: Duration) -> Numbers {
    let rejected = REASONS.map(|reason| (reason, pipeline.records_rejected.with_label_values(&[reason]).get()));
    Numbers {
        reports: progress.reports.load(Ordering::Relaxed),
        sent: progress.records.load(Ordering::Relaxed),
        records_in: pipeline.records_in.with_label_values(&["reports"]).get(),
        accounted: pipeline.records_accounted.get(),
        rejected: rejected.into_iter().filter(|(_, count)| *count > 0).collect(),
        wall_s: wall.as_secs_f64(),
    }
}

fn interrupted() -> Failure {
    anyhow!("interrupted").into()
}
