//! `flowshift local`: every stage, with Kinesis and DynamoDB inside the process and state on local disk.
//!
//! The same stages over the same SDK calls as on AWS. With `--drain` SIGTERM ends the input: the collector closes, every
//! source gets its END, everything is judged and delivered, and the exit code is 0.

use std::sync::Arc;

use flowshift_consumer::commit::Cut;
use flowshift_consumer::inspect;
use flowshift_consumer::lease::Checkpoint;
use flowshift_consumer::table::{Table, aws::DynamoTable};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::services::{self, Door};
use super::{Failure, load, preflight, print_line};
use crate::admin::Health;
use crate::admin::operator::Operator;
use crate::app::{self, Job, Role};
use crate::aws::Clients;
use crate::cli::Local;
use crate::config::{Config, Override, Settings};
use crate::embedded::Embedded;
use crate::metrics::Metrics;
use crate::telemetry;
use crate::webhook::Switches;

pub(super) async fn run(args: Local) -> Result<(), Failure> {
    let collect = args.collect.map(|a| Override::new("--collect", "collect.listen", a.to_string()));
    let loaded = load(&Settings::local_defaults(), &args.settings, collect.into_iter().collect())?;
    let config = Arc::new(loaded.config);
    telemetry::start(&config.log);
    let topology = services::topology(&config).map_err(Failure::usage)?;
    let metrics = Metrics::new().map_err(Failure::start)?;
    let health = Health::new();
    let stopping = services::signals(&health)?;

    let embedded = Embedded::start(&args.data_dir).await?;
    let clients = Clients::embedded(embedded.endpoints()).await.counted(&metrics.engine);
    Embedded::create_streams(&clients, &config.streams).await?;
    let switches = Switches::default();
    let leave = CancellationToken::new();
    let snapshot = services::watch_rules(Arc::clone(&config), &topology, leave.clone())?;
    let operator = Operator::open(&config, &clients, &metrics, &switches, snapshot.clone()).map_err(Failure::usage)?;
    let admin = services::admin(&config, &metrics, &health, Some(operator)).await?;
    let over = input_is_over(&config, &clients).await?;
    let door = Door::open(&config, clients.kinesis.clone(), &metrics).await?;
    let collect = door.served.address;
    // Nothing may slip in before the input is known to be over.
    let door = if over {
        door.close().await;
        None
    } else {
        Some(door)
    };
    if args.json {
        let ready = serde_json::json!({
            "type": "ready",
            "collect": collect.to_string(),
            "admin": admin.address.to_string(),
            "kinesis": embedded.endpoints().kinesis,
            "dynamodb": embedded.endpoints().dynamodb,
        });
        print_line(&ready.to_string());
    } else if !over {
        print_line(&format!("taking reports on http://{collect}, metrics on http://{}/metrics", admin.address));
    }
    health.mark_started();

    let (ends, end_input) = watch::channel(None);
    let json = args.json;
    let worker = app::worker_id();
    preflight::introduce(&config, Role::All, &worker, admin.address);
    let job = Job {
        worker,
        config: Arc::clone(&config),
        clients,
        metrics,
        snapshot,
        role: Role::All,
        seed: None,
        printer: Some(Arc::new(move |event: &str| print_line(&if json { event.to_owned() } else { sentence(event) }))),
        deliver: true,
        alone: true,
        switches,
    };
    let running = tokio::spawn(app::run(job, leave.clone(), end_input));
    let Some(door) = door else {
        eprintln!(
            "flowshift: the input of {} has ended (--drain): finishing what is left and taking nothing new; \
             give another --data-dir to start afresh",
            args.data_dir.display()
        );
        ends.send_replace(Some(Instant::now()));
        let ended = running.await.map_err(Failure::start)?;
        admin.stop().await;
        embedded.stop().await;
        return Ok(ended?);
    };
    let ended = wait(
        running,
        stopping,
        Box::new(move || {
            Box::pin(async move {
                door.close().await;
                if args.drain {
                    ends.send_replace(Some(Instant::now()));
                } else {
                    leave.cancel();
                }
                ends
            })
        }),
    )
    .await;
    admin.stop().await;
    embedded.stop().await;
    ended
}

/// Whether an earlier run of this data folder has ended its input: its watermarks stand at the end of time, so nothing new
/// could be judged.
async fn input_is_over(config: &Config, clients: &Clients) -> Result<bool, Failure> {
    let table = DynamoTable::new(clients.dynamodb.clone());
    let tables = app::tables(config);
    let flows = &config.streams.flows;
    table.ensure(&tables.leases(flows)).await.map_err(Failure::start)?;
    let rows = inspect::rows(&table, &tables, flows).await.map_err(Failure::start)?;
    let ended = |cut: &Cut| cut.end && cut.children.is_empty();
    Ok(rows.iter().any(|row| row.checkpoint != Checkpoint::ShardEnd && row.cut.as_ref().is_some_and(ended)))
}

type Stop = Box<dyn FnOnce() -> std::pin::Pin<Box<dyn Future<Output = watch::Sender<Option<Instant>>> + Send>> + Send>;

/// Waits for the job; on a signal stops it and waits on.
async fn wait(
    mut running: tokio::task::JoinHandle<anyhow::Result<()>>,
    stopping: CancellationToken,
    stop: Stop,
) -> Result<(), Failure> {
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = stopping.cancelled() => {
            let _ends = stop().await;
            running.await
        }
    };
    ended.map_err(Failure::start)?.map_err(Failure::from)
}

/// An event for people: its sentence.
fn sentence(event: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(event).unwrap_or_default();
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let kind = text("type").replace("anomaly.", "");
    format!("{kind:8} {} {} {}: {}", text("severity"), text("verdict"), text("incident"), text("summary"))
}
