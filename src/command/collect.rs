//! `flowshift collect`: the door alone, in front of Kinesis.
//!
//! A stream that is not there ends the start, since no waiting mends it; that AWS does not answer delays it by seconds, and
//! the probes ask neither. Read next: [`preflight`].

use super::services::{self, Door};
use super::{Failure, load, preflight, print_line};
use crate::admin::Health;
use crate::aws::Clients;
use crate::cli::Collect;
use crate::config::{Override, Settings};
use crate::metrics::Metrics;
use crate::telemetry;

pub(super) async fn run(args: Collect) -> Result<(), Failure> {
    let listen = args.listen.map(|a| Override::new("--listen", "collect.listen", a.to_string()));
    let loaded = load(&Settings::default(), &args.settings, listen.into_iter().collect())?;
    let config = loaded.config;
    telemetry::start(&config.log);
    let metrics = Metrics::new().map_err(Failure::start)?;
    let health = Health::new();
    let stopping = services::signals(&health)?;
    let clients = Clients::connect(&config.aws).await.map_err(Failure::start)?.counted(&metrics.engine);
    let admin = services::admin(&config, &metrics, &health, None).await?;
    preflight::flows(&config, &clients).await?;
    let door = Door::open(&config, clients.kinesis, &metrics).await?;
    health.mark_started();
    let (listen, admin_at, version) = (door.served.address, admin.address, env!("CARGO_PKG_VERSION"));
    let (commit, flows) = (preflight::COMMIT, &config.streams.flows);
    tracing::info!(version, commit, job = config.job.as_str(), collect = %listen, admin = %admin_at, flows, "collector starts");
    let (collect, metrics) = (door.served.address, admin.address);
    print_line(&if args.json {
        serde_json::json!({"type": "ready", "collect": collect, "admin": metrics}).to_string()
    } else {
        format!("taking reports on http://{collect}, metrics on http://{metrics}/metrics")
    });
    stopping.cancelled().await;
    door.close().await;
    admin.stop().await;
    Ok(())
}
