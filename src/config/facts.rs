//! What follows from a configuration for a given number of shards: the figures `config check` prints.
//!
//! Pure arithmetic on a checked [`Config`]; nothing is looked up. The batch interval is computed as the engine does it
//! ([`ShardCounts`]), which goes by the shards that are open.

use std::fmt;
use std::time::Duration;

use flowshift_consumer::exchange::ShardCounts;
use flowshift_detector::MEASURED_SLACK;

use super::Config;

/// Computed figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Time between batches of one input shard: the configured one, or longer when the exchange is too narrow.
    pub batch_interval: Duration,
    /// Exchange shards that make the configured batch interval possible.
    pub exchange_shards_needed: u64,
    /// Evidence in nats at which a pair alarms.
    pub threshold_nats: f64,
    /// Longest webhook timeout the lease times allow.
    pub longest_webhook_timeout: Duration,
    /// Odd but allowed, one sentence each.
    pub warnings: Vec<String>,
}

/// Computes the figures.
pub fn facts(config: &Config, shards: ShardCounts) -> Facts {
    let configured = config.engine.batch_interval.get();
    let possible = shards.least_interval(config.lanes.get());
    let needed = shards.exchange_needed(config.lanes.get(), configured);
    let step_seconds = config.detector.step.get().as_secs_f64();
    let steps_per_day = 86_400.0 / step_seconds;
    let bound = (1000.0 * steps_per_day / config.detector.false_alarms_per_1000_pair_days).ln();
    let threshold_nats = (bound - MEASURED_SLACK).max(7.0);
    let engine = &config.engine;
    let longest_webhook_timeout =
        engine.failover.get().saturating_sub(engine.renewal.get()).saturating_sub(Duration::from_secs(1));
    Facts {
        batch_interval: configured.max(possible),
        exchange_shards_needed: needed,
        threshold_nats,
        longest_webhook_timeout,
        warnings: warnings(config, configured, possible),
    }
}

fn warnings(config: &Config, configured: Duration, possible: Duration) -> Vec<String> {
    let mut warnings = Vec::new();
    if possible > configured {
        warnings
            .push(format!("the exchange stream is too narrow: batches every {possible:?}, not every {configured:?}"));
    }
    let (collect, admin) = (config.collect.listen, &config.admin);
    if !collect.ip().is_loopback() {
        warnings.push(format!("collect.listen {collect} is open to the network and has no authentication of its own"));
    }
    if !admin.listen.ip().is_loopback() {
        let listen = admin.listen;
        let token =
            if admin.token_file.is_some() || admin.token_env.is_some() { ", and tokens in clear text" } else { "" };
        warnings
            .push(format!("admin.listen {listen} is open to the network: it shows incidents to whoever asks{token}"));
    }
    if config.topology.is_none() {
        warnings.push("topology.file is not set: every record will be unmapped".to_owned());
    }
    for webhook in &config.webhooks {
        let loopback = webhook.url.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127."));
        if webhook.url.scheme() == "http" && !loopback {
            warnings.push(format!("webhook {} is sent in clear text", webhook.name));
        }
    }
    warnings
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "batch interval           {:?}", self.batch_interval)?;
        writeln!(f, "exchange shards needed   {}", self.exchange_shards_needed)?;
        writeln!(f, "alarm threshold          {:.2} nats", self.threshold_nats)?;
        writeln!(f, "longest webhook timeout  {:?}", self.longest_webhook_timeout)?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
