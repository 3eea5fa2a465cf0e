//! What `local`, `run` and `collect` share: the admin port, the collector, the rules and their reload, signals.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use flowshift_consumer::commit::Snapshot;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::operator::Operator;
use crate::admin::{self, Health};
use crate::collect::{self, CollectOptions, Collector, KinesisSink, KinesisStream, SinkOptions};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::stage::rules;
use crate::topology::Topology;

/// How often the topology file is looked at.
const RELOAD: Duration = Duration::from_secs(5);

/// A server on a bound address, with the way to stop it.
pub(super) struct Served {
    pub(super) address: std::net::SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Served {
    /// Finishes the requests being answered and ends the server.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!(error = %error, "server ended with an error");
        }
    }
}

async fn bind(address: std::net::SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{what} cannot listen on {address}"))
}

/// Serves metrics and probes, and an operator's door where the process reaches the job's state.
pub(super) async fn admin(
    config: &Config,
    metrics: &Metrics,
    health: &Health,
    operator: Option<Operator>,
) -> anyhow::Result<Served> {
    let listener = bind(config.admin.listen, "the admin port").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let until = stop.clone().cancelled_owned();
    let (metrics, health) = (metrics.clone(), health.clone());
    let task = tokio::spawn(async move { admin::serve(listener, metrics, health, operator, until).await });
    Ok(Served { address, stop, task })
}

/// The collector with its way into Kinesis.
pub(super) struct Door {
    pub(super) served: Served,
    collector: Collector,
    sink: Arc<KinesisSink>,
}

impl Door {
    /// Serves the collector.
    pub(super) async fn open(
        config: &Config,
        kinesis: aws_sdk_kinesis::Client,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let listener = bind(config.collect.listen, "the collector").await?;
        let address = listener.local_addr()?;
        let stream = Arc::new(KinesisStream::new(kinesis, config.streams.flows.clone()));
        let sink = Arc::new(KinesisSink::start(stream, metrics.collect.clone(), SinkOptions::default()));
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let options = CollectOptions {
            max_body_bytes: bytes(config.collect.max_body_bytes),
            max_decoded_bytes: bytes(config.collect.max_inflated_bytes),
            ..CollectOptions::default()
        };
        let collector = Collector::new(sink.clone(), metrics.collect.clone(), options);
        let stop = CancellationToken::new();
        let until = stop.clone().cancelled_owned();
        let serving = collector.clone();
        let task = tokio::spawn(async move { collect::serve(listener, &serving, until).await });
        Ok(Self { served: Served { address, stop, task }, collector, sink })
    }

    /// Refuses new requests, answers the ones inside, and returns when everything taken is in Kinesis.
    pub(super) async fn close(self) {
        self.collector.close().await;
        self.sink.close().await;
        self.served.stop().await;
    }
}

/// Reads the topology file of a configuration.
pub(super) fn topology(config: &Config) -> anyhow::Result<Topology> {
    let path = config.topology.as_deref();
    let path = path.context("no topology: give --topology FILE or set topology.file")?;
    let topology = read_topology(path)?;
    for range in topology.ambiguous() {
        tracing::warn!(%range, "range stands in several VPCs: flows that do not name theirs are unmapped");
    }
    Ok(topology)
}

fn read_topology(path: &Path) -> anyhow::Result<Topology> {
    let text = std::fs::read_to_string(path).with_context(|| format!("topology file {}", path.display()))?;
    Topology::parse(&text).with_context(|| format!("topology file {}", path.display()))
}

/// The current rules; a changed topology file becomes a new snapshot, a broken one is told and ignored.
pub(super) fn watch_rules(
    config: Arc<Config>,
    topology: &Topology,
    stop: CancellationToken,
) -> anyhow::Result<watch::Receiver<Snapshot>> {
    let (sender, receiver) = watch::channel(rules::snapshot_of(&config, topology)?);
    let Some(path) = config.topology.clone() else { return Ok(receiver) };
    tokio::spawn(async move {
        let mut changed = modified(&path);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RELOAD) => {}
            }
            let now = modified(&path);
            if now == changed {
                continue;
            }
            changed = now;
            match read_topology(&path).and_then(|t| Ok(rules::snapshot_of(&config, &t)?)) {
                Ok(snapshot) => {
                    if sender.send_if_modified(|old| std::mem::replace(old, snapshot.clone()) != snapshot) {
                        tracing::info!(file = %path.display(), snapshot = snapshot.hash(), "topology reloaded");
                    }
                }
                Err(error) => tracing::error!(error = format!("{error:#}"), "topology not reloaded, the old one stays"),
            }
        }
    });
    Ok(receiver)
}

fn modified(path: &PathBuf) -> Option<std::time::SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// Cancelled by the first SIGTERM or SIGINT. A second one ends the process at once, with exit code 1: what is committed
/// is safe, and the next start goes on from it.
/// From then on the program is not ready: nothing new is to be sent to it.
pub(super) fn signals(health: &Health) -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (told, health) = (token.clone(), health.clone());
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if first {
                tracing::info!("asked to stop; ask again to stop at once");
                health.block("leaving", "asked to stop");
                told.cancel();
            }
        }
        tracing::warn!("asked again: stopping without waiting");
        std::process::exit(1);
    });
    Ok(token)
}
